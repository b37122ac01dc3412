//! All commands, found by name.

use super::index::Index;
use super::{Args, Command, Flags, Handling, KeyFlags, KeySpec, Keys, Kind, Learned, Row, Rule, SOURCE};

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
        let (mut waiting, commands): (Vec<_>, _) =
            rows.partition(|command: &Command| version(command.since) > Self::BASE);
        // What is treated specially is not what the server says.
        waiting.iter_mut().for_each(|command| command.marked = true);
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

    /// Takes in what a server says of its commands: those that the table has not are added, and of those that it has
    /// the server's arity and key specs hold where they differ. Returns how many were added or changed.
    ///
    /// With keys a new command is routed by them; without, it is asked of the nodes and merged as its policies say, a
    /// subcommand without policies is handled as its container says, and HELP goes to any master. Names that are
    /// learned live as long as the process: learn into a clone of the table in use, not into a new one.
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
        // Servers before 7.0 list what browsers are made to send as commands, to close the connection.
        let real =
            |name: &str| (1..=Self::MAX_NAME).contains(&name.len()) && !["post", "host:"].contains(&name);
        new.retain(|command| real(command.name));
        let added = new.len();
        if added > 0 {
            let mut commands = std::mem::take(&mut self.commands);
            commands.append(&mut new);
            *self = Self::new(commands, std::mem::take(&mut self.waiting));
        }
        let all = learned.iter().flat_map(|command| std::iter::once(command).chain(&command.subcommands));
        added + all.filter(|command| self.widen(command)).count()
    }

    /// Lets a known command have what a server says that it may: more arguments, keys at other places. Fewer it may
    /// have always, since the server itself refuses them. Returns whether that changes it.
    fn widen(&mut self, learned: &Learned) -> bool {
        let Some(at) = self.index.position(&self.commands, learned.name.as_bytes()) else { return false };
        let command = &mut self.commands[at];
        let arity = wider(command.arity, learned.arity);
        let said = Keys::new(learned.key_specs.clone(), (0, 0, 0), learned.flags());
        let told = |keys: &Keys| matches!(keys, Keys::One(_) | Keys::Specs(_));
        // What Portico splits by keys, or finds by itself, it knows better.
        let routed = matches!(command.handling, Handling::Key | Handling::Block);
        let moved = routed && told(&command.keys) && told(&said) && command.keys != said && !command.marked;
        if moved {
            command.keys = said;
        }
        // A command that transactions may not have, they may not have.
        let flags = match learned.flags().has(Flags::NO_MULTI) {
            true => command.flags.with(Flags::NO_MULTI),
            false => command.flags,
        };
        let forbidden = std::mem::replace(&mut command.flags, flags) != flags;
        moved | forbidden | (std::mem::replace(&mut command.arity, arity) != arity)
    }

    /// What a new command is: as the table describes it, otherwise as the server does.
    fn described(&self, learned: &Learned, default: Handling) -> Command {
        let row = self.waiting.iter().find(|row| row.name == learned.name);
        row.cloned().unwrap_or_else(|| learned.command(default))
    }
}

/// An arity that allows what either does.
fn wider(one: i32, other: i32) -> i32 {
    if one == other || other == 0 {
        return one;
    }
    -one.abs().min(other.abs())
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
        let said = Keys::new(self.key_specs.clone(), (self.first, self.last, self.step), flags);
        let keys = if self.is_about_an_index() || self.walks() { Keys::None } else { said };
        let handling = match keys {
            Keys::None if self.name.ends_with("|help") => Handling::Any,
            Keys::None if default != Handling::Unroutable => default,
            Keys::None => self.by_policy().unwrap_or(Handling::Unroutable),
            _ if flags.has(Flags::BLOCKING) => Handling::Block,
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
            marked: false,
            kind: Kind::of(&self.name),
        }
    }

    /// What RediSearch says are keys are names of indexes: each master has one of its own keys.
    fn is_about_an_index(&self) -> bool {
        let name = self.name.as_str();
        (name.starts_with("ft.") || name.starts_with("_ft.")) && !name.starts_with("ft.sug")
    }

    /// It goes through the keyspace in a way of its own (CLUSTERSCAN): what stands for a key is none.
    fn walks(&self) -> bool {
        let named = |spec: &KeySpec| spec.flags.has(KeyFlags::NOT_KEY);
        self.tips.iter().any(|tip| tip == "request_policy:special") && self.key_specs.iter().all(named)
    }

    /// How a command without keys is asked of several nodes, as its server's tips say (Redis' "command tips").
    fn by_policy(&self) -> Option<Handling> {
        let tip = |name: &str| self.tips.iter().find_map(|tip| tip.strip_prefix(name)?.strip_prefix(':'));
        let rule = match tip("response_policy") {
            Some("agg_sum") => Rule::Sum,
            Some("agg_min") => Rule::Least,
            Some("agg_max") => Rule::Most,
            Some("agg_logical_and") => Rule::All,
            Some("all_succeeded") => Rule::Same,
            Some("one_succeeded") => Rule::Once,
            // Lists without keys are joined.
            None if self.flags().has(Flags::READONLY) => Rule::Concat,
            _ => return None,
        };
        match tip("request_policy")? {
            "all_shards" => Some(Handling::Masters(rule)),
            // What reads is asked of masters: replicas have nothing of their own to add.
            "all_nodes" if rule == Rule::Concat => None,
            "all_nodes" => Some(Handling::Nodes(rule)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Fan, Flags, Local};

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
        // "GET" in capitals is known too; it and three subcommands may have other numbers of arguments.
        assert_eq!(table.learn(&reply), 13);
        assert_eq!(table.learn(&reply), 0);
        let handling = |name: &str| table.find(name.as_bytes()).map(|command| command.handling);
        let get = table.find(b"get").expect("known");
        assert_eq!((get.arity, get.flags.has(Flags::READONLY), &get.keys), (-2, true, &Keys::One(1)));
        assert_eq!(handling("msetex"), Some(Handling::Key));
        assert_eq!(handling("m.read"), Some(Handling::Unroutable));
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

    #[test]
    fn a_servers_tips_say_how_it_is_asked_of_many() {
        let learned = |name: &str, flag: &str, tips: &[&str]| Learned {
            name: name.into(),
            arity: -1,
            flags: vec![flag.into()],
            tips: tips.iter().map(ToString::to_string).collect(),
            ..Learned::default()
        };
        let mut table = Table::builtin();
        let (shards, nodes) = ("request_policy:all_shards", "request_policy:all_nodes");
        let cases = [
            ("m.count", "readonly", &[shards, "response_policy:agg_sum"][..], Handling::Masters(Rule::Sum)),
            ("m.least", "readonly", &[shards, "response_policy:agg_min"], Handling::Masters(Rule::Least)),
            ("m.most", "readonly", &[shards, "response_policy:agg_max"], Handling::Masters(Rule::Most)),
            ("m.all", "readonly", &[shards, "response_policy:agg_logical_and"], Handling::Masters(Rule::All)),
            ("m.set", "write", &[nodes, "response_policy:all_succeeded"], Handling::Nodes(Rule::Same)),
            ("m.stop", "write", &[shards, "response_policy:one_succeeded"], Handling::Masters(Rule::Once)),
            ("m.names", "readonly", &[shards], Handling::Masters(Rule::Concat)),
            ("m.odd", "readonly", &[shards, "response_policy:special"], Handling::Unroutable),
            ("m.walk", "readonly", &["request_policy:special"], Handling::Unroutable),
            ("m.silent", "readonly", &[], Handling::Unroutable),
            ("m.write", "write", &[shards], Handling::Unroutable),
        ];
        let reply: Vec<_> = cases.iter().map(|(name, flag, tips, _)| learned(name, flag, tips)).collect();
        assert_eq!(table.learn(&reply), cases.len());
        for (name, _, _, handling) in cases {
            assert_eq!(table.find(name.as_bytes()).map(|command| command.handling), Some(handling), "{name}");
        }
        let blocking = Learned { first: 1, last: 1, step: 1, ..learned("m.pop", "blocking", &[]) };
        assert_eq!(table.learn(&[blocking]), 1);
        assert_eq!(table.find(b"m.pop").map(|command| command.handling), Some(Handling::Block));
    }

    #[test]
    fn what_modules_say_of_their_keys_is_mended() {
        let said = |name: &str| Learned {
            name: name.into(),
            arity: -1,
            flags: vec!["readonly".into(), "module".into()],
            key_specs: vec![KeySpec::parse("index:1/range:0:1:0/RW,access,update").expect("a key spec")],
            ..Learned::default()
        };
        let mut table = Table::builtin();
        let names = ["json.mget", "cms.merge", "tdigest.merge", "ft.search", "ft.sugget", "post"];
        table.learn(&names.map(said));
        let keys = |request: &str| {
            let words: Vec<&str> = request.split(' ').collect();
            let Resolved::Command(command) = table.resolve(&words[..]) else { panic!("{request}") };
            let mut out = Vec::new();
            command.key_positions(&words[..], &mut out).map(|()| (out, command.handling))
        };
        assert_eq!(keys("JSON.MGET a b $.x"), Ok((vec![1, 2], Handling::Fan(Fan::MgetPath))));
        assert_eq!(keys("CMS.MERGE d 2 a b WEIGHTS 1 2"), Ok((vec![1, 3, 4], Handling::Key)));
        assert_eq!(keys("TDIGEST.MERGE d 1 a"), Ok((vec![1, 3], Handling::Key)));
        assert_eq!(keys("FT.SEARCH index *"), Ok((vec![], Handling::Unroutable)));
        assert_eq!(keys("FT.SUGGET key x"), Ok((vec![1], Handling::Key)));
        assert_eq!(table.find(b"post"), None, "it closes the connection");
    }

    #[test]
    fn what_a_server_says_of_arity_and_keys_holds() {
        let mut table = Table::builtin();
        let spec = |text: &str| vec![KeySpec::parse(text).expect("a key spec")];
        let learned = |name: &str, arity, specs| Learned {
            name: name.into(),
            arity,
            key_specs: specs,
            ..Learned::default()
        };
        let rank = learned("zrank", -3, spec("index:1/range:0:1:0/RO,access"));
        let less = learned("expire", 3, spec("index:1/range:0:1:0/RW,update"));
        let moved = learned("lcs", -3, spec("index:2/range:0:1:0/RO,access"));
        let sort = learned("sort", -2, spec("index:1/range:0:1:0/RO,access"));
        assert_eq!(table.learn(&[rank, less, moved, sort]), 2);
        let arity = |name: &str| table.find(name.as_bytes()).map(|command| command.arity);
        assert_eq!((arity("zrank"), arity("expire")), (Some(-3), Some(-3)));
        assert_eq!(table.find(b"lcs").map(|command| &command.keys), Some(&Keys::One(2)));
        assert!(matches!(table.find(b"sort").map(|command| &command.keys), Some(Keys::Walk(_))));
    }
}
