//! Whether the machine itself stood still: what was timed meanwhile says nothing of Portico, and is timed again.

use std::fs::File;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// How often each processor and the disk are looked at.
const TICK: Duration = Duration::from_millis(20);
/// A processor or a disk that lets one wait so long is not ours alone. Two busy tests on two cores stay far below.
const STOOD_STILL: Duration = Duration::from_millis(250);
/// How often a test is run at most.
const RUNS: usize = 3;
/// The machine is calm when it did not stand still for so long.
const CALM: Duration = Duration::from_secs(2);
/// Longest wait for that.
const PATIENCE: Duration = Duration::from_secs(30);

/// Something took too long, or too little was done in its time. Whatever Portico does, a busy machine can bring it about.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct TooSlow(pub String);

/// As `ensure!`, of what depends on how fast the machine is: [`on_a_calm_machine`] looks again.
#[macro_export]
macro_rules! ensure_timely {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err($crate::TooSlow(format!($($message)+)).into());
        }
    };
}

/// Runs a test that depends on time. If it fails with [`TooSlow`], or with anything while a processor or the disk stood
/// still, it is run again, at most twice: what Portico does wrong, it does wrong again.
///
/// # Errors
/// What the last run failed with.
pub fn on_a_calm_machine(test: impl Fn() -> Result<()>) -> Result<()> {
    for _ in 1..RUNS {
        let (result, still) = beside_a_watch(&test)?;
        match result {
            Err(error) if still >= STOOD_STILL || error.is::<TooSlow>() => {
                println!("once more, since the machine stood still for up to {still:?}: {error:#}");
            }
            result => return result,
        }
        let began = Instant::now();
        while began.elapsed() < PATIENCE && beside_a_watch(|| sleep(CALM))?.1 >= STOOD_STILL {}
    }
    test()
}

/// What it returned, and the longest that a processor or the disk stood still meanwhile.
fn beside_a_watch<T>(test: impl FnOnce() -> T) -> Result<(T, Duration)> {
    let allowed = sched_getaffinity(None).context("which processors are ours")?;
    let processors = (0..CpuSet::MAX_CPU).filter(|&processor| allowed.is_set(processor));
    let ended = AtomicBool::new(false);
    scope(|scope| {
        let ended = &ended;
        let mut watches: Vec<_> =
            processors.map(|processor| scope.spawn(move || watch_processor(processor, ended))).collect();
        watches.push(scope.spawn(move || watch_disk(ended)));
        // A panic in the test ends the watches too.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(test));
        ended.store(true, Ordering::Relaxed);
        let mut still = Duration::ZERO;
        for watch in watches {
            still = still.max(watch.join().map_err(|_| anyhow!("a watch panicked"))??);
        }
        match result {
            Ok(result) => Ok((result, still)),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn watch_processor(processor: usize, ended: &AtomicBool) -> Result<Duration> {
    let mut only = CpuSet::new();
    only.set(processor);
    sched_setaffinity(None, &only).context("a thread on one processor")?;
    longest(ended, || Ok(()))
}

fn watch_disk(ended: &AtomicBool) -> Result<Duration> {
    let mut file: File = tempfile::tempfile()?;
    longest(ended, || {
        file.write_all(b".")?;
        Ok(file.sync_data()?)
    })
}

/// The longest that something took, beyond its tick.
fn longest(ended: &AtomicBool, mut act: impl FnMut() -> Result<()>) -> Result<Duration> {
    let mut longest = Duration::ZERO;
    while !ended.load(Ordering::Relaxed) {
        let began = Instant::now();
        sleep(TICK);
        act()?;
        longest = longest.max(began.elapsed() - TICK);
    }
    Ok(longest)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use anyhow::bail;

    use super::*;

    #[test]
    fn what_was_too_slow_is_looked_at_again_and_what_is_wrong_is_not() -> Result<()> {
        let runs = Cell::new(0);
        on_a_calm_machine(|| {
            runs.set(runs.get() + 1);
            ensure_timely!(runs.get() == 3, "run {}", runs.get());
            Ok(())
        })?;
        assert_eq!(runs.replace(0), 3);
        let always = on_a_calm_machine(|| {
            runs.set(runs.get() + 1);
            ensure_timely!(false, "never");
            Ok(())
        });
        assert_eq!((runs.get(), always.is_err()), (3, true));
        // On a machine that stands still, three times.
        let wrong = on_a_calm_machine(|| {
            runs.set(runs.get() + 1);
            bail!("wrong")
        });
        assert!(wrong.is_err_and(|error| error.to_string() == "wrong"));
        assert!((4..=6).contains(&runs.get()));
        Ok(())
    }

    #[test]
    fn a_held_up_disk_or_processor_is_noticed() -> Result<()> {
        let ended = AtomicBool::new(false);
        let still = longest(&ended, || {
            ended.store(true, Ordering::Relaxed);
            sleep(Duration::from_millis(30));
            Ok(())
        })?;
        assert!(still >= Duration::from_millis(30));
        Ok(())
    }
}
