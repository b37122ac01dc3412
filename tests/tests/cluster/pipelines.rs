//! Long pipelines, mixed pipelines over all slots from many clients at once, and keys with every kind of hash tag.

use std::collections::HashMap;
use std::sync::OnceLock;
use std::thread::scope;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use portico::sandbox::{Cluster, ClusterOptions, Server, ServerOptions};
use portico_tests::{Client, Portico, Random, encode, ensure_timely, on_a_calm_machine, show};

/// One cluster for all; each test has keys of its own.
fn portico() -> &'static Portico {
    static SHARED: OnceLock<(Cluster, Portico)> = OnceLock::new();
    let shared = SHARED.get_or_init(|| {
        let cluster = Cluster::start(ClusterOptions::default()).expect("redis-server starts");
        let portico = Portico::start(&cluster, &[]).expect("portico starts");
        (cluster, portico)
    });
    &shared.1
}

/// A client that writes a whole pipeline before it reads: Portico may not stop reading it, or both would hang.
#[test]
fn two_hundred_thousand_commands_are_read_only_afterwards() -> Result<()> {
    const COUNT: usize = 200_000;
    let mut client = portico().client()?;
    let values: Vec<Vec<u8>> = (0..16).map(|seed| Random::new(seed).bytes(1024)).collect();
    for (at, value) in values.iter().enumerate() {
        ensure!(client.call(&[b"SET", format!("long:{at}").as_bytes(), value])? == b"+OK\r\n", "SET");
    }
    let gets: Vec<_> = (0..16).map(|at| encode(&["GET".to_owned(), format!("long:{at}")])).collect();
    let requests: Vec<u8> = (0..COUNT).flat_map(|at| gets[at * 7 % 16].iter().copied()).collect();
    client.send(&requests)?;
    for at in 0..COUNT {
        let reply = client.reply().with_context(|| format!("reply {at}"))?;
        let value = &values[at * 7 % 16];
        ensure!(reply.len() == 1024 + 9 && &reply[7..1031] == value, "reply {at}: {}", show(&reply));
    }
    client.expect("PING", "+PONG\r\n")?;
    portico().check_log()
}

/// Requests with tens of thousands of parts, and behind each what would show that it was overtaken.
#[test]
fn requests_with_very_many_keys() -> Result<()> {
    const COUNT: usize = 50_000;
    let mut client = portico().client()?;
    let keys: Vec<String> = (0..COUNT).map(|number| format!("many:{number}")).collect();
    let all = |name: &str| [&[name.to_owned()], &keys[..]].concat();
    let pairs: Vec<String> = std::iter::once("MSET".to_owned())
        .chain(keys.iter().flat_map(|key| [key.clone(), key.clone()]))
        .collect();
    let last = &keys[COUNT - 1];
    let one = |words: &[&str]| encode(&words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>());
    let requests = [
        encode(&pairs),
        one(&["APPEND", last, "+"]),
        encode(&all("MGET")),
        one(&["DEL", &keys[0]]),
        encode(&all("DEL")),
        encode(&all("EXISTS")),
    ];
    client.send(&requests.concat())?;
    let bulk = |text: &str| format!("${}\r\n{text}\r\n", text.len());
    let values: String = keys[..COUNT - 1].iter().map(|key| bulk(key)).collect();
    let values = format!("*{COUNT}\r\n{values}{}", bulk(&format!("{last}+")));
    let appended = format!(":{}\r\n", last.len() + 1);
    let deleted = format!(":{}\r\n", COUNT - 1);
    for expected in ["+OK\r\n", &appended, &values, ":1\r\n", &deleted, ":0\r\n"] {
        let reply = client.reply()?;
        ensure!(reply == expected.as_bytes(), "{} instead of {}", show(&reply), show(expected.as_bytes()));
    }
    portico().check_log()
}

/// What a client's own commands on its own keys have to give, whatever others do.
struct Model {
    prefix: String,
    values: HashMap<usize, Vec<u8>>,
    /// Nothing, in the client's protocol.
    null: &'static [u8],
}

impl Model {
    /// A random command and the reply that is due.
    fn step(&mut self, random: &mut Random) -> (Vec<u8>, Vec<u8>) {
        let number = random.below(40);
        let key = format!("{}:{number}", self.prefix);
        let null = self.null;
        let bulk = |value: Option<&Vec<u8>>| match value {
            Some(value) => [format!("${}\r\n", value.len()).as_bytes(), value, b"\r\n"].concat(),
            None => null.to_vec(),
        };
        match random.below(7) {
            0 => {
                let length = random.below(200);
                let value = random.bytes(length);
                let request = encode(&[b"SET", key.as_bytes(), &value]);
                self.values.insert(number, value);
                (request, b"+OK\r\n".to_vec())
            }
            1 => {
                let length = random.below(30);
                let more = random.bytes(length);
                let value = self.values.entry(number).or_default();
                value.extend_from_slice(&more);
                (encode(&[b"APPEND", key.as_bytes(), &more]), format!(":{}\r\n", value.len()).into_bytes())
            }
            2 => {
                let others: Vec<usize> = (0..1 + random.below(8)).map(|_| random.below(40)).collect();
                let mut words = vec!["MGET".to_owned()];
                words.extend(others.iter().map(|number| format!("{}:{number}", self.prefix)));
                let values: Vec<u8> =
                    others.iter().flat_map(|number| bulk(self.values.get(number))).collect();
                (encode(&words), [format!("*{}\r\n", others.len()).as_bytes(), &values].concat())
            }
            3 => {
                let pairs: Vec<(usize, Vec<u8>)> =
                    (0..1 + random.below(5)).map(|_| (random.below(40), random.bytes(10))).collect();
                let mut words = vec![b"MSET".to_vec()];
                for (number, value) in pairs {
                    words.push(format!("{}:{number}", self.prefix).into_bytes());
                    words.push(value.clone());
                    self.values.insert(number, value);
                }
                (encode(&words), b"+OK\r\n".to_vec())
            }
            4 => {
                let other = random.below(40);
                let gone = usize::from(self.values.remove(&number).is_some());
                let gone = gone + usize::from(self.values.remove(&other).is_some());
                (
                    encode(&["DEL".to_owned(), key, format!("{}:{other}", self.prefix)]),
                    format!(":{gone}\r\n").into(),
                )
            }
            5 => (encode(&[&b"PING"[..], key.as_bytes()]), bulk(Some(&key.into_bytes()))),
            _ => (encode(&["GET".to_owned(), key]), bulk(self.values.get(&number))),
        }
    }
}

#[test]
fn a_thousand_mixed_commands_over_all_slots_are_answered_in_order() -> Result<()> {
    for (round, resp3) in [false, true].into_iter().enumerate() {
        let mut client = portico().client()?;
        if resp3 {
            client.hello3()?;
        }
        let mut random = Random::new(round as u64);
        // In RESP3 nothing is a type of its own.
        let null: &[u8] = if resp3 { b"_\r\n" } else { b"$-1\r\n" };
        let mut model = Model { prefix: format!("mixed{round}"), values: HashMap::new(), null };
        for _ in 0..5 {
            let steps: Vec<_> = (0..1000).map(|_| model.step(&mut random)).collect();
            client.send(&steps.iter().flat_map(|(request, _)| request.clone()).collect::<Vec<_>>())?;
            for (at, (request, wanted)) in steps.iter().enumerate() {
                let got = client.reply().with_context(|| format!("reply {at}"))?;
                let (name, due) = (show(request), show(wanted));
                ensure!(got == *wanted, "{at}: {name}: {} instead of {due}", show(&got));
            }
        }
    }
    portico().check_log()
}

#[test]
fn two_hundred_clients_at_once_see_their_own_writes() -> Result<()> {
    let clients = 200;
    scope(|scope| {
        let threads: Vec<_> = (0..clients)
            .map(|number| {
                scope.spawn(move || -> Result<()> {
                    let mut client = portico().client()?;
                    let mut random = Random::new(number);
                    let mut model =
                        Model { prefix: format!("many{number}"), values: HashMap::new(), null: b"$-1\r\n" };
                    for round in 0..20 {
                        let depth = 1 + random.below(20);
                        let steps: Vec<_> = (0..depth).map(|_| model.step(&mut random)).collect();
                        let mut requests: Vec<u8> =
                            steps.iter().flat_map(|(request, _)| request.clone()).collect();
                        requests.extend(encode(&["INCR", "many:counter"]));
                        requests.extend(encode(&["INCR".to_owned(), format!("many{number}:own")]));
                        client.send(&requests)?;
                        for (request, wanted) in &steps {
                            let got = client.reply()?;
                            ensure!(
                                got == *wanted,
                                "{}: {} instead of {}",
                                show(request),
                                show(&got),
                                show(wanted)
                            );
                        }
                        ensure!(client.reply()?.starts_with(b":"), "INCR");
                        ensure!(
                            client.reply()? == format!(":{}\r\n", round + 1).into_bytes(),
                            "INCR of its own"
                        );
                    }
                    Ok(())
                })
            })
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("no panic"))
    })?;
    let counted = portico().client()?.text("GET many:counter")?;
    assert_eq!(counted, r"$4\r\n4000\r\n");
    portico().check_log()
}

/// Where a key lives must not show, whatever it is called.
#[test]
fn keys_with_every_kind_of_hash_tag() -> Result<()> {
    let redis = Server::start(ServerOptions::default())?;
    let (mut redis, mut client) = (Client::connect(redis.port())?, portico().client()?);
    let keys: [&[u8]; 24] = [
        b"{a}b",
        b"{}x",
        b"a{b}c{d}",
        b"{{a}}",
        b"{a",
        b"}a{",
        b"{",
        b"}",
        b"{}",
        b"{}{a}",
        b"a{}",
        b"a{}{b}",
        b"{a}{}",
        b"{\r\n}",
        b"\r\n",
        b"\0",
        b"{\0}\xff",
        b"\xff\xfe{\x80}",
        b"",
        b" ",
        b"{ }",
        b"a{b}",
        b"{b}",
        b"b",
    ];
    let mut mset = vec![&b"MSET"[..]];
    for key in keys {
        mset.extend([key, key]);
    }
    let mget: Vec<&[u8]> = [&b"MGET"[..]].into_iter().chain(keys).collect();
    let exists: Vec<&[u8]> = [&b"EXISTS"[..]].into_iter().chain(keys).collect();
    let del: Vec<&[u8]> = [&b"DEL"[..]].into_iter().chain(keys).collect();
    let mut compare = |command: &[&[u8]]| -> Result<()> {
        let (wanted, got) = (redis.call(command)?, client.call(command)?);
        let name = show(&command.join(&b' '));
        ensure!(wanted == got, "{name}: {} instead of {}", show(&got), show(&wanted));
        Ok(())
    };
    compare(&mset)?;
    compare(&mget)?;
    for key in keys {
        compare(&[b"APPEND", key, b"!"])?;
        compare(&[b"GET", key])?;
    }
    compare(&mget)?;
    compare(&exists)?;
    // One tag, one slot: what needs it works.
    compare(&[b"RENAME", b"a{b}", b"{b}2"])?;
    compare(&[b"RENAME", b"b", b"{b}"])?;
    compare(&[b"SUNION", b"{b}none", b"b"])?;
    compare(&del)?;
    compare(&exists)?;
    portico().check_log()
}

/// A pipeline's requests may arrive a byte at a time, and its replies be taken as slowly.
#[test]
fn a_pipeline_that_trickles_in() -> Result<()> {
    let mut client = portico().client()?;
    let requests: Vec<u8> = (0..50)
        .flat_map(|at| {
            let key = format!("trickle:{at}");
            [encode(&["SET", &key, "v\r\n"]), encode(&["GET", &key]), b"PING\r\n".to_vec()].concat()
        })
        .collect();
    for byte in requests.chunks(1) {
        client.send(byte)?;
    }
    for _ in 0..50 {
        assert_eq!(client.replies(3)?, [&b"+OK\r\n"[..], b"$3\r\nv\r\n\r\n", b"+PONG\r\n"]);
    }
    portico().check_log()
}

/// What a client sent before it shut down its side is carried out and answered.
#[test]
fn a_client_that_ends_its_requests_gets_all_replies() -> Result<()> {
    let mut client = portico().client()?;
    let requests: Vec<u8> =
        (0..1000).flat_map(|at| encode(&["INCR".to_owned(), format!("end:{}", at % 10)])).collect();
    client.send(&requests)?;
    client.end_requests()?;
    let replies = client.rest()?;
    assert_eq!(replies.iter().filter(|&&byte| byte == b':').count(), 1000, "{}", show(&replies));
    portico().check_log()
}

/// What is sent behind a request that blocks its client waits for that, and for nothing else.
#[test]
fn what_follows_is_answered_at_once() -> Result<()> {
    on_a_calm_machine(|| {
        let mut client = portico().client()?;
        let step: Vec<u8> = ["MULTI", "DBSIZE", "EXEC", "WATCH follows", "UNWATCH", "PING"]
            .iter()
            .flat_map(|line| encode(&line.split(' ').collect::<Vec<_>>()))
            .collect();
        for (steps, limit) in [(1, 40), (4_000, 5_000)] {
            let began = Instant::now();
            client.send(&step.repeat(steps))?;
            for reply in client.replies(6 * steps)?.chunks(6) {
                let rest = [b"+OK\r\n".to_vec(), b"+OK\r\n".to_vec(), b"+PONG\r\n".to_vec()];
                ensure!(reply[2].starts_with(b"*1\r\n:") && reply[3..] == rest, "{}", show(&reply.concat()));
            }
            ensure_timely!(began.elapsed() < Duration::from_millis(limit), "{steps}: {:?}", began.elapsed());
        }
        portico().check_log()
    })
}
