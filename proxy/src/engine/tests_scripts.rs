//! Scripts without sockets: which connection is given which text, and in which order.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use sha1::Digest as _;

use super::tests::{World, cluster};
use crate::backend::{Lane, LinkKey};
use crate::scripts::Function;

const LOAD: &str = "*3 SCRIPT LOAD return1";
const NOSCRIPT: &str = "-NOSCRIPT No matching script. Please use EVAL.\r\n";

/// What calls `return1` with a key.
fn call(key: &str) -> String {
    let sha: String = sha1::Sha1::digest(b"return1").iter().map(|byte| format!("{byte:02x}")).collect();
    format!("EVALSHA {sha} 1 {key}")
}

/// A world in which `return1` was run on node 0.
fn world() -> World {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["EVAL return1 1 b"]);
    assert_eq!(world.received(7000), "*4 EVAL return1 1 b");
    world.answers(7000, ":1\r\n");
    world.told(client);
    world.send(client, &["GET b"]); // on the connection that all share
    assert_eq!(world.received(7000), "*2 GET b");
    world.answers(7000, "$-1\r\n");
    world
}

#[test]
fn an_evalsha_is_preceded_by_its_script_once_on_each_connection() {
    let mut world = world();
    let (client, high, low) = (world.client(), call("a"), call("b"));
    world.send(client, &[&high, &low, &high]);
    assert_eq!(world.received(7001), format!("{LOAD} *4 {high} *4 {high}"));
    assert_eq!(world.received(7000), format!("{LOAD} *4 {low}"), "the EVAL may have been refused");
    world.answers(7001, "$1\r\nx\r\n:1\r\n:3\r\n");
    world.answers(7000, "$1\r\nx\r\n:2\r\n");
    assert_eq!(world.told(client), ":1\r\n:2\r\n:3\r\n");
    world.send(client, &[&high, "EVALSHA x 1 a", "EVALSHA ffffffffffffffffffffffffffffffffffffffff 1 a"]);
    assert!(!world.received(7001).contains("LOAD"));
    // A new connection may lead to another process.
    let lost = world.link(7001);
    world.links.remove(&lost);
    world.engine.link_lost(lost);
    world.pass(Duration::from_millis(50));
    let other = world.client();
    world.send(other, &[&high]);
    assert_eq!(world.received(7001), format!("{LOAD} *4 {high}"));
}

/// Answers the one connection of a client's own.
fn answer_own(world: &mut World, reply: &str) {
    answer_marks(world);
    let own = world.own_links(7000);
    assert_eq!(own.len(), 1, "one waits");
    world.engine.link_input(own[0], reply.as_bytes());
    world.turn();
}

/// Answers the marks behind which clients' own connections may be others'.
fn answer_marks(world: &mut World) {
    for own in world.own_links(7000) {
        let sent = world.received_on(own);
        if let Some((_, number)) = sent.rsplit_once("ECHO ") {
            world.engine.link_input(own, format!("${}\r\n{number}\r\n", number.len()).as_bytes());
            world.turn();
        }
    }
}

/// A node has listed its functions: there is `f`.
fn list_function(world: &World) {
    let functions = &world.engine.shared.scripts.functions;
    let f = Function { library: Arc::default(), no_writes: false };
    functions.settle(functions.doubts().unwrap_or_default(), Some(HashMap::from([(b"f"[..].into(), f)])));
}

#[test]
fn a_script_has_a_connection_of_its_own_until_it_was_seen_to_end_soon() {
    let mut world = world();
    let (client, other, shared) = (world.client(), world.client(), world.link(7000));
    let busy = "-BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.\r\n";
    let calls = ["EVAL new 1 b", "FCALL f 1 b"];
    list_function(&world);
    for call in calls {
        world.send(client, &[call, "GET b"]);
        world.send(other, &["GET b"]);
        assert_eq!(world.received_on(shared), "*2 GET b", "nothing stands behind it");
        world.engine.link_input(shared, b"$1\r\nx\r\n");
        answer_own(&mut world, busy);
        assert_eq!(world.received_on(shared), "*2 GET b", "the next one is everybody's again");
        world.engine.link_input(shared, b"$1\r\ny\r\n");
        world.turn();
        assert_eq!(world.told(client), format!("{busy}$1\r\ny\r\n"));
        world.send(client, &[call]);
        assert_eq!(world.received_on(shared), "", "a refusal tells nothing");
        answer_own(&mut world, ":1\r\n");
        world.send(client, &[call]);
        assert_eq!(world.received_on(shared), format!("*4 {call}"));
        world.engine.link_input(shared, b":1\r\n");
        world.turn();
        assert_eq!(world.told(client), ":1\r\n:1\r\n");
    }
    // What a name stands for may be another function.
    world.send(other, &["FUNCTION FLUSH"]);
    assert_eq!(world.received_on(shared), "*2 FUNCTION FLUSH");
    world.engine.link_input(shared, b"+OK\r\n");
    world.turn();
    list_function(&world);
    world.send(client, &calls);
    assert_eq!(world.received_on(shared), "*4 EVAL new 1 b");
    world.engine.link_input(shared, b":1\r\n");
    world.turn();
    answer_own(&mut world, ":1\r\n");
}

#[test]
fn a_transaction_with_a_script_that_was_never_seen_has_a_connection_of_its_own() {
    let mut world = world();
    let (client, shared) = (world.client(), world.link(7000));
    let transaction = ["MULTI", "EVAL new 1 b", "SET b 1", "EXEC"];
    world.send(client, &transaction);
    assert_eq!(world.received_on(shared), "");
    answer_own(&mut world, "+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n:1\r\n+OK\r\n");
    assert!(world.told(client).ends_with("*2\r\n:1\r\n+OK\r\n"));
    world.send(client, &transaction);
    assert_eq!(world.received_on(shared), "*1 MULTI *4 EVAL new 1 b *3 SET b 1 *1 EXEC");
}

#[test]
fn a_script_that_runs_long_has_a_connection_of_its_own() {
    let mut world = world();
    let (client, other, shared) = (world.client(), world.client(), world.link(7000));
    let call = "EVAL return1 1 b";
    world.send(client, &[call, "GET b"]);
    assert_eq!(world.received_on(shared), format!("*4 {call} *2 GET b"), "it was seen to end soon");
    world.pass(Duration::from_millis(110));
    world.pass(Duration::from_millis(110));
    // Nothing more stands behind it.
    world.send(other, &["GET b"]);
    let takes_its_place = |key: &&LinkKey| {
        let link = world.engine.links.get(**key).expect("it is there");
        !link.lane.is_leased() && link.lane != Lane::CONTROL && **key != shared && world.links[*key].0 == 7000
    };
    let second = *world.links.keys().find(takes_its_place).expect("there is another");
    assert_eq!(world.received_on(second), "*2 GET b");
    world.send(client, &["GET b"]);
    assert_eq!(world.received_on(second), "", "in the client's order");
    world.engine.link_input(shared, b":1\r\n$1\r\nx\r\n");
    world.turn();
    assert_eq!(world.told(client), ":1\r\n$1\r\nx\r\n");
    assert_eq!(world.received_on(second), "*2 GET b");
    world.engine.link_input(second, b"$1\r\nx\r\n$1\r\nx\r\n");
    world.turn();
    world.send(client, &[call]);
    assert_eq!(world.received_on(second), "");
    world.pass(Duration::from_millis(110));
    world.pass(Duration::from_millis(110));
    assert!(world.engine.links.get(shared).is_none(), "it is done with");
    answer_own(&mut world, ":1\r\n");
    // Nobody has seen it run long since.
    world.pass(Duration::from_secs(61));
    world.send(client, &[call]);
    answer_own(&mut world, ":1\r\n");
    world.send(client, &[call]);
    assert_eq!(world.received_on(second).split(' ').take(2).collect::<String>(), "*1PING");
}

#[test]
fn few_scripts_are_tried_at_a_time() {
    let mut world = world();
    answer_marks(&mut world);
    let clients: Vec<_> = (0..40).map(|_| world.client()).collect();
    clients.iter().for_each(|client| world.send(*client, &["EVAL new 1 b"]));
    let own = world.own_links(7000);
    assert_eq!(own.len(), 16);
    world.engine.link_input(own[0], b":1\r\n");
    world.turn();
    // Now it is known to end soon.
    assert_eq!(world.received(7000), ["*4 EVAL new 1 b"; 24].join(" "));
}

#[test]
fn asking_stays_right_before_what_it_is_for() {
    let mut world = world();
    let (client, low) = (world.client(), call("b"));
    world.send(client, &[&low]);
    assert_eq!(world.received(7000), format!("{LOAD} *4 {low}"));
    world.send(client, &["GET a"]);
    world.received(7001);
    world.answers(7001, "$-1\r\n");
    world.answers(7000, "$1\r\nx\r\n-ASK 3300 127.0.0.1:7001\r\n");
    assert_eq!(world.received(7001), format!("{LOAD} *1 ASKING *4 {low}"));
    world.answers(7001, "$1\r\nx\r\n+OK\r\n:1\r\n");
    assert_eq!(world.told(client), ":1\r\n$-1\r\n");
}

#[test]
fn a_transactions_scripts_are_given_before_it() {
    let mut world = world();
    let (client, high) = (world.client(), call("a"));
    world.send(client, &["MULTI", "EVAL return2 1 a", &high, &high, "EXEC"]);
    let queued = format!("*4 EVAL return2 1 a *4 {high} *4 {high}");
    assert_eq!(world.received(7001), format!("{LOAD} *1 MULTI {queued} *1 EXEC"));
    world.told(client);
    let queued = "+QUEUED\r\n".repeat(3);
    world.answers(7001, &format!("$1\r\nx\r\n+OK\r\n{queued}*3\r\n:2\r\n:1\r\n:1\r\n"));
    assert_eq!(world.told(client), "*3\r\n:2\r\n:1\r\n:1\r\n");
}

#[test]
fn a_transactions_scripts_follow_it_to_another_node() {
    let mut world = world();
    let (client, low) = (world.client(), call("b"));
    world.send(client, &["MULTI", &low, "EXEC"]);
    world.received(7000);
    world.cluster = cluster(0);
    world.answers(7000, "$1\r\nx\r\n+OK\r\n-MOVED 3300 127.0.0.1:7001\r\n-EXECABORT Transaction discarded because of previous errors.\r\n");
    assert_eq!(world.received(7001), format!("{LOAD} *1 MULTI *4 {low} *1 EXEC"));
}

#[test]
fn a_script_that_was_flushed_behind_our_back_is_given_again_once() {
    let mut world = world();
    let (client, low) = (world.client(), call("b"));
    world.send(client, &[&low]);
    world.answers(7000, "$1\r\nx\r\n:1\r\n");
    world.received(7000);
    world.send(client, &[&low]);
    assert_eq!(world.received(7000), format!("*4 {low}"));
    world.answers(7000, NOSCRIPT);
    assert_eq!(world.received(7000), format!("{LOAD} *4 {low}"));
    world.answers(7000, &format!("$1\r\nx\r\n{NOSCRIPT}"));
    assert_eq!(world.told(client), format!(":1\r\n{NOSCRIPT}"), "not again and again");
    // What came behind on the slot may have run: the order would be another.
    world.send(client, &[&low, "GET b"]);
    world.answers(7000, &format!("{NOSCRIPT}$-1\r\n"));
    assert_eq!(world.told(client), format!("{NOSCRIPT}$-1\r\n"));
    // What a script says of its own accord is its reply.
    world.send(client, &[&low]);
    world.answers(7000, "$1\r\nx\r\n-NOSCRIPT of mine\r\n");
    assert_eq!(world.told(client), "-NOSCRIPT of mine\r\n");
}

#[test]
fn a_flush_forgets_the_scripts() {
    let mut world = world();
    let (client, low) = (world.client(), call("b"));
    world.send(client, &[&low]);
    world.answers(7000, "$1\r\nx\r\n:1\r\n");
    world.send(client, &["PING", "SCRIPT FLUSH", &low]);
    world.answers(7001, "+OK\r\n");
    assert_eq!(world.told(client), ":1\r\n+PONG\r\n");
    world.answers(7000, &format!("+OK\r\n{NOSCRIPT}"));
    assert_eq!(world.told(client), format!("+OK\r\n{NOSCRIPT}"));
}

#[test]
fn a_running_script_is_killed_on_another_connection() {
    let mut world = world();
    let (client, other, low) = (world.client(), world.client(), call("b"));
    world.send(client, &[&low]);
    world.send(other, &["SCRIPT KILL", "GET a"]);
    for (port, reply) in [(7001, "-NOTBUSY No scripts in execution right now.\r\n"), (7000, "+OK\r\n")] {
        let key = world.link_of(port, true).expect("a connection of Portico's own");
        assert_eq!(world.received_on(key), "*2 SCRIPT KILL");
        assert_eq!(world.told(other), "");
        world.engine.link_input(key, reply.as_bytes());
        world.turn();
    }
    assert_eq!(world.told(other), "+OK\r\n");
    assert_eq!(world.told(client), "");
    assert_eq!(world.received(7001), "*2 GET a", "in its turn");
}

#[test]
fn a_function_is_called_once_it_is_known_what_its_library_calls() {
    let mut world = world();
    let (client, call) = (world.client(), "FCALL f 1 b");
    world.send(client, &[call]);
    assert_eq!(world.received(7000), "", "a node is to list it first");
    list_function(&world);
    world.pass(Duration::from_millis(10));
    assert!(
        world
            .links
            .keys()
            .copied()
            .collect::<Vec<_>>()
            .iter()
            .any(|&key| world.received_on(key).contains(call))
    );
    // One that is not listed either is the node's to refuse.
    let other = world.client();
    world.send(other, &["FCALL none 1 b"]);
    list_function(&world);
    world.pass(Duration::from_millis(10));
    let told: Vec<_> = world.links.keys().copied().collect();
    assert!(told.iter().any(|&key| world.received_on(key).contains("FCALL none 1 b")));
}
