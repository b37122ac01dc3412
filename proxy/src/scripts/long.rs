//! Which scripts and functions were seen to run long, by any worker.

use std::collections::HashMap;
use std::hash::Hasher as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use super::Sha;

/// For how long that is believed: what another script did to the node looks the same.
const BELIEVED: Duration = Duration::from_secs(60);
/// Scripts of which it is known at a time.
const MOST: usize = 1000;

/// What a script or a function is called by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScriptName {
    /// EVAL and EVALSHA: by the SHA1 of its text.
    Script(Sha),
    /// FCALL: by a hash of its name.
    Function(u64),
}

impl ScriptName {
    /// That of a function.
    #[must_use]
    pub fn function(name: &[u8]) -> Self {
        let mut hasher = std::hash::DefaultHasher::new();
        hasher.write(name);
        Self::Function(hasher.finish())
    }
}

/// What was seen, and until when it is believed.
#[derive(Debug, Default)]
pub struct LongScripts {
    known: ArcSwap<HashMap<ScriptName, Instant>>,
    changes: AtomicU64,
}

impl LongScripts {
    /// A script runs long.
    pub fn note(&self, name: ScriptName, now: Instant) {
        let fresh = !self.knows(name, now);
        self.known.rcu(|known| {
            let young = known.iter().filter(|(_, until)| **until > now).take(MOST - 1);
            let mut known: HashMap<ScriptName, Instant> =
                young.map(|(name, until)| (*name, *until)).collect();
            known.insert(name, now + BELIEVED);
            known
        });
        if fresh {
            self.doubt();
        }
    }

    /// Whether a script runs long, as far as is known.
    #[must_use]
    pub fn knows(&self, name: ScriptName, now: Instant) -> bool {
        let known = self.known.load();
        !known.is_empty() && known.get(&name).is_some_and(|until| *until > now)
    }

    /// What is known of functions that were seen to end soon is not sure any more: others may have their names.
    pub fn doubt(&self) {
        self.changes.fetch_add(1, Ordering::Relaxed);
    }

    /// Moves when a script was found to run long, and when functions may be others.
    #[inline]
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test's time begins at any instant")]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_seen_for_a_while_is_forgotten() {
        let (scripts, now) = (LongScripts::default(), Instant::now());
        let [one, two] = [b"one", b"two"].map(|name| ScriptName::function(name));
        assert!(!scripts.knows(one, now) && scripts.changes() == 0);
        scripts.note(one, now);
        scripts.note(one, now);
        assert!(scripts.knows(one, now) && !scripts.knows(two, now) && scripts.changes() == 1);
        assert!(!scripts.knows(one, now + BELIEVED));
        let names = (0..2 * MOST).map(|name| ScriptName::Script(Sha::of(name.to_string().as_bytes())));
        names.for_each(|name| scripts.note(name, now + BELIEVED));
        assert_eq!(scripts.known.load().len(), MOST);
    }
}
