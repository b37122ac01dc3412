//! Slots go back and forth between masters, key by key, under clients that count every step.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use portico::sandbox::{Cluster, ClusterOptions};
use portico_tests::live::{Load, Losses, Plan, SlotMove, check, error_count, shards};
use portico_tests::{Portico, ensure_timely, on_a_calm_machine};

const LASTS: Duration = Duration::from_secs(10);
const MOVED_SLOTS: u16 = 6;

#[test]
fn slots_that_move_key_by_key_are_invisible() -> Result<()> {
    on_a_calm_machine(|| {
        let cluster = Cluster::start(ClusterOptions::default())?;
        let portico = Portico::start(&cluster, &["--tryagain-timeout", "150"])?;
        let shards = shards(&cluster, 3)?;
        let moved: Vec<u16> =
            (0..MOVED_SLOTS).map(|number| shards[0].slots.start() + 100 + number * 700).collect();
        let losses = Losses::default();

        let mut plans = Vec::new();
        for number in 0..24u16 {
            // Two slots that move and one that stays, of another shard.
            let own = [moved[usize::from(number % 6)], moved[usize::from((number + 1) % 6)], 9_000 + number];
            let across = [moved[usize::from(number % 6)], 7_000, 14_000];
            plans.push(Plan::in_slots(number, &own, &across));
        }
        let load = Load::start(portico.port(), plans, &losses)?;
        let slow = SlotMove { cluster: &cluster, pause: Duration::from_millis(8) };
        let told = || portico.log().matches(" topology: ").count();
        let told_before = told();
        let (began, mut moves, mut keys) = (Instant::now(), 0, 0);
        let mut places = vec![0; moved.len()];
        while began.elapsed() < LASTS {
            let which = moves % moved.len();
            let target = (places[which] + 1) % 2;
            keys += slow.run(moved[which], places[which], target)?;
            places[which] = target;
            moves += 1;
        }
        // Two moves a second change the map: the log sums up.
        let (lines, most) = (told() - told_before, 2 + began.elapsed().as_secs() as usize / 5);
        ensure!(
            lines > 0 && lines <= most,
            "{lines} lines tell of {moves} moves, not {most}:\n{}",
            portico.log()
        );
        ensure_timely!(!portico.log().contains("no master answers"), "a false alarm:\n{}", portico.log());
        let mut outcome = load.stop()?;
        println!("reshard: {}", outcome.summary());
        let counts =
            |word| -> Result<u64> { cluster.nodes().iter().map(|node| error_count(node, word)).sum() };
        let (ask, tryagain, moved) = (counts("ASK")?, counts("TRYAGAIN")?, counts("MOVED")?);
        println!(
            "reshard: {moves} moves of {keys} keys; nodes answered ASK {ask}, TRYAGAIN {tryagain}, MOVED {moved}"
        );
        ensure_timely!(ask > 0 && tryagain > 0 && moved > 0, "not everything was provoked");
        outcome.expect_only(&["TRYAGAIN"])?;
        let refused = outcome.errors().remove("TRYAGAIN").unwrap_or_default();
        ensure!(refused.to_one_key == 0, "TRYAGAIN to commands with one key: {refused:?}");
        check(&cluster, &mut outcome, &losses)
    })
}
