//! Snapshots: numbering, look-ups, open slots, fingerprints.

use super::*;
use crate::testing::{address, id};

fn node(n: u8, role: Role) -> Node {
    Node {
        id: id(n),
        address: address(n),
        role,
        config_epoch: 1,
        failed: false,
        suspected: false,
        connected: true,
        run_id: None,
    }
}

fn halves(slot: Slot) -> Option<NodeId> {
    Some(id(if slot < 8192 { 1 } else { 2 }))
}

fn sample() -> Topology {
    let nodes = vec![
        node(4, Role::Replica { of: id(2) }),
        node(2, Role::Master),
        node(5, Role::Master),
        node(1, Role::Replica { of: id(9) }), // owns slots, so it is a master
        node(3, Role::Replica { of: id(2) }),
        node(6, Role::Replica { of: id(9) }),
    ];
    Topology::new(nodes, halves, [(9000, id(2), id(1)), (7, id(1), id(2)), (8, id(2), id(1))])
}

#[test]
fn nodes_are_numbered_by_id_and_found() {
    let topology = sample();
    assert_eq!(topology.nodes().iter().map(|node| node.id).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6].map(id));
    assert_eq!(topology.index_of(&id(4)), Some(3));
    assert_eq!(topology.index_of(&id(9)), None);
    assert_eq!(topology.find(&address(3)), Some(2));
    assert_eq!(topology.find(&address(9)), None);
}

#[test]
fn slots_masters_and_replicas_agree() {
    let topology = sample();
    assert_eq!(topology.owner(0), Some(0));
    assert_eq!(topology.owner(8192), Some(1));
    assert_eq!(topology.owner(SLOT_COUNT), None);
    assert_eq!(topology.covered(), SLOT_COUNT);
    assert_eq!(topology.masters(), [0, 1]);
    assert!(topology.node(0).is_master());
    assert_eq!(topology.first_slot(0), Some(0));
    assert_eq!(topology.first_slot(1), Some(8192));
    assert_eq!(topology.first_slot(4), None);
    assert_eq!(topology.first_slot(NONE), None);
    assert_eq!(topology.replicas_of(1).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(topology.replicas_of(0).count(), 0);
    assert_eq!(topology.replicas_of(NONE).count(), 0);
}

#[test]
fn open_slots_are_those_of_the_owner() {
    let topology = sample();
    assert!(topology.has_open());
    assert!(topology.is_open(7) && topology.is_open(9000) && !topology.is_open(8));
    assert_eq!(
        topology.open_slots(),
        [OpenSlot { slot: 7, source: 0, target: 1 }, OpenSlot { slot: 9000, source: 1, target: 0 }]
    );
}

#[test]
fn nothing_is_known_of_an_empty_cluster() {
    let topology = Topology::empty();
    assert!((0..=u16::MAX).all(|slot| topology.owner(slot).is_none() && !topology.is_open(slot)));
    assert_eq!((topology.covered(), topology.nodes().len(), topology.masters().len()), (0, 0, 0));
    assert_eq!(topology.find(&address(1)), None);
}

#[test]
fn of_two_nodes_at_one_address_the_live_one_is_found() {
    let mut dead = node(1, Role::Master);
    dead.address = address(2);
    dead.failed = true;
    let topology = Topology::new(vec![dead, node(2, Role::Master)], |_| Some(id(1)), []);
    assert_eq!(topology.find(&address(2)), topology.index_of(&id(2)));
}

#[test]
fn fingerprints_tell_snapshots_apart_and_never_change() {
    let nodes = || vec![node(1, Role::Master), node(2, Role::Master)];
    let plain = Topology::new(nodes(), halves, []);
    let mut elsewhere = nodes();
    elsewhere[0].address.port = 1;
    elsewhere.push(node(3, Role::Master));
    assert_eq!(plain.fingerprint(), Topology::new(elsewhere, halves, []).fingerprint());

    let run_ids = HashMap::from([(id(1), "r".to_owned()), (id(9), "x".to_owned())]);
    let running = plain.clone().with_run_ids(&run_ids);
    assert_eq!(running.node(0).run_id.as_deref(), Some("r"));
    assert_eq!(running.node(1).run_id, None);
    let others = [
        Topology::empty(),
        Topology::new(nodes(), |slot| halves(slot.min(8191)), []),
        Topology::new(nodes(), |slot| halves(slot + 1), []),
        Topology::new(nodes(), halves, [(7, id(1), id(2))]),
        Topology::new(nodes(), halves, [(8, id(1), id(2))]),
        running,
        plain.clone(),
    ];
    let mut prints: Vec<u64> = others.iter().map(Topology::fingerprint).collect();
    prints.sort_unstable();
    prints.dedup();
    assert_eq!(prints.len(), others.len());
    // known to other processes, perhaps of another release
    assert_eq!(Topology::empty().fingerprint(), 0xcbf2_9ce4_8422_2325);
    assert_eq!(plain.fingerprint(), 0x2ff3_dbf4_fe52_012d); // computed apart, in Python
}
