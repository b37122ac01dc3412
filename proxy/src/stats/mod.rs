//! What all workers share: numbers of clients, and counters that each worker writes alone and a reader adds up.

mod last_info;
mod pause;
mod seldom;
mod settings;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use pause::PauseCell;

pub use last_info::LastInfo;

pub use pause::Pause;
pub use seldom::Seldom;
pub use settings::Settings;

use crate::config::Config;
use crate::pubsub::{OwnAddresses, Registry};
use crate::scripts::Scripts;

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// What one worker counted since it began.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counters { $($(#[doc = $doc])+ pub $name: u64,)+ }

        #[derive(Debug, Default)]
        struct Published { $($name: AtomicU64,)+ }

        impl Published {
            fn set(&self, counters: &Counters) {
                $(self.$name.store(counters.$name, Ordering::Relaxed);)+
            }

            fn add_to(&self, sum: &mut Counters) {
                $(sum.$name += self.$name.load(Ordering::Relaxed);)+
            }
        }

        impl Counters {
            /// Each counter's name and value.
            pub fn named(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)+].into_iter()
            }
        }
    };
}

counters! {
    /// Requests taken from clients.
    requests,
    /// Connections accepted from clients.
    connections,
    /// Connections refused because of `maxclients`.
    rejected_connections,
    /// Errors that Portico itself answered with.
    errors,
    /// Clients closed for a malformed request.
    protocol_errors,
    /// Clients closed at `client-output-buffer-limit`.
    output_limit_disconnections,
    /// Clients closed at `client-query-buffer-limit`.
    query_limit_disconnections,
    /// MOVED answers followed.
    moved,
    /// ASK answers followed.
    asked,
    /// TRYAGAIN answers waited out.
    tryagain,
    /// Requests sent again, for whatever reason.
    retries,
    /// Writes answered with "outcome unknown".
    unknown_outcomes,
    /// Established connections to nodes that broke.
    connections_lost,
    /// Connections to nodes that were given up because the cluster missed the node.
    links_given_up,
    /// Connections to nodes that refused Portico's credentials.
    node_auth_failures,
    /// Scripts that a node was given before it was asked to run them.
    scripts_given,
    /// Requests streamed because of their size.
    large_requests,
    /// Replies passed on piece by piece because of their size.
    large_replies,
    /// Bytes received from clients.
    bytes_in,
    /// Bytes sent to clients.
    bytes_out,
}

/// One worker's published figures, on cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Slot {
    counters: Published,
    links: AtomicUsize,
    blocked: AtomicUsize,
    blocked_timed: AtomicUsize,
    unheard: AtomicUsize,
    load: Load,
}

/// How much one worker has to do.
#[derive(Debug, Default)]
pub struct Load {
    clients: AtomicUsize,
    busy: AtomicU32,
}

impl Load {
    /// How many clients are with it, or on their way to it.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.clients.load(Ordering::Relaxed)
    }

    /// How busy it was last, in thousandths of one core's time; up to a second old.
    #[must_use]
    pub fn busy(&self) -> u32 {
        self.busy.load(Ordering::Relaxed)
    }

    /// A client was given to it.
    pub fn came(&self) {
        self.clients.fetch_add(1, Ordering::Relaxed);
    }

    /// A client is not with it any more.
    pub fn left(&self) {
        self.clients.fetch_sub(1, Ordering::Relaxed);
    }

    /// How busy it was lately, in thousandths of one core's time.
    pub fn set_busy(&self, busy: u32) {
        self.busy.store(busy, Ordering::Relaxed);
    }
}

/// The sum over all workers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    /// Counters.
    pub counters: Counters,
    /// Connections to nodes.
    pub links: usize,
    /// Clients that wait.
    pub blocked: Blocked,
    /// Masters of whose keys those who listen to that hear nothing: the most of any worker.
    pub unheard: usize,
}

/// How many clients wait for something that may never come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Blocked {
    /// All of them: INFO's `blocked_clients`.
    pub all: usize,
    /// Those whose wait ends with a time: `clients_in_timeout_table`.
    pub timed: usize,
}

/// What all workers share.
#[derive(Debug)]
pub struct Shared {
    /// How many workers there are.
    pub workers: usize,
    /// When the process began.
    pub started: Instant,
    /// Identifies this process, as a server's `run_id` does: 40 hexadecimal digits.
    pub run_id: String,
    /// The port that clients connect to.
    pub port: u16,
    /// The scripts that clients sent.
    pub scripts: Scripts,
    /// Who listens to what.
    pub pubsub: Arc<Registry>,
    /// Where Portico's own connections come from, as the nodes see it.
    pub own_addresses: Arc<OwnAddresses>,
    /// Clients that are told of every command.
    pub monitors: AtomicUsize,
    /// What masters said of themselves last.
    pub last_info: LastInfo,
    /// When the process began, since 1970.
    began: Duration,
    /// Readings of the cluster's map.
    pub map_reads: MapReads,
    /// What CONFIG SET can change.
    pub settings: Settings,
    /// Logins that clients tried with the wrong user or password.
    pub failed_logins: Seldom,
    /// Clients that sent HTTP, as browsers do that are misused.
    pub attacks: Seldom,
    /// Clients that began to speak TLS.
    pub tls_hellos: Seldom,
    /// Connections that began with a PROXY protocol header.
    pub proxy_headers: Seldom,
    next_client: AtomicU64,
    stopping: AtomicBool,
    tracking: AtomicUsize,
    pause: PauseCell,
    /// Answers of workers that are still to be given to what one of them asked all.
    questions: AtomicUsize,
    slots: Box<[Slot]>,
}

/// Numbers the readings of the cluster's map, so that one can be waited for that begins later.
#[derive(Debug, Default)]
pub struct MapReads {
    begun: AtomicU64,
    done: AtomicU64,
}

impl MapReads {
    /// One begins; returns its number.
    pub fn begin(&self) -> u64 {
        self.begun.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// The one with this number has been published.
    pub fn end(&self, number: u64) {
        self.done.store(number, Ordering::SeqCst);
    }

    /// The number of the next to begin.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.begun.load(Ordering::SeqCst) + 1
    }

    /// Whether one with this number or a later one has been published.
    #[must_use]
    pub fn is_done(&self, number: u64) -> bool {
        self.done.load(Ordering::SeqCst) >= number
    }
}

impl Shared {
    /// For `workers` workers that begin with these settings. `started` and `began`: what the clock of intervals and that of
    /// dates say now.
    #[must_use]
    pub fn new(config: &Arc<Config>, workers: usize, started: Instant, began: SystemTime) -> Self {
        let began = began.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let seed = began.as_nanos() ^ u128::from(std::process::id()) << 64;
        let run_id = format!(
            "{:032x}{:08x}",
            seed.wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835),
            std::process::id()
        );
        Self {
            workers,
            started,
            run_id,
            port: config.port,
            scripts: Scripts::default(),
            pubsub: Arc::default(),
            own_addresses: Arc::default(),
            monitors: AtomicUsize::new(0),
            last_info: LastInfo::default(),
            began,
            map_reads: MapReads::default(),
            settings: Settings::new(Arc::clone(config)),
            failed_logins: Seldom::default(),
            attacks: Seldom::default(),
            tls_hellos: Seldom::default(),
            proxy_headers: Seldom::default(),
            next_client: AtomicU64::new(1),
            stopping: AtomicBool::new(false),
            tracking: AtomicUsize::new(0),
            pause: PauseCell::default(),
            questions: AtomicUsize::new(0),
            slots: (0..workers).map(|_| Slot::default()).collect(),
        }
    }

    /// A number that no client of this process had before.
    pub fn next_client_id(&self) -> u64 {
        self.next_client.fetch_add(1, Ordering::Relaxed)
    }

    /// Every worker's load, by number.
    pub fn loads(&self) -> impl Iterator<Item = &Load> {
        self.slots.iter().map(|slot| &slot.load)
    }

    /// A worker's load.
    ///
    /// # Panics
    /// There is no such worker.
    #[must_use]
    pub fn load(&self, worker: usize) -> &Load {
        &self.slots[worker].load
    }

    /// Connected clients.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.loads().map(Load::clients).sum()
    }

    /// The process was told to end: from now on no worker may be there any more.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
    }

    /// Whether the process was told to end.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// One more client tracks keys.
    pub fn tracking_began(&self) {
        self.tracking.fetch_add(1, Ordering::Relaxed);
    }

    /// One client less does.
    pub fn tracking_ended(&self) {
        self.tracking.fetch_sub(1, Ordering::Relaxed);
    }

    /// Clients that track keys.
    #[must_use]
    pub fn tracking_clients(&self) -> usize {
        self.tracking.load(Ordering::Relaxed)
    }

    /// What the time is, since 1970.
    #[must_use]
    pub fn time(&self, now: Instant) -> Duration {
        self.began + now.saturating_duration_since(self.started)
    }

    /// CLIENT PAUSE: requests wait for so long, all of them or those that may change something.
    pub fn pause(&self, now: Instant, time: Duration, all: bool) {
        self.pause.pause(self.started, now, time, all);
    }

    /// CLIENT UNPAUSE.
    pub fn unpause(&self) {
        self.pause.unpause();
    }

    /// What CLIENT PAUSE has wait.
    #[must_use]
    pub fn paused(&self, now: Instant) -> Option<Pause> {
        self.pause.get(self.started, now)
    }

    /// Every worker is about to be asked something. Meanwhile no client changes its worker, lest none of the two
    /// tell of it.
    pub fn ask_all(&self) {
        self.questions.fetch_add(self.workers, Ordering::SeqCst);
    }

    /// One worker has answered.
    pub fn answered(&self) {
        self.questions.fetch_sub(1, Ordering::SeqCst);
    }

    /// Whether a worker still has to answer what all were asked.
    #[must_use]
    pub fn is_asking(&self) -> bool {
        self.questions.load(Ordering::SeqCst) > 0
    }

    /// A worker tells its figures.
    pub fn publish(&self, worker: usize, counters: &Counters, links: usize) {
        if let Some(slot) = self.slots.get(worker) {
            slot.counters.set(counters);
            slot.links.store(links, Ordering::Relaxed);
        }
    }

    /// Of how many masters a worker does not hear what it should of their keys, whenever that changes.
    pub fn set_unheard(&self, worker: usize, masters: usize) {
        if let Some(slot) = self.slots.get(worker) {
            slot.unheard.store(masters, Ordering::Relaxed);
        }
    }

    /// How many of a worker's clients wait, whenever that changes.
    pub fn set_blocked(&self, worker: usize, blocked: Blocked) {
        if let Some(slot) = self.slots.get(worker) {
            slot.blocked.store(blocked.all, Ordering::Relaxed);
            slot.blocked_timed.store(blocked.timed, Ordering::Relaxed);
        }
    }

    /// Everybody's figures, as of at most a second ago.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for slot in &self.slots {
            slot.counters.add_to(&mut totals.counters);
            totals.links += slot.links.load(Ordering::Relaxed);
            totals.blocked.all += slot.blocked.load(Ordering::Relaxed);
            totals.blocked.timed += slot.blocked_timed.load(Ordering::Relaxed);
            totals.unheard = totals.unheard.max(slot.unheard.load(Ordering::Relaxed));
        }
        totals
    }
}
