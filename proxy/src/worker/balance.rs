//! How many workers serve: as few as the load needs, so that batches are deep; a worker that has too much shares.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// Thousandths of one core's time.
pub type Busy = u32;

/// A worker that is busier shares its clients with another.
const TOO_BUSY: Busy = 800;
/// New clients go to a worker that is less busy than this.
const TAKES_NEW: Busy = 700;
/// Two workers that together are less busy become one; more stay two, so that nobody moves to and fro.
const ONE_IS_ENOUGH: Busy = 500;
/// The same, for those who are at it.
const STILL_ENOUGH: Busy = 600;
/// How often a worker looks at its load.
const INTERVAL: Duration = Duration::from_millis(100);
/// Looks in a row that have to agree before a worker shares its clients, and before it leaves them to another.
const BEFORE_SHARING: u32 = 2;
const BEFORE_LEAVING: u32 = 10;
/// Looks after sharing until its effect is seen.
const AFTER_SHARING: u32 = 5;

/// What a worker does about its load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Advice {
    /// Nothing.
    Stay,
    /// Give half of the clients that are active to this worker.
    Share(usize),
    /// Give every client that is active to this worker.
    Leave(usize),
}

/// The worker for a new client: the first that is not too busy, otherwise the least busy.
pub(super) fn place(busy: &[Busy]) -> usize {
    busy.iter().position(|&busy| busy < TAKES_NEW).unwrap_or_else(|| least(busy))
}

fn least(busy: &[Busy]) -> usize {
    (0..busy.len()).min_by_key(|&worker| busy[worker]).unwrap_or(0)
}

/// What worker `me` should do when all are so busy; `leaving`: it is giving its clients away.
fn advise(me: usize, busy: &[Busy], leaving: bool) -> Advice {
    let own = busy[me];
    let enough = if leaving { STILL_ENOUGH } else { ONE_IS_ENOUGH };
    if own > TOO_BUSY {
        let other = least(busy);
        return if busy[other] < own / 2 { Advice::Share(other) } else { Advice::Stay };
    }
    match busy[..me].iter().position(|&other| other + own < enough) {
        Some(other) => Advice::Leave(other),
        None => Advice::Stay,
    }
}

/// One worker's view of its load over time.
#[derive(Debug)]
pub(super) struct Balance {
    next: Instant,
    looked: Instant,
    /// Processor time that the thread had used by then.
    used: Duration,
    /// What the last looks agreed on, and how many they were.
    opinion: (Advice, u32),
    /// Looks that are skipped.
    rest: u32,
}

impl Balance {
    /// For a thread that begins now.
    pub(super) fn new(now: Instant) -> Self {
        Self { next: now + INTERVAL, looked: now, used: Duration::ZERO, opinion: (Advice::Stay, 0), rest: 0 }
    }

    /// How busy this thread was since this last told; nothing if it is too early to tell.
    #[inline]
    pub(super) fn look(&mut self, now: Instant) -> Option<Busy> {
        (now >= self.next).then(|| self.measure(now))
    }

    #[cold]
    fn measure(&mut self, now: Instant) -> Busy {
        let used = used();
        let busy = used.saturating_sub(self.used).as_secs_f64() / (now - self.looked).as_secs_f64();
        (self.next, self.looked, self.used) = (now + INTERVAL, now, used);
        (busy * 1000.0).round() as Busy
    }

    /// What worker `me` does from now on, `busy` being how busy each worker was last.
    pub(super) fn advise(&mut self, me: usize, busy: &[Busy]) -> Advice {
        if self.rest > 0 {
            self.rest -= 1;
            return Advice::Stay;
        }
        let (before, times) = self.opinion;
        let leaving = matches!(before, Advice::Leave(_)) && times >= BEFORE_LEAVING;
        let advice = advise(me, busy, leaving);
        let times = if advice == before { times.saturating_add(1) } else { 1 };
        self.opinion = (advice, times);
        match advice {
            Advice::Share(_) if times >= BEFORE_SHARING => {
                self.rest = AFTER_SHARING;
                self.opinion = (Advice::Stay, 0);
                advice
            }
            Advice::Leave(_) if times >= BEFORE_LEAVING => advice,
            _ => Advice::Stay,
        }
    }
}

/// Processor time that the calling thread has used.
fn used() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_clients_fill_the_first_worker_first() {
        assert_eq!(place(&[0, 0, 0]), 0);
        assert_eq!(place(&[750, 100, 0]), 1);
        assert_eq!(place(&[900, 800, 950]), 1);
    }

    #[test]
    fn a_worker_shares_only_with_one_that_has_half_as_much() {
        assert_eq!(advise(0, &[900, 0, 0], false), Advice::Share(1));
        assert_eq!(advise(0, &[900, 440, 300], false), Advice::Share(2));
        assert_eq!(advise(0, &[900, 700, 600], false), Advice::Stay);
        assert_eq!(advise(0, &[700, 0], false), Advice::Stay);
    }

    #[test]
    fn two_half_idle_workers_become_one_and_sharing_does_not_bring_them_back() {
        assert_eq!(advise(1, &[200, 200], false), Advice::Leave(0));
        assert_eq!(advise(0, &[200, 200], false), Advice::Stay, "the first stays");
        assert_eq!(advise(1, &[410, 410], false), Advice::Stay, "what was shared at 820 stays shared");
        assert_eq!(advise(1, &[450, 100], true), Advice::Leave(0), "who has begun to leave goes on");
        assert_eq!(advise(2, &[450, 100, 200], false), Advice::Leave(1));
    }

    #[test]
    fn one_look_is_not_enough() {
        let mut balance = Balance::new(Instant::now());
        assert_eq!(balance.advise(0, &[900, 0]), Advice::Stay);
        assert_eq!(balance.advise(0, &[900, 0]), Advice::Share(1));
        for _ in 0..=AFTER_SHARING {
            assert_eq!(balance.advise(0, &[900, 0]), Advice::Stay, "it sees first what that brought");
        }
        let left = (0..20).filter(|_| balance.advise(1, &[100, 100]) == Advice::Leave(0)).count();
        assert_eq!(left, 11, "all but the first nine, until something else is advised");
    }
}
