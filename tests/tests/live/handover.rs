//! Slots are handed over at once (atomic slot migration), both ways, under clients that count every step.

use std::time::{Duration, Instant};

use anyhow::Result;
use portico::sandbox::{Cluster, ClusterOptions};
use portico_tests::live::{Load, Losses, Plan, check, hand_over, shards};
use portico_tests::{Portico, UnderTest, ensure_timely, on_a_calm_machine};

const LASTS: Duration = Duration::from_secs(10);

/// `make test-servers` runs it with a server that can; of the others nothing is asked.
#[test]
fn slots_that_are_handed_over_at_once_are_invisible() -> Result<()> {
    if !UnderTest::get().is_any_of("valkey>=9.0")? {
        println!("not asked: {:?} has no CLUSTER MIGRATESLOTS", UnderTest::get());
        return Ok(());
    }
    on_a_calm_machine(|| {
        let cluster = Cluster::start(ClusterOptions::default())?;
        let portico = Portico::start(&cluster, &[])?;
        let first = *shards(&cluster, 3)?[0].slots.start();
        let moved = first + 100..=first + 399;
        let losses = Losses::default();
        let mut plans = Vec::new();
        for number in 0..24u16 {
            // Two slots that move, one that stays with their first owner and one of another shard.
            let own =
                [first + 100 + number * 7, first + 399 - number, first + 1_000 + number, 9_000 + number];
            let across = [first + 100 + number, 7_000, 14_000];
            plans.push(Plan::in_slots(number, &own, &across));
        }
        let load = Load::start(portico.port(), plans, &losses)?;
        let (began, mut times) = (Instant::now(), Vec::new());
        while began.elapsed() < LASTS {
            for (from, to) in [(0, 1), (1, 0)] {
                times.push(hand_over(&cluster, &moved, from, to)?);
                cluster.wait_until_agreed()?;
            }
        }
        let mut outcome = load.stop()?;
        println!("handover: {}; {} times, {times:?}", outcome.summary(), times.len());
        ensure_timely!(times.len() >= 4, "only {} times", times.len());
        outcome.expect_only(&[])?;
        check(&cluster, &mut outcome, &losses)
    })
}
