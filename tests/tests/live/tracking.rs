//! Tracking under faults: a client that keeps what it read until it is told otherwise never keeps a stale value long.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use portico::sandbox::{Cluster, Server, ServerOptions, text};
use portico_slots::{Address, slot};
use portico_tests::live::{
    Direct, ErrorWords, cut_connections, fail_over, failing_over, key_in_slot, shards, side_by_side,
    to_and_fro, wait_until_master,
};
use portico_tests::{Client, Frame, Portico, encode, ensure_timely, on_a_calm_machine, show};

/// Longest that a value may be kept after it has changed.
const STALE: Duration = Duration::from_secs(3);
/// A tracker that hears nothing for so long in the end has heard all.
const QUIET: Duration = Duration::from_millis(1500);
const WRITERS: usize = 2;

/// Keys whose values only grow, and when each value was acknowledged.
struct Versions {
    keys: Vec<String>,
    acked: Vec<Mutex<Vec<(u64, Instant)>>>,
    /// What was acknowledged by then in these slots may be lost.
    lost: Mutex<Option<(Instant, RangeInclusive<u16>)>>,
}

impl Versions {
    fn new(slots: &[u16]) -> Self {
        let keys: Vec<String> = slots.iter().map(|&slot| key_in_slot(slot, "cached:")).collect();
        let acked = keys.iter().map(|_| Mutex::default()).collect();
        Versions { keys, acked, lost: Mutex::default() }
    }

    fn acked(&self, key: usize, version: u64) {
        let mut acked = self.acked[key].lock().unwrap_or_else(PoisonError::into_inner);
        acked.push((version, Instant::now()));
    }

    fn allow_loss(&self, until: Instant, slots: RangeInclusive<u16>) {
        *self.lost.lock().unwrap_or_else(PoisonError::into_inner) = Some((until, slots));
    }

    /// For how long this has not been the key's value any more.
    fn stale_for(&self, key: usize, version: u64) -> Duration {
        let acked = self.acked[key].lock().unwrap_or_else(PoisonError::into_inner);
        let newer = acked.iter().find(|(newer, at)| *newer > version && !self.is_lost(key, *at));
        newer.map_or(Duration::ZERO, |(_, at)| at.elapsed())
    }

    fn is_lost(&self, key: usize, at: Instant) -> bool {
        let lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        lost.as_ref()
            .is_some_and(|(until, slots)| at <= *until && slots.contains(&slot(self.keys[key].as_bytes())))
    }
}

/// What a tracker knows in the end, and what it was told.
#[derive(Default)]
struct Tracker {
    cache: HashMap<usize, u64>,
    reads: u64,
    invalidated: u64,
    flushes: u64,
    worst: Duration,
    errors: ErrorWords,
}

impl Tracker {
    /// Reads what it does not know, and believes it until it is told otherwise.
    fn work(mut self, wire: &mut Client, versions: &Versions, stop: &AtomicBool) -> Result<Self> {
        while !stop.load(Ordering::Relaxed) {
            let unknown: Vec<usize> =
                (0..versions.keys.len()).filter(|key| !self.cache.contains_key(key)).collect();
            let gets = unknown.iter().map(|&key| encode(&["GET", &versions.keys[key]]));
            wire.send(&gets.collect::<Vec<_>>().concat())?;
            for key in unknown {
                let reply = loop {
                    let reply = wire.reply()?;
                    if !self.told(&reply, versions)? {
                        break reply;
                    }
                };
                self.read(key, &reply)?;
            }
            while let Some(push) = wire.within(Duration::from_millis(3))? {
                ensure!(self.told(&push, versions)?, "no push: {}", show(&push));
            }
            for (&key, &version) in &self.cache {
                let stale = versions.stale_for(key, version);
                ensure!(stale < STALE, "{} is stale for {stale:?}", versions.keys[key]);
                self.worst = self.worst.max(stale);
            }
        }
        while let Some(push) = wire.within(QUIET)? {
            ensure!(self.told(&push, versions)?, "no push: {}", show(&push));
        }
        Ok(self)
    }

    fn read(&mut self, key: usize, reply: &[u8]) -> Result<()> {
        self.reads += 1;
        if reply.starts_with(b"-") {
            self.errors.add(reply);
            return Ok(());
        }
        let value = Frame::read(reply).0.body().map_or(Ok("0"), std::str::from_utf8)?.parse()?;
        self.cache.insert(key, value);
        Ok(())
    }

    /// Whether this is an invalidation; if so, forgets what it names.
    fn told(&mut self, push: &[u8], versions: &Versions) -> Result<bool> {
        if !push.starts_with(b">") {
            return Ok(false);
        }
        let (frame, _) = Frame::read(push);
        match frame.elements() {
            [kind, Frame::Leaf(b"_\r\n" | b"*-1\r\n")] if kind.body() == Some(b"invalidate") => {
                self.flushes += 1;
                self.cache.clear();
            }
            [kind, keys] if kind.body() == Some(b"invalidate") => {
                for name in keys.elements().iter().filter_map(Frame::body) {
                    self.invalidated += 1;
                    let key = versions.keys.iter().position(|key| key.as_bytes() == name);
                    key.and_then(|key| self.cache.remove(&key));
                }
            }
            _ => bail!("another push: {}", show(push)),
        }
        Ok(true)
    }
}

/// Ways to track; the empty one does not.
const BY_KEY: &str = "CLIENT TRACKING ON";
const BY_PREFIX: &str = "CLIENT TRACKING ON BCAST PREFIX cached:";
const WAYS: [&str; 3] = [BY_KEY, BY_PREFIX, BY_KEY];

fn track(way: &str, port: u16, versions: &Versions, stop: &AtomicBool) -> Result<Tracker> {
    let mut wire = Client::connect(port)?;
    wire.hello3()?;
    if !way.is_empty() {
        wire.expect(way, "+OK\r\n")?;
    }
    Tracker::default().work(&mut wire, versions, stop)
}

/// Sets its half of the keys: through a proxy or at the nodes themselves.
fn write(
    half: usize,
    versions: &Versions,
    stop: &AtomicBool,
    mut set: impl FnMut(&str, &str) -> Result<bool>,
) -> Result<Tracker> {
    let mine: Vec<usize> = (0..versions.keys.len()).filter(|key| key % WRITERS == half).collect();
    for version in 1u64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let key = mine[version as usize % mine.len()];
        if set(&versions.keys[key], &version.to_string())? {
            versions.acked(key, version);
        }
        sleep(Duration::from_millis(10));
    }
    Ok(Tracker::default())
}

/// The whole crew: trackers, one who writes at `port`, and one who writes at the nodes.
fn crew<R>(
    port: u16,
    nodes: &[Address],
    ways: &[&str],
    versions: &Versions,
    faults: impl FnOnce() -> Result<R>,
) -> Result<(Vec<Tracker>, R)> {
    let work = |me: usize, stop: &AtomicBool| match me.checked_sub(ways.len()) {
        None => track(ways[me], port, versions, stop),
        Some(0) => {
            let (mut wire, mut errors) = (Client::connect(port)?, ErrorWords::default());
            let done = write(0, versions, stop, |key, version| {
                let reply = wire.call(&["SET", key, version])?;
                let refused = reply.starts_with(b"-");
                if refused {
                    errors.add(&reply);
                }
                Ok(!refused)
            })?;
            Ok(Tracker { errors, ..done })
        }
        Some(_) => {
            let mut seeds = nodes.iter().cycle().cloned();
            let mut direct = seeds.next().map(Direct::at);
            write(1, versions, stop, |key, version| {
                let reply = direct.as_mut().map(|direct| direct.call(&["SET", key, version]));
                let set = matches!(&reply, Some(Ok(reply)) if text(reply).as_deref() == Some("OK"));
                if !matches!(reply, Some(Ok(_))) {
                    direct = seeds.next().map(Direct::at); // the node is gone, or cut the connection
                }
                Ok(set)
            })
        }
    };
    side_by_side(ways.len() + WRITERS, work, faults)
}

/// In the end what is cached is what is there.
fn check(members: &[Tracker], ways: &[&str], versions: &Versions, direct: &mut Direct) -> Result<ErrorWords> {
    let mut errors = ErrorWords::default();
    members.iter().for_each(|member| errors.merge(&member.errors));
    for (tracker, way) in members.iter().zip(ways) {
        let Tracker { reads, invalidated, flushes, worst, .. } = tracker;
        println!(
            "tracking: {way}: {reads} reads, {invalidated} invalidated, {flushes} flushes, worst {worst:?}"
        );
        ensure_timely!(*invalidated > 50, "{way}: next to nothing was invalidated");
        for (&key, &version) in &tracker.cache {
            let name = &versions.keys[key];
            let there = text(&direct.call(&["GET", name])?).map_or(Ok(0), |version| version.parse())?;
            ensure!(version == there, "{way}: {name} is {there}, the cache says {version}");
        }
    }
    println!("tracking: {errors}");
    Ok(errors)
}

#[test]
fn the_same_on_a_redis() -> Result<()> {
    on_a_calm_machine(|| {
        let redis = Server::start(ServerOptions::default())?;
        let run = |ways: &[&str], lasts: Duration| -> Result<ErrorWords> {
            redis.ask(&["FLUSHALL"])?;
            let versions = Versions::new(&[1, 2_000, 5_000, 8_000, 11_000, 15_000]);
            let pause = || {
                sleep(lasts);
                Ok(())
            };
            let (members, ()) = crew(redis.port(), &[redis.address()], ways, &versions, pause)?;
            check(&members, ways, &versions, &mut Direct::at(redis.address()))
        };
        run(&WAYS, Duration::from_secs(1))?.expect_only(&[])?;
        let stale = run(&[""], STALE + Duration::from_millis(500));
        ensure!(
            stale.is_err_and(|error| format!("{error:#}").contains("is stale")),
            "stale values are not noticed"
        );
        Ok(())
    })
}

#[test]
fn nothing_stale_is_kept_whatever_happens_to_the_cluster() -> Result<()> {
    on_a_calm_machine(|| {
        let mut cluster = Cluster::start(failing_over())?;
        let portico = Portico::start(&cluster, &[])?;
        let shards = shards(&cluster, 3)?;
        let moved = [6_000, 6_001, 8_000, 8_001];
        let versions = Versions::new(
            &[&moved[..], &[10, 11, 3_000, 3_001, 5_000, 5_001, 12_000, 12_001, 16_000, 16_001]].concat(),
        );
        let nodes = cluster.seeds();
        let (members, ()) = crew(portico.port(), &nodes, &WAYS, &versions, || {
            sleep(Duration::from_secs(1));
            to_and_fro(&cluster, &moved, [1, 2], Duration::from_secs(3))?;
            // Portico's connections, and with them what the nodes know of who has read what.
            for node in 0..3 {
                cut_connections(&cluster, &[node])?;
                sleep(Duration::from_millis(300));
            }
            fail_over(&cluster, [2, 5])?;
            sleep(Duration::from_millis(500));
            cluster.node(0).kill()?;
            versions.allow_loss(Instant::now() + Duration::from_millis(300), shards[0].slots.clone());
            wait_until_master(&cluster, 3)?;
            // Long enough for something stale to be noticed.
            sleep(STALE + Duration::from_secs(1));
            Ok(())
        })?;
        let errors = check(&members, &WAYS, &versions, &mut Direct::new(&cluster)?)?;
        errors.expect_only(&["UNKNOWN", "CLUSTERDOWN"])
    })
}
