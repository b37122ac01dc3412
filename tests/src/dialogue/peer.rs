//! One side of a dialogue: its connections to one server, and what they receive.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::{Client, Frame, Name, show};

/// What came, or did not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    /// A reply or a push.
    Frame(Vec<u8>),
    /// Nothing.
    Nothing,
    /// The end of the connection.
    End,
}

/// The connections of a dialogue to one server.
#[derive(Debug)]
pub struct Peer {
    port: u16,
    clients: BTreeMap<char, Client>,
    names: Vec<Name>,
}

impl Peer {
    /// No connections yet, to the server at this port.
    #[must_use]
    pub fn new(port: u16) -> Self {
        Peer { port, clients: BTreeMap::new(), names: Vec::new() }
    }

    /// What the server calls the connections.
    #[must_use]
    pub fn names(&self) -> &[Name] {
        &self.names
    }

    /// Connects, in place of an earlier connection of that name.
    ///
    /// # Errors
    /// Nobody listens, or the connection is not served.
    pub fn open(&mut self, letter: char, protocol: u8) -> Result<()> {
        self.close(letter);
        let mut client = Client::connect(self.port)?;
        if protocol == 3 {
            client.hello3()?;
        }
        let id = client.line("CLIENT ID")?;
        let id = Frame::read(&id).0.body().with_context(|| show(&id))?.escape_ascii().to_string();
        let address = client.stream().local_addr()?.to_string();
        let server = client.stream().peer_addr()?.to_string();
        self.names.retain(|name| name.letter != letter);
        self.names.push(Name { letter, id, address, server });
        self.clients.insert(letter, client);
        Ok(())
    }

    /// Closes a connection.
    pub fn close(&mut self, letter: char) {
        self.clients.remove(&letter);
    }

    /// Sends. That the other side does not take it is seen when nothing comes.
    pub fn send(&mut self, letter: char, bytes: &[u8]) {
        if let Some(client) = self.clients.get_mut(&letter) {
            let _ = client.send(bytes);
        }
    }

    /// A command's words, with the server's names in their places: `<id:b>`.
    #[must_use]
    pub fn named(&self, words: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let named = |word: &Vec<u8>| {
            let Ok(text) = std::str::from_utf8(word) else { return word.clone() };
            let mut text = text.to_owned();
            for Name { letter, id, address, server } in &self.names {
                text = text.replace(&format!("<id:{letter}>"), id);
                text = text.replace(&format!("<addr:{letter}>"), address).replace("<server>", server);
            }
            text.into_bytes()
        };
        words.iter().map(named).collect()
    }

    /// The next frame, if it comes in time.
    ///
    /// # Errors
    /// What comes is not RESP.
    pub fn receive(&mut self, letter: char, until: Instant) -> Result<Received> {
        let Some(client) = self.clients.get_mut(&letter) else { return Ok(Received::End) };
        let patience = until.saturating_duration_since(Instant::now());
        // The kernel rounds short times up.
        client.stream().set_nonblocking(patience.is_zero())?;
        client.set_patience(patience.max(Duration::from_millis(1)))?;
        let reply = client.reply();
        client.stream().set_nonblocking(false)?;
        let error = match reply {
            Ok(frame) => return Ok(Received::Frame(frame)),
            Err(error) => error,
        };
        match error.downcast_ref::<std::io::Error>().map(std::io::Error::kind) {
            Some(ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(Received::Nothing),
            Some(_) => Ok(Received::End),
            None if client.is_closed() => Ok(Received::End),
            None => Err(error),
        }
    }
}
