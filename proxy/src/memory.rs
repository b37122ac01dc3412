//! Memory that is free goes back to the system when a storm is over.
//!
//! glibc takes large buffers from its heaps once some were freed, and gives a heap back only from its end: 3,000 clients that
//! had each sent most of a request of 1 MB, twice, left 1,458 MB with a Portico that did nothing. `malloc_trim` gives back
//! every page that is free: 8 MB were left.

use std::time::Duration;

/// How often it is looked at.
const LOOK: Duration = Duration::from_secs(20);
/// As much as this beyond what the process began with is nobody's concern, in bytes.
const SLACK: u64 = 64 << 20;

/// What a process holds, look by look.
#[derive(Debug)]
struct Watch {
    first: u64,
    before: u64,
}

impl Watch {
    /// Whether it holds much and has ceased to grow. While the heaps are looked through, who wants memory waits: not in the
    /// middle of a storm.
    fn is_over(&mut self, held: u64) -> bool {
        let grows = held > std::mem::replace(&mut self.before, held);
        !grows && held > self.first + SLACK
    }
}

/// Gives free memory back from time to time, for as long as the process lives.
pub fn keep_trim() {
    let Some(first) = held() else { return };
    let mut watch = Watch { first, before: first };
    loop {
        std::thread::sleep(LOOK);
        if held().is_some_and(|held| watch.is_over(held)) {
            trim();
        }
    }
}

/// Memory of the process that is in use or was not given back (`VmRSS`), in bytes.
fn held() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

#[cfg(target_env = "gnu")]
#[expect(
    unsafe_code,
    reason = "1,458 MB come back as is said above; malloc_trim may be called by any thread at any time, and touches only what is free"
)]
fn trim() {
    // SAFETY: it takes no pointer, and no memory that is in use is changed by it.
    unsafe { libc::malloc_trim(0) };
}

/// Other allocators give memory back by themselves.
#[cfg(not(target_env = "gnu"))]
fn trim() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_over_when_much_is_held_and_it_grows_no_more() {
        let mut watch = Watch { first: 10, before: 10 };
        assert!(!watch.is_over(10));
        assert!(!watch.is_over(2 * SLACK), "it grows");
        assert!(!watch.is_over(3 * SLACK));
        assert!(watch.is_over(3 * SLACK));
        assert!(watch.is_over(2 * SLACK), "some has gone back by itself");
        assert!(!watch.is_over(SLACK));
        assert!(held().is_some_and(|held| held > 1 << 20));
    }
}
