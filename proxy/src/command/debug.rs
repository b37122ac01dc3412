//! The subcommands of DEBUG, which COMMAND does not tell of: what is done with each.

/// What is done with a subcommand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Debug {
    /// To the owner of the key behind its name.
    Key,
    /// Likewise; all that is behind its name are keys.
    Keys,
    /// To all masters: they say the same.
    Masters,
    /// To all masters: their texts one after another.
    Texts,
    /// DIGEST: the masters' make the whole's.
    Digest,
    /// To one master.
    Any,
    /// Refused; the text says why.
    Refuse(&'static str),
}

const KILLS: &str = "it ends the node; Portico's clients would have nothing of it";
const HARMS: &str =
    "it is about a node as such and would leave the cluster worse: send it to the node itself";

/// Every subcommand that DEBUG HELP of a server from 6.2 on lists (Redis to 8.2, Valkey to 9.1), and those that it does not
/// list but has, in capitals.
pub const DEBUG: &[(&str, Debug)] = &[
    ("AOF-FLUSH-SLEEP", Debug::Masters),
    ("ASSERT", Debug::Refuse(KILLS)),
    ("CHANGE-REPL-ID", Debug::Refuse(HARMS)),
    ("CLIENT-ENFORCE-REPLY-LIST", Debug::Masters),
    ("CLIENT-EVICTION", Debug::Any),
    ("CLOSE-CLUSTER-LINK-ON-PACKET-DROP", Debug::Refuse(HARMS)),
    ("CLUSTERLINK", Debug::Refuse(HARMS)),
    ("CONFIG-REWRITE-FORCE-ALL", Debug::Refuse("CONFIG REWRITE writes what is set")),
    ("CRASH-AND-RECOVER", Debug::Refuse(KILLS)),
    ("DELAY-RDB-CLIENT-FREE-SECOND", Debug::Refuse(HARMS)),
    ("DICT-RESIZING", Debug::Masters),
    ("DIGEST", Debug::Digest),
    ("DIGEST-VALUE", Debug::Keys),
    ("DISABLE-CLUSTER-RANDOM-PING", Debug::Refuse(HARMS)),
    ("DISABLE-CLUSTER-RECONNECTION", Debug::Refuse(HARMS)),
    ("DROP-CLUSTER-PACKET-FILTER", Debug::Refuse(HARMS)),
    ("ERROR", Debug::Refuse("Portico would take the error for a node's own")),
    ("FORCE-FREE-PRIMARY-ASYNC", Debug::Refuse(HARMS)),
    ("FORCE-TLS-WRITE-ERROR", Debug::Refuse(HARMS)),
    ("HASHTABLE-CAN-ABORT-SHRINK", Debug::Masters),
    ("HELP", Debug::Any),
    ("HTSTATS", Debug::Texts),
    ("HTSTATS-KEY", Debug::Key),
    ("INTERNAL_SECRET", Debug::Refuse("it is the nodes' secret")),
    ("KEYSIZES-HIST-ASSERT", Debug::Masters),
    ("LEAK", Debug::Refuse(HARMS)),
    ("LISTPACK", Debug::Key),
    ("LOADAOF", Debug::Masters),
    ("LOG", Debug::Masters),
    ("LUA-ALWAYS-REPLICATE-COMMANDS", Debug::Masters),
    ("MALLCTL", Debug::Masters),
    ("MALLCTL-STR", Debug::Masters),
    ("MARK-INTERNAL-CLIENT", Debug::Refuse("a client's connection to a node is not its own")),
    ("OBJECT", Debug::Key),
    ("OOM", Debug::Refuse(KILLS)),
    ("PANIC", Debug::Refuse(KILLS)),
    ("PAUSE-AFTER-FORK", Debug::Refuse(HARMS)),
    ("PAUSE-CRON", Debug::Masters),
    ("POPULATE", Debug::Refuse("it heeds no slots, and the keys would be out of reach: write them")),
    ("PROTECT-CLIENT", Debug::Refuse("a client's connection to a node is not its own")),
    ("PROTOCOL", Debug::Any),
    ("QUICKLIST", Debug::Key),
    ("QUICKLIST-PACKED-THRESHOLD", Debug::Masters),
    ("RELOAD", Debug::Masters),
    ("REPL-PAUSE", Debug::Refuse(HARMS)),
    ("REPLICATE", Debug::Refuse(HARMS)),
    ("REPLYBUFFER", Debug::Masters),
    ("REPLYBUFFER-PEAK-RESET-TIME", Debug::Masters),
    ("RESTART", Debug::Refuse(KILLS)),
    ("SCRIPT", Debug::Any),
    ("SDSLEN", Debug::Key),
    ("SEGFAULT", Debug::Refuse(KILLS)),
    ("SET-ACTIVE-EXPIRE", Debug::Masters),
    ("SET-DISABLE-DENY-SCRIPTS", Debug::Masters),
    ("SET-SKIP-CHECKSUM-VALIDATION", Debug::Masters),
    ("SLEEP", Debug::Masters),
    ("SLOTMIGRATION", Debug::Refuse(HARMS)),
    ("STRINGMATCH-LEN", Debug::Any),
    ("STRINGMATCH-TEST", Debug::Any),
    ("STRUCTSIZE", Debug::Any),
    ("ZIPLIST", Debug::Key),
];

impl Debug {
    /// What is done with the subcommand of this name, whatever its case. None: nobody knows it.
    #[must_use]
    pub fn of(name: &[u8]) -> Option<Self> {
        DEBUG.iter().find(|(known, _)| known.as_bytes().eq_ignore_ascii_case(name)).map(|(_, what)| *what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_once_in_order() {
        assert!(DEBUG.is_sorted_by(|a, b| a.0 < b.0));
        assert_eq!(Debug::of(b"Digest"), Some(Debug::Digest));
        assert_eq!(Debug::of(b"nosuch"), None);
    }
}
