//! What a request costs a worker in system calls: Portico and the nodes take turns, so that the same load is the same
//! turns, however busy the machine is.
//!
//! In a round every client writes its requests while Portico stands still (SIGSTOP). It goes on until it sleeps, then
//! the nodes do, then Portico again: it finds all requests at once, and then all replies at once. Whatever stands
//! still has its input complete before it goes on. strace starts Portico and not the other way round, since many
//! systems let nobody trace a process that is not its descendant. Interrupted calls and waits that ran out are not
//! counted: those are the signals' and the time's.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use portico::sandbox::{Cluster, ClusterOptions, Server};
use portico_tests::{Client, Costs, Portico, Random, encode, show};
use tempfile::TempDir;

const CLIENTS: usize = 50;
const WARM_UP: usize = 3;
const ROUNDS: usize = 30;
const KEYS: usize = 1000;
const MARGIN: f64 = 0.05;
/// Longest that one step of a round may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Each call that is made often has a column of its own.
const CALLS: [&str; 3] = ["epoll_wait", "recvfrom", "sendto"];

/// What each client asks in a round: so many requests, with so many keys each.
struct Shape {
    name: &'static str,
    depth: usize,
    keys: usize,
}

const SHAPES: [Shape; 3] = [
    Shape { name: "GET", depth: 1, keys: 1 },
    Shape { name: "GET, pipeline of 16", depth: 16, keys: 1 },
    Shape { name: "MGET of 10 keys", depth: 1, keys: 10 },
];

fn value(key: &str) -> String {
    format!("{key:x<64}")
}

/// One request and its reply.
fn exchange(keys: &[String]) -> (Vec<u8>, Vec<u8>) {
    let bulk = |key: &String| format!("$64\r\n{}\r\n", value(key));
    let replies: String = keys.iter().map(bulk).collect();
    let mut words = vec![if keys.len() == 1 { "GET" } else { "MGET" }];
    words.extend(keys.iter().map(String::as_str));
    let head = if keys.len() == 1 { String::new() } else { format!("*{}\r\n", keys.len()) };
    (encode(&words), (head + &replies).into_bytes())
}

/// The state of a thread: `S` sleeps, `T` and `t` stand still.
fn state(thread: &Path) -> Result<char> {
    let stat = fs::read_to_string(thread.join("stat"))?;
    // Its name, in parentheses, may hold anything.
    stat.rsplit(") ").next().and_then(|rest| rest.chars().next()).context("a thread has a state")
}

/// Waits until these threads are all in one of the states, seen several times in a row.
fn wait_for(threads: &[PathBuf], states: &str) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let mut seen = 0;
    while seen < 4 {
        let mut all = true;
        for thread in threads {
            all &= states.contains(state(thread)?);
        }
        seen = if all { seen + 1 } else { 0 };
        ensure!(Instant::now() < deadline, "{threads:?} are not in state {states} in time");
        sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// The cluster, Portico under strace, and its clients.
struct World {
    // Killed before the servers, and also when they stand still.
    portico: Portico,
    cluster: Cluster,
    clients: Vec<Client>,
    /// The one worker.
    worker: PathBuf,
    nodes: Vec<PathBuf>,
    folder: TempDir,
}

impl World {
    fn start() -> Result<Self> {
        // Nobody may be held for failed because it stood still.
        let node_timeout = Duration::from_secs(60);
        let cluster = Cluster::start(ClusterOptions { node_timeout, ..ClusterOptions::default() })?;
        let folder = tempfile::tempdir()?;
        let mut strace = Command::new("strace");
        // As a child of what it traces (-D), so that the process that we start is Portico; one file a thread (-ff).
        strace.args(["-D", "-ff", "-qq", "-e", "signal=none", "-o"]).arg(folder.path().join("trace"));
        let flags = ["--workers", "1", "--refresh-interval", "3600000"];
        let portico = Portico::start_by(strace, &cluster, &flags).context("is strace there?")?;
        let traced = fs::read_dir(folder.path())?.next().is_some();
        ensure!(
            traced,
            "strace may not trace here: a container needs the capability SYS_PTRACE, and a seccomp profile that \
             admits ptrace. It said:\n{}",
            portico.log()
        );
        let mut worker = None;
        for thread in fs::read_dir(format!("/proc/{}/task", portico.pid()))? {
            let path = thread?.path();
            if fs::read_to_string(path.join("comm"))?.trim() == "worker-0" {
                worker = Some(path);
            }
        }
        let worker = worker.context("no thread is worker-0")?;
        let pids = cluster.nodes().iter().map(|node| node.pid().context("a node ended"));
        let nodes = pids.map(|pid| Ok(format!("/proc/{}", pid?).into())).collect::<Result<_>>()?;
        let clients = (0..CLIENTS).map(|_| portico.client()).collect::<Result<_>>()?;
        let mut world = World { portico, cluster, clients, worker, nodes, folder };
        world.fill()?;
        Ok(world)
    }

    /// Gives every key its value.
    fn fill(&mut self) -> Result<()> {
        let client = &mut self.clients[0];
        for key in 0..KEYS {
            let key = key_name(key);
            client.request(&["SET", &key, &value(&key)])?;
        }
        let replies = client.replies(KEYS)?;
        ensure!(replies.iter().all(|reply| reply == b"+OK\r\n"), "SET");
        // A connection is accepted when its client was answered.
        self.clients.iter_mut().try_for_each(|client| client.expect("PING", "+PONG\r\n"))
    }

    fn stop_portico(&self) -> Result<()> {
        self.portico.signal("STOP")?;
        wait_for(std::slice::from_ref(&self.worker), "tT")
    }

    /// Lets Portico do what there is to do.
    fn run_portico(&self) -> Result<()> {
        self.portico.signal("CONT")?;
        wait_for(std::slice::from_ref(&self.worker), "S")
    }

    fn stop_nodes(&self) -> Result<()> {
        self.cluster.nodes().iter().try_for_each(Server::pause)?;
        wait_for(&self.nodes, "tT")
    }

    fn run_nodes(&self) -> Result<()> {
        self.cluster.nodes().iter().try_for_each(Server::resume)?;
        wait_for(&self.nodes, "S")
    }

    fn round(&mut self, shape: &Shape, random: &mut Random) -> Result<()> {
        self.stop_portico()?;
        self.stop_nodes()?;
        let mut expected = Vec::new();
        for client in &mut self.clients {
            let (mut requests, mut replies) = (Vec::new(), Vec::new());
            for _ in 0..shape.depth {
                let keys: Vec<_> = (0..shape.keys).map(|_| key_name(random.below(KEYS))).collect();
                let (request, reply) = exchange(&keys);
                requests.extend(request);
                replies.push(reply);
            }
            client.send(&requests)?;
            expected.push(replies);
        }
        self.run_portico()?;
        self.stop_portico()?;
        self.run_nodes()?;
        self.stop_nodes()?;
        self.run_portico()?;
        for (client, expected) in self.clients.iter_mut().zip(&expected) {
            for (reply, expected) in client.replies(shape.depth)?.iter().zip(expected) {
                ensure!(reply == expected, "{} instead of {}", show(reply), show(expected));
            }
        }
        self.run_nodes()
    }

    /// The worker's calls so far that were neither interrupted nor in vain, by name.
    fn calls(&self) -> Result<BTreeMap<String, usize>> {
        let thread = self.worker.file_name().context("a thread has a number")?.to_string_lossy().into_owned();
        let trace = fs::read_to_string(self.folder.path().join(format!("trace.{thread}")))?;
        let mut calls = BTreeMap::new();
        // The last line is the wait that it is in.
        for line in trace.lines().filter(|line| line.contains(") = ")) {
            let name = line.split('(').next().unwrap_or_default();
            // Some architectures have only the second.
            let name = if name == "epoll_pwait" { "epoll_wait" } else { name };
            let ran_out = name == "epoll_wait" && line.ends_with(" = 0");
            // The worker looks at its own processor time ten times a second, whatever it has to do.
            let of_time = ran_out || name == "clock_gettime" || name == "restart_syscall";
            if !of_time && !line.contains("= -1 EINTR") {
                *calls.entry(name.to_owned()).or_default() += 1;
            }
        }
        Ok(calls)
    }

    /// The figures of a shape: all calls a request, each often made one's, and the others'.
    fn measure(&mut self, shape: &Shape) -> Result<Vec<f64>> {
        let mut random = Random::new(1);
        (0..WARM_UP).try_for_each(|_| self.round(shape, &mut random))?;
        let before = self.calls()?;
        (0..ROUNDS).try_for_each(|_| self.round(shape, &mut random))?;
        let mut calls = self.calls()?;
        calls.iter_mut().for_each(|(name, count)| *count -= before.get(name).copied().unwrap_or(0));
        calls.retain(|_, count| *count > 0);
        println!("{}: {calls:?} in {ROUNDS} rounds of {CLIENTS} clients", shape.name);
        let requests = (ROUNDS * CLIENTS * shape.depth) as f64;
        let all: usize = calls.values().sum();
        let often = CALLS.map(|name| calls.get(name).copied().unwrap_or(0));
        let others = all - often.iter().sum::<usize>();
        let figures = [&[all], &often[..], &[others]].concat();
        Ok(figures.into_iter().map(|count| count as f64 / requests).collect())
    }
}

fn key_name(number: usize) -> String {
    format!("key:{number:012}")
}

#[test]
fn a_request_takes_as_many_system_calls_as_recorded() -> Result<()> {
    let mut world = World::start()?;
    let mut rows = Vec::new();
    for shape in &SHAPES {
        rows.push((shape.name.to_owned(), world.measure(shape)?));
    }
    let costs = Costs {
        file: "system-calls.tsv",
        what: "A worker's system calls a request, 50 clients at once, 3 masters.",
        made_with: "any compiler".into(),
        columns: [&["system calls"], &CALLS[..], &["others"]].concat(),
        rows,
    };
    costs.settle(|_| Some(MARGIN))
}
