//! Keeps the snapshot true: asks several nodes for the map, merges what they say, tells the workers.
//!
//! One refresh at a time; what is asked for during one is one more. A refresh asks every master that is known (and the
//! seeds too while something is amiss, whose names may lead elsewhere by now), and does not wait for those who are slower
//! than the rest: a paused node must not hold up the news of its own replacement.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use portico_slots::{Address, NodeId, SLOT_COUNT, Topology, View, diff, merge, parse};
use redis_protocol::resp2::types::BytesFrame;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::chronicle::Chronicle;
use super::control::{About, Control};
use super::{Cluster, Identity, SharedCluster, Trouble};
use crate::backend::Credentials;
use crate::command::{Table, parse_command_reply};
use crate::config::Config;
use crate::pubsub::OwnAddresses;
use crate::scripts::parse_function_list;
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
    chronicle: Chronicle,
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
            chronicle: Chronicle::new(Instant::now()),
            turn: 0,
        }
    }

    /// Refreshes on request, debounced, and every `refresh-interval`. Ends with its task.
    pub async fn run(mut self) {
        loop {
            let begun = Instant::now();
            self.refresh().await;
            let calm = self.chronicle.is_calm();
            let pause =
                if calm { self.config.refresh_interval } else { ANXIOUS.min(self.config.refresh_interval) };
            let due = self.chronicle.due(&self.cluster.load().topology);
            let mut next = due.map_or(begun + pause, |due| due.min(begun + pause));
            let requests = Arc::clone(&self.requests.0);
            while tokio::select! {
                () = sleep_until(next) => false,
                () = requests.notified() => true,
            } {
                next = next.min(begun + self.config.refresh_debounce);
                if self.shared.scripts.functions.have_changed() {
                    self.list_functions().await; // who loads a function calls it next
                }
            }
        }
    }

    async fn refresh(&mut self) {
        let number = self.shared.map_reads.begin();
        match self.read_map().await {
            Ok(()) => {
                self.list_functions().await;
                self.shared.map_reads.end(number);
                self.tell_settings();
            }
            Err(why) => self.chronicle.no_map(why, Instant::now()),
        }
        self.chronicle.look(&self.cluster.load().topology, Instant::now());
    }

    /// Has a node list the functions, if somebody wants to know.
    async fn list_functions(&mut self) {
        let Some(doubts) = self.shared.scripts.functions.doubts() else { return };
        let limit = Instant::now() + self.config.connect_timeout;
        let mut listed = None;
        let mut silent = Vec::new();
        for (address, control) in &mut self.controls {
            match timeout_at(limit, control.call(&["FUNCTION", "LIST", "WITHCODE"])).await {
                Ok(Ok(reply)) => listed = parse_function_list(&reply), // one that is busy with a script says so
                _ => silent.push(address.clone()),
            }
            if listed.is_some() {
                break;
            }
        }
        // Its answer would be taken for that to the next question.
        self.controls.retain(|address, _| !silent.contains(address));
        self.shared.scripts.functions.settle(doubts, listed);
    }

    /// Asks for the map and publishes it; or says why there is none.
    async fn read_map(&mut self) -> Result<(), String> {
        let mut asked = self.candidates();
        let mut views = self.ask(asked.clone()).await;
        let mut merged = self.merge(&views);
        // Who is named here for the first time may be all that is left of the cluster.
        if let Ok(topology) = &merged
            && asked.len() < MOST_ASKED
        {
            let named = topology.masters().iter().map(|&master| topology.node(master).address.clone());
            let named: BTreeSet<Address> = named.filter(|address| !asked.contains(address)).collect();
            if !named.is_empty() {
                let named: BTreeSet<Address> = named.into_iter().take(MOST_ASKED).collect();
                asked.extend(named.iter().cloned());
                views.extend(self.ask(named).await);
                merged = self.merge(&views);
            }
        }
        let current = self.cluster.load_full();
        let seeds = &self.config.nodes;
        let known = |address: &Address| {
            seeds.contains(address)
                || current.topology.find(address).is_some()
                || merged.as_ref().is_ok_and(|topology| topology.find(address).is_some())
        };
        self.chronicle.asked(!views.is_empty(), Instant::now(), known);
        if views.is_empty() {
            return Err(self.chronicle.all_silent());
        }
        let run_ids = self.run_ids(&views);
        let topology = merged?.with_run_ids(&run_ids);
        if is_stale(&current.topology, &topology, views.len()) {
            return Err("a minority of the nodes answers, with an older map: not believed".to_owned());
        }
        self.publish(&current, topology).await;
        Ok(())
    }

    fn merge(&self, views: &[View]) -> Result<Topology, String> {
        let map = &self.config.node_address_map;
        merge(views, &|address| map.map(address)).map_err(|error| error.to_string())
    }

    /// Whom to ask: all masters, or turn by turn as many as may be asked; and while something is amiss also the seeds:
    /// all that is known may be out of date, and a seed's name may lead to where the nodes are by now.
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
        let ailing: Vec<_> = ailing.copied().collect();
        let amiss = !ailing.is_empty() || !self.chronicle.is_calm() || topology.covered() < SLOT_COUNT;
        let replicas = ailing.into_iter().flat_map(|master| topology.replicas_of(master)).take(MOST_ASKED);
        candidates.extend(replicas.map(|replica| topology.node(replica).address.clone()));
        if amiss {
            candidates.extend(self.config.nodes.iter().take(MOST_ASKED).cloned());
        }
        if candidates.len() < 3 {
            candidates.extend(self.config.nodes.iter().cloned());
            candidates.extend(topology.nodes().iter().map(|node| node.address.clone()).take(MOST_ASKED));
        }
        candidates
    }

    /// Asks them all at once; returns what was answered in time.
    async fn ask(&mut self, addresses: BTreeSet<Address>) -> Vec<View> {
        let cluster = self.cluster.load_full();
        let owns = |address: &&Address| {
            let node = cluster.topology.find(address);
            node.is_some_and(|node| cluster.topology.first_slot(node).is_some())
        };
        // Seeds and replicas that are gone are no reason to wait for longer.
        let masters = addresses.iter().filter(owns).count();
        let quorum = if masters > 0 { masters } else { addresses.len() };
        let begun = Instant::now();
        let mut deadline = begun + self.config.connect_timeout;
        let mut unheard = addresses.clone();
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
            unheard.remove(&address);
            match answer {
                Ok((control, view)) => {
                    self.chronicle.answered(&address);
                    self.controls.insert(address, control);
                    views.push(view);
                }
                Err(error) => {
                    tracing::debug!(node = %address, %error, "a node does not tell its map");
                    self.chronicle.failed(address, Trouble::of(&error), Instant::now());
                }
            }
            if views.len() * 2 >= quorum {
                deadline = deadline.min(Instant::now() + STRAGGLERS);
            }
        }
        for address in unheard {
            self.chronicle.failed(address, Trouble::Late, Instant::now());
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
        self.chronicle.map(&topology, Instant::now());
        let changes = diff(&current.topology, &topology);
        let sockets = self.resolve(&topology).await;
        let table = self.learn(&current.table).await;
        let abouts = || self.controls.values().map(|control| &control.about);
        let version =
            lowest_version(&topology, |address| self.controls.get(address)?.about.version.as_deref());
        let version = version.map_or_else(|| Arc::clone(&current.version), Arc::from);
        let own = abouts().filter_map(|about| about.identity.clone());
        let identity = own.min_by(|one, other| one.version.cmp(&other.version));
        let identity = identity.unwrap_or_else(|| Identity::redis(&version));
        // The first of the masters', always: nodes list them in orders of their own.
        let mut masters = topology.masters().iter().map(|&master| &topology.node(master).address);
        let modules = masters.find_map(|address| Some(self.controls.get(address)?.about.modules.clone()));
        let modules = modules.unwrap_or_else(|| current.identity.modules.clone());
        let identity = Arc::new(Identity { modules, ..identity });
        let timeout = abouts().filter_map(|about: &About| about.timeout).min();
        let ping_interval =
            timeout.map_or(Duration::from_secs(10), |timeout| (timeout / 2).min(Duration::from_secs(10)));
        let health = |topology: &Topology| -> Vec<(bool, bool)> {
            topology.nodes().iter().map(|node| (node.failed, node.suspected)).collect()
        };
        let same = changes.is_empty()
            && current.sockets == sockets
            && current.version == version
            && current.identity == identity
            && Arc::ptr_eq(&current.table, &table)
            && current.ping_interval == ping_interval
            && health(&current.topology) == health(&topology);
        if same {
            return;
        }
        let known: HashSet<&Address> = topology.nodes().iter().map(|node| &node.address).collect();
        self.controls.retain(|address, _| known.contains(address));
        self.cluster.store(Arc::new(Cluster { topology, sockets, version, identity, table, ping_interval }));
        (self.published)();
    }

    /// Where to connect to each node. Names that do not resolve now are tried again at the next refresh.
    async fn resolve(&mut self, topology: &Topology) -> Vec<Option<SocketAddr>> {
        let limit = Instant::now() + self.config.connect_timeout;
        let mut sockets = Vec::new();
        for node in topology.nodes() {
            let Address { host, port } = &node.address;
            if let Ok(ip) = host.parse() {
                sockets.push(Some(SocketAddr::new(ip, *port)));
                continue;
            }
            let found = match timeout_at(limit, tokio::net::lookup_host((host.as_str(), *port))).await {
                // IPv4 first: what a name means besides is often not listened on.
                Ok(Ok(found)) => Ok(found.min_by_key(SocketAddr::is_ipv6)),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err("no answer".to_owned()),
            };
            self.chronicle.resolved(host, found.as_ref().err().cloned());
            sockets.push(found.ok().flatten());
        }
        sockets
    }

    /// Adds to the table what a node of a version that was not asked before has and the table has not.
    async fn learn(&mut self, table: &Arc<Table>) -> Arc<Table> {
        let fresh = self.controls.values_mut().find(|control| {
            control.about.learned_as().is_some_and(|version| !self.learned_from.contains(&version))
        });
        let Some(control) = fresh else { return Arc::clone(table) };
        let version = control.about.learned_as().unwrap_or_default();
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
    (0..SLOT_COUNT).any(|slot| match (old.owner(slot), new.owner(slot)) {
        (Some(before), Some(after)) => {
            let (before, after) = (old.node(before), new.node(after));
            before.id != after.id && after.config_epoch < before.config_epoch
        }
        (Some(_), None) => true,
        _ => false,
    })
}

/// The lowest version of the masters that live. Who has failed may be listed for long after an upgrade has replaced it; it
/// counts only where no other master's version is known.
fn lowest_version<'v>(
    topology: &Topology,
    version_at: impl Fn(&Address) -> Option<&'v str>,
) -> Option<&'v str> {
    let versions = |failed: bool| {
        let masters = topology.masters().iter().map(|&master| topology.node(master));
        masters.filter(move |node| node.failed == failed).filter_map(|node| version_at(&node.address))
    };
    let number =
        |version: &&str| -> Vec<u32> { version.split('.').map(|part| part.parse().unwrap_or(0)).collect() };
    versions(false).min_by_key(number).or_else(|| versions(true).min_by_key(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lowest(lines: &str, versions: &[(u16, &'static str)]) -> Option<&'static str> {
        let lines = lines.replace("ID", &"a".repeat(38));
        let view = parse(&lines, &Address::new("127.0.0.1", 7001)).expect("a map that can be read");
        let topology = merge(&[view], &Address::clone).expect("a topology");
        lowest_version(&topology, |address| {
            versions.iter().find(|(port, _)| *port == address.port).map(|&(_, version)| version)
        })
    }

    #[test]
    fn the_version_is_that_of_the_masters_that_live() {
        let lines = "ID01 127.0.0.1:7001@17001 myself,master - 0 0 1 connected 0-5460\n\
                     ID02 127.0.0.1:7002@17002 master - 0 0 2 connected 5461-10922\n\
                     ID03 127.0.0.1:7003@17003 master,fail - 0 0 3 disconnected 10923-16383\n\
                     ID04 127.0.0.1:7004@17004 master,fail - 0 0 4 disconnected\n\
                     ID05 127.0.0.1:7005@17005 slave ID01 0 0 1 connected\n";
        let old = [(7003, "7.0.15"), (7004, "6.2.0"), (7005, "7.0.15")];
        let with = |living: &[(u16, &'static str)]| lowest(lines, &[living, &old[..]].concat());
        assert_eq!(with(&[(7001, "8.10.0"), (7002, "8.9.1")]), Some("8.9.1"));
        assert_eq!(with(&[(7002, "8.0.0")]), Some("8.0.0"));
        assert_eq!(
            with(&[]),
            Some("7.0.15"),
            "a failed master is better than none; one without slots is none"
        );
        assert_eq!(lowest(lines, &old[1..]), None);
    }
}
