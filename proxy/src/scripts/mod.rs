//! The texts of the scripts that clients sent, and what they call, so that a node that lacks one can be given it and
//! what must not run is refused: one bounded table for the whole process, read only when a worker does not know a script.

mod busy;
mod functions;
mod long;
mod lua;
mod reading;
mod sha;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};

pub use busy::BusyNodes;
pub use functions::{Function, Functions, parse_function_list};
pub use long::{LongScripts, ScriptName};
pub use reading::{Call, Made, Piece, Reading};
pub use sha::Sha;

/// All texts together, in bytes; the oldest make room.
const MOST_BYTES: usize = 64 << 20;
/// What an entry costs besides its text, roughly.
const ENTRY: usize = 128;

/// A script's text, and what it calls.
#[derive(Debug)]
pub struct Script {
    /// As it was sent.
    pub text: Box<[u8]>,
    /// What it calls.
    pub reading: Reading,
}

impl Script {
    /// Reads a text.
    #[must_use]
    pub fn read(text: &[u8]) -> Self {
        Self { text: text.into(), reading: Reading::of(text, false) }
    }
}

#[derive(Debug)]
struct Entry {
    script: Arc<Script>,
    /// It was given by SCRIPT LOAD: outlasts those of EVAL, which come again by themselves.
    loaded: bool,
}

#[derive(Debug, Default)]
struct Texts {
    by_sha: HashMap<Sha, Entry>,
    /// Oldest first.
    evaluated: VecDeque<Sha>,
    /// Oldest first.
    loaded: VecDeque<Sha>,
    bytes: usize,
}

impl Texts {
    /// Returns whether others had to make room.
    fn add(&mut self, sha: Sha, script: &Arc<Script>, loaded: bool, most: usize) -> bool {
        let size = script.text.len() + ENTRY;
        if size > most {
            return false;
        }
        match self.by_sha.get_mut(&sha) {
            Some(entry) if entry.loaded || !loaded => return false,
            Some(entry) => entry.loaded = true, // its place among the others is looked at when it is reached
            None => {
                self.by_sha.insert(sha, Entry { script: Arc::clone(script), loaded });
                self.bytes += size;
            }
        }
        if loaded {
            self.loaded.push_back(sha);
        } else {
            self.evaluated.push_back(sha);
        }
        let crowded = self.bytes > most;
        while self.bytes > most && self.drop_oldest() {}
        crowded
    }

    fn drop_oldest(&mut self) -> bool {
        if let Some(sha) = self.evaluated.pop_front() {
            if self.by_sha.get(&sha).is_some_and(|entry| !entry.loaded) {
                self.remove(&sha);
            }
            return true;
        }
        let Some(sha) = self.loaded.pop_front() else { return false };
        self.remove(&sha);
        true
    }

    fn remove(&mut self, sha: &Sha) {
        if let Some(entry) = self.by_sha.remove(sha) {
            self.bytes -= entry.script.text.len() + ENTRY;
        }
    }
}

/// The texts of scripts, by SHA1.
#[derive(Debug, Default)]
pub struct Scripts {
    #[expect(clippy::disallowed_types, reason = "taken where a script is met, not by other requests")]
    texts: std::sync::RwLock<Texts>,
    /// Moves when no node is known to have any script any more.
    flushes: AtomicU64,
    /// Moves when a text was given up.
    losses: AtomicU64,
    /// Those that run long.
    pub long: LongScripts,
    /// What those without keys keep busy.
    pub busy: BusyNodes,
    /// The functions that the nodes have.
    pub functions: Functions,
}

impl Scripts {
    /// Keeps the text of a script. `loaded`: by SCRIPT LOAD.
    pub fn remember(&self, sha: Sha, script: &Arc<Script>, loaded: bool) {
        let mut texts = self.texts.write().unwrap_or_else(PoisonError::into_inner);
        if texts.add(sha, script, loaded, MOST_BYTES) {
            self.losses.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A script, if it was seen.
    #[must_use]
    pub fn script(&self, sha: &Sha) -> Option<Arc<Script>> {
        let texts = self.texts.read().unwrap_or_else(PoisonError::into_inner);
        texts.by_sha.get(sha).map(|entry| Arc::clone(&entry.script))
    }

    /// Whether the script was seen.
    #[must_use]
    pub fn has(&self, sha: &Sha) -> bool {
        self.texts.read().unwrap_or_else(PoisonError::into_inner).by_sha.contains_key(sha)
    }

    /// SCRIPT FLUSH: nobody has any script.
    pub fn flush(&self) {
        *self.texts.write().unwrap_or_else(PoisonError::into_inner) = Texts::default();
        self.losses.fetch_add(1, Ordering::Relaxed);
        self.doubt();
    }

    /// No node is known to have any script.
    pub fn doubt(&self) {
        self.flushes.fetch_add(1, Ordering::Relaxed);
    }

    /// How often that happened.
    #[inline]
    #[must_use]
    pub fn flushes(&self) -> u64 {
        self.flushes.load(Ordering::Relaxed)
    }

    /// How often texts were given up: what was kept is not sure to be kept after that.
    #[inline]
    #[must_use]
    pub fn losses(&self) -> u64 {
        self.losses.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sha(number: u8) -> Sha {
        Sha::of(&[number])
    }

    #[test]
    fn what_was_loaded_outlasts_what_comes_again_by_itself() {
        let mut texts = Texts::default();
        let text = Arc::new(Script::read(&[b'x'; 100]));
        let most = 4 * (100 + ENTRY);
        assert!(!texts.add(sha(0), &text, false, most));
        assert!(!texts.add(sha(1), &text, true, most));
        assert!(!texts.add(sha(2), &text, false, most));
        assert!(!texts.add(sha(0), &text, true, most), "loaded later");
        for number in 10..100 {
            texts.add(sha(number), &text, false, most);
            assert!(texts.bytes <= most && texts.by_sha.len() <= 4);
        }
        let mut left: Vec<bool> = [0, 1, 2, 98, 99].map(|n| texts.by_sha.contains_key(&sha(n))).into();
        assert_eq!(left, [true, true, false, true, true]);
        for number in 100..110 {
            assert!(texts.add(sha(number), &text, true, most));
        }
        left = [0, 1, 99, 105, 106, 109].map(|n| texts.by_sha.contains_key(&sha(n))).into();
        assert_eq!(left, [false, false, false, false, true, true]);
        assert!(
            !texts.add(sha(200), &Arc::new(Script::read(&vec![0; most])), true, most),
            "longer than all together may be"
        );
        assert!(!texts.by_sha.contains_key(&sha(200)));
    }

    #[test]
    fn a_flush_is_noticed() {
        let scripts = Scripts::default();
        scripts.remember(Sha::of(b"return 1"), &Arc::new(Script::read(b"return 1")), false);
        let kept = scripts.script(&Sha::of(b"return 1")).expect("it was seen");
        assert_eq!(&*kept.text, b"return 1");
        let (flushes, losses) = (scripts.flushes(), scripts.losses());
        scripts.flush();
        assert!(!scripts.has(&Sha::of(b"return 1")));
        assert!(scripts.flushes() != flushes && scripts.losses() != losses);
    }
}
