//! A connection to one node for the refresher's own questions, one at a time.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use portico_resp::encode;
use portico_slots::Address;
use redis_protocol::resp2::decode::decode_bytes_mut;
use redis_protocol::resp2::types::{BytesFrame, Resp2Frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::version::{Identity, Module, is_served, not_served};
use crate::backend::Credentials;
use crate::pubsub::OwnAddresses;

/// How a port for TLS that is spoken to in plain may answer before it closes the connection (RFC 8446, 5.1).
const TLS_ALERT: &[u8] = b"\x15\x03";

/// What a node said of itself when it was connected to.
#[derive(Clone, Debug, Default)]
pub(super) struct About {
    /// `run_id`: identifies the process.
    pub(super) run_id: Option<String>,
    /// `redis_version`.
    pub(super) version: Option<String>,
    /// `server_name` and that server's version, where it has another than Redis.
    pub(super) identity: Option<Identity>,
    /// What it has loaded; nothing if that is not to be told.
    pub(super) modules: Box<[Module]>,
    /// Its `timeout` for idle clients; none if zero or not to be told.
    pub(super) timeout: Option<Duration>,
}

impl About {
    /// What it is called by what it has: who is called the same has the same commands.
    pub(super) fn learned_as(&self) -> Option<String> {
        let mut name = match &self.identity {
            Some(identity) => format!("{} {}", identity.name, identity.version),
            None => self.version.clone()?,
        };
        let mut modules: Vec<_> =
            self.modules.iter().map(|module| format!(" {} {}", module.name, module.version)).collect();
        modules.sort_unstable();
        name.extend(modules);
        Some(name)
    }
}

/// A connection to one node.
#[derive(Debug)]
pub(super) struct Control {
    stream: TcpStream,
    input: BytesMut,
    /// Where it leads to.
    pub(super) address: Address,
    /// What the node said of itself.
    pub(super) about: About,
}

impl Control {
    /// Connects and authenticates.
    pub(super) async fn open(
        address: Address,
        credentials: &Credentials,
        own_addresses: &OwnAddresses,
    ) -> io::Result<Self> {
        let stream = TcpStream::connect((address.host.as_str(), address.port)).await?;
        stream.set_nodelay(true)?;
        own_addresses.add(&stream.local_addr()?.to_string());
        let mut control = Self { stream, input: BytesMut::new(), address, about: About::default() };
        if let Some(password) = credentials.password.as_deref() {
            match credentials.username.as_deref() {
                Some(user) => control.ask(&["AUTH", user, password]).await?,
                None => control.ask(&["AUTH", password]).await?,
            };
        }
        // Names and settings are a help, not a need: a user may not be allowed to give or ask them. Who is not let in at
        // all (maxclients, protected mode) is told so in place of the first reply.
        if let BytesFrame::Error(error) = control.call(&["CLIENT", "SETNAME", "portico-control"]).await?
            && !error.starts_with("NOPERM ")
        {
            return Err(io::Error::other(error.to_string()));
        }
        let info = control.ask(&["INFO", "server"]).await?;
        let field = |name: &str| {
            let mut lines = info.lines();
            lines
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
                .map(|value| value.trim().to_owned())
        };
        control.about.run_id = field("run_id");
        control.about.version = field("redis_version");
        let name = field("server_name").filter(|name| name != "redis");
        control.about.identity = name.and_then(|name| {
            let version = field(&format!("{name}_version"))?;
            Some(Identity { name: name.into(), version: version.into(), modules: Box::default() })
        });
        if let Some(version) = control.about.version.as_deref().filter(|version| !is_served(version)) {
            return Err(io::Error::new(io::ErrorKind::Unsupported, not_served(version)));
        }
        if let BytesFrame::Array(entries) = control.call(&["MODULE", "LIST"]).await? {
            control.about.modules = entries.iter().filter_map(Module::read).collect();
        }
        if let BytesFrame::Array(pair) = control.call(&["CONFIG", "GET", "timeout"]).await?
            && let Some(seconds) = pair.get(1).and_then(|value| value.as_str()?.parse::<u64>().ok())
        {
            control.about.timeout = (seconds > 0).then(|| Duration::from_secs(seconds));
        }
        Ok(control)
    }

    /// Asks for a text.
    pub(super) async fn ask(&mut self, words: &[&str]) -> io::Result<String> {
        match self.call(words).await? {
            BytesFrame::Error(error) => Err(io::Error::other(error.to_string())),
            frame => Ok(frame.as_str().unwrap_or_default().to_owned()),
        }
    }

    /// Asks; an error reply is a reply.
    pub(super) async fn call(&mut self, words: &[&str]) -> io::Result<BytesFrame> {
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        self.command(&words).await
    }

    /// Asks in bytes; an error reply is a reply.
    pub(super) async fn command(&mut self, words: &[&[u8]]) -> io::Result<BytesFrame> {
        let mut request = Vec::new();
        encode::command(&mut request, words);
        self.stream.write_all(&request).await?;
        loop {
            if self.input.starts_with(TLS_ALERT) {
                return Err(io::Error::new(io::ErrorKind::ConnectionReset, "it answers in TLS"));
            }
            let decoded = decode_bytes_mut(&mut self.input)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
            if let Some((frame, ..)) = decoded {
                return Ok(frame);
            }
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}
