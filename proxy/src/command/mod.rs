//! The command table: what each command looks like, where its keys are, and what Portico does with it.
//!
//! One definition per command, in `table.tsv`; everything here is read from it. What the file does not have is
//! learned from the cluster's own `COMMAND` reply.

mod args;
mod debug;
pub mod errors;
mod flags;
mod handling;
mod index;
mod keys;
mod learn;
mod notation;
mod positions;
mod row;
mod table;
mod walk;
mod words;

pub use args::Args;
pub use debug::{DEBUG, Debug};
pub use flags::{Flags, KeyFlags};
pub use handling::{Fan, Handling, Local, PubSub, Rule, Scripts, Transaction};
pub use keys::{Begin, Find, KeySpec, Keys};
pub use learn::{Learned, parse_command_reply};
pub use positions::KeyError;
pub use row::{Row, RowError};
pub use table::{Resolved, Table};
pub use walk::{Walk, block_option};

/// The table as text: the one place where a command is defined.
pub const SOURCE: &str = include_str!("table.tsv");

/// One command, or one subcommand of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Lower-case and in full: `get`, `config|get`. What a server calls its `fullname`.
    pub name: &'static str,
    /// The version of Redis that brought it; empty for a learned command.
    pub since: &'static str,
    /// Number of arguments, the name (and subcommand) counted; negative: at least that many.
    pub arity: i32,
    /// The server's flags and Portico's marks.
    pub flags: Flags,
    /// Where its keys are.
    pub keys: Keys,
    /// The table says where its keys are in other words than a server does.
    pub marked: bool,
    /// What Portico does with it.
    pub handling: Handling,
    /// The server's command tips (`request_policy:all_shards`, `nondeterministic_output`, ...), as it gave them.
    pub tips: Box<[Box<str>]>,
    /// Which of its arguments name it.
    pub kind: Kind,
}

/// Which arguments name a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The first.
    Plain,
    /// The first, and the second names one of its subcommands.
    Container,
    /// The first two; no request has its full name as one argument.
    Subcommand,
}

impl Kind {
    /// That of a command with this full name, unless it turns out to have subcommands.
    fn of(name: &str) -> Self {
        if name.contains('|') { Self::Subcommand } else { Self::Plain }
    }
}

impl Command {
    /// Whether a request of `argc` arguments, the name counted, passes the server's first check.
    #[inline]
    #[must_use]
    pub fn arity_ok(&self, argc: usize) -> bool {
        let needed = self.arity.unsigned_abs() as usize;
        if self.arity < 0 { argc >= needed } else { argc == needed }
    }

    /// It runs a script, whose errors can have any text.
    #[inline]
    #[must_use]
    pub fn is_script(&self) -> bool {
        self.flags.has(Flags::SCRIPT)
    }

    /// The place of each key can be told from the arguments before it: no keyword further on decides.
    #[must_use]
    pub fn keys_lead(&self) -> bool {
        match &self.keys {
            Keys::One(_) => true,
            Keys::Specs(specs) => specs
                .iter()
                .all(|spec| matches!(spec.begin, Begin::Index(_)) && !matches!(spec.find, Find::Unknown)),
            Keys::None | Keys::Walk(_) | Keys::Unknown => false,
        }
    }
}
