//! What a script must not do, by its text: be about the whole keyspace on one of several masters, be about the cluster,
//! or call what nobody can read.

use portico_slots::{Slot, slot};

use super::RequestArgs;
use crate::command::{Args, Command, Flags, Handling, Local, Resolved, Rule, Table};
use crate::scripts::{Call, Made, Piece, Reading};

/// Why a script is not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Objection {
    /// It asks about the cluster, in this line: a standalone has none.
    Cluster(u32),
    /// It calls one of CLUSTER's commands, in this line, that no server lets a script call.
    Forbidden(u32),
    /// It calls this command, which is about all keys, and would see those of one master.
    Whole(String),
    /// It calls this command, which Portico refuses with this advice.
    Refused(String, &'static str),
    /// What it calls in this line cannot be read.
    Unread(u32),
}

/// The keys and arguments that a script is called with.
#[derive(Clone, Copy, Debug)]
pub struct Given<'a> {
    words: Option<RequestArgs<'a>>,
    keys: usize,
}

impl<'a> Given<'a> {
    /// Those of EVAL, EVALSHA and FCALL.
    #[must_use]
    pub fn of(words: RequestArgs<'a>) -> Self {
        let keys = words.integer(2).and_then(|count| usize::try_from(count).ok()).unwrap_or(0);
        Self { words: Some(words), keys: keys.min(words.count().saturating_sub(3)) }
    }

    /// They are not known yet: the script is loaded, not called.
    #[must_use]
    pub const fn later() -> Self {
        Self { words: None, keys: 0 }
    }

    fn at(&self, from: usize, to: usize, number: u32) -> Option<&'a [u8]> {
        let place = from + (number as usize).checked_sub(1)?;
        self.words.filter(|_| place < to).map(|words| words.word(place))
    }

    fn count(&self) -> usize {
        self.words.map_or(0, |words| words.count())
    }

    /// What a piece is; none if that is not known, or if it is several.
    fn piece<'p>(&self, piece: &'p Piece) -> Option<&'p [u8]>
    where
        'a: 'p,
    {
        match piece {
            Piece::Text(text) => Some(text),
            Piece::Key(number) => self.at(3, 3 + self.keys, *number),
            Piece::Arg(number) => self.at(3 + self.keys, self.count(), *number),
            Piece::AnyArg | Piece::AnyKey => None,
        }
    }

    /// Gives all texts that the pieces can make; nothing if one is not known.
    fn each(&self, made: &Made, mut take: impl FnMut(&[u8])) {
        let range = match &**made {
            [Piece::AnyKey] => 3..3 + self.keys,
            [Piece::AnyArg] => 3 + self.keys..self.count(),
            [piece] => return self.piece(piece).map_or((), take),
            pieces => {
                let parts: Option<Vec<&[u8]>> = pieces.iter().map(|piece| self.piece(piece)).collect();
                return parts.map_or((), |parts| take(&parts.concat()));
            }
        };
        let Some(words) = self.words else { return };
        range.for_each(|at| take(words.word(at)));
    }

    /// The one text that an argument is, if it can be only one.
    fn only(&self, choices: &[Made]) -> Option<Vec<u8>> {
        let [made] = choices else { return None };
        let parts: Option<Vec<&[u8]>> = made.iter().map(|piece| self.piece(piece)).collect();
        parts.map(|parts| parts.concat())
    }
}

/// What speaks against running a script. `masters`: how many there are; `trusted`: what cannot be read may run.
#[must_use]
pub fn objection(
    reading: &Reading,
    table: &Table,
    given: &Given<'_>,
    masters: usize,
    trusted: bool,
) -> Option<Objection> {
    let mut found = None;
    for call in &reading.calls {
        for name in call.args.first().into_iter().flatten() {
            given.each(name, |name| {
                found = found.take().or_else(|| object(call, name, table, given, masters));
            });
        }
    }
    found.or_else(|| reading.unread.filter(|_| !trusted).map(Objection::Unread))
}

fn object(call: &Call, name: &[u8], table: &Table, given: &Given<'_>, masters: usize) -> Option<Objection> {
    let second = call.args.get(1).and_then(|choices| given.only(choices));
    let command = match &second {
        Some(second) => match table.resolve(&[name, second.as_slice()][..]) {
            Resolved::Command(command) | Resolved::UnknownSubcommand(command) => command,
            Resolved::UnknownCommand => return None, // the node says so
        },
        None => table.find(name)?,
    };
    let shown = || command.name.replace('|', " ").to_uppercase();
    match command.handling {
        Handling::Local(Local::ClusterDisabled) if command.flags.has(Flags::NOSCRIPT) => {
            Some(Objection::Forbidden(call.line))
        }
        Handling::Local(Local::ClusterDisabled) => Some(Objection::Cluster(call.line)),
        Handling::Refuse(advice) => Some(Objection::Refused(shown(), advice)),
        // It says the same at every node.
        Handling::Masters(Rule::Info)
            if second.is_some_and(|section| section.eq_ignore_ascii_case(b"server")) =>
        {
            None
        }
        Handling::Masters(_)
        | Handling::Nodes(_)
        | Handling::Scan
        | Handling::Debug
        | Handling::Unroutable
            if masters > 1 && !by_the_node(command) =>
        {
            Some(Objection::Whole(shown()))
        }
        _ => None,
    }
}

/// Whether a node itself refuses it in a script, or only some of its subcommands are meant.
fn by_the_node(command: &Command) -> bool {
    command.flags.has(Flags::NOSCRIPT) || command.kind == crate::command::Kind::Container
}

/// Where a script runs that declares no keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Home {
    /// With this key, the first that it names.
    Slot(Slot),
    /// Nowhere: it names keys of several masters.
    Nowhere,
    /// It names no key that can be told.
    Anywhere,
}

/// The slot of the keys that a script names without declaring them. `same`: whether two slots have one master.
/// `whole`: all of `reading` may run, so that all keys have to be in one place.
#[must_use]
pub fn home(
    reading: &Reading,
    table: &Table,
    given: &Given<'_>,
    whole: bool,
    same: impl Fn(Slot, Slot) -> bool,
) -> Home {
    let mut found: Option<Slot> = None;
    let mut hint = None;
    let mut positions = Vec::new();
    for call in &reading.calls {
        let words: Vec<Option<Vec<u8>>> = call.args.iter().map(|choices| given.only(choices)).collect();
        let known: Vec<&[u8]> = words.iter().map(|word| word.as_deref().unwrap_or_default()).collect();
        let Resolved::Command(command) = table.resolve(&known[..]) else { continue };
        if command.flags.has(Flags::NOSCRIPT) {
            continue; // every node refuses it, whatever its keys
        }
        if command.key_positions(&known[..], &mut positions).is_err() {
            positions.clear();
            if let crate::command::Keys::One(at) = command.keys {
                positions.push(at);
            }
        }
        for &at in &positions {
            let Some(choices) = call.args.get(at as usize) else { continue };
            match words.get(at as usize) {
                Some(Some(key)) => {
                    let slot = slot(key);
                    if found.is_some_and(|first| whole && !same(first, slot)) {
                        return Home::Nowhere;
                    }
                    found = found.or(Some(slot));
                }
                _ => choices.iter().for_each(|made| given.each(made, |key| hint = hint.or(Some(slot(key))))),
            }
        }
    }
    found.or(hint).map_or(Home::Anywhere, Home::Slot)
}

impl Objection {
    /// The error for a client. `what`: `this script`, `the library`; `caller`: how the server names what was running
    /// when a call failed.
    #[must_use]
    pub fn text(&self, what: &str, failed: impl FnOnce(u32, &str) -> String, masters: usize) -> String {
        match self {
            Self::Cluster(line) => failed(*line, "ERR This instance has cluster support disabled"),
            Self::Forbidden(line) => failed(*line, "ERR This Redis command is not allowed from script"),
            Self::Whole(name) => format!(
                "ERR {what} calls {name}, which is about the whole keyspace, and would see the part of one of {masters} \
                 masters: send {name} by itself, and give the script the keys that it is to work on"
            ),
            Self::Refused(name, advice) => {
                format!("ERR {what} calls {name}, which is not available through Portico: {advice}")
            }
            Self::Unread(line) => format!(
                "ERR Portico cannot read which command {what} calls in line {line}: write its name as a text, or pass \
                 it as an argument; or run Portico with --script-commands any"
            ),
        }
    }
}

#[cfg(test)]
#[path = "objection_tests.rs"]
mod tests;
