//! SCAN over the whole cluster: what is there from start to end is told, also while slots move and masters change.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use portico::sandbox::{Cluster, ClusterOptions};
use portico_tests::live::{SlotMove, fail_over};
use portico_tests::{Client, Frame, Portico, ensure_timely, on_a_calm_machine};

const KEYS: usize = 3000;

fn fill(client: &mut Client) -> Result<BTreeSet<String>> {
    let keys: BTreeSet<String> = (0..KEYS).map(|number| format!("key:{number}")).collect();
    for key in &keys {
        client.expect(&format!("SET {key} 1"), "+OK\r\n")?;
    }
    Ok(keys)
}

/// One whole SCAN: the keys that it told, and how many calls it took.
fn scan(client: &mut Client, options: &str, pause: Duration) -> Result<(BTreeSet<String>, usize)> {
    let (mut cursor, mut told, mut calls) = ("0".to_owned(), BTreeSet::new(), 0);
    let began = Instant::now();
    loop {
        let reply = client.line(&format!("SCAN {cursor} {options}"))?;
        let (frame, _) = Frame::read(&reply);
        let [next, keys] = frame.elements() else { anyhow::bail!("{}", portico_tests::show(&reply)) };
        cursor = String::from_utf8_lossy(next.body().context("a cursor")?).into_owned();
        let number: u64 = cursor.parse().context("a cursor is decimal")?;
        ensure!(number < 1 << 53 && number.to_string() == cursor, "{cursor} is no safe integer");
        for key in keys.elements() {
            told.insert(String::from_utf8_lossy(key.body().context("a key")?).into_owned());
        }
        calls += 1;
        if cursor == "0" {
            return Ok((told, calls));
        }
        ensure_timely!(began.elapsed() < Duration::from_secs(60), "the walk does not end");
        thread::sleep(pause);
    }
}

#[test]
fn a_walk_tells_every_key_and_heeds_its_options() -> Result<()> {
    on_a_calm_machine(|| {
        let cluster = Cluster::start(ClusterOptions::default())?;
        let portico = Portico::start(&cluster, &[])?;
        let mut client = portico.client()?;
        let keys = fill(&mut client)?;
        client.expect("RPUSH list 1", ":1\r\n")?;
        for options in ["TYPE string", "COUNT 1000 MATCH key:*", "COUNT 1 TYPE string MATCH key:*"] {
            let (told, _) = scan(&mut client, options, Duration::ZERO)?;
            ensure!(told == keys, "{options}: {} keys of {}", told.len(), keys.len());
        }
        let (told, calls) = scan(&mut client, "COUNT 100000", Duration::ZERO)?;
        ensure!(told.len() == KEYS + 1 && calls == 3, "{} keys in {calls} calls", told.len());
        // A cursor is anybody's: another Portico goes on where this one was.
        let other = Portico::start(&cluster, &[])?;
        let reply = client.line("SCAN 0 COUNT 10")?;
        let (frame, _) = Frame::read(&reply);
        let cursor = frame.elements().first().and_then(Frame::body).context("a cursor")?;
        let command = format!("SCAN {} COUNT 10", String::from_utf8_lossy(cursor));
        ensure!(client.line(&command)? == other.client()?.line(&command)?);
        Ok(())
    })
}

#[test]
fn nothing_is_missed_while_slots_move_and_masters_change() -> Result<()> {
    on_a_calm_machine(|| {
        let node_timeout = Duration::from_secs(2);
        let cluster =
            Cluster::start(ClusterOptions { replicas: 1, node_timeout, ..ClusterOptions::default() })?;
        let portico = Portico::start(&cluster, &[])?;
        let mut client = portico.client()?;
        let keys = fill(&mut client)?;
        thread::scope(|scope| -> Result<()> {
            let changes = scope.spawn(|| -> Result<usize> {
                let mut moved = 0;
                let moves = SlotMove { cluster: &cluster, pause: Duration::from_millis(5) };
                for round in 0..4 {
                    for slot in 100 + round * 8..108 + round * 8 {
                        moved += moves.run(slot, 0, 1)?;
                    }
                    thread::sleep(Duration::from_millis(400)); // a walk needs a moment of peace to end
                }
                fail_over(&cluster, [2, 5])?;
                Ok(moved)
            });
            let (mut walks, mut longest) = (0, 0);
            while !changes.is_finished() {
                let (told, calls) = scan(&mut client, "COUNT 100", Duration::from_millis(2))?;
                let missed: Vec<_> = keys.difference(&told).take(5).collect();
                ensure!(missed.is_empty(), "walk {walks} of {calls} calls missed {missed:?}");
                walks += 1;
                longest = longest.max(calls);
            }
            let moved = changes.join().map_err(|_| anyhow::anyhow!("the changes panicked"))??;
            println!("scan: {walks} walks, the longest of {longest} calls, while {moved} keys moved");
            ensure_timely!(moved > 0, "no key moved");
            ensure_timely!(longest > 40, "no walk was walked again");
            Ok(())
        })
    })
}
