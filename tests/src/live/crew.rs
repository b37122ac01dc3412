//! Members of a crew at work, each on a thread, while something is done to the cluster under them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::scope;

use anyhow::{Context, Result, anyhow};

/// Ends the work when dropped: also when what was done meanwhile panicked.
struct StopAtLast<'a>(&'a AtomicBool);

impl Drop for StopAtLast<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Lets so many members work while `meanwhile` runs, and then tells them to stop. Returns what each of them brought
/// home, and what `meanwhile` returned.
///
/// # Errors
/// What the first member failed with, or else what `meanwhile` failed with.
pub fn side_by_side<T: Send, R>(
    members: usize,
    work: impl Fn(usize, &AtomicBool) -> Result<T> + Sync,
    meanwhile: impl FnOnce() -> Result<R>,
) -> Result<(Vec<T>, R)> {
    let stop = AtomicBool::new(false);
    scope(|scope| {
        let (stop, work) = (&stop, &work);
        let at_last = StopAtLast(stop);
        let crew: Vec<_> = (0..members).map(|me| scope.spawn(move || work(me, stop))).collect();
        let done = meanwhile();
        drop(at_last);
        let brought = crew.into_iter().enumerate().map(|(me, member)| {
            let joined = member.join().map_err(|_| anyhow!("member {me} panicked"))?;
            joined.with_context(|| format!("member {me}"))
        });
        Ok((brought.collect::<Result<Vec<T>>>()?, done?))
    })
}
