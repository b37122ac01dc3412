//! What goes on in a cluster for a while: slots that go to and fro, replicas that become masters.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Result;
use portico::sandbox::Cluster;

use super::{SlotMove, master_index, wait_until};

/// Pause before each key of a slot that moves, and at both ends.
const PAUSE: Duration = Duration::from_millis(6);

/// The last move's config epoch has reached everybody by then; a node that does not know it could claim it as well.
const TURN: Duration = Duration::from_millis(50);

/// Moves slots from one master to another and all of them back, again and again for so long; all are back in the end.
/// Returns how many keys moved.
///
/// # Errors
/// The nodes do not agree on who is who, or one refuses.
pub fn to_and_fro(cluster: &Cluster, slots: &[u16], pair: [usize; 2], lasts: Duration) -> Result<usize> {
    cluster.wait_until_agreed()?;
    let (moving, began, mut keys) = (SlotMove { cluster, pause: PAUSE }, Instant::now(), 0);
    while began.elapsed() < lasts {
        for [from, to] in [pair, [pair[1], pair[0]]] {
            for &slot in slots {
                keys += moving.run(slot, from, to)?;
            }
            sleep(TURN);
        }
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
