//! `client-output-buffer-limit`: how much is held for a client that does not read, by class as in redis.conf.

use std::time::Duration;

use super::Invalid;
use super::values::{KB, MAX_MEMORY, MB, memory, memory_value, number, show_memory};

/// The limits of one class. 0 is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputLimit {
    hard: u64,
    soft: u64,
    /// How long more than `soft` may be held.
    pub patience: Duration,
}

impl OutputLimit {
    const fn hard_only(hard: u64) -> Self {
        Self { hard, soft: 0, patience: Duration::ZERO }
    }

    /// Bytes above which a client is closed at once.
    #[inline]
    #[must_use]
    pub const fn hard(&self) -> u64 {
        if self.hard == 0 { u64::MAX } else { self.hard }
    }

    /// Bytes above which a client is closed after a while.
    #[must_use]
    pub const fn soft(&self) -> u64 {
        if self.soft == 0 { u64::MAX } else { self.soft }
    }

    fn show(&self) -> String {
        format!("{} {} {}", show_memory(self.hard), show_memory(self.soft), self.patience.as_secs())
    }

    fn in_bytes(&self) -> String {
        format!("{} {} {}", self.hard, self.soft, self.patience.as_secs())
    }
}

/// The limits of every class that Portico has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputLimits {
    /// Clients that ask and are answered, MONITOR among them.
    pub normal: OutputLimit,
    /// Clients that are subscribed to something.
    pub pubsub: OutputLimit,
    /// Replicas: there are none, so this is told and nothing else.
    replica: OutputLimit,
}

impl Default for OutputLimits {
    fn default() -> Self {
        Self {
            normal: OutputLimit::hard_only(256 * MB),
            pubsub: OutputLimit { hard: 32 * MB, soft: 8 * MB, patience: Duration::from_secs(60) },
            replica: OutputLimit { hard: 256 * MB, soft: 64 * MB, patience: Duration::from_secs(60) },
        }
    }
}

impl OutputLimits {
    /// Bytes that a client of any class may hold for as long as it likes.
    #[must_use]
    pub fn harmless(&self) -> u64 {
        let limits = [self.normal.hard(), self.normal.soft(), self.pubsub.hard(), self.pubsub.soft()];
        limits.into_iter().min().unwrap_or(u64::MAX)
    }

    /// Reads one size for everybody, or `class hard soft seconds` once or several times.
    pub(super) fn parse(&self, text: &str) -> Result<Self, Invalid> {
        let words: Vec<&str> = text.split_whitespace().collect();
        if let [one] = words[..] {
            let limit = OutputLimit::hard_only(memory(one, 64 * KB..=MAX_MEMORY)?);
            return Ok(Self { normal: limit, pubsub: limit, ..*self });
        }
        let mut limits = *self;
        let (groups, rest) = words.as_chunks::<4>();
        if groups.is_empty() || !rest.is_empty() {
            return Err(Invalid::must_be(
                "a size, or CLASS HARD SOFT SECONDS for the classes normal and pubsub",
            ));
        }
        for [class, hard, soft, seconds] in groups {
            let size = |text: &str| match text {
                "0" => Ok(0),
                text => memory(text, 64 * KB..=MAX_MEMORY),
            };
            let limit = OutputLimit {
                hard: size(hard)?,
                soft: size(soft)?,
                patience: Duration::from_secs(number(seconds, 0..=u64::from(u32::MAX))?),
            };
            match class.to_ascii_lowercase().as_str() {
                "normal" => limits.normal = limit,
                "pubsub" => limits.pubsub = limit,
                "replica" | "slave" => limits.replica = limit,
                _ => return Err(Invalid::must_be("for one of the classes normal, replica, pubsub")),
            }
        }
        Ok(limits)
    }

    /// As Redis tells it: all classes, sizes in bytes.
    #[must_use]
    pub fn in_bytes(&self) -> String {
        let Self { normal, pubsub, replica } = self;
        format!("normal {} slave {} pubsub {}", normal.in_bytes(), replica.in_bytes(), pubsub.in_bytes())
    }

    /// What Redis finds wrong with a value of CONFIG SET.
    ///
    /// # Errors
    /// Redis' own words (7.0, `setConfigOutputBufferLimitOption`).
    pub fn check_as_redis(text: &str) -> Result<(), String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let (groups, []) = words.as_chunks::<4>() else {
            return Err("Wrong number of arguments in buffer limit configuration.".to_owned());
        };
        for [class, hard, soft, seconds] in groups {
            let classes = ["normal", "replica", "slave", "pubsub"];
            if !classes.iter().any(|known| known.eq_ignore_ascii_case(class)) {
                return Err("Invalid client class specified in buffer limit configuration.".to_owned());
            }
            if memory_value(hard).is_none() || memory_value(soft).is_none() || seconds.parse::<u32>().is_err()
            {
                let text = "Error in hard, soft or soft_seconds setting in buffer limit configuration.";
                return Err(text.to_owned());
            }
        }
        Ok(())
    }

    pub(super) fn show(&self) -> String {
        format!("normal {} pubsub {}", self.normal.show(), self.pubsub.show())
    }
}

#[cfg(test)]
mod tests {
    use super::super::values::GB;
    use super::*;

    #[test]
    fn as_in_redis_conf_or_one_size_for_all() {
        let limits = OutputLimits::default();
        assert_eq!(limits.show(), "normal 256mb 0 0 pubsub 32mb 8mb 60");
        assert_eq!(limits.harmless(), 8 * MB);
        let one = limits.parse("4mb").expect("a size");
        assert_eq!(one.show(), "normal 4mb 0 0 pubsub 4mb 0 0");
        let two = limits.parse("PubSub 64mb 0 0 slave 256mb 64mb 60 normal 0 1gb 10").expect("three classes");
        assert_eq!(two.show(), "normal 0 1gb 10 pubsub 64mb 0 0");
        assert_eq!((two.normal.hard(), two.normal.soft()), (u64::MAX, GB));
        assert_eq!(OutputLimits::default().parse(&two.show()), Ok(two));
        for bad in ["", "x", "normal 1mb", "normal 1mb 0", "all 1mb 0 0", "normal 1 0 0", "normal 1mb 0 x"] {
            assert!(limits.parse(bad).is_err(), "{bad}");
        }
    }
}
