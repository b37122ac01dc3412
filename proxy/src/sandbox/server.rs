//! One Redis server: started, paused, killed, restarted, asked.

use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use portico_slots::Address;
use redis_protocol::resp2::types::BytesFrame;
use tempfile::TempDir;

use super::program::{default_program, is_old};
use super::watchdog::Watchdog;
use super::{Connection, Port};

/// Somebody who does not respect our reservations may take a port before the server does.
const ATTEMPTS: usize = 10;

/// Starting takes a twentieth of a second, unless the machine is very busy.
const START_LIMIT: Duration = Duration::from_secs(30);

/// How long one command may take.
const CALL_LIMIT: Duration = Duration::from_secs(10);

const LOG_FILE: &str = "redis.log";

/// How far from its port for clients an old server listens for other nodes.
const OLD_BUS: u16 = 10_000;

/// How to start a server.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// The program; without a slash it is looked up in PATH.
    pub redis_server: PathBuf,
    /// In cluster mode, with this `cluster-node-timeout`; `None`: standalone.
    pub cluster: Option<Duration>,
    /// `requirepass` and `masterauth`.
    pub password: Option<String>,
    /// Further arguments, as on redis-server's command line; they win.
    pub args: Vec<String>,
}

impl Default for ServerOptions {
    fn default() -> Self {
        ServerOptions { redis_server: default_program(), cluster: None, password: None, args: Vec::new() }
    }
}

/// A Redis server on a loopback port of its own. Dropping it kills it and removes its folder.
#[derive(Debug)]
pub struct Server {
    options: ServerOptions,
    /// It is older than 7.0.
    old: bool,
    port: Port,
    bus_port: Port,
    // Before the folder: the process ends first.
    process: Option<Process>,
    folder: TempDir,
}

/// A living server process and who ends it if we cannot.
#[derive(Debug)]
struct Process {
    child: Child,
    _watchdog: Watchdog,
}

impl Server {
    /// Starts a server and waits until it answers.
    ///
    /// # Errors
    /// The program cannot be run or ends at once (the error quotes its log), or it does not answer.
    pub fn start(options: ServerOptions) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("portico-").tempdir()?;
        let old = is_old(&options.redis_server);
        let (port, bus_port) = (Port::reserve()?, Port::reserve()?);
        let mut server = Server { options, old, port, bus_port, process: None, folder };
        for _ in 1..ATTEMPTS {
            match server.restart() {
                Err(_) if server.log().contains("Failed listening on port") => {
                    (server.port, server.bus_port) = (Port::reserve()?, Port::reserve()?);
                    std::fs::remove_file(server.folder.path().join(LOG_FILE))?;
                }
                result => return result.map(|()| server),
            }
        }
        server.restart().map(|()| server)
    }

    /// The port for clients.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// The port for other nodes, of a server in cluster mode.
    #[must_use]
    pub fn bus_port(&self) -> u16 {
        if self.old { self.port() + OLD_BUS } else { self.bus_port.number() }
    }

    /// `127.0.0.1` and the port for clients.
    #[must_use]
    pub fn address(&self) -> Address {
        Address::new("127.0.0.1", self.port())
    }

    /// The process; `None` while it is not running.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(|process| process.child.id())
    }

    /// All that it has logged, over restarts too.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join(LOG_FILE)).unwrap_or_default()
    }

    /// A new connection, logged in.
    ///
    /// # Errors
    /// It does not answer, or refuses the password.
    pub fn connect(&self) -> Result<Connection> {
        let mut connection = Connection::open(&self.address(), CALL_LIMIT)?;
        if let Some(password) = &self.options.password {
            connection.ask(&["AUTH", password])?;
        }
        Ok(connection)
    }

    /// One command on a connection of its own; an error reply is a reply.
    ///
    /// # Errors
    /// As [`Server::connect`].
    pub fn call(&self, command: &[&str]) -> Result<BytesFrame> {
        Ok(self.connect()?.call(command)?)
    }

    /// One command whose reply is text.
    ///
    /// # Errors
    /// As [`Server::call`]; also an error reply, in its own words.
    pub fn ask(&self, command: &[&str]) -> Result<String> {
        let answer = self.connect()?.ask(command);
        answer.with_context(|| format!("{} at {}", command.join(" "), self.address()))
    }

    /// Ends the process as a power cut would (SIGKILL), if it runs. Its folder and ports stay.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.child.kill()?;
            process.child.wait()?;
        }
        Ok(())
    }

    /// Stops the process where it is (SIGSTOP): its connections stay open and nothing is answered.
    ///
    /// # Errors
    /// It is not running.
    pub fn pause(&self) -> Result<()> {
        self.signal("-STOP")
    }

    /// Lets a paused process go on (SIGCONT).
    ///
    /// # Errors
    /// It is not running.
    pub fn resume(&self) -> Result<()> {
        self.signal("-CONT")
    }

    /// Starts the process again in its folder and on its ports, after killing it if it runs, and waits until it
    /// answers.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn restart(&mut self) -> Result<()> {
        self.kill()?;
        let child = self.command().spawn();
        let mut child =
            child.with_context(|| format!("cannot run {}", self.options.redis_server.display()))?;
        match Watchdog::over(child.id(), Some(self.folder.path())) {
            Ok(watchdog) => self.process = Some(Process { child, _watchdog: watchdog }),
            Err(error) => {
                child.kill()?;
                child.wait()?;
                bail!("cannot run sh: {error}");
            }
        }
        self.wait_until_it_answers()
    }

    fn command(&self) -> Command {
        let port = self.port().to_string();
        let mut command = Command::new(&self.options.redis_server);
        command.args(["--port", &port, "--bind", "127.0.0.1", "--protected-mode", "no", "--daemonize", "no"]);
        command.args(["--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0"]);
        command.arg("--logfile").arg(self.folder.path().join(LOG_FILE)).arg("--dir").arg(self.folder.path());
        if !self.old {
            command.args(["--enable-debug-command", "yes"]);
        }
        if let Some(node_timeout) = self.options.cluster {
            command.args(["--cluster-enabled", "yes"]);
            if !self.old {
                command.args(["--cluster-port", &self.bus_port.number().to_string()]);
            }
            command.args(["--cluster-node-timeout", &node_timeout.as_millis().to_string()]);
        }
        if let Some(password) = &self.options.password {
            command.args(["--requirepass", password, "--masterauth", password]);
        }
        command.args(&self.options.args);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    fn wait_until_it_answers(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            if let Some(status) = self.exit_status()? {
                self.process = None;
                bail!("{} ended ({status}):\n{}", self.options.redis_server.display(), self.log());
            }
            // Another server at this port would answer too.
            let own = self.pid().map(|pid| format!("process_id:{pid}\r\n")).unwrap_or_default();
            if self.ask(&["INFO", "server"]).is_ok_and(|info| info.contains(&own)) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "the server does not answer:\n{}", self.log());
            sleep(Duration::from_millis(10));
        }
    }

    fn exit_status(&mut self) -> Result<Option<ExitStatus>> {
        let status = self.process.as_mut().map(|process| process.child.try_wait()).transpose()?;
        Ok(status.flatten())
    }

    fn signal(&self, signal: &str) -> Result<()> {
        let pid = self.pid().context("the server is not running")?;
        let status = Command::new("kill").args([signal, &pid.to_string()]).status()?;
        ensure!(status.success(), "kill {signal} {pid} failed");
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It fails only if the process is gone.
        let _ = self.kill();
    }
}
