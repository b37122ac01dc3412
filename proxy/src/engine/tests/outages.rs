//! A master that has stopped and is missed: what was sent to it is answered within the failover timeout, all in all.

use std::sync::Arc;
use std::time::Duration;

use portico_slots::Topology;

use super::{BORDER, HIGH, LOW, World, node};
use crate::topology::Cluster;

/// The same nodes, of which the others miss the first.
fn without_the_first(cluster: &Cluster) -> Arc<Cluster> {
    let mut nodes = cluster.topology.nodes().to_vec();
    nodes.iter_mut().filter(|of| of.id == node(7000)).for_each(|node| node.suspected = true);
    let owner = |slot| Some(node(if slot < BORDER { 7000 } else { 7001 }));
    let topology = Topology::new(nodes, owner, []);
    Arc::new(Cluster {
        topology,
        sockets: cluster.sockets.clone(),
        ..Cluster::unknown(Arc::clone(&cluster.table))
    })
}

#[test]
fn what_a_stopped_master_was_sent_is_answered_within_the_failover_timeout() {
    let mut world = World::new();
    let limit = world.engine.config.failover_timeout;
    let step = Duration::from_millis(100);
    let (early, late) = (world.client(), world.client());
    world.send(early, &[&format!("GET {LOW}")]);
    world.cluster = without_the_first(&world.cluster);
    world.down = vec![7000];
    let steps = (limit.as_millis() / step.as_millis()) as u32;
    for _ in 0..steps / 2 {
        world.pass(step);
    }
    world.send(late, &[&format!("SET {LOW} x"), &format!("GET {LOW}")]);
    for _ in 0..steps / 2 + 3 {
        world.pass(step);
    }
    let told = world.told(early);
    assert!(
        told.starts_with(
            "-CLUSTERDOWN No master for slot 3300 (127.0.0.1:7000, 8192 slots) could be reached"
        ),
        "{told}"
    );
    assert_eq!(world.told(late), "", "it has waited half as long");
    for _ in 0..steps / 2 - 6 {
        world.pass(step);
    }
    assert_eq!(world.told(late), "");
    for _ in 0..12 {
        world.pass(step);
    }
    let told = world.told(late);
    assert!(told.starts_with("-UNKNOWN ") && told.contains("\r\n-CLUSTERDOWN "), "{told}");
    world.send(late, &[&format!("GET {HIGH}")]);
    world.answers(7001, "$1\r\ny\r\n");
    assert_eq!(world.told(late), "$1\r\ny\r\n");
}

#[test]
fn a_master_that_is_known_to_be_silent_is_not_asked_for_its_figures() {
    let mut world = World::new();
    let (waits, client) = (world.client(), world.client());
    world.send(waits, &[&format!("GET {LOW}"), &format!("GET {HIGH}")]);
    world.answers(7001, "$1\r\ny\r\n");
    world.pass(Duration::from_millis(600));
    world.send(client, &["INFO server"]);
    assert!(!world.received(7000).contains("INFO"));
    let told = "# Server\r\nredis_version:7.0.15\r\n";
    world.answers(7001, &format!("${}\r\n{told}\r\n", told.len()));
    let told = world.told(client);
    assert!(told.contains("redis_version:7.0.15"), "told without waiting: {told}");
    // It speaks again, and is asked again.
    world.answers(7000, "$1\r\nx\r\n");
    world.told(client);
    world.send(client, &["INFO server"]);
    assert!(world.received(7000).contains("INFO"));
}

#[test]
fn what_any_master_may_answer_is_asked_of_another_when_one_is_silent() {
    let mut world = World::new();
    let (warm, client) = (world.client(), world.client());
    world.send(warm, &[&format!("GET {LOW}"), &format!("GET {HIGH}")]);
    for port in [7000, 7001] {
        world.received(port);
        world.answers(port, "$1\r\ny\r\n");
    }
    world.send(client, &["FUNCTION LIST"]);
    let [first, other] = if world.received(7000).contains("LIST") { [7000, 7001] } else { [7001, 7000] };
    world.pass(Duration::from_millis(300));
    assert!(!world.received(other).contains("LIST"), "it may be slow");
    world.pass(Duration::from_millis(300));
    world.pass(Duration::from_millis(300));
    assert_eq!(world.received(other), "*2 FUNCTION LIST");
    world.answers(other, "*1\r\n+f\r\n");
    assert_eq!(world.told(client), "*1\r\n+f\r\n");
    // What the first says after all is nobody's.
    world.told(warm);
    let key = if first == 7000 { LOW } else { HIGH };
    world.send(warm, &[&format!("GET {key}")]);
    world.answers(first, "*0\r\n$1\r\nz\r\n");
    assert_eq!((world.told(client), world.told(warm)), (String::new(), "$1\r\nz\r\n".to_owned()));
}
