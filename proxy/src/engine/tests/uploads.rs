//! A large request that is answered before its end: what follows of it is still its own.

use super::{LOW, World};

#[test]
fn the_rest_of_a_request_that_was_refused_early_is_nobody_elses() {
    const SIZE: usize = 2 << 20;
    let mut world = World::new();
    let (large, other) = (world.client(), world.client());
    let head = format!("*3\r\n$3\r\nSET\r\n$1\r\n{LOW}\r\n${SIZE}\r\n");
    world.engine.client_input(large, head.as_bytes());
    world.turn();
    let links = &world.engine.links;
    let own = world.links.keys().copied().find(|&key| links[key].leased_to == Some(large));
    world.engine.link_input(own.expect("a connection of its own"), b"-NOPERM no\r\n");
    world.turn();
    assert_eq!(world.told(large), "-NOPERM no\r\n");

    world.send(other, &[&format!("GET {LOW}")]); // waits, with buffers that may have been anybody's
    let mut rest = vec![b'x'; SIZE];
    rest.extend_from_slice(b"\r\nPING\r\n");
    world.engine.client_input(large, &rest);
    world.turn();
    assert_eq!(world.told(large), "+PONG\r\n");
    world.answers(7000, "$1\r\nv\r\n");
    assert_eq!(world.told(other), "$1\r\nv\r\n");
}
