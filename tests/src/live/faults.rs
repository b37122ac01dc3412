//! What goes on in a cluster for a while: slots that go to and fro, replicas that become masters.

use std::time::{Duration, Instant};

use anyhow::Result;
use portico::sandbox::Cluster;

use super::{SlotMove, master_index, wait_until};

/// Pause before each key of a slot that moves, and at both ends.
const PAUSE: Duration = Duration::from_millis(6);

/// Moves slots from one master to another and back, one after the other, for so long; all are back in the end.
/// Returns how many keys moved.
///
/// # Errors
/// The nodes do not agree on who is who, or one refuses.
pub fn to_and_fro(cluster: &Cluster, slots: &[u16], pair: [usize; 2], lasts: Duration) -> Result<usize> {
    cluster.wait_until_agreed()?;
    let (moving, began, mut keys) = (SlotMove { cluster, pause: PAUSE }, Instant::now(), 0);
    for &slot in slots.iter().cycle() {
        if began.elapsed() > lasts {
            break;
        }
        keys += moving.run(slot, pair[0], pair[1])? + moving.run(slot, pair[1], pair[0])?;
    }
    Ok(keys)
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
