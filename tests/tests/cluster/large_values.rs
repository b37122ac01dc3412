//! Values up to the limit of 512 MB pass in bounded memory and stand in nobody's way.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use portico::sandbox::{Cluster, ClusterOptions, Server, ServerOptions};
use portico_tests::{Client, Portico, Random, encode, ensure_timely, on_a_calm_machine, show};

const MB: usize = 1 << 20;

/// Most memory that Portico may ever hold, however large the values.
const MEMORY: u64 = 150 << 20;

/// Most that others may have to wait, on a machine that is busy with half gigabytes.
const LATENCY: Duration = Duration::from_secs(1);

fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        let extra_args = ["--client-query-buffer-limit", "2gb"].map(str::to_owned).to_vec();
        let options = ClusterOptions { extra_args, ..ClusterOptions::default() };
        Cluster::start(options).expect("redis-server starts")
    })
}

/// One for all tests that do not look at its memory.
fn portico() -> &'static Portico {
    static PORTICO: OnceLock<Portico> = OnceLock::new();
    PORTICO.get_or_init(|| Portico::start(cluster(), &[]).expect("portico starts"))
}

/// Bytes that differ at each place, made as they are needed.
struct Value {
    block: Vec<u8>,
    length: usize,
}

impl Value {
    fn new(seed: u64, length: usize) -> Self {
        Value { block: Random::new(seed).bytes(MB), length }
    }

    /// Its pieces in order.
    fn for_each(&self, mut take: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut block = self.block.clone();
        let mut at = 0;
        while at < self.length {
            block[..8].copy_from_slice(&(at as u64).to_le_bytes());
            let piece = &block[..MB.min(self.length - at)];
            take(piece)?;
            at += piece.len();
        }
        Ok(())
    }

    /// Writes a command whose last argument this is.
    fn send(&self, mut stream: &TcpStream, before: &[&str]) -> Result<()> {
        self.begin(stream, before)?;
        self.for_each(|piece| Ok(stream.write_all(piece)?))?;
        Ok(stream.write_all(b"\r\n")?)
    }

    fn begin(&self, mut stream: &TcpStream, before: &[&str]) -> Result<()> {
        let head = String::from_utf8(encode(before))?;
        let (_, arguments) = head.split_once("\r\n").context("a line")?;
        write!(stream, "*{}\r\n{arguments}${}\r\n", before.len() + 1, self.length)?;
        Ok(())
    }

    /// Reads it as a bulk reply.
    fn receive(&self, mut stream: &TcpStream) -> Result<()> {
        let mut head = vec![0; format!("${}\r\n", self.length).len()];
        stream.read_exact(&mut head)?;
        ensure!(head == format!("${}\r\n", self.length).as_bytes(), "begins with {}", show(&head));
        let mut got = vec![0; MB];
        self.for_each(|piece| {
            stream.read_exact(&mut got[..piece.len()])?;
            ensure!(got[..piece.len()] == *piece, "other bytes");
            Ok(())
        })?;
        let mut end = [0; 2];
        stream.read_exact(&mut end)?;
        ensure!(&end == b"\r\n", "ends with {end:?}");
        Ok(())
    }
}

/// Calls `work` while other clients use keys of the same slot, back to back, so that some request of theirs stands right
/// behind each of its own; returns the longest that one had to wait.
fn while_others_work(port: u16, key: &str, work: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let done = &AtomicBool::new(false);
    scope(|scope| {
        let other = |number: usize| {
            move || -> Result<Duration> {
                let mut client = Client::connect(port)?;
                let mut worst = Duration::ZERO;
                while !done.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    client.expect(&format!("SET {key}{number} x"), "+OK\r\n")?;
                    client.expect(&format!("GET {key}{number}"), "$1\r\nx\r\n")?;
                    worst = worst.max(began.elapsed());
                }
                Ok(worst)
            }
        };
        let others: Vec<_> = (0..4).map(|number| scope.spawn(other(number))).collect();
        let result = work();
        done.store(true, Ordering::Relaxed);
        let mut worst = Duration::ZERO;
        for other in others {
            worst = worst.max(other.join().expect("no panic")?);
        }
        println!("others waited for at most {worst:?}");
        result.map(|()| worst)
    })
}

#[test]
fn half_a_gigabyte_passes_in_bounded_memory() -> Result<()> {
    let portico = Portico::start(cluster(), &[])?;
    let mut client = portico.client()?;
    client.set_patience(Duration::from_secs(60))?;
    for (version, length) in [(2, 64 * MB), (2, 512 * MB), (3, 64 * MB)] {
        if version == 3 {
            client.hello3()?;
        }
        let value = Value::new(length as u64, length);
        value.send(client.stream(), &["SET", "{huge}v"])?;
        assert_eq!(client.reply()?, b"+OK\r\n", "SET of {length} bytes");
        client.expect("STRLEN {huge}v", &format!(":{length}\r\n"))?;
        client.request(&["GET", "{huge}v"])?;
        value.receive(client.stream()).with_context(|| format!("GET of {length} bytes"))?;
        client.expect("PING", "+PONG\r\n")?;
        let peak = portico.peak_memory()?;
        ensure!(peak < MEMORY, "{} MB of memory after a value of {} MB", peak >> 20, length >> 20);
    }
    client.expect("DEL {huge}v", ":1\r\n")
}

#[test]
fn more_than_the_limit_is_refused_as_redis_does() -> Result<()> {
    let redis = Server::start(ServerOptions::default())?;
    let request = format!("*3\r\n$3\r\nSET\r\n$7\r\ntoo-big\r\n${}\r\n", 512 * MB + 1);
    let mut answers = Vec::new();
    for port in [redis.port(), portico().port()] {
        let mut client = Client::connect(port)?;
        client.send(request.as_bytes())?;
        answers.push(show(&client.rest()?));
    }
    assert_eq!(answers[0], r"-ERR Protocol error: invalid bulk length\r\n");
    assert_eq!(answers[1], answers[0]);
    portico().client()?.expect("EXISTS too-big", ":0\r\n")?;
    portico().check_log()
}

#[test]
fn the_limit_of_a_value_is_redis_own() -> Result<()> {
    let mut client = portico().client()?;
    client.expect("SETRANGE {limit}a 536870911 x", ":536870912\r\n")?;
    let refused = client.text("APPEND {limit}a x")?;
    ensure!(refused.starts_with("-ERR string exceeds maximum allowed size"), "{refused}");
    client.expect("GETRANGE {limit}a 536870910 -1", "$2\r\n\0x\r\n")?;
    client.expect("UNLINK {limit}a", ":1\r\n")?;
    portico().check_log()
}

#[test]
fn large_values_of_every_kind_of_command() -> Result<()> {
    let portico = portico();
    let mut client = portico.client()?;
    let value = Value::new(7, 40 * MB + 3);
    let length = value.length;

    value.send(client.stream(), &["APPEND", "{kind}append"])?;
    assert_eq!(client.reply()?, format!(":{length}\r\n").into_bytes());
    client.request(&["GET", "{kind}append"])?;
    value.receive(client.stream())?;

    value.send(client.stream(), &["SETRANGE", "{kind}range", "0"])?;
    assert_eq!(client.reply()?, format!(":{length}\r\n").into_bytes());
    client.request(&["GETRANGE", "{kind}range", "0", "-1"])?;
    value.receive(client.stream())?;

    value.send(client.stream(), &["HSET", "{kind}hash", "field"])?;
    assert_eq!(client.reply()?, b":1\r\n");
    client.request(&["HGET", "{kind}hash", "field"])?;
    value.receive(client.stream())?;

    value.send(client.stream(), &["RPUSH", "{kind}list"])?;
    assert_eq!(client.reply()?, b":1\r\n");
    client.request(&["LINDEX", "{kind}list", "0"])?;
    value.receive(client.stream())?;
    client.request(&["LPOP", "{kind}list"])?;
    value.receive(client.stream())?;

    value.send(client.stream(), &["GETSET", "{kind}append"])?;
    value.receive(client.stream())?;
    value.send(client.stream(), &["SET", "{kind}append"])?;
    assert_eq!(client.reply()?, b"+OK\r\n");

    // An argument after the large one, an error, and a large key.
    value.begin(client.stream(), &["SETEX", "{kind}x", "0"])?;
    let mut writer = client.writer()?;
    value.for_each(|piece| Ok(writer.write_all(piece)?))?;
    writer.write_all(b"\r\n")?;
    ensure!(client.reply()?.starts_with(b"-ERR invalid expire time"), "SETEX");
    let text = vec![b'v'; 3 * MB];
    assert_eq!(client.call(&[b"SET", &b"{kind}nx"[..], &text, b"NX", b"EX", b"100"])?, b"+OK\r\n");
    assert_eq!(client.call(&[b"SET", &b"{kind}nx"[..], &text, b"NX"])?, b"$-1\r\n");
    let mut key = b"{kind}".to_vec();
    key.resize(2 * MB, b'k');
    assert_eq!(client.call(&[&b"SET"[..], &key, b"small"])?, b"+OK\r\n");
    assert_eq!(client.call(&[&b"GET"[..], &key])?, b"$5\r\nsmall\r\n");
    assert_eq!(client.call(&[&b"DEL"[..], &key])?, b":1\r\n");
    let echo = client.call(&[&b"ECHO"[..], &text])?;
    ensure!(echo.len() == text.len() + 12, "ECHO: {}", show(&echo));
    client.expect("UNLINK {kind}append {kind}range {kind}hash {kind}list {kind}nx", ":4\r\n")?;
    portico.check_log()
}

#[test]
fn several_large_values_across_slots() -> Result<()> {
    let mut client = portico().client()?;
    let values: Vec<Vec<u8>> = (0..6).map(|seed| Random::new(seed + 50).bytes(3 * MB + 11)).collect();
    let keys: Vec<String> = (0..6).map(|at| format!("across:{at}")).collect();
    let mut mset: Vec<&[u8]> = vec![b"MSET"];
    for (key, value) in keys.iter().zip(&values) {
        mset.extend([key.as_bytes(), &value[..]]);
    }
    let reply = client.call(&mset)?;
    assert_eq!(show(&reply), r"+OK\r\n");
    let mget: Vec<&str> =
        ["MGET", "across:none"].into_iter().chain(keys.iter().map(String::as_str)).collect();
    for resp3 in [false, true] {
        if resp3 {
            client.hello3()?;
        }
        let reply = client.call(&mget)?;
        let none: &[u8] = if resp3 { b"_\r\n" } else { b"$-1\r\n" };
        let mut wanted = [b"*7\r\n", none].concat();
        for value in &values {
            wanted.extend_from_slice(format!("${}\r\n", value.len()).as_bytes());
            wanted.extend_from_slice(value);
            wanted.extend_from_slice(b"\r\n");
        }
        ensure!(reply == wanted, "MGET: {}", show(&reply));
    }
    let del: Vec<&str> = ["DEL"].into_iter().chain(keys.iter().map(String::as_str)).collect();
    assert_eq!(client.call(&del)?, b":6\r\n");
    portico().check_log()
}

/// Small and large requests and replies in one pipeline stay in order.
#[test]
fn large_values_in_the_middle_of_a_pipeline() -> Result<()> {
    let redis = Server::start(ServerOptions::default())?;
    let large = Random::new(3).bytes(5 * MB);
    let barely = Random::new(4).bytes(MB);
    let mut requests = Vec::new();
    let mut count = 0;
    for round in 0..4 {
        for command in [
            vec![b"SET".to_vec(), format!("p:{round}").into(), b"small".to_vec()],
            vec![b"GET".to_vec(), format!("p:{round}").into()],
            vec![b"SET".to_vec(), format!("p:{round}").into(), large.clone()],
            vec![b"STRLEN".to_vec(), format!("p:{round}").into()],
            vec![b"GET".to_vec(), format!("p:{round}").into()],
            vec![b"SET".to_vec(), b"p:x".to_vec(), barely.clone()],
            vec![b"GET".to_vec(), b"p:x".to_vec()],
            vec![b"APPEND".to_vec(), b"p:x".to_vec(), b"!".to_vec()],
            vec![b"GET".to_vec(), b"p:x".to_vec()],
            vec![b"PING".to_vec()],
            vec![b"MGET".to_vec(), format!("p:{round}").into(), b"p:x".to_vec(), b"p:none".to_vec()],
            vec![b"DEL".to_vec(), format!("p:{round}").into(), b"p:x".to_vec()],
            vec![b"GET".to_vec(), format!("p:{round}").into()],
            vec![b"NOPE".to_vec(), large.clone()],
            vec![b"GET".to_vec(), large.clone(), b"too many".to_vec()],
            vec![b"PING".to_vec(), b"end".to_vec()],
        ] {
            requests.extend(encode(&command));
            count += 1;
        }
    }
    let run = |port: u16| -> Result<Vec<Vec<u8>>> {
        let mut client = Client::connect(port)?;
        let mut writer = client.writer()?;
        scope(|scope| {
            // What the other side sees is that replies are missing.
            scope.spawn(|| writer.write_all(&requests));
            client.replies(count)
        })
    };
    let (wanted, got) = (run(redis.port())?, run(portico().port())?);
    for (at, (wanted, got)) in wanted.iter().zip(&got).enumerate() {
        ensure!(wanted == got, "reply {at}: {} instead of {}", show(got), show(wanted));
    }
    portico().check_log()
}

#[test]
fn replies_of_many_small_elements() -> Result<()> {
    let mut client = portico().client()?;
    let element = "e".repeat(90);
    for _ in 0..100 {
        let mut push = vec!["RPUSH", "elements"];
        push.extend(std::iter::repeat_n(element.as_str(), 1000));
        client.call(&push)?;
    }
    for _ in 0..3 {
        let reply = client.call(&["LRANGE", "elements", "0", "-1"])?;
        let wanted = 9 + 100_000 * (5 + 92);
        ensure!(reply.len() == wanted, "{} bytes instead of {wanted}: {}", reply.len(), show(&reply));
    }
    client.expect("DEL elements", ":1\r\n")?;
    portico().check_log()
}

#[test]
fn a_slow_reader_of_a_large_value_holds_up_nobody() -> Result<()> {
    on_a_calm_machine(|| {
        let portico = portico();
        let mut client = portico.client()?;
        let value = Value::new(11, 64 * MB);
        value.send(client.stream(), &["SET", "{slow}v"])?;
        assert_eq!(client.reply()?, b"+OK\r\n");
        let worst = while_others_work(portico.port(), "{slow}other", || {
            client.request(&["GET", "{slow}v"])?;
            sleep(Duration::from_secs(2));
            value.receive(client.stream())
        })?;
        ensure_timely!(worst < LATENCY, "others waited for {worst:?}");
        client.expect("DEL {slow}v", ":1\r\n")?;
        portico.check_log()
    })
}

#[test]
fn a_slow_writer_of_a_large_value_holds_up_nobody() -> Result<()> {
    on_a_calm_machine(|| {
        let portico = portico();
        let mut client = portico.client()?;
        let value = Value::new(12, 16 * MB);
        let worst = while_others_work(portico.port(), "{writer}other", || {
            value.begin(client.stream(), &["SET", "{writer}v"])?;
            let mut writer = client.writer()?;
            value.for_each(|piece| {
                sleep(Duration::from_millis(60));
                Ok(writer.write_all(piece)?)
            })?;
            writer.write_all(b"\r\n")?;
            Ok(())
        })?;
        ensure_timely!(worst < LATENCY, "others waited for {worst:?}");
        assert_eq!(client.reply()?, b"+OK\r\n");
        client.request(&["GET", "{writer}v"])?;
        value.receive(client.stream())?;
        client.expect("DEL {writer}v", ":1\r\n")?;
        portico.check_log()
    })
}

#[test]
fn a_client_that_goes_in_the_middle_harms_nobody() -> Result<()> {
    on_a_calm_machine(|| {
        let portico = portico();
        let mut client = portico.client()?;
        client.expect("SET {gone}v before", "+OK\r\n")?;
        let value = Value::new(13, 32 * MB);
        let worst = while_others_work(portico.port(), "{gone}other", || {
            for _ in 0..5 {
                // In the middle of an upload.
                let leaver = portico.client()?;
                value.begin(leaver.stream(), &["SET", "{gone}v"])?;
                let mut sent = 0;
                let mut stream = leaver.stream();
                let _ = value.for_each(|piece| {
                    sent += 1;
                    ensure!(sent < 10, "that is enough");
                    Ok(stream.write_all(piece)?)
                });
                drop(leaver);
            }
            Ok(())
        })?;
        ensure_timely!(worst < LATENCY, "others waited for {worst:?} beside uploads");
        client.expect("GET {gone}v", "$6\r\nbefore\r\n")?;

        value.send(client.stream(), &["SET", "{gone}v"])?;
        assert_eq!(client.reply()?, b"+OK\r\n");
        let worst = while_others_work(portico.port(), "{gone}other", || {
            for _ in 0..5 {
                // In the middle of a download.
                let mut leaver = portico.client()?;
                leaver.request(&["GET", "{gone}v"])?;
                let mut some = vec![0; 100_000];
                let mut stream = leaver.stream();
                stream.read_exact(&mut some)?;
            }
            Ok(())
        })?;
        ensure_timely!(worst < LATENCY, "others waited for {worst:?} beside downloads");
        client.request(&["GET", "{gone}v"])?;
        value.receive(client.stream())?;
        client.expect("DEL {gone}v", ":1\r\n")?;
        portico.check_log()
    })
}

#[test]
fn empty_and_binary_values() -> Result<()> {
    let mut client = portico().client()?;
    let mut random = Random::new(1);
    for length in
        [0, 1, 2, 15, 16, 1023, 1024, 1025, 16_383, 16_384, 65_535, 65_536, MB - 1, MB, MB + 1, 2 * MB]
    {
        let value = random.bytes(length);
        ensure!(client.call(&[&b"SET"[..], b"binary", &value])? == b"+OK\r\n", "SET of {length} bytes");
        let wanted = [format!("${length}\r\n").as_bytes(), &value, b"\r\n"].concat();
        let got = client.call(&["GET", "binary"])?;
        ensure!(got == wanted, "GET of {length} bytes: {}", show(&got));
    }
    portico().check_log()
}
