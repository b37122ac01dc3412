//! CLUSTER FAILOVER, back and forth, under load: no reply is lost, none is wrong, none is an error.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Result;
use portico::sandbox::{Cluster, ClusterOptions};
use portico_tests::live::{Load, Losses, Plan, check, fail_over, shards, tags_in};
use portico_tests::{Portico, ensure_timely, on_a_calm_machine};

const LASTS: Duration = Duration::from_secs(10);

#[test]
fn a_failover_that_is_called_is_invisible() -> Result<()> {
    on_a_calm_machine(|| {
        let node_timeout = Duration::from_secs(1);
        let cluster =
            Cluster::start(ClusterOptions { replicas: 1, node_timeout, ..ClusterOptions::default() })?;
        let portico = Portico::start(&cluster, &[])?;
        let shards = shards(&cluster, 3)?;
        let losses = Losses::default();
        let mut plans = Vec::new();
        for number in 0..30usize {
            let (name, shard) = match number {
                0..14 => (format!("hit{number}"), &shards[0]),
                14..20 => (format!("across{number}"), &shards[0]),
                _ => (format!("bystander{number}"), &shards[1 + number % 2]),
            };
            let scattered = if (14..20).contains(&number) {
                tags_in(&(0..=16_383), 6, &format!("x{number}-"))
            } else {
                Vec::new()
            };
            let tags = tags_in(&shard.slots, 2, &name);
            plans.push(Plan { scattered, ..Plan::new(number, name, tags) });
        }
        let load = Load::start(portico.port(), plans, &losses)?;
        let (began, mut times) = (Instant::now(), Vec::new());
        while began.elapsed() < LASTS {
            // A node votes once in two node timeouts on the same master's place.
            sleep(node_timeout * 2 + Duration::from_millis(100));
            times.push(fail_over(&cluster, [0, 3])?);
        }
        sleep(Duration::from_millis(500));
        let mut outcome = load.stop()?;
        let (hit, bystander) = (outcome.worst_latency("hit"), outcome.worst_latency("bystander"));
        println!("failover: {}", outcome.summary());
        println!(
            "failover: {} times, {times:?}; worst latency {hit:?}, bystanders {bystander:?}",
            times.len()
        );
        outcome.expect_only(&[])?;
        ensure_timely!(times.len() >= 3, "only {} failovers", times.len());
        ensure_timely!(hit < Duration::from_secs(4), "a client waited {hit:?}");
        ensure_timely!(bystander < Duration::from_secs(1), "a bystander waited {bystander:?}");
        check(&cluster, &mut outcome, &losses)
    })
}
