//! Messages under faults: never twice, never out of order, and none lost once the cluster is quiet again.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use portico::sandbox::{Cluster, ClusterOptions, Server, ServerOptions};
use portico_tests::live::{
    ErrorWords, SlotMove, fail_over, failing_over, key_in_slot, side_by_side, tags_in, to_and_fro,
    wait_until_master,
};
use portico_tests::{Client, Frame, Portico, encode, on_a_calm_machine, show};

const SUBSCRIBERS: usize = 6;
const PUBLISHERS: usize = 3;
/// A subscriber that hears nothing for so long after the last message has heard all.
const QUIET: Duration = Duration::from_millis(700);

/// Where messages go.
struct Channels {
    plain: Vec<String>,
    sharded: Vec<String>,
}

impl Channels {
    fn over(slots: &[u16]) -> Self {
        let names = |kind| slots.iter().map(|&slot| key_in_slot(slot, kind)).collect();
        Channels { plain: names("plain"), sharded: names("sharded") }
    }
}

/// What a client did: numbers by what it subscribed to, channel and publisher; or what it published.
#[derive(Default)]
struct Record {
    heard: BTreeMap<(String, String, usize), Vec<u32>>,
    /// By channel: all numbers that were published, and the first one after the cluster was quiet again.
    published: BTreeMap<String, Vec<u32>>,
    settled_from: Option<u32>,
    errors: ErrorWords,
}

/// What a subscriber of this number subscribes to: channels, patterns or sharded channels.
fn subscriptions(me: usize, channels: &Channels) -> (&'static str, Vec<String>) {
    match me % 3 {
        0 => ("SUBSCRIBE", channels.plain.clone()),
        1 => ("PSUBSCRIBE", vec!["plain*".to_owned(), "p*".to_owned()]),
        _ => ("SSUBSCRIBE", channels.sharded.clone()),
    }
}

/// Subscribes and listens until nothing comes any more.
fn listen(me: usize, port: u16, channels: &Channels, stop: &AtomicBool) -> Result<Record> {
    let (mut wire, mut record) = (Client::connect(port)?, Record::default());
    if me % 2 == 1 {
        wire.hello3()?;
    }
    let (command, names) = subscriptions(me, channels);
    let line: Vec<&str> = std::iter::once(command).chain(names.iter().map(String::as_str)).collect();
    wire.request(&line)?;
    for (count, name) in (1..).zip(&names) {
        let reply = wire.reply()?;
        let kind = if me % 2 == 1 { '>' } else { '*' };
        let word = command.to_lowercase();
        let due =
            format!("{kind}3\r\n${}\r\n{word}\r\n${}\r\n{name}\r\n:{count}\r\n", word.len(), name.len());
        ensure!(reply == due.as_bytes(), "{command}: {}", show(&reply));
    }
    loop {
        let stopped = stop.load(Ordering::Relaxed);
        let Some(message) = wire.within(QUIET)? else {
            if stopped {
                return Ok(record);
            }
            continue;
        };
        let (frame, _) = Frame::read(&message);
        let words: Vec<String> = frame.elements().iter().filter_map(Frame::body).map(lossy).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let (to, channel, text) = match words[..] {
            ["message" | "smessage", channel, text] => (channel, channel, text),
            ["pmessage", pattern, channel, text] => (pattern, channel, text),
            _ => anyhow::bail!("{command}: no message: {}", show(&message)),
        };
        let (publisher, number) = text.split_once(':').context("a message of another's")?;
        let entry = record.heard.entry((to.to_owned(), channel.to_owned(), publisher.parse()?)).or_default();
        let (number, last) = (number.parse()?, entry.last().copied());
        ensure!(
            last.is_none_or(|last| last < number),
            "{channel}, publisher {publisher}: {number} after {last:?}: twice or out of order"
        );
        entry.push(number);
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Publishes to all channels in turn; when all is quiet, everybody must be counted.
fn publish(
    me: usize,
    port: u16,
    channels: &Channels,
    settled: &AtomicBool,
    stop: &AtomicBool,
) -> Result<Record> {
    let (mut wire, mut record) = (Client::connect(port)?, Record::default());
    let all: Vec<(&str, &String)> = channels
        .plain
        .iter()
        .map(|name| ("PUBLISH", name))
        .chain(channels.sharded.iter().map(|name| ("SPUBLISH", name)))
        .collect();
    for number in 0u32.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let is_settled = settled.load(Ordering::Relaxed);
        if is_settled {
            record.settled_from.get_or_insert(number);
        }
        let (command, channel) = all[number as usize % all.len()];
        let reply = wire.call(&[command, channel, &format!("{me}:{number}")])?;
        if reply.starts_with(b"-") {
            record.errors.add(&reply);
            ensure!(!is_settled, "{command} {channel}: {}", show(&reply));
        } else if is_settled {
            // A third of the subscribers each; a pattern's have two that match.
            let heard = if command == "PUBLISH" { SUBSCRIBERS } else { SUBSCRIBERS / 3 };
            let receivers: usize = lossy(&reply).trim_start_matches(':').trim().parse()?;
            ensure!(receivers == heard, "{command} {channel}: {receivers} receivers instead of {heard}");
        }
        record.published.entry(channel.clone()).or_default().push(number);
        sleep(Duration::from_millis(2));
    }
    Ok(record)
}

/// Whether every subscriber heard all that was published after the cluster was quiet again.
fn check(records: &[Record], channels: &Channels) -> Result<ErrorWords> {
    let (subscribers, publishers) = records.split_at(SUBSCRIBERS);
    let (mut errors, mut heard, mut due) = (ErrorWords::default(), 0, 0);
    for (me, subscriber) in subscribers.iter().enumerate() {
        heard += subscriber.heard.values().map(Vec::len).sum::<usize>();
        let (command, names) = subscriptions(me, channels);
        let sources = if command == "PSUBSCRIBE" { &channels.plain } else { &names };
        for (source, channel) in
            names.iter().flat_map(|name| sources.iter().map(move |source| (name, source)))
        {
            if command != "PSUBSCRIBE" && source != channel {
                continue;
            }
            for (number, publisher) in publishers.iter().enumerate() {
                let from = publisher.settled_from.context("it was never quiet")?;
                let after = |numbers: Option<&Vec<u32>>| -> Vec<u32> {
                    numbers.into_iter().flatten().copied().filter(|number| *number >= from).collect()
                };
                let key = (source.clone(), channel.clone(), SUBSCRIBERS + number);
                let (got, sent) =
                    (after(subscriber.heard.get(&key)), after(publisher.published.get(channel)));
                ensure!(!sent.is_empty(), "nothing was published to {channel}");
                due += sent.len();
                let missed = sent.iter().find(|number| !got.contains(number));
                ensure!(
                    missed.is_none(),
                    "subscriber {me} ({command} {source}) missed {missed:?} of {channel}"
                );
            }
        }
    }
    publishers.iter().for_each(|publisher| errors.merge(&publisher.errors));
    println!("pubsub: {heard} messages heard, {due} of them due, {errors}");
    Ok(errors)
}

fn crew<R>(
    port: u16,
    channels: &Channels,
    faults: impl FnOnce(&AtomicBool) -> Result<R>,
) -> Result<(Vec<Record>, R)> {
    let settled = AtomicBool::new(false);
    let work = |me: usize, stop: &AtomicBool| match me {
        0..SUBSCRIBERS => listen(me, port, channels, stop),
        _ => {
            sleep(Duration::from_millis(300));
            publish(me, port, channels, &settled, stop)
        }
    };
    side_by_side(SUBSCRIBERS + PUBLISHERS, work, || faults(&settled))
}

#[test]
fn the_same_on_a_redis() -> Result<()> {
    on_a_calm_machine(|| {
        let redis = Server::start(ServerOptions::default())?;
        let channels = Channels::over(&[1, 2_000, 9_000, 16_000]);
        let (records, ()) = crew(redis.port(), &channels, |settled| {
            sleep(Duration::from_millis(500));
            settled.store(true, Ordering::Relaxed);
            sleep(Duration::from_millis(500));
            Ok(())
        })?;
        check(&records, &channels)?.expect_only(&[])?;
        // A message that comes again is noticed.
        let twice = crew(redis.port(), &channels, |_| {
            sleep(Duration::from_millis(500));
            redis.ask(&["PUBLISH", &channels.plain[0], &format!("{SUBSCRIBERS}:0")])?;
            sleep(Duration::from_millis(100));
            Ok(())
        });
        ensure!(twice.is_err(), "a message that comes again is not noticed");
        full_house(redis.port(), 200, None)
    })
}

#[test]
fn messages_survive_what_happens_to_the_cluster() -> Result<()> {
    on_a_calm_machine(|| {
        let mut cluster = Cluster::start(failing_over())?;
        let portico = Portico::start(&cluster, &[])?;
        let moved = [6_000, 7_000, 8_000, 9_000];
        let channels = Channels::over(&[&moved[..], &[100, 3_000, 12_000, 16_000]].concat());
        let (records, ()) = crew(portico.port(), &channels, |settled| {
            sleep(Duration::from_secs(1));
            to_and_fro(&cluster, &moved, [1, 2], Duration::from_secs(3))?;
            fail_over(&cluster, [2, 5])?;
            sleep(Duration::from_secs(1));
            cluster.node(0).kill()?;
            wait_until_master(&cluster, 3)?;
            // Who moves a slot and leaves it there must not lose its subscribers either.
            cluster.wait_until_agreed()?;
            SlotMove { cluster: &cluster, pause: Duration::from_millis(5) }.run(moved[0], 1, 3)?;
            sleep(Duration::from_secs(3));
            settled.store(true, Ordering::Relaxed);
            sleep(Duration::from_millis(1500));
            Ok(())
        })?;
        check(&records, &channels)?.expect_only(&["UNKNOWN", "CLUSTERDOWN"])
    })
}

/// All that a subscriber of everything hears of messages and of keys all over the slots.
fn everything(port: u16) -> Result<Vec<Vec<u8>>> {
    let (mut ears, mut mouth) = (Client::connect(port)?, Client::connect(port)?);
    let names = tags_in(&(0..=16_383), 40, "k");
    ears.line("PSUBSCRIBE *")?;
    for name in &names {
        mouth.line(&format!("PUBLISH {name} message"))?;
        mouth.line(&format!("SET {name} 1"))?;
        mouth.line(&format!("DEL {name}"))?;
    }
    let mut heard = Vec::new();
    while let Some(message) = ears.within(QUIET)? {
        heard.push(message);
    }
    heard.sort();
    Ok(heard)
}

#[test]
fn who_subscribes_to_everything_hears_each_message_once_and_all_keys() -> Result<()> {
    on_a_calm_machine(|| {
        let args = ["--notify-keyspace-events", "KEA"].map(str::to_owned).to_vec();
        let redis = Server::start(ServerOptions { args: args.clone(), ..ServerOptions::default() })?;
        let due = everything(redis.port())?;
        ensure!(due.len() == 40 * 5, "a Redis tells {}", due.len());
        let options = ClusterOptions { replicas: 1, extra_args: args, ..ClusterOptions::default() };
        let cluster = Cluster::start(options)?;
        let portico = Portico::start(&cluster, &[])?;
        for round in 0..2 {
            let heard = everything(portico.port())?;
            let differ = heard.iter().zip(&due).find(|(heard, due)| heard != due);
            let differ = differ.map(|(heard, due)| (show(heard), show(due)));
            ensure!(heard == due, "round {round}: {} of {}; {differ:?}", heard.len(), due.len());
            if round == 0 {
                fail_over(&cluster, [0, 3])?;
                sleep(Duration::from_millis(1500));
            }
        }
        Ok(())
    })
}

const MESSAGES: usize = 30;
/// What fills the one who does not read: far more than sockets and the limit hold.
const BULK: usize = 400;
const BULK_BYTES: usize = 100_000;
const LIMIT: &str = "1mb";

/// So many subscribers of one channel, of whom one does not read, and hears a bulky channel besides.
fn full_house(port: u16, subscribers: usize, portico: Option<&Portico>) -> Result<()> {
    let mut house = Vec::with_capacity(subscribers);
    for _ in 0..subscribers {
        let mut client = Client::connect(port)?;
        client.request(&["SUBSCRIBE", "house"])?;
        house.push(client);
    }
    house.iter_mut().try_for_each(|client| client.reply().map(drop))?;
    let mut deaf = Client::connect(port)?;
    deaf.line("SUBSCRIBE house")?;
    deaf.request(&["SUBSCRIBE", "bulk"])?;
    let (mut mouth, mut bulky) = (Client::connect(port)?, Client::connect(port)?);
    let before = portico.map(Portico::memory).transpose()?;
    let text = "x".repeat(100);
    let due: Vec<u8> =
        (0..MESSAGES).flat_map(|number| encode(&["message", "house", &format!("{number}{text}")])).collect();
    let (began, bulk) = (Instant::now(), "b".repeat(BULK_BYTES));
    let mut counts = Vec::new();
    for number in 0..MESSAGES {
        let reply = mouth.line(&format!("PUBLISH house {number}{text}"))?;
        counts.push(lossy(&reply[1..]).trim().parse::<usize>()?);
        for _ in 0..BULK / MESSAGES {
            bulky.call(&["PUBLISH", "bulk", &bulk])?;
        }
    }
    let with_the_deaf = counts.iter().filter(|count| **count == subscribers + 1).count();
    ensure!(counts[0] == subscribers + 1, "{} receivers instead of {}", counts[0], subscribers + 1);
    ensure!(counts.iter().all(|count| *count >= subscribers), "receivers: {counts:?}");
    println!("pubsub: {MESSAGES} messages to {subscribers} in {:?}", began.elapsed());
    for client in &mut house {
        let heard: Vec<u8> = client.replies(MESSAGES)?.concat();
        ensure!(heard == due, "another message: {}", show(&heard));
    }
    if let (Some(portico), Some(before)) = (portico, before) {
        let grown = portico.peak_memory()?.saturating_sub(before);
        println!(
            "pubsub: {} MB for {subscribers} subscribers, {} MB more at most",
            before >> 20,
            grown >> 20
        );
        ensure!(grown < 100 << 20, "memory grew by {} MB", grown >> 20);
        ensure!(with_the_deaf < MESSAGES, "the one who does not read was not closed");
        let heard = deaf.rest()?;
        ensure!(heard.len() < BULK * BULK_BYTES, "the one who does not read got everything");
    }
    Ok(())
}

#[test]
fn one_of_thousands_who_does_not_read_harms_nobody() -> Result<()> {
    on_a_calm_machine(|| {
        let cluster = Cluster::start(ClusterOptions::default())?;
        let portico = Portico::start(&cluster, &["--client-output-buffer-limit", LIMIT])?;
        portico.expect_log("output buffer limits");
        full_house(portico.port(), 5000, Some(&portico))
    })
}
