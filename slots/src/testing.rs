//! Small clusters for the tests: node n has an id of forty times its digit and listens on 127.0.0.1:700n.

use crate::{Address, NodeId, Topology, View, merge, parse};

pub(crate) fn id(node: u8) -> NodeId {
    char::from_digit(node.into(), 16).expect("a digit").to_string().repeat(40).parse().expect("an id")
}

pub(crate) fn address(node: u8) -> Address {
    Address::new("127.0.0.1", 7000 + u16::from(node))
}

/// A line: `line(1, "myself,master", 4, "0-99")`. `slave:2` stands for a replica of node 2.
pub(crate) fn line(node: u8, flags: &str, epoch: u64, slots: &str) -> String {
    let (flags, master) = match flags.split_once(':') {
        Some((flags, master)) => (flags, id(master.parse().expect("a node")).to_string()),
        None => (flags, "-".to_owned()),
    };
    let port = address(node).port;
    format!("{} 127.0.0.1:{port}@{} {flags} {master} 0 0 {epoch} connected {slots}", id(node), port + 10000)
}

/// A view from its lines.
pub(crate) fn view(lines: &[String]) -> View {
    let text = lines.join("\n");
    let probe = parse(&text, &address(0)).expect("a readable view");
    let node = (0..16).find(|&node| id(node) == probe.myself).expect("a test node");
    parse(&text, &address(node)).expect("a readable view")
}

pub(crate) fn merged(views: &[View]) -> Topology {
    merge(views, &Address::clone).expect("a topology")
}

/// The id of a slot's owner.
pub(crate) fn owner(topology: &Topology, slot: u16) -> Option<NodeId> {
    topology.owner(slot).map(|index| topology.node(index).id)
}
