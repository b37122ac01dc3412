//! Settings whose value is one of a few names.

/// A setting's value that is one of a few names, as an enum in redis.conf: case does not matter.
pub trait Choice: Copy + 'static {
    /// Every value, in the order in which they are offered.
    const ALL: &'static [Self];

    /// The name in flags and files.
    fn name(self) -> &'static str;

    /// The value of that name.
    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|choice| choice.name().eq_ignore_ascii_case(name))
    }
}

/// What is logged, in redis.conf's words: this level and the ones after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// Everything.
    Debug,
    /// What helps to follow one connection.
    Verbose,
    /// What an operator wants to know.
    Notice,
    /// What an operator has to act on.
    Warning,
    /// Nothing: servers have it from 7.2 on.
    Nothing,
}

impl Choice for LogLevel {
    const ALL: &'static [Self] = &[Self::Debug, Self::Verbose, Self::Notice, Self::Warning, Self::Nothing];

    fn name(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Verbose => "verbose",
            Self::Notice => "notice",
            Self::Warning => "warning",
            Self::Nothing => "nothing",
        }
    }
}

/// How a log line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people: time, level, message, `field=value`.
    Text,
    /// One JSON object a line.
    Json,
}

impl Choice for LogFormat {
    const ALL: &'static [Self] = &[Self::Text, Self::Json];

    fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// What happens to a command whose keys are in several slots (design.md, "Keys in several slots").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrossSlot {
    /// CROSSSLOT, as a cluster says it.
    Refuse,
    /// Commands whose keys are independent are split and merged; the rest is refused.
    FanOut,
    /// Transactions too, one slot at a time.
    Emulate,
}

impl Choice for CrossSlot {
    const ALL: &'static [Self] = &[Self::Refuse, Self::FanOut, Self::Emulate];

    fn name(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::FanOut => "fan-out",
            Self::Emulate => "emulate",
        }
    }
}

/// Which scripts run whose commands' names cannot be read from their text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScriptCommands {
    /// None: what a script calls has to be written in it, or given to it.
    Read,
    /// All: what they may call is left to the rights of the user that Portico logs in as.
    Any,
}

impl Choice for ScriptCommands {
    const ALL: &'static [Self] = &[Self::Read, Self::Any];

    fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Any => "any",
        }
    }
}

/// How much of a pipeline's order is kept between slots (design.md, promise 2). Within a slot it always is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PipelineOrder {
    /// Only within a slot.
    Slot,
    /// Commands that wake or tell others also wait for this connection's outstanding writes elsewhere.
    Signal,
    /// Every write waits for those on other connections.
    Strict,
}

impl Choice for PipelineOrder {
    const ALL: &'static [Self] = &[Self::Slot, Self::Signal, Self::Strict];

    fn name(self) -> &'static str {
        match self {
            Self::Slot => "slot",
            Self::Signal => "signal",
            Self::Strict => "strict",
        }
    }
}
