//! A defect that a reply or a request brings out ends one client, and neither its worker nor anybody else's wait.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{HIGH, LOW, World};

const DEFECT: &str = "+a-defect\r\n";

/// As the shell does when a node's bytes cannot be handled.
fn fails(world: &mut World, port: u16, bytes: &str) {
    let link = world.link(port);
    let engine = &mut world.engine;
    let failed = catch_unwind(AssertUnwindSafe(|| engine.link_input(link, bytes.as_bytes())));
    assert!(failed.is_err());
    world.links.remove(&link);
    world.engine.link_failed(link);
    world.turn();
}

#[test]
fn a_reply_that_cannot_be_handled_ends_its_client_and_nobody_elses_wait() {
    let mut world = World::new();
    let (hit, behind, elsewhere) = (world.client(), world.client(), world.client());
    world.send(hit, &[&format!("GET {LOW}")]);
    world.send(behind, &[&format!("GET {LOW}")]);
    world.send(elsewhere, &[&format!("GET {HIGH}")]);
    fails(&mut world, 7000, DEFECT);
    assert!(!world.engine.clients.contains_key(hit), "it would wait for ever");
    world.answers(7000, "$1\r\nx\r\n");
    world.answers(7001, "$1\r\ny\r\n");
    assert_eq!((world.told(behind), world.told(elsewhere)), ("$1\r\nx\r\n".into(), "$1\r\ny\r\n".into()));
}

#[test]
fn a_request_that_cannot_be_sent_again_ends_its_client_alone() {
    let mut world = World::new();
    let (hit, other) = (world.client(), world.client());
    world.send(hit, &[&format!("SET {LOW} a-defect")]);
    world.send(other, &[&format!("SET {LOW} fine")]);
    let moved = "-MOVED 3300 127.0.0.1:7001\r\n";
    world.answers(7000, &moved.repeat(2));
    assert!(!world.engine.clients.contains_key(hit));
    assert_eq!(world.received(7001), format!("*3 SET {LOW} fine"));
    world.answers(7001, "+OK\r\n");
    assert_eq!(world.told(other), "+OK\r\n");
}

#[test]
fn an_agent_that_fails_ends_whoever_waits_for_it() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["MULTI", "KEYS *", "EXEC"]);
    for port in [7000, 7001] {
        world.answers(port, "*1\r\n$8\r\na-defect\r\n");
    }
    assert!(!world.engine.clients.contains_key(client), "it would wait for ever");
    let other = world.client();
    world.send(other, &[&format!("GET {LOW}")]);
    world.answers(7000, "$1\r\nx\r\n");
    assert_eq!(world.told(other), "$1\r\nx\r\n");
}
