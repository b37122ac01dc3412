//! Scripts under faults: one that Portico has seen runs on every node, also on one that is new; and can be killed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use portico::sandbox::{Cluster, ClusterOptions, Server, ServerOptions};
use portico_tests::live::{
    ErrorWords, Fate, Key, Kind, Losses, SlotMove, failing_over, key_in_slot, shards, side_by_side, tags_in,
    wait_until_master,
};
use portico_tests::{Client, Portico, Random, encode, ensure_timely, on_a_calm_machine, show};

const MEMBERS: usize = 6;
const SCRIPT: &str = "return {KEYS[1], ARGV[1], redis.call('INCR', KEYS[1])}";
const DEPTH: usize = 12;

fn bulk(reply: &[u8]) -> String {
    let text = String::from_utf8_lossy(reply);
    text.split("\r\n").nth(1).unwrap_or_default().to_owned()
}

/// Makes a script known, loaded or run once, and returns its hash.
fn make_known(wire: &mut Client, text: &str, loads: bool) -> Result<String> {
    let hash = bulk(&wire.call(&["EVAL", "return redis.sha1hex(ARGV[1])", "0", text])?);
    if loads {
        let told = bulk(&wire.call(&["SCRIPT", "LOAD", text])?);
        ensure!(told == hash, "SCRIPT LOAD: {told} instead of {hash}");
    } else {
        let reply = wire.call(&["EVAL", text, "1", &hash, "x"])?;
        let due = format!("*3\r\n$40\r\n{hash}\r\n$1\r\nx\r\n:");
        ensure!(reply.starts_with(due.as_bytes()), "EVAL: {}", show(&reply));
    }
    Ok(hash)
}

/// One who calls a script by its hash, on keys of its own in many slots.
struct Caller {
    wire: Client,
    hash: String,
    keys: Vec<Key>,
    dice: Random,
    number: u32,
    acked: u64,
    errors: ErrorWords,
}

impl Caller {
    /// Whoever has an even number loads its script, the others run theirs once.
    fn new(me: usize, port: u16, slots: &[u16]) -> Result<Self> {
        let mut wire = Client::connect(port)?;
        if me % 3 == 1 {
            wire.hello3()?;
        }
        let name = |slot: &u16| Key::new(key_in_slot(*slot, &format!("s{me}-")), Kind::Counter);
        Ok(Caller {
            hash: make_known(&mut wire, &format!("{SCRIPT} -- {me}"), me.is_multiple_of(2))?,
            wire,
            keys: slots.iter().map(name).collect(),
            dice: Random::new(me as u64),
            number: 0,
            acked: 0,
            errors: ErrorWords::default(),
        })
    }

    fn work(mut self, losses: &Losses, stop: &AtomicBool) -> Result<Self> {
        while !stop.load(Ordering::Relaxed) {
            self.pipeline(losses)?;
            sleep(Duration::from_millis(5));
        }
        Ok(self)
    }

    fn pipeline(&mut self, losses: &Losses) -> Result<()> {
        let (mut output, mut sent) = (Vec::new(), Vec::new());
        for _ in 0..DEPTH {
            self.number += 1;
            let (key, in_transaction) = (self.dice.below(self.keys.len()), self.dice.below(5) == 0);
            let name = self.keys[key].name.as_str();
            let call = encode(&["EVALSHA", &self.hash, "1", name, &self.number.to_string()]);
            if in_transaction {
                output.extend([encode(&["MULTI"]), call, encode(&["EXEC"])].concat());
            } else {
                output.extend(call);
            }
            sent.push((key, self.number, in_transaction));
        }
        self.wire.send(&output)?;
        for (key, number, in_transaction) in sent {
            let before = if in_transaction { self.wire.replies(2)?.concat() } else { Vec::new() };
            ensure!(
                before.is_empty() || before == b"+OK\r\n+QUEUED\r\n",
                "MULTI, EVALSHA: {}",
                show(&before)
            );
            let (key, reply) = (&mut self.keys[key], self.wire.reply()?);
            let error = reply.strip_prefix(b"*1\r\n").unwrap_or(&reply);
            if error.starts_with(b"-") {
                let unknown = error.starts_with(b"-UNKNOWN ");
                key.step_failed(number, if unknown { Fate::Unknown } else { Fate::NotRun });
                self.errors.add(error);
                continue;
            }
            let argument = number.to_string();
            let head =
                format!("${}\r\n{}\r\n${}\r\n{argument}\r\n:", key.name.len(), key.name, argument.len());
            let head = format!("{}*3\r\n{head}", if in_transaction { "*1\r\n" } else { "" });
            let text = String::from_utf8_lossy(&reply);
            let told = text.strip_prefix(&head).with_context(|| format!("EVALSHA: {}", show(&reply)))?;
            key.step_acked(number, told.trim().parse()?, 0, losses).map_err(anyhow::Error::msg)?;
            self.acked += 1;
        }
        Ok(())
    }
}

/// What the callers got. Every one of them must have worked.
fn errors(callers: &[Caller]) -> Result<ErrorWords> {
    let mut errors = ErrorWords::default();
    for caller in callers {
        errors.merge(&caller.errors);
        ensure_timely!(caller.acked > 300, "a caller did next to nothing: {}", caller.acked);
    }
    println!("scripts: {} calls, {errors}", callers.iter().map(|caller| caller.acked).sum::<u64>());
    Ok(errors)
}

#[test]
fn the_same_on_a_redis() -> Result<()> {
    on_a_calm_machine(|| {
        let args = ["--lua-time-limit", "100"].map(str::to_owned).to_vec();
        let mut redis = Server::start(ServerOptions { args, ..ServerOptions::default() })?;
        let (losses, slots) = (Losses::default(), [1, 9_000, 16_000]);
        let port = redis.port();
        let work = |me: usize, stop: &AtomicBool| Caller::new(me, port, &slots)?.work(&losses, stop);
        let (callers, ()) = side_by_side(MEMBERS, work, || {
            sleep(Duration::from_millis(800));
            Ok(())
        })?;
        errors(&callers)?.expect_only(&[])?;
        killed(port, std::slice::from_ref(&redis))?;
        // One that has forgotten is noticed.
        redis.ask(&["FLUSHALL"])?;
        let (callers, ()) = side_by_side(MEMBERS, work, || {
            sleep(Duration::from_millis(700));
            redis.ask(&["SCRIPT", "FLUSH"])?;
            sleep(Duration::from_millis(100));
            Ok(())
        })?;
        ensure_timely!(errors(&callers)?.count("NOSCRIPT") > 0, "forgotten scripts are not noticed");
        redis.kill()
    })
}

#[test]
fn known_scripts_run_on_every_node_that_comes() -> Result<()> {
    on_a_calm_machine(|| {
        let mut cluster = Cluster::start(failing_over())?;
        let portico = Portico::start(&cluster, &[])?;
        let (shards, losses) = (shards(&cluster, 3)?, Losses::default());
        let moved = [11_000, 12_000, 13_000, 14_000];
        let slots = [&moved[..], &[50, 2_000, 4_000, 6_000, 8_000, 10_000]].concat();
        let work =
            |me: usize, stop: &AtomicBool| Caller::new(me, portico.port(), &slots)?.work(&losses, stop);
        let (callers, ()) = side_by_side(MEMBERS, work, || {
            sleep(Duration::from_millis(500));
            let added = cluster.add_node()?;
            for slot in moved {
                SlotMove { cluster: &cluster, pause: Duration::from_millis(5) }.run(slot, 2, added)?;
            }
            // One that comes back has lost its scripts, and its keys.
            let lost = || Instant::now() + Duration::from_millis(300);
            cluster.node(1).kill()?;
            losses.allow(lost(), shards[1].slots.clone());
            cluster.node(1).restart()?;
            sleep(Duration::from_secs(1));
            cluster.node(0).kill()?;
            losses.allow(lost(), shards[0].slots.clone());
            wait_until_master(&cluster, 3)?;
            sleep(Duration::from_secs(3));
            Ok(())
        })?;
        errors(&callers)?.expect_only(&["UNKNOWN", "CLUSTERDOWN"])?;
        // All over again, in peace: every script on every node.
        for mut caller in callers {
            let keys: Vec<String> = slots.iter().map(|slot| key_in_slot(*slot, "peace")).collect();
            let calls = keys.iter().map(|key| encode(&["EVALSHA", &caller.hash, "1", key, "x"]));
            caller.wire.send(&calls.collect::<Vec<_>>().concat())?;
            for reply in caller.wire.replies(keys.len())? {
                ensure!(reply.starts_with(b"*3"), "EVALSHA: {}", show(&reply));
            }
        }
        Ok(())
    })
}

const LIBRARY: &str =
    "#!lua name=endless\nredis.register_function('endless', function() while true do end end)";

/// A script and a function that do not end are killed, while others wait for their node.
fn killed(port: u16, nodes: &[Server]) -> Result<()> {
    let mut other = Client::connect(port)?;
    let library = other.call(&["FUNCTION", "LOAD", "REPLACE", LIBRARY])?;
    ensure!(library == b"$7\r\nendless\r\n", "FUNCTION LOAD: {}", show(&library));
    let tags = tags_in(&(0..=16_383), 3, "endless");
    let endless = ["EVAL", "while true do end", "1"];
    for (starts, kills) in [(&endless[..], "SCRIPT KILL"), (&["FCALL", "endless", "1"], "FUNCTION KILL")] {
        for (at, tag) in tags.iter().enumerate() {
            let idle = other.text(kills)?;
            ensure!(idle.starts_with("-NOTBUSY No scripts in execution right now."), "{kills}: {idle}");
            let mut runner = Client::connect(port)?;
            // The first uses what connections there are.
            other.line(&format!("GET {tag}"))?;
            runner.request(&[starts, &[tag.as_str()]].concat())?;
            let node = &nodes[at % nodes.len()];
            portico_tests::live::wait_until(Duration::from_secs(5), "the script runs", || {
                Ok(node.ask(&["DBSIZE"]).is_err_and(|error| format!("{error:#}").contains("BUSY")))
            })?;
            sleep(Duration::from_millis(250)); // Portico too has to see that it runs long
            let mut waiters = Vec::new();
            for _ in 0..5 {
                let mut waiter = Client::connect(port)?;
                waiter.request(&["GET", tag])?;
                waiters.push(waiter);
            }
            if nodes.len() > 1 {
                let began = Instant::now();
                other.expect(&format!("GET {}", tags[(at + 1) % tags.len()]), "$-1\r\n")?;
                ensure_timely!(
                    began.elapsed() < Duration::from_millis(800),
                    "others waited {:?}",
                    began.elapsed()
                );
            }
            let began = Instant::now();
            other.expect(kills, "+OK\r\n")?;
            let reply = String::from_utf8_lossy(&runner.reply()?).into_owned();
            ensure!(reply.starts_with("-ERR ") && reply.contains("killed by user"), "the script: {reply}");
            for mut waiter in waiters {
                let reply = waiter.reply()?;
                // A script that is not known to run long may have the connection that others use.
                let behind = nodes.len() > 1 && at == 0 && reply == b"$-1\r\n";
                ensure!(behind || reply.starts_with(b"-BUSY "), "a GET: {}", show(&reply));
                waiter.expect(&format!("GET {tag}"), "$-1\r\n")?;
            }
            ensure_timely!(began.elapsed() < Duration::from_secs(2), "{kills} took {:?}", began.elapsed());
        }
    }
    Ok(())
}

#[test]
fn a_script_that_does_not_end_is_killed() -> Result<()> {
    on_a_calm_machine(|| {
        let extra_args = ["--lua-time-limit", "100"].map(str::to_owned).to_vec();
        let node_timeout = Duration::from_secs(10);
        let cluster =
            Cluster::start(ClusterOptions { extra_args, node_timeout, ..ClusterOptions::default() })?;
        let portico = Portico::start(&cluster, &[])?;
        killed(portico.port(), cluster.nodes())
    })
}
