//! One master at a time stops: nothing hangs, and nothing of the other shards fails but what has to ask all masters.
//!
//! Each command of the table is called, on a connection of its own: without a key where it has none, otherwise with one
//! of a shard that lives. `make test` stops one master in one way; `make test-stops` each of them in each way.

use std::collections::VecDeque;
use std::net::TcpListener;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use portico::command::{Command, Handling, PubSub, Scripts, Table};
use portico::sandbox::{Cluster, ClusterOptions, Connection, Port};
use portico_tests::{Client, Portico, show};

/// A key for each shard of three, in the masters' order.
const KEYS: [&str; 3] = ["b", "c", "a"];
/// `failover-timeout`, and how long whoever does not need the stopped master may take.
const FAILOVER: Duration = Duration::from_secs(1);
/// An answer of any kind has to come within: the cluster's node timeout, failover-timeout, what blocks for a second.
const LIMIT: Duration = Duration::from_secs(6);
const CALLERS: usize = 32;

/// How a master stops.
#[derive(Clone, Copy, Debug)]
enum Stop {
    /// SIGSTOP: its connections stand, nothing is answered.
    Paused,
    /// SIGKILL: it is gone.
    Killed,
    /// Its port refuses connections, though the cluster is happy with it.
    Refuses,
    /// Its port takes connections and never says anything.
    Mute,
}

/// A master that has stopped, until it goes on.
struct Stopped {
    index: usize,
    stop: Stop,
    /// To a node whose port moved.
    direct: Option<Connection>,
    mute: Option<Mute>,
    _elsewhere: Option<Port>,
}

/// Takes connections and says nothing.
struct Mute {
    port: u16,
    ended: std::sync::Arc<AtomicBool>,
    thread: std::thread::JoinHandle<()>,
}

impl Mute {
    fn listen(port: u16) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", port))?;
        let ended = std::sync::Arc::new(AtomicBool::new(false));
        let end = std::sync::Arc::clone(&ended);
        let thread = std::thread::spawn(move || {
            let mut held = Vec::new();
            for stream in listener.incoming().flatten() {
                if end.load(Ordering::SeqCst) {
                    return;
                }
                held.push(stream);
            }
        });
        Ok(Self { port, ended, thread })
    }

    fn end(self) {
        self.ended.store(true, Ordering::SeqCst);
        if std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
            let _ = self.thread.join();
        }
    }
}

impl Stopped {
    fn begin(cluster: &mut Cluster, index: usize, stop: Stop) -> Result<Self> {
        let mut stopped = Self { index, stop, direct: None, mute: None, _elsewhere: None };
        match stop {
            Stop::Paused => cluster.node(index).pause()?,
            Stop::Killed => cluster.node(index).kill()?,
            Stop::Refuses | Stop::Mute => {
                let node = &cluster.nodes()[index];
                let (port, elsewhere) = (node.port(), Port::reserve()?);
                let mut direct = node.connect()?;
                direct.ask(&["CONFIG", "SET", "cluster-announce-port", &port.to_string()])?;
                direct.ask(&["CONFIG", "SET", "port", &elsewhere.number().to_string()])?;
                if matches!(stop, Stop::Mute) {
                    stopped.mute = Some(Mute::listen(port)?);
                }
                direct.call(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"])?;
                direct.call(&["CLIENT", "KILL", "TYPE", "pubsub", "SKIPME", "yes"])?;
                (stopped.direct, stopped._elsewhere) = (Some(direct), Some(elsewhere));
            }
        }
        Ok(stopped)
    }

    fn end(mut self, cluster: &mut Cluster) -> Result<()> {
        if let Some(mute) = self.mute.take() {
            mute.end();
        }
        match self.stop {
            Stop::Paused => cluster.node(self.index).resume()?,
            Stop::Killed => cluster.node(self.index).restart()?,
            Stop::Refuses | Stop::Mute => {
                let port = cluster.nodes()[self.index].port().to_string();
                let direct = self.direct.as_mut().context("it was kept")?;
                direct.ask(&["CONFIG", "SET", "port", &port])?;
            }
        }
        cluster.wait_until_agreed()
    }
}

/// What is asked, and whether it needs all masters.
struct Call {
    words: Vec<String>,
    asks_all: bool,
}

/// Those whose keys stand behind a word.
const WORDED: [&str; 2] = ["XREAD STREAMS KEY 0", "XREADGROUP GROUP g c STREAMS KEY >"];

/// Keeps the nodes that live for more than a second: as good as stopped, for whoever asks them meanwhile.
const STOPS_NODES: &str = "pfselftest";

/// A call of each command, with a key of the given ones in turn.
fn calls(keys: &[&str]) -> Vec<Call> {
    let table = Table::builtin();
    let mut calls = Vec::new();
    let commands = table.commands().filter(|command| command.name != STOPS_NODES);
    for (command, key) in commands.zip(keys.iter().cycle()) {
        // What Portico has no answer for yet is a refusal at once; containers are called by what they contain.
        let name = command.name.replace('|', " ").to_uppercase();
        let worded = WORDED.iter().find(|line| line.split(' ').next() == Some(name.as_str()));
        let words: Vec<String> = match worded {
            Some(line) => line.replace("KEY", key).split(' ').map(str::to_owned).collect(),
            None => words_of(command, &name, key),
        };
        calls.push(Call { words, asks_all: asks_all(command) });
    }
    calls
}

/// As few words as the command takes, `1` where it has no key.
fn words_of(command: &Command, name: &str, key: &str) -> Vec<String> {
    let mut words: Vec<String> = name.split(' ').map(str::to_owned).collect();
    words.resize(words.len().max(command.arity.unsigned_abs() as usize), "1".to_owned());
    let mut positions = Vec::new();
    for _ in 0..3 {
        let args: Vec<&[u8]> = words.iter().map(String::as_bytes).collect();
        positions.clear();
        if command.key_positions(&args[..], &mut positions).is_ok() && !positions.is_empty() {
            break;
        }
        if command.arity < 0 && !matches!(command.keys, portico::command::Keys::None) {
            words.push("1".to_owned());
        }
    }
    for &at in &positions {
        words[at as usize] = key.to_owned();
    }
    words
}

/// Commands about servers that go to all of them, or whose answer is made of parts.
const ASK_ALL: [&str; 6] =
    ["config|set", "config|resetstat", "config|rewrite", "acl|setuser", "acl|deluser", "acl|list"];

fn asks_all(command: &Command) -> bool {
    match command.handling {
        Handling::Masters(_) | Handling::Nodes(_) | Handling::Scan | Handling::Debug => true,
        Handling::Scripts(what) => !matches!(what, Scripts::Load | Scripts::Exists),
        Handling::PubSub(what) => matches!(what, PubSub::ShardNumsub | PubSub::ShardChannels),
        _ => ASK_ALL.contains(&command.name),
    }
}

/// What is wrong with the answer to a call, if anything is.
fn judge(port: u16, call: &Call) -> Result<Option<String>> {
    let mut client = Client::connect(port)?;
    client.request(&call.words)?;
    let begun = Instant::now();
    let problem = match client.within(LIMIT) {
        Err(_) => None, // CLIENT KILL and the like may close it
        Ok(None) => Some("no answer".to_owned()),
        Ok(Some(reply)) => {
            let down = ["-CLUSTERDOWN", "-UNKNOWN", "-TRYAGAIN"];
            let down = down.iter().any(|code| reply.starts_with(code.as_bytes()));
            // A node's own word: on a busy machine it misses those that live as well.
            let down = down && !reply.starts_with(b"-CLUSTERDOWN The cluster is down");
            (down && !call.asks_all).then(|| show(&reply))
        }
    };
    let took = begun.elapsed();
    Ok(problem.map(|problem| format!("{}: {problem} after {took:.1?}", call.words.join(" "))))
}

/// Calls everything, many at a time.
fn call_everything(port: u16, keys: &[&str]) -> Result<Vec<String>> {
    let calls: Mutex<VecDeque<Call>> = Mutex::new(calls(keys).into());
    let problems = Mutex::new(Vec::new());
    let work = || -> Result<()> {
        loop {
            let next = calls.lock().expect("nobody panics").pop_front();
            let Some(call) = next else { return Ok(()) };
            if let Some(problem) = judge(port, &call)? {
                problems.lock().expect("nobody panics").push(problem);
            }
        }
    };
    scope(|scope| {
        let callers: Vec<_> = (0..CALLERS).map(|_| scope.spawn(work)).collect();
        callers.into_iter().try_for_each(|caller| caller.join().expect("no panic"))
    })?;
    Ok(problems.into_inner()?)
}

fn stop_masters(stops: &[Stop], masters: &[usize], passes: usize) -> Result<()> {
    let mut cluster = Cluster::start(ClusterOptions {
        extra_args: ["--cluster-require-full-coverage", "no", "--cluster-allow-pubsubshard-when-down", "yes"]
            .map(String::from)
            .to_vec(),
        ..ClusterOptions::default()
    })?;
    let failover = FAILOVER.as_millis().to_string();
    let flags = ["--failover-timeout", &failover, "--refresh-interval", "1000", "--connect-timeout", "500"];
    let portico = Portico::start(&cluster, &flags)?;
    portico.expect_log("");
    let mut problems = Vec::new();
    for &stop in stops {
        for &index in masters {
            // All connections stand.
            let deadline = Instant::now() + Duration::from_secs(10);
            while !portico.client()?.text("MSET a 1 b 1 c 1")?.starts_with("+OK") {
                ensure!(Instant::now() < deadline, "{stop:?} of master {index}: not served any more");
                sleep(Duration::from_millis(50));
            }
            let keys: Vec<&str> = (0..3).filter(|&other| other != index).map(|other| KEYS[other]).collect();
            let stopped = Stopped::begin(&mut cluster, index, stop)?;
            for pass in 0..passes {
                // First before anybody knows of it, then when all do.
                let begun = Instant::now();
                let found = call_everything(portico.port(), &keys)?;
                eprintln!("{stop:?} of master {index}, pass {pass}: {:.1?}", begun.elapsed());
                problems
                    .extend(found.into_iter().map(|problem| format!("{stop:?} {index} {pass}: {problem}")));
            }
            stopped.end(&mut cluster)?;
        }
    }
    problems.sort();
    ensure!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
    Ok(())
}

#[test]
fn a_paused_master_takes_nobody_else_with_it() -> Result<()> {
    stop_masters(&[Stop::Paused], &[1], 1)
}

#[test]
#[ignore = "takes minutes: make test-stops"]
fn no_master_takes_anybody_else_with_it_however_it_stops() -> Result<()> {
    stop_masters(&[Stop::Paused, Stop::Killed, Stop::Refuses, Stop::Mute], &[0, 1, 2], 2)
}
