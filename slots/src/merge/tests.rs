//! Clusters whose nodes disagree.

use super::*;
use crate::testing::{address, id, line, merged, owner, view};
use proptest::prelude::*;
use std::slice;

/// What nodes 1 to 3 say of a healthy cluster in which 4 is a replica of 1.
fn healthy() -> Vec<View> {
    (1..=3)
        .map(|me| {
            let flags = |node| if node == me { "myself,master" } else { "master" };
            view(&[
                line(1, flags(1), 1, "0-5460"),
                line(2, flags(2), 2, "5461-10922"),
                line(3, flags(3), 3, "10923-16383"),
                line(4, "slave:1", 1, ""),
            ])
        })
        .collect()
}

/// Node 1 was cut off and 4 took over; 1 does not know yet.
fn failover() -> Vec<View> {
    let stale = view(&[
        line(1, "myself,master", 1, "0-5460"),
        line(2, "master,fail?", 2, "5461-10922"),
        line(3, "master,fail?", 3, "10923-16383"),
        line(4, "slave,fail?:1", 1, ""),
    ]);
    let fresh = |me| {
        let flags = |node| if node == me { "myself,master" } else { "master" };
        view(&[
            line(1, "master,fail", 1, ""),
            line(2, flags(2), 2, "5461-10922"),
            line(3, flags(3), 3, "10923-16383"),
            line(4, flags(4), 7, "0-5460"),
        ])
    };
    vec![stale, fresh(2), fresh(3), fresh(4)]
}

/// Resharding: slots 5 and 6 move from 1 to 2. Slot 6 says so on both sides.
fn resharding() -> Vec<View> {
    let mut views = healthy();
    views[0].lines[0].migrating = vec![(6, id(2)), (5, id(2)), (9000, id(3)), (7, id(9))];
    views[1].lines[1].importing = vec![(6, id(1)), (8, id(1)), (11000, id(1))];
    views[2].lines[0].migrating = vec![(70, id(3))]; // not its own line
    views
}

#[test]
fn a_healthy_cluster() {
    let topology = merged(&healthy());
    assert_eq!(topology.covered(), SLOT_COUNT);
    assert_eq!(topology.masters(), [0, 1, 2]);
    assert_eq!(topology.replicas_of(0).collect::<Vec<_>>(), [3]);
    assert_eq!(topology.node(3).role, Role::Replica { of: id(1) });
    assert!(topology.nodes().iter().all(|node| node.connected && !node.failed && !node.suspected));
    assert!(!topology.has_open());
    assert_eq!(topology, merged(&healthy()[1..2]), "each view alone says the same");
}

#[test]
fn after_a_failover_the_old_masters_view_loses() {
    for views in [&failover()[..], &failover()[..2]] {
        let topology = merged(views);
        assert_eq!(owner(&topology, 0), Some(id(4)));
        assert_eq!(topology.covered(), SLOT_COUNT);
        assert_eq!(topology.first_slot(0), None, "a master without slots");
    }
    let topology = merged(&failover());
    assert!(topology.node(0).failed && !topology.node(1).failed && !topology.node(1).suspected);
}

#[test]
fn one_view_alone_is_believed() {
    assert_eq!(owner(&merged(&failover()[..1]), 0), Some(id(1)));
    let alone = view(&[line(1, "myself,master", 1, "0-16383")]);
    assert_eq!(merged(&[alone]).covered(), SLOT_COUNT);
}

#[test]
fn a_node_that_knows_only_itself_loses() {
    let isolated = view(&[line(1, "myself,master", 99, "0-16383")]);
    for others in [&healthy()[1..], &healthy()[1..2]] {
        let topology = merged(&[slice::from_ref(&isolated), others].concat());
        assert_eq!(owner(&topology, 6000), Some(id(2)));
        assert_eq!(owner(&topology, 0), Some(id(1)));
    }
}

#[test]
fn a_removed_node_loses_whatever_its_epoch() {
    let mut removed = healthy().remove(0);
    removed.myself = id(5);
    removed.lines[0].flags.myself = false;
    removed.lines.extend(view(&[line(5, "myself,master", 99, "0-16383")]).lines);
    for others in [&healthy()[..], &healthy()[..1]] {
        let topology = merged(&[slice::from_ref(&removed), others].concat());
        assert_eq!(topology.index_of(&id(5)), None);
        assert_eq!(owner(&topology, 0), Some(id(1)));
    }
}

#[test]
fn views_of_two_clusters_do_not_mix() {
    let small = view(&[line(7, "myself,master", 9, "0-16383"), line(8, "slave:7", 9, "")]);
    let topology = merged(&[small, healthy().remove(1)]);
    assert_eq!(topology.index_of(&id(7)), None);
    assert_eq!(owner(&topology, 0), Some(id(1)));
}

#[test]
fn a_node_that_is_not_a_member_yet_has_no_say() {
    let new = view(&[line(5, "myself,handshake", 99, "0-16383"), line(1, "master", 1, "")]);
    assert_eq!(merge(slice::from_ref(&new), &Address::clone), Err(MergeError::NoView));
    assert_eq!(merged(&[vec![new], healthy()].concat()), merged(&healthy()));
}

#[test]
fn on_equal_epochs_a_node_is_believed_about_itself() {
    let one = view(&[line(1, "myself,master", 5, "0-9"), line(2, "master", 5, ""), line(3, "master", 5, "")]);
    let two = view(&[line(2, "myself,master", 5, ""), line(1, "master", 5, ""), line(3, "master", 5, "0-9")]);
    assert_eq!(owner(&merged(&[two.clone(), one.clone()]), 5), Some(id(1)));
    // and about what it does not own: 3 has answered too
    let three = view(&[line(3, "myself,master", 5, ""), line(1, "master", 5, ""), line(2, "master", 5, "")]);
    assert_eq!(owner(&merged(&[two, three]), 5), Some(id(3)), "unless nobody else claims it");
    let two = view(&[line(2, "myself,master", 5, "0-9"), line(1, "master", 5, "0-9")]);
    assert_eq!(owner(&merged(&[one, two]), 5), Some(id(1)), "both claim it: the lowest id");
}

#[test]
fn what_a_node_gave_away_is_not_claimed_for_it() {
    // 1 (epoch 9) gave slot 5 to 2, which did not answer; 3 has not heard of it
    let one =
        view(&[line(1, "myself,master", 9, "0-4"), line(2, "master", 2, "5"), line(3, "master", 3, "")]);
    let three =
        view(&[line(3, "myself,master", 3, ""), line(1, "master", 9, "0-5"), line(2, "master", 2, "")]);
    assert_eq!(owner(&merged(&[one, three]), 5), Some(id(2)));
}

#[test]
fn a_promotion_seen_by_others_first_counts() {
    // 4's view was read before it was promoted, 2's and 3's after
    let mut views = failover();
    views[3] = view(&[
        line(4, "myself,slave:1", 1, ""),
        line(1, "master", 1, "0-5460"),
        line(2, "master", 2, "5461-10922"),
        line(3, "master", 3, "10923-16383"),
    ]);
    let topology = merged(&views);
    assert_eq!(owner(&topology, 0), Some(id(4)));
    assert!(topology.node(3).is_master());
}

#[test]
fn a_failed_master_that_nobody_replaced_keeps_its_slots() {
    let mut views = healthy().split_off(1);
    views.iter_mut().for_each(|view| view.lines[0].flags.failed = true);
    let topology = merged(&views);
    assert_eq!(owner(&topology, 0), Some(id(1)));
    assert!(topology.node(0).failed);
}

#[test]
fn open_slots_are_told_by_their_own_nodes() {
    let topology = merged(&resharding());
    let open: Vec<_> = topology
        .open_slots()
        .iter()
        .map(|open| (open.slot, topology.node(open.source).id, topology.node(open.target).id))
        .collect();
    assert_eq!(open, [5, 6, 8].map(|slot| (slot, id(1), id(2))));
    assert!(topology.is_open(8) && !topology.is_open(70) && !topology.is_open(11000));
}

#[test]
fn nodes_without_an_address_are_left_out() {
    let mut views = healthy();
    for view in &mut views {
        view.lines[3].flags.noaddr = true;
        view.lines[3].address = None;
    }
    assert_eq!(merged(&views).index_of(&id(4)), None);
    views[0].lines[3].flags.handshake = true;
    assert_eq!(merged(&views[..1]).index_of(&id(4)), None);
    // a master with slots whose address one view still has
    let mut views = healthy().split_off(1);
    views[0].lines[0].flags.noaddr = true;
    views[0].lines[0].address = None;
    assert_eq!(owner(&merged(&views), 0), Some(id(1)));
}

#[test]
fn addresses_are_mapped_unless_they_are_where_we_asked() {
    let mut views = healthy();
    let map = |announced: &Address| Address::new("mapped", announced.port);
    let topology = merge(&views, &map).expect("a topology");
    assert_eq!(topology.node(0).address, Address::new("mapped", 7001));
    // it does not know its own address: the others do, or it is alone
    views[0].lines[0].address = None;
    assert_eq!(merge(&views, &map).expect("a topology").node(0).address, Address::new("mapped", 7001));
    assert_eq!(merge(&views[..1], &map).expect("a topology").node(0).address, address(1));
}

#[test]
fn errors() {
    assert_eq!(merge(&[], &Address::clone), Err(MergeError::NoView));
    let replica = view(&[line(4, "myself,slave:1", 1, "")]);
    assert_eq!(merge(&[replica], &Address::clone), Err(MergeError::NoMaster));
}

/// Views in which anything may be said of five nodes.
fn any_view() -> impl Strategy<Value = View> {
    let flags = prop::sample::select(vec![
        "master",
        "slave:1",
        "slave:2",
        "master,fail",
        "master,fail?",
        "handshake",
    ]);
    let slots = prop::sample::select(vec![
        "",
        "0-99",
        "50-149",
        "100-200 [100->-2222222222222222222222222222222222222222]",
    ]);
    let lines = prop::collection::vec((any::<bool>(), flags, 0..4_u64, slots), 5);
    (0..5_u8, lines).prop_map(|(me, said)| {
        let lines: Vec<String> = (0..5)
            .zip(said)
            .filter(|(node, (known, ..))| *known || *node == me)
            .map(|(node, (_, flags, epoch, slots))| {
                let flags = if node == me { format!("myself,{flags}") } else { flags.to_owned() };
                line(node, &flags, epoch, slots)
            })
            .collect();
        view(&lines)
    })
}

proptest! {
    #[test]
    fn the_order_of_views_does_not_matter(
        (views, shuffled) in prop::collection::vec(any_view(), 1..5)
            .prop_map(|mut views| {
                views.sort_by_key(|view| view.myself);
                views.dedup_by_key(|view| view.myself); // a node is asked once
                views
            })
            .prop_flat_map(|views| (Just(views.clone()), Just(views).prop_shuffle())),
    ) {
        let (one, two) = (merge(&views, &Address::clone), merge(&shuffled, &Address::clone));
        prop_assert_eq!(&one, &two);
        if let Ok(topology) = one {
            prop_assert!(topology.masters().iter().all(|&master| topology.node(master).is_master()));
            prop_assert!(topology.open_slots().iter().all(|open| topology.owner(open.slot) == Some(open.source)));
        }
    }

    #[test]
    fn nor_does_it_in_a_cluster_that_changes(
        views in prop::sample::select(vec![healthy(), failover(), resharding()]).prop_shuffle_views(),
    ) {
        let mut sorted = views.clone();
        sorted.sort_by_key(|view| view.myself);
        prop_assert_eq!(merged(&views), merged(&sorted));
        prop_assert_eq!(merged(&views).fingerprint(), merged(&sorted).fingerprint());
    }
}

/// Shuffles what a strategy of views makes.
trait ShuffleViews: Strategy<Value = Vec<View>> + Sized {
    fn prop_shuffle_views(self) -> impl Strategy<Value = Vec<View>> {
        self.prop_flat_map(|views| Just(views).prop_shuffle())
    }
}

impl<S: Strategy<Value = Vec<View>>> ShuffleViews for S {}
