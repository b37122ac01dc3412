//! `portico sandbox`: a throwaway cluster with Portico in front, to try things on.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command as Process, ExitCode, ExitStatus};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::{Arg, ArgMatches, Command, value_parser};
use portico_slots::Address;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::say::{complain, say};
use crate::config::SETTINGS;
use crate::sandbox::{Cluster, ClusterOptions, Connection, Port, Server, Watchdog};

const START_LIMIT: Duration = Duration::from_secs(20);
const STOP_LIMIT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(50);

pub(super) fn command() -> Command {
    let flag = |name: &'static str, value: &'static str, default: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).default_value(default).help(help)
    };
    Command::new("sandbox")
        .about("Start a throwaway cluster with Portico in front, until Ctrl-C")
        .arg(flag("masters", "NUMBER", "3", "Masters").value_parser(value_parser!(u16).range(1..=100)))
        .arg(flag("replicas", "NUMBER", "0", "Replicas of each").value_parser(value_parser!(u16).range(..=5)))
        .arg(
            flag(
                "redis-server",
                "PATH",
                "redis-server",
                "Program to run as nodes; 6.2 or later, or valkey-server",
            )
            .value_parser(value_parser!(PathBuf)),
        )
        .arg(flag("port", "PORT", "0", "Portico's port; 0: any free one").value_parser(value_parser!(u16)))
        .arg(
            Arg::new("settings")
                .value_name("SETTINGS")
                .last(true)
                .num_args(0..)
                .help("Settings for Portico, as portico serve takes them"),
        )
}

pub(super) fn run(matches: &ArgMatches) -> Result<ExitCode> {
    // First, so that an early Ctrl-C cleans up as well.
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let mut options = ClusterOptions::default();
    options.masters = matches.get_one("masters").copied().unwrap_or(options.masters);
    options.replicas = matches.get_one("replicas").copied().unwrap_or(options.replicas);
    options.redis_server = matches.get_one("redis-server").cloned().unwrap_or(options.redis_server);
    say(format_args!("Starting {} masters, {} replicas each ...\n", options.masters, options.replicas))?;
    let cluster = Cluster::start(options)?;

    say("Starting Portico ...\n")?;
    let reserved = Port::reserve()?;
    let port = matches.get_one("port").copied().filter(|port| *port > 0).unwrap_or(reserved.number());
    let settings = matches.get_many::<String>("settings").into_iter().flatten();
    let mut portico = Front::start(port, &cluster.seeds(), settings)?;
    portico.wait_until_it_answers()?;
    say(introduction(&cluster, &portico))?;

    while signals.pending().next().is_none() {
        if let Some(status) = portico.child.try_wait()? {
            anyhow::bail!("Portico ended: {status}");
        }
        sleep(POLL);
    }
    say("\nCleaning up ...\n")?;
    Ok(ExitCode::SUCCESS)
}

/// What has started, and what to try on it.
fn introduction(cluster: &Cluster, portico: &Front) -> String {
    let port = portico.address.port;
    let mut text =
        format!("\nPortico answers at {} (process {}).\n\nNodes:\n", portico.address, portico.child.id());
    // Writing to a string does not fail.
    for node in cluster.nodes() {
        let role = node.ask(&["INFO", "replication"]).unwrap_or_default();
        let role = if role.contains("role:master") { "master" } else { "replica" };
        let _ = writeln!(text, "  {} {role:<7} process {}", node.address(), node.pid().unwrap_or_default());
    }
    let _ = writeln!(
        text,
        "\nTry:\n  redis-cli -p {port} set greeting hello\n  redis-cli -p {port} mget greeting other\n  \
         redis-benchmark -p {port} -t set,get -n 1000000 -P 16"
    );
    if let Some(pid) = cluster.nodes().first().and_then(Server::pid) {
        let _ = writeln!(text, "  kill -9 {pid}    # a master; with --replicas 1 a replica takes over");
    }
    text.push_str("\nCtrl-C ends it all.\n");
    text
}

/// Portico as a process of its own. Dropping it ends it.
struct Front {
    child: Child,
    address: Address,
    _watchdog: Watchdog,
}

impl Front {
    fn start<'a>(port: u16, nodes: &[Address], settings: impl Iterator<Item = &'a String>) -> Result<Self> {
        let mut command = Process::new(std::env::current_exe()?);
        command.args(["serve", "--port", &port.to_string(), "--nodes"]);
        command.args(nodes.iter().map(ToString::to_string)).args(settings);
        // What is set for another Portico, above all passwords, is not for this one.
        let of_portico = |name: &OsString| name.as_encoded_bytes().starts_with(b"PORTICO_");
        let names = std::env::vars_os().map(|(name, _)| name).filter(of_portico);
        let others = SETTINGS.iter().flat_map(|setting| setting.aliases);
        names.chain(others.map(OsString::from)).for_each(|name| {
            command.env_remove(name);
        });
        let child = command.spawn().context("cannot start Portico")?;
        let watchdog = Watchdog::over(child.id(), None)?;
        Ok(Front { child, address: Address::new("127.0.0.1", port), _watchdog: watchdog })
    }

    fn wait_until_it_answers(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        // Whatever it answers, be it that it wants a password.
        while Connection::open(&self.address, POLL).and_then(|mut portico| portico.call(&["PING"])).is_err() {
            if let Some(status) = self.child.try_wait()? {
                anyhow::bail!("Portico ended: {status}");
            }
            ensure!(Instant::now() < deadline, "Portico does not answer at {}", self.address);
            sleep(POLL);
        }
        Ok(())
    }

    /// Asks it to end, and makes it if it does not.
    fn stop(&mut self) -> Result<ExitStatus> {
        if self.child.try_wait()?.is_none() {
            Process::new("kill").arg(self.child.id().to_string()).status()?;
            let deadline = Instant::now() + STOP_LIMIT;
            while self.child.try_wait()?.is_none() && Instant::now() < deadline {
                sleep(POLL);
            }
            self.child.kill()?;
        }
        Ok(self.child.wait()?)
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            complain(format_args!("cannot end process {}: {error}", self.child.id()));
        }
    }
}
