//! One worker's core, without sockets or a clock: clients' bytes in, nodes' bytes out, and the other way round.
//!
//! The shell (`worker`) reads sockets into [`Engine::client_input`] and [`Engine::link_input`], ends each turn with
//! [`Engine::end_turn`], writes what is dirty, and carries out the [`Effect`]s. Everything that decides anything is
//! here or below, so that it is tested and measured without a socket.

mod agents;
mod block;
mod caching;
mod dispatch;
mod download;
mod exec;
mod fan;
mod farewells;
mod gather;
mod guard;
mod hear;
mod hub;
mod impatient;
mod info;
mod intake;
mod invalidate;
mod lanes;
mod link;
mod links;
mod locally;
mod long_scripts;
mod look;
mod marks;
mod monitor;
mod pause;
mod pubsub;
mod quiet;
mod receive;
mod retry;
mod scan;
mod script_rules;
mod scripts;
mod send;
mod server;
mod settings;
mod strangers;
#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test's time begins at any instant")]
mod tests;
#[cfg(test)]
mod tests_scripts;
mod tracking;
mod transactions;
mod turn;
mod upload;
mod wait;
mod waiting;
mod who;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portico_resp::{Limits, Protocol, RequestScanner};
use portico_slots::NodeId;
use slotmap::SlotMap;

use crate::backend::{ClientKey, Credentials, Fence, Lane, LinkKey};
use crate::config::Config;
use crate::plan::Split;
use crate::pubsub::Hub;
use crate::session::{About, Client, ClientFlags, Fan, Unblock, Work};
use crate::stats::{Counters, Pause, Shared};
use crate::topology::Cluster;

pub use link::{Link, LinkState};
pub use marks::Withdrawn;

/// A bulk longer than this is streamed and not kept, in bytes; likewise a reply.
pub const LARGE: usize = 1 << 20;

/// What the shell has to do for the engine.
#[derive(Debug)]
pub enum Effect {
    /// Open a connection to a node; answer with `link_open` or `link_lost`.
    OpenLink(LinkKey, SocketAddr),
    /// Close a connection to a node; the engine has forgotten it.
    CloseLink(LinkKey),
    /// Close a client's connection; the engine has forgotten it.
    CloseClient(ClientKey),
    /// Read on from a client from which nothing was read for a while.
    ResumeClient(ClientKey),
    /// Read on from a node from which nothing was read for a while.
    ResumeLink(LinkKey),
    /// The settings have changed to these.
    Settings(Arc<Config>),
    /// Ask the refresher for the map.
    Refresh,
    /// Ask every worker for its part of something: `asked`; they answer with `gathered`.
    Gather(Gather),
    /// Tell another worker something about a client of its own.
    Tell(usize, Note),
    /// This worker's answer to what another one asked.
    Gathered {
        /// Who asked.
        to: usize,
        /// The client that asked it.
        client: ClientKey,
        /// The request's number.
        seq: u32,
        /// The answer.
        answer: Vec<u8>,
    },
}

/// A question to all workers on behalf of a client.
#[derive(Clone, Debug)]
pub struct Gather {
    /// The worker that asks.
    pub worker: usize,
    /// The client that asked it.
    pub client: ClientKey,
    /// The request's number.
    pub seq: u32,
    /// What it asks.
    pub question: Arc<Question>,
}

/// What one worker tells another, about a client of that one.
#[derive(Clone, Debug)]
pub enum Note {
    /// Keys are not what they were: for a client in whose place another tracks.
    Invalid {
        /// Who is told.
        hearer: ClientKey,
        /// Who tracks, and its worker.
        tracker: (usize, ClientKey),
        /// An array of keys, or null for all.
        keys: Vec<u8>,
    },
    /// The client that is told in this one's place has gone.
    Broken(ClientKey),
    /// A command of a client there, as MONITOR tells of it.
    Shown(Arc<[u8]>),
}

/// What one worker asks all of them, itself included.
#[derive(Clone, Debug)]
pub enum Question {
    /// CLIENT LIST: the lines of those that a filter admits.
    List {
        /// Which.
        filter: crate::local::ClientFilter,
        /// Who asks.
        asks: u64,
        /// How long the request is, and its arguments alone, in bytes.
        query: (usize, usize),
    },
    /// CLIENT KILL: those that a filter admits are closed.
    Kill {
        /// Which.
        filter: crate::local::ClientFilter,
        /// Who asks; closed only after the reply.
        me: u64,
        /// By its address alone: answered with OK or an error, not with a number.
        old_form: bool,
    },
    /// CONFIG SET: settings that all workers share have changed.
    Settings,
    /// CONFIG RESETSTAT.
    ResetStat,
    /// CLIENT PAUSE and UNPAUSE: what all workers share has changed.
    Pause,
    /// MONITOR: somebody is told of every command from now on.
    Monitor,
    /// CLIENT UNBLOCK: of the client with this number.
    Unblock(u64, Unblock),
    /// CLIENT TRACKING REDIRECT: whose client it is. It stays there.
    Hearer(u64),
}

/// Buffers that nobody uses now, so that work finds them warm and idle connections need none.
#[derive(Default)]
struct Pool {
    #[expect(clippy::vec_box, reason = "a pool of boxes that move into and out of clients")]
    works: Vec<Box<Work>>,
    #[expect(clippy::vec_box, reason = "a pool of boxes that move into and out of clients")]
    scanners: Vec<Box<RequestScanner>>,
    #[expect(clippy::vec_box, reason = "a pool of boxes that move into and out of clients")]
    fans: Vec<Box<Fan>>,
}

impl Pool {
    const MOST: usize = 256;

    fn give_work(&mut self, mut work: Box<Work>) {
        debug_assert!(
            work.is_done() && work.fans.is_empty() && work.parked.is_empty(),
            "it is still somebody's"
        );
        if self.works.len() < Self::MOST {
            work.trim();
            self.works.push(work);
        }
    }

    fn give_scanner(&mut self, scanner: Box<RequestScanner>) {
        if self.scanners.len() < Self::MOST {
            self.scanners.push(scanner);
        }
    }
}

/// One worker's core.
pub struct Engine {
    config: Arc<Config>,
    /// What all workers share.
    pub shared: Arc<Shared>,
    worker: usize,
    credentials: Credentials,
    cluster: Arc<Cluster>,
    clients: SlotMap<ClientKey, Client>,
    links: SlotMap<LinkKey, Link>,
    /// For each lane, the connection to each node that takes new requests; null where there is none.
    routes: Vec<Vec<LinkKey>>,
    lanes: Vec<lanes::LaneState>,
    /// Lanes that can be leased.
    spare_lanes: marks::SpareLanes,
    marks: marks::Marks,
    /// Connections whose wait was ended, until their mark has come back.
    withdrawn: Vec<LinkKey>,
    /// Clients with one of these are looked at before a request is sent.
    look: ClientFlags,
    /// CLIENT PAUSE, while it lasts.
    pause: Option<Pause>,
    /// Clients whose next request waits for its end.
    paused: Vec<ClientKey>,
    /// Something may be outstanding on a connection to a node.
    watchful: bool,
    /// A slot is being moved: look before sending.
    guarded: bool,
    /// Slots that a redirect showed to be open, until the map says so or this time has passed.
    opened: HashMap<u16, Instant>,
    pool: Pool,
    dirty_links: Vec<LinkKey>,
    dirty_clients: Vec<ClientKey>,
    /// Clients to be looked at again at the end of the turn.
    awoken: Vec<ClientKey>,
    /// Clients that wait for something that may never come.
    waiting: waiting::Waiting,
    next_look: Instant,
    hub: Hub,
    /// Not everything is subscribed where it has to be.
    hub_anxious: bool,
    next_review: Instant,
    /// Masters of whose keys those who listen to that hear nothing.
    unheard: BTreeSet<NodeId>,
    /// The map is being read again for the hub.
    fresh_map: Option<hub::FreshMap>,
    /// When it was last.
    map_read: Instant,
    farewells: farewells::Farewells,
    /// What clients that have gone listened to.
    departed: farewells::Departed,
    /// Who hears a message, while it is told.
    listeners: Vec<ClientKey>,
    /// Clients that hold more are looked at, in bytes.
    output_watch: u64,
    /// Clients that are told of every command, and those that will be.
    monitors: BTreeSet<ClientKey>,
    monitor_waiters: BTreeSet<ClientKey>,
    /// Somebody in the process is told of every command.
    shown: bool,
    /// Addresses that connections to nodes had, and when they were closed.
    closed: Vec<(Instant, String)>,
    /// A redirect was seen: they may wait at the wrong place.
    look_at_waiting: bool,
    /// Clients that track keys.
    trackers: HashSet<ClientKey>,
    /// Clients whose CLIENT TRACKING is not answered yet.
    enabling: HashMap<ClientKey, tracking::Enabling>,
    /// Clients to be told that nothing they have cached is valid, and when.
    flushing: BTreeSet<(Instant, ClientKey)>,
    /// What goes before each part of the request that is just being sent.
    prefix: &'static [u8],
    /// Clients whose next request waits.
    stalled: Vec<ClientKey>,
    questions: impatient::Questions,
    /// Clients that had their share of this turn.
    tired: Vec<ClientKey>,
    /// What the requests of the client that is being served have taken, about as many as a simple one takes.
    spent: usize,
    /// Whose reply is being handled, or was last.
    answering: ClientKey,
    /// Clients with requests to be sent again.
    retrying: Vec<ClientKey>,
    /// Clients whose large request waits for a connection.
    uploading: Vec<ClientKey>,
    orphans: Vec<retry::Orphan>,
    /// Connections that their successors have to kill.
    fences: HashMap<NodeId, Vec<Fence>>,
    backoffs: HashMap<(NodeId, Lane), links::Backoff>,
    effects: Vec<Effect>,
    refresh_wanted: bool,
    now: Instant,
    next_tick: Instant,
    next_check: Instant,
    next_housekeeping: Instant,
    split: Split,
    script_memory: scripts::Memory,
    pace: long_scripts::Pace,
    positions: Vec<u32>,
    made: Vec<u8>,
    limits: Limits,
    stopping: bool,
    /// What this worker counted.
    pub counters: Counters,
}

impl Engine {
    /// An engine without clients.
    #[must_use]
    pub fn new(
        config: Arc<Config>,
        shared: Arc<Shared>,
        worker: usize,
        cluster: Arc<Cluster>,
        now: Instant,
    ) -> Self {
        let limits = Limits {
            max_bulk_len: config.proto_max_bulk_len,
            large_bulk: LARGE as u64,
            authenticated: true,
            ..Limits::default()
        };
        let credentials = Credentials {
            username: config.node_username.as_deref().map(Arc::from),
            password: config.node_password.as_ref().map(|secret| Arc::from(secret.expose())),
        };
        let hub = Hub::new(Arc::clone(&shared.pubsub));
        let output_watch = config.client_output_buffer_limit.harmless();
        let mut engine = Self {
            config,
            shared,
            worker,
            credentials,
            cluster: Arc::clone(&cluster),
            clients: SlotMap::with_key(),
            links: SlotMap::with_key(),
            routes: Vec::new(),
            lanes: Vec::new(),
            spare_lanes: marks::SpareLanes::default(),
            marks: marks::Marks::default(),
            withdrawn: Vec::new(),
            look: ClientFlags::LOOKED_AT,
            pause: None,
            paused: Vec::new(),
            watchful: false,
            guarded: false,
            opened: HashMap::new(),
            pool: Pool::default(),
            dirty_links: Vec::new(),
            dirty_clients: Vec::new(),
            awoken: Vec::new(),
            waiting: waiting::Waiting::default(),
            next_look: now,
            hub,
            hub_anxious: false,
            next_review: now,
            unheard: BTreeSet::new(),
            fresh_map: None,
            map_read: now.checked_sub(Duration::from_secs(1)).unwrap_or(now),
            farewells: farewells::Farewells::default(),
            departed: farewells::Departed::default(),
            listeners: Vec::new(),
            output_watch,
            monitors: BTreeSet::new(),
            monitor_waiters: BTreeSet::new(),
            shown: false,
            closed: Vec::new(),
            look_at_waiting: false,
            trackers: HashSet::new(),
            enabling: HashMap::new(),
            flushing: BTreeSet::new(),
            prefix: b"",
            stalled: Vec::new(),
            questions: impatient::Questions::default(),
            tired: Vec::new(),
            spent: 0,
            answering: ClientKey::default(),
            retrying: Vec::new(),
            uploading: Vec::new(),
            orphans: Vec::new(),
            fences: HashMap::new(),
            backoffs: HashMap::new(),
            effects: Vec::new(),
            refresh_wanted: false,
            now,
            next_tick: now,
            next_check: now,
            next_housekeeping: now,
            split: Split::default(),
            script_memory: scripts::Memory::default(),
            pace: long_scripts::Pace::default(),
            positions: Vec::new(),
            made: Vec::new(),
            limits,
            stopping: false,
            counters: Counters::default(),
        };
        engine.found_lanes();
        engine.adopt(cluster);
        engine.look_at_pause();
        engine
    }

    /// A client that has just connected.
    #[must_use]
    pub fn new_client(&self, about: About) -> Client {
        let mut flags = ClientFlags::default();
        if self.config.requirepass.is_none() {
            flags.set(ClientFlags::AUTHENTICATED);
        }
        Client {
            id: self.shared.next_client_id(),
            flags,
            lane: Lane::shared(Protocol::Resp2),
            written: 0,
            writes: 0,
            multi_key: 0,
            in_flight: 0,
            typical: Client::UNKNOWN,
            write_link: LinkKey::default(),
            stall: None,
            heard: self.seconds(),
            last_command: "NULL",
            work: None,
            standing: None,
            about: Box::new(about),
        }
    }

    /// This worker's from now on.
    pub fn add_client(&mut self, client: Client) -> ClientKey {
        self.clients.insert(client)
    }

    /// Gives a client away, if it is between two requests and nothing is known of it but what it is.
    /// Comes with the map that what it has written to is told by ([`Engine::take_over`]).
    pub fn release(&mut self, key: ClientKey) -> Option<(Client, Arc<Cluster>)> {
        const LASTING: ClientFlags = ClientFlags::AUTHENTICATED
            .with(ClientFlags::RESP3)
            .with(ClientFlags::NO_EVICT)
            .with(ClientFlags::NO_TOUCH);
        if self.shared.is_asking() {
            return None; // it would be missed, or told of twice
        }
        let client = self.clients.get(key)?;
        let free = client.work.is_none()
            && client.in_flight == 0
            && client.standing.is_none()
            && !client.lane.is_leased()
            && !client.flags.any(LASTING.inverse());
        let client = if free { self.clients.remove(key) } else { None };
        client.map(|client| (client, Arc::clone(&self.cluster)))
    }

    /// How many clients sent something during the last second or two.
    #[must_use]
    pub fn active_clients(&self) -> usize {
        let since = self.seconds().saturating_sub(1);
        self.clients().filter(|(_, client)| client.heard >= since).count()
    }

    /// How many clients this worker has.
    #[must_use]
    pub fn client_count(&self) -> usize {
        self.clients.len()
    }

    /// All clients but Portico's own.
    pub fn clients(&self) -> impl Iterator<Item = (ClientKey, &Client)> {
        self.clients.iter().filter(|(_, client)| !client.flags.has(ClientFlags::AGENT))
    }

    /// A client's connection ended or broke: what it still had outstanding is answered to nobody.
    pub fn client_gone(&mut self, key: ClientKey) {
        self.forget_trial(key);
        self.forget_tracking(key);
        self.enabling.remove(&key);
        if self.clients.get(key).is_some_and(|client| client.standing.is_some()) {
            self.stop_listening(key);
        }
        if self.clients.get(key).is_some_and(Client::is_paused) {
            self.waiting.go_on(1);
        }
        if self.clients.get(key).is_some_and(Client::is_waiting) && self.cancel_block(key) {
            return;
        }
        self.leave_all(key);
        self.give_up_task(key);
        if let Some(mut client) = self.clients.remove(key) {
            self.abandon_upload(&mut client);
            if let Some(work) = client.work.take() {
                if client.flags.has(ClientFlags::PASSING) {
                    self.resume_throttled(key);
                }
                // Its queue may be long and its buffers large: not for the pool.
                drop(work);
            }
        }
    }

    /// Closes a client's connection.
    pub(super) fn close_client(&mut self, key: ClientKey) {
        if self.clients.contains_key(key) {
            self.client_gone(key);
            self.effects.push(Effect::CloseClient(key));
        }
    }

    /// Seconds since the engine's process began.
    fn seconds(&self) -> u32 {
        self.now.saturating_duration_since(self.shared.started).as_secs() as u32
    }

    /// What the shell has to do.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// Connections to nodes with something to write; the shell writes them and clears each one's mark.
    pub fn take_dirty_links(&mut self, into: &mut Vec<LinkKey>) {
        self.watchful |= !self.dirty_links.is_empty();
        into.clear();
        std::mem::swap(into, &mut self.dirty_links);
    }

    /// Clients with something to be told; the shell writes them and calls [`Engine::client_told`].
    pub fn take_dirty_clients(&mut self, into: &mut Vec<ClientKey>) {
        into.clear();
        std::mem::swap(into, &mut self.dirty_clients);
    }

    /// The connection `key`, while it lives.
    pub fn link_mut(&mut self, key: LinkKey) -> Option<&mut Link> {
        self.links.get_mut(key)
    }

    /// The client `key`, while it lives.
    pub fn client_mut(&mut self, key: ClientKey) -> Option<&mut Client> {
        self.clients.get_mut(key)
    }

    fn mark_client(&mut self, key: ClientKey) {
        if let Some(client) = self.clients.get_mut(key)
            && client.flags.set(ClientFlags::DIRTY)
        {
            self.dirty_clients.push(key);
        }
    }

    fn after(&self, wait: Duration) -> Instant {
        self.now + wait
    }
}
