//! The `portico` binary as a value.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use portico::sandbox::{Cluster, Port, Watchdog};
use portico_slots::Address;
use tempfile::TempDir;

use crate::Client;

const START_LIMIT: Duration = Duration::from_secs(20);

/// The program that is tested.
#[derive(Debug)]
pub struct Binary;

impl Binary {
    /// `PORTICO_BIN`, or the one in the folder above that of the test's own executable.
    ///
    /// # Errors
    /// There is none.
    pub fn path() -> Result<PathBuf> {
        if let Some(path) = std::env::var_os("PORTICO_BIN") {
            return Ok(path.into());
        }
        let test = std::env::current_exe()?;
        let folder = test.parent().and_then(Path::parent).context("the test is in target/*/deps")?;
        let path = folder.join("portico");
        ensure!(path.exists(), "{} is missing: cargo build -p portico, or make test", path.display());
        Ok(path)
    }

    /// A command to run it, without the settings that the environment may have for it.
    ///
    /// # Errors
    /// As [`Binary::path`].
    pub fn command() -> Result<Command> {
        Self::command_under(None)
    }

    /// A command to run it by another program, whose last argument it is.
    fn command_under(wrapper: Option<Command>) -> Result<Command> {
        let path = Self::path()?;
        let mut command = match wrapper {
            Some(mut wrapper) => {
                wrapper.arg(path);
                wrapper
            }
            None => Command::new(path),
        };
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PORTICO_") || name.to_string_lossy().starts_with("REDIS_")
            {
                command.env_remove(name);
            }
        }
        command.stdin(Stdio::null());
        Ok(command)
    }
}

/// A running Portico on a loopback port of its own. Dropping it kills it and, unless the test failed already, checks
/// its log: a warning that was not expected, or a panic, fails the test.
#[derive(Debug)]
pub struct Portico {
    child: Child,
    status: Option<ExitStatus>,
    _watchdog: Watchdog,
    port: Port,
    folder: TempDir,
    expected: Mutex<Vec<String>>,
}

impl Portico {
    /// Starts it in front of all the cluster's nodes, and waits until it answers.
    ///
    /// # Errors
    /// It ends at once (the error quotes its log), or does not answer.
    pub fn start(cluster: &Cluster, flags: &[&str]) -> Result<Self> {
        Self::start_at(&cluster.seeds(), flags)
    }

    /// Starts it with these nodes.
    ///
    /// # Errors
    /// As [`Portico::start`].
    pub fn start_at(nodes: &[Address], flags: &[&str]) -> Result<Self> {
        Self::start_under(None, nodes, flags)
    }

    /// Starts it in front of all the cluster's nodes by `wrapper`, a program that becomes it (`strace -D`).
    ///
    /// # Errors
    /// As [`Portico::start`].
    pub fn start_by(wrapper: Command, cluster: &Cluster, flags: &[&str]) -> Result<Self> {
        Self::start_under(Some(wrapper), &cluster.seeds(), flags)
    }

    fn start_under(wrapper: Option<Command>, nodes: &[Address], flags: &[&str]) -> Result<Self> {
        let port = Port::reserve()?;
        let folder = tempfile::Builder::new().prefix("portico-").tempdir()?;
        let log = File::create(folder.path().join("log"))?;
        let nodes: Vec<String> = nodes.iter().map(ToString::to_string).collect();
        let mut command = Binary::command_under(wrapper)?;
        command.args(["--port", &port.number().to_string(), "--nodes", &nodes.join(",")]);
        // A worker for each core would only take turns with the servers.
        if !flags.contains(&"--workers") {
            command.args(["--workers", "2"]);
        }
        if let Ok(level) = std::env::var("PORTICO_LOG") {
            command.args(["--loglevel", &level]);
        }
        command.args(flags).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().context("cannot run portico")?;
        let watchdog = Watchdog::over(child.id(), Some(folder.path()))?;
        let expected = Mutex::default();
        let mut portico = Portico { child, status: None, _watchdog: watchdog, port, folder, expected };
        portico.wait_until_it_answers()?;
        Ok(portico)
    }

    fn wait_until_it_answers(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            // It may ask for a password: an answer all the same.
            if self.client().and_then(|mut client| client.call(&["PING"])).is_ok() {
                return Ok(());
            }
            if let Some(status) = self.status()? {
                bail!("portico ended ({status}):\n{}", self.log());
            }
            ensure!(Instant::now() < deadline, "portico does not answer:\n{}", self.log());
            sleep(Duration::from_millis(10));
        }
    }

    /// Where clients connect.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// `127.0.0.1` and the port.
    #[must_use]
    pub fn address(&self) -> Address {
        Address::new("127.0.0.1", self.port())
    }

    /// The process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A new connection, not logged in.
    ///
    /// # Errors
    /// It does not listen.
    pub fn client(&self) -> Result<Client> {
        Client::connect(self.port())
    }

    /// A folder of its own, removed with it.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// All that it has written so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read(self.folder.path().join("log"))
            .map(|log| String::from_utf8_lossy(&log).into_owned())
            .unwrap_or_default()
    }

    /// Warnings that hold this text are no fault.
    pub fn expect_log(&self, text: &str) {
        self.expected.lock().expect("nobody panics here").push(text.to_owned());
    }

    /// Whether the log is free of panics and of warnings that nobody expected.
    ///
    /// # Errors
    /// It is not; the error quotes the lines.
    pub fn check_log(&self) -> Result<()> {
        let expected = self.expected.lock().expect("nobody panics here");
        let log = self.log();
        let bad = |line: &&str| {
            let warning = line.split(' ').nth(1) == Some("warning");
            let panic = line.contains("panicked at");
            // What a test does to its nodes is no fault of Portico's.
            let lost = line.contains("no master answers for") || line.contains("no master has answered for");
            (warning || panic) && !lost && !expected.iter().any(|text| line.contains(text))
        };
        let bad: Vec<_> = log.lines().filter(bad).take(20).collect();
        ensure!(bad.is_empty(), "portico's log is not clean:\n{}", bad.join("\n"));
        Ok(())
    }

    /// Waits for a line in the log that holds this text.
    ///
    /// # Errors
    /// There is none in time.
    pub fn wait_for_log(&self, text: &str, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        while !self.log().contains(text) {
            ensure!(Instant::now() < deadline, "nothing of {text:?} in the log:\n{}", self.log());
            sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Sends a signal: `portico.signal("TERM")`.
    ///
    /// # Errors
    /// It is not running.
    pub fn signal(&self, name: &str) -> Result<()> {
        ensure!(self.status.is_none(), "portico has ended");
        let status = Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status()?;
        ensure!(status.success(), "kill -{name} {} failed", self.pid());
        Ok(())
    }

    /// How it ended; `None` while it runs.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn status(&mut self) -> Result<Option<ExitStatus>> {
        if self.status.is_none() {
            self.status = self.child.try_wait()?;
        }
        Ok(self.status)
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    /// It does not in time.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.status()? {
                return Ok(status);
            }
            ensure!(Instant::now() < deadline, "portico still runs after {limit:?}:\n{}", self.log());
            sleep(Duration::from_millis(5));
        }
    }

    /// Memory that it holds now, in bytes (VmRSS).
    ///
    /// # Errors
    /// It has ended.
    pub fn memory(&self) -> Result<u64> {
        Ok(self.kernel_says("VmRSS:")? * 1024)
    }

    /// The most memory that it ever held, in bytes (VmHWM).
    ///
    /// # Errors
    /// It has ended.
    pub fn peak_memory(&self) -> Result<u64> {
        Ok(self.kernel_says("VmHWM:")? * 1024)
    }

    /// How many threads it has.
    ///
    /// # Errors
    /// It has ended.
    pub fn threads(&self) -> Result<u64> {
        self.kernel_says("Threads:")
    }

    fn kernel_says(&self, what: &str) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(what)).context("it runs")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }
}

impl Drop for Portico {
    fn drop(&mut self) {
        if self.status.is_none() {
            // Neither fails on a child of ours.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            eprintln!("portico's log:\n{}", self.log());
        } else if let Err(error) = self.check_log() {
            panic!("{error}");
        }
    }
}
