//! Every name of a setting and every subcommand that the installed server lists is decided in Portico's tables.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use portico::command::{Debug, Handling, Resolved, Row, SOURCE, Table};
use portico::local::{Decision, names};
use portico::sandbox::{Server, ServerOptions, text};
use redis_protocol::resp2::types::BytesFrame;

fn texts(frame: BytesFrame) -> Result<Vec<String>> {
    let BytesFrame::Array(items) = frame else { anyhow::bail!("no array: {frame:?}") };
    items.iter().map(|item| text(item).context("a text")).collect()
}

/// What Redis 8.2 and Valkey 9.1 list beyond Redis 7.0.
const NEWER: [&str; 17] = [
    "client|capa",
    "client|import-source",
    "client|no-touch",
    "client|setinfo",
    "cluster|cancelslotmigrations",
    "cluster|flushslot",
    "cluster|getslotmigrations",
    "cluster|migrateslots",
    "cluster|migration",
    "cluster|myshardid",
    "cluster|slot-stats",
    "cluster|syncslots",
    "commandlog|get",
    "commandlog|help",
    "commandlog|len",
    "commandlog|reset",
    "script|show",
];

fn server() -> Result<Server> {
    Server::start(ServerOptions::default())
}

#[test]
fn each_setting_is_decided() -> Result<()> {
    let listed: BTreeSet<String> =
        texts(server()?.call(&["CONFIG", "GET", "*"])?)?.into_iter().step_by(2).collect();
    ensure!(listed.len() > 180, "{listed:?}");
    let known: BTreeSet<String> =
        names().iter().filter(|row| row.is_listed_by("7.0")).map(|row| row.name.to_owned()).collect();
    // A server that was built without TLS has no such settings.
    let known_here = |name: &&String| !name.starts_with("tls-") || listed.contains("tls-port");
    let missing: Vec<_> = listed.difference(&known).collect();
    let gone: Vec<_> = known.difference(&listed).filter(known_here).collect();
    ensure!(
        missing.is_empty(),
        "CONFIG lists what proxy/src/local/config/names.tsv does not decide: {missing:?}"
    );
    ensure!(gone.is_empty(), "{gone:?} is not listed by the server");
    Ok(())
}

/// A value that is told in a server's place is one that a server begins with, or says that there is nothing.
#[test]
fn what_is_told_in_the_nodes_place_is_a_standalones_default() -> Result<()> {
    let server = server()?;
    let excused = ["databases", "dbfilename", "pidfile", "protected-mode", "set-proc-title", "io-threads"];
    for row in names().iter().filter(|row| row.servers == "all" || row.servers.contains("7.0")) {
        let Decision::Is(value) = row.decision else { continue };
        let told = texts(server.call(&["CONFIG", "GET", row.name])?)?;
        let right = told.is_empty() || told[1] == value || excused.contains(&row.name);
        ensure!(right, "{} is {told:?} and not {value:?}", row.name);
    }
    Ok(())
}

#[test]
fn each_subcommand_is_decided() -> Result<()> {
    let server = server()?;
    let table = Table::builtin();
    let containers = [
        "acl", "client", "cluster", "config", "function", "latency", "memory", "module", "script", "slowlog",
    ];
    let listed = texts(server.call(&["COMMAND", "LIST"])?)?;
    let mut count = 0;
    for name in listed.iter().filter(|name| name.contains('|')) {
        let words: Vec<&str> = name.split('|').collect();
        if !containers.contains(&words[0]) {
            continue;
        }
        count += 1;
        let Resolved::Command(command) = table.resolve(&words[..]) else {
            anyhow::bail!("{name} is not in the table");
        };
        ensure!(command.handling != Handling::Unroutable, "{name} is not decided");
    }
    ensure!(count > 90, "only {count} subcommands");
    for name in NEWER {
        let row = |wanted: &str| {
            let found = Row::all(SOURCE).filter_map(Result::ok).find(|row| row.name == wanted);
            found.map(|row| row.handling)
        };
        // Without a row of its own it is handled as its container says.
        let container = name.split('|').next().and_then(row);
        let handling = row(name).or(container).with_context(|| format!("{name} is not in the table"))?;
        ensure!(handling != "unroutable", "{name} is not decided");
    }
    let help = texts(server.call(&["DEBUG", "HELP"])?)?;
    let names = help[1..].iter().filter(|line| !line.starts_with(' '));
    let names: Vec<&str> = names.filter_map(|line| line.split_whitespace().next()).collect();
    ensure!(names.len() > 30, "{help:?}");
    let undecided: Vec<_> = names.iter().filter(|name| Debug::of(name.as_bytes()).is_none()).collect();
    ensure!(undecided.is_empty(), "{undecided:?} are not in proxy/src/command/debug.rs");
    Ok(())
}
