//! All commands, found by name.

use super::index::Index;
use super::{Args, Command, Handling, Keys, Kind, Learned, Row, SOURCE};

/// All known commands. Cheap to look up in, dear to build: built once and shared.
#[derive(Clone, Debug)]
pub struct Table {
    commands: Vec<Command>,
    index: Index,
    /// Rows newer than [`Table::BASE`]: they count once a server is found to have them.
    waiting: Vec<Command>,
}

/// What a request's first words name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolved<'t> {
    /// This command, or this subcommand.
    Command(&'t Command),
    /// Nothing: [`unknown_command`](super::errors::unknown_command).
    UnknownCommand,
    /// This container, but none of its subcommands: [`unknown_subcommand`](super::errors::unknown_subcommand).
    UnknownSubcommand(&'t Command),
}

impl Table {
    /// What all servers are taken to have: the commands of this version, major and minor.
    const BASE: (u32, u32) = (7, 0);

    /// Longest full name in bytes; Redis' own longest has 29.
    const MAX_NAME: usize = 64;

    /// The commands of [`SOURCE`].
    ///
    /// # Panics
    /// When a row does not parse; a test reads them all.
    #[must_use]
    pub fn builtin() -> Self {
        let rows = Row::all(SOURCE).map(|row| row.and_then(|row| row.command()));
        let rows = rows.map(|command| command.expect("every row of table.tsv parses"));
        let (waiting, commands) = rows.partition(|command| version(command.since) > Self::BASE);
        Self::new(commands, waiting)
    }

    fn new(mut commands: Vec<Command>, waiting: Vec<Command>) -> Self {
        let index = Index::of(&commands);
        for at in 0..commands.len() {
            let container = commands[at].name.split_once('|').map(|(container, _)| container);
            let Some(container) = container else { continue };
            if let Some(command) = commands.iter_mut().find(|command| command.name == container) {
                command.kind = Kind::Container;
            }
        }
        Self { commands, index, waiting }
    }

    /// All commands, in no order that matters.
    pub fn commands(&self) -> impl Iterator<Item = &Command> {
        self.commands.iter()
    }

    /// The command with this full name (`get`, `config|get`), without regard to case.
    #[inline]
    #[must_use]
    pub fn find(&self, name: &[u8]) -> Option<&Command> {
        self.index.find(&self.commands, name)
    }

    /// The command that a request names by its first argument, or its first two.
    #[inline]
    #[must_use]
    pub fn resolve<A: Args + ?Sized>(&self, args: &A) -> Resolved<'_> {
        if args.count() == 0 {
            return Resolved::UnknownCommand;
        }
        let Some(command) = self.find(args.get(0)) else { return Resolved::UnknownCommand };
        match command.kind {
            Kind::Container if args.count() > 1 => match self.subcommand(command, args.get(1)) {
                Some(subcommand) => Resolved::Command(subcommand),
                None => Resolved::UnknownSubcommand(command),
            },
            Kind::Plain | Kind::Container => Resolved::Command(command),
            Kind::Subcommand => Resolved::UnknownCommand,
        }
    }

    fn subcommand(&self, container: &Command, name: &[u8]) -> Option<&Command> {
        let mut full = [0; Self::MAX_NAME];
        let bar = container.name.len();
        let end = bar + 1 + name.len();
        full.get_mut(..bar)?.copy_from_slice(container.name.as_bytes());
        *full.get_mut(bar)? = b'|';
        full.get_mut(bar + 1..end)?.copy_from_slice(name);
        self.find(&full[..end])
    }

    /// Adds what a server has and the table has not. What the table has is not changed. Returns how many were added.
    ///
    /// With keys a command is routed by them; without, HELP and reads go to any master, and a subcommand is handled
    /// as its container says. Names that are learned live as long as the process: learn into a clone of the table
    /// in use, not into a new one.
    pub fn learn(&mut self, learned: &[Learned]) -> usize {
        let mut new = Vec::new();
        for command in learned {
            let known = self.find(command.name.as_bytes());
            let default = known.map_or(Handling::Unroutable, |container| container.handling);
            let fixed = known.is_some_and(|known| known.kind != Kind::Container);
            new.extend(known.is_none().then(|| self.described(command, Handling::Unroutable)));
            let subcommands = command.subcommands.iter().filter(|_| !fixed);
            let subcommands = subcommands.filter(|sub| self.find(sub.name.as_bytes()).is_none());
            new.extend(subcommands.map(|sub| self.described(sub, default)));
        }
        new.retain(|command| (1..=Self::MAX_NAME).contains(&command.name.len()));
        let added = new.len();
        if added > 0 {
            let mut commands = std::mem::take(&mut self.commands);
            commands.append(&mut new);
            *self = Self::new(commands, std::mem::take(&mut self.waiting));
        }
        added
    }

    /// What a new command is: as the table describes it, otherwise as the server does.
    fn described(&self, learned: &Learned, default: Handling) -> Command {
        let row = self.waiting.iter().find(|row| row.name == learned.name);
        row.cloned().unwrap_or_else(|| learned.command(default))
    }
}

/// Major and minor of `7.2.0`.
fn version(since: &str) -> (u32, u32) {
    let mut parts = since.split('.').map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

impl Learned {
    /// The command as Portico handles it; `default`: what its container says.
    fn command(&self, default: Handling) -> Command {
        let flags = self.flags();
        let keys = Keys::new(self.key_specs.clone(), (self.first, self.last, self.step), flags);
        let handling = match keys {
            Keys::None if self.name.ends_with("|help") => Handling::Any,
            Keys::None if default != Handling::Unroutable => default,
            Keys::None if flags.has(super::Flags::READONLY) => Handling::Any,
            Keys::None => Handling::Unroutable,
            _ => Handling::Key,
        };
        Command {
            name: String::leak(self.name.clone()),
            since: "",
            arity: self.arity,
            flags,
            keys,
            handling,
            tips: self.tips.iter().map(|tip| tip.as_str().into()).collect(),
            kind: Kind::of(&self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Flags, KeySpec, Local};

    fn names<'t>(table: &'t Table, args: &[&str]) -> Result<&'t str, &'static str> {
        match table.resolve(args) {
            Resolved::Command(command) => Ok(command.name),
            Resolved::UnknownCommand => Err("command"),
            Resolved::UnknownSubcommand(_) => Err("subcommand"),
        }
    }

    #[test]
    fn every_row_parses_and_its_handling_is_known() {
        let mut last = "";
        for row in Row::all(SOURCE) {
            let row = row.expect("the right number of columns");
            row.command().expect("all columns in their notation");
            assert!(last < row.name, "{last} before {}", row.name);
            last = row.name;
        }
        assert_eq!(Table::builtin().commands().count(), 366);
    }

    #[test]
    fn every_name_is_found_in_any_case_and_no_other() {
        let table = Table::builtin();
        for command in table.commands() {
            let mixed = command.name.chars().enumerate();
            let mixed: String =
                mixed.map(|(at, c)| if at % 2 == 0 { c.to_ascii_uppercase() } else { c }).collect();
            for name in [command.name.to_owned(), command.name.to_ascii_uppercase(), mixed] {
                assert_eq!(table.find(name.as_bytes()).map(|found| found.name), Some(command.name));
            }
            let longer = format!("{}x", command.name);
            assert!(table.find(longer.as_bytes()).is_none_or(|found| found.name == longer));
        }
        for stranger in ["", "g", "getx", "ge", "\0get", "get\0", "eval\x7fro", "georadiusbymemberxro"] {
            assert_eq!(table.find(stranger.as_bytes()), None, "{stranger:?}");
        }
    }

    #[test]
    fn a_request_is_resolved_as_a_server_does() {
        let table = Table::builtin();
        assert_eq!(names(&table, &["GET", "k"]), Ok("get"));
        assert_eq!(names(&table, &["Config", "GeT", "*"]), Ok("config|get"));
        assert_eq!(names(&table, &["CONFIG"]), Ok("config"));
        assert_eq!(names(&table, &["command"]), Ok("command"));
        assert_eq!(names(&table, &["COMMAND", "DOCS"]), Ok("command|docs"));
        assert_eq!(names(&table, &["DEBUG", "OBJECT", "k"]), Ok("debug"));
        assert_eq!(names(&table, &["CONFIG", "foo"]), Err("subcommand"));
        assert_eq!(names(&table, &["CONFIG", ""]), Err("subcommand"));
        assert_eq!(names(&table, &["CONFIG", "get|get"]), Err("subcommand"));
        assert_eq!(names(&table, &["CONFIG", &"x".repeat(1000)]), Err("subcommand"));
        assert_eq!(names(&table, &["CONFIG|GET", "x"]), Err("command"));
        assert_eq!(names(&table, &[""]), Err("command"));
        assert_eq!(names(&table, &[]), Err("command"));
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(
            version("7.0.15") == Table::BASE && version("7.2.0") > Table::BASE && version("10.0") > (9, 1)
        );
    }

    #[test]
    fn arity_counts_the_name() {
        let table = Table::builtin();
        let ok = |name: &str, argc| table.find(name.as_bytes()).expect("known").arity_ok(argc);
        assert_eq!([1, 2, 3].map(|argc| ok("get", argc)), [false, true, false]);
        assert_eq!([2, 3, 9].map(|argc| ok("set", argc)), [false, true, true]);
        assert_eq!([1, 2].map(|argc| ok("config", argc)), [false, true]);
        assert_eq!([2, 3].map(|argc| ok("config|get", argc)), [false, true]);
    }

    #[test]
    fn marks_are_read() {
        let table = Table::builtin();
        let flags = |name: &str| table.find(name.as_bytes()).expect("known").flags;
        assert!(flags("lpush").has(Flags::SIGNAL) && flags("lpush").has(Flags::WRITE));
        assert!(!flags("set").has(Flags::SIGNAL));
        assert!(flags("fcall_ro").has(Flags::SCRIPT) && !flags("get").has(Flags::SCRIPT));
    }

    #[test]
    fn keys_lead_where_no_later_word_decides() {
        let table = Table::builtin();
        let lead = |name: &str| table.find(name.as_bytes()).expect("known").keys_lead();
        for name in ["set", "restore", "eval", "mset", "lmove", "zunionstore", "sort_ro"] {
            assert!(lead(name), "{name}");
        }
        for name in ["sort", "georadius", "xread", "ping"] {
            assert!(!lead(name), "{name}");
        }
    }

    #[test]
    fn a_newer_server_teaches_what_the_table_has_not() {
        let learned = |name: &str, flags: &[&str]| Learned {
            name: name.into(),
            arity: -2,
            flags: flags.iter().map(ToString::to_string).collect(),
            ..Learned::default()
        };
        let keyed = Learned {
            key_specs: vec![KeySpec::parse("index:1/keynum:0:1:2/OW,update").expect("a key spec")],
            ..learned("msetex", &["write"])
        };
        let with = |name: &str, subcommands: &[Learned]| Learned {
            subcommands: subcommands.to_vec(),
            ..learned(name, &[])
        };
        let mut table = Table::builtin();
        let before = table.find(b"get").cloned();
        assert_eq!(names(&table, &["CLIENT", "SETINFO"]), Err("subcommand"));
        let reply = [
            keyed,
            learned("GET", &["write"]),
            learned("get", &["write"]),
            learned("m.read", &["readonly"]),
            learned("m.write", &["write"]),
            with("client", &["setinfo", "id", "no-touch"].map(|sub| learned(&format!("client|{sub}"), &[]))),
            with("cluster", &[learned("cluster|migration", &["admin"])]),
            with("hotkeys", &[learned("hotkeys|get", &["admin"]), learned("hotkeys|help", &[])]),
        ];
        // "GET" in capitals is known too.
        assert_eq!(table.learn(&reply), 9);
        assert_eq!(table.learn(&reply), 0);
        let handling = |name: &str| table.find(name.as_bytes()).map(|command| command.handling);
        assert_eq!(table.find(b"get").cloned(), before);
        assert_eq!(handling("msetex"), Some(Handling::Key));
        assert_eq!(handling("m.read"), Some(Handling::Any));
        assert_eq!(handling("m.write"), Some(Handling::Unroutable));
        assert_eq!(handling("client|setinfo"), Some(Handling::Local(Local::ClientSetInfo)));
        assert_eq!(handling("client|no-touch"), Some(Handling::Local(Local::ClientNoTouch)));
        assert_eq!(handling("cluster|migration"), Some(Handling::Local(Local::ClusterDisabled)));
        assert_eq!(handling("hotkeys|get"), Some(Handling::Unroutable));
        assert_eq!(handling("hotkeys|help"), Some(Handling::Any));
        assert_eq!(names(&table, &["HOTKEYS", "GET"]), Ok("hotkeys|get"));
        assert_eq!(names(&table, &["HOTKEYS", "x"]), Err("subcommand"));
        let mut keys = Vec::new();
        let request = ["MSETEX", "2", "a", "1", "b", "2", "EX", "5"];
        let command = table.find(b"msetex").expect("learned");
        assert_eq!(command.key_positions(&request[..], &mut keys), Ok(()));
        assert_eq!(keys, [2, 4]);
    }
}
