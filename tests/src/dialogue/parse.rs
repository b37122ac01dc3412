//! A file of dialogues, read: `tests/dialogues/README.md` says what the lines mean.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::{Compare, UnderTest, words};

/// A file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// Its name.
    pub name: String,
    /// Flags of the Portico that it is meant for.
    pub flags: Vec<String>,
    /// In the file's order.
    pub dialogues: Vec<Dialogue>,
}

/// What some connections say, from the beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dialogue {
    /// What it shows.
    pub title: String,
    /// What its connections speak.
    pub protocols: Protocols,
    /// The servers that it is for, as [`UnderTest::is_any_of`](crate::UnderTest::is_any_of) reads them; empty: all.
    pub servers: String,
    /// Settings that the servers have meanwhile.
    pub config: Vec<(String, String)>,
    /// What happens.
    pub lines: Vec<Line>,
}

/// What the connections of a dialogue speak.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Protocols {
    /// All of them the same: first one of these versions, then the other.
    All(Vec<u8>),
    /// Each its own; RESP2 unless named.
    Each(BTreeMap<char, u8>),
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Its number in the file, from 1.
    pub number: usize,
    /// As it stands there.
    pub text: String,
    /// What it means.
    pub action: Action,
}

/// What happens in a dialogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// A command, and the next frame.
    Call(char, Vec<Vec<u8>>, Compare),
    /// A command.
    Send(char, Vec<Vec<u8>>),
    /// Bytes that need not be a command.
    SendRaw(char, Vec<u8>),
    /// Frames.
    Read(Frames),
    /// Nothing comes for a moment.
    Silent(char),
    /// The server closes the connection, after whatever frames.
    Closed(char, Compare),
    /// The client closes it.
    Close(char),
    /// A new connection of that name.
    Open(char),
    /// At least so many requests are blocked; with 0, none is any more.
    Blocked(usize),
    /// Time goes by.
    Sleep(Duration),
}

/// Frames that a connection receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frames {
    /// The connection.
    pub to: char,
    /// How many.
    pub count: usize,
    /// How each is compared.
    pub compare: Compare,
    /// Whether only what they are counts, not which came first.
    pub in_any_order: bool,
}

impl Action {
    /// The connection that it is about.
    #[must_use]
    pub fn connection(&self) -> Option<char> {
        match self {
            Action::Call(connection, ..)
            | Action::Send(connection, _)
            | Action::SendRaw(connection, _)
            | Action::Read(Frames { to: connection, .. })
            | Action::Silent(connection)
            | Action::Closed(connection, _)
            | Action::Close(connection)
            | Action::Open(connection) => Some(*connection),
            Action::Blocked(_) | Action::Sleep(_) => None,
        }
    }

    /// The command that it sends.
    #[must_use]
    pub fn words(&self) -> Option<&[Vec<u8>]> {
        match self {
            Action::Call(_, words, ..) | Action::Send(_, words) => Some(words),
            _ => None,
        }
    }

    /// Whether what it sends goes out in one write with what is sent before.
    #[must_use]
    pub fn joins(&self, before: &Action) -> bool {
        let sends = |action: &Action| matches!(action, Action::Send(..) | Action::SendRaw(..));
        sends(self) && sends(before) && self.connection() == before.connection()
    }
}

impl Script {
    /// What in a file in `tests/dialogues` is for the server that the tests run with.
    ///
    /// # Errors
    /// There is no such file, or as [`Script::parse`].
    pub fn load(name: &str) -> Result<Self> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("dialogues").join(name).with_extension("txt");
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let mut script = Script::parse(name, &text)?;
        for dialogue in std::mem::take(&mut script.dialogues) {
            if dialogue.servers.is_empty() || UnderTest::get().is_any_of(&dialogue.servers)? {
                script.dialogues.push(dialogue);
            }
        }
        Ok(script)
    }

    /// All files in `tests/dialogues`.
    ///
    /// # Errors
    /// As [`Script::parse`].
    pub fn all() -> Result<Vec<Self>> {
        let mut scripts = Vec::new();
        for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("dialogues"))? {
            let path = entry?.path();
            if path.extension().is_some_and(|end| end == "txt") {
                scripts.push(Self::load(&path.file_stem().unwrap_or_default().to_string_lossy())?);
            }
        }
        Ok(scripts)
    }

    /// What such a file holds.
    ///
    /// # Errors
    /// A line means nothing; the error says which.
    pub fn parse(name: &str, text: &str) -> Result<Self> {
        let mut script = Script { name: name.to_owned(), flags: Vec::new(), dialogues: Vec::new() };
        for (at, line) in text.lines().enumerate() {
            if !line.is_empty() && !line.starts_with('#') {
                script.read(at + 1, line).with_context(|| format!("{name}.txt:{}: {line}", at + 1))?;
            }
        }
        for Dialogue { title, lines, .. } in &script.dialogues {
            ensure!(!lines.is_empty(), "{name}.txt: nothing happens in {title}");
        }
        Ok(script)
    }

    fn read(&mut self, number: usize, line: &str) -> Result<()> {
        if let Some(title) = line.strip_prefix("== ") {
            ensure!(self.dialogues.iter().all(|dialogue| dialogue.title != title), "another has that title");
            self.dialogues.push(Dialogue {
                title: title.to_owned(),
                protocols: Protocols::All(vec![2, 3]),
                servers: String::new(),
                config: Vec::new(),
                lines: Vec::new(),
            });
            return Ok(());
        }
        let Some(dialogue) = self.dialogues.last_mut() else {
            let flags = line.strip_prefix("with ").context("a title comes first")?;
            self.flags.extend(flags.split(' ').map(str::to_owned));
            return Ok(());
        };
        if let Some(option) = line.strip_prefix("with ") {
            ensure!(dialogue.lines.is_empty(), "an option comes before what happens");
            return dialogue.option(option);
        }
        let action = action(line)?;
        dialogue.lines.push(Line { number, text: line.to_owned(), action });
        Ok(())
    }
}

impl Dialogue {
    fn option(&mut self, option: &str) -> Result<()> {
        match option.split(' ').collect::<Vec<_>>()[..] {
            ["resp", version] if version.len() == 1 => {
                self.protocols = Protocols::All(vec![protocol(version)?]);
            }
            ["resp", ref each @ ..] if !each.is_empty() => {
                let each = each.iter().map(|each| {
                    let (connection, version) = each.split_once(':').context("not as in a:3")?;
                    Ok((letter(connection)?, protocol(version)?))
                });
                self.protocols = Protocols::Each(each.collect::<Result<_>>()?);
            }
            ["server", ref servers @ ..] if !servers.is_empty() => self.servers = servers.join(" "),
            ["config", setting, value] => {
                // What the servers' own command line could not say.
                let value = if value == "\"\"" { "" } else { value };
                self.config.push((setting.to_owned(), value.to_owned()));
            }
            _ => bail!("no such option"),
        }
        Ok(())
    }

    /// How often it runs: what that is called, and what each connection speaks.
    #[must_use]
    pub fn rounds(&self) -> Vec<(String, BTreeMap<char, u8>)> {
        match &self.protocols {
            Protocols::Each(each) => vec![("mixed".to_owned(), each.clone())],
            Protocols::All(versions) => {
                let all = |version| self.connections().into_iter().map(move |letter| (letter, version));
                versions.iter().map(|version| (format!("RESP{version}"), all(*version).collect())).collect()
            }
        }
    }

    /// The connections that it names, in alphabetical order.
    #[must_use]
    pub fn connections(&self) -> Vec<char> {
        let mut letters: Vec<_> = self.lines.iter().filter_map(|line| line.action.connection()).collect();
        // Also those that say nothing themselves: `<id:b>`.
        for place in ["<id:", "<addr:"] {
            let places = self.lines.iter().flat_map(|line| line.text.split(place).skip(1));
            letters.extend(places.filter_map(|rest| rest.chars().next()));
        }
        letters.sort_unstable();
        letters.dedup();
        letters
    }
}

fn protocol(version: &str) -> Result<u8> {
    version.parse().ok().filter(|version| [2, 3].contains(version)).context("RESP is 2 or 3")
}

fn letter(text: &str) -> Result<char> {
    let letter = text.chars().next().filter(|letter| text.len() == 1 && letter.is_ascii_lowercase());
    letter.context("a connection is one letter")
}

fn action(line: &str) -> Result<Action> {
    let (first, rest) = line.split_once(' ').context("one word")?;
    match (first, rest) {
        ("blocked", count) => return Ok(Action::Blocked(count.parse()?)),
        ("sleep", time) => return Ok(Action::Sleep(Duration::from_millis(time.parse()?))),
        _ => {}
    }
    if let Some(connection) = first.strip_suffix(':') {
        let (compare, command) = Compare::mark(rest);
        return Ok(Action::Call(letter(connection)?, command_words(command)?, compare));
    }
    if let Some(connection) = first.strip_suffix('>') {
        return Ok(Action::Send(letter(connection)?, command_words(rest)?));
    }
    if let Some(connection) = first.strip_suffix('<') {
        let to = letter(connection)?;
        let (compare, what) = Compare::mark(rest);
        let (count, in_any_order) =
            what.strip_suffix(" in any order").map_or((what, false), |count| (count, true));
        return Ok(Action::Read(Frames { to, count: count.parse()?, compare, in_any_order }));
    }
    let connection = letter(first)?;
    Ok(match rest {
        "silent" => Action::Silent(connection),
        "close" => Action::Close(connection),
        "open" => Action::Open(connection),
        _ => {
            let (compare, what) = Compare::mark(rest);
            match what.strip_prefix("raw ") {
                _ if what == "closed" => Action::Closed(connection, compare),
                Some(bytes) => Action::SendRaw(connection, words(bytes)?.concat()),
                None => bail!("no such action"),
            }
        }
    })
}

fn command_words(line: &str) -> Result<Vec<Vec<u8>>> {
    let words = words(line)?;
    ensure!(!words.is_empty(), "no command");
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn action_of(line: &str) -> Action {
        action(line).expect(line)
    }

    fn bytes(words: &[&str]) -> Vec<Vec<u8>> {
        words.iter().map(|word| word.as_bytes().to_vec()).collect()
    }

    #[test]
    fn every_kind_of_line_is_read() {
        assert_eq!(action_of("a: GET k"), Action::Call('a', bytes(&["GET", "k"]), Compare::Bytes));
        assert_eq!(action_of("b: ~ KEYS *"), Action::Call('b', bytes(&["KEYS", "*"]), Compare::AnyOrder));
        assert_eq!(action_of("a> ECHO \"\\x00\""), Action::Send('a', bytes(&["ECHO", "\0"])));
        assert_eq!(action_of("a raw \"PING\\r\\n\""), Action::SendRaw('a', b"PING\r\n".to_vec()));
        let read =
            |compare, count, in_any_order| Action::Read(Frames { to: 'c', count, compare, in_any_order });
        assert_eq!(action_of("c< 2"), read(Compare::Bytes, 2, false));
        assert_eq!(action_of("c< @ 3 in any order"), read(Compare::Named, 3, true));
        assert_eq!(action_of("a silent"), Action::Silent('a'));
        assert_eq!(action_of("a closed"), Action::Closed('a', Compare::Bytes));
        assert_eq!(action_of("a @ closed"), Action::Closed('a', Compare::Named));
        assert_eq!(action_of("a close"), Action::Close('a'));
        assert_eq!(action_of("a open"), Action::Open('a'));
        assert_eq!(action_of("blocked 2"), Action::Blocked(2));
        assert_eq!(action_of("sleep 20"), Action::Sleep(Duration::from_millis(20)));
    }

    #[test]
    fn only_what_one_connection_sends_is_one_write() {
        let joins = |one, other| action_of(other).joins(&action_of(one));
        assert!(joins("a> PING", "a> PING"));
        assert!(joins("a> PING", "a raw \"PING\""));
        assert!(!joins("a> PING", "b> PING"));
        assert!(!joins("a> PING", "a: PING"));
        assert!(!joins("a: PING", "a> PING"));
    }

    #[test]
    fn what_means_nothing_is_refused() {
        for line in
            ["a", "A: GET", "ab: GET", "a: ", "a: \"", "a< x", "a waits", "blocked", "blocked x", "a< 1 2"]
        {
            assert!(action(line).is_err(), "{line}");
        }
        for text in [
            "a: GET k",
            "with",
            "== t",
            "== t\nwith resp 4",
            "== t\nwith x",
            "== t\na: A\nwith resp 2",
            "== t\na: A\n== t",
        ] {
            assert!(Script::parse("test", text).is_err(), "{text}");
        }
        let error = Script::parse("test", "== t\n# fine\na waits").expect_err("it means nothing");
        assert!(format!("{error:#}").contains("test.txt:3"), "{error:#}");
    }

    #[test]
    fn a_file_has_flags_and_dialogues_with_options() -> Result<()> {
        let text = "with --cross-slot emulate\n\n== one\nwith resp 3\nwith config maxmemory 0\nb: PING\na: PING\n\
                    # comment\n== two\nwith resp a:3 b:2\na: CLIENT KILL ADDR <addr:d> ID <id:c>\n== three\na: PING\n";
        let Script { flags, dialogues, .. } = Script::parse("test", text)?;
        assert_eq!(flags, ["--cross-slot", "emulate"]);
        let [one, two, three] = &dialogues[..] else { panic!("three dialogues") };
        assert_eq!(one.title, "one");
        assert_eq!(one.protocols, Protocols::All(vec![3]));
        assert_eq!(one.config, [("maxmemory".to_owned(), "0".to_owned())]);
        assert_eq!(one.connections(), ['a', 'b']);
        assert_eq!(one.lines.iter().map(|line| line.number).collect::<Vec<_>>(), [6, 7]);
        assert_eq!(two.connections(), ['a', 'c', 'd']);
        assert_eq!(two.rounds(), [("mixed".to_owned(), [('a', 3), ('b', 2)].into())]);
        let both = [2, 3].map(|version| (format!("RESP{version}"), [('a', version)].into()));
        assert_eq!(three.rounds(), both);
        assert_eq!(two.protocols, Protocols::Each([('a', 3), ('b', 2)].into()));
        assert_eq!(three.protocols, Protocols::All(vec![2, 3]));
        Ok(())
    }
}
