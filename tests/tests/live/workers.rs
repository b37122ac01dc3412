//! A worker that has too much hands clients over to another, and takes them back when there is little to do: nobody
//! notices.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use portico::sandbox::{Cluster, ClusterOptions};
use portico_tests::{Client, Portico, encode, ensure_timely, on_a_calm_machine};

const CLIENTS: usize = 16;
/// Longer than the workers need to agree, also on a machine that does other things besides.
const PATIENCE: Duration = Duration::from_secs(30);
/// What `worker/balance.rs` takes for too much, as part of a core.
const TOO_BUSY: f64 = 0.8;

/// What INFO tells of each worker: how many clients it has, and how busy it is, 1 being all of a core.
fn workers(client: &mut Client) -> Result<Vec<(usize, f64)>> {
    let info = String::from_utf8(client.call(&["INFO", "portico"])?)?;
    let fields = |line: &str| {
        let (clients, busy) = line.split_once(":clients=")?.1.split_once(",busy=")?;
        Some((clients.parse().ok()?, busy.trim().parse().ok()?))
    };
    Ok(info.lines().filter(|line| line.starts_with("portico_worker")).filter_map(fields).collect())
}

/// What a client is to Portico; this must not change when its worker does.
fn identity(client: &mut Client) -> Result<String> {
    let line = String::from_utf8(client.call(&["CLIENT", "INFO"])?)?;
    let stays =
        |word: &&str| ["id=", "addr=", "name=", "resp=", "lib-name="].iter().any(|f| word.starts_with(f));
    Ok(line.split_whitespace().filter(stays).collect::<Vec<_>>().join(" "))
}

/// A client's pipeline of ECHOs with an INCR behind it, ready made, so that Portico has more to do than the client.
struct Pipeline {
    requests: Vec<u8>,
    replies: Vec<u8>,
}

impl Pipeline {
    fn new(me: usize, deep: usize) -> Self {
        let (mut requests, mut replies) = (Vec::new(), Vec::new());
        for at in 0..deep {
            let text = format!("{me}:{at}");
            replies.extend(format!("${}\r\n{text}\r\n", text.len()).into_bytes());
            requests.extend(encode(&["ECHO", &text]));
        }
        requests.extend(encode(&["INCR".to_owned(), format!("count:{me}")]));
        Self { requests, replies }
    }

    /// Answered in order, and counted once.
    fn run(&self, client: &Client, count: usize) -> Result<()> {
        client.stream().write_all(&self.requests)?;
        let due = [&self.replies[..], format!(":{count}\r\n").as_bytes()].concat();
        let mut replies = vec![0; due.len()];
        client.stream().read_exact(&mut replies)?;
        ensure!(replies == due, "the replies to INCR number {count} and what was before it");
        Ok(())
    }
}

fn clients(workers: &[(usize, f64)]) -> Vec<usize> {
    workers.iter().map(|worker| worker.0).collect()
}

/// Waits until that is so. Returns how often a worker was seen with too much to do, 0 if it became so.
fn wait(watcher: &mut Client, what: &str, is: impl Fn(&[usize]) -> bool) -> Result<usize> {
    let (begin, mut overloads) = (Instant::now(), 0);
    while begin.elapsed() < PATIENCE {
        let workers = workers(watcher)?;
        if is(&clients(&workers)) {
            println!("{what}: {workers:?} after {:.1} s", begin.elapsed().as_secs_f32());
            return Ok(0);
        }
        overloads += usize::from(workers.iter().any(|worker| worker.1 > TOO_BUSY));
        sleep(Duration::from_millis(100));
    }
    println!("{what}: not after {PATIENCE:?}, {:?}", workers(watcher)?);
    Ok(overloads)
}

#[test]
fn clients_are_shared_under_load_and_come_back() -> Result<()> {
    on_a_calm_machine(|| {
        let cluster = Cluster::start(ClusterOptions::default())?;
        let portico = Portico::start(&cluster, &["--workers", "3", "--requirepass", "secret"])?;
        let (busy, ended) = (AtomicBool::new(true), AtomicBool::new(false));
        let connect = |me: usize| -> Result<Client> {
            let mut client = portico.client()?;
            client.call(&[
                "HELLO",
                if me.is_multiple_of(2) { "2" } else { "3" },
                "AUTH",
                "default",
                "secret",
            ])?;
            client.call(&["CLIENT", "SETNAME", &format!("client-{me}")])?;
            Ok(client)
        };
        let mut watcher = connect(100)?;
        let work = |me: usize| -> Result<()> {
            let mut client = connect(me)?;
            let before = identity(&mut client)?;
            let (deep, flat) = (Pipeline::new(me, 2000), Pipeline::new(me, 1));
            for count in 1.. {
                if ended.load(Ordering::Relaxed) {
                    break;
                }
                if busy.load(Ordering::Relaxed) {
                    deep.run(&client, count)?;
                } else {
                    flat.run(&client, count)?;
                    sleep(Duration::from_millis(20));
                }
            }
            ensure!(identity(&mut client)? == before, "{before} became {}", identity(&mut client)?);
            Ok(())
        };
        scope(|scope| {
            let work = &work;
            let threads: Vec<_> = (0..CLIENTS).map(|me| scope.spawn(move || work(me))).collect();
            let seen = (|| {
                let one_worker = |clients: &[usize]| clients[1..].iter().all(|clients| *clients == 0);
                wait(&mut watcher, "clients connected", |clients| clients.iter().sum::<usize>() > CLIENTS)?;
                let shared = |clients: &[usize]| clients.iter().filter(|clients| **clients > 1).count() > 1;
                let overloads = wait(&mut watcher, "clients are shared", shared)?;
                // Where others keep a worker from its core it never has too much to do.
                ensure_timely!(
                    overloads < 20,
                    "no clients were shared, although a worker had too much to do"
                );
                busy.store(false, Ordering::Relaxed);
                wait(&mut watcher, "one worker has them all", one_worker)?;
                ensure!(one_worker(&clients(&workers(&mut watcher)?)), "they did not come back");
                Ok(())
            })();
            ended.store(true, Ordering::Relaxed);
            for thread in threads {
                thread.join().expect("the thread does not panic")?;
            }
            seen
        })
    })
}
