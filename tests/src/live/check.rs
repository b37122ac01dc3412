//! What is really in the cluster when all is over, against what the clients know.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use portico::sandbox::{Cluster, Connection, text};
use portico_slots::Address;
use redis_protocol::resp2::types::BytesFrame;

use super::model::{Fate, Key, Kind, Losses};
use super::run::Outcome;

/// Asks the nodes themselves, following redirects.
#[derive(Debug)]
pub struct Direct {
    first: Address,
    connections: HashMap<Address, Connection>,
}

impl Direct {
    /// Begins with the first running node.
    ///
    /// # Errors
    /// None is running.
    pub fn new(cluster: &Cluster) -> Result<Self> {
        let running = cluster.nodes().iter().find(|node| node.pid().is_some());
        Ok(Self::at(running.context("no node is running")?.address()))
    }

    /// Begins with this node.
    #[must_use]
    pub fn at(first: Address) -> Self {
        Direct { first, connections: HashMap::new() }
    }

    /// One command.
    ///
    /// # Errors
    /// A node does not answer, or they send each other round.
    pub fn call(&mut self, command: &[&str]) -> Result<BytesFrame> {
        let mut address = self.first.clone();
        for _ in 0..5 {
            if !self.connections.contains_key(&address) {
                let connection = Connection::open(&address, Duration::from_secs(5))?;
                self.connections.insert(address.clone(), connection);
            }
            let connection = self.connections.get_mut(&address).context("connected")?;
            match connection.call(command)? {
                BytesFrame::Error(error) if error.starts_with("MOVED ") => {
                    address = error.rsplit(' ').next().unwrap_or_default().parse()?;
                }
                reply => return Ok(reply),
            }
        }
        bail!("the nodes send {command:?} round in circles")
    }
}

/// Checks every key of every client; adds what may be lost and is to the keys' `lost`.
///
/// # Errors
/// What is there and must not be, or is not there and must be.
pub fn check(cluster: &Cluster, outcome: &mut Outcome, losses: &Losses) -> Result<()> {
    let mut direct = Direct::new(cluster)?;
    let mut wrong = Vec::new();
    for client in &mut outcome.clients {
        for key in &mut client.keys {
            let result = check_key(&mut direct, key, client.padding, losses);
            wrong.extend(result.err().map(|error| format!("{}: {error:#}", client.name)));
        }
    }
    let count = wrong.len();
    ensure!(count == 0, "{count} keys are wrong:\n{}", wrong[..count.min(12)].join("\n"));
    Ok(())
}

/// Checks one key; adds what may be lost and is to its `lost`.
///
/// # Errors
/// What is there and must not be, or is not there and must be.
pub fn check_key(direct: &mut Direct, key: &mut Key, padding: usize, losses: &Losses) -> Result<()> {
    match key.kind {
        Kind::Counter => counter(direct, key, losses),
        Kind::Text | Kind::List => steps(direct, key, padding, losses),
        Kind::Value | Kind::Absent => value(direct, key, losses),
    }
}

fn number(direct: &mut Direct, name: &str) -> Result<u32> {
    let reply = direct.call(&["GET", name])?;
    Ok(text(&reply).map_or(Ok(0), |text| text.parse())?)
}

fn counter(direct: &mut Direct, key: &mut Key, losses: &Losses) -> Result<()> {
    let count = number(direct, &key.name)?;
    key.count_read(u64::from(count), losses).map_err(anyhow::Error::msg)
}

fn value(direct: &mut Direct, key: &mut Key, losses: &Losses) -> Result<()> {
    let value = number(direct, &key.name)?;
    key.value_read(value, losses).map_err(anyhow::Error::msg)
}

/// Every acknowledged step once, in order; no step that did not run; of those of unknown outcome any.
fn steps(direct: &mut Direct, key: &mut Key, padding: usize, losses: &Losses) -> Result<()> {
    let present: Vec<Option<u32>> = match key.kind {
        Kind::List => match direct.call(&["LRANGE", &key.name, "0", "-1"])? {
            BytesFrame::Array(elements) => elements
                .iter()
                .map(|element| text(element).and_then(|element| Key::number(&element)))
                .collect(),
            other => bail!("{}: {other:?}", key.name),
        },
        _ => Key::tokens(&text(&direct.call(&["GET", &key.name])?).unwrap_or_default(), padding),
    };
    let present: Vec<u32> = present.into_iter().collect::<Option<_>>().context("a torn element")?;
    let place = format!("{} (slot {}, {} elements)", key.name, key.slot, present.len());
    if let Some(pair) = present.windows(2).find(|pair| pair[0] >= pair[1]) {
        bail!("{place}: {} comes before {}: twice or out of order", pair[0], pair[1]);
    }
    let mut there = present.iter().copied().peekable();
    let mut missing_since = None;
    for &(step, fate) in &key.steps {
        let is_there = there.next_if_eq(&step).is_some();
        match fate {
            Fate::NotRun => ensure!(!is_there, "{place}: {step} ran although it was refused"),
            Fate::Unknown => {}
            Fate::Acked(at) => {
                let may_be_lost = step > key.floor_step && losses.allowed(key.slot, Some(at));
                ensure!(is_there || may_be_lost, "{place}: {step} was acknowledged and is not there");
                if !is_there {
                    missing_since.get_or_insert(step);
                    key.lost += 1;
                } else if let Some(missing) = missing_since.filter(|_| may_be_lost) {
                    bail!("{place}: {missing} is lost but the later {step} is not");
                }
            }
        }
    }
    ensure!(there.next().is_none(), "{place}: elements that nobody sent");
    Ok(())
}
