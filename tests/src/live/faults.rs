//! What goes on in a cluster for a while: slots that go to and fro, connections that break, replicas that become masters.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Result;
use portico::sandbox::{Cluster, ClusterOptions};

use super::{SlotMove, master_index, wait_until};

/// Until a master is missed by the others, in [`failing_over`].
pub const NODE_TIMEOUT: Duration = Duration::from_millis(1500);

/// A cluster in which a replica soon takes over for a killed master, and in which the other masters serve meanwhile:
/// with full coverage required, the nodes themselves would refuse everything until then.
#[must_use]
pub fn failing_over() -> ClusterOptions {
    let extra_args = ["--cluster-require-full-coverage", "no"].map(str::to_owned).to_vec();
    ClusterOptions { replicas: 1, node_timeout: NODE_TIMEOUT, extra_args, ..ClusterOptions::default() }
}

/// Pause before each key of a slot that moves, and at both ends.
const PAUSE: Duration = Duration::from_millis(6);

/// Everybody has heard of the last move by then, mostly.
const TURN: Duration = Duration::from_millis(50);

/// Moves slots from one master to another and all of them back, again and again for so long; all are back in the end.
/// Returns how many keys moved.
///
/// # Errors
/// The nodes do not agree on who is who, or one refuses.
pub fn to_and_fro(cluster: &Cluster, slots: &[u16], pair: [usize; 2], lasts: Duration) -> Result<usize> {
    to_and_fro_resting(cluster, slots, pair, lasts, Duration::ZERO)
}

/// As [`to_and_fro`], with a rest after each direction.
///
/// # Errors
/// As [`to_and_fro`].
pub fn to_and_fro_resting(
    cluster: &Cluster,
    slots: &[u16],
    pair: [usize; 2],
    lasts: Duration,
    rest: Duration,
) -> Result<usize> {
    cluster.wait_until_agreed()?;
    let (moving, began, mut keys) = (SlotMove { cluster, pause: PAUSE }, Instant::now(), 0);
    while began.elapsed() < lasts {
        for [from, to] in [pair, [pair[1], pair[0]]] {
            for &slot in slots {
                keys += moving.run(slot, from, to)?;
            }
            sleep(TURN);
            // A new owner has been seen to give up what it had just got, over what others said who had not heard of it.
            let (owner, number) = (&cluster.nodes()[to], |slot: &u16| slot.to_string());
            let id = owner.ask(&["CLUSTER", "MYID"])?;
            slots.iter().try_for_each(|slot| {
                owner.ask(&["CLUSTER", "SETSLOT", &number(slot), "NODE", &id]).map(drop)
            })?;
            cluster.wait_until_agreed()?;
            sleep(rest);
        }
    }
    Ok(keys)
}

/// Cuts all connections of clients to these nodes, whatever is on its way on them.
///
/// # Errors
/// A node refuses.
pub fn cut_connections(cluster: &Cluster, nodes: &[usize]) -> Result<()> {
    nodes
        .iter()
        .try_for_each(|&node| cluster.nodes()[node].ask(&["CLIENT", "KILL", "TYPE", "normal"]).map(drop))
}

/// Waits until a replica has taken its master's place.
///
/// # Errors
/// It does not.
pub fn wait_until_master(cluster: &Cluster, index: usize) -> Result<()> {
    wait_until(Duration::from_secs(20), "the replica is master", || {
        Ok(master_index(cluster, [index, index]).is_ok())
    })
}
