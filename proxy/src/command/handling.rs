//! What Portico does with a command: the last column of the table.

use super::words::words;

words! {
    /// How a request with independent keys is split by slot and its replies merged.
    Fan {
        /// The values in the order of the keys.
        Mget = "mget";
        /// Likewise; behind the keys is a path that is asked of each (JSON.MGET).
        MgetPath = "mget-path";
        /// One answer a key, in their order; each key is followed by a time and a value (TS.MADD).
        Madd = "madd";
        /// The sum of the counts.
        Sum = "sum";
        /// OK when all keys were set; each key is followed by its value.
        Mset = "mset";
        /// Likewise; each key is followed by a path and a value (JSON.MSET).
        MsetPath = "mset-path";
    }
}

words! {
    /// How the replies of several nodes become one. An error wins over any other reply.
    Rule {
        /// The sum of integers.
        Sum = "sum";
        /// The smallest integer.
        Least = "least";
        /// The largest integer.
        Most = "most";
        /// That of a node where it succeeded.
        Once = "once";
        /// All elements of all arrays.
        Concat = "concat";
        /// All time series of all, by their names; what is made of several together is refused.
        Series = "series";
        /// All say the same: the first.
        Same = "same";
        /// Element by element, 1 where all say 1.
        All = "all";
        /// INFO: a single server's, for the whole.
        Info = "info";
        /// RANDOMKEY: one master's, weighted by size.
        Random = "random";
        /// Texts for people: each once, one after another.
        Texts = "texts";
        /// SLOWLOG LEN: the sum, cut to what one server would keep.
        SlowlogLen = "slowlog-len";
        /// SLOWLOG GET: the latest of all.
        SlowlogGet = "slowlog-get";
        /// ACL LOG: the latest of all.
        AclLog = "acl-log";
        /// LATENCY LATEST: for each event the latest and the worst.
        Latest = "latest";
        /// LATENCY HISTORY: all samples by their time.
        History = "history";
        /// LATENCY HISTOGRAM: calls added up.
        Histogram = "histogram";
        /// MEMORY STATS: sizes added up, ratios made from the sums.
        MemoryStats = "memory-stats";
    }
}

words! {
    /// What Portico answers by itself.
    Local {
        /// AUTH.
        Auth = "auth";
        /// HELLO.
        Hello = "hello";
        /// PING.
        Ping = "ping";
        /// ECHO.
        Echo = "echo";
        /// QUIT.
        Quit = "quit";
        /// RESET.
        Reset = "reset";
        /// SELECT: there is one database.
        Select = "select";
        /// MOVE: there is one database.
        Move = "move";
        /// SWAPDB: there is one database.
        SwapDb = "swapdb";
        /// ACL WHOAMI.
        WhoAmI = "whoami";
        /// ACL SETUSER and DELUSER: all nodes, unless Portico would be locked out.
        AclChange = "acl-change";
        /// ACL LIST and GETUSER: a master's, without the passwords of Portico's user.
        AclTell = "acl-tell";
        /// CLIENT ID.
        ClientId = "client-id";
        /// CLIENT CAPA, where the nodes have it (Valkey 8.0): what a client understands of redirects, of which there
        /// are none.
        ClientCapa = "client-capa";
        /// CLIENT GETNAME.
        ClientGetName = "client-getname";
        /// CLIENT SETNAME.
        ClientSetName = "client-setname";
        /// CLIENT SETINFO, where the nodes have it (7.2).
        ClientSetInfo = "client-setinfo";
        /// CLIENT INFO.
        ClientInfo = "client-info";
        /// CLIENT LIST.
        ClientList = "client-list";
        /// CLIENT KILL.
        ClientKill = "client-kill";
        /// CLIENT PAUSE.
        ClientPause = "client-pause";
        /// CLIENT UNPAUSE.
        ClientUnpause = "client-unpause";
        /// CLIENT REPLY.
        ClientReply = "client-reply";
        /// CLIENT NO-EVICT.
        ClientNoEvict = "client-no-evict";
        /// CLIENT NO-TOUCH, where the nodes have it (7.2).
        ClientNoTouch = "client-no-touch";
        /// CLIENT UNBLOCK.
        ClientUnblock = "client-unblock";
        /// CLIENT CACHING.
        ClientCaching = "client-caching";
        /// CLIENT GETREDIR.
        ClientGetRedir = "client-getredir";
        /// CLIENT TRACKINGINFO.
        ClientTrackingInfo = "client-trackinginfo";
        /// CONFIG GET: Portico's own settings, the nodes', by the table of names.
        ConfigGet = "config-get";
        /// CONFIG SET: likewise.
        ConfigSet = "config-set";
        /// CONFIG REWRITE: all nodes.
        ConfigRewrite = "config-rewrite";
        /// CONFIG RESETSTAT: all nodes, and what Portico counted.
        ConfigResetStat = "config-resetstat";
        /// ROLE: a master without replicas.
        Role = "role";
        /// TIME.
        Time = "time";
        /// A standalone's `ERR This instance has cluster support disabled`.
        ClusterDisabled = "cluster-disabled";
    }
}

words! {
    /// What makes and ends transactions.
    Transaction {
        /// MULTI.
        Multi = "multi";
        /// EXEC.
        Exec = "exec";
        /// DISCARD.
        Discard = "discard";
        /// WATCH.
        Watch = "watch";
        /// UNWATCH.
        Unwatch = "unwatch";
    }
}

words! {
    /// What is about scripts and functions as such.
    Scripts {
        /// SCRIPT LOAD: to all nodes, and remembered for those to come.
        Load = "load";
        /// SCRIPT EXISTS: what all masters have or can be given.
        Exists = "exists";
        /// SCRIPT FLUSH: all nodes, and what is remembered.
        Flush = "flush";
        /// SCRIPT KILL, FUNCTION KILL: all masters, on connections that a running script does not hold up.
        Kill = "kill";
        /// FUNCTION STATS: likewise.
        Stats = "stats";
        /// FUNCTION LOAD, DELETE, FLUSH, RESTORE: all masters, and what is known of their functions.
        Functions = "functions";
    }
}

words! {
    /// Subscriptions, and who has them.
    PubSub {
        /// SUBSCRIBE.
        Subscribe = "subscribe";
        /// PSUBSCRIBE.
        Psubscribe = "psubscribe";
        /// SSUBSCRIBE.
        Ssubscribe = "ssubscribe";
        /// UNSUBSCRIBE.
        Unsubscribe = "unsubscribe";
        /// PUNSUBSCRIBE.
        Punsubscribe = "punsubscribe";
        /// SUNSUBSCRIBE.
        Sunsubscribe = "sunsubscribe";
        /// PUBLISH: to the master that the channel's hash names.
        Publish = "publish";
        /// SPUBLISH: to the owner of the channel's slot.
        Spublish = "spublish";
        /// PUBSUB CHANNELS.
        Channels = "channels";
        /// PUBSUB NUMSUB.
        Numsub = "numsub";
        /// PUBSUB NUMPAT.
        Numpat = "numpat";
        /// PUBSUB SHARDCHANNELS.
        ShardChannels = "shardchannels";
        /// PUBSUB SHARDNUMSUB.
        ShardNumsub = "shardnumsub";
    }
}

/// What Portico does with a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handling {
    /// To the owner of its keys' slot, as it is; without keys to one master, the same for a session.
    Key,
    /// As [`Handling::Key`], unless it [asks to block](super::block_option): then [`Handling::Block`].
    KeyUnlessBlock,
    /// As [`Handling::Key`], but may wait: on a connection of the client's own.
    Block,
    /// WAIT and WAITAOF: every shard that the client has written to.
    Wait,
    /// As [`Handling::Key`], unless it names another database: there is one.
    Copy,
    /// Split by slot.
    Fan(Fan),
    /// To all masters.
    Masters(Rule),
    /// To all masters and replicas.
    Nodes(Rule),
    /// SCAN over all masters.
    Scan,
    /// To one master, the same for a session.
    Any,
    /// Messages and who hears them.
    PubSub(PubSub),
    /// MONITOR.
    Monitor,
    /// DEBUG: by the table of its subcommands, [`Debug`](super::Debug).
    Debug,
    /// Answered by Portico.
    Local(Local),
    /// MULTI and what belongs to it.
    Transaction(Transaction),
    /// About scripts and functions as such.
    Scripts(Scripts),
    /// CLIENT TRACKING.
    Tracking,
    /// Refused; the text says what to use instead.
    Refuse(&'static str),
    /// Nobody knows where it would have to go, unless there is one master: a learned command without keys, of which
    /// its server does not say how it is asked of several. In the table only on containers, which by themselves are
    /// never run: a container's handling is what its learned subcommands without keys get.
    Unroutable,
}

impl Handling {
    /// Reads the column. `None`: not in the vocabulary.
    #[must_use]
    pub fn parse(text: &'static str) -> Option<Self> {
        let (what, which) = text.split_once(':').unwrap_or((text, ""));
        Some(match (what, which) {
            ("key", "") => Self::Key,
            ("key-unless-block", "") => Self::KeyUnlessBlock,
            ("block", "") => Self::Block,
            ("wait", "") => Self::Wait,
            ("copy", "") => Self::Copy,
            ("scan", "") => Self::Scan,
            ("any", "") => Self::Any,
            ("pubsub", word) => Self::PubSub(PubSub::named(word)?),
            ("monitor", "") => Self::Monitor,
            ("debug", "") => Self::Debug,
            ("tracking", "") => Self::Tracking,
            ("unroutable", "") => Self::Unroutable,
            ("refuse", advice) if !advice.is_empty() => Self::Refuse(advice),
            ("fan", word) => Self::Fan(Fan::named(word)?),
            ("masters", word) => Self::Masters(Rule::named(word)?),
            ("nodes", word) => Self::Nodes(Rule::named(word)?),
            ("local", word) => Self::Local(Local::named(word)?),
            ("transaction", word) => Self::Transaction(Transaction::named(word)?),
            ("scripts", word) => Self::Scripts(Scripts::named(word)?),
            _ => return None,
        })
    }
}
