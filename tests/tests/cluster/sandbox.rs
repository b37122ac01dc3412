//! The sandbox itself: real clusters start, fail, come back and leave nothing behind.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use portico::sandbox::{Cluster, ClusterOptions, Server, ServerOptions};

fn alive(pid: u32) -> Result<bool> {
    Ok(std::process::Command::new("kill").args(["-0", &pid.to_string()]).output()?.status.success())
}

fn pids(cluster: &Cluster) -> Vec<u32> {
    cluster.nodes().iter().filter_map(Server::pid).collect()
}

#[test]
fn a_cluster_starts_with_replicas_and_a_password_and_leaves_nothing() -> Result<()> {
    let began = Instant::now();
    let password = Some("word".to_owned());
    let mut cluster = Cluster::start(ClusterOptions { replicas: 1, password, ..ClusterOptions::default() })?;
    println!("six nodes in {:?}", began.elapsed());
    assert_eq!(cluster.seeds().len(), 6);
    for (index, node) in cluster.nodes().iter().enumerate() {
        let role = if index < 3 { "role:master" } else { "role:slave" };
        assert!(node.ask(&["INFO", "replication"])?.contains(role), "node {index}");
    }
    assert_eq!(cluster.nodes()[2].ask(&["SET", "foo", "bar"])?, "OK"); // slot 12182
    let moved = cluster.nodes()[0].ask(&["GET", "foo"]).expect_err("not its slot");
    assert!(format!("{moved:#}").contains("MOVED 12182"), "{moved:#}");

    let added = cluster.add_node()?;
    assert_eq!(added, 6);
    assert!(cluster.nodes()[0].ask(&["CLUSTER", "INFO"])?.contains("cluster_known_nodes:7"));

    let pids = pids(&cluster);
    assert_eq!(pids.len(), 7);
    drop(cluster);
    for pid in pids {
        assert!(!alive(pid)?, "process {pid}");
    }
    Ok(())
}

#[test]
fn a_replica_takes_over_and_the_old_master_comes_back() -> Result<()> {
    let mut cluster = Cluster::start(ClusterOptions { replicas: 1, ..ClusterOptions::default() })?;
    cluster.node(0).kill()?;
    assert_eq!(cluster.nodes()[0].pid(), None);
    let deadline = Instant::now() + Duration::from_secs(20);
    while !cluster.nodes()[3].ask(&["INFO", "replication"])?.contains("role:master") {
        ensure!(Instant::now() < deadline, "no failover");
        std::thread::sleep(Duration::from_millis(50));
    }
    cluster.node(0).restart()?;
    cluster.wait_until_agreed()?;
    assert!(cluster.nodes()[0].ask(&["INFO", "replication"])?.contains("role:slave"));
    Ok(())
}

#[test]
fn many_clusters_start_at_once() -> Result<()> {
    let options = || ClusterOptions { masters: 2, ..ClusterOptions::default() };
    let starting: Vec<_> = (0..10).map(|_| std::thread::spawn(move || Cluster::start(options()))).collect();
    let clusters: Vec<Cluster> =
        starting.into_iter().map(|start| start.join().expect("no panic")).collect::<Result<_>>()?;
    for cluster in &clusters {
        assert!(cluster.nodes()[0].ask(&["CLUSTER", "INFO"])?.contains("cluster_known_nodes:2"));
    }
    Ok(())
}

#[test]
fn a_standalone_server_is_paused_resumed_and_restarted() -> Result<()> {
    let mut server = Server::start(ServerOptions::default())?;
    let port = server.port();
    server.ask(&["SET", "key", "value"])?;
    server.pause()?;
    let mut waiting = server.connect()?; // the kernel accepts for it
    let answer = std::thread::spawn(move || waiting.ask(&["GET", "key"]));
    std::thread::sleep(Duration::from_millis(200));
    assert!(!answer.is_finished());
    server.resume()?;
    assert_eq!(answer.join().expect("no panic")?, "value");

    let old = server.pid().context("running")?;
    server.restart()?;
    assert_eq!(server.port(), port);
    assert_ne!(server.pid(), Some(old));
    assert!(!alive(old)?);
    assert!(server.log().matches("Ready to accept connections").count() == 2);
    Ok(())
}

#[test]
fn a_server_that_does_not_start_says_why() {
    let args = vec!["--no-such-setting".to_owned(), "1".to_owned()];
    let error =
        Server::start(ServerOptions { args, ..ServerOptions::default() }).expect_err("it cannot start");
    assert!(format!("{error:#}").contains("redis-server ended"), "{error:#}");
    let redis_server = "/absent/redis-server".into();
    let error =
        Server::start(ServerOptions { redis_server, ..ServerOptions::default() }).expect_err("absent");
    assert!(format!("{error:#}").contains("cannot run /absent/redis-server: No such file"), "{error:#}");
}
