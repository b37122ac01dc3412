//! What one client may have on its way to it, so that others are answered in time.

use super::{LOW, World};
use crate::backend::ClientKey;

/// A reply of 100 kB.
fn large() -> String {
    format!("$100000\r\n{}\r\n", "x".repeat(100_000))
}

/// How many requests a node was sent since it was last asked.
fn requests(world: &mut World) -> usize {
    world.received(7000).matches("*2 GET").count()
}

/// The client reads so many bytes; before, nothing that it is told leaves Portico.
fn reads(world: &mut World, client: ClientKey, bytes: usize) {
    world.engine.client_told(client, bytes);
    world.turn();
}

#[test]
fn a_pipeline_of_large_replies_is_sent_little_by_little() {
    let mut world = World::new();
    let (flood, other) = (world.client(), world.client());
    let get = format!("GET {LOW}");
    world.send(flood, &[get.as_str(); 500]);
    let first = requests(&mut world);
    assert!((30..=40).contains(&first), "nothing is known of it: {first}");
    world.answers(7000, &large().repeat(first));
    let second = requests(&mut world);
    assert!((10..=12).contains(&second), "a megabyte: {second}");
    world.send(other, &[&get]);
    assert_eq!(requests(&mut world), 1, "nobody waits for another's share");
    world.answers(7000, &large().repeat(second + 1));
    assert_eq!(world.told(other).len(), large().len());
    let mut sent = first + second;
    while sent < 500 {
        let more = requests(&mut world);
        assert!((1..=12).contains(&more), "{more} after {sent}");
        world.answers(7000, &large().repeat(more));
        sent += more;
    }
    assert_eq!(world.told(flood).len(), 500 * large().len());
    // Small ones are sent all at once again, soon.
    world.send(flood, &[get.as_str(); 300]);
    while requests(&mut world) > 0 {
        let waiting = world.engine.links[world.link(7000)].pipe.len();
        world.answers(7000, &"$1\r\nx\r\n".repeat(waiting));
    }
    world.send(flood, &[get.as_str(); 1000]);
    assert_eq!(requests(&mut world), 1000);
}

#[test]
fn on_a_crowded_connection_each_client_has_one_request_on_its_way() {
    let mut world = World::new();
    let clients: Vec<ClientKey> = (0..300).map(|_| world.client()).collect();
    let get = format!("GET {LOW}");
    world.send(clients[0], &[&get]);
    for _ in 0..100 {
        requests(&mut world);
        world.answers(7000, &large());
        world.send(clients[0], &[&get]);
    }
    requests(&mut world);
    clients[1..].iter().for_each(|client| world.send(*client, &[get.as_str(); 200]));
    let sent = requests(&mut world);
    assert!((299..=450).contains(&sent), "{sent}");
    // Those that leave take with them what was not sent.
    clients[1..].iter().for_each(|client| world.engine.client_gone(*client));
    world.answers(7000, &large().repeat(sent + 1));
    assert_eq!(requests(&mut world), 0);
    world.told(clients[0]);
    world.send(clients[0], &[&get]);
    assert_eq!(requests(&mut world), 1);
}

#[test]
fn who_does_not_read_is_asked_nothing_for_but_still_heard() {
    let mut world = World::new();
    let client = world.client();
    let get = format!("GET {LOW}");
    world.deaf.push(client);
    world.send(client, &[get.as_str(); 200]);
    let mut sent = 0;
    loop {
        let more = requests(&mut world);
        if more == 0 {
            break;
        }
        sent += more;
        world.answers(7000, &large().repeat(more));
    }
    assert!((30..60).contains(&sent), "some megabytes are held, not all: {sent}");
    assert!(
        world.engine.client_input(client, format!("{get}\r\nSET {LOW} 1\r\n").as_bytes()),
        "it is read on"
    );
    reads(&mut world, client, 100_000);
    assert_eq!(requests(&mut world), 0, "that is too little");
    world.deaf.clear();
    let mut told = world.engine.clients[client].untold();
    reads(&mut world, client, told);
    while !world.engine.links[world.link(7000)].pipe.is_empty() {
        let text = world.received(7000);
        let (gets, sets) = (text.matches("*2 GET").count(), text.matches("*3 SET").count());
        sent += gets;
        world.answers(7000, &(large().repeat(gets) + &"+OK\r\n".repeat(sets)));
        told += world.told(client).len();
    }
    assert_eq!(sent, 201);
    assert_eq!(told + 100_000, 201 * large().len() + 5);
}
