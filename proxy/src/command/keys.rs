//! Where a command's keys are: the server's key specs.

use super::{Flags, KeyFlags, Walk};

/// Where a command's keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keys {
    /// It has none.
    None,
    /// One key, at this index: most commands.
    One(u32),
    /// By the server's key specs, in their order.
    Specs(Box<[KeySpec]>),
    /// By its own options, which no key spec can describe.
    Walk(Walk),
    /// Only the server itself can tell (`COMMAND GETKEYS`).
    Unknown,
}

/// One key spec: where a run of keys begins and how it goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySpec {
    /// Where to start.
    pub begin: Begin,
    /// Which arguments from there on are keys.
    pub find: Find,
    /// How the keys are used.
    pub flags: KeyFlags,
}

/// Where a key spec starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begin {
    /// At this argument.
    Index(u32),
    /// After this keyword.
    Keyword {
        /// Compared without regard to case.
        word: Box<str>,
        /// Searched from this index on, or when negative backwards from that far before the end.
        from: i32,
    },
    /// The server cannot say.
    Unknown,
}

/// Which arguments are keys, seen from the start of a key spec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Find {
    /// Every `step`th up to the last one.
    Range {
        /// Relative to the start; when negative to the end of the request.
        last: i32,
        /// 1: each argument is a key.
        step: u32,
        /// 2: only the first half of the rest are keys, and so on; 0 and 1: all of it.
        limit: u32,
    },
    /// As many as an argument says.
    KeyNum {
        /// Where that argument is.
        at: u32,
        /// Where the first key is.
        first: u32,
        /// From one key to the next.
        step: u32,
    },
    /// The server cannot say.
    Unknown,
}

impl Keys {
    /// The keys of a command with these specs. Without specs (servers before 7.0) it is `legacy`, the absolute
    /// `(first, last, step)`, that counts.
    #[must_use]
    pub fn new(specs: Vec<KeySpec>, legacy: (i32, i32, i32), flags: Flags) -> Self {
        if specs.is_empty() {
            return Self::from_legacy(legacy, flags);
        }
        if let [KeySpec { begin: Begin::Index(at), find: Find::Range { last: 0, .. }, .. }] = specs.as_slice()
        {
            return Self::One(*at);
        }
        let unknown = |spec: &KeySpec| {
            spec.begin == Begin::Unknown || spec.find == Find::Unknown || spec.flags.has(KeyFlags::INCOMPLETE)
        };
        if specs.iter().any(unknown) { Self::Unknown } else { Self::Specs(specs.into()) }
    }

    fn from_legacy((first, last, step): (i32, i32, i32), flags: Flags) -> Self {
        if flags.has(Flags::MOVABLEKEYS) {
            return Self::Unknown;
        }
        let (Ok(at @ 1..), Ok(step)) = (u32::try_from(first), u32::try_from(step)) else { return Self::None };
        if last == first {
            return Self::One(at);
        }
        let last = if last > 0 { last - first } else { last };
        let find = Find::Range { last, step: step.max(1), limit: 0 };
        Self::Specs([KeySpec { begin: Begin::Index(at), find, flags: KeyFlags::default() }].into())
    }
}
