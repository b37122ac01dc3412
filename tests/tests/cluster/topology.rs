//! Where the map comes from: seeds that are partly dead, hostnames, empty and unreachable announced addresses, nodes
//! that restart or move to another port.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use portico::sandbox::{Cluster, ClusterOptions, Port, Server};
use portico_slots::{Address, Slot, slot};
use portico_tests::{Client, Portico, ensure_timely, on_a_calm_machine};

/// A key for each shard of three.
const KEYS: [&str; 3] = ["b", "c", "a"];

fn three_masters() -> Result<Cluster> {
    Cluster::start(ClusterOptions { node_timeout: Duration::from_secs(2), ..ClusterOptions::default() })
}

fn serves_all(client: &mut Client) -> Result<()> {
    for key in KEYS {
        client.expect(&format!("SET {key} {key}"), "+OK\r\n")?;
        client.expect(&format!("GET {key}"), &format!("$1\r\n{key}\r\n"))?;
    }
    client.expect("MGET a b c", "*3\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n")
}

/// The node that owns a slot, by asking each for its own ranges.
fn owner(cluster: &Cluster, slot: Slot) -> Result<usize> {
    for (index, server) in cluster.nodes().iter().enumerate() {
        let text = server.ask(&["CLUSTER", "NODES"])?;
        let own = text.lines().find(|line| line.contains("myself")).context("a node names itself")?;
        let ranges = own.split_whitespace().skip(8).filter_map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            Some(first.parse::<Slot>().ok()?..=last.parse::<Slot>().ok()?)
        });
        if ranges.into_iter().any(|range| range.contains(&slot)) {
            return Ok(index);
        }
    }
    anyhow::bail!("nobody owns slot {slot}")
}

/// Moves an empty slot to another node, which is told first, so that the old owner answers MOVED.
fn move_slot(cluster: &Cluster, slot: Slot) -> Result<()> {
    let from = owner(cluster, slot)?;
    let to = (from + 1) % cluster.nodes().len();
    let id = cluster.nodes()[to].ask(&["CLUSTER", "MYID"])?;
    let source = cluster.nodes()[from].ask(&["CLUSTER", "MYID"])?;
    // Only a node that was importing takes a new epoch, and so wins.
    cluster.nodes()[to].ask(&["CLUSTER", "SETSLOT", &slot.to_string(), "IMPORTING", &source])?;
    for node in [to, from] {
        cluster.nodes()[node].ask(&["CLUSTER", "SETSLOT", &slot.to_string(), "NODE", &id])?;
    }
    Ok(())
}

#[test]
fn one_living_seed_is_enough() -> Result<()> {
    let cluster = three_masters()?;
    let dead = Port::reserve()?;
    let seeds = [
        Address::new("127.0.0.1", dead.number()),
        Address::new("no-such-host.invalid", 6379),
        cluster.seeds()[1].clone(),
    ];
    let portico = Portico::start_at(&seeds, &[])?;
    serves_all(&mut portico.client()?)
}

#[test]
fn redirects_that_name_a_hostname_or_nothing_are_followed() -> Result<()> {
    let cluster = three_masters()?;
    let seed = Address::new("localhost", cluster.seeds()[0].port);
    let portico = Portico::start_at(&[seed], &["--refresh-interval", "60000"])?;
    let mut client = portico.client()?;
    serves_all(&mut client)?;
    for (endpoint, key) in [("hostname", "elsewhere"), ("unknown-endpoint", "nowhere")] {
        for server in cluster.nodes() {
            server.ask(&["CONFIG", "SET", "cluster-announce-hostname", "localhost"])?;
            server.ask(&["CONFIG", "SET", "cluster-preferred-endpoint-type", endpoint])?;
        }
        move_slot(&cluster, slot(key.as_bytes()))?;
        client.expect(&format!("SET {key} 1"), "+OK\r\n").with_context(|| endpoint)?;
        serves_all(&mut client)?;
    }
    Ok(())
}

#[test]
fn addresses_that_cannot_be_reached_from_here_are_mapped() -> Result<()> {
    let cluster = three_masters()?;
    let mut ports = Vec::new();
    let mut map = Vec::new();
    for server in cluster.nodes() {
        let announced = Port::reserve()?;
        server.ask(&["CONFIG", "SET", "cluster-announce-port", &announced.number().to_string()])?;
        map.push(format!("127.0.0.1:{}=127.0.0.1:{}", announced.number(), server.port()));
        ports.push(announced);
    }
    let portico = Portico::start(&cluster, &["--node-address-map", &map.join(",")])?;
    let mut client = portico.client()?;
    serves_all(&mut client)?;
    move_slot(&cluster, slot(b"elsewhere"))?;
    client.expect("SET elsewhere 1", "+OK\r\n")
}

#[test]
fn a_node_that_moves_to_another_port_is_found() -> Result<()> {
    on_a_calm_machine(|| {
        let cluster = three_masters()?;
        let portico = Portico::start(&cluster, &["--refresh-interval", "200"])?;
        let mut client = portico.client()?;
        serves_all(&mut client)?;
        let index = owner(&cluster, slot(b"a"))?;
        let port = Port::reserve()?;
        let old = cluster.nodes()[index].port();
        let mut direct = cluster.nodes()[index].connect()?;
        direct.ask(&["CONFIG", "SET", "port", &port.number().to_string()])?;
        direct.ask(&["CONFIG", "SET", "cluster-announce-port", &port.number().to_string()])?;
        portico.wait_for_log(&port.number().to_string(), Duration::from_secs(10))?;
        direct.ask(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"])?;
        let began = Instant::now();
        serves_all(&mut client)?;
        ensure_timely!(began.elapsed() < Duration::from_secs(5), "took {:?}", began.elapsed());
        // Where the sandbox looks for it when it ends.
        direct.ask(&["CONFIG", "SET", "port", &old.to_string()])?;
        Ok(())
    })
}

#[test]
fn requests_wait_for_a_master_that_restarts() -> Result<()> {
    let mut cluster = three_masters()?;
    let portico = Portico::start(&cluster, &[])?;
    let mut client = portico.client()?;
    serves_all(&mut client)?;
    let index = owner(&cluster, slot(b"a"))?;
    cluster.node(index).kill()?;
    client.request(&["GET", "a"])?;
    sleep(Duration::from_millis(300));
    cluster.node(index).restart()?;
    // It has no persistence: the key is gone, and the answer is a standalone's that was restarted.
    ensure!(client.reply()? == b"$-1\r\n");
    client.expect("SET a 1", "+OK\r\n")
}

#[test]
fn a_shard_that_stays_away_is_told_after_the_failover_timeout_and_slows_nobody() -> Result<()> {
    on_a_calm_machine(|| {
        let options = ClusterOptions {
            node_timeout: Duration::from_secs(2),
            extra_args: ["--cluster-require-full-coverage", "no"].map(String::from).to_vec(),
            ..ClusterOptions::default()
        };
        let mut cluster = Cluster::start(options)?;
        let portico = Portico::start(&cluster, &["--failover-timeout", "1500"])?;
        let (mut client, mut other) = (portico.client()?, portico.client()?);
        serves_all(&mut client)?;
        let index = owner(&cluster, slot(b"a"))?;
        cluster.node(index).kill()?;
        let began = Instant::now();
        client.send(&portico_tests::encode(&["GET", "a"]).repeat(20))?;
        let mut worst = Duration::ZERO;
        while began.elapsed() < Duration::from_secs(1) {
            let asked = Instant::now();
            other.expect("GET b", "$1\r\nb\r\n")?;
            worst = worst.max(asked.elapsed());
        }
        ensure_timely!(worst < Duration::from_millis(300), "another shard's client waited {worst:?}");
        for reply in client.replies(20)? {
            ensure!(reply.starts_with(b"-CLUSTERDOWN "), "{}", String::from_utf8_lossy(&reply));
        }
        let waited = began.elapsed();
        ensure_timely!(
            waited > Duration::from_millis(1400) && waited < Duration::from_secs(6),
            "told after {waited:?}"
        );
        // The connection is as good as before.
        client.expect("GET b", "$1\r\nb\r\n")
    })
}

#[test]
fn the_map_that_is_served_is_the_clusters() -> Result<()> {
    let cluster = three_masters()?;
    let portico = Portico::start(&cluster, &[])?;
    let mut client = portico.client()?;
    for number in 0..300 {
        client.expect(&format!("SET key:{number} {number}"), "+OK\r\n")?;
    }
    let mut sizes = BTreeMap::new();
    let mut sum = 0;
    for server in cluster.nodes() {
        let size: u64 = count(server)?;
        ensure!(size > 50, "the keys are spread: {size}");
        sum += size;
        sizes.insert(server.port(), size);
    }
    ensure!(sum == 300, "{sizes:?}");
    client.expect("DBSIZE", ":300\r\n")
}

fn count(server: &Server) -> Result<u64> {
    let info = server.ask(&["INFO", "keyspace"])?;
    let keys =
        info.split("keys=").nth(1).and_then(|rest| rest.split(',').next()).context("a keyspace line")?;
    Ok(keys.parse()?)
}
