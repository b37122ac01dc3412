//! Connections that change hands: many clients on few leases block, watch, track, subscribe, pause, are unblocked,
//! half-close and leave while masters pause, stop, lose their connections and fail over. Every reply names its request,
//! and none is told to another.
//!
//! `HANDS_SECONDS` makes it last longer; `HANDS_SEED` repeats a run, as far as threads can.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use portico::sandbox::{Cluster, ClusterOptions};
use portico_tests::live::{cut_connections, fail_over, shards, side_by_side, tags_in};
use portico_tests::{Client, Frame, Portico, Random, encode_line, show};

const CLIENTS: usize = 24;
/// Far fewer than clients that want one.
const LEASES: &str = "9";
/// What is not an answer, but honest, whatever was asked.
const HONEST: [&str; 4] = [
    "-CLUSTERDOWN ",
    "-UNKNOWN ",
    "-ERR Portico has no connections left ",
    "-ERR Portico had no connection left ",
];

/// What all clients know of each other.
struct Crowd {
    /// For each client a hash tag in each shard.
    tags: Vec<Vec<String>>,
    ids: Vec<AtomicU64>,
    /// Elements of lists that were told to somebody, and by which client's request.
    told: Mutex<BTreeMap<String, usize>>,
}

impl Crowd {
    fn key(&self, client: usize, shard: usize, kind: &str) -> String {
        format!("{{{}}}{kind}{client}", self.tags[client][shard])
    }
}

#[derive(Default)]
struct Tally {
    replies: u64,
    elements: u64,
    unblocked: u64,
    honest: BTreeMap<String, u64>,
}

/// A client that forgets nothing of what it asked.
struct Member<'c> {
    me: usize,
    port: u16,
    crowd: &'c Crowd,
    random: Random,
    wire: Client,
    resp3: bool,
    number: u64,
    tally: Tally,
}

/// What a reply has to be.
enum Want {
    Exactly(String),
    /// An integer up to this.
    Number(u64),
    /// An element of this list, named or bare; or nothing.
    Element {
        list: String,
        bare: bool,
        surely: bool,
    },
    /// An entry of this stream, or nothing.
    Entry(String),
    /// EXEC of GET and STRLEN of a key, or nil.
    Exec(String, usize),
}

fn bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}

fn value(key: &str) -> String {
    format!("value of {key}")
}

impl<'c> Member<'c> {
    fn new(me: usize, port: u16, crowd: &'c Crowd, seed: u64) -> Result<Self> {
        let random = Random::new(seed ^ (me as u64 + 1) << 20);
        let wire = Client::connect(port)?;
        let mut member =
            Self { me, port, crowd, random, wire, resp3: false, number: 0, tally: Tally::default() };
        member.connect()?;
        Ok(member)
    }

    /// As somebody new.
    fn connect(&mut self) -> Result<()> {
        self.wire = Client::connect(self.port)?;
        self.resp3 = self.random.below(2) == 0;
        if self.resp3 {
            self.wire.hello3()?;
        }
        let id = self.wire.text("CLIENT ID")?;
        let id = id.trim_matches(|c: char| !c.is_ascii_digit()).parse().context("CLIENT ID")?;
        self.crowd.ids[self.me].store(id, Ordering::Relaxed);
        Ok(())
    }

    /// The next reply; what a RESP3 client is told besides has to be an invalidation.
    fn reply(&mut self) -> Result<Vec<u8>> {
        loop {
            let reply = self.wire.reply()?;
            self.tally.replies += 1;
            if reply.first() != Some(&b'>') || reply.windows(9).any(|part| part == b"subscribe") {
                return Ok(reply);
            }
            ensure!(reply.starts_with(b">2\r\n$10\r\ninvalidate\r\n"), "pushed {}", show(&reply));
        }
    }

    /// Sends requests at once and checks the reply to each.
    fn ask(&mut self, requests: &[(String, Want)]) -> Result<()> {
        let bytes: Vec<u8> = requests.iter().flat_map(|(line, _)| encode_line(line)).collect();
        self.wire.send(&bytes)?;
        for (line, want) in requests {
            let reply = self.reply().with_context(|| format!("to {line}"))?;
            if !self.is_right(&reply, want)? {
                let all: Vec<_> = requests.iter().map(|(line, _)| line).collect();
                bail!("{line} was answered {} (of {all:?}, resp3 {})", show(&reply), self.resp3);
            }
        }
        Ok(())
    }

    fn is_nil(&self, reply: &[u8]) -> bool {
        if self.resp3 { reply == b"_\r\n" } else { [&b"*-1\r\n"[..], b"$-1\r\n"].contains(&reply) }
    }

    fn is_right(&mut self, reply: &[u8], want: &Want) -> Result<bool> {
        if let Some(error) = HONEST.iter().find(|error| reply.starts_with(error.as_bytes())) {
            *self.tally.honest.entry((*error).to_owned()).or_default() += 1;
            return Ok(true);
        }
        let waits = matches!(want, Want::Element { .. } | Want::Entry(_) | Want::Number(_));
        if waits && reply.starts_with(b"-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n") {
            self.tally.unblocked += 1;
            return Ok(true);
        }
        let (frame, _) = Frame::read(reply);
        Ok(match want {
            Want::Exactly(right) => reply == right.as_bytes(),
            Want::Number(most) => {
                let text = std::str::from_utf8(frame.body().unwrap_or_default())?;
                reply[0] == b':' && text.parse::<u64>().is_ok_and(|number| number <= *most)
            }
            Want::Element { surely: false, .. } | Want::Entry(_) if self.is_nil(reply) => true,
            Want::Element { list, bare, .. } => {
                let element = if *bare {
                    frame.body()
                } else {
                    let named = frame.elements().first().and_then(Frame::body) == Some(list.as_bytes());
                    frame
                        .elements()
                        .get(1)
                        .filter(|_| named && frame.elements().len() == 2)
                        .and_then(Frame::body)
                };
                let Some(element) = element else { return Ok(false) };
                self.took(&String::from_utf8_lossy(element), list)?
            }
            Want::Entry(stream) => {
                let right = format!("\r\n{}", bulk(&format!("entry of {stream}")));
                reply.windows(right.len()).any(|part| part == right.as_bytes())
            }
            Want::Exec(key, length) => {
                let right = format!("*2\r\n{}:{length}\r\n", bulk(&value(key)));
                self.is_nil(reply) || reply == right.as_bytes()
            }
        })
    }

    /// Whether an element is of the list, and is told for the first time.
    fn took(&mut self, element: &str, list: &str) -> Result<bool> {
        self.tally.elements += 1;
        let before = self.crowd.told.lock().expect("nobody panics here").insert(element.to_owned(), self.me);
        ensure!(before.is_none(), "{element} was told twice");
        Ok(element.starts_with(&format!("element of {list} ")))
    }

    fn key(&mut self, kind: &str) -> String {
        let shard = self.random.below(3);
        self.crowd.key(self.me, shard, kind)
    }

    fn get(&mut self) -> (String, Want) {
        let key = self.key("key");
        (format!("GET {key}"), Want::Exactly(bulk(&value(&key))))
    }

    fn ok(line: impl Into<String>) -> (String, Want) {
        (line.into(), Want::Exactly("+OK\r\n".into()))
    }

    fn script(&mut self) -> (String, Want) {
        self.number += 1;
        let (key, word) = (self.key("key"), format!("{}.{}", self.me, self.number));
        let line = format!("EVAL 'return {{KEYS[1], ARGV[1]}}' 1 {key} {word}");
        (line, Want::Exactly(format!("*2\r\n{}{}", bulk(&key), bulk(&word))))
    }

    /// Something goes to the list.
    fn push(&mut self, list: &str) -> (String, Want) {
        self.number += 1;
        let element = format!("element of {list} {}.{}", self.me, self.number);
        (format!("RPUSH {list} \"{element}\""), Want::Number(u64::MAX))
    }

    fn wait_for_element(&mut self, list: &str, surely: bool) -> (String, Want) {
        let time = 0.01 + self.random.below(10) as f64 / 100.0;
        let bare = self.random.below(4) == 0;
        let line = if bare {
            format!("BLMOVE {list} {list}moved LEFT RIGHT {time}")
        } else {
            format!("BLPOP {list} {time}")
        };
        (line, Want::Element { list: list.to_owned(), bare, surely })
    }

    fn wait(&mut self) -> (String, Want) {
        match self.random.below(6) {
            0 => ("WAIT 0 0".into(), Want::Number(9)),
            1 => ("WAIT 1 20".into(), Want::Number(9)),
            2 => {
                let stream = self.key("stream");
                (format!("XREAD BLOCK 60 STREAMS {stream} $"), Want::Entry(stream))
            }
            _ => {
                let list = self.key("list");
                self.wait_for_element(&list, false)
            }
        }
    }

    fn act(&mut self) -> Result<()> {
        let (get, script) = (self.get(), self.script());
        match self.random.below(16) {
            0 => {
                let more: Vec<_> = (0..30).map(|_| self.get()).collect();
                self.ask(&more)?;
                self.ask(&[get, script])
            }
            1..=3 => {
                let wait = self.wait();
                self.ask(&[wait, get, script])
            }
            4 => {
                let list = self.key("list");
                let push = self.push(&list);
                // Another may be told it if an agent puts something back in between: but somebody is.
                let wait = self.wait_for_element(&list, false);
                self.ask(&[push, wait, get])
            }
            5 | 6 => self.watch(),
            7 => self.track(),
            8 => {
                let channel = self.key("channel");
                let told = |what: &str, count| {
                    let kind = if self.resp3 { '>' } else { '*' };
                    Want::Exactly(format!("{kind}3\r\n{}{}:{count}\r\n", bulk(what), bulk(&channel)))
                };
                let (begun, ended) = (told("subscribe", 1), told("unsubscribe", 0));
                self.ask(&[
                    (format!("SUBSCRIBE {channel}"), begun),
                    (format!("UNSUBSCRIBE {channel}"), ended),
                ])?;
                self.ask(&[get])
            }
            9 if self.random.below(8) == 0 => {
                let time = 5 + self.random.below(40);
                let wait = self.wait();
                self.ask(&[Self::ok(format!("CLIENT PAUSE {time} WRITE")), get, wait])
            }
            9 | 10 => {
                let other = self.crowd.ids[self.random.below(CLIENTS)].load(Ordering::Relaxed);
                let how = ["", " TIMEOUT", " ERROR"][self.random.below(3)];
                self.ask(&[(format!("CLIENT UNBLOCK {other}{how}"), Want::Number(1))])
            }
            11 | 12 => {
                let (other, shard) = (self.random.below(CLIENTS), self.random.below(3));
                let list = self.crowd.key(other, shard, "list");
                let stream = self.crowd.key(other, shard, "stream");
                let push = self.push(&list);
                self.ask(&[push])?;
                self.wire.call(&["XADD", &stream, "MAXLEN", "5", "*", "f", &format!("entry of {stream}")])?;
                Ok(())
            }
            13 => {
                let wait = self.wait();
                self.wire.send(&encode_line(&wait.0))?;
                sleep(Duration::from_millis(self.random.below(30) as u64));
                self.connect()
            }
            14 => {
                let wait = self.wait();
                let bytes = [encode_line(&get.0), encode_line(&wait.0)].concat();
                self.wire.send(&bytes)?;
                self.wire.end_requests()?;
                let rest = self.wire.rest().context("half-closed")?;
                let mut replies = Vec::new();
                let mut left = &rest[..];
                while !left.is_empty() {
                    let (_, after) = Frame::read(left);
                    replies.push(left[..left.len() - after.len()].to_vec());
                    left = after;
                }
                let wants = [get, wait];
                for (reply, (line, want)) in replies.iter().zip(&wants) {
                    ensure!(self.is_right(reply, want)?, "{line} was answered {} half-closed", show(reply));
                }
                ensure!(replies.len() <= 2, "more than was asked: {}", show(&rest));
                self.connect()
            }
            _ => self.connect(),
        }
    }

    fn watch(&mut self) -> Result<()> {
        let key = self.key("key");
        self.ask(&[Self::ok(format!("WATCH {key}"))])?;
        if self.random.below(2) == 0 {
            let (wait, get) = (self.wait(), self.get());
            self.ask(&[wait, get])?;
        }
        let queued = |line: String| (line, Want::Exactly("+QUEUED\r\n".into()));
        match self.random.below(4) {
            0 => self.ask(&[Self::ok("UNWATCH")]),
            1 => self.connect(),
            2 => {
                let get = self.get();
                self.ask(&[Self::ok("MULTI"), queued(format!("GET {key}")), Self::ok("DISCARD"), get])
            }
            _ => {
                let get = self.get();
                self.ask(&[
                    Self::ok("MULTI"),
                    queued(format!("GET {key}")),
                    queued(format!("STRLEN {key}")),
                    ("EXEC".into(), Want::Exec(key.clone(), value(&key).len())),
                    get,
                ])
            }
        }
    }

    fn track(&mut self) -> Result<()> {
        if !self.resp3 {
            return self.connect();
        }
        let (first, second, third, wait) = (self.get(), self.get(), self.get(), self.wait());
        self.ask(&[Self::ok("CLIENT TRACKING ON")])?;
        self.ask(&[first, wait, second])?;
        if self.random.below(3) == 0 {
            return self.connect();
        }
        self.ask(&[Self::ok("CLIENT TRACKING OFF"), third])
    }
}

/// What is done to the nodes meanwhile. Returns how often each was done.
fn disturb(cluster: &Cluster, lasts: Duration, mut random: Random) -> Result<BTreeMap<&'static str, u64>> {
    let (began, mut done) = (Instant::now(), BTreeMap::new());
    let mut failed_over = Instant::now();
    while began.elapsed() < lasts {
        sleep(Duration::from_millis(50 + random.below(250) as u64));
        let pair = random.below(3);
        let node = &cluster.nodes()[portico_tests::live::master_index(cluster, [pair, pair + 3])?];
        let what = match random.below(8) {
            0 => {
                node.pause()?;
                sleep(Duration::from_millis(50 + random.below(300) as u64));
                node.resume()?;
                "stopped"
            }
            1 => {
                let index = cluster.nodes().iter().position(|other| other.port() == node.port());
                cut_connections(cluster, &[index.context("a node")?])?;
                "cut"
            }
            2 if failed_over.elapsed() > Duration::from_millis(2500) => {
                fail_over(cluster, [pair, pair + 3])?;
                failed_over = Instant::now();
                "failed over"
            }
            _ => {
                let time = (20 + random.below(250)).to_string();
                node.ask(&["CLIENT", "PAUSE", &time, "WRITE"])?;
                "paused"
            }
        };
        *done.entry(what).or_default() += 1;
    }
    Ok(done)
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn no_reply_is_told_to_another_when_connections_change_hands() -> Result<()> {
    let chance = SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros() as u64;
    let seed = setting("HANDS_SEED").unwrap_or(chance);
    let lasts = Duration::from_secs(setting("HANDS_SECONDS").unwrap_or(20));
    println!("hands: HANDS_SEED={seed}");
    let cluster = Cluster::start(ClusterOptions { replicas: 1, ..ClusterOptions::default() })?;
    let flags = ["--workers", "1", "--max-leases", LEASES, "--cross-slot", "emulate"];
    let portico = Portico::start(&cluster, &flags)?;
    let shards = shards(&cluster, 3)?;
    let in_each: Vec<Vec<String>> = shards
        .iter()
        .enumerate()
        .map(|(shard, of)| tags_in(&of.slots, CLIENTS, &format!("hands{shard}-")))
        .collect();
    let tags = (0..CLIENTS).map(|client| in_each.iter().map(|tags| tags[client].clone()).collect()).collect();
    let ids = (0..CLIENTS).map(|_| AtomicU64::default()).collect();
    let crowd = Crowd { tags, ids, told: Mutex::default() };
    let mut setter = portico.client()?;
    for client in 0..CLIENTS {
        for shard in 0..3 {
            let key = crowd.key(client, shard, "key");
            setter.expect(&format!("SET {key} \"{}\"", value(&key)), "+OK\r\n")?;
        }
    }
    let work = |me: usize, stop: &AtomicBool| -> Result<Tally> {
        let mut member = Member::new(me, portico.port(), &crowd, seed)?;
        while !stop.load(Ordering::Relaxed) {
            member.act().with_context(|| format!("HANDS_SEED={seed}"))?;
        }
        Ok(member.tally)
    };
    let (tallies, done) = side_by_side(CLIENTS, work, || disturb(&cluster, lasts, Random::new(seed)))?;
    let sum = |of: fn(&Tally) -> u64| tallies.iter().map(of).sum::<u64>();
    let mut honest = BTreeMap::new();
    for (error, count) in tallies.iter().flat_map(|tally| &tally.honest) {
        *honest.entry(error).or_insert(0) += count;
    }
    let replies = sum(|tally| tally.replies);
    println!(
        "hands: {replies} replies, {} elements, {} unblocked, errors {honest:?}; nodes {done:?}",
        sum(|tally| tally.elements),
        sum(|tally| tally.unblocked),
    );
    ensure!(replies > 3000, "only {replies} replies");
    ensure!(sum(|tally| tally.elements) > 50 && sum(|tally| tally.unblocked) > 20, "little was shown");
    Ok(())
}
