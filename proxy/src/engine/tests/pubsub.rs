//! SUBSCRIBE and its like: when they are answered, and what happens meanwhile.

use super::*;
use crate::session::ClientFlags;

/// What a node is sent for one channel, and answers.
fn asked(verb: &str, channel: &str) -> String {
    format!("*2 {verb} {channel} *2 CLIENT ID")
}

fn confirmed(verb: &str, channel: &str) -> String {
    format!(">3\r\n${}\r\n{verb}\r\n${}\r\n{channel}\r\n:1\r\n:7\r\n", verb.len(), channel.len())
}

fn told(verb: &str, channel: &str, count: usize) -> String {
    format!("*3\r\n${}\r\n{verb}\r\n${}\r\n{channel}\r\n:{count}\r\n", verb.len(), channel.len())
}

/// Somebody listens at both nodes.
fn listening() -> World {
    let mut world = World::new();
    let client = world.client();
    for (port, channel) in [(7000, "{b}"), (7001, "{a}")] {
        world.send(client, &[&format!("SUBSCRIBE {channel}")]);
        assert_eq!(world.received(port), asked("SUBSCRIBE", channel));
        world.answers(port, &confirmed("subscribe", channel));
    }
    assert_eq!(world.told(client), told("subscribe", "{b}", 1) + &told("subscribe", "{a}", 2));
    world.pass(Duration::from_millis(600));
    world
}

#[test]
fn several_channels_are_confirmed_when_the_last_one_is_and_none_was_lost_meanwhile() {
    let mut world = listening();
    let client = world.client();
    world.send(client, &["SUBSCRIBE b a"]);
    assert_eq!(world.received(7000), asked("SUBSCRIBE", "b"));
    assert_eq!(world.received(7001), asked("SUBSCRIBE", "a"));
    world.answers(7000, &confirmed("subscribe", "b"));
    let lost = world.link(7000);
    world.links.remove(&lost);
    world.engine.link_lost(lost);
    world.answers(7001, &confirmed("subscribe", "a"));
    assert_eq!(world.told(client), "", "b is not subscribed any more");
    world.pass(Duration::from_millis(300));
    let again = world.received(7000);
    assert!(again.contains("SUBSCRIBE") && again.contains(" b"), "{again}");
    world.answers(7000, &confirmed("subscribe", "b"));
    assert_eq!(world.told(client), told("subscribe", "b", 1) + &told("subscribe", "a", 2));
}

#[test]
fn who_waits_for_a_node_is_looked_at_now_and_then_and_told_in_the_end() {
    let mut world = listening();
    let client = world.client();
    world.send(client, &["SUBSCRIBE b"]);
    assert!(world.engine.hub_anxious, "nobody waits for ever");
    assert!(
        world.engine.next_review > world.now + Duration::from_millis(100),
        "nothing can be done but wait"
    );
    world.pass(Config::default().failover_timeout);
    assert!(world.told(client).starts_with("-CLUSTERDOWN"));
    // Nor do those who listen already go on listening to a node that says nothing.
    world.pass(Duration::from_secs(1));
    let again = world.received(7001);
    assert!(again.contains("SUBSCRIBE") && again.contains(" {b}"), "{again}");
    world.answers(7001, &confirmed("subscribe", "{b}"));
    world.pass(Duration::from_secs(1));
    assert!(!world.engine.hub_anxious);
}

#[test]
fn a_channel_that_is_asked_for_twice_in_a_pipeline_is_waited_for_twice() {
    let mut world = listening();
    let client = world.client();
    world.send(client, &["SUBSCRIBE b b", "SUBSCRIBE a", "SUBSCRIBE b"]);
    assert_eq!(world.received(7000), asked("SUBSCRIBE", "b"), "once");
    world.answers(7000, &confirmed("subscribe", "b"));
    assert_eq!(world.told(client), told("subscribe", "b", 1).repeat(2));
    world.send(client, &["PING"]);
    assert_eq!(world.received(7000), "", "it is waited for still");
    world.answers(7001, &confirmed("subscribe", "a"));
    let rest = told("subscribe", "a", 2) + &told("subscribe", "b", 2);
    assert_eq!(world.told(client), rest + "*2\r\n$4\r\npong\r\n$0\r\n\r\n");
}

#[test]
fn who_leaves_several_channels_is_told_so_when_all_nodes_know() {
    let mut world = listening();
    let (client, other) = (world.client(), world.client());
    world.send(client, &["SUBSCRIBE b a"]);
    world.send(other, &["SUBSCRIBE b"]);
    world.answers(7000, &confirmed("subscribe", "b"));
    world.answers(7001, &confirmed("subscribe", "a"));
    world.told(client);
    assert_eq!(world.told(other), told("subscribe", "b", 1));
    world.received(7000);
    world.received(7001);
    world.send(client, &["UNSUBSCRIBE b a a none"]);
    assert_eq!((world.received(7000), world.received(7001)), (String::new(), asked("UNSUBSCRIBE", "a")));
    world.send(other, &["UNSUBSCRIBE b"]);
    assert_eq!(world.received(7000), asked("UNSUBSCRIBE", "b"));
    assert_eq!(world.told(client) + &world.told(other), "");
    world.answers(7001, &confirmed("unsubscribe", "a"));
    let left = ["b:1", "a:0", "a:0", "none:0"].map(|left| {
        let (name, count) = left.split_once(':').expect("a name and a count");
        told("unsubscribe", name, usize::from(count == "1"))
    });
    assert_eq!(world.told(client), left.concat());
    let lost = world.link(7000);
    world.links.remove(&lost);
    world.engine.link_lost(lost);
    world.turn();
    assert_eq!(world.told(other), told("unsubscribe", "b", 0), "a lost connection has left all");
}

#[test]
fn what_an_agent_was_told_last_in_a_turn_does_not_wait_for_the_next_event() {
    let mut world = World::new();
    let client = world.client();
    world.engine.client_input(client, b"MULTI\r\nCLIENT LIST FOO\r\nEXEC\r\nPING\r\n");
    world.engine.begin_turn(world.now, &world.cluster);
    world.engine.end_turn();
    let mut clients = Vec::new();
    world.engine.take_dirty_clients(&mut clients);
    for key in clients {
        if world.engine.client_mut(key).is_some_and(|client| client.flags.has(ClientFlags::AGENT)) {
            world.engine.agent_told(key);
        }
    }
    assert_eq!(world.engine.sleep(), Duration::ZERO);
}
