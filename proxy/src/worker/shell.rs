//! One worker thread: an epoll loop around the engine. Reads, lets the engine decide, writes once a turn.
//!
//! A turn is one batch of ready sockets. What the engine queues during it is written at its end, nodes first, so that
//! batches deepen by themselves as load grows; no timer is involved. Sockets are registered for edges of both
//! directions once, and a read that does not fill the buffer has drained the socket: one system call a read, one a
//! write, one a turn.
//!
//! Who ends what: the thread ends when it was told to stop and its last client is gone, or `shutdown-timeout` is over; its sockets, its engine and
//! its connections to nodes are dropped with it. A client's socket is dropped by `Effect::CloseClient` or when its
//! connection broke; a node's by `Effect::CloseLink`.

use std::io::{self, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};
use slotmap::{Key, KeyData, SecondaryMap};

use super::balance::Balance;
use super::clients::Giving;
use super::{Listener, Mailbox, Message, Post, Stream};
use crate::backend::{ClientKey, Lane, LinkKey};
use crate::config::Config;
use crate::engine::{Effect, Engine};
use crate::session::ClientFlags;
use crate::stats::Shared;
use crate::topology::{RefreshRequests, SharedCluster};

/// Bytes read at once.
const SCRATCH: usize = 64 * 1024;
/// Reads of one socket in a row before others have their turn.
const READS_IN_A_ROW: usize = 16;
/// Nothing is read a second time in a turn that has taken so long.
const TIME_OF_TURN: Duration = Duration::from_millis(1);
/// Bytes read at once of what nodes tell by themselves: each may be for many names.
const PUSHES: usize = 8 * 1024;
/// Tokens of nodes' sockets have this bit, listeners' the next.
const LINK_BIT: u64 = 1 << 63;
const LISTENER_BIT: u64 = 1 << 62;
/// The token of the mailbox.
pub const MAILBOX: Token = Token((LINK_BIT | LISTENER_BIT) as usize);

/// A socket and what is known of it.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) stream: Stream,
    /// There may be something to read.
    readable: bool,
    /// Nothing is read now, by the engine's wish.
    paused: bool,
    /// The kernel takes bytes.
    writable: bool,
    /// The peer has closed its side: read until the end.
    ended: bool,
    /// A node's: the connection stands.
    connected: bool,
}

impl Socket {
    pub(super) fn new(stream: Stream, connected: bool) -> Self {
        Self { stream, readable: false, paused: false, writable: connected, ended: false, connected }
    }

    /// Nothing is known of it that another worker would not find out by itself.
    pub(super) fn is_at_rest(&self) -> bool {
        self.writable && !self.paused && !self.ended
    }
}

/// What a worker is made of.
pub struct ShellOptions {
    /// The settings.
    pub config: Arc<Config>,
    /// What all workers share.
    pub shared: Arc<Shared>,
    /// The map.
    pub cluster: Arc<SharedCluster>,
    /// Where to ask for the map.
    pub refresh: RefreshRequests,
    /// This worker's number.
    pub worker: usize,
    /// Where clients connect to: the first worker's only.
    pub listeners: Vec<Listener>,
    /// This worker's mailbox.
    pub mailbox: Mailbox,
    /// Every worker's, by number.
    pub posts: Vec<Post>,
}

/// One worker thread.
pub struct Shell {
    pub(super) poll: Poll,
    pub(super) options: ShellOptions,
    pub(super) engine: Engine,
    pub(super) clients: SecondaryMap<ClientKey, Socket>,
    links: SecondaryMap<LinkKey, Socket>,
    scratch: Box<[u8]>,
    /// Sockets that were not read to the end, for the next turn.
    again: Vec<Token>,
    /// When this turn did.
    began: Instant,
    pub(super) stopping: bool,
    /// When it ends whoever is left.
    stop_by: Option<Instant>,
    pub(super) balance: Balance,
    /// Clients are being handed over.
    pub(super) giving: Option<Giving>,
    dirty_links: Vec<LinkKey>,
    dirty_clients: Vec<ClientKey>,
}

pub(super) fn client_token(key: ClientKey) -> Token {
    Token((key.data().as_ffi() & !(LINK_BIT | LISTENER_BIT)) as usize)
}

fn link_token(key: LinkKey) -> Token {
    Token((key.data().as_ffi() & !(LINK_BIT | LISTENER_BIT) | LINK_BIT) as usize)
}

/// Whose token it is. A key's version may have had the two bits; none has lived so long.
enum Whose {
    Client(ClientKey),
    Link(LinkKey),
    Listener(usize),
    Mailbox,
}

fn whose(token: Token) -> Whose {
    let value = token.0 as u64;
    let key = KeyData::from_ffi(value & !(LINK_BIT | LISTENER_BIT));
    match (value & LINK_BIT != 0, value & LISTENER_BIT != 0) {
        (false, false) => Whose::Client(key.into()),
        (true, false) => Whose::Link(key.into()),
        (false, true) => Whose::Listener((value & !LISTENER_BIT) as usize),
        (true, true) => Whose::Mailbox,
    }
}

impl Shell {
    /// A worker around `poll`, in which its mailbox's waker is registered already.
    ///
    /// # Errors
    /// A listener cannot be registered.
    pub fn new(poll: Poll, mut options: ShellOptions) -> io::Result<Self> {
        for (index, listener) in options.listeners.iter_mut().enumerate() {
            listener.register(poll.registry(), Token((LISTENER_BIT | index as u64) as usize))?;
        }
        let engine = Engine::new(
            Arc::clone(&options.config),
            Arc::clone(&options.shared),
            options.worker,
            options.cluster.load_full(),
            Instant::now(),
        );
        Ok(Self {
            poll,
            options,
            engine,
            clients: SecondaryMap::new(),
            links: SecondaryMap::new(),
            scratch: vec![0; SCRATCH].into_boxed_slice(),
            again: Vec::new(),
            began: Instant::now(),
            stopping: false,
            stop_by: None,
            balance: Balance::new(Instant::now()),
            giving: None,
            dirty_links: Vec::new(),
            dirty_clients: Vec::new(),
        })
    }

    /// Serves until it was told to stop and nobody is left.
    ///
    /// # Errors
    /// The system's event queue fails.
    pub fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        let mut again = Vec::new();
        loop {
            let sleep = if self.again.is_empty() { self.engine.sleep() } else { Duration::ZERO };
            let sleep =
                self.stop_by.map_or(sleep, |by| sleep.min(by.saturating_duration_since(Instant::now())));
            match self.poll.poll(&mut events, Some(sleep)) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            let now = Instant::now();
            self.began = now;
            self.engine.begin_turn(now, &self.options.cluster.load());
            if let Some(busy) = self.balance.look(now) {
                self.balance(busy);
            }
            std::mem::swap(&mut again, &mut self.again);
            self.read_again(&mut again);
            for event in &events {
                self.event(event);
            }
            self.engine.end_turn();
            self.flush();
            if self.stopping {
                self.engine.close_stopped();
                self.flush();
                let left = self.engine.client_count();
                if left > 0 && self.stop_by.is_some_and(|by| now >= by) {
                    tracing::warn!(
                        clients = left,
                        "shutdown-timeout is over: clients are closed that were not told everything"
                    );
                    return Ok(());
                }
                if left == 0 {
                    return Ok(());
                }
            }
        }
    }

    #[inline]
    fn event(&mut self, event: &mio::event::Event) {
        let token = event.token();
        match whose(token) {
            Whose::Client(key) => {
                let Some(socket) = self.clients.get_mut(key) else { return };
                socket.ended |= event.is_read_closed();
                if event.is_writable() && !socket.writable {
                    socket.writable = true;
                    self.write_client(key);
                }
                if self.giving.is_some() && self.give(key) {
                    return;
                }
                if event.is_readable() || event.is_read_closed() {
                    self.read_client(key, event.is_write_closed());
                }
            }
            Whose::Link(key) => {
                let Some(socket) = self.links.get_mut(key) else { return };
                socket.ended |= event.is_read_closed();
                if event.is_writable() || event.is_error() {
                    socket.writable = true;
                    if !socket.connected {
                        return self.connected(key);
                    }
                    self.write_link(key);
                }
                if event.is_readable() || event.is_read_closed() {
                    self.read_link(key);
                }
            }
            Whose::Listener(index) => self.accept(index),
            Whose::Mailbox => self.mail(),
        }
    }

    /// Reads on where more was left; those for which this turn has no time come first in the next.
    fn read_again(&mut self, again: &mut Vec<Token>) {
        let mut tokens = again.drain(..);
        for token in tokens.by_ref() {
            self.read(token);
            if self.began.elapsed() > TIME_OF_TURN {
                break;
            }
        }
        let left = self.again.len();
        self.again.extend(tokens);
        self.again.rotate_left(left);
    }

    fn read(&mut self, token: Token) {
        match whose(token) {
            Whose::Client(key) => self.read_client(key, false),
            Whose::Link(key) => self.read_link(key),
            Whose::Listener(_) | Whose::Mailbox => {}
        }
    }

    /// Reads a client until there is no more, the engine wants no more, or others have their turn.
    pub(super) fn read_client(&mut self, key: ClientKey, broken: bool) {
        for _ in 0..READS_IN_A_ROW {
            let Some(socket) = self.clients.get_mut(key) else { return };
            if socket.paused {
                socket.readable = true;
                if broken {
                    self.drop_client(key);
                }
                return;
            }
            match socket.stream.read(&mut self.scratch) {
                Ok(0) => {
                    socket.readable = false;
                    return self.engine.client_ended(key);
                }
                Ok(n) => {
                    let drained = n < self.scratch.len() && !socket.ended;
                    let (engine, bytes) = (&mut self.engine, &self.scratch[..n]);
                    engine.counters.bytes_in += n as u64;
                    let Ok(more) = catch_unwind(AssertUnwindSafe(|| engine.client_input(key, bytes))) else {
                        tracing::error!("a client's request made Portico fail; the client is disconnected");
                        return self.drop_client(key);
                    };
                    let Some(socket) = self.clients.get_mut(key) else { return };
                    if !more {
                        socket.paused = true;
                        socket.readable = !drained;
                        return;
                    }
                    if drained {
                        return;
                    }
                    if self.began.elapsed() > TIME_OF_TURN {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return self.drop_client(key),
            }
        }
        self.again.push(client_token(key));
    }

    /// Reads a node until there is no more, the engine wants no more, or others have their turn.
    fn read_link(&mut self, key: LinkKey) {
        for _ in 0..READS_IN_A_ROW {
            let Some(socket) = self.links.get_mut(key) else { return };
            if socket.paused {
                socket.readable = true;
                return;
            }
            let listens = self.engine.link_mut(key).is_some_and(|link| link.lane == Lane::HUB);
            let most = if listens { PUSHES } else { SCRATCH };
            match socket.stream.read(&mut self.scratch[..most]) {
                Ok(0) => return self.drop_link(key),
                Ok(n) => {
                    let drained = n < most && !socket.ended;
                    let (engine, bytes) = (&mut self.engine, &self.scratch[..n]);
                    let Ok(more) = catch_unwind(AssertUnwindSafe(|| engine.link_input(key, bytes))) else {
                        self.links.remove(key);
                        return self.engine.link_failed(key);
                    };
                    let Some(socket) = self.links.get_mut(key) else { return };
                    if !more {
                        socket.paused = true;
                        socket.readable = true;
                        return;
                    }
                    if drained {
                        return;
                    }
                    if self.began.elapsed() > TIME_OF_TURN {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return self.drop_link(key),
            }
        }
        self.again.push(link_token(key));
    }

    /// A connection to a node stands, or could not be made.
    fn connected(&mut self, key: LinkKey) {
        let Some(socket) = self.links.get_mut(key) else { return };
        match socket.stream.is_connected() {
            Ok(true) => {
                socket.connected = true;
                let own =
                    socket.stream.local_address().map(|address| address.to_string()).unwrap_or_default();
                self.engine.link_open(key, own);
            }
            Ok(false) => {}
            Err(_) => self.drop_link(key),
        }
    }

    fn drop_client(&mut self, key: ClientKey) {
        self.engine.client_gone(key);
        self.forget_client(key);
    }

    fn forget_client(&mut self, key: ClientKey) {
        if let Some(mut socket) = self.clients.remove(key) {
            self.options.shared.load(self.options.worker).left();
            socket.stream.finish();
        }
    }

    fn drop_link(&mut self, key: LinkKey) {
        self.links.remove(key);
        self.engine.link_lost(key);
    }

    /// Writes what is queued, nodes first, and carries out what the engine asks for, until nothing is left to do.
    fn flush(&mut self) {
        loop {
            let mut links = std::mem::take(&mut self.dirty_links);
            self.engine.take_dirty_links(&mut links);
            links.iter().for_each(|&key| self.write_link(key));
            let mut clients = std::mem::take(&mut self.dirty_clients);
            self.engine.take_dirty_clients(&mut clients);
            clients.iter().for_each(|&key| self.write_client(key));
            let effects = self.engine.take_effects();
            let idle = links.is_empty() && clients.is_empty() && effects.is_empty();
            (self.dirty_links, self.dirty_clients) = (links, clients);
            effects.into_iter().for_each(|effect| self.carry_out(effect));
            if idle {
                return;
            }
        }
    }

    #[inline]
    fn write_link(&mut self, key: LinkKey) {
        let (Some(socket), Some(link)) = (self.links.get_mut(key), self.engine.link_mut(key)) else { return };
        link.dirty = false;
        while socket.writable && !link.pipe.unsent().is_empty() {
            let unsent = link.pipe.unsent();
            let wanted = unsent.len();
            match socket.stream.write(unsent) {
                Ok(n) => {
                    link.pipe.mark_sent(n);
                    socket.writable = n == wanted;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => socket.writable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return self.drop_link(key),
            }
        }
        if link.leased_to.is_some() {
            self.engine.link_sent(key);
        }
    }

    #[inline]
    fn write_client(&mut self, key: ClientKey) {
        let Some(socket) = self.clients.get_mut(key) else { return self.engine.agent_told(key) };
        let Some(client) = self.engine.client_mut(key) else { return };
        if client.flags.has(ClientFlags::AGENT) {
            return self.engine.agent_told(key); // it was closed in this turn
        }
        client.flags.clear(ClientFlags::DIRTY);
        let mut told = 0;
        if let Some(work) = client.work.as_deref() {
            let untold = &work.out[work.told..];
            while socket.writable && told < untold.len() {
                match socket.stream.write(&untold[told..]) {
                    Ok(n) => {
                        told += n;
                        socket.writable = told == untold.len();
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => socket.writable = false,
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(_) => return self.drop_client(key),
                }
            }
        }
        self.engine.counters.bytes_out += told as u64;
        self.engine.client_told(key, told);
    }

    pub(super) fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::OpenLink(key, address) => {
                let opened =
                    Stream::connect(address, self.options.config.tcp_keepalive).and_then(|mut stream| {
                        stream.register(self.poll.registry(), link_token(key))?;
                        Ok(stream)
                    });
                match opened {
                    Ok(stream) => {
                        self.links.insert(key, Socket::new(stream, false));
                    }
                    Err(error) => {
                        tracing::debug!(node = %address, %error, "cannot connect to a node");
                        self.engine.link_lost(key);
                    }
                }
            }
            Effect::CloseLink(key) => {
                self.links.remove(key);
            }
            Effect::CloseClient(key) => self.forget_client(key),
            Effect::ResumeClient(key) => {
                if let Some(socket) = self.clients.get_mut(key)
                    && std::mem::take(&mut socket.paused)
                    && socket.readable
                {
                    socket.readable = false;
                    self.again.push(client_token(key));
                }
            }
            Effect::ResumeLink(key) => {
                if let Some(socket) = self.links.get_mut(key) {
                    socket.paused = false;
                    self.again.push(link_token(key));
                }
            }
            Effect::Settings(config) => {
                self.options.listeners.iter().for_each(|listener| {
                    if let Err(error) = listener.set_keepalive(config.tcp_keepalive) {
                        tracing::warn!(%error, "cannot set tcp-keepalive");
                    }
                });
                crate::logging::set_level(config.loglevel);
                self.options.config = config;
            }
            Effect::Refresh => self.options.refresh.ask(),
            Effect::Gather(gather) => {
                for (worker, post) in self.options.posts.iter().enumerate() {
                    if !post.reaches(Message::Gather(gather.clone())) {
                        // It has ended, and has no clients.
                        self.options.shared.answered();
                        self.engine.gathered(gather.client, gather.seq, worker, b"");
                    }
                }
            }
            Effect::Tell(to, note) => self.options.posts[to].send(Message::Note(note)),
            Effect::Gathered { to, client, seq, answer } => {
                let worker = self.options.worker;
                self.options.posts[to].send(Message::Gathered { client, seq, worker, answer });
            }
        }
    }

    fn mail(&mut self) {
        while let Some(message) = self.options.mailbox.next() {
            match message {
                Message::Serve(handed) => self.serve(*handed),
                Message::Gather(gather) => self.engine.asked(&gather),
                Message::Gathered { client, seq, worker, answer } => {
                    self.engine.gathered(client, seq, worker, &answer);
                }
                Message::Note(note) => self.engine.noted(note),
                Message::Topology => {}
                Message::Stop => self.stop(),
            }
        }
    }

    /// Accepts nobody any more; what has reached this machine already is still served.
    fn stop(&mut self) {
        self.stopping = true;
        self.stop_by = Instant::now().checked_add(self.options.config.shutdown_timeout);
        self.options.listeners.clear();
        let keys: Vec<ClientKey> = self.clients.keys().collect();
        keys.into_iter().for_each(|key| self.read_client(key, false));
        self.engine.stop();
    }
}
