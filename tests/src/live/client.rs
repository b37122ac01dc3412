//! One client: its own keys, pipelines of random commands on them, and a check of every reply.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Result;
use portico_slots::Address;

use super::model::{Fate, Key, Kind, Losses};
use super::place::key_in_slot;
use super::run::{Finished, Pipeline};
use super::witness::Witness;
use crate::{Frame, Random, encode, show};

/// A reply that takes longer than this never comes.
const PATIENCE: Duration = Duration::from_secs(25);

/// How a client behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Commands in a pipeline, at most.
    pub depth: u32,
    /// Pause after each pipeline.
    pub pause: Duration,
    /// Bytes that every element carries besides its number.
    pub padding: usize,
    /// Only appends and pushes.
    pub writes_only: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { depth: 30, pause: Duration::from_millis(8), padding: 0, writes_only: false }
    }
}

/// What a client has to work with.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Its name, part of its keys.
    pub name: String,
    /// Whether it speaks RESP3.
    pub resp3: bool,
    /// Hash tags, under each of which it has a key of every kind.
    pub tags: Vec<String>,
    /// Names without a tag, for MSET and MGET over several slots.
    pub scattered: Vec<String>,
    /// How it behaves.
    pub settings: Settings,
    /// The master of the first tag's slot, where a replica's confirmation is asked for.
    pub confirm_at: Option<(Address, std::ops::RangeInclusive<u16>)>,
}

impl Plan {
    /// For client `number`: every second one speaks RESP3; nothing scattered, nothing confirmed.
    #[must_use]
    pub fn new(number: usize, name: String, tags: Vec<String>) -> Self {
        let settings = Settings::default();
        Self { name, resp3: number % 2 == 1, tags, scattered: Vec::new(), settings, confirm_at: None }
    }

    /// For client `number`, with a key in each of the slots `own`; every third one scatters keys over those of `across`.
    #[must_use]
    pub fn in_slots(number: u16, own: &[u16], across: &[u16]) -> Self {
        let keys = |slots: &[u16], kind: &str| {
            slots.iter().map(|&slot| key_in_slot(slot, &format!("{kind}{number}-"))).collect()
        };
        let scattered = if number.is_multiple_of(3) { keys(across, "x") } else { Vec::new() };
        Self { scattered, ..Self::new(number.into(), format!("c{number}"), keys(own, "c")) }
    }
}

/// A command whose reply is awaited.
enum Sent {
    Step { key: usize, number: u32 },
    Count { key: usize },
    Set { keys: Vec<usize>, value: u32 },
    Get { keys: Vec<usize> },
}

pub(super) struct Client {
    plan: Plan,
    wire: crate::Client,
    keys: Vec<Key>,
    scattered: Vec<usize>,
    losses: Losses,
    dice: Random,
    number: u32,
    output: Vec<u8>,
    done: Finished,
    witness: Option<Witness>,
}

const KINDS: [Kind; 6] = [Kind::Counter, Kind::Text, Kind::List, Kind::Value, Kind::Value, Kind::Absent];

impl Client {
    pub(super) fn new(plan: Plan, portico: u16, losses: Losses) -> Result<Self> {
        let mut keys = Vec::new();
        for tag in &plan.tags {
            for (index, kind) in KINDS.into_iter().enumerate() {
                keys.push(Key::new(format!("{{{tag}}}{kind:?}{index}"), kind));
            }
        }
        let first = keys.len();
        keys.extend(plan.scattered.iter().map(|name| Key::new(name.clone(), Kind::Value)));
        let seed = plan
            .name
            .bytes()
            .fold(0x9E37_79B9_u64, |seed, byte| (seed ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3));
        let mut wire = crate::Client::connect(portico)?;
        wire.set_patience(PATIENCE)?;
        if plan.resp3 {
            wire.hello3()?;
        }
        let witness = plan.confirm_at.as_ref();
        let witness = witness.map(|(master, slots)| Witness::new(master, slots.clone(), &plan.tags[0]));
        Ok(Client {
            wire,
            scattered: (first..keys.len()).collect(),
            keys,
            losses,
            dice: Random::new(seed),
            number: 0,
            output: Vec::new(),
            done: Finished::new(plan.name.clone(), plan.settings.padding),
            witness: witness.transpose()?,
            plan,
        })
    }

    /// Works until told to stop, or until a reply does not come.
    pub(super) fn work(mut self, stop: &AtomicBool) -> Finished {
        while !stop.load(Ordering::Relaxed) {
            if let Err(error) = self.pipeline() {
                self.done.violations.push(format!("the connection failed: {error:#}"));
                break;
            }
            self.confirm();
            sleep(self.plan.settings.pause);
        }
        self.done.keys = self.keys;
        self.done
    }

    fn pipeline(&mut self) -> Result<()> {
        let length =
            self.plan.settings.depth / 2 + self.dice.below(self.plan.settings.depth as usize / 2 + 1) as u32;
        self.output.clear();
        let awaited: Vec<Sent> = (0..length).map(|_| self.command()).collect();
        let (sent, failed) = (Instant::now(), self.done.failures());
        self.wire.send(&self.output)?;
        for sent in awaited {
            let reply = self.wire.reply()?;
            self.reply(&sent, &reply);
        }
        let (done, errors) = (Instant::now(), self.done.failures() - failed);
        self.done.pipelines.push(Pipeline { sent, done, commands: length, errors });
        Ok(())
    }

    /// Appends a random command to the output.
    fn command(&mut self) -> Sent {
        let tags = self.plan.tags.len();
        let base = if tags == 0 { 0 } else { self.dice.below(tags) * KINDS.len() };
        let choice =
            if tags == 0 { 11 } else { self.dice.below(if self.scattered.is_empty() { 10 } else { 12 }) };
        let choice = if self.plan.settings.writes_only { 2 + choice % 4 } else { choice };
        self.number += 1;
        let number = self.number;
        let element = Key::element(number, self.plan.settings.padding);
        let name = |key: usize| self.keys[key].name.as_str();
        let mut send = |words: &[&str]| self.output.extend_from_slice(&encode(words));
        match choice {
            0 | 1 => send(&["INCR", name(base)]),
            2 | 3 => send(&["APPEND", name(base + 1), &element]),
            4 | 5 => send(&["RPUSH", name(base + 2), &element]),
            6 => send(&["GET", name(base)]),
            7 => send(&["LLEN", name(base + 2)]),
            8 => {
                let value = number.to_string();
                send(&["MSET", name(base + 3), &value, name(base + 4), &value]);
            }
            9 => send(&["MGET", name(base + 3), name(base + 5), name(base + 4)]),
            10 => {
                let value = number.to_string();
                let pairs = self.scattered.iter().flat_map(|&key| [name(key), &value]);
                send(&std::iter::once("MSET").chain(pairs).collect::<Vec<_>>());
            }
            _ => {
                let names = self.scattered.iter().map(|&key| name(key));
                send(&std::iter::once("MGET").chain(names).collect::<Vec<_>>());
            }
        }
        match choice {
            0..=5 => Sent::Step { key: base + choice / 2, number },
            6 => Sent::Count { key: base },
            7 => Sent::Count { key: base + 2 },
            8 => Sent::Set { keys: vec![base + 3, base + 4], value: number },
            9 => Sent::Get { keys: vec![base + 3, base + 5, base + 4] },
            10 => Sent::Set { keys: self.scattered.clone(), value: number },
            _ => Sent::Get { keys: self.scattered.clone() },
        }
    }

    fn reply(&mut self, sent: &Sent, reply: &[u8]) {
        let (frame, _) = Frame::read(reply);
        let number =
            |frame: &Frame<'_>| frame.body().and_then(|body| std::str::from_utf8(body).ok()?.parse().ok());
        let losses = &self.losses;
        let checked = match (sent, reply[0]) {
            (_, b'-') => return self.failed(sent, String::from_utf8_lossy(&reply[1..]).trim_end()),
            (Sent::Step { key, number: step }, b':') => {
                let told = number(&frame).unwrap_or_default();
                self.keys[*key].step_acked(*step, told, self.plan.settings.padding, losses)
            }
            (Sent::Count { key }, kind @ (b':' | b'$' | b'_'))
                if (self.keys[*key].kind == Kind::List) == (kind == b':') =>
            {
                self.keys[*key].count_read(number(&frame).unwrap_or(0), losses)
            }
            (Sent::Set { keys, value }, b'+') if reply == b"+OK\r\n" => {
                keys.iter().for_each(|&key| self.keys[key].value_set(*value));
                Ok(())
            }
            (Sent::Get { keys }, b'*') if frame.elements().len() == keys.len() => {
                let mut each = keys.iter().zip(frame.elements());
                each.try_for_each(|(&key, value)| {
                    let value = u32::try_from(number(value).unwrap_or(0)).unwrap_or(u32::MAX);
                    self.keys[key].value_read(value, losses)
                })
            }
            _ => Err(format!("a reply of the wrong type: {}", show(reply))),
        };
        if let Err(violation) = checked {
            self.done.violations.push(violation);
        }
    }

    fn failed(&mut self, sent: &Sent, error: &str) {
        let write = matches!(sent, Sent::Step { .. } | Sent::Set { .. });
        let several = match sent {
            Sent::Set { keys, .. } | Sent::Get { keys } => keys.len() > 1,
            _ => false,
        };
        let scattered = matches!(sent, Sent::Set { keys, .. } if *keys == self.scattered);
        let refused = error.starts_with("TRYAGAIN ") || error.starts_with("CLUSTERDOWN ");
        // Of a command over several slots a part may have run all the same.
        let not_run = refused && !scattered;
        match sent {
            Sent::Step { key, number } => {
                let fate = if not_run { Fate::NotRun } else { Fate::Unknown };
                self.keys[*key].step_failed(*number, fate);
            }
            Sent::Set { keys, value } if !not_run => {
                keys.iter().for_each(|&key| self.keys[key].value_unknown(*value));
            }
            _ => {}
        }
        self.done.error(error, write, several);
    }

    /// Has a replica confirm what was acknowledged, now and then.
    fn confirm(&mut self) {
        let Some(witness) = &mut self.witness else { return };
        if witness.confirms(&self.losses) {
            self.done.confirmations += 1;
            self.keys.iter_mut().filter(|key| witness.speaks_of(key)).for_each(Key::confirmed);
        }
    }
}
