//! Sets of flags: of a command and of a key spec.

/// Declares a set of bits whose members have a name, as the server's replies and the table spell it.
macro_rules! flag_set {
    ($(#[$doc:meta])* $name:ident: $bits:ty { $($(#[$member:meta])* $flag:ident = $at:literal, $word:literal;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name($bits);

        impl $name {
            $($(#[$member])* pub const $flag: Self = Self(1 << $at);)*

            /// The flag that is spelt `word`.
            #[must_use]
            pub fn named(word: &str) -> Option<Self> {
                match word {
                    $($word => Some(Self::$flag),)*
                    _ => None,
                }
            }

            /// The names of those that are set, in the order in which they are declared.
            #[must_use]
            pub fn names(self) -> Vec<&'static str> {
                let all = [$((Self::$flag, $word)),*];
                all.into_iter().filter(|(flag, _)| self.has(*flag)).map(|(_, word)| word).collect()
            }

            /// Whether all of `other` are set.
            #[inline]
            #[must_use]
            pub const fn has(self, other: Self) -> bool {
                self.0 & other.0 == other.0
            }

            /// These and `other`.
            #[inline]
            #[must_use]
            pub const fn with(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }
        }
    };
}

flag_set! {
    /// A command's flags, as `COMMAND` gives them, and Portico's own marks.
    Flags: u32 {
        /// May change data.
        WRITE = 0, "write";
        /// Changes nothing.
        READONLY = 1, "readonly";
        /// Refused when memory is full.
        DENYOOM = 2, "denyoom";
        /// For administrators.
        ADMIN = 3, "admin";
        /// About publish and subscribe.
        PUBSUB = 4, "pubsub";
        /// Not allowed in scripts.
        NOSCRIPT = 5, "noscript";
        /// May wait for something.
        BLOCKING = 6, "blocking";
        /// Allowed while the server loads its data.
        LOADING = 7, "loading";
        /// Allowed on a replica with stale data.
        STALE = 8, "stale";
        /// Not shown by MONITOR.
        SKIP_MONITOR = 9, "skip_monitor";
        /// Not kept by SLOWLOG.
        SKIP_SLOWLOG = 10, "skip_slowlog";
        /// Runs in an importing slot, as if ASKING had been said.
        ASKING = 11, "asking";
        /// Constant or logarithmic time.
        FAST = 12, "fast";
        /// Allowed before authentication.
        NO_AUTH = 13, "no_auth";
        /// May be told to replicas though no write.
        MAY_REPLICATE = 14, "may_replicate";
        /// Keys are not at fixed places.
        MOVABLEKEYS = 15, "movablekeys";
        /// Not allowed in a transaction.
        NO_MULTI = 16, "no_multi";
        /// Not allowed while data is loaded asynchronously.
        NO_ASYNC_LOADING = 17, "no_async_loading";
        /// Its keys may be none.
        NO_MANDATORY_KEYS = 18, "no_mandatory_keys";
        /// Allowed while a script is running too long.
        ALLOW_BUSY = 19, "allow_busy";
        /// Brought by a module.
        MODULE = 20, "module";
        /// Output is random (before 7.0).
        RANDOM = 21, "random";
        /// Output is sorted for scripts (before 7.0).
        SORT_FOR_SCRIPT = 22, "sort_for_script";
        /// Portico's mark: wakes or tells other clients.
        SIGNAL = 30, "signal";
        /// Portico's mark: runs a script, whose errors can have any text.
        SCRIPT = 31, "script";
    }
}

flag_set! {
    /// How a command uses the keys of one key spec.
    KeyFlags: u16 {
        /// Reads.
        RO = 0, "RO";
        /// Reads and writes.
        RW = 1, "RW";
        /// Overwrites.
        OW = 2, "OW";
        /// Removes.
        RM = 3, "RM";
        /// Returns or copies the value.
        ACCESS = 4, "access";
        /// Changes the value.
        UPDATE = 5, "update";
        /// Adds to the value.
        INSERT = 6, "insert";
        /// Removes from the value.
        DELETE = 7, "delete";
        /// Routed as a key is, but none: a sharded channel.
        NOT_KEY = 8, "not_key";
        /// Does not find all keys.
        INCOMPLETE = 9, "incomplete";
        /// Other flags hold with some arguments.
        VARIABLE_FLAGS = 10, "variable_flags";
    }
}
