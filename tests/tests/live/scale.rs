//! A node joins, is given slots, loses them and leaves, under load.

use std::time::{Duration, Instant};

use anyhow::Result;
use portico::sandbox::{Cluster, ClusterOptions};
use portico_tests::live::{
    Load, Losses, Plan, SlotMove, check, error_count, key_in_slot, tags_in, wait_until,
};
use portico_tests::{Portico, ensure_timely, on_a_calm_machine};

/// The node that left comes back, under a new name.
fn join_again(cluster: &Cluster, index: usize) -> Result<()> {
    let (node, nodes) = (&cluster.nodes()[index], cluster.nodes());
    let (port, bus_port) = (node.port().to_string(), node.bus_port().to_string());
    nodes[0].ask(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus_port])?;
    wait_until(Duration::from_secs(10), "all nodes know each other", || {
        let infos: Result<Vec<String>> = nodes.iter().map(|node| node.ask(&["CLUSTER", "INFO"])).collect();
        let all = format!("cluster_known_nodes:{}", nodes.len());
        Ok(infos?.iter().all(|info| info.contains(&all) && info.contains("cluster_state:ok")))
    })
}

#[test]
fn a_node_comes_and_goes() -> Result<()> {
    on_a_calm_machine(|| {
        let mut cluster = Cluster::start(ClusterOptions::default())?;
        let portico = Portico::start(&cluster, &["--tryagain-timeout", "200"])?;
        let losses = Losses::default();
        // Of two shards, one the neighbour of the other, some single.
        let moved: Vec<(u16, usize)> =
            [(10, 0), (11, 0), (5_000, 0), (5_461, 1), (6_000, 1), (10_921, 1), (12_000, 2), (16_383, 2)]
                .into();
        let mut plans = Vec::new();
        for number in 0..24usize {
            let name = format!("c{number}");
            let mut tags = vec![key_in_slot(moved[number % moved.len()].0, &name)];
            tags.extend(tags_in(&(0..=16_383), 2, &name));
            let scattered = if number % 4 == 0 {
                [moved[number % moved.len()].0, 3_000, 8_000, 13_000]
                    .map(|slot| key_in_slot(slot, &format!("x{number}-")))
                    .to_vec()
            } else {
                Vec::new()
            };
            plans.push(Plan { scattered, ..Plan::new(number, name, tags) });
        }
        let load = Load::start(portico.port(), plans, &losses)?;
        let began = Instant::now();
        let mut keys = 0;
        let added = cluster.add_node()?;
        for round in 0..2 {
            if round > 0 {
                join_again(&cluster, added)?;
            }
            let moving = SlotMove { cluster: &cluster, pause: Duration::from_millis(4) };
            for &(slot, home) in &moved {
                keys += moving.run(slot, home, added)?;
            }
            ensure_timely!(error_count(&cluster.nodes()[0], "ASK")? > 0, "nobody was asked to go elsewhere");
            for &(slot, home) in &moved {
                keys += moving.run(slot, added, home)?;
            }
            let id = cluster.nodes()[added].ask(&["CLUSTER", "MYID"])?;
            for node in &cluster.nodes()[..added] {
                node.ask(&["CLUSTER", "FORGET", &id])?;
            }
            cluster.nodes()[added].ask(&["CLUSTER", "RESET", "HARD"])?;
            println!("scale: round {round} done after {:?}", began.elapsed());
        }
        let mut outcome = load.stop()?;
        println!("scale: {}; {keys} keys moved", outcome.summary());
        outcome.expect_only(&["TRYAGAIN"])?;
        check(&cluster, &mut outcome, &losses)
    })
}
