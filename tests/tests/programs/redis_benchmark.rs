//! redis-benchmark runs its whole default list through Portico: every reply is good, every test tells a figure.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use portico::sandbox::{Cluster, ClusterOptions};
use portico_tests::Portico;

/// The list of redis-benchmark 7.0; later ones have more.
const TESTS: &[&str] = &[
    "PING_INLINE",
    "PING_MBULK",
    "SET",
    "GET",
    "INCR",
    "LPUSH",
    "RPUSH",
    "LPOP",
    "RPOP",
    "SADD",
    "HSET",
    "SPOP",
    "ZADD",
    "ZPOPMIN",
    "LPUSH (needed to benchmark LRANGE)",
    "LRANGE_100 (first 100 elements)",
    "LRANGE_300 (first 300 elements)",
    "LRANGE_500 (first 500 elements)",
    "LRANGE_600 (first 600 elements)",
    "MSET (10 keys)",
];

/// It ends with an error at the first bad reply. Random keys, so that every node is asked and MSET is split.
fn run(portico: &Portico, flags: &[&str]) -> Result<()> {
    let mut command = Command::new("timeout");
    command
        .args(["120", "redis-benchmark", "--csv", "-r", "100000", "-p", &portico.port().to_string()])
        .args(flags);
    let output = command.stdin(Stdio::null()).output().context("cannot run redis-benchmark")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let told = format!("{command:?} ({}):\n{text}{}", output.status, String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{told}");
    ensure!(output.stderr.is_empty(), "it complains: {told}");

    let mut lines = text.lines();
    ensure!(lines.next().is_some_and(|line| line.starts_with("\"test\",\"rps\"")), "no heading: {told}");
    let mut figures = Vec::new();
    for line in lines {
        let mut fields = line.split("\",\"");
        let name = fields.next().unwrap_or_default().trim_start_matches('"');
        let rate: f64 =
            fields.next().unwrap_or_default().parse().with_context(|| format!("{line}\n{told}"))?;
        ensure!(rate > 0.0, "no figure for {name}: {told}");
        figures.push(name);
    }
    for test in TESTS {
        ensure!(figures.contains(test), "{test} is missing: {told}");
    }
    Ok(())
}

fn run_all(clients: &str, requests: &str) -> Result<()> {
    let cluster = Cluster::start(ClusterOptions::default())?;
    let portico = Portico::start(&cluster, &[])?;
    for pipeline in ["1", "16"] {
        let flags = ["-c", clients, "-n", requests, "-P", pipeline];
        run(&portico, &flags)?;
        run(&portico, &[&flags[..], &["--threads", "2"]].concat())?;
    }
    portico.check_log()
}

#[test]
fn its_whole_list_runs_with_50_clients() -> Result<()> {
    run_all("50", "2000")
}

#[test]
fn its_whole_list_runs_with_500_clients() -> Result<()> {
    run_all("500", "2000")
}
