//! Clients that wait: they are woken wherever the push goes, cost others nothing, and can be sent away.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use portico::sandbox::{Cluster, ClusterOptions, Server, ServerOptions};
use portico_tests::live::{SlotMove, error_count, key_in_slot, open_slot, wait_until};
use portico_tests::{Client, Portico, encode, ensure_timely, on_a_calm_machine};

const CROWD: usize = 1000;
/// Slots of three shards.
const APART: [u16; 3] = [700, 8_000, 15_000];

/// How many clients wait at a node for something to be pushed.
fn waiting_at(node: &Server) -> Result<usize> {
    let info = node.ask(&["INFO", "clients"])?;
    let line = info.lines().find_map(|line| line.strip_prefix("blocked_clients:"));
    Ok(line.context("no blocked_clients")?.trim().parse()?)
}

fn wait_for_waiting(nodes: &[Server], count: usize) -> Result<()> {
    wait_until(Duration::from_secs(10), &format!("{count} clients wait"), || {
        Ok(nodes.iter().map(waiting_at).sum::<Result<usize>>()? == count)
    })
}

#[test]
fn whoever_waits_while_his_slot_opens_is_woken_by_a_push_at_the_target() -> Result<()> {
    on_a_calm_machine(|| {
        let cluster = Cluster::start(ClusterOptions::default())?;
        let portico = Portico::start(&cluster, &[])?;
        let (nodes, mut pusher) = (cluster.nodes(), portico.client()?);
        let cases = [
            ("BLPOP KEY 10", "RPUSH KEY e", "*2\\r\\n"),
            ("BRPOP KEY 0", "LPUSH KEY e", "*2\\r\\n"),
            ("BLMPOP 10 1 KEY LEFT", "RPUSH KEY e", "*2\\r\\n"),
            ("BZPOPMIN KEY 10", "ZADD KEY 1 e", "*3\\r\\n"),
            ("XREAD BLOCK 10000 STREAMS KEY $", "XADD KEY 1-1 field e", "*1\\r\\n"),
        ];
        for (number, (waits, pushes, due)) in (0u16..).zip(cases) {
            let slot = 1_000 + number;
            let key = key_in_slot(slot, "waits");
            let mut waiter = portico.client()?;
            waiter.send(&portico_tests::encode_line(&waits.replace("KEY", &key)))?;
            wait_for_waiting(nodes, 1)?;
            let asked = error_count(&nodes[0], "ASK")?;
            open_slot(&nodes[0], &nodes[1], slot)?;
            sleep(Duration::from_millis(100));
            ensure!(waiter.within(Duration::from_millis(10))?.is_none(), "{waits}: it was told of the move");
            let pushed = Instant::now();
            let reply = pusher.text(&pushes.replace("KEY", &key))?;
            let woken = waiter.within(Duration::from_secs(1))?;
            let woken = portico_tests::show(
                &woken.with_context(|| format!("{pushes} ({reply}) did not wake {waits}"))?,
            );
            println!("waiting: {waits}: woken after {:?}", pushed.elapsed());
            ensure!(woken.starts_with(due) && woken.contains("$1\\r\\ne\\r\\n"), "{waits}: {woken}");
            ensure!(error_count(&nodes[0], "ASK")? > asked, "{pushes} did not go by ASK");
            wait_for_waiting(nodes, 0)?;
        }
        // And when the slot is another node's for good.
        for (number, (waits, pushes, due)) in (0u16..).zip(cases) {
            let slot = 2_000 + number;
            let key = key_in_slot(slot, "waits");
            let mut waiter = portico.client()?;
            waiter.send(&portico_tests::encode_line(&waits.replace("KEY", &key)))?;
            wait_for_waiting(nodes, 1)?;
            SlotMove { cluster: &cluster, pause: Duration::from_millis(1) }.run(slot, 0, 2)?;
            let reply = pusher.text(&pushes.replace("KEY", &key))?;
            let woken = waiter.within(Duration::from_secs(1))?;
            let woken = portico_tests::show(
                &woken.with_context(|| format!("{pushes} ({reply}) did not wake {waits}"))?,
            );
            ensure!(woken.starts_with(due) && woken.contains("$1\\r\\ne\\r\\n"), "{waits}: {woken}");
            wait_for_waiting(nodes, 0)?;
        }
        Ok(())
    })
}

/// How long a GET takes: in the middle, and at most.
fn latency(client: &mut Client) -> Result<(Duration, Duration)> {
    let mut times = Vec::new();
    for number in 0..400 {
        let began = Instant::now();
        client.expect(&format!("GET nobody:{number}"), "$-1\r\n")?;
        times.push(began.elapsed());
        sleep(Duration::from_millis(1));
    }
    times.sort();
    Ok((times[times.len() / 2], times[times.len() - 1]))
}

/// A thousand clients wait, each for a key of its own; one push each wakes all.
fn crowd(port: u16, nodes: &[Server], portico: Option<&Portico>) -> Result<()> {
    let mut client = Client::connect(port)?;
    let threads = || portico.map_or(Ok(0), Portico::threads);
    let (alone, before) = (latency(&mut client)?, threads()?);
    let mut crowd = Vec::new();
    for number in 0..CROWD {
        let mut waiter = Client::connect(port)?;
        waiter.request(&["BLPOP", &format!("crowd:{number}"), "0"])?;
        crowd.push(waiter);
    }
    wait_for_waiting(nodes, CROWD)?;
    let (beside, after) = (latency(&mut client)?, threads()?);
    println!("waiting: GET {alone:?} alone, {beside:?} beside {CROWD} that wait; {before} threads, {after}");
    // A few for what has to do with names and time, none for who waits.
    ensure!(after <= before + 4, "{after} threads instead of {before}");
    ensure_timely!(
        beside.0 < alone.0 * 5 + Duration::from_millis(3),
        "GET takes {beside:?} instead of {alone:?}"
    );
    ensure_timely!(beside.1 < Duration::from_secs(1), "a GET took {beside:?}");
    let began = Instant::now();
    let pushes = (0..CROWD).map(|number| encode(&["RPUSH", &format!("crowd:{number}"), "e"]));
    client.send(&pushes.collect::<Vec<_>>().concat())?;
    ensure!(client.replies(CROWD)?.iter().all(|reply| reply == b":1\r\n"), "a push failed");
    for (number, waiter) in crowd.iter_mut().enumerate() {
        let key = format!("crowd:{number}");
        let due = format!("*2\r\n${}\r\n{key}\r\n$1\r\ne\r\n", key.len());
        ensure!(waiter.reply()? == due.as_bytes(), "{key}: another reply");
    }
    println!("waiting: all woken after {:?}", began.elapsed());
    ensure_timely!(began.elapsed() < Duration::from_secs(5), "all woken only after {:?}", began.elapsed());
    wait_for_waiting(nodes, 0)
}

#[test]
fn a_thousand_that_wait_do_not_slow_others() -> Result<()> {
    on_a_calm_machine(|| {
        let cluster = Cluster::start(ClusterOptions::default())?;
        let portico = Portico::start(&cluster, &[])?;
        crowd(portico.port(), cluster.nodes(), Some(&portico))
    })
}

/// CLIENT UNBLOCK, and clients that are gone: nobody takes what is pushed afterwards.
fn sent_away(port: u16, nodes: &[Server]) -> Result<()> {
    let mut other = Client::connect(port)?;
    let keys = APART.map(|slot| key_in_slot(slot, "waits"));
    for (how, due) in
        [("TIMEOUT", "*-1\r\n"), ("ERROR", "-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n")]
    {
        let (mut waiters, mut ids) = (Vec::new(), Vec::new());
        for key in &keys {
            let mut waiter = Client::connect(port)?;
            let id = waiter.text("CLIENT ID")?;
            ids.push(id.trim_matches([':', '\\', 'r', 'n']).to_owned());
            waiter.request(&["BLPOP", key, "0"])?;
            waiters.push(waiter);
        }
        wait_for_waiting(nodes, keys.len())?;
        for ((waiter, id), key) in waiters.iter_mut().zip(&ids).zip(&keys) {
            other.expect(&format!("CLIENT UNBLOCK {id} {how}"), ":1\r\n")?;
            let reply = waiter.reply()?;
            ensure!(reply == due.as_bytes(), "UNBLOCK {how}: {}", portico_tests::show(&reply));
            other.expect(&format!("CLIENT UNBLOCK {id}"), ":0\r\n")?;
            other.expect(&format!("RPUSH {key} e"), ":1\r\n")?;
            other.expect(&format!("LPOP {key}"), "$1\r\ne\r\n")?;
            waiter.expect("PING", "+PONG\r\n")?;
        }
    }
    for key in &keys {
        for _ in 0..5 {
            let mut leaver = Client::connect(port)?;
            leaver.request(&["BRPOP", key, "0"])?;
            wait_for_waiting(nodes, 1)?;
            drop(leaver);
            wait_for_waiting(nodes, 0)?;
            other.expect(&format!("RPUSH {key} e"), ":1\r\n")?;
            other.expect(&format!("LPOP {key}"), "$1\r\ne\r\n")?;
        }
    }
    Ok(())
}

#[test]
fn who_is_sent_away_or_leaves_takes_nothing() -> Result<()> {
    on_a_calm_machine(|| {
        let cluster = Cluster::start(ClusterOptions::default())?;
        sent_away(Portico::start(&cluster, &[])?.port(), cluster.nodes())
    })
}

#[test]
fn the_same_on_a_redis() -> Result<()> {
    on_a_calm_machine(|| {
        let redis = Server::start(ServerOptions::default())?;
        crowd(redis.port(), std::slice::from_ref(&redis), None)?;
        sent_away(redis.port(), std::slice::from_ref(&redis))
    })
}

/// WAIT says 1, 0 while the replica of `stopped` is stopped, and 1.
fn wait_counts(port: u16, stopped: &Server, keys: &[String], other: Option<&str>) -> Result<()> {
    let mut client = Client::connect(port)?;
    let set = |client: &mut Client| -> Result<()> {
        keys.iter().try_for_each(|key| client.expect(&format!("SET {key} 1"), "+OK\r\n"))
    };
    set(&mut client)?;
    client.expect("WAIT 1 5000", ":1\r\n")?;
    stopped.pause()?;
    let mut without = || -> Result<()> {
        set(&mut client)?;
        let began = Instant::now();
        client.expect("WAIT 1 400", ":0\r\n")?;
        let took = began.elapsed();
        ensure_timely!((380..3000).contains(&took.as_millis()), "WAIT 1 400 took {took:?}");
        if let Some(key) = other {
            let mut elsewhere = Client::connect(port)?;
            elsewhere.expect(&format!("SET {key} 1"), "+OK\r\n")?;
            elsewhere.expect("WAIT 1 2000", ":1\r\n")?;
        }
        Ok(())
    };
    let result = without();
    stopped.resume()?;
    result?;
    set(&mut client)?;
    client.expect("WAIT 1 5000", ":1\r\n")
}

#[test]
fn wait_counts_the_replicas_of_every_shard_written_to() -> Result<()> {
    on_a_calm_machine(|| {
        // A replica that is stopped for a moment is not to be held for failed.
        let node_timeout = Duration::from_secs(8);
        let cluster =
            Cluster::start(ClusterOptions { replicas: 1, node_timeout, ..ClusterOptions::default() })?;
        let portico = Portico::start(&cluster, &[])?;
        let keys = APART.map(|slot| key_in_slot(slot, "written"));
        wait_counts(portico.port(), &cluster.nodes()[3], &keys[..1], Some(&keys[1]))?;
        // Of several shards the one that is worst off counts.
        wait_counts(portico.port(), &cluster.nodes()[4], &keys, None)
    })
}

#[test]
fn wait_counts_the_same_on_a_redis() -> Result<()> {
    on_a_calm_machine(|| {
        let redis = Server::start(ServerOptions::default())?;
        let args = ["--replicaof", "127.0.0.1", &redis.port().to_string()].map(str::to_owned).to_vec();
        let replica = Server::start(ServerOptions { args, ..ServerOptions::default() })?;
        wait_until(Duration::from_secs(10), "the replica is in step", || {
            Ok(replica.ask(&["INFO", "replication"])?.contains("master_link_status:up"))
        })?;
        wait_counts(redis.port(), &replica, &["written".to_owned()], None)
    })
}
