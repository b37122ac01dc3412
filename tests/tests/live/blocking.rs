//! Queues under faults: what was pushed is popped once or is still there, whoever waits, leaves or moves.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use portico::sandbox::{Cluster, ClusterOptions, Server, ServerOptions};
use portico_tests::live::{
    Direct, ErrorWords, cut_connections, error_count, fail_over, failing_over, key_in_slot, shards,
    side_by_side, tags_in, to_and_fro_resting, wait_until_master,
};
use portico_tests::{Client, Frame, Portico, Random, ensure_timely, on_a_calm_machine, show};
use redis_protocol::resp2::types::BytesFrame;

const PRODUCERS: usize = 3;
const CONSUMERS_OF_ONE: usize = 3;
/// Consumers that leave without a word while they wait.
const QUITTERS: usize = 3;
/// Nobody is told nil before his time; Redis' own clock ticks a hundred times a second.
const EARLY: Duration = Duration::from_millis(20);

/// A node that has lost a slot sends its waiting clients away within a second. A slot that comes back sooner finds its
/// BLMOVE still there, woken by the first push although the list that it moves to is yet to come: Redis' own fault.
const GONE: Duration = Duration::from_millis(1200);

/// A list or a sorted set; beside it a list of what was moved out of it.
struct Queue {
    key: String,
    moved: String,
    sorted: bool,
}

fn queues(tags: &[String]) -> Vec<Queue> {
    let queue = |(index, tag): (usize, &String)| Queue {
        key: format!("{{{tag}}}queue"),
        moved: format!("{{{tag}}}moved"),
        sorted: index % 3 == 2,
    };
    tags.iter().enumerate().map(queue).collect()
}

struct Element {
    queue: usize,
    /// When it was pushed; None: nobody knows whether it was.
    at: Option<Instant>,
}

/// What one client did.
#[derive(Default)]
struct Record {
    pushed: BTreeMap<String, Element>,
    popped: Vec<(String, Instant)>,
    moved: Vec<(String, Instant)>,
    /// How often it left while it waited.
    left: u64,
    longest: Duration,
    errors: ErrorWords,
}

fn push(element: &str, number: u32, queue: &Queue) -> Vec<String> {
    let score = number.to_string();
    let words = match number % 7 % 2 {
        _ if queue.sorted => ["ZADD", &queue.key, &score, element].to_vec(),
        0 => ["RPUSH", &queue.key, element].to_vec(),
        _ => ["LPUSH", &queue.key, element].to_vec(),
    };
    words.into_iter().map(str::to_owned).collect()
}

/// Pushes to all queues in turn.
fn produce(me: usize, port: u16, queues: &[Queue], stop: &AtomicBool) -> Result<Record> {
    let (mut wire, mut record) = (Client::connect(port)?, Record::default());
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let (which, element) = (number as usize % queues.len(), format!("e:{me}:{number}"));
        let reply = wire.call(&push(&element, number, &queues[which]))?;
        record.answer(element, which, &reply)?;
        sleep(Duration::from_millis(3));
    }
    Ok(record)
}

impl Record {
    fn answer(&mut self, element: String, queue: usize, reply: &[u8]) -> Result<()> {
        match reply[0] {
            b':' => drop(self.pushed.insert(element, Element { queue, at: Some(Instant::now()) })),
            b'-' => {
                self.errors.add(reply);
                if reply.starts_with(b"-UNKNOWN ") {
                    self.pushed.insert(element, Element { queue, at: None });
                }
            }
            _ => bail!("a push: {}", show(reply)),
        }
        Ok(())
    }

    /// Waits for elements once.
    fn take(&mut self, wire: &mut Client, queue: &Queue, dice: &mut Random) -> Result<()> {
        let timeout = [0.1, 0.4, 1.0][dice.below(3)];
        let (line, moves) = take_line(queue, timeout, dice.below(6));
        let asked = Instant::now();
        let reply = wire.line(&line)?;
        let took = asked.elapsed();
        self.longest = self.longest.max(took.saturating_sub(Duration::from_secs_f64(timeout)));
        if reply.starts_with(b"-") {
            self.errors.add(&reply);
            return Ok(());
        }
        let mut elements = Vec::new();
        collect(&Frame::read(&reply).0, &mut elements);
        if elements.is_empty() {
            ensure!(
                ["*-1\r\n", "$-1\r\n", "_\r\n"].iter().any(|nil| nil.as_bytes() == reply),
                "{line}: {}",
                show(&reply)
            );
            ensure!(took + EARLY > Duration::from_secs_f64(timeout), "{line}: nil after {took:?}");
        } else {
            let now = Instant::now();
            let told = if moves { &mut self.moved } else { &mut self.popped };
            told.extend(elements.into_iter().map(|element| (element, now)));
        }
        Ok(())
    }
}

/// A command that waits, and whether it moves an element instead of telling it alone.
fn take_line(queue: &Queue, timeout: f64, choice: usize) -> (String, bool) {
    let Queue { key, moved, sorted } = queue;
    let line = match choice {
        0 | 1 if *sorted => format!("BZPOPMIN {key} {timeout}"),
        2 if *sorted => format!("BZPOPMAX {key} {timeout}"),
        _ if *sorted => format!("BZMPOP {timeout} 1 {key} MIN COUNT 2"),
        0 => format!("BLPOP {key} {timeout}"),
        1 => format!("BRPOP {key} {timeout}"),
        2 => format!("BLMPOP {timeout} 1 {key} LEFT COUNT 3"),
        3 => format!("BLPOP {key} {key}2 {timeout}"),
        4 => format!("BRPOPLPUSH {key} {moved} {timeout}"),
        _ => format!("BLMOVE {key} {moved} LEFT RIGHT {timeout}"),
    };
    (line, !sorted && choice >= 4)
}

/// The elements in a reply: neither keys nor scores begin as they do.
fn collect(frame: &Frame<'_>, elements: &mut Vec<String>) {
    let body = frame.body().filter(|body| body.starts_with(b"e:"));
    elements.extend(body.map(|body| String::from_utf8_lossy(body).into_owned()));
    frame.elements().iter().for_each(|frame| collect(frame, elements));
}

fn consume(me: usize, port: u16, queue: &Queue, stop: &AtomicBool) -> Result<Record> {
    let (mut wire, mut record, mut dice) =
        (Client::connect(port)?, Record::default(), Random::new(me as u64));
    if me % 2 == 1 {
        wire.hello3()?;
    }
    while !stop.load(Ordering::Relaxed) {
        record.take(&mut wire, queue, &mut dice)?;
    }
    Ok(record)
}

/// Waits and leaves without a word, often in the very moment of a push of its own.
fn quit(me: usize, port: u16, queues: &[Queue], stop: &AtomicBool) -> Result<Record> {
    let (mut pusher, mut record, mut dice) =
        (Client::connect(port)?, Record::default(), Random::new(me as u64));
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let which = dice.below(queues.len());
        let mut leaver = Client::connect(port)?;
        leaver.request(&portico_tests::words(&take_line(&queues[which], 5.0, dice.below(3)).0)?)?;
        sleep(Duration::from_millis(dice.below(15) as u64));
        let element = format!("e:{me}:{number}");
        let pushes = dice.below(2) == 0;
        if pushes {
            pusher.request(&push(&element, number, &queues[which]))?;
        }
        record.left += 1;
        drop(leaver);
        if pushes {
            let reply = pusher.reply()?;
            record.answer(element, which, &reply)?;
        }
        sleep(Duration::from_millis(20));
    }
    Ok(record)
}

/// The whole crew: producers, quitters, and consumers of every queue.
fn crew(queues: &[Queue]) -> usize {
    PRODUCERS + QUITTERS + CONSUMERS_OF_ONE * queues.len()
}

fn work(me: usize, port: u16, queues: &[Queue], quits: bool, stop: &AtomicBool) -> Result<Record> {
    match me {
        0..PRODUCERS => produce(me, port, queues, stop),
        _ if me < PRODUCERS + QUITTERS && quits => quit(me, port, queues, stop),
        _ if me < PRODUCERS + QUITTERS => produce(me, port, queues, stop),
        _ => consume(me, port, &queues[(me - PRODUCERS - QUITTERS) % queues.len()], stop),
    }
}

/// What does not add up: elements of which there are too few or too many.
struct Balance {
    /// Acknowledged and nowhere: the queue, and when it was pushed.
    missing: Vec<(String, usize, Instant)>,
    /// More than once: the queue, and when it was popped first.
    twice: Vec<(String, usize, Option<Instant>)>,
    /// Told to have been moved, and not there.
    unmoved: BTreeMap<String, Instant>,
    left: u64,
    errors: ErrorWords,
}

fn balance(mut records: Vec<Record>, direct: &mut Direct, queues: &[Queue]) -> Result<Balance> {
    // How often an element was popped or is there.
    let mut seen: BTreeMap<String, (u64, Option<Instant>)> = BTreeMap::new();
    let (mut errors, mut popped, mut moved) = (ErrorWords::default(), 0, BTreeMap::new());
    let (mut left, mut longest) = (0, Duration::ZERO);
    for record in &mut records {
        errors.merge(&record.errors);
        left += record.left;
        longest = longest.max(record.longest);
        popped += record.popped.len();
        for (element, at) in record.popped.drain(..) {
            let entry = seen.entry(element).or_insert((0, Some(at)));
            entry.0 += 1;
            entry.1 = entry.1.min(Some(at));
        }
        moved.extend(record.moved.drain(..));
    }
    let mut there = |command: &str, key: &str| -> Result<Vec<String>> {
        match direct.call(&[command, key, "0", "-1"])? {
            BytesFrame::Array(elements) => Ok(elements.iter().filter_map(portico::sandbox::text).collect()),
            other => bail!("{key}: {other:?}"),
        }
    };
    let mut remain = 0;
    for queue in queues {
        let here = there(if queue.sorted { "ZRANGE" } else { "LRANGE" }, &queue.key)?;
        let gone = there("LRANGE", &queue.moved)?;
        remain += here.len();
        moved.retain(|element, _| !gone.contains(element));
        here.into_iter().chain(gone).for_each(|element| seen.entry(element).or_default().0 += 1);
    }
    let (mut missing, mut twice, mut pushed) = (Vec::new(), Vec::new(), 0);
    for (name, element) in records.into_iter().flat_map(|record| record.pushed) {
        pushed += 1;
        let (times, first) = seen.remove(&name).unwrap_or_default();
        match (times, element.at) {
            (0, Some(at)) => missing.push((name, element.queue, at)),
            (0 | 1, _) => {}
            _ => twice.push((name, element.queue, first)),
        }
    }
    println!(
        "blocking: {pushed} pushed, {popped} popped, {remain} remain, {} missing, {} twice, {left} left; latest \
         {longest:?} after its time; {errors}",
        missing.len(),
        twice.len()
    );
    ensure!(seen.is_empty(), "never pushed, or refused: {:?}", seen.keys().take(9).collect::<Vec<_>>());
    ensure_timely!(pushed > 500 && popped > 200, "too little came of it");
    Ok(Balance { missing, twice, unmoved: moved, left, errors })
}

#[test]
fn the_same_on_a_redis() -> Result<()> {
    on_a_calm_machine(|| {
        let redis = Server::start(ServerOptions::default())?;
        let queues = queues(&tags_in(&(0..=16_383), 6, "q"));
        for quits in [false, true] {
            redis.ask(&["FLUSHALL"])?;
            let work = |me: usize, stop: &AtomicBool| work(me, redis.port(), &queues, quits, stop);
            let (records, ()) = side_by_side(crew(&queues), work, || {
                sleep(Duration::from_millis(1500));
                Ok(())
            })?;
            let balance = balance(records, &mut Direct::at(redis.address()), &queues)?;
            ensure!(balance.twice.is_empty(), "twice: {:?}", balance.twice);
            ensure!(balance.unmoved.is_empty(), "moved and not there: {:?}", balance.unmoved);
            ensure!(balance.missing.len() as u64 <= balance.left, "missing: {:?}", balance.missing);
            balance.errors.expect_only(&[])?;
        }
        // A thief is noticed.
        redis.ask(&["FLUSHALL"])?;
        let work = |me: usize, stop: &AtomicBool| produce(me, redis.port(), &queues, stop);
        let (mut records, ()) = side_by_side(PRODUCERS, work, || {
            sleep(Duration::from_millis(1000));
            redis.ask(&["RPOP", &queues[0].key]).map(drop)
        })?;
        records[0].popped = (0..201).map(|_| ("e:0:0".to_owned(), Instant::now())).collect();
        let balance = balance(records, &mut Direct::at(redis.address()), &queues)?;
        ensure!((balance.missing.len(), balance.twice.len()) == (1, 1), "a thief is not noticed");
        Ok(())
    })
}

#[test]
fn queues_lose_nothing_while_slots_move() -> Result<()> {
    on_a_calm_machine(|| {
        let cluster = Cluster::start(ClusterOptions::default())?;
        let portico = Portico::start(&cluster, &["--tryagain-timeout", "200"])?;
        let moved = [400, 1_400, 2_400, 3_400, 4_400];
        let mut tags: Vec<String> = moved.iter().map(|&slot| key_in_slot(slot, "q")).collect();
        tags.push(key_in_slot(12_345, "q"));
        let queues = queues(&tags);
        for (quits, lasts) in [(false, 7), (true, 4)] {
            let work = |me: usize, stop: &AtomicBool| work(me, portico.port(), &queues, quits, stop);
            let lasts = Duration::from_secs(lasts);
            let faults = || to_and_fro_resting(&cluster, &moved, [0, 1], lasts, GONE);
            let (records, keys) = side_by_side(crew(&queues), work, faults)?;
            let late = records.iter().map(|record| record.longest).max().unwrap_or_default();
            let mut direct = Direct::new(&cluster)?;
            let balance = balance(records, &mut direct, &queues)?;
            let asked: u64 =
                error_count(&cluster.nodes()[0], "ASK")? + error_count(&cluster.nodes()[1], "ASK")?;
            println!("blocking: {keys} keys moved, nodes answered ASK {asked}");
            ensure_timely!(asked > 0, "nobody was asked to go elsewhere");
            ensure!(balance.twice.is_empty(), "popped twice: {:?}", balance.twice);
            ensure!(balance.unmoved.is_empty(), "moved and not there: {:?}", balance.unmoved);
            // Who leaves may take one element with him, as with Redis.
            ensure!(balance.missing.len() as u64 <= balance.left, "missing: {:?}", balance.missing);
            ensure_timely!(late < Duration::from_secs(3), "nil came {late:?} late");
            balance.errors.expect_only(&["TRYAGAIN"])?;
            for queue in &queues {
                direct.call(&["DEL", &queue.key, &queue.moved])?;
            }
        }
        Ok(())
    })
}

#[test]
fn queues_lose_little_while_masters_die() -> Result<()> {
    on_a_calm_machine(|| {
        let mut cluster = Cluster::start(failing_over())?;
        let portico = Portico::start(&cluster, &[])?;
        // The shard whose master is killed has a list and a sorted set.
        let shards = shards(&cluster, 3)?;
        let shard_of = |queue: usize| (queue + queue / 3) % 3;
        let tag = |index: usize| tags_in(&shards[shard_of(index)].slots, 1, &format!("q{index}-")).remove(0);
        let queues = queues(&(0..6).map(tag).collect::<Vec<_>>());
        let in_killed = |queue: usize| shard_of(queue) == 0;
        let work = |me: usize, stop: &AtomicBool| work(me, portico.port(), &queues, false, stop);
        let faults = || -> Result<_> {
            sleep(Duration::from_secs(1));
            fail_over(&cluster, [1, 4])?;
            cut_connections(&cluster, &[2])?;
            sleep(Duration::from_secs(1));
            let killed = Instant::now();
            cluster.node(0).kill()?;
            wait_until_master(&cluster, 3)?;
            sleep(Duration::from_secs(3));
            Ok(killed)
        };
        let (records, killed) = side_by_side(crew(&queues), work, faults)?;
        let balance = balance(records, &mut Direct::new(&cluster)?, &queues)?;
        balance.errors.expect_only(&["UNKNOWN", "CLUSTERDOWN"])?;
        // What a master does in its last moments its replica may not hear of; half a second is far more than it takes.
        let last_moments = killed - Duration::from_millis(500)..killed + Duration::from_millis(300);
        // The third shard's connections were cut.
        let is_hit = |queue: usize| shard_of(queue) != 1;
        let blocked = (0..queues.len()).filter(|&queue| is_hit(queue)).count() * CONSUMERS_OF_ONE;
        let lost: Vec<_> = balance.missing.iter().filter(|lost| !last_moments.contains(&lost.2)).collect();
        ensure!(lost.iter().all(|lost| is_hit(lost.1)), "missing where nothing was lost: {lost:?}");
        ensure!(lost.len() <= blocked, "more than one element a blocked client: {lost:?}");
        let again = balance
            .twice
            .iter()
            .filter(|twice| !in_killed(twice.1) || twice.2.is_none_or(|at| !last_moments.contains(&at)));
        let again: Vec<_> = again.collect();
        ensure!(again.is_empty(), "popped twice: {again:?}");
        let back = balance.unmoved.iter().find(|(_, at)| !last_moments.contains(at));
        ensure!(back.is_none(), "moved and not there: {back:?}");
        Ok(())
    })
}
