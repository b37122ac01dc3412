//! Changes and how they read.

use super::*;
use crate::testing::{id, line, merged, view};
use std::collections::HashMap;

fn cluster(lines: &[(u8, &str, &str)]) -> Topology {
    merged(&[view(
        &lines.iter().map(|&(node, flags, slots)| line(node, flags, 1, slots)).collect::<Vec<_>>(),
    )])
}

#[test]
fn nothing_changed() {
    let topology = cluster(&[(1, "myself,master", "0-99")]);
    let changes = diff(&topology, &topology);
    assert!(changes.is_empty() && !changes.owners_changed());
    assert_eq!(changes.to_string(), "no change");
    assert!(diff(&Topology::empty(), &Topology::empty()).is_empty());
}

#[test]
fn slots_move_open_and_close() {
    let before = format!("0-299 [7->-{}] [8->-{}]", id(2), id(2));
    let after = format!("100-199 201-299 [150->-{}] [151->-{}]", id(2), id(2));
    let old = cluster(&[(1, "myself,master", &before), (2, "master", "300")]);
    let new = cluster(&[(1, "myself,master", &after), (2, "master", "0-99 200 400")]);
    let changes = diff(&old, &new);
    let (one, two) = (Some(id(1)), Some(id(2)));
    assert_eq!(
        changes.moved,
        [(0..=99, one, two), (200..=200, one, two), (300..=300, two, None), (400..=400, None, two)]
    );
    assert_eq!((changes.opened.as_slice(), changes.closed.as_slice()), (&[150, 151][..], &[7, 8][..]));
    assert!(changes.owners_changed() && !changes.is_empty());
    assert_eq!(changes.moved_slots().count(), 103);
    assert_eq!(
        changes.to_string(),
        "slots 0-99,200 moved 127.0.0.1:7001 -> 127.0.0.1:7002; slot 300 no longer owned by 127.0.0.1:7002; \
         slot 400 now owned by 127.0.0.1:7002; slots 150-151 opened; slots 7-8 closed"
    );
}

#[test]
fn nodes_come_go_and_change() {
    let old = cluster(&[
        (1, "myself,master", "0"),
        (2, "slave:1", ""),
        (3, "slave:1", ""),
        (4, "master,fail", ""),
        (5, "master", ""),
    ]);
    let mut lines = view(&[
        line(1, "myself,slave:2", 2, ""),
        line(2, "master", 2, "0"),
        line(3, "slave,fail:2", 2, ""),
        line(4, "master", 1, ""),
        line(6, "master", 1, ""),
    ]);
    lines.lines[3].address = Some(Address::new("::1", 1));
    let new = merged(&[lines]);
    let runs = |run: &str| HashMap::from([(id(1), run.to_owned()), (id(3), "same".to_owned())]);
    let changes = diff(&old.with_run_ids(&runs("a")), &new.with_run_ids(&runs("b")));
    assert_eq!(
        changes.to_string(),
        "slot 0 moved 127.0.0.1:7001 -> 127.0.0.1:7002; 127.0.0.1:7002 became master; \
         127.0.0.1:7001 became replica; 127.0.0.1:7003 follows another master; 127.0.0.1:7006 joined; \
         127.0.0.1:7005 left; 127.0.0.1:7003 failed; [::1]:1 recovered; 127.0.0.1:7001 restarted; \
         127.0.0.1:7004 is now [::1]:1"
    );
    assert_eq!(changes.readdressed.len(), 1);
}

#[test]
fn the_line_stays_short() {
    let every_second: Vec<String> = (0..SLOT_COUNT).step_by(2).map(|slot| slot.to_string()).collect();
    let old = cluster(&[(1, "myself,master", "0-16383"), (2, "master", "")]);
    let new = cluster(&[(1, "myself,master", ""), (2, "master", &every_second.join(" "))]);
    let text = diff(&old, &new).to_string();
    assert!(text.ends_with("; and 16374 more ranges moved"), "{text}");
    assert!(text.len() < 400, "{text}");
}
