//! The same commands to a standalone Redis and through Portico give the same replies, to the byte, in RESP2 and RESP3,
//! one by one and as one pipeline that arrives in pieces.

use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use portico::command::{Handling, Resolved, Row, SOURCE, Table};
use portico::local::{InfoRule, info_rule};
use portico::sandbox::{Cluster, ClusterOptions, Server, ServerOptions};
use portico_tests::dialogue::Script;
use portico_tests::{Case, Client, Compare, Portico, Random, UnderTest, shape, show};

const LISTS: [&str; 14] = [
    "string",
    "list",
    "set",
    "zset",
    "hash",
    "stream",
    "geo",
    "hll",
    "bitmap",
    "generic",
    "scripting",
    "functions",
    "connection",
    "server",
];

/// Each list assumes an empty server: they take turns.
struct Pair {
    redis: Server,
    cluster: Cluster,
    portico: Portico,
}

impl Pair {
    fn take() -> MutexGuard<'static, Self> {
        static PAIR: OnceLock<Mutex<Pair>> = OnceLock::new();
        let pair = PAIR.get_or_init(|| Mutex::new(Pair::start().expect("redis-server and portico start")));
        pair.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start() -> Result<Self> {
        // A cluster has one database, and so has this.
        let args = ["--databases", "1"].map(str::to_owned).to_vec();
        let redis = Server::start(ServerOptions { args, ..ServerOptions::default() })?;
        let cluster = Cluster::start(ClusterOptions::default())?;
        let portico = Portico::start(&cluster, &[])?;
        // It waits for the map: from then on Portico knows what the nodes are.
        portico.client()?.line("GET none")?;
        Ok(Pair { redis, cluster, portico })
    }

    /// Both empty, by another way than Portico.
    fn clear(&self) -> Result<()> {
        for server in self.cluster.nodes().iter().chain([&self.redis]) {
            for command in [&["FLUSHALL"][..], &["SCRIPT", "FLUSH"], &["FUNCTION", "FLUSH"]] {
                server.call(command)?; // FUNCTION came with 7.0
            }
        }
        Ok(())
    }

    fn redis(&self) -> Result<Client> {
        Client::connect(self.redis.port())
    }

    /// A connection to each, which speaks RESP2 or RESP3.
    fn clients(&self, version: u8) -> Result<(Client, Client)> {
        let (mut redis, mut portico) = (self.redis()?, self.portico.client()?);
        if version == 3 {
            redis.hello3()?;
            portico.hello3()?;
        }
        Ok((redis, portico))
    }
}

fn fail_on(differences: &[String]) -> Result<()> {
    ensure!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));
    Ok(())
}

/// One list, one command after the other.
fn one_by_one(list: &str, version: u8) -> Result<()> {
    let pair = Pair::take();
    pair.clear()?;
    let (mut redis, mut portico) = pair.clients(version)?;
    let mut differences = Vec::new();
    for case in Case::list(list)? {
        let wanted = redis.call(&case.words).context("redis")?;
        let got = portico
            .call(&case.words)
            .with_context(|| format!("portico, after {}", differences.join("\n")))?;
        differences.extend(case.difference(&wanted, &got));
    }
    pair.portico.check_log()?;
    fail_on(&differences)
}

/// One list as one pipeline, cut anywhere.
fn in_pieces(list: &str, version: u8) -> Result<()> {
    let pair = Pair::take();
    pair.clear()?;
    let cases = Case::list(list)?;
    let (mut redis, _) = pair.clients(version)?;
    let wanted: Vec<_> = cases.iter().map(|case| redis.call(&case.words)).collect::<Result<_>>()?;
    let requests: Vec<u8> = cases.iter().flat_map(Case::request).collect();
    // From the finest cuts to none.
    for (round, most) in [7, 100, 2000, usize::MAX].into_iter().enumerate() {
        pair.clear()?;
        let mut random = Random::new(round as u64 + 1);
        let (_, mut portico) = pair.clients(version)?;
        let mut writer = portico.writer()?;
        let mut rest = &requests[..];
        std::thread::scope(|scope| {
            scope.spawn(move || {
                while !rest.is_empty() {
                    let length = 1 + random.below(most.min(rest.len()));
                    let (piece, after) = rest.split_at(length);
                    // What the other side sees is that replies are missing.
                    let _ = writer.write_all(piece);
                    if random.below(4) == 0 {
                        std::thread::sleep(Duration::from_micros(200));
                    }
                    rest = after;
                }
            });
            let mut differences = Vec::new();
            for (case, wanted) in cases.iter().zip(&wanted) {
                let got = portico.reply().with_context(|| format!("{}, after {differences:?}", case.line))?;
                differences.extend(case.difference(wanted, &got));
            }
            pair.portico.check_log()?;
            fail_on(&differences).with_context(|| format!("{list} in pieces of at most {most} bytes"))
        })?;
    }
    Ok(())
}

macro_rules! lists {
    ($($list:ident),*) => {$(
        mod $list {
            #[test]
            fn one_by_one() -> anyhow::Result<()> {
                super::one_by_one(stringify!($list), 2)
            }

            #[test]
            fn one_by_one_in_resp3() -> anyhow::Result<()> {
                super::one_by_one(stringify!($list), 3)
            }

            #[test]
            fn in_pieces() -> anyhow::Result<()> {
                super::in_pieces(stringify!($list), 2)
            }

            #[test]
            fn in_pieces_in_resp3() -> anyhow::Result<()> {
                super::in_pieces(stringify!($list), 3)
            }
        }
    )*};
}

lists!(
    string, list, set, zset, hash, stream, geo, hll, bitmap, generic, scripting, functions, connection,
    server
);

/// The full name of the command that a case calls.
fn name_of(table: &Table, words: &[Vec<u8>]) -> Option<&'static str> {
    match table.resolve(words) {
        Resolved::Command(command) => Some(command.name),
        _ => None,
    }
}

/// Commands without a case in a list, and why.
const WITHOUT_CASE: [(&str, &str); 8] = [
    ("quit", "ends the connection: hostile/input.rs"),
    ("reset", "changes the protocol: below"),
    ("hello", "describes a server with an id of its own: below"),
    ("move", "below: a standalone has as many databases as it is told"),
    ("swapdb", "below"),
    ("pfselftest", "keeps a node for so long that others miss it"),
    ("bgsave", "forks: below"),
    ("bgrewriteaof", "forks: below"),
];

/// Commands that have no wrong type: they take any, or no key at all.
const TAKES_ANY: &str = "set setex psetex setnx mset msetnx mget del unlink exists touch type dump restore rename renamenx \
    copy move sort persist expire pexpire expireat pexpireat ttl pttl expiretime pexpiretime spublish \
    evalsha evalsha_ro fcall_ro";

#[test]
fn every_command_of_the_table_has_cases() -> Result<()> {
    let pair = Pair::take();
    let table = Table::builtin();
    let (mut called, mut went_well, mut wrong_type) = (HashSet::new(), HashSet::new(), HashSet::new());
    for list in LISTS {
        pair.clear()?;
        let mut redis = pair.redis()?;
        for case in Case::list(list)? {
            let reply = redis.call(&case.words)?;
            let Some(name) = name_of(&table, &case.words) else { continue };
            called.insert(name);
            if !reply.starts_with(b"-") {
                went_well.insert(name);
            } else if reply.windows(9).any(|part| part == b"WRONGTYPE")
                || show(&reply).contains("must contain string values")
            {
                wrong_type.insert(name);
            }
        }
    }
    // What takes several connections is compared in dialogues.
    for script in Script::all()? {
        let lines = script.dialogues.iter().flat_map(|dialogue| &dialogue.lines);
        called.extend(lines.filter_map(|line| name_of(&table, line.action.words()?)));
    }
    let mut missing = Vec::new();
    for row in Row::all(SOURCE) {
        // Rows of newer servers are not in the table until such a server is there.
        let Some(command) = table.find(row?.name.as_bytes()) else { continue };
        let name = command.name;
        let excused = WITHOUT_CASE.iter().any(|(excused, _)| *excused == name)
            || matches!(command.handling, Handling::Refuse(_) | Handling::Unroutable);
        if excused {
            continue;
        }
        if !called.contains(name) {
            missing.push(format!("{name}: no case"));
        }
        let with_keys =
            matches!(command.handling, Handling::Key | Handling::KeyUnlessBlock | Handling::Fan(_));
        if with_keys && called.contains(name) {
            if !went_well.contains(name) {
                missing.push(format!("{name}: no ordinary case"));
            }
            let any = TAKES_ANY.split(' ').any(|other| other == name)
                || name.starts_with("object|")
                || name == "memory|usage";
            if !any && !wrong_type.contains(name) {
                missing.push(format!("{name}: no case of a wrong type"));
            }
        }
    }
    ensure!(missing.is_empty(), "{}", missing.join("\n"));
    Ok(())
}

/// Commands that Portico refuses whatever their arguments; a standalone looks at the number of arguments first, and
/// so does Portico.
#[test]
fn wrong_numbers_of_arguments_are_refused_in_redis_words() -> Result<()> {
    let pair = Pair::take();
    pair.clear()?;
    let table = Table::builtin();
    let (mut redis, mut portico) = pair.clients(2)?;
    let mut differences = Vec::new();
    for row in Row::all(SOURCE) {
        let name = row?.name;
        let Some(command) = table.find(name.as_bytes()) else { continue };
        let path: Vec<&str> = name.split('|').collect();
        let fewest = command.arity.unsigned_abs() as usize;
        let mut calls = Vec::new();
        if fewest > path.len() {
            calls.push(fewest - 1);
        }
        if command.arity > 0 {
            calls.push(fewest + 1);
        }
        for count in calls {
            let mut words = path.clone();
            words.resize(count, "1");
            let (wanted, got) = (redis.call(&words)?, portico.call(&words)?);
            ensure!(wanted.starts_with(b"-"), "{words:?} is no error: {}", show(&wanted));
            // Newer servers take more arguments of some that Portico refuses.
            let taken =
                matches!(command.handling, Handling::Refuse(_)) && !show(&wanted).contains("wrong number");
            if wanted != got && !taken {
                differences.push(format!("{words:?}\n   redis: {}\n portico: {}", show(&wanted), show(&got)));
            }
        }
    }
    pair.portico.check_log()?;
    fail_on(&differences)
}

#[test]
fn hello_describes_a_standalone_server() -> Result<()> {
    let pair = Pair::take();
    let (mut redis, mut portico) = pair.clients(2)?;
    for line in ["HELLO", "HELLO 3", "HELLO", "HELLO 2", "HELLO 3 SETNAME me", "HELLO 2 SETNAME you"] {
        let without_id = |client: &mut Client| -> Result<String> {
            let reply = String::from_utf8(Compare::Named.view(&client.line(line)?, &[]))?;
            let (before, after) = reply.split_once("$id\r\n:").with_context(|| reply.clone())?;
            let after = after.trim_start_matches(|digit: char| digit.is_ascii_digit());
            Ok(format!("{before}id{after}"))
        };
        assert_eq!(without_id(&mut portico)?, without_id(&mut redis)?, "{line}");
        assert_eq!(portico.text("CLIENT GETNAME")?, redis.text("CLIENT GETNAME")?, "{line}");
        assert_eq!(portico.text("GET none")?, redis.text("GET none")?, "{line}");
    }
    Ok(())
}

/// The protocol may change in the middle of a pipeline, and each reply is in the one that held when it was asked.
#[test]
fn the_protocol_changes_within_a_pipeline() -> Result<()> {
    let pair = Pair::take();
    pair.clear()?;
    let lines = [
        "HSET h f v",
        "HGETALL h",
        "GET none",
        "HELLO 3 AUTH default x",
        "HELLO 3",
        "HGETALL h",
        "GET none",
        "MGET none a b h c",
        "RESET",
        "HGETALL h",
        "GET none",
        "HELLO 3",
        "ZADD z 1.5 a",
        "ZSCORE z a",
        "HELLO 2",
        "ZSCORE z a",
        "RESET",
        "CLIENT GETNAME",
    ];
    let (mut redis, mut portico) = pair.clients(2)?;
    let requests: Vec<u8> = lines.iter().flat_map(|line| portico_tests::encode_line(line)).collect();
    redis.send(&requests)?;
    portico.send(&requests)?;
    let mut differences = Vec::new();
    for line in lines {
        let (wanted, got) = (redis.reply()?, portico.reply()?);
        let alike = if line.starts_with("HELLO") { shape(&wanted) == shape(&got) } else { wanted == got };
        if !alike {
            differences.push(format!("{line}\n   redis: {}\n portico: {}", show(&wanted), show(&got)));
        }
    }
    fail_on(&differences)
}

#[test]
fn there_is_one_database() -> Result<()> {
    let pair = Pair::take();
    pair.clear()?;
    let (mut redis, mut portico) = pair.clients(2)?;
    let lines = [
        "SELECT 0",
        "SELECT 1",
        "SELECT 99999999999",
        "SELECT x",
        "SET a 1",
        "MOVE a 0",
        "MOVE a 1",
        "MOVE a x",
        "MOVE none 0",
        "MOVE none 1",
        "SWAPDB 0 0",
        "SWAPDB 0 1",
        "SWAPDB 1 0",
        "SWAPDB x 0",
        "SWAPDB 0 x",
        "COPY {t}a {t}b DB 0",
        "COPY {t}a {t}b DB 1",
    ];
    let mut differences = Vec::new();
    for line in lines {
        differences.extend(Case::new(line)?.difference(&redis.line(line)?, &portico.line(line)?));
    }
    fail_on(&differences)
}

/// Saving takes its time on each node, and a second one before it ends is refused.
#[test]
fn background_saves_run_everywhere() -> Result<()> {
    let pair = Pair::take();
    let mut portico = pair.portico.client()?;
    for (line, reply) in [
        ("BGSAVE", r"+Background saving started\r\n"),
        ("BGREWRITEAOF", r"+Background append only file rewriting started\r\n"),
    ] {
        assert_eq!(portico.text(line)?, reply);
        for node in pair.cluster.nodes() {
            let deadline = std::time::Instant::now() + Duration::from_secs(20);
            loop {
                let info = node.ask(&["INFO", "persistence"])?;
                if info.contains("rdb_bgsave_in_progress:0") && info.contains("aof_rewrite_in_progress:0") {
                    break;
                }
                ensure!(std::time::Instant::now() < deadline, "{line} does not end: {info}");
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
    Ok(())
}

/// Everything in the keyspace exactly once, whatever the step, and a cursor that ends with 0.
#[test]
fn scan_walks_the_whole_keyspace() -> Result<()> {
    let pair = Pair::take();
    pair.clear()?;
    for version in [2, 3] {
        let (_, mut client) = pair.clients(version)?;
        let mut all = HashSet::new();
        for at in 0..1000 {
            let key = format!("key:{at}");
            client.expect(&format!("SET {key} {at}"), "+OK\r\n")?;
            all.insert(key.into_bytes());
        }
        client.line("LPUSH a-list x")?;
        for (options, expected) in [
            ("", 1001),
            ("COUNT 10", 1001),
            ("COUNT 5000", 1001),
            ("MATCH key:*", 1000),
            ("MATCH key:7", 1),
            ("TYPE list", 1),
        ] {
            let mut found: HashMap<Vec<u8>, usize> = HashMap::new();
            let mut cursor = "0".to_owned();
            for step in 0.. {
                ensure!(step < 5000, "SCAN {options} does not end");
                let reply = client.line(&format!("SCAN {cursor} {options}"))?;
                let (frame, _) = portico_tests::Frame::read(&reply);
                let [next, keys] = frame.elements() else { anyhow::bail!("SCAN: {}", show(&reply)) };
                for key in keys.elements() {
                    *found.entry(key.body().context("a key")?.to_vec()).or_default() += 1;
                }
                cursor = String::from_utf8(next.body().context("a cursor")?.to_vec())?;
                let number: u64 = cursor.parse()?;
                ensure!(number < 1 << 53, "cursor {cursor} is no integer to a double");
                ensure!(number.to_string() == cursor, "cursor {cursor} has leading zeros");
                if number == 0 {
                    break;
                }
            }
            assert_eq!(found.len(), expected, "SCAN {options}");
        }
        client.line("DEL a-list")?;
        assert_eq!(client.text("DBSIZE")?, r":1000\r\n");
        let keys = client.line("KEYS key:*")?;
        assert_eq!(portico_tests::Frame::read(&keys).0.elements().len(), 1000);
        for _ in 0..50 {
            let key = client.line("RANDOMKEY")?;
            let key = portico_tests::Frame::read(&key).0.body().context("a key")?.to_vec();
            ensure!(all.contains(&key), "RANDOMKEY: {}", show(&key));
        }
        assert_eq!(client.text("FLUSHALL")?, r"+OK\r\n");
    }
    Ok(())
}

/// INFO has the sections and the fields of a standalone's, in their order; Portico's own section comes on top.
#[test]
fn info_looks_like_a_standalones() -> Result<()> {
    let pair = Pair::take();
    pair.clear()?;
    let (mut redis, mut portico) = pair.clients(2)?;
    portico.line("MSET a 1 b 2 c 3 d 4")?;
    let body = |client: &mut Client, line: &str| -> Result<String> {
        let reply = client.line(line)?;
        let body = portico_tests::Frame::read(&reply).0.body().map(<[u8]>::to_vec);
        Ok(String::from_utf8(body.with_context(|| show(&reply))?)?)
    };
    let all = body(&mut portico, "INFO")?;
    let server = UnderTest::get();
    let version = format!("{}_version:{}\r\n", server.name, server.version);
    let mode = if server.name == "valkey" { "server_mode" } else { "redis_mode" };
    let mode = format!("{mode}:standalone\r\n");
    for line in [&*mode, &version, "db0:keys=4,expires=0,", "cluster_enabled:0\r\n", "role:master\r\n"] {
        ensure!(all.contains(line), "no {line} in {all}");
    }
    let sections = |info: &str| -> Vec<String> {
        info.lines().filter(|line| line.starts_with("# ")).map(str::to_owned).collect()
    };
    let wanted = sections(&body(&mut redis, "INFO")?);
    let mut got = sections(&all);
    got.retain(|section| section != "# Portico");
    // An empty standalone has an empty keyspace section as well.
    assert_eq!(got, wanted);
    for section in ["server", "clients", "memory", "stats", "replication", "cpu", "cluster", "keyspace"] {
        let one = body(&mut portico, &format!("INFO {section}"))?;
        assert_eq!(sections(&one).len(), 1, "INFO {section}: {one}");
        let fields = |info: &str| -> Vec<String> {
            info.lines().filter_map(|line| Some(line.split_once(':')?.0.to_owned())).collect()
        };
        if section != "keyspace" {
            let wanted = fields(&body(&mut redis, &format!("INFO {section}"))?);
            let got = fields(&one);
            let title = format!("{}{}", section[..1].to_uppercase(), &section[1..]);
            let told = |field: &&String| info_rule(&title, field) != Some(InfoRule::Absent);
            let missing: Vec<_> = wanted.iter().filter(told).filter(|field| !got.contains(field)).collect();
            ensure!(missing.is_empty(), "INFO {section} lacks {missing:?}");
        }
    }
    assert_eq!(body(&mut portico, "INFO nothing")?, body(&mut redis, "INFO nothing")?);
    Ok(())
}

/// What Portico cannot do across slots is refused honestly, and nothing of it happens.
#[test]
fn keys_in_several_slots_that_cannot_be_split_are_refused() -> Result<()> {
    let pair = Pair::take();
    pair.clear()?;
    let mut client = pair.portico.client()?;
    client.line("MSET a 1 b 2")?;
    for line in [
        "RENAME a b",
        "RENAMENX a b",
        "COPY a b",
        "MSETNX a 9 c 9",
        "SINTERSTORE d a b",
        "SUNION a b c",
        "BITOP AND d a b",
        "PFMERGE d a b",
        "PFCOUNT a b",
        "LMOVE a b LEFT LEFT",
        "SMOVE a b x",
        "ZUNIONSTORE d 2 a b",
        "XREAD STREAMS a b 0 0",
        "EVAL \"return redis.call('SET', KEYS[1], 9)\" 2 a b",
        "LMPOP 2 a b LEFT",
        "SORT a STORE b",
        "GEORADIUS a 1 1 1 m STORE b",
    ] {
        let reply = client.text(line)?;
        ensure!(reply.starts_with("-CROSSSLOT "), "{line}: {reply}");
    }
    assert_eq!(client.text("MGET a b c d")?, r"*4\r\n$1\r\n1\r\n$1\r\n2\r\n$-1\r\n$-1\r\n");
    Ok(())
}

/// A script can say anything, also what looks like a node's refusal to run it: it runs once all the same.
#[test]
fn a_script_that_forges_a_redirect_runs_once() -> Result<()> {
    let pair = Pair::take();
    pair.clear()?;
    let (mut redis, mut portico) = pair.clients(2)?;
    let mut differences = Vec::new();
    // The slot of k is 7629.
    for error in [
        "MOVED 1 127.0.0.1:1",
        "ASK 1 127.0.0.1:1",
        "MOVED x",
        "TRYAGAIN of mine",
        "CLUSTERDOWN of mine",
        "LOADING of mine",
        "READONLY of mine",
        "MASTERDOWN of mine",
        "NOAUTH of mine",
        "NOSCRIPT of mine",
        "OOM command not allowed",
        "EXECABORT of mine",
    ] {
        let script = "redis.call('INCR', KEYS[1]) return redis.error_reply(ARGV[1])";
        let call = ["EVAL", script, "1", "k", error];
        let (wanted, got) = (redis.call(&call)?, portico.call(&call)?);
        let (wanted_runs, runs) = (redis.text("GETDEL k")?, portico.text("GETDEL k")?);
        if (&wanted, &wanted_runs) != (&got, &runs) {
            let (wanted, got) = (show(&wanted), show(&got));
            differences.push(format!(
                "{error}\n   redis: {wanted}, runs {wanted_runs}\n portico: {got}, runs {runs}"
            ));
        }
    }
    pair.portico.check_log()?;
    fail_on(&differences)
}
