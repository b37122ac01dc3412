//! What anybody from outside can cause again and again: counted each time, logged now and then.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How often something has happened, and when the log was told.
#[derive(Debug, Default)]
pub struct Seldom {
    total: AtomicU64,
    told: AtomicU64,
    /// Milliseconds since the process began.
    next: AtomicU64,
}

impl Seldom {
    /// It has happened once more, so long after the process began. Returns how often since the log was told last, if the
    /// log is to be told: at first at once, later after `pause` at the soonest.
    pub fn happened(&self, now: Duration, pause: Duration) -> Option<u64> {
        let total = self.total.fetch_add(1, Ordering::Relaxed) + 1;
        let now = now.as_millis() as u64;
        let next = self.next.load(Ordering::Relaxed);
        let after = now + pause.as_millis() as u64;
        let mine = now >= next
            && self.next.compare_exchange(next, after, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        mine.then(|| total - self.told.swap(total, Ordering::Relaxed))
    }

    /// How often it has happened.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_told_at_once_and_then_seldom() {
        let failures = Seldom::default();
        let happens = |at: u64| failures.happened(Duration::from_millis(at), Duration::from_secs(10));
        assert_eq!(happens(5), Some(1));
        assert_eq!((happens(6), happens(10_004)), (None, None));
        assert_eq!((happens(10_005), happens(10_006)), (Some(3), None));
        assert_eq!(failures.total(), 5);
    }
}
