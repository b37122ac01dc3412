//! A master dies (SIGKILL) under load: its replica takes over, and nobody else notices.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use portico::sandbox::Cluster;
use portico_tests::live::{Load, Losses, NODE_TIMEOUT, Plan, check, failing_over, shards, tags_in};
use portico_tests::{Portico, ensure_timely, on_a_calm_machine};

#[test]
fn a_killed_master_costs_what_was_on_its_wire_and_a_pause() -> Result<()> {
    on_a_calm_machine(|| {
        let mut cluster = Cluster::start(failing_over())?;
        let portico = Portico::start(&cluster, &[])?;
        let shards = shards(&cluster, 3)?;
        let losses = Losses::default();
        let mut plans = Vec::new();
        for number in 0..30usize {
            let (name, shard) = match number {
                0..10 => (format!("hit{number}"), &shards[0]),
                10..20 => (format!("bystander{number}"), &shards[1]),
                20..26 => (format!("bystander{number}"), &shards[2]),
                _ => (format!("across{number}"), &shards[1]),
            };
            let tags = tags_in(&shard.slots, 2, &name);
            let scattered =
                if number < 26 { Vec::new() } else { tags_in(&(0..=16_383), 5, &format!("x{number}-")) };
            let confirm_at = Some((cluster.nodes()[shard.index].address(), shard.slots.clone()));
            plans.push(Plan { scattered, confirm_at, ..Plan::new(number, name, tags) });
        }
        let load = Load::start(portico.port(), plans, &losses)?;
        let began = Instant::now();
        sleep(Duration::from_secs(3));
        let killed = Instant::now();
        cluster.node(0).kill()?;
        losses.allow(Instant::now() + Duration::from_millis(300), shards[0].slots.clone());
        sleep(Duration::from_secs(8));
        let mut outcome = load.stop()?;

        let recovery = outcome.recovery("hit", killed).max(outcome.recovery("across", killed));
        let worst = outcome.worst_latency("bystander");
        let before = outcome.rate("bystander", began + Duration::from_secs(1), killed);
        let during = outcome.rate("bystander", killed, killed + Duration::from_secs(3));
        println!("kill: {}", outcome.summary());
        println!(
            "kill: recovery {recovery:?}; bystanders: worst {worst:?}, {before:.0}/s before, {during:.0}/s during"
        );
        outcome.expect_only(&["UNKNOWN"])?;
        ensure_timely!(outcome.confirmations() > 20, "too few confirmations by replicas");
        ensure!(
            outcome.clients.iter().all(|client| client.name.starts_with("hit")
                || client.name.starts_with("across")
                || client.failures() == 0),
            "a bystander got an error"
        );
        ensure_timely!(recovery < NODE_TIMEOUT + Duration::from_secs(3), "recovered only after {recovery:?}");
        ensure_timely!(worst < Duration::from_secs(1), "a bystander waited {worst:?}");
        ensure_timely!(during > before * 0.6, "bystanders slowed down from {before:.0}/s to {during:.0}/s");
        check(&cluster, &mut outcome, &losses)?;
        println!("kill: lost {} acknowledged and unconfirmed", outcome.lost());
        Ok(())
    })
}
