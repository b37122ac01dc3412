//! A Redis Cluster, formed without redis-cli: slots, epochs, introductions, replicas, and waiting for agreement.

use std::path::PathBuf;
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use portico_slots::{Address, SLOT_COUNT};

use super::program::default_program;
use super::{Server, ServerOptions};

/// Forming takes two to three seconds: a node refuses to serve in its first two.
const AGREEMENT_LIMIT: Duration = Duration::from_secs(60);

const POLL: Duration = Duration::from_millis(20);

/// What cluster to start.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// Masters, which share the slots evenly; at least 1.
    pub masters: u16,
    /// Replicas of each master.
    pub replicas: u16,
    /// The program; without a slash it is looked up in PATH.
    pub redis_server: PathBuf,
    /// How long a node is unreachable before others hold it for failed (`cluster-node-timeout`).
    pub node_timeout: Duration,
    /// Further arguments for every node, as on redis-server's command line; they win.
    pub extra_args: Vec<String>,
    /// `requirepass` and `masterauth` of every node.
    pub password: Option<String>,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        ClusterOptions {
            masters: 3,
            replicas: 0,
            redis_server: default_program(),
            node_timeout: Duration::from_secs(1),
            extra_args: Vec::new(),
            password: None,
        }
    }
}

/// A running cluster. Dropping it kills every node and removes their folders.
#[derive(Debug)]
pub struct Cluster {
    options: ClusterOptions,
    nodes: Vec<Server>,
}

impl Cluster {
    /// Starts the nodes and forms the cluster: masters first, in order of their slots, then node `masters + i` as a
    /// replica of node `i % masters`.
    ///
    /// # Errors
    /// A node does not start, or they do not agree on the cluster within a minute.
    pub fn start(options: ClusterOptions) -> Result<Self> {
        ensure!(options.masters > 0, "a cluster has at least one master");
        let count = usize::from(options.masters) * (1 + usize::from(options.replicas));
        let nodes = scope(|scope| {
            let starting: Vec<_> = (0..count).map(|_| scope.spawn(|| start_node(&options))).collect();
            let join = |start: std::thread::ScopedJoinHandle<'_, Result<Server>>| match start.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            };
            starting.into_iter().map(join).collect::<Result<Vec<_>>>()
        })?;
        let cluster = Cluster { options, nodes };
        cluster.form()?;
        Ok(cluster)
    }

    /// All nodes, also those that were killed.
    #[must_use]
    pub fn nodes(&self) -> &[Server] {
        &self.nodes
    }

    /// One node, to kill or restart it.
    ///
    /// # Panics
    /// There is no such node.
    pub fn node(&mut self, index: usize) -> &mut Server {
        &mut self.nodes[index]
    }

    /// Where all nodes are reached.
    #[must_use]
    pub fn seeds(&self) -> Vec<Address> {
        self.nodes.iter().map(Server::address).collect()
    }

    /// Starts a master without slots, introduces it, and waits until all running nodes know it. Returns its index.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub fn add_node(&mut self) -> Result<usize> {
        let node = start_node(&self.options)?;
        introduce(self.running().next().context("no node is running")?, &node)?;
        self.nodes.push(node);
        self.wait_until_agreed()?;
        Ok(self.nodes.len() - 1)
    }

    /// Waits until every running node serves, all of them describe the same cluster with all of its nodes in it, and
    /// the replicas among them are in step with their masters.
    ///
    /// # Errors
    /// That is not so within a minute; the error says what is missing.
    pub fn wait_until_agreed(&self) -> Result<()> {
        eventually(|| {
            let mut views = Vec::new();
            for node in self.running() {
                let info = node.ask(&["CLUSTER", "INFO"])?;
                ensure!(info.contains("cluster_state:ok"), "{} does not serve: {info}", node.address());
                let replication = node.ask(&["INFO", "replication"])?;
                ensure!(!replication.contains("master_link_status:down"), "{} has no master", node.address());
                views.push(view(&node.ask(&["CLUSTER", "NODES"])?));
            }
            ensure!(views.windows(2).all(|pair| pair[0] == pair[1]), "the nodes disagree: {views:#?}");
            let known = views.first().map_or(0, Vec::len);
            ensure!(known == self.nodes.len(), "{known} nodes know each other of {}", self.nodes.len());
            Ok(())
        })
    }

    fn running(&self) -> impl Iterator<Item = &Server> {
        self.nodes.iter().filter(|node| node.pid().is_some())
    }

    fn form(&self) -> Result<()> {
        let (masters, replicas) = self.nodes.split_at(usize::from(self.options.masters));
        let slots_before = |index: usize| index * usize::from(SLOT_COUNT) / masters.len();
        for (index, node) in self.nodes.iter().enumerate() {
            // Different from the start: nobody has to win a conflict about them.
            node.ask(&["CLUSTER", "SET-CONFIG-EPOCH", &(index + 1).to_string()])?;
            if index < masters.len() {
                // ADDSLOTSRANGE came with 7.0.
                let slots: Vec<String> =
                    (slots_before(index)..slots_before(index + 1)).map(|slot| slot.to_string()).collect();
                let words: Vec<&str> =
                    ["CLUSTER", "ADDSLOTS"].into_iter().chain(slots.iter().map(String::as_str)).collect();
                node.ask(&words)?;
            }
        }
        // Each to each: faster than gossip.
        for (index, node) in self.nodes.iter().enumerate() {
            self.nodes[..index].iter().try_for_each(|earlier| introduce(node, earlier))?;
        }
        for (index, replica) in replicas.iter().enumerate() {
            let master = masters[index % masters.len()].ask(&["CLUSTER", "MYID"])?;
            // Until it has shaken hands with its master it does not know it.
            eventually(|| replica.ask(&["CLUSTER", "REPLICATE", &master]))?;
        }
        self.wait_until_agreed()
    }
}

fn start_node(options: &ClusterOptions) -> Result<Server> {
    Server::start(ServerOptions {
        redis_server: options.redis_server.clone(),
        cluster: Some(options.node_timeout),
        password: options.password.clone(),
        args: options.extra_args.clone(),
    })
}

fn introduce(node: &Server, other: &Server) -> Result<()> {
    let (port, bus_port) = (other.port().to_string(), other.bus_port().to_string());
    node.ask(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus_port]).map(drop)
}

/// What CLUSTER NODES says that all nodes have to say alike: id, role, master, slots; handshakes do not count.
fn view(nodes: &str) -> Vec<(String, bool, String, String)> {
    let mut view: Vec<_> = nodes
        .lines()
        .filter_map(|line| {
            let fields: Vec<_> = line.split(' ').collect();
            let [id, _, flags, master, ..] = fields.as_slice() else { return None };
            let replica = flags.contains("slave");
            // Only a node itself speaks of its open slots, in brackets.
            let slots = fields.iter().skip(8).filter(|slots| !slots.starts_with('[')).copied();
            let slots = slots.collect::<Vec<_>>().join(" ");
            (!flags.contains("handshake")).then(|| ((*id).to_owned(), replica, (*master).to_owned(), slots))
        })
        .collect();
    view.sort();
    view
}

/// Tries again until it works; the last error if it never does.
fn eventually<T>(mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + AGREEMENT_LIMIT;
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() >= deadline => bail!("no agreement within a minute: {error:#}"),
            Err(_) => sleep(POLL),
        }
    }
}
