//! What a client knows of one of its keys: what may be there, what must be, and what it did to it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use portico_slots::slot;

/// Bytes of one step of a [`Kind::Text`], without padding.
const TOKEN: usize = 9;

/// What a key holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// INCR.
    Counter,
    /// APPEND, a token a step.
    Text,
    /// RPUSH, an element a step.
    List,
    /// MSET.
    Value,
    /// Nothing, ever.
    Absent,
}

/// What became of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Acknowledged then.
    Acked(Instant),
    /// Answered with "outcome unknown".
    Unknown,
    /// Answered with an error that says it did not run.
    NotRun,
}

/// Writes to these slots that were acknowledged until then.
type Loss = (Instant, std::ops::RangeInclusive<u16>);

/// Which acknowledged writes a cluster may lose: those of shards whose master was killed, acknowledged before.
#[derive(Debug, Clone, Default)]
pub struct Losses(Arc<Mutex<Vec<Loss>>>);

impl Losses {
    /// Writes to `slots` that were acknowledged by `until` may be lost if no replica confirmed them.
    pub fn allow(&self, until: Instant, slots: std::ops::RangeInclusive<u16>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((until, slots));
    }

    pub(super) fn allowed(&self, slot: u16, acked_at: Option<Instant>) -> bool {
        let allowed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        acked_at.is_some_and(|at| allowed.iter().any(|(until, slots)| at <= *until && slots.contains(&slot)))
    }
}

/// One key and its model.
#[derive(Debug)]
pub struct Key {
    /// Its name.
    pub name: String,
    /// Its slot.
    pub slot: u16,
    /// What it holds.
    pub kind: Kind,
    /// Steps that ran, at least.
    pub low: u64,
    /// Steps that ran, at most.
    pub high: u64,
    /// What a value may be, oldest first; 0: absent.
    pub values: Vec<u32>,
    /// Every step's number and fate, in order, of a text or a list.
    pub steps: Vec<(u32, Fate)>,
    /// Steps that a replica has for certain.
    pub floor: u64,
    /// The last step that a replica has for certain, by its number.
    pub floor_step: u32,
    /// The value that a replica has for certain, or an older one.
    pub floor_value: u32,
    /// When a write was last acknowledged.
    pub acked_at: Option<Instant>,
    /// Acknowledged steps that are gone and may be.
    pub lost: u64,
    last_acked: u32,
}

impl Key {
    /// A key that is not there yet.
    #[must_use]
    pub fn new(name: String, kind: Kind) -> Self {
        let slot = slot(name.as_bytes());
        Key {
            name,
            slot,
            kind,
            low: 0,
            high: 0,
            values: vec![0],
            steps: Vec::new(),
            floor: 0,
            floor_step: 0,
            floor_value: 0,
            acked_at: None,
            lost: 0,
            last_acked: 0,
        }
    }

    /// A step's element: its number and some padding.
    #[must_use]
    pub fn element(number: u32, padding: usize) -> String {
        format!("{number:08},{}", "x".repeat(padding))
    }

    /// The numbers of the steps that a text holds.
    #[must_use]
    pub fn tokens(text: &str, padding: usize) -> Vec<Option<u32>> {
        let tokens = text.as_bytes().chunks(TOKEN + padding);
        tokens.map(|token| std::str::from_utf8(token).ok().and_then(Self::number)).collect()
    }

    /// The number of an element, if it is one of ours and whole.
    #[must_use]
    pub fn number(element: &str) -> Option<u32> {
        let (number, rest) = element.split_once(',')?;
        rest.bytes().all(|byte| byte == b'x').then(|| number.parse().ok()).flatten()
    }

    /// A step was acknowledged, with the number that the node told.
    ///
    /// # Errors
    /// That number cannot be.
    pub fn step_acked(
        &mut self,
        number: u32,
        told: u64,
        padding: usize,
        losses: &Losses,
    ) -> Result<(), String> {
        let unit = if self.kind == Kind::Text { TOKEN + padding } else { 1 };
        let count = told / unit as u64;
        let result = self.count_seen(count, self.low + 1, self.high + 1, losses);
        (self.low, self.high) = (count, count);
        self.record(number, Fate::Acked(Instant::now()));
        result.and_then(|()| {
            if told.is_multiple_of(unit as u64) {
                Ok(())
            } else {
                Err(format!("{}: {told} bytes", self.name))
            }
        })
    }

    /// The number of steps was read.
    ///
    /// # Errors
    /// That number cannot be.
    pub fn count_read(&mut self, count: u64, losses: &Losses) -> Result<(), String> {
        let result = self.count_seen(count, self.low, self.high, losses);
        (self.low, self.high) = (count, count);
        result
    }

    fn count_seen(&mut self, count: u64, low: u64, high: u64, losses: &Losses) -> Result<(), String> {
        if (low..=high).contains(&count) {
            return Ok(());
        }
        if count < low && count >= self.floor && losses.allowed(self.slot, self.acked_at) {
            self.lost += low - count;
            return Ok(());
        }
        let (floor, slot) = (self.floor, self.slot);
        Err(format!("{} (slot {slot}): {count}, expected {low} to {high}, a replica had {floor}", self.name))
    }

    /// A step failed; whether it ran is known or not.
    pub fn step_failed(&mut self, number: u32, fate: Fate) {
        self.high += u64::from(fate == Fate::Unknown);
        self.record(number, fate);
    }

    fn record(&mut self, number: u32, fate: Fate) {
        if let Fate::Acked(at) = fate {
            self.acked_at = Some(at);
            self.last_acked = number;
        }
        if matches!(self.kind, Kind::Text | Kind::List) {
            self.steps.push((number, fate));
        }
    }

    pub(super) fn value_set(&mut self, value: u32) {
        self.values = vec![value];
        self.acked_at = Some(Instant::now());
    }

    pub(super) fn value_unknown(&mut self, value: u32) {
        self.values.push(value);
    }

    /// A value was read: it is that from now on.
    pub(super) fn value_read(&mut self, value: u32, losses: &Losses) -> Result<(), String> {
        let known = std::mem::replace(&mut self.values, vec![value]);
        if known.contains(&value) {
            return Ok(());
        }
        let newest = known.last().copied().unwrap_or_default();
        if self.kind == Kind::Value
            && (self.floor_value..newest).contains(&value)
            && losses.allowed(self.slot, self.acked_at)
        {
            self.lost += 1;
            return Ok(());
        }
        Err(format!("{} (slot {}): value {value}, expected one of {known:?}", self.name, self.slot))
    }

    /// A replica has all that was acknowledged so far.
    pub fn confirmed(&mut self) {
        self.floor = self.low;
        self.floor_step = self.last_acked;
        self.floor_value = self.values.first().copied().unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_counts_once_unless_its_outcome_is_unknown() {
        let losses = Losses::default();
        let mut key = Key::new("a".to_owned(), Kind::Counter);
        assert_eq!(key.step_acked(1, 1, 0, &losses), Ok(()));
        assert!(key.step_acked(2, 3, 0, &losses).is_err(), "applied twice");
        key.step_failed(3, Fate::NotRun);
        assert!(key.step_acked(4, 5, 0, &losses).is_err(), "ran although it was refused");
        key.step_failed(5, Fate::Unknown);
        key.step_failed(6, Fate::Unknown);
        assert_eq!(key.step_acked(7, 7, 0, &losses), Ok(()));
        assert!(key.step_acked(8, 7, 0, &losses).is_err(), "one is lost");
    }

    #[test]
    fn what_a_replica_has_is_never_lost() {
        let losses = Losses::default();
        let mut key = Key::new("a".to_owned(), Kind::List);
        (1..=5).for_each(|number| assert_eq!(key.step_acked(number, number.into(), 0, &losses), Ok(())));
        key.confirmed();
        (6..=9).for_each(|number| assert_eq!(key.step_acked(number, number.into(), 0, &losses), Ok(())));
        assert!(key.count_read(8, &losses).is_err(), "nobody died");
        key.low = 9;
        losses.allow(Instant::now(), 0..=16_383);
        assert_eq!(key.count_read(6, &losses), Ok(()));
        assert_eq!(key.lost, 3);
        assert!(key.count_read(4, &losses).is_err(), "a replica had it");
    }

    #[test]
    fn a_value_is_the_last_one_that_was_set_or_may_have_been() {
        let losses = Losses::default();
        let mut key = Key::new("a".to_owned(), Kind::Value);
        key.value_set(1);
        key.value_set(2);
        key.value_unknown(3);
        assert_eq!(key.value_read(3, &losses), Ok(()));
        assert!(key.value_read(2, &losses).is_err(), "it was 3 before");
    }

    #[test]
    fn elements_are_read_as_they_were_written() {
        let text = [Key::element(7, 3), Key::element(12_345_678, 3)].concat();
        assert_eq!(Key::tokens(&text, 3), [Some(7), Some(12_345_678)]);
        assert_eq!(Key::tokens(&text[1..], 3)[0], None);
    }
}
