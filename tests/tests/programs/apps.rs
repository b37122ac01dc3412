//! Real programs, unmodified, do real jobs through Portico: task queues, job schedulers, locks, chat servers.
//!
//! Each folder of `tests/apps` has a main program that starts what it needs, checks what comes of it, and ends. It is
//! run against a plain Redis first, so that what it finds wrong here is Portico's doing. `make test-apps` installs what
//! they use and runs them; `APPS_ONLY=redis` or `APPS_ONLY=portico` is one half of it.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use portico::sandbox::{Cluster, ClusterOptions, Server, ServerOptions};
use portico_tests::Portico;

/// Seconds. A program that has not ended by then hangs; on an idle machine each takes less than half a minute.
const LIMIT: &str = "120";

/// Its keys are in one slot wherever a command or a transaction needs that.
const ONE_SLOT: &[&str] = &[];
/// Its transactions have keys in several slots.
const EMULATE: &[&str] = &["--cross-slot", "emulate"];

/// What `make test-apps` installed: `apps` beside the build's own folders.
fn installed(what: &str) -> Result<PathBuf> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().context("the build's folder")?;
    let path = target.join("apps").join(what);
    ensure!(path.exists(), "{} is missing: make test-apps installs it", path.display());
    Ok(path)
}

/// A main program, by what its name ends in, told where Redis is. `timeout` ends it with all that it has started,
/// whatever becomes of us.
fn program(main: &str, port: u16, arguments: &[&str]) -> Result<Command> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("apps").join(main);
    let mut command = Command::new("timeout");
    command.args(["--kill-after", "10", LIMIT]).stdin(Stdio::null());
    match path.extension().and_then(|end| end.to_str()) {
        Some("py") => command.arg(installed("python/bin/python")?).env("PYTHONDONTWRITEBYTECODE", "1"),
        Some("js") => command.arg("node").env("NODE_PATH", installed("node/node_modules")?),
        Some("rb") => command.arg("ruby"),
        _ => bail!("nothing runs {main}"),
    };
    command.arg(path).args(["127.0.0.1", &port.to_string()]).args(arguments);
    Ok(command)
}

/// Waits until it has ended well.
fn finish(child: io::Result<Child>) -> Result<()> {
    let mut child = child?;
    let status = child.wait()?;
    ensure!(status.code() != Some(124), "it had not ended after {LIMIT} s; what it wrote is above");
    ensure!(status.success(), "it failed ({status}); what it wrote is above");
    Ok(())
}

/// Whether this half of a test is wanted.
fn wanted(half: &str) -> bool {
    std::env::var("APPS_ONLY").map_or(true, |only| only == half)
}

/// Runs a program against a plain server, then against Portico.
fn run(main: &str, flags: &[&str], arguments: &[&str]) -> Result<()> {
    if wanted("redis") {
        let server = Server::start(ServerOptions::default())?;
        finish(program(main, server.port(), arguments)?.spawn()).context("against a plain Redis")?;
    }
    if wanted("portico") {
        let cluster = Cluster::start(ClusterOptions::default())?;
        let portico = Portico::start(&cluster, flags)?;
        finish(program(main, portico.port(), arguments)?.spawn()).context("against Portico")?;
        portico.check_log()?;
    }
    Ok(())
}

#[test]
#[ignore = "make test-apps"]
fn redis_py() -> Result<()> {
    run("redis_py/main.py", ONE_SLOT, &[])
}

#[test]
#[ignore = "make test-apps"]
fn ioredis() -> Result<()> {
    run("ioredis/main.js", ONE_SLOT, &[])
}

#[test]
#[ignore = "make test-apps"]
fn socket_io() -> Result<()> {
    run("socket_io/main.js", ONE_SLOT, &[])
}

#[test]
#[ignore = "make test-apps"]
fn bullmq() -> Result<()> {
    run("bullmq/main.js", ONE_SLOT, &[])
}

#[test]
#[ignore = "make test-apps"]
fn channels() -> Result<()> {
    run("channels/main.py", ONE_SLOT, &[])
}

/// Only the queue has a hash tag: `unacked` and its index, and the results, are where they fall.
#[test]
#[ignore = "make test-apps"]
fn celery() -> Result<()> {
    run("celery/main.py", EMULATE, &["tagged-queue"])
}

/// All keys begin with a hash tag, so that nothing needs to be emulated.
#[test]
#[ignore = "make test-apps"]
fn celery_with_a_prefix() -> Result<()> {
    run("celery/main.py", ONE_SLOT, &["tagged-prefix"])
}

#[test]
#[ignore = "make test-apps"]
fn rq() -> Result<()> {
    run("rq/main.py", EMULATE, &[])
}

/// RQ writes a job's hash and then its id, in one transaction; a worker that finds an id without a hash forgets the
/// job. The two are on different nodes, and the hash's may be the slow one.
#[test]
#[ignore = "make test-apps"]
fn rq_while_a_shard_is_stopped() -> Result<()> {
    if wanted("redis") {
        let server = Server::start(ServerOptions::default())?;
        enqueue_while_stopping(std::slice::from_ref(&server), server.port())
            .context("against a plain Redis")?;
    }
    if wanted("portico") {
        // Nobody holds a stopped node for failed.
        let options = ClusterOptions { node_timeout: Duration::from_secs(15), ..ClusterOptions::default() };
        let cluster = Cluster::start(options)?;
        let portico = Portico::start(&cluster, EMULATE)?;
        enqueue_while_stopping(cluster.nodes(), portico.port()).context("against Portico")?;
        portico.check_log()?;
    }
    Ok(())
}

/// Stops one node after the other for two seconds, while jobs are enqueued and done.
fn enqueue_while_stopping(nodes: &[Server], port: u16) -> Result<()> {
    let mut child = program("rq/stopped.py", port, &[])?.stdin(Stdio::piped()).spawn()?;
    sleep(Duration::from_secs(3));
    for node in nodes {
        node.pause()?;
        sleep(Duration::from_secs(2));
        node.resume()?;
        sleep(Duration::from_secs(1));
    }
    // Its sign to enqueue no more.
    drop(child.stdin.take());
    finish(Ok(child))
}

#[test]
#[ignore = "make test-apps"]
fn sidekiq() -> Result<()> {
    run("sidekiq/main.rb", EMULATE, &[])
}
