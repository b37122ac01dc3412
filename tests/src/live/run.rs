//! Clients at work side by side, and what came of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::client::{Client, Plan};
use super::model::{Key, Losses};

/// A pipeline that takes longer than this was held up.
const SLOW: Duration = Duration::from_millis(500);

/// One pipeline: when it was sent, when its last reply came.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pipeline {
    pub(super) sent: Instant,
    pub(super) done: Instant,
    pub(super) commands: u32,
    pub(super) errors: u64,
}

/// Error replies that begin with the same word.
#[derive(Debug, Clone, Default)]
pub struct Errors {
    /// How many.
    pub count: u64,
    /// Of them, replies to reads.
    pub to_reads: u64,
    /// Of them, replies to commands with one key.
    pub to_one_key: u64,
    /// One of them.
    pub example: String,
}

/// What a client leaves behind.
#[derive(Debug)]
pub struct Finished {
    /// The client's name.
    pub name: String,
    /// Its keys and what it knows of them.
    pub keys: Vec<Key>,
    /// Replies that cannot be.
    pub violations: Vec<String>,
    /// How often a replica confirmed its writes.
    pub confirmations: u64,
    pub(super) padding: usize,
    pub(super) pipelines: Vec<Pipeline>,
    errors: BTreeMap<String, Errors>,
}

impl Finished {
    pub(super) fn new(name: String, padding: usize) -> Self {
        Finished {
            name,
            keys: Vec::new(),
            violations: Vec::new(),
            confirmations: 0,
            padding,
            pipelines: Vec::new(),
            errors: BTreeMap::new(),
        }
    }

    /// How many of its requests were answered with an error.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.errors.values().map(|errors| errors.count).sum()
    }

    pub(super) fn error(&mut self, error: &str, write: bool, several: bool) {
        let word = error.split(' ').next().unwrap_or_default().to_owned();
        let errors = self.errors.entry(word).or_default();
        errors.count += 1;
        errors.to_reads += u64::from(!write);
        errors.to_one_key += u64::from(!several);
        error.clone_into(&mut errors.example);
    }
}

/// Clients at work. They stop, at the latest, when this is dropped.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Finished>>,
    began: Instant,
}

impl Load {
    /// Sets the clients to work, each on a thread of its own.
    ///
    /// # Errors
    /// Portico does not accept a client.
    pub fn start(portico: u16, plans: Vec<Plan>, losses: &Losses) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut load = Load { stop: Arc::clone(&stop), clients: Vec::new(), began: Instant::now() };
        for plan in plans {
            let client = Client::new(plan, portico, losses.clone())?;
            let stop = Arc::clone(&stop);
            load.clients.push(std::thread::Builder::new().spawn(move || client.work(&stop))?);
        }
        Ok(load)
    }

    /// Lets every client finish its pipeline and end.
    ///
    /// # Errors
    /// A client panicked.
    pub fn stop(mut self) -> Result<Outcome> {
        self.stop.store(true, Ordering::Relaxed);
        let joined: Result<Vec<_>, _> = self.clients.drain(..).map(JoinHandle::join).collect();
        let clients = joined.ok().context("a client panicked")?;
        Ok(Outcome { clients, lasted: self.began.elapsed() })
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// What all clients leave behind.
#[derive(Debug)]
pub struct Outcome {
    /// The clients.
    pub clients: Vec<Finished>,
    lasted: Duration,
}

impl Outcome {
    fn of<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a Finished> {
        self.clients.iter().filter(move |client| client.name.starts_with(prefix))
    }

    /// Commands that were answered.
    #[must_use]
    pub fn commands(&self) -> u64 {
        self.clients
            .iter()
            .flat_map(|client| &client.pipelines)
            .map(|pipeline| u64::from(pipeline.commands))
            .sum()
    }

    /// Error replies, by their first word.
    #[must_use]
    pub fn errors(&self) -> BTreeMap<String, Errors> {
        let mut all: BTreeMap<String, Errors> = BTreeMap::new();
        for (word, errors) in self.clients.iter().flat_map(|client| &client.errors) {
            let sum = all.entry(word.clone()).or_default();
            sum.count += errors.count;
            sum.to_reads += errors.to_reads;
            sum.to_one_key += errors.to_one_key;
            errors.example.clone_into(&mut sum.example);
        }
        all
    }

    /// How often replicas confirmed writes.
    #[must_use]
    pub fn confirmations(&self) -> u64 {
        self.clients.iter().map(|client| client.confirmations).sum()
    }

    /// Acknowledged writes that are gone and may be.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.clients.iter().flat_map(|client| &client.keys).map(|key| key.lost).sum()
    }

    /// The longest that a pipeline took, of clients whose name begins so.
    #[must_use]
    pub fn worst_latency(&self, prefix: &str) -> Duration {
        let pipelines = self.of(prefix).flat_map(|client| &client.pipelines);
        pipelines.map(|pipeline| pipeline.done - pipeline.sent).max().unwrap_or_default()
    }

    /// Commands a second, of clients whose name begins so.
    #[must_use]
    pub fn rate(&self, prefix: &str, from: Instant, until: Instant) -> f64 {
        let pipelines = self.of(prefix).flat_map(|client| &client.pipelines);
        let within = pipelines.filter(|pipeline| (from..until).contains(&pipeline.done));
        let commands: u64 = within.map(|pipeline| u64::from(pipeline.commands)).sum();
        commands as f64 / (until - from).as_secs_f64()
    }

    /// How long after `since` the last of those clients was past its longest time without a good pipeline.
    #[must_use]
    pub fn recovery(&self, prefix: &str, since: Instant) -> Duration {
        let recovered = self.of(prefix).map(|client| {
            let good =
                client.pipelines.iter().filter(|pipeline| pipeline.errors == 0 && pipeline.done > since);
            let ends: Vec<Instant> =
                std::iter::once(since).chain(good.map(|pipeline| pipeline.done)).collect();
            let longest = ends.windows(2).max_by_key(|pair| pair[1] - pair[0]);
            longest.map_or(Duration::MAX, |pair| pair[1] - since)
        });
        recovered.max().unwrap_or_default()
    }

    /// The pipelines that took longer than half a second, in seconds from `since`, for people.
    #[must_use]
    pub fn slow(&self, prefix: &str, since: Instant) -> String {
        let seconds = |at: Instant| {
            let before = since.saturating_duration_since(at).as_secs_f64();
            at.saturating_duration_since(since).as_secs_f64() - before
        };
        let mut lines = Vec::new();
        for client in self.of(prefix) {
            let slow = client.pipelines.iter().filter(|pipeline| pipeline.done - pipeline.sent > SLOW);
            let slow = slow
                .map(|p| format!("{:.2} to {:.2} ({} errors)", seconds(p.sent), seconds(p.done), p.errors));
            lines.push(format!("{}: {}", client.name, slow.collect::<Vec<_>>().join(", ")));
        }
        lines.join("\n")
    }

    /// One line for people.
    #[must_use]
    pub fn summary(&self) -> String {
        let errors: Vec<String> =
            self.errors().iter().map(|(word, errors)| format!("{word} {}", errors.count)).collect();
        format!(
            "{} clients, {} commands in {:.1} s, worst {:?}, {} confirmations, {} lost, errors: {}",
            self.clients.len(),
            self.commands(),
            self.lasted.as_secs_f64(),
            self.worst_latency(""),
            self.confirmations(),
            self.lost(),
            if errors.is_empty() { "none".to_owned() } else { errors.join(", ") },
        )
    }

    /// Fails unless all errors begin with one of these words, and nothing impossible was replied.
    ///
    /// # Errors
    /// What was wrong, the first few of it.
    pub fn expect_only(&self, words: &[&str]) -> Result<()> {
        let violations: Vec<String> = self
            .clients
            .iter()
            .flat_map(|client| client.violations.iter().map(move |text| format!("{}: {text}", client.name)))
            .collect();
        let count = violations.len();
        ensure!(count == 0, "{count} impossible replies:\n{}", violations[..count.min(12)].join("\n"));
        let unexpected: Vec<_> =
            self.errors().into_iter().filter(|(word, _)| !words.contains(&word.as_str())).collect();
        ensure!(unexpected.is_empty(), "unexpected errors: {unexpected:#?}");
        ensure!(self.clients.iter().all(|client| client.pipelines.len() > 3), "a client did next to nothing");
        Ok(())
    }
}
