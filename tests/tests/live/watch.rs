//! WATCH: many clients count up the same counters with WATCH, GET, MULTI, SET, EXEC, and nothing is counted twice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use portico::sandbox::{Cluster, ClusterOptions, Server, ServerOptions, text};
use portico_tests::live::{
    Direct, ErrorWords, cut_connections, error_count, fail_over, failing_over, key_in_slot, shards,
    side_by_side, tags_in, to_and_fro, wait_until_master,
};
use portico_tests::{Client, Frame, Portico, Random, encode, ensure_timely, on_a_calm_machine, show};

const MEMBERS: usize = 12;

/// A count that went up.
struct Win {
    counter: usize,
    value: u64,
    sent: Instant,
    acked: Instant,
}

/// What one client did.
#[derive(Default)]
struct Tally {
    wins: Vec<Win>,
    /// Counters and values whose EXEC has an unknown outcome.
    unknown: Vec<(usize, u64)>,
    /// EXECs that were answered with nil.
    refused: u64,
    errors: ErrorWords,
}

impl Tally {
    /// Reads a counter and sets it to one more, unless somebody else does so in between.
    fn count_up(
        &mut self,
        wire: &mut Client,
        counters: &[String],
        which: usize,
        guarded: bool,
    ) -> Result<()> {
        let key = &counters[which];
        wire.send(&[encode(&[if guarded { "WATCH" } else { "TYPE" }, key]), encode(&["GET", key])].concat())?;
        let (watched, value) = (wire.reply()?, wire.reply()?);
        if let Some(error) = [&watched, &value].into_iter().find(|reply| reply.starts_with(b"-")) {
            self.errors.add(error);
            return wire.expect("UNWATCH", "+OK\r\n");
        }
        ensure!(!guarded || watched == b"+OK\r\n", "WATCH: {}", show(&watched));
        let value = Frame::read(&value).0.body().map_or(Ok("0"), std::str::from_utf8)?.parse::<u64>()? + 1;
        let sent = Instant::now();
        let set = encode(&["SET", key, &value.to_string()]);
        wire.send(&[encode(&["MULTI"]), set, encode(&["EXEC"])].concat())?;
        let queued = wire.replies(2)?.concat();
        ensure!(queued == b"+OK\r\n+QUEUED\r\n", "MULTI, SET: {}", show(&queued));
        match wire.reply()?.as_slice() {
            b"*1\r\n+OK\r\n" => self.wins.push(Win { counter: which, value, sent, acked: Instant::now() }),
            b"*-1\r\n" | b"_\r\n" => self.refused += 1,
            error if error.starts_with(b"-") => {
                self.errors.add(error);
                if error.starts_with(b"-UNKNOWN ") {
                    self.unknown.push((which, value));
                }
            }
            other => anyhow::bail!("EXEC: {}", show(other)),
        }
        Ok(())
    }
}

fn connect(me: usize, port: u16) -> Result<Client> {
    let mut wire = Client::connect(port)?;
    if me % 2 == 1 {
        wire.hello3()?;
    }
    Ok(wire)
}

/// One of many who count up these counters until told to stop.
fn contend(me: usize, port: u16, counters: &[String], guarded: bool, stop: &AtomicBool) -> Result<Tally> {
    let (mut wire, mut tally, mut dice) = (connect(me, port)?, Tally::default(), Random::new(me as u64));
    while !stop.load(Ordering::Relaxed) {
        tally.count_up(&mut wire, counters, dice.below(counters.len()), guarded)?;
        sleep(Duration::from_millis(1 + dice.below(4) as u64));
    }
    Ok(tally)
}

/// What the counters are.
fn counts(direct: &mut Direct, counters: &[String]) -> Result<Vec<u64>> {
    let count = |key: &String| -> Result<u64> {
        Ok(text(&direct.call(&["GET", key])?).map_or(Ok(0), |count| count.parse())?)
    };
    counters.iter().map(count).collect()
}

/// Nobody may win with a value that somebody else has won with.
fn check_wins<'a>(wins: impl Iterator<Item = &'a Win>) -> Result<BTreeMap<usize, BTreeSet<u64>>> {
    let mut won: BTreeMap<usize, BTreeSet<u64>> = BTreeMap::new();
    for win in wins {
        let is_new = won.entry(win.counter).or_default().insert(win.value);
        ensure!(is_new, "counter {} was set to {} twice", win.counter, win.value);
    }
    Ok(won)
}

fn errors(tallies: &[Tally]) -> ErrorWords {
    let mut errors = ErrorWords::default();
    tallies.iter().for_each(|tally| errors.merge(&tally.errors));
    errors
}

/// Every count up to the final one was won by one client, or its outcome is unknown; and no other.
fn check_exact(tallies: &[Tally], finals: &[u64]) -> Result<()> {
    let won = check_wins(tallies.iter().flat_map(|tally| &tally.wins))?;
    let unknown: BTreeSet<(usize, u64)> =
        tallies.iter().flat_map(|tally| tally.unknown.iter().copied()).collect();
    for (counter, &count) in finals.iter().enumerate() {
        let won = won.get(&counter).context("nobody counted it up")?;
        for value in 1..=count {
            let accounted = won.contains(&value) || unknown.contains(&(counter, value));
            ensure!(accounted, "nobody set counter {counter} to {value}");
        }
        let last = won.last().copied().unwrap_or_default();
        ensure!(last <= count, "counter {counter} is {count} although it was set to {last}");
    }
    let sum = |of: fn(&Tally) -> usize| tallies.iter().map(of).sum::<usize>();
    let (wins, unknown) = (sum(|tally| tally.wins.len()), sum(|tally| tally.unknown.len()));
    let refused = sum(|tally| tally.refused as usize);
    println!("watch: {wins} counted, {refused} refused, {unknown} unknown, {}", errors(tallies));
    ensure_timely!(wins > 200 && refused > 20, "too little came of it");
    Ok(())
}

/// Nobody else writes: every EXEC succeeds. Somebody else does: none, whichever of the two keys that are watched.
fn steady(port: u16) -> Result<()> {
    let [a, b] = ["{watched}a", "{watched}b"];
    let alone = |me: usize, _: &AtomicBool| -> Result<()> {
        let (mut wire, mut tally) = (connect(me, port)?, Tally::default());
        let counters = tags_in(&(0..=16_383), 5, &format!("alone{me}-"));
        for round in 0..100 {
            tally.count_up(&mut wire, &counters, round % counters.len(), true)?;
            ensure!(
                tally.wins.len() == round + 1,
                "round {round}: {} refused, {}",
                tally.refused,
                tally.errors
            );
        }
        Ok(())
    };
    side_by_side(MEMBERS, alone, || Ok(()))?;
    let (mut one, mut other) = (connect(0, port)?, connect(0, port)?);
    let transaction = |one: &mut Client| -> Result<String> {
        one.expect("MULTI", "+OK\r\n")?;
        one.expect(&format!("SET {a} 2"), "+QUEUED\r\n")?;
        one.text("EXEC")
    };
    for (changes, succeeds) in
        [(&["SET"][..], false), (&["DEL", "SET"], false), (&["GET"], true), (&["EXPIRE 100"], false)]
    {
        for touched in [a, b] {
            one.line(&format!("MSET {a} 1"))?;
            one.line(&format!("MSET {b} 1"))?;
            one.expect(&format!("WATCH {a}"), "+OK\r\n")?;
            one.expect(&format!("WATCH {b}"), "+OK\r\n")?;
            for change in changes {
                let (command, rest) = change.split_once(' ').unwrap_or((change, ""));
                let value = if command == "SET" { "1" } else { rest };
                other.line(&format!("{command} {touched} {value}"))?;
            }
            let reply = transaction(&mut one)?;
            let due = if succeeds { "*1\\r\\n+OK\\r\\n" } else { "*-1\\r\\n" };
            ensure!(reply == due, "{changes:?} of {touched}: {reply}");
        }
    }
    // What is watched no more may change.
    for forget in ["UNWATCH", "MULTI DISCARD", "MULTI EXEC"] {
        one.expect(&format!("WATCH {a}"), "+OK\r\n")?;
        forget.split(' ').try_for_each(|command| one.line(command).map(drop))?;
        other.line(&format!("SET {a} 5"))?;
        let reply = transaction(&mut one)?;
        ensure!(reply == "*1\\r\\n+OK\\r\\n", "after {forget}: {reply}");
    }
    Ok(())
}

#[test]
fn the_same_on_a_redis() -> Result<()> {
    on_a_calm_machine(|| {
        let redis = Server::start(ServerOptions::default())?;
        steady(redis.port())?;
        let counters = tags_in(&(0..=16_383), 3, "count");
        let pause = || {
            sleep(Duration::from_millis(1000));
            Ok(())
        };
        for guarded in [true, false] {
            redis.ask(&["FLUSHALL"])?;
            let work = |me: usize, stop: &AtomicBool| contend(me, redis.port(), &counters, guarded, stop);
            let (tallies, ()) = side_by_side(MEMBERS, work, pause)?;
            let finals = counts(&mut Direct::at(redis.address()), &counters)?;
            let checked = check_exact(&tallies, &finals);
            ensure!(guarded == checked.is_ok(), "guarded: {guarded}, {checked:?}");
        }
        Ok(())
    })
}

#[test]
fn a_watch_guards_what_it_must_and_nothing_else() -> Result<()> {
    on_a_calm_machine(|| {
        let cluster = Cluster::start(ClusterOptions::default())?;
        steady(Portico::start(&cluster, &[])?.port())
    })
}

#[test]
fn counts_are_exact_while_slots_move() -> Result<()> {
    on_a_calm_machine(|| {
        let cluster = Cluster::start(ClusterOptions::default())?;
        let portico = Portico::start(&cluster, &[])?;
        let moved = [200, 1_200, 2_200, 3_200];
        let counters: Vec<String> =
            moved.iter().chain(&[12_000]).map(|&slot| key_in_slot(slot, "count")).collect();
        let work = |me: usize, stop: &AtomicBool| contend(me, portico.port(), &counters, true, stop);
        let faults = || to_and_fro(&cluster, &moved, [0, 1], Duration::from_secs(7));
        let (tallies, keys) = side_by_side(MEMBERS, work, faults)?;
        let asked: u64 = error_count(&cluster.nodes()[0], "ASK")? + error_count(&cluster.nodes()[1], "ASK")?;
        let redirected: u64 =
            error_count(&cluster.nodes()[0], "MOVED")? + error_count(&cluster.nodes()[1], "MOVED")?;
        println!("watch: {keys} keys moved, nodes answered ASK {asked}, MOVED {redirected}");
        ensure_timely!(keys > 20 && asked + redirected > 0, "nothing was provoked");
        check_exact(&tallies, &counts(&mut Direct::new(&cluster)?, &counters)?)?;
        errors(&tallies).expect_only(&[])
    })
}

#[test]
fn counts_are_exact_while_masters_change() -> Result<()> {
    on_a_calm_machine(|| {
        let mut cluster = Cluster::start(failing_over())?;
        let portico = Portico::start(&cluster, &[])?;
        let counters: Vec<String> = shards(&cluster, 3)?
            .iter()
            .flat_map(|shard| tags_in(&shard.slots, 2, &format!("count{}-", shard.index)))
            .collect();
        let work = |me: usize, stop: &AtomicBool| contend(me, portico.port(), &counters, true, stop);

        // A failover that is called loses nothing.
        let faults = || -> Result<()> {
            for pair in [[0, 3], [1, 4], [2, 5]] {
                sleep(Duration::from_millis(700));
                fail_over(&cluster, pair)?;
            }
            for _ in 0..10 {
                cut_connections(&cluster, &[3, 4, 5])?;
                sleep(Duration::from_millis(70));
            }
            sleep(Duration::from_millis(700));
            Ok(())
        };
        let (tallies, ()) = side_by_side(MEMBERS, work, faults)?;
        let mut direct = Direct::new(&cluster)?;
        check_exact(&tallies, &counts(&mut direct, &counters)?)?;
        errors(&tallies).expect_only(&["UNKNOWN"])?;

        // What a master had not yet told its replica when it was killed is lost; node 3 is the first shard's by now.
        counters.iter().try_for_each(|key| direct.call(&["DEL", key]).map(drop))?;
        let faults = || -> Result<_> {
            sleep(Duration::from_secs(1));
            let confirmed = counts(&mut direct, &counters)?;
            let mut master = cluster.nodes()[3].connect()?;
            master.ask(&["SET", &format!("{{{}}}confirm", counters[0]), "1"])?;
            ensure!(master.ask(&["WAIT", "1", "2000"])? == "1", "the replica is behind");
            let killed = Instant::now();
            cluster.node(3).kill()?;
            wait_until_master(&cluster, 0)?;
            sleep(Duration::from_secs(1));
            let replaced = Instant::now();
            sleep(Duration::from_secs(2));
            Ok((confirmed, killed, replaced))
        };
        let (tallies, (confirmed, killed, replaced)) = side_by_side(MEMBERS, work, faults)?;
        let finals = counts(&mut Direct::new(&cluster)?, &counters)?;
        let wins = || tallies.iter().flat_map(|tally| &tally.wins);
        println!("watch: killed; {} counted, {}", wins().count(), errors(&tallies));
        errors(&tallies).expect_only(&["UNKNOWN", "CLUSTERDOWN"])?;
        check_wins(wins().filter(|win| win.acked < killed))?;
        let later = check_wins(wins().filter(|win| win.sent > replaced))?;
        for (counter, (&count, &confirmed)) in finals.iter().zip(&confirmed).enumerate() {
            let later = later.get(&counter).context("nobody counted it up after the failover")?;
            let (first, last) = (later.first().copied().unwrap_or(0), later.last().copied().unwrap_or(0));
            ensure!(first > confirmed, "counter {counter} is at {first}, but a replica had {confirmed}");
            ensure!(last <= count, "counter {counter} is {count} although it was set to {last}");
            let acked = wins().filter(|win| win.counter == counter).count();
            let unknown = tallies
                .iter()
                .flat_map(|tally| &tally.unknown)
                .filter(|unknown| unknown.0 == counter)
                .count();
            ensure!(
                count <= (acked + unknown) as u64,
                "counter {counter} is {count} of {acked} and {unknown}"
            );
        }
        Ok(())
    })
}
