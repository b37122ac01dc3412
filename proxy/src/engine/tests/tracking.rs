//! Invalidations: what they must not overtake, and what is told when nobody knows any more.

use super::*;
use crate::engine::Note;

const NULL: &str = ">2\r\n$10\r\ninvalidate\r\n_\r\n";

fn invalid(key: &str) -> String {
    format!(">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\n{key}\r\n")
}

/// A client that tracks, in RESP3, with a connection to each node.
fn tracker(world: &mut World, options: &str) -> ClientKey {
    let client = world.client();
    world.send(client, &["HELLO 3", &format!("CLIENT TRACKING ON{options}")]);
    let told = world.told(client);
    assert!(told.starts_with('%') && told.ends_with("+OK\r\n"), "{told}");
    client
}

#[test]
fn an_invalidation_does_not_overtake_the_reply_that_it_belongs_to() {
    let mut world = World::new();
    let client = tracker(&mut world, "");
    world.send(client, &["GET b", "GET a"]);
    world.answers(7001, &format!("$1\r\n1\r\n{}", invalid("a")));
    assert_eq!(world.told(client), "", "a's value waits for b's");
    world.answers(7000, &invalid("x"));
    assert_eq!(world.told(client), "", "later than what waits");
    world.answers(7000, "$1\r\n2\r\n");
    assert_eq!(world.told(client), format!("$1\r\n2\r\n$1\r\n1\r\n{}{}", invalid("a"), invalid("x")));
    world.send(client, &["MGET a b"]);
    world.answers(7001, &format!("*1\r\n$1\r\n1\r\n{}", invalid("a")));
    assert_eq!(world.told(client), "");
    world.answers(7000, "*1\r\n$1\r\n2\r\n");
    assert_eq!(world.told(client), format!("*2\r\n$1\r\n1\r\n$1\r\n2\r\n{}", invalid("a")));
    world.answers(7000, &invalid("b"));
    assert_eq!(world.told(client), invalid("b"));
}

#[test]
fn what_several_nodes_forget_at_once_is_told_once() {
    let mut world = World::new();
    let client = tracker(&mut world, "");
    for port in [7000, 7001] {
        let lost = world.link(port);
        world.links.remove(&lost);
        world.engine.link_lost(lost);
    }
    world.turn();
    assert_eq!(world.told(client), "");
    world.pass(Duration::from_millis(10));
    assert_eq!(world.told(client), NULL);
    world.send(client, &["GET a"]);
    world.pass(Duration::from_millis(50));
    world.answers(7001, "$1\r\n1\r\n");
    assert_eq!(world.told(client), "$1\r\n1\r\n", "on a connection that tracks");
    world.answers(7001, NULL);
    world.send(client, &["PING"]);
    assert_eq!(world.told(client), format!("{NULL}+PONG\r\n"), "before what is asked after it");
}

#[test]
fn what_was_asked_before_a_slot_moved_is_forgotten_too() {
    let mut world = World::new();
    let client = tracker(&mut world, "");
    world.send(client, &["GET b"]);
    world.cluster = cluster(0);
    world.pass(Duration::from_millis(1));
    world.pass(Duration::from_millis(10));
    assert_eq!(world.told(client), NULL);
    world.answers(7000, "$-1\r\n");
    assert_eq!(world.told(client), format!("$-1\r\n{NULL}"));
}

#[test]
fn who_tracks_all_keys_has_connections_to_all_masters() {
    let mut world = World::new();
    world.down = vec![7000];
    let client = world.client();
    world.send(client, &["HELLO 3", "CLIENT TRACKING ON BCAST"]);
    assert!(!world.told(client).contains("+OK"), "one is missing");
    world.down.clear();
    (0..20).for_each(|_| world.pass(Duration::from_millis(100)));
    assert_eq!(world.told(client), "+OK\r\n");
    let lost = world.link(7000);
    world.links.remove(&lost);
    world.engine.link_lost(lost);
    (0..4).for_each(|_| world.pass(Duration::from_millis(100)));
    let told = world.told(client);
    assert_eq!(told, NULL.repeat(told.len() / NULL.len()));
    assert!(!told.is_empty());
    world.link(7000);
}

#[test]
fn what_is_said_of_the_next_keys_goes_with_them() {
    let mut world = World::new();
    let client = tracker(&mut world, " OPTIN");
    world.send(client, &["CLIENT CACHING YES", "GET b", "GET b"]);
    assert_eq!(world.received(7000), "*3 CLIENT CACHING YES *2 GET b *2 GET b");
    world.answers(7000, "+OK\r\n$1\r\n1\r\n$1\r\n1\r\n");
    assert_eq!(world.told(client), "+OK\r\n$1\r\n1\r\n$1\r\n1\r\n");
    world.send(client, &["CLIENT CACHING YES", "MGET a b"]);
    assert_eq!(world.received(7000), "*3 CLIENT CACHING YES *2 MGET b");
    assert_eq!(world.received(7001), "*3 CLIENT CACHING YES *2 MGET a");
    world.answers(7001, "+OK\r\n*1\r\n$1\r\n1\r\n");
    world.answers(7000, "+OK\r\n*1\r\n$1\r\n2\r\n");
    assert_eq!(world.told(client), "+OK\r\n*2\r\n$1\r\n1\r\n$1\r\n2\r\n");
    world.send(client, &["CLIENT CACHING YES", "MULTI", "GET b", "EXEC"]);
    assert_eq!(world.received(7000), "*1 MULTI *3 CLIENT CACHING YES *2 GET b *1 EXEC");
    world.answers(7000, "+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n+OK\r\n$1\r\n1\r\n");
    assert_eq!(world.told(client), "+OK\r\n+OK\r\n+QUEUED\r\n*1\r\n$1\r\n1\r\n");
    // ASKING and CLIENT CACHING end each other: nobody tracks it.
    world.send(client, &["CLIENT CACHING YES", "GET b"]);
    world.answers(7000, "+OK\r\n-ASK 3300 127.0.0.1:7001\r\n");
    assert_eq!(world.received(7001), "*1 ASKING *2 GET b");
    world.answers(7001, "+OK\r\n$1\r\n1\r\n");
    world.pass(Duration::from_millis(10));
    assert_eq!(world.told(client), format!("+OK\r\n$1\r\n1\r\n{NULL}"));
}

#[test]
fn what_is_redirected_goes_to_whoever_was_named() {
    let mut world = World::new();
    let (client, hearer) = (world.client(), world.client());
    world.send(hearer, &["HELLO 3"]);
    world.told(hearer);
    world.send(client, &["CLIENT TRACKING ON REDIRECT 99"]);
    // Worker 1 has it.
    world.engine.gathered(client, 0, 1, b"4294967297");
    world.turn();
    assert_eq!(world.told(client), "+OK\r\n");
    let listener = world.engine.links.iter().find(|(_, link)| {
        link.node == node(7000) && world.engine.lanes[link.lane.index()].listens_for.is_some()
    });
    let listener = listener.expect("one listens").0;
    world.engine.link_input(listener, invalid("b").as_bytes());
    let told = world.engine.take_effects();
    let [Effect::Tell(1, note)] = &told[..] else { panic!("{told:?}") };
    let Note::Invalid { tracker, keys, .. } = note else { panic!("{note:?}") };
    assert_eq!((*tracker, &keys[..]), ((0, client), &b"*1\r\n$1\r\nb\r\n"[..]));
    // Here it is heard, and there it is told that the client has gone.
    let note = Note::Invalid { hearer, tracker: (1, client), keys: keys.clone() };
    world.engine.noted(note.clone());
    world.turn();
    assert_eq!(world.told(hearer), invalid("b"));
    world.engine.client_gone(hearer);
    world.engine.noted(note);
    let told = world.engine.take_effects();
    assert!(matches!(told[..], [Effect::Tell(1, Note::Broken(key))] if key == client), "{told:?}");
    world.engine.noted(Note::Broken(client));
    world.send(client, &["CLIENT TRACKINGINFO"]);
    assert!(world.told(client).contains("broken_redirect"));
}

#[test]
fn a_client_that_stops_tracking_shares_connections_again() {
    let mut world = World::new();
    let client = tracker(&mut world, "");
    assert_eq!(world.engine.shared.tracking_clients(), 1);
    world.send(client, &["CLIENT TRACKING OFF", "GET a"]);
    world.answers(7001, "$1\r\n1\r\n");
    assert_eq!(world.told(client), "+OK\r\n$1\r\n1\r\n");
    assert_eq!(world.engine.shared.tracking_clients(), 0);
    let leased = |link: &crate::engine::Link| link.lane.is_leased();
    assert!(!world.engine.links.values().any(leased), "they are closed");
}
