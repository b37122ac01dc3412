//! CLIENT PAUSE, for the whole process: until when, and whether it is for more than writes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Which requests wait, and until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pause {
    /// When they go on.
    pub until: Instant,
    /// All of them wait, not only those that may change something.
    pub all: bool,
}

/// What is paused, in one word: twice the milliseconds since the process began, and one more if all waits.
#[derive(Debug, Default)]
pub(super) struct PauseCell(AtomicU64);

impl PauseCell {
    /// Prolongs the pause that is, and extends it to everything if this one is for everything, as Redis does.
    pub(super) fn pause(&self, started: Instant, now: Instant, time: Duration, all: bool) {
        const FOREVER: u128 = 1 << 60;
        let millis = |time: Duration| time.as_millis().min(FOREVER) as u64;
        let now = now.saturating_duration_since(started);
        let until = millis(now.saturating_add(time));
        // The whole of a millisecond that has begun.
        let until = if time.is_zero() { 0 } else { until + 1 };
        let merge = |old: u64| {
            let (old_until, old_all) =
                if old >> 1 > millis(now) { (old >> 1, old & 1 == 1) } else { (0, false) };
            Some(old_until.max(until) << 1 | u64::from(all || old_all))
        };
        // The closure always has a value.
        let _ = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, merge);
    }

    pub(super) fn unpause(&self) {
        self.0.store(0, Ordering::SeqCst);
    }

    pub(super) fn get(&self, started: Instant, now: Instant) -> Option<Pause> {
        let word = self.0.load(Ordering::SeqCst);
        let until = started.checked_add(Duration::from_millis(word >> 1))?;
        (until > now).then_some(Pause { until, all: word & 1 == 1 })
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test's time begins at any instant")]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_prolonged_and_extended_but_not_cut_short() {
        let started = Instant::now();
        let now = started + Duration::from_secs(10);
        let millis = Duration::from_millis;
        let cell = PauseCell::default();
        assert_eq!(cell.get(started, now), None);
        cell.pause(started, now, millis(100), false);
        let first = cell.get(started, now).expect("a pause");
        assert!(!first.all && first.until >= now + millis(100) && first.until <= now + millis(102));
        cell.pause(started, now, millis(10), true);
        assert_eq!(cell.get(started, now), Some(Pause { all: true, ..first }));
        assert_eq!(cell.get(started, now + millis(200)), None);
        cell.pause(started, now + millis(200), millis(10), false);
        assert!(!cell.get(started, now + millis(200)).expect("a new one").all, "the first is over");
        cell.unpause();
        assert_eq!(cell.get(started, now), None);
        cell.pause(started, now, Duration::ZERO, true);
        assert_eq!(cell.get(started, now), None);
        cell.pause(started, now, Duration::MAX, true);
        assert!(cell.get(started, now).is_some());
    }
}
