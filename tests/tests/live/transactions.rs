//! Transactions under faults: each is applied wholly or not at all, in order, and says what it did.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use portico::sandbox::{Cluster, ClusterOptions, Server, ServerOptions, text};
use portico_tests::live::{
    Direct, ErrorWords, Fate, Key, Kind, Losses, Witness, check_key, cut_connections, error_count, fail_over,
    failing_over, key_in_slot, shards, side_by_side, tags_in, to_and_fro, wait_until_master,
};
use portico_tests::{Client, Frame, Portico, Random, encode, ensure_timely, on_a_calm_machine, show};

const MEMBERS: usize = 14;
/// Bytes that a step adds to the text.
const TOKEN: u64 = 9;

/// Under one hash tag: how many steps there were, and each step, twice. A step is a transaction that adds to all.
fn names(tag: &str) -> [String; 3] {
    ["count", "list", "text"].map(|kind| format!("{{{tag}}}{kind}"))
}

/// What awaits its replies.
enum Sent {
    Step(u32),
    Discarded(u32),
    Length,
    Look,
}

struct Member {
    wire: Client,
    tag: String,
    /// Whose steps it looks at.
    other: String,
    log: Key,
    witness: Option<Witness>,
    dice: Random,
    number: u32,
    acked: u64,
    looks: u64,
    errors: ErrorWords,
}

impl Member {
    fn new(me: usize, port: u16, tags: &[String], witness: Option<Witness>) -> Result<Self> {
        let mut wire = Client::connect(port)?;
        if me % 2 == 1 {
            wire.hello3()?;
        }
        let tag = tags[me].clone();
        Ok(Member {
            wire,
            log: Key::new(names(&tag)[1].clone(), Kind::List),
            tag,
            other: tags[(me + 1) % tags.len()].clone(),
            witness,
            dice: Random::new(me as u64),
            number: 0,
            acked: 0,
            looks: 0,
            errors: ErrorWords::default(),
        })
    }

    fn work(mut self, losses: &Losses, stop: &AtomicBool) -> Result<Self> {
        while !stop.load(Ordering::Relaxed) {
            self.pipeline(losses)?;
            if self.witness.as_mut().is_some_and(|witness| witness.confirms(losses)) {
                self.log.confirmed();
            }
            sleep(Duration::from_millis(4));
        }
        Ok(self)
    }

    fn pipeline(&mut self, losses: &Losses) -> Result<()> {
        let mut output = Vec::new();
        let sent: Vec<Sent> = (0..=self.dice.below(4)).map(|_| self.append(&mut output)).collect();
        self.wire.send(&output)?;
        sent.iter().try_for_each(|sent| self.receive(sent, losses))
    }

    fn append(&mut self, output: &mut Vec<u8>) -> Sent {
        let mut send = |line: &[&str]| output.extend(encode(line));
        let choice = self.dice.below(10);
        let [count, list, text] = names(if choice == 1 { &self.other } else { &self.tag });
        match choice {
            0 => {
                send(&["LLEN", &list]);
                return Sent::Length;
            }
            1 => {
                send(&["MULTI"]);
                send(&["GET", &count]);
                send(&["LLEN", &list]);
                send(&["STRLEN", &text]);
                send(&["EXEC"]);
                return Sent::Look;
            }
            _ => self.number += 1,
        }
        let step = Key::element(self.number, 0);
        send(&["MULTI"]);
        send(&["INCR", &count]);
        send(&["RPUSH", &list, &step]);
        send(&["APPEND", &text, &step]);
        send(&["LRANGE", &list, "-1", "-1"]);
        send(&[if choice == 2 { "DISCARD" } else { "EXEC" }]);
        if choice == 2 { Sent::Discarded(self.number) } else { Sent::Step(self.number) }
    }

    /// The replies to MULTI and to so many commands behind it.
    fn queued(&mut self, commands: usize) -> Result<()> {
        let replies = self.wire.replies(commands + 1)?.concat();
        let due = format!("+OK\r\n{}", "+QUEUED\r\n".repeat(commands));
        ensure!(replies == due.as_bytes(), "MULTI and its commands: {}", show(&replies));
        Ok(())
    }

    fn receive(&mut self, sent: &Sent, losses: &Losses) -> Result<()> {
        match sent {
            Sent::Step(number) => self.queued(4).and_then(|()| self.step(*number, losses)),
            Sent::Look => self.queued(3).and_then(|()| self.look()),
            Sent::Discarded(number) => {
                self.queued(4)?;
                self.log.step_failed(*number, Fate::NotRun);
                let reply = self.wire.reply()?;
                ensure!(reply == b"+OK\r\n", "DISCARD: {}", show(&reply));
                Ok(())
            }
            Sent::Length => {
                let reply = self.wire.reply()?;
                if reply.starts_with(b"-") {
                    self.errors.add(&reply);
                    return Ok(());
                }
                let length = numbers(&reply).first().copied().context("a number")?;
                self.log.count_read(length, losses).map_err(anyhow::Error::msg)
            }
        }
    }

    fn step(&mut self, number: u32, losses: &Losses) -> Result<()> {
        let reply = self.wire.reply()?;
        if reply.starts_with(b"-") {
            self.errors.add(&reply);
            let unknown = reply.starts_with(b"-UNKNOWN ");
            self.log.step_failed(number, if unknown { Fate::Unknown } else { Fate::NotRun });
            return Ok(());
        }
        self.acked += 1;
        let told = numbers(&reply).first().copied().with_context(|| format!("EXEC: {}", show(&reply)))?;
        let step = Key::element(number, 0);
        let due = format!("*4\r\n:{told}\r\n:{told}\r\n:{}\r\n*1\r\n$9\r\n{step}\r\n", told * TOKEN);
        ensure!(reply == due.as_bytes(), "{}, step {number}: EXEC: {}", self.tag, show(&reply));
        self.log.step_acked(number, told, 0, losses).map_err(anyhow::Error::msg)
    }

    fn look(&mut self) -> Result<()> {
        let reply = self.wire.reply()?;
        if reply.starts_with(b"-") {
            self.errors.add(&reply);
            return Ok(());
        }
        self.looks += 1;
        let seen = numbers(&reply);
        let whole = seen.len() == 3 && seen[0] == seen[1] && seen[0] * TOKEN == seen[2];
        ensure!(whole, "half of a transaction is seen at {}: {}", self.other, show(&reply));
        Ok(())
    }

    /// What is there must be the steps that ran, three times.
    fn check(&mut self, direct: &mut Direct, losses: &Losses) -> Result<()> {
        let [count, list, written] = names(&self.tag);
        let mut read =
            |line: &[&str]| -> Result<String> { Ok(text(&direct.call(line)?).unwrap_or_default()) };
        let count: usize = read(&["GET", &count])?.parse().unwrap_or(0);
        let length: usize = read(&["LLEN", &list])?.parse()?;
        let steps = Key::tokens(&read(&["GET", &written])?, 0);
        let (last, tag) = (steps.last().copied().flatten(), &self.tag);
        ensure!(
            (count, length) == (steps.len(), steps.len()),
            "{tag}: {count}, {length}, {} steps",
            steps.len()
        );
        let at_end = read(&["LINDEX", &list, "-1"])?;
        ensure!(Key::number(&at_end) == last, "{tag}: {at_end} is the last of one, {last:?} of the other");
        check_key(direct, &mut self.log, 0, losses)
    }
}

/// The numbers of a reply, or of an array's elements; nil is 0.
fn numbers(reply: &[u8]) -> Vec<u64> {
    let (frame, _) = Frame::read(reply);
    let number = |frame: &Frame<'_>| {
        let body = frame.body().unwrap_or(b"0");
        std::str::from_utf8(body).ok().and_then(|text| text.parse().ok()).unwrap_or(u64::MAX)
    };
    if matches!(frame, Frame::Leaf(_)) {
        return vec![number(&frame)];
    }
    let leaves = frame.elements().iter().filter(|element| matches!(element, Frame::Leaf(_)));
    leaves.map(number).collect()
}

/// Checks what the members did, and that each did something. Returns their errors.
fn check(members: &mut [Member], mut direct: Direct, losses: &Losses) -> Result<ErrorWords> {
    let mut errors = ErrorWords::default();
    for member in members.iter_mut() {
        member.check(&mut direct, losses)?;
        ensure_timely!(member.acked > 20 && member.looks > 5, "{} did next to nothing", member.tag);
        errors.merge(&member.errors);
    }
    let (acked, lost): (u64, u64) =
        members.iter().fold((0, 0), |sum, member| (sum.0 + member.acked, sum.1 + member.log.lost));
    println!("transactions: {acked} acknowledged, {lost} of them lost, {errors}");
    Ok(errors)
}

#[test]
fn the_same_on_a_redis() -> Result<()> {
    on_a_calm_machine(|| {
        let redis = Server::start(ServerOptions::default())?;
        let tags = tags_in(&(0..=16_383), MEMBERS, "t");
        let losses = Losses::default();
        let work =
            |me: usize, stop: &AtomicBool| Member::new(me, redis.port(), &tags, None)?.work(&losses, stop);
        let pause = || {
            sleep(Duration::from_millis(800));
            Ok(())
        };
        let (mut members, ()) = side_by_side(MEMBERS, work, pause)?;
        check(&mut members, Direct::at(redis.address()), &losses)?.expect_only(&[])?;
        // What comes between is noticed.
        redis.ask(&["FLUSHALL"])?;
        let tear = || {
            sleep(Duration::from_millis(100));
            redis.ask(&["RPUSH", &names(&tags[0])[1], "00000000,"])?;
            sleep(Duration::from_millis(200));
            Ok(())
        };
        ensure!(side_by_side(MEMBERS, work, tear).is_err(), "a torn transaction is not noticed");
        Ok(())
    })
}

#[test]
fn transactions_are_whole_while_slots_move() -> Result<()> {
    on_a_calm_machine(|| {
        let cluster = Cluster::start(ClusterOptions::default())?;
        let portico = Portico::start(&cluster, &["--tryagain-timeout", "200"])?;
        let moved: Vec<u16> = (0..MEMBERS as u16 / 2).map(|number| 300 + number * 700).collect();
        // Two of the crew in each slot that moves.
        let tags: Vec<String> =
            (0..MEMBERS).map(|me| key_in_slot(moved[me / 2], &format!("t{me}-"))).collect();
        let losses = Losses::default();
        let work =
            |me: usize, stop: &AtomicBool| Member::new(me, portico.port(), &tags, None)?.work(&losses, stop);
        let faults = || to_and_fro(&cluster, &moved, [0, 1], Duration::from_secs(8));
        let (mut members, keys) = side_by_side(MEMBERS, work, faults)?;
        let errors = check(&mut members, Direct::new(&cluster)?, &losses)?;
        let asked: u64 = error_count(&cluster.nodes()[0], "ASK")? + error_count(&cluster.nodes()[1], "ASK")?;
        println!("transactions: {keys} keys moved, nodes answered ASK {asked}");
        ensure_timely!(asked > 0, "nobody was asked to go elsewhere");
        errors.expect_only(&["TRYAGAIN"])
    })
}

#[test]
fn transactions_are_whole_while_masters_change() -> Result<()> {
    on_a_calm_machine(|| {
        let mut cluster = Cluster::start(failing_over())?;
        let portico = Portico::start(&cluster, &["--tryagain-timeout", "200"])?;
        let shards = shards(&cluster, 3)?;
        let moved = [6_000, 7_000, 8_000, 9_000];
        // A third of the crew where the master is killed, a third where slots move, a third where a failover is called.
        let tags: Vec<String> = (0..MEMBERS)
            .map(|me| match me % 3 {
                1 => key_in_slot(moved[me % 4], &format!("t{me}-")),
                shard => tags_in(&shards[shard].slots, 1, &format!("t{me}-")).remove(0),
            })
            .collect();
        let losses = Losses::default();
        let (killed, confirmed_by) = (&shards[0], cluster.nodes()[0].address());
        let work = |me: usize, stop: &AtomicBool| {
            let witness = me
                .is_multiple_of(3)
                .then(|| Witness::new(&confirmed_by, killed.slots.clone(), &tags[me]))
                .transpose()?;
            Member::new(me, portico.port(), &tags, witness)?.work(&losses, stop)
        };
        let faults = || {
            sleep(Duration::from_secs(1));
            let mut keys = to_and_fro(&cluster, &moved, [1, 2], Duration::from_secs(2))?;
            fail_over(&cluster, [2, 5])?;
            for _ in 0..10 {
                cut_connections(&cluster, &[1, 5])?;
                sleep(Duration::from_millis(70));
            }
            keys += to_and_fro(&cluster, &moved, [1, 5], Duration::from_secs(1))?;
            let at = Instant::now();
            cluster.node(0).kill()?;
            losses.allow(Instant::now() + Duration::from_millis(300), killed.slots.clone());
            wait_until_master(&cluster, 3)?;
            let recovered = at.elapsed();
            keys += to_and_fro(&cluster, &moved, [1, 3], Duration::from_secs(2))?;
            Ok((keys, recovered))
        };
        let (mut members, (keys, recovered)) = side_by_side(MEMBERS, work, faults)?;
        let errors = check(&mut members, Direct::new(&cluster)?, &losses)?;
        println!("transactions: {keys} keys moved, killed and replaced in {recovered:?}");
        errors.expect_only(&["UNKNOWN", "TRYAGAIN", "CLUSTERDOWN"])?;
        let bystanders = members.iter().enumerate().filter(|(me, _)| !me.is_multiple_of(3));
        let mut noticed = ErrorWords::default();
        bystanders.for_each(|(_, member)| noticed.merge(&member.errors));
        noticed.expect_only(&["TRYAGAIN", "UNKNOWN"])
    })
}
