//! Leased connections change hands only behind a mark: a reply that comes late is nobody else's.

use std::time::Duration;

use super::{LOW, World};
use crate::backend::{ClientKey, LinkKey};
use crate::session::Unblock;

const UNBLOCKED: &str = "-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n";

/// The connection of node 0 that was sent something with this word, and all that it was sent.
fn sent_with(world: &mut World, word: &str) -> (LinkKey, String) {
    let holds = |bytes: &Vec<u8>| bytes.windows(word.len()).any(|part| part == word.as_bytes());
    let found =
        world.links.iter().find(|(_, (port, sent))| *port == 7000 && holds(sent)).map(|(key, _)| *key);
    let key = found.unwrap_or_else(|| panic!("nothing with {word} was sent"));
    (key, world.received_on(key))
}

fn reply(world: &mut World, key: LinkKey, bytes: &str) {
    world.engine.link_input(key, bytes.as_bytes());
    world.turn();
}

/// The reply to the mark that ends what was sent.
fn mark_of(sent: &str) -> String {
    let number = sent.rsplit("ECHO ").next().expect("a mark was sent");
    assert!(!number.contains(' '), "something is behind the mark: {sent}");
    format!("${}\r\n{number}\r\n", number.len())
}

/// A client that waits on a connection of its own, which is returned with the reply to its mark.
fn blocked(world: &mut World, line: &str) -> (ClientKey, LinkKey, String) {
    let client = world.client();
    world.send(client, &[line]);
    let (link, sent) = sent_with(world, line.split(' ').next().expect("a word"));
    (client, link, mark_of(&sent))
}

/// As CLIENT UNBLOCK does, once all workers were asked.
fn begin_unblock(world: &mut World, client: ClientKey) {
    let id = world.engine.clients[client].id;
    assert!(world.engine.unblock_client(id, Unblock::Error));
    world.turn();
}

fn unblock(world: &mut World, client: ClientKey) {
    begin_unblock(world, client);
    let (control, _) = sent_with(world, "UNBLOCK");
    reply(world, control, ":1\r\n");
}

#[test]
fn a_wait_that_is_answered_twice_tells_nobody_else() {
    let mut world = World::new();
    let (first, link, mark) = blocked(&mut world, &format!("BLPOP {LOW} 5"));
    unblock(&mut world, first);
    reply(&mut world, link, UNBLOCKED);
    assert_eq!(world.told(first), UNBLOCKED, "at once");

    let second = world.client();
    world.send(second, &[&format!("WATCH {LOW}")]);
    let (other, _) = sent_with(&mut world, "WATCH");
    assert_ne!(link, other, "more may come on the first");
    let popped = format!("*2\r\n$1\r\n{LOW}\r\n$1\r\nx\r\n");
    reply(&mut world, link, &popped);
    assert_eq!(world.told(first) + &world.told(second), "");
    let (shared, sent) = sent_with(&mut world, "LPUSH");
    assert!(sent.ends_with(&format!("LPUSH {LOW} x")), "what came was put back: {sent}");
    reply(&mut world, shared, ":1\r\n");

    reply(&mut world, link, &mark);
    let third = world.client();
    world.send(third, &[&format!("WATCH {LOW}")]);
    assert!(world.received_on(link).contains("WATCH"), "now it is anybody's");
}

#[test]
fn whoever_stays_on_its_connection_is_answered_when_nothing_more_can_come() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &[&format!("WATCH {LOW}")]);
    let (link, _) = sent_with(&mut world, "WATCH");
    world.engine.link_input(link, b"+OK\r\n");
    world.send(client, &[&format!("BLPOP {LOW} 5"), &format!("GET {LOW}")]);
    let mark = mark_of(&world.received_on(link));
    world.told(client);
    unblock(&mut world, client);
    reply(&mut world, link, UNBLOCKED);
    assert_eq!(world.told(client), "", "the next request could be told the second answer");
    let popped = format!("*2\r\n$1\r\n{LOW}\r\n$1\r\nx\r\n");
    reply(&mut world, link, &popped);
    reply(&mut world, link, &mark);
    assert_eq!(world.told(client), popped);
    assert_eq!(world.received_on(link), format!("*2 GET {LOW}"));
}

#[test]
fn a_connection_on_which_more_came_than_was_asked_is_closed() {
    let mut world = World::new();
    let (client, link, mark) = blocked(&mut world, &format!("BLPOP {LOW} 5"));
    reply(&mut world, link, "*-1\r\n");
    assert_eq!(world.told(client), "*-1\r\n");
    assert_ne!(mark, "$1\r\n1\r\n");
    reply(&mut world, link, "$1\r\n1\r\n");
    assert!(!world.links.contains_key(&link));
}

#[test]
fn a_connection_is_nobodys_while_its_unblock_is_on_its_way() {
    let mut world = World::new();
    let (client, link, mark) = blocked(&mut world, &format!("BLPOP {LOW} 5"));
    begin_unblock(&mut world, client);
    let popped = format!("*2\r\n$1\r\n{LOW}\r\n$1\r\nx\r\n");
    reply(&mut world, link, &format!("{popped}{mark}"));
    assert_eq!(world.told(client), popped);
    let (_, second, _) = blocked(&mut world, &format!("BLPOP {LOW} 6"));
    assert_ne!(link, second, "it could still end another's wait");
    let (control, _) = sent_with(&mut world, "UNBLOCK");
    reply(&mut world, control, ":0\r\n");
    let third = world.client();
    world.send(third, &[&format!("BLPOP {LOW} 7")]);
    assert!(world.received_on(link).contains("BLPOP"));
}

#[test]
fn a_mark_goes_out_with_what_it_is_behind() {
    let mut world = World::new();
    let (client, link, mark) = blocked(&mut world, &format!("BLPOP {LOW} 5"));
    let nil = "*-1\r\n";
    reply(&mut world, link, &format!("{nil}{mark}"));
    for _ in 0..3 {
        world.send(client, &[&format!("BLPOP {LOW} 5")]);
        let mark = mark_of(&world.received_on(link));
        reply(&mut world, link, &format!("{nil}{mark}"));
    }
    assert_eq!(world.told(client), nil.repeat(4), "one connection, one write and one read each time");
    assert_eq!(world.received_on(link), "");
}

#[test]
fn nothing_came_is_not_said_of_a_wait_that_may_have_taken_something() {
    let mut world = World::new();
    let (client, link, _) = blocked(&mut world, &format!("BLPOP {LOW} 5"));
    world.links.remove(&link);
    world.engine.link_lost(link);
    world.pass(Duration::from_secs(1));
    let (again, sent) = sent_with(&mut world, "BLPOP");
    assert!(sent.starts_with(&format!("*3 BLPOP {LOW} 4.000 ")), "for the time that is left: {sent}");
    reply(&mut world, again, &format!("*-1\r\n{}", mark_of(&sent)));
    let told = world.told(client);
    assert!(told.starts_with("-UNKNOWN ") && told.ends_with("an element may have been taken\r\n"), "{told}");

    let (client, link, _) = blocked(&mut world, &format!("XREAD BLOCK 5000 STREAMS {LOW} 0-0"));
    world.links.remove(&link);
    world.engine.link_lost(link);
    world.pass(Duration::from_secs(1));
    let (again, _) = sent_with(&mut world, "XREAD");
    reply(&mut world, again, "*-1\r\n");
    assert_eq!(world.told(client), "*-1\r\n", "it takes nothing");
}

#[test]
fn nothing_came_is_not_said_of_a_list_that_nobody_could_ask() {
    for was_there in [false, true] {
        let mut world = World::new();
        let client = world.client();
        if was_there {
            world.send(client, &[&format!("BLPOP {LOW} 1")]);
            let (link, _) = sent_with(&mut world, "BLPOP");
            world.down = vec![7000];
            reply(&mut world, link, "-CLUSTERDOWN The cluster is down\r\n");
            world.links.remove(&link);
            world.engine.link_lost(link);
        } else {
            world.down = vec![7000];
            world.send(client, &[&format!("BLPOP {LOW} 1")]);
        }
        for _ in 0..9 {
            world.pass(Duration::from_millis(100));
        }
        assert_eq!(world.told(client), "", "its time is not over");
        for _ in 0..6 {
            world.pass(Duration::from_millis(100));
        }
        let told = world.told(client);
        assert!(told.starts_with("-CLUSTERDOWN No master for slot 3300 (127.0.0.1:7000, "), "{told}");
    }
}
