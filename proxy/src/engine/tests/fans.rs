//! Requests with very many parts: a few are on their way at once, and nothing overtakes the rest.

use super::World;
use crate::session::Unsent;

fn bulk(word: &str) -> String {
    format!("${}\r\n{word}\r\n", word.len())
}

/// Answers all that both nodes were sent: a key's value is its name. Returns how many requests of each kind that were.
fn answer_all(world: &mut World) -> (usize, usize) {
    let (mut parts, mut writes) = (0, 0);
    let received = [7000, 7001].map(|port| (port, world.received(port)));
    for (port, text) in received {
        let mut replies = String::new();
        for request in text.split('*').filter(|request| !request.is_empty()) {
            match *request.split_whitespace().skip(1).collect::<Vec<_>>() {
                ["MGET", ref keys @ ..] => {
                    replies.push_str(&format!("*{}\r\n", keys.len()));
                    replies.extend(keys.iter().map(|key| bulk(key)));
                    parts += 1;
                }
                ["GET", key] => replies.push_str(&bulk(key)),
                _ => {
                    replies.push_str("+OK\r\n");
                    writes += 1;
                }
            }
        }
        world.answers(port, &replies);
    }
    (parts, writes)
}

#[test]
fn a_request_with_very_many_parts_leaves_room_for_others() {
    const KEYS: usize = 3000;
    let keys: Vec<String> = (0..KEYS).map(|number| format!("k{number}")).collect();
    let mut world = World::new();
    let (large, other) = (world.client(), world.client());
    world.send(large, &[&format!("MGET {}", keys.join(" ")), "SET k2999 late"]);
    world.send(other, &["GET k1"]);
    let mut rounds = Vec::new();
    while rounds.last().is_none_or(|&(_, writes)| writes == 0) {
        rounds.push(answer_all(&mut world));
        if rounds.len() == 1 {
            assert_eq!(world.told(other), bulk("k1"), "it stood behind a few parts");
        }
        assert!(rounds.len() < 20, "it goes on: {rounds:?}");
    }
    let most = rounds.iter().map(|&(parts, _)| parts).max();
    assert!(rounds.len() > 3 && most <= Some(Unsent::MOST_SENT), "{rounds:?}");
    assert_eq!(rounds.last(), Some(&(0, 1)), "the write went when all was answered");
    let values: String = keys.iter().map(|key| bulk(key)).collect();
    assert_eq!(world.told(large), format!("*{KEYS}\r\n{values}+OK\r\n"));
}
