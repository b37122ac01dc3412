//! Keeps the snapshot true: asks several nodes for the map, merges what they say, tells the workers.
//!
//! One refresh at a time; what is asked for during one is one more. A refresh asks every master that is known (and
//! the seeds while none is), and does not wait for those who are slower than the rest: a paused node must not hold up
//! the news of its own replacement.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use portico_slots::{Address, NodeId, Topology, View, diff, merge, parse};
use redis_protocol::resp2::types::BytesFrame;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::control::{About, Control};
use super::{Cluster, SharedCluster};
use crate::backend::Credentials;
use crate::command::{Table, parse_command_reply};
use crate::config::Config;
use crate::pubsub::OwnAddresses;
use crate::stats::Shared;

/// Masters asked in one refresh, at most; in larger clusters others have their turn at the next.
const MOST_ASKED: usize = 64;
/// Once half of the nodes have answered, the others have this long.
const STRAGGLERS: Duration = Duration::from_millis(100);
/// While something is amiss (no map, uncovered slots), the map is asked for this often.
const ANXIOUS: Duration = Duration::from_millis(250);

/// Asks for a refresh from any thread; many requests are one.
#[derive(Clone, Debug, Default)]
pub struct RefreshRequests(Arc<Notify>);

impl RefreshRequests {
    /// The map may be wrong.
    pub fn ask(&self) {
        self.0.notify_one();
    }
}

/// Keeps the snapshot true.
pub struct Refresher {
    config: Arc<Config>,
    credentials: Credentials,
    cluster: Arc<SharedCluster>,
    requests: RefreshRequests,
    shared: Arc<Shared>,
    /// Tells the workers.
    published: Box<dyn Fn() + Send>,
    controls: HashMap<Address, Control>,
    learned_from: HashSet<String>,
    trouble: Option<String>,
    turn: usize,
}

type Answer = (Address, io::Result<(Control, View)>);

impl Refresher {
    /// A refresher that publishes to `cluster` and then calls `published`.
    #[must_use]
    pub fn new(
        config: Arc<Config>,
        cluster: Arc<SharedCluster>,
        requests: RefreshRequests,
        shared: Arc<Shared>,
        published: Box<dyn Fn() + Send>,
    ) -> Self {
        let credentials = Credentials {
            username: config.node_username.as_deref().map(Arc::from),
            password: config.node_password.as_ref().map(|secret| Arc::from(secret.expose())),
        };
        Self {
            config,
            credentials,
            cluster,
            requests,
            shared,
            published,
            controls: HashMap::new(),
            learned_from: HashSet::new(),
            trouble: None,
            turn: 0,
        }
    }

    /// Refreshes on request, debounced, and every `refresh-interval`. Ends with its task.
    pub async fn run(mut self) {
        loop {
            let begun = Instant::now();
            self.refresh().await;
            let topology = &self.cluster.load().topology;
            let whole = topology.covered() == portico_slots::SLOT_COUNT;
            let pause =
                if whole { self.config.refresh_interval } else { ANXIOUS.min(self.config.refresh_interval) };
            tokio::select! {
                () = sleep_until(begun + pause) => {}
                () = self.requests.0.notified() => sleep_until(begun + self.config.refresh_debounce).await,
            }
        }
    }

    async fn refresh(&mut self) {
        let number = self.shared.map_reads.begin();
        let addresses = self.candidates();
        let views = self.ask(addresses).await;
        if views.is_empty() {
            return self.report("no node answers CLUSTER NODES".to_owned());
        }
        let map = self.config.node_address_map.clone();
        let merged = match merge(&views, &|address| map.map(address)) {
            Ok(topology) => topology,
            Err(error) => return self.report(error.to_string()),
        };
        let run_ids = self.run_ids(&views);
        let current = self.cluster.load_full();
        let topology = merged.with_run_ids(&run_ids);
        if is_stale(&current.topology, &topology, views.len()) {
            return self
                .report("a minority of the nodes answers, with an older map: not believed".to_owned());
        }
        self.trouble = None;
        self.publish(&current, topology).await;
        self.shared.map_reads.end(number);
        self.tell_settings();
    }

    /// Whom to ask: all masters, or turn by turn as many as may be asked; the seeds while there are none, and now
    /// and then besides, so that a map that went wrong heals.
    fn candidates(&mut self) -> BTreeSet<Address> {
        let cluster = self.cluster.load();
        let topology = &cluster.topology;
        let masters = topology.masters();
        self.turn = self.turn.wrapping_add(MOST_ASKED.min(masters.len()));
        let mut candidates: BTreeSet<Address> = (0..MOST_ASKED.min(masters.len()))
            .map(|i| masters[(self.turn + i) % masters.len()])
            .map(|master| topology.node(master).address.clone())
            .collect();
        // A replica knows of its own promotion before anybody asks its master's peers.
        let ailing = masters.iter().filter(|&&master| {
            let node = topology.node(master);
            node.failed || node.suspected || !self.controls.contains_key(&node.address)
        });
        let replicas = ailing.flat_map(|&master| topology.replicas_of(master)).take(MOST_ASKED);
        candidates.extend(replicas.map(|replica| topology.node(replica).address.clone()));
        if candidates.len() < 3 {
            candidates.extend(self.config.nodes.iter().cloned());
            candidates.extend(topology.nodes().iter().map(|node| node.address.clone()).take(MOST_ASKED));
        }
        candidates
    }

    /// Asks them all at once; returns what was answered in time.
    async fn ask(&mut self, addresses: BTreeSet<Address>) -> Vec<View> {
        let asked = addresses.len();
        let begun = Instant::now();
        let mut deadline = begun + self.config.connect_timeout;
        let mut questions: JoinSet<Answer> = JoinSet::new();
        for address in addresses {
            let control = self.controls.remove(&address);
            let credentials = self.credentials.clone();
            let own = Arc::clone(&self.shared.own_addresses);
            questions.spawn(async move {
                let answer = ask_one(address.clone(), control, &credentials, &own).await;
                (address, answer)
            });
        }
        let mut views = Vec::new();
        while let Ok(Some(answer)) = timeout_at(deadline, questions.join_next()).await {
            let Ok((address, answer)) = answer else { continue };
            match answer {
                Ok((control, view)) => {
                    self.controls.insert(address, control);
                    views.push(view);
                }
                Err(error) => tracing::debug!(%address, %error, "a node does not tell its map"),
            }
            if views.len() * 2 >= asked {
                deadline = deadline.min(Instant::now() + STRAGGLERS);
            }
        }
        views
    }

    /// Nodes that were not there when clients set something with CONFIG SET are told it. The map does not wait for that.
    fn tell_settings(&self) {
        let cluster = self.cluster.load();
        for node in cluster.topology.nodes().iter().filter(|node| !node.failed) {
            let name = node.process().to_owned();
            let missing = self.shared.settings.missing_at(&name);
            if missing.is_empty() {
                continue;
            }
            self.shared.settings.told(&name, true); // it is not told twice at the same time
            let (address, credentials) = (node.address.clone(), self.credentials.clone());
            let (shared, limit) = (Arc::clone(&self.shared), Instant::now() + self.config.connect_timeout);
            tokio::spawn(async move {
                let telling = tell_node(address.clone(), &credentials, &shared.own_addresses, &missing);
                match timeout_at(limit, telling).await {
                    Ok(Ok(())) => {
                        tracing::info!(%address, settings = missing.len(), "told what CONFIG SET had set");
                    }
                    Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidInput => {
                        tracing::warn!(%address, %error, "a node does not take what CONFIG SET had set");
                    }
                    _ => shared.settings.told(&name, false),
                }
            });
        }
    }

    fn run_ids(&self, views: &[View]) -> HashMap<NodeId, String> {
        let by_address = |view: &View| self.controls.get(&view.asked)?.about.run_id.clone();
        let mut run_ids: HashMap<NodeId, String> =
            views.iter().filter_map(|view| Some((view.myself, by_address(view)?))).collect();
        // Who was not asked this time is still who it was.
        for node in self.cluster.load().topology.nodes() {
            if let Some(run_id) = &node.run_id {
                run_ids.entry(node.id).or_insert_with(|| run_id.clone());
            }
        }
        run_ids
    }

    async fn publish(&mut self, current: &Arc<Cluster>, topology: Topology) {
        let changes = diff(&current.topology, &topology);
        let sockets = self.resolve(&topology).await;
        let table = self.learn(&current.table).await;
        let abouts = || self.controls.values().map(|control| &control.about);
        let version = abouts().filter_map(|about| about.version.as_deref()).min_by_key(|version| {
            version.split('.').map(|part| part.parse::<u32>().unwrap_or(0)).collect::<Vec<_>>()
        });
        let version = version.map_or_else(|| Arc::clone(&current.version), Arc::from);
        let timeout = abouts().filter_map(|about: &About| about.timeout).min();
        let ping_interval =
            timeout.map_or(Duration::from_secs(10), |timeout| (timeout / 2).min(Duration::from_secs(10)));
        let health = |topology: &Topology| -> Vec<(bool, bool)> {
            topology.nodes().iter().map(|node| (node.failed, node.suspected)).collect()
        };
        let same = changes.is_empty()
            && current.sockets == sockets
            && current.version == version
            && Arc::ptr_eq(&current.table, &table)
            && current.ping_interval == ping_interval
            && health(&current.topology) == health(&topology);
        if same {
            return;
        }
        if !changes.is_empty() {
            tracing::info!(
                masters = topology.masters().len(),
                slots = topology.covered(),
                "topology: {changes}"
            );
        }
        let known: HashSet<&Address> = topology.nodes().iter().map(|node| &node.address).collect();
        self.controls.retain(|address, _| known.contains(address));
        self.cluster.store(Arc::new(Cluster { topology, sockets, version, table, ping_interval }));
        (self.published)();
    }

    /// Where to connect to each node. Names that do not resolve now are tried again at the next refresh.
    async fn resolve(&self, topology: &Topology) -> Vec<Option<SocketAddr>> {
        let mut sockets = Vec::new();
        for node in topology.nodes() {
            let Address { host, port } = &node.address;
            sockets.push(match host.parse() {
                Ok(ip) => Some(SocketAddr::new(ip, *port)),
                Err(_) => match tokio::net::lookup_host((host.as_str(), *port)).await {
                    // IPv4 first: what a name means besides is often not listened on.
                    Ok(found) => found.min_by_key(SocketAddr::is_ipv6),
                    Err(error) => {
                        tracing::warn!(%host, %error, "a node's hostname does not resolve");
                        None
                    }
                },
            });
        }
        sockets
    }

    /// Adds to the table what a node of a version that was not asked before has and the table has not.
    async fn learn(&mut self, table: &Arc<Table>) -> Arc<Table> {
        let fresh = self.controls.values_mut().find(|control| {
            control.about.version.as_ref().is_some_and(|version| !self.learned_from.contains(version))
        });
        let Some(control) = fresh else { return Arc::clone(table) };
        let version = control.about.version.clone().unwrap_or_default();
        let limit = Instant::now() + self.config.connect_timeout;
        let Ok(Ok(reply)) = timeout_at(limit, control.call(&["COMMAND"])).await else {
            return Arc::clone(table);
        };
        self.learned_from.insert(version.clone());
        let mut richer = Table::clone(table);
        match richer.learn(&parse_command_reply(&reply)) {
            0 => Arc::clone(table),
            learned => {
                tracing::info!(learned, version, "learned commands from the cluster");
                Arc::new(richer)
            }
        }
    }

    /// Says what is amiss, once.
    fn report(&mut self, trouble: String) {
        if self.trouble.as_ref() != Some(&trouble) {
            tracing::warn!("topology: {trouble}");
            self.trouble = Some(trouble);
        }
    }
}

async fn ask_one(
    address: Address,
    control: Option<Control>,
    credentials: &Credentials,
    own_addresses: &OwnAddresses,
) -> io::Result<(Control, View)> {
    if let Some(mut control) = control
        && let Ok(text) = control.ask(&["CLUSTER", "NODES"]).await
    {
        return view(control, &text);
    }
    let mut control = Control::open(address, credentials, own_addresses).await?;
    let text = control.ask(&["CLUSTER", "NODES"]).await?;
    view(control, &text)
}

/// Sets at a node what was set at the others; one by one, as servers before 7.0 take it.
async fn tell_node(
    address: Address,
    credentials: &Credentials,
    own_addresses: &OwnAddresses,
    settings: &[(String, Vec<u8>)],
) -> io::Result<()> {
    let mut control = Control::open(address, credentials, own_addresses).await?;
    let mut refused = None;
    for (name, value) in settings {
        if let BytesFrame::Error(error) =
            control.command(&[b"CONFIG", b"SET", name.as_bytes(), value]).await?
        {
            refused = Some(io::Error::new(io::ErrorKind::InvalidInput, error.to_string()));
        }
    }
    refused.map_or(Ok(()), Err)
}

fn view(control: Control, text: &str) -> io::Result<(Control, View)> {
    let view = parse(text, &control.address)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
    Ok((control, view))
}

/// Whether a map that takes slots from newer owners comes from a minority: a partitioned node, cut off with us.
fn is_stale(old: &Topology, new: &Topology, answered: usize) -> bool {
    if answered * 2 > old.masters().len() {
        return false;
    }
    (0..portico_slots::SLOT_COUNT).any(|slot| match (old.owner(slot), new.owner(slot)) {
        (Some(before), Some(after)) => {
            let (before, after) = (old.node(before), new.node(after));
            before.id != after.id && after.config_epoch < before.config_epoch
        }
        (Some(_), None) => true,
        _ => false,
    })
}
