//! What a dialogue with one Redis cannot show of subscriptions and MONITOR: several workers, nodes that come and go,
//! connections that are cut, large replies and slow readers in between.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use portico::sandbox::{Cluster, ClusterOptions};
use portico_tests::live::{SlotMove, fail_over, key_in_slot, tags_in};
use portico_tests::{Client, Frame, Portico, encode, show};

const QUIET: Duration = Duration::from_millis(300);

/// The words of a push or an array.
fn words(frame: &[u8]) -> Vec<String> {
    let (frame, _) = Frame::read(frame);
    let bodies = frame.elements().iter().filter_map(Frame::body);
    bodies.map(|body| String::from_utf8_lossy(body).into_owned()).collect()
}

/// All that comes until nothing comes any more.
fn heard(client: &mut Client) -> Result<Vec<Vec<String>>> {
    let mut heard = Vec::new();
    while let Some(frame) = client.within(QUIET)? {
        heard.push(words(&frame));
    }
    Ok(heard)
}

fn subscriber(portico: &Portico, line: &str) -> Result<Client> {
    let mut client = portico.client()?;
    client.line(line)?;
    Ok(client)
}

/// How many clients each worker has.
fn workers(client: &mut Client) -> Result<Vec<usize>> {
    let info = String::from_utf8(client.call(&["INFO", "portico"])?)?;
    let clients = |line: &str| line.split_once(":clients=")?.1.split(',').next()?.parse().ok();
    Ok(info.lines().filter(|line| line.starts_with("portico_worker")).filter_map(clients).collect())
}

/// A client whose worker is not the first: while that has too much to do.
fn client_of_another_worker(portico: &Portico, watcher: &mut Client) -> Result<Option<Client>> {
    let ended = AtomicBool::new(false);
    let flood = || -> Result<()> {
        let client = portico.client()?;
        let text = "x".repeat(100);
        let (requests, mut replies) = (encode(&["ECHO", &text]).repeat(3000), vec![0; (100 + 8) * 3000]);
        while !ended.load(Ordering::Relaxed) {
            client.stream().write_all(&requests)?;
            client.stream().read_exact(&mut replies)?;
        }
        Ok(())
    };
    scope(|scope| {
        scope.spawn(flood);
        scope.spawn(flood);
        let found = (|| {
            let deadline = Instant::now() + Duration::from_secs(20);
            while Instant::now() < deadline {
                sleep(Duration::from_millis(100));
                let before = workers(watcher)?;
                let client = portico.client()?;
                sleep(Duration::from_millis(50));
                if workers(watcher)?[1] > before[1] {
                    return Ok(Some(client));
                }
            }
            Ok(None)
        })();
        ended.store(true, Ordering::Relaxed);
        found
    })
}

#[test]
fn subscribers_of_several_workers_are_counted_once_and_hear_everything() -> Result<()> {
    let cluster = Cluster::start(ClusterOptions::default())?;
    let portico = Portico::start(&cluster, &["--workers", "2"])?;
    let mut mouth = portico.client()?;
    let Some(mut other) = client_of_another_worker(&portico, &mut mouth)? else {
        println!("the machine is too busy for a second worker to be used");
        return Ok(());
    };
    let mut ears = subscriber(&portico, "SUBSCRIBE ch")?;
    other.hello3()?;
    for line in ["SUBSCRIBE ch", "PSUBSCRIBE c*", "SSUBSCRIBE sh"] {
        other.line(line)?;
    }
    mouth.expect("PUBLISH ch 1", ":3\r\n")?;
    mouth.expect("PUBLISH cx 2", ":1\r\n")?;
    mouth.expect("SPUBLISH sh 3", ":1\r\n")?;
    mouth.expect("PUBSUB NUMSUB ch cx", "*4\r\n$2\r\nch\r\n:2\r\n$2\r\ncx\r\n:0\r\n")?;
    mouth.expect("PUBSUB NUMPAT", ":1\r\n")?;
    mouth.expect("PUBSUB CHANNELS", "*1\r\n$2\r\nch\r\n")?;
    mouth.expect("PUBSUB SHARDNUMSUB sh", "*2\r\n$2\r\nsh\r\n:1\r\n")?;
    ensure!(heard(&mut ears)?.len() == 1);
    let told = heard(&mut other)?;
    ensure!(told.len() == 4, "{told:?}");
    let mut monitor = subscriber(&portico, "MONITOR")?;
    other.expect("ECHO hi", "$2\r\nhi\r\n")?;
    let line = String::from_utf8(monitor.reply()?)?;
    let address = other.stream().local_addr()?;
    ensure!(line.ends_with(&format!(" [0 {address}] \"ECHO\" \"hi\"\r\n")), "{line}");
    Ok(())
}

#[test]
fn subscriptions_come_back_when_connections_are_cut_and_nothing_comes_twice() -> Result<()> {
    let cluster = Cluster::start(ClusterOptions { replicas: 1, ..ClusterOptions::default() })?;
    let portico = Portico::start(&cluster, &[])?;
    let names = tags_in(&(0..=16_383), 30, "c");
    let all = names.join(" ");
    let mut ears = [subscriber(&portico, "PSUBSCRIBE c*")?, portico.client()?, portico.client()?];
    ears[1].request(&[vec!["SUBSCRIBE"], all.split(' ').collect()].concat())?;
    ears[1].replies(names.len())?;
    ears[2].request(&[vec!["SSUBSCRIBE"], all.split(' ').collect()].concat())?;
    ears[2].replies(names.len())?;
    let mut mouth = portico.client()?;
    let mut say = |text: &str| -> Result<()> {
        for name in &names {
            for command in ["PUBLISH", "SPUBLISH"] {
                let reply = mouth.call(&[command, name, text])?;
                ensure!(reply.starts_with(b":"), "{command}: {}", show(&reply));
            }
        }
        Ok(())
    };
    for round in 0..4 {
        match round {
            1 => cluster
                .nodes()
                .iter()
                .try_for_each(|node| node.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]).map(drop))?,
            2 => cluster
                .nodes()
                .iter()
                .try_for_each(|node| node.ask(&["CLIENT", "KILL", "TYPE", "normal"]).map(drop))?,
            3 => drop(fail_over(&cluster, [0, 3])?),
            _ => {}
        }
        // What is said while nobody is connected may be missed; then everything is heard.
        sleep(Duration::from_millis(1500));
        say(&format!("round {round}"))?;
        for (ears, frames) in ears.iter_mut().zip([1, 1, 1]) {
            let heard = heard(ears)?;
            let due = names.len() * frames;
            ensure!(
                heard.len() == due,
                "round {round}: {} instead of {due}: {:?}",
                heard.len(),
                heard.first()
            );
            ensure!(
                heard.iter().all(|words| words.last().is_some_and(|text| *text == format!("round {round}")))
            );
        }
    }
    Ok(())
}

#[test]
fn masters_that_join_tell_of_their_keys_and_commands_too() -> Result<()> {
    let mut cluster = Cluster::start(ClusterOptions::default())?;
    let portico = Portico::start(&cluster, &["--refresh-interval", "300"])?;
    let mut mouth = portico.client()?;
    mouth.expect("CONFIG SET notify-keyspace-events KEA", "+OK\r\n")?;
    let mut ears = subscriber(&portico, "PSUBSCRIBE __keyevent@0__:*")?;
    let mut direct = subscriber(&portico, "SUBSCRIBE __keyevent@0__:set plain")?;
    direct.reply()?;
    let mut monitor = subscriber(&portico, "MONITOR")?;
    let joined = cluster.add_node()?;
    let slot = 100;
    let key = key_in_slot(slot, "k");
    SlotMove { cluster: &cluster, pause: Duration::from_millis(5) }.run(slot, 0, joined)?;
    sleep(Duration::from_millis(1500));
    heard(&mut ears)?;
    while monitor.within(QUIET)?.is_some() {}
    mouth.call(&["SET", &key, "1"])?;
    mouth.call(&["PUBLISH", "plain", "hi"])?;
    let told = heard(&mut ears)?;
    ensure!(told.len() == 1 && told[0][2] == "__keyevent@0__:set", "{told:?}");
    let told = heard(&mut direct)?;
    ensure!(told.len() == 2, "{told:?}");
    let line = String::from_utf8(monitor.reply()?)?;
    ensure!(line.contains(&format!("\"SET\" \"{key}\" \"1\"")), "{line}");
    Ok(())
}

#[test]
fn monitor_tells_what_all_masters_do_and_nothing_of_porticos_own() -> Result<()> {
    let cluster = Cluster::start(ClusterOptions::default())?;
    let portico = Portico::start(&cluster, &["--refresh-interval", "200"])?;
    let mut monitors = [portico.client()?, portico.client()?];
    monitors[1].hello3()?;
    for monitor in &mut monitors {
        monitor.expect("MONITOR", "+OK\r\n")?;
    }
    let mut mouth = portico.client()?;
    let names = tags_in(&(0..=16_383), 10, "k");
    for name in &names {
        mouth.call(&["SET", name, "a b"])?;
    }
    // In the first seconds connections are made, pinged and asked for the map.
    sleep(Duration::from_millis(2500));
    for monitor in &mut monitors {
        let mut lines = Vec::new();
        while let Some(line) = monitor.within(QUIET)? {
            lines.push(String::from_utf8(line)?);
        }
        ensure!(lines.len() == names.len(), "{lines:#?}");
        for name in &names {
            let told =
                lines.iter().filter(|line| line.ends_with(&format!("] \"SET\" \"{name}\" \"a b\"\r\n")));
            ensure!(told.count() == 1, "{name}: {lines:#?}");
        }
    }
    let [first, second] = &mut monitors;
    first.expect("GET k", "-ERR Replica can't interact with the keyspace\r\n")?;
    first.expect("PING", "+PONG\r\n")?;
    ensure!(first.reply()?.ends_with(b"] \"PING\"\r\n"));
    first.expect("RESET", "+RESET\r\n")?;
    first.expect("GET k", "$-1\r\n")?;
    mouth.call(&["GET", "last"])?;
    second.expect("QUIT", "+OK\r\n").or_else(|_| anyhow::Ok(()))?;
    ensure!(first.within(QUIET)?.is_none());
    Ok(())
}

#[test]
fn a_message_never_comes_in_the_middle_of_a_reply() -> Result<()> {
    let cluster = Cluster::start(ClusterOptions::default())?;
    let portico = Portico::start(&cluster, &[])?;
    let (mut client, mut mouth) = (portico.client()?, portico.client()?);
    client.hello3()?;
    client.line("SUBSCRIBE ch")?;
    let value = "v".repeat(20 << 20);
    mouth.call(&["SET", "large", &value])?;
    client.request(&["GET", "large"])?;
    client.request(&["PING"])?;
    sleep(Duration::from_millis(300));
    for number in 0..100 {
        mouth.expect(&format!("PUBLISH ch {number}"), ":1\r\n")?;
    }
    let mut numbers = Vec::new();
    let mut others = Vec::new();
    for _ in 0..102 {
        let frame = client.reply()?;
        match frame.first() {
            Some(b'>') => numbers.push(words(&frame)[2].parse::<usize>()?),
            _ => others.push(frame),
        }
    }
    ensure!(numbers == (0..100).collect::<Vec<_>>(), "{numbers:?}");
    ensure!(others.len() == 2 && others[0].len() > value.len() && others[1] == b"+PONG\r\n");
    Ok(())
}

#[test]
fn one_who_reads_too_slowly_for_too_long_is_closed() -> Result<()> {
    let cluster = Cluster::start(ClusterOptions::default())?;
    let limit = "normal 0 0 0 pubsub 0 1mb 1";
    let portico = Portico::start(&cluster, &["--client-output-buffer-limit", limit])?;
    portico.expect_log("overcoming of output buffer limits");
    let (mut deaf, mut ears) = (subscriber(&portico, "SUBSCRIBE ch")?, subscriber(&portico, "SUBSCRIBE ch")?);
    let (mut mouth, text) = (portico.client()?, "t".repeat(1 << 20));
    for _ in 0..20 {
        mouth.call(&["PUBLISH", "ch", &text])?;
        ears.reply()?;
    }
    mouth.expect("PUBSUB NUMSUB ch", "*2\r\n$2\r\nch\r\n:2\r\n")?;
    sleep(Duration::from_millis(3500));
    mouth.expect("PUBSUB NUMSUB ch", "*2\r\n$2\r\nch\r\n:1\r\n")?;
    ensure!(deaf.rest()?.len() < 20 << 20);
    mouth.expect("PUBLISH ch last", ":1\r\n")?;
    ensure!(words(&ears.reply()?)[2] == "last");
    Ok(())
}

#[test]
fn subscriptions_begin_in_a_transaction_and_without_replies() -> Result<()> {
    let cluster = Cluster::start(ClusterOptions::default())?;
    let portico = Portico::start(&cluster, &[])?;
    let (mut client, mut mouth) = (portico.client()?, portico.client()?);
    client.expect("MULTI", "+OK\r\n")?;
    client.expect("SET k v", "+QUEUED\r\n")?;
    client.expect("SUBSCRIBE one two", "+QUEUED\r\n")?;
    let confirmed = "*2\r\n+OK\r\n*3\r\n$9\r\nsubscribe\r\n$3\r\none\r\n:1\r\n";
    client.expect("EXEC", confirmed).context("EXEC")?;
    ensure!(client.reply()? == b"*3\r\n$9\r\nsubscribe\r\n$3\r\ntwo\r\n:2\r\n");
    mouth.expect("PUBLISH two hi", ":1\r\n")?;
    ensure!(words(&client.reply()?) == ["message", "two", "hi"]);
    let mut quiet = portico.client()?;
    quiet.hello3()?;
    quiet.send(
        &[encode(&["CLIENT", "REPLY", "OFF"]), encode(&["SUBSCRIBE", "one"]), encode(&["GET", "k"])].concat(),
    )?;
    ensure!(words(&quiet.reply()?)[..2] == ["subscribe", "one"]);
    mouth.expect("PUBLISH one hi", ":2\r\n")?;
    ensure!(words(&quiet.reply()?) == ["message", "one", "hi"]);
    Ok(())
}
