//! Real client libraries, each set up as for one standalone Redis, do real work through Portico.
//!
//! Each program of `tests/clients` checks what it is answered. It is run against a plain Redis first, so that what
//! it finds wrong here is Portico's doing.

#[path = "../../clients/redis_rs.rs"]
mod redis_rs;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use portico::sandbox::{Cluster, ClusterOptions, Server, ServerOptions};
use portico_tests::Portico;

/// A program that has not ended by then hangs; on an idle machine each takes a few seconds.
const LIMIT: Duration = Duration::from_secs(180);

/// Where `make test` installs the libraries: `clients` beside the build's own folders.
fn installed(what: &str) -> Result<PathBuf> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().context("the build's folder")?;
    let path = target.join("clients").join(what);
    ensure!(path.exists(), "{} is missing: make clients installs it", path.display());
    Ok(path)
}

fn program(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(name)
}

/// Runs a program against a plain server, then against Portico.
fn run(command: impl Fn() -> Result<Command>) -> Result<()> {
    let server = Server::start(ServerOptions::default())?;
    finish(&mut command()?, server.port()).context("against a plain Redis")?;

    let cluster = Cluster::start(ClusterOptions::default())?;
    let portico = Portico::start(&cluster, &[])?;
    finish(&mut command()?, portico.port()).context("against Portico")?;
    portico.check_log()
}

fn finish(command: &mut Command, port: u16) -> Result<()> {
    command.args(["127.0.0.1", &port.to_string()]).stdin(Stdio::null());
    let mut child = command.spawn().with_context(|| format!("cannot run {command:?}"))?;
    let deadline = Instant::now() + LIMIT;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() > deadline {
            child.kill()?;
            break child.wait()?;
        }
        sleep(Duration::from_millis(20));
    };
    ensure!(status.success(), "{command:?} failed ({status}); what it wrote is above");
    Ok(())
}

#[test]
fn redis_py() -> Result<()> {
    let python = installed("python/bin/python")?;
    run(|| {
        let mut command = Command::new(&python);
        command.args(["-B", "-W", "error::DeprecationWarning"]).arg(program("python/redis_py.py"));
        Ok(command)
    })
}

#[test]
fn ioredis() -> Result<()> {
    run(|| node("node/ioredis.js"))
}

#[test]
fn node_redis() -> Result<()> {
    run(|| node("node/node_redis.js"))
}

fn node(name: &str) -> Result<Command> {
    let mut command = Command::new("node");
    command.env("NODE_PATH", installed("node/node_modules")?).arg(program(name));
    Ok(command)
}

#[test]
fn redis_rs() -> Result<()> {
    let server = Server::start(ServerOptions::default())?;
    redis_rs::check(server.port()).context("against a plain Redis")?;

    let cluster = Cluster::start(ClusterOptions::default())?;
    let portico = Portico::start(&cluster, &[])?;
    redis_rs::check(portico.port()).context("against Portico")?;
    portico.check_log()
}
