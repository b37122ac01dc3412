//! What an operator does to a cluster: moves slots, calls failovers, waits.

use std::ops::RangeInclusive;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use portico::sandbox::{Cluster, Connection, Server, text};
use redis_protocol::resp2::types::BytesFrame;

/// Moves slots key by key, slowly enough that clients notice.
#[derive(Debug)]
pub struct SlotMove<'a> {
    /// The cluster.
    pub cluster: &'a Cluster,
    /// Pause before each key and at both ends.
    pub pause: Duration,
}

impl SlotMove<'_> {
    /// Moves one slot from one master to another, by their indices. Returns how many keys moved.
    ///
    /// # Errors
    /// A node refuses.
    pub fn run(&self, slot: u16, from: usize, to: usize) -> Result<usize> {
        let nodes = self.cluster.nodes();
        let (source, target) = (&nodes[from], &nodes[to]);
        let (target_id, number) = (open_slot(source, target, slot)?, slot.to_string());
        sleep(self.pause);
        let (mut at_source, port) = (source.connect()?, target.port().to_string());
        let mut moved = 0;
        while let Some(key) = next_key(&mut at_source, &number)? {
            let reply = at_source.ask(&["MIGRATE", "127.0.0.1", &port, &key, "0", "5000"])?;
            moved += usize::from(reply == "OK"); // NOKEY: a client was faster
            sleep(self.pause);
        }
        sleep(self.pause);
        let assign = ["CLUSTER", "SETSLOT", &number, "NODE", &target_id];
        target.ask(&assign)?;
        // A source that has lost its last slot has become a replica meanwhile, and refuses.
        let _ = source.call(&assign)?;
        for (_, node) in nodes
            .iter()
            .enumerate()
            .filter(|(index, node)| ![from, to].contains(index) && node.pid().is_some())
        {
            // A replica hears it from its master.
            let _ = node.call(&assign)?;
        }
        Ok(moved)
    }
}

/// Begins to move a slot: its absent keys are to be asked for at the target from now on. Returns the target's id.
///
/// # Errors
/// A node refuses.
pub fn open_slot(source: &Server, target: &Server, slot: u16) -> Result<String> {
    let (source_id, target_id) = (source.ask(&["CLUSTER", "MYID"])?, target.ask(&["CLUSTER", "MYID"])?);
    let number = slot.to_string();
    // A target that has not heard of the last move's epoch would claim it as well, and lose the slot over that.
    wait_until(Duration::from_secs(10), "the nodes have heard of the last move", || {
        Ok(current_epoch(source)? == current_epoch(target)?)
    })?;
    target.ask(&["CLUSTER", "SETSLOT", &number, "IMPORTING", &source_id])?;
    source.ask(&["CLUSTER", "SETSLOT", &number, "MIGRATING", &target_id])?;
    Ok(target_id)
}

/// Hands slots over from one master to another, all at once, as Valkey does since 9.0. Returns how long that took.
///
/// # Errors
/// A node refuses, or does not come to an end within 20 seconds.
pub fn hand_over(cluster: &Cluster, slots: &RangeInclusive<u16>, from: usize, to: usize) -> Result<Duration> {
    let (source, target) = (&cluster.nodes()[from], &cluster.nodes()[to]);
    let (first, last) = (slots.start().to_string(), slots.end().to_string());
    let began = Instant::now();
    let target_id = target.ask(&["CLUSTER", "MYID"])?;
    source.ask(&["CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", &first, &last, "NODE", &target_id])?;
    wait_until(Duration::from_secs(20), "the slots are handed over", || {
        // The latest comes first.
        let BytesFrame::Array(all) = source.call(&["CLUSTER", "GETSLOTMIGRATIONS"])? else {
            bail!("GETSLOTMIGRATIONS is no array")
        };
        let Some(BytesFrame::Array(latest)) = all.first() else { bail!("nothing is handed over") };
        let fields: Vec<String> = latest.iter().filter_map(text).collect();
        let state = fields.iter().position(|field| field == "state").and_then(|at| fields.get(at + 1));
        ensure!(state.is_some_and(|state| state != "failed"), "{fields:?}");
        Ok(state.is_some_and(|state| state == "success"))
    })?;
    Ok(began.elapsed())
}

fn current_epoch(node: &Server) -> Result<Option<String>> {
    let info = node.ask(&["CLUSTER", "INFO"])?;
    Ok(info.lines().find_map(|line| line.strip_prefix("cluster_current_epoch:")).map(str::to_owned))
}

fn next_key(source: &mut Connection, slot: &str) -> Result<Option<String>> {
    match source.call(&["CLUSTER", "GETKEYSINSLOT", slot, "1"])? {
        BytesFrame::Array(keys) => Ok(keys.first().and_then(text)),
        other => bail!("GETKEYSINSLOT: {other:?}"),
    }
}

/// How often this server has answered an error that begins with this word.
///
/// # Errors
/// It does not answer.
pub fn error_count(server: &Server, word: &str) -> Result<u64> {
    let stats = server.ask(&["INFO", "errorstats"])?;
    let prefix = format!("errorstat_{word}:count=");
    let count = stats.lines().find_map(|line| line.strip_prefix(&prefix));
    Ok(count.map_or(Ok(0), |count| count.trim().parse())?)
}

/// Which of these two nodes is master now.
///
/// # Errors
/// Neither is, or one does not answer.
pub fn master_index(cluster: &Cluster, pair: [usize; 2]) -> Result<usize> {
    let is_master = |index: usize| -> Result<bool> {
        Ok(cluster.nodes()[index].ask(&["INFO", "replication"])?.contains("role:master"))
    };
    for index in pair {
        if is_master(index)? {
            return Ok(index);
        }
    }
    bail!("neither of the nodes {pair:?} is a master")
}

/// Makes the replica of a pair its master, without losing anything. Returns how long that took.
///
/// # Errors
/// The replica refuses, or does not become master within ten seconds.
pub fn fail_over(cluster: &Cluster, pair: [usize; 2]) -> Result<Duration> {
    let master = master_index(cluster, pair)?;
    let replica = pair.into_iter().find(|&index| index != master).context("a pair")?;
    let node = &cluster.nodes()[replica];
    let began = Instant::now();
    let (id, master_id) =
        (node.ask(&["CLUSTER", "MYID"])?, cluster.nodes()[master].ask(&["CLUSTER", "MYID"])?);
    // Until its link is up again after the last failover, a replica refuses; until they have heard whose replica it
    // is, its master and the voters ignore it.
    wait_until(Duration::from_secs(10), "the replica is in step", || {
        let follows = |node: &Server| -> Result<bool> {
            let known = node.ask(&["CLUSTER", "NODES"])?;
            Ok(known
                .lines()
                .any(|line| line.starts_with(&id) && line.contains(&format!("slave {master_id}"))))
        };
        let views: Result<Vec<bool>> = cluster.nodes().iter().map(follows).collect();
        Ok(views?.into_iter().all(|follows| follows)
            && node.ask(&["INFO", "replication"])?.contains("master_link_status:up"))
    })?;
    node.ask(&["CLUSTER", "FAILOVER"])?;
    let result = wait_until(Duration::from_secs(10), "the replica is master", || {
        Ok(master_index(cluster, [replica, replica]).is_ok())
    });
    result.with_context(|| pair.map(|index| tail(&cluster.nodes()[index].log())).join("\n"))?;
    Ok(began.elapsed())
}

fn tail(log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(25)..].join("\n")
}

/// Waits until something is so.
///
/// # Errors
/// It is not within `limit`, or asking fails.
pub fn wait_until(limit: Duration, what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + limit;
    while !is_so()? {
        ensure!(Instant::now() < deadline, "not within {limit:?}: {what}");
        sleep(Duration::from_millis(20));
    }
    Ok(())
}
