//! The command table is what the installed server says of itself, and finds the keys that it finds.

#[path = "../../src/bin/command-table/server.rs"]
mod server;

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use portico::command::{KeyError, Keys, Kind, Resolved, Row, SOURCE, Table, errors};
use redis_protocol::resp2::types::{BytesFrame, Resp2Frame};
use server::Server;

const REDIS: &str = "redis-server";

#[test]
fn the_generated_columns_are_the_servers() -> Result<()> {
    let run = Command::new(env!("CARGO_BIN_EXE_command-table")).args(["--redis-server", REDIS]).output()?;
    ensure!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let generated = String::from_utf8(run.stdout)?;
    let (ours, theirs): (HashSet<_>, HashSet<_>) = (SOURCE.lines().collect(), generated.lines().collect());
    let ours_only = SOURCE.lines().filter(|line| !theirs.contains(line)).map(|line| format!("-{line}\n"));
    let theirs_only = generated.lines().filter(|line| !ours.contains(line)).map(|line| format!("+{line}\n"));
    let diff: String = ours_only.chain(theirs_only).collect();
    ensure!(diff.is_empty(), "- proxy/src/command/table.tsv, + {REDIS}:\n{diff}");
    ensure!(SOURCE == generated, "the same lines in another order");
    Ok(())
}

/// Calls whose keys need more than the arity to be found; `""` is an empty argument.
const CALLS: &str = r#"
MSET a 1 b 2
MSETNX a 1 b 2
BITOP AND d a b
BITOP NOT d a
BLPOP a b 0
BRPOP a 0
BZPOPMIN a b 0
BZPOPMAX a b 0
BLMOVE a b LEFT RIGHT 0
BLMPOP 0 2 a b LEFT
BZMPOP 0 1 a MIN COUNT 3
LMPOP 2 a b LEFT
ZMPOP 2 a b MAX
EVAL s 2 a b c
EVALSHA s 1 a b
EVAL_RO s 1 a
EVALSHA_RO s 1 a
FCALL f 2 a b
FCALL_RO f 1 a x
SINTERCARD 2 a b LIMIT 1
ZUNION 2 a b WITHSCORES
ZINTER 2 a b
ZDIFF 2 a b
ZINTERCARD 2 a b
ZUNIONSTORE d 2 a b WEIGHTS 1 2
ZINTERSTORE d 1 a
ZDIFFSTORE d 2 a b
ZRANGESTORE d a 0 -1
GEOSEARCHSTORE d a FROMMEMBER m BYRADIUS 1 m
GEORADIUS k 1 1 1 m
GEORADIUS k 1 1 1 m WITHDIST COUNT 3 STORE d
GEORADIUS k 1 1 1 m STOREDIST d
GEORADIUSBYMEMBER k m 1 m STORE d
GEORADIUSBYMEMBER k m 1 m
SORT k
SORT k BY w* LIMIT 0 5 GET # GET o* ALPHA STORE d
SORT k store d
SORT_RO k BY w* GET #
XREAD STREAMS a 0
XREAD COUNT 2 BLOCK 0 STREAMS a b c 0 0 0
XREADGROUP GROUP g c COUNT 1 NOACK STREAMS a b > >
XINFO STREAM k FULL
XGROUP CREATE k g $ MKSTREAM
OBJECT ENCODING k
MEMORY USAGE k SAMPLES 5
MIGRATE h 1 k 0 5 COPY
MIGRATE h 1 "" 0 5 REPLACE AUTH2 u keys KEYS a b c
COPY a b DB 0
RENAME a b
SMOVE a b m
PFMERGE d a b
PFMERGE d
SINTERSTORE d a b
LCS a b
WATCH a b c
SINTERCARD 0 a
SINTERCARD x a
LMPOP 3 a LEFT
EVAL s x a
"#;

#[test]
fn keys_are_where_the_server_finds_them() -> Result<()> {
    let mut server = Server::start(REDIS)?;
    let table = Table::builtin();
    for call in CALLS.lines().filter(|line| !line.is_empty()) {
        let args: Vec<String> = call.split(' ').map(|arg| arg.trim_matches('"').to_owned()).collect();
        compare(&mut server, &table, &args)?;
    }
    // Every command with keys at fixed places, with as many arguments as it needs and with more.
    for command in table
        .commands()
        .filter(|c| c.kind != Kind::Container && matches!(c.keys, Keys::One(_) | Keys::Specs(_)))
    {
        for more in 0..3 {
            let mut args: Vec<String> = command.name.split('|').map(str::to_owned).collect();
            let needed = command.arity.unsigned_abs() as usize + if command.arity < 0 { more } else { 0 };
            args.extend((args.len()..needed).map(|at| format!("{at}")));
            compare(&mut server, &table, &args)?;
        }
    }
    Ok(())
}

/// Asks the server and the table for the keys of one call.
fn compare(server: &mut Server, table: &Table, call: &[String]) -> Result<()> {
    let args: Vec<Vec<u8>> = call.iter().map(|arg| arg.clone().into_bytes()).collect();
    let Resolved::Command(command) = table.resolve(&args[..]) else { panic!("{call:?} is unknown") };
    let question: Vec<&[u8]> =
        [b"COMMAND".as_slice(), b"GETKEYS"].into_iter().chain(args.iter().map(Vec::as_slice)).collect();
    let theirs = server.call(&question)?;
    let mut positions = Vec::new();
    let found = command.key_positions(&args[..], &mut positions);
    let ours: Vec<&[u8]> = positions.iter().map(|&at| args[at as usize].as_slice()).collect();
    match theirs {
        BytesFrame::Array(keys) => {
            let theirs: Vec<&[u8]> =
                keys.iter().map(|key| key.as_bytes().context("a key")).collect::<Result<_>>()?;
            if found.is_ok() {
                assert_eq!(ours, theirs, "{call:?}");
            } else {
                // An unpaired key is a key to it, and a count that is no number is 0.
                assert!(
                    found == Err(KeyError::Unpaired) || theirs.is_empty(),
                    "{call:?}: {found:?}, {theirs:?}"
                );
            }
        }
        // A sharded channel is routed as a key is, but none.
        BytesFrame::Error(error) if &*error == "ERR The command has no key arguments" => {
            assert!(matches!(command.name, "spublish" | "ssubscribe" | "sunsubscribe"), "{call:?}");
        }
        error => assert!(found.is_err(), "{call:?}: {error:?}, but {ours:?}"),
    }
    Ok(())
}

#[test]
fn first_words_are_refused_in_the_servers_words() -> Result<()> {
    let mut server = Server::start(REDIS)?;
    let table = Table::builtin();
    let long = "x".repeat(300);
    let calls: [&[&[u8]]; 16] = [
        &[b"foo"],
        &[b"FOO", b"bar", b"baz"],
        &[b"foo", b""],
        &[b""],
        &[b"f\r\no", b"a\nb"],
        &[b"f\0o", b"a\0b", b"\xff\xfe"],
        &[long.as_bytes(), b"a"],
        &[b"foo", long.as_bytes(), b"b"],
        &[b"foo", &long.as_bytes()[..100], &long.as_bytes()[..100], b"c"],
        &[b"foo", &long.as_bytes()[..125], b"abc", b"c"],
        &[b"config|get", b"x"],
        &[b"config", b"foo", b"bar"],
        &[b"Object", b"a\r\n\xffb"],
        &[b"cluster", long.as_bytes()],
        &[b"config"],
        &[b"CONFIG", b"get"],
    ];
    for call in calls {
        let ours = match table.resolve(call) {
            Resolved::UnknownCommand => errors::unknown_command(call),
            Resolved::UnknownSubcommand(_) => errors::unknown_subcommand(call),
            Resolved::Command(command) => {
                assert!(!command.arity_ok(call.len()));
                errors::wrong_arity(command.name)
            }
        };
        assert_eq!(line(&mut server, call)?, [b"-", &ours[..], b"\r\n"].concat(), "{call:?}");
    }
    Ok(())
}

/// As many arguments as a command takes at least are accepted by both; one less is refused by both.
#[test]
fn arity_is_the_servers() -> Result<()> {
    let mut server = Server::start(REDIS)?;
    let table = Table::builtin();
    for row in Row::all(SOURCE) {
        let name = row?.name;
        let Some(command) = table.find(name.as_bytes()) else { continue }; // newer than this server
        let mut args: Vec<&str> = name.split('|').collect();
        let fewest = command.arity.unsigned_abs() as usize;
        if fewest <= args.len() {
            continue;
        }
        args.resize(fewest - 1, "1");
        assert!(!command.arity_ok(args.len()));
        let expected = [b"-", &errors::wrong_arity(command.name)[..], b"\r\n"].concat();
        assert_eq!(line(&mut server, &args)?, expected, "{args:?}");
    }
    Ok(())
}

/// The reply's one line as it is: an error's text need not be UTF-8.
fn line<B: AsRef<[u8]>>(server: &mut Server, args: &[B]) -> Result<Vec<u8>> {
    server.send(args)?;
    let mut line = Vec::new();
    BufReader::new(&server.stream).read_until(b'\n', &mut line)?;
    Ok(line)
}
