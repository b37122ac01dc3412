//! What a script calls, read from its text: the commands' names and the keys, as far as they are literals, arguments of
//! the script, or made of those.
//!
//! Variables are told apart by their names alone, whatever their scope: each may be anything that is ever given to a
//! variable of its name. So nothing is missed, and two variables of one name are taken for one.

mod follow;

use std::collections::{HashMap, HashSet};

use super::lua::{Expr, Reader, Token, Unread, Word, is_keyword, tokens};

/// A part of a text that a script makes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Piece {
    /// Written in the script.
    Text(Box<[u8]>),
    /// `KEYS[n]`, counted from 1.
    Key(u32),
    /// `ARGV[n]`, counted from 1.
    Arg(u32),
    /// Any of `ARGV`.
    AnyArg,
    /// Any of `KEYS`.
    AnyKey,
}

/// Pieces that make one text together.
pub type Made = Box<[Piece]>;

/// One call of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The line that it is in, counted from 1.
    pub line: u32,
    /// For each argument, the name first, what it can be; none: it cannot be told.
    pub args: Box<[Box<[Made]>]>,
    /// More arguments follow, nobody knows how many.
    pub open: bool,
}

/// A script as it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// What it calls.
    pub calls: Box<[Call]>,
    /// The first line in which it does something by which it may call what is not in `calls`.
    pub unread: Option<u32>,
}

/// Calls of one script that are kept.
const MOST_CALLS: usize = 1000;
/// What one argument can be, at most.
const MOST_CHOICES: usize = 32;
/// Ways in which one variable gets its value that are followed.
const MOST_WAYS: usize = 200;
/// Steps of following variables, for a whole script.
const MOST_STEPS: u32 = 100_000;
/// How many variables are followed one after another.
const MOST_HOPS: u32 = 16;
/// How far back a list of names, or what encloses a word, is looked for.
const FAR: usize = 500;
/// Longest text that is read.
const MOST_BYTES: usize = 1 << 20;

impl Reading {
    /// Whether it calls commands by the names that it is given as keys or arguments.
    #[must_use]
    pub fn calls_what_it_is_given(&self) -> bool {
        let names = self.calls.iter().filter_map(|call| call.args.first()).flatten();
        names.flat_map(|name| name.iter()).any(|piece| !matches!(piece, Piece::Text(_)))
    }

    /// Reads the text of a script, or of a library of functions: their parameters are the keys and the arguments.
    #[must_use]
    pub fn of(text: &[u8], library: bool) -> Self {
        if text.len() > MOST_BYTES {
            return Self { unread: Some(1), ..Self::default() };
        }
        match tokens(text) {
            Ok(tokens) => Scan::new(Reader::new(tokens), library).read(),
            Err(Unread::NotLua) => Self::default(),
            Err(Unread::TooLong) => Self { unread: Some(1), ..Self::default() },
        }
    }
}

/// Where a function's parameters come from.
#[derive(Debug, Default)]
struct Calls<'t> {
    /// The arguments of each call of a function of this name.
    args: Vec<Vec<Expr<'t>>>,
    /// It is handed on as a value: nobody knows what it is called with.
    escapes: bool,
}

/// Which parameter of which function; none: of one without a name.
type Parameter<'t> = (Option<&'t [u8]>, usize);

/// What a script's words say, gathered before anything is followed.
struct Scan<'t> {
    reader: Reader<'t>,
    library: bool,
    /// Names of `redis`.
    servers: HashSet<&'t [u8]>,
    /// Names of `redis.call` and `redis.pcall`.
    callers: HashSet<&'t [u8]>,
    values: HashMap<&'t [u8], Vec<Expr<'t>>>,
    /// Functions by name, and for each parameter's name which of whose it is; none: of a function without a name.
    parameters: HashMap<&'t [u8], Vec<Parameter<'t>>>,
    functions: HashMap<&'t [u8], Calls<'t>>,
    /// What is put into a table later, and where if that is said: `t[1] = x`, `table.insert(t, x)`.
    put: HashMap<&'t [u8], Vec<(Option<Expr<'t>>, Expr<'t>)>>,
    /// Elements of tables change their places: `table.remove`, `table.sort`.
    shuffles: bool,
    unread: Option<u32>,
    steps: u32,
}

impl<'t> Scan<'t> {
    fn new(reader: Reader<'t>, library: bool) -> Self {
        let names = |names: &[&'static [u8]]| names.iter().copied().collect();
        Self {
            reader,
            library,
            servers: names(&[b"redis", b"server"]),
            callers: HashSet::new(),
            values: HashMap::new(),
            parameters: HashMap::new(),
            functions: HashMap::new(),
            put: HashMap::new(),
            shuffles: false,
            unread: None,
            steps: 0,
        }
    }

    fn read(mut self) -> Reading {
        self.gather_functions();
        self.gather_values();
        // An alias may be made of an alias that is found later.
        for _ in 0..4 {
            self.gather_aliases();
        }
        let found = self.find_calls();
        let calls = found.iter().map(|(line, args)| self.call(*line, args)).collect();
        Reading { calls, unread: self.unread }
    }

    fn line(&self, at: usize) -> u32 {
        self.reader.tokens.get(at).map_or(1, |token: &Token<'_>| token.line)
    }

    fn doubt(&mut self, line: u32) {
        self.unread = Some(self.unread.map_or(line, |first| first.min(line)));
    }

    /// The functions with their parameters, and who calls them with what.
    fn gather_functions(&mut self) {
        for at in 0..self.reader.tokens.len() {
            if !self.reader.is_name(at, b"function") || self.reader.is_field(at) {
                continue;
            }
            // `function a.b.f(x)`, `local function f(x)`, `f = function(x)`.
            let (mut open, mut name) = (at + 1, None);
            while let Some(part) = self.reader.name(open) {
                name = Some(part);
                open += 1;
                if self.reader.is_sign(open, b".") || self.reader.is_sign(open, b":") {
                    open += 1;
                }
            }
            if name.is_none() && at >= 2 && self.reader.is_sign(at - 1, b"=") {
                name = self.reader.name(at - 2);
            }
            if let Some(name) = name {
                self.functions.entry(name).or_default();
            }
            let (mut place, mut at) = (0, open + 1);
            while let Some(parameter) = self.reader.name(at) {
                self.parameters.entry(parameter).or_default().push((name, place));
                place += 1;
                at += 1 + usize::from(self.reader.is_sign(at + 1, b","));
            }
        }
        for at in 0..self.reader.tokens.len() {
            let Some(name) = self.reader.name(at) else { continue };
            if !self.functions.contains_key(name) {
                continue;
            }
            if self.reader.is_sign(at + 1, b"=") || self.is_definition(at) {
                continue;
            }
            let method = at > 0 && self.reader.is_sign(at - 1, b":");
            let args = self.reader.arguments(at + 1).filter(|_| !method).map(|(args, _)| args);
            let Some(calls) = self.functions.get_mut(name) else { continue };
            match args {
                Some(args) => calls.args.push(args),
                None => calls.escapes = true,
            }
        }
    }

    /// Whether the name at `at` is the last of `function a.b.f`.
    fn is_definition(&self, mut at: usize) -> bool {
        let first = at.saturating_sub(FAR);
        while self.reader.is_field(at) && at >= first + 2 {
            at -= 2;
        }
        at > 0 && self.reader.is_name(at - 1, b"function")
    }

    /// What is given to variables, and put into tables.
    fn gather_values(&mut self) {
        let length = self.reader.tokens.len();
        for at in 0..length {
            if self.reader.is_sign(at, b"=") {
                self.gather_assignment(at);
            } else if self.reader.is_name(at, b"remove") || self.reader.is_name(at, b"sort") {
                self.shuffles = true;
            } else if self.reader.is_name(at, b"in") {
                self.gather_loop(at);
            } else if self.reader.is_name(at, b"table") && self.reader.is_name(at + 2, b"insert") {
                let Some((args, _)) = self.reader.arguments(at + 3) else { continue };
                if let [Expr::Name(table), place @ .., value] = args.as_slice() {
                    self.put.entry(table).or_default().push((place.first().cloned(), value.clone()));
                }
            }
        }
    }

    fn gather_assignment(&mut self, at: usize) {
        let (values, _) = self.reader.list(at + 1);
        // `t[i] = x`: goes into the table.
        if at > 0 && self.reader.is_sign(at - 1, b"]") {
            let Some(open) =
                (at.saturating_sub(FAR)..at - 1).rev().find(|&open| self.reader.is_sign(open, b"["))
            else {
                return;
            };
            let table = open.checked_sub(1).and_then(|at| self.reader.name(at));
            if let (Some(table), Some(value)) = (table, values.first()) {
                let (place, _) = self.reader.list(open + 1);
                self.put.entry(table).or_default().push((place.into_iter().next(), value.clone()));
            }
            return;
        }
        let mut names = Vec::new();
        let mut before = at;
        while let Some(place) = before.checked_sub(1) {
            let Some(name) = self.reader.name(place).filter(|name| !is_keyword(name)) else { break };
            names.push((name, self.reader.is_field(place)));
            match place.checked_sub(1) {
                Some(comma) if self.reader.is_sign(comma, b",") => before = comma,
                _ => break,
            }
        }
        names.reverse();
        let counts = before.checked_sub(2).is_some_and(|at| self.reader.is_name(at, b"for"));
        for (place, (name, field)) in names.iter().copied().enumerate() {
            if field {
                continue; // a table's, which is not followed
            }
            if counts {
                self.values.entry(name).or_default().push(Expr::Unknown);
                continue;
            }
            let several = matches!(values.last(), Some(Expr::Call(..) | Expr::Unknown));
            let value = match values.get(place) {
                Some(value) => value.clone(),
                None if several => Expr::Unknown,
                None => Expr::NoText,
            };
            self.values.entry(name).or_default().push(value);
        }
    }

    /// `for a, b in x do`.
    fn gather_loop(&mut self, at: usize) {
        let (values, _) = self.reader.list(at + 1);
        let elements = match values.as_slice() {
            [Expr::Call(iterator, None, args)] if matches!(**iterator, Expr::Name(b"ipairs" | b"pairs")) => {
                args.first().map(|table| Expr::Index(Box::new(table.clone()), Box::new(Expr::Unknown)))
            }
            _ => None,
        };
        let mut before = at;
        let mut names = Vec::new();
        while let Some(name) = before.checked_sub(1).and_then(|at| self.reader.name(at)) {
            names.push(name);
            before = before.saturating_sub(2);
            if !self.reader.is_sign(before, b",") {
                break;
            }
        }
        let last = names.len().saturating_sub(1);
        for (back, name) in names.into_iter().enumerate() {
            let element = if back == 0 && last > 0 { elements.clone() } else { None };
            self.values.entry(name).or_default().push(element.unwrap_or(Expr::Unknown));
        }
    }

    fn gather_aliases(&mut self) {
        let mut found = Vec::new();
        for (name, values) in &self.values {
            for value in values {
                match value {
                    Expr::Name(other) if self.servers.contains(other) => found.push((*name, true)),
                    value if self.is_caller(value) => found.push((*name, false)),
                    Expr::Either(choices) => {
                        let server = |choice: &Expr<'_>| matches!(choice, Expr::Name(other) if self.servers.contains(other));
                        found.extend(choices.iter().any(server).then_some((*name, true)));
                        found.extend(
                            choices.iter().any(|choice| self.is_caller(choice)).then_some((*name, false)),
                        );
                    }
                    _ => {}
                }
            }
        }
        for (name, server) in found {
            if server {
                self.servers.insert(name)
            } else {
                self.callers.insert(name)
            };
        }
    }

    /// Whether a value is `redis.call` or `redis.pcall`.
    fn is_caller(&self, value: &Expr<'t>) -> bool {
        match value {
            Expr::Name(name) => self.callers.contains(name),
            Expr::Index(server, what) => {
                matches!(&**server, Expr::Name(name) if self.servers.contains(name))
                    && matches!(&**what, Expr::Text(what) if matches!(what.as_slice(), b"call" | b"pcall"))
            }
            _ => false,
        }
    }

    /// Whether the script gives a value to a variable of this name, so that it is not Lua's or the server's own.
    fn is_own(&self, name: &[u8]) -> bool {
        self.values.contains_key(name)
            || self.parameters.contains_key(name)
            || self.functions.contains_key(name)
    }

    /// Whether a variable is given what is called so.
    fn hands_on(&self, name: &[u8]) -> bool {
        self.values.values().flatten().any(|value| matches!(value, Expr::Name(given) if *given == name))
    }

    /// Every place where `redis`, `redis.call` or what stands for one of them is used.
    fn find_calls(&mut self) -> Vec<(u32, Vec<Expr<'t>>)> {
        let mut found = Vec::new();
        for at in 0..self.reader.tokens.len() {
            let line = self.line(at);
            let Some(name) = self.reader.name(at) else { continue };
            let field = self.reader.is_field(at);
            if !field {
                let called = self.reader.arguments(at + 1).is_some();
                let loads = name == b"load" && (called || !self.is_own(name) || self.hands_on(name));
                let globals = matches!(name, b"_G" | b"getfenv" | b"setfenv" | b"loadstring");
                if loads || globals && !self.is_all_that_is_returned(at) && !self.is_for_metatables(at) {
                    self.doubt(line);
                }
            }
            let next = if self.callers.contains(name) {
                at + 1
            } else if self.servers.contains(name) && !field {
                match self.member(at + 1) {
                    Some((b"call" | b"pcall", next)) => next,
                    Some(_) => continue,
                    None => {
                        if !self.is_alias(at, at + 1) && !self.goes_into_itself(at) {
                            self.doubt(line);
                        }
                        continue;
                    }
                }
            } else {
                continue;
            };
            if let Some((args, _)) = self.reader.arguments(next) {
                found.push((line, args));
            } else if let Some(args) = self.protected(at, next) {
                found.push((line, args));
            } else if !self.is_alias(at, next) {
                self.doubt(line);
            }
            if found.len() > MOST_CALLS {
                self.doubt(line);
                break;
            }
        }
        found
    }

    /// `return x` at the text's end: who gets it is the server, which makes a reply of it.
    fn is_all_that_is_returned(&self, at: usize) -> bool {
        let ends = |token: &Token<'_>| matches!(token.word, Word::Name(b"end") | Word::Sign(b")" | b";"));
        at > 0 && self.reader.is_name(at - 1, b"return") && self.reader.tokens[at + 1..].iter().all(ends)
    }

    /// `getmetatable(_G)` in a text that names no `call` for what it finds there.
    fn is_for_metatables(&self, at: usize) -> bool {
        let is_call = |token: &Token<'_>| match &token.word {
            Word::Name(word) => matches!(*word, b"call" | b"pcall"),
            Word::Text(word) => matches!(word.as_slice(), b"call" | b"pcall"),
            Word::Number(_) | Word::Sign(_) => false,
        };
        at >= 2
            && self.reader.is_sign(at - 1, b"(")
            && self.reader.name(at - 2).is_some_and(|name| matches!(name, b"getmetatable" | b"setmetatable"))
            && !self.reader.tokens.iter().any(is_call)
    }

    /// `redis.x = redis` in a library: the server's own tables cannot be changed by one, so that this fails.
    fn goes_into_itself(&self, at: usize) -> bool {
        self.library
            && at >= 4
            && self.reader.is_sign(at - 1, b"=")
            && self.reader.is_sign(at - 3, b".")
            && self.reader.name(at - 4).is_some_and(|name| self.servers.contains(name))
            && !self.reader.is_field(at - 4)
    }

    /// `.name` or `['name']` at `at`, and what follows.
    fn member(&self, at: usize) -> Option<(&[u8], usize)> {
        if self.reader.is_sign(at, b".") {
            return self.reader.name(at + 1).map(|name| (name, at + 2));
        }
        match &self.reader.tokens.get(at + 1)?.word {
            Word::Text(name) if self.reader.is_sign(at, b"[") && self.reader.is_sign(at + 2, b"]") => {
                Some((name, at + 3))
            }
            _ => None,
        }
    }

    /// `pcall(redis.call, ...)`: the arguments that it is called with.
    fn protected(&self, at: usize, next: usize) -> Option<Vec<Expr<'t>>> {
        let begins = at >= 2 && self.reader.is_sign(at - 1, b"(") && self.reader.is_name(at - 2, b"pcall");
        let begins = begins && !self.is_own(b"pcall") && !self.reader.is_field(at - 2);
        (begins && self.reader.is_sign(next, b",")).then(|| self.reader.list(next + 1).0)
    }

    /// Whether what lies from `at` to `next` is given to a variable, which is known as another name of it, or is one.
    fn is_alias(&self, at: usize, next: usize) -> bool {
        let ends = self.reader.tokens.get(next).is_none_or(|token| match token.word {
            Word::Name(name) => !matches!(name, b"and"),
            Word::Sign(sign) => matches!(sign, b";" | b"," | b"="),
            Word::Text(_) | Word::Number(_) => false,
        });
        if !ends || at == 0 || self.reader.is_field(at) {
            return false;
        }
        if self.reader.is_sign(next, b"=") || self.reader.is_name(at - 1, b"local") {
            return true; // it is given a value itself
        }
        // Back over a list of names or values to the `=`, and to its names.
        let mut before = at;
        while let Some(place) = before.checked_sub(1).filter(|place| place + FAR > at) {
            match &self.reader.tokens[place].word {
                Word::Sign(b"=") => {
                    let name = place.checked_sub(1).and_then(|at| self.reader.name(at));
                    return name.is_some()
                        && !(place >= 2 && self.reader.is_field(place - 1))
                        && !self.in_table(place);
                }
                Word::Sign(b"," | b"." | b"[" | b"]") | Word::Text(_) => before = place,
                Word::Name(name) if !is_keyword(name) || *name == b"or" => before = place,
                Word::Name(b"local") => return true,
                _ => return false,
            }
        }
        false
    }

    /// Whether the `=` at `at` gives a table's element its value: `{x = ...}`.
    fn in_table(&self, at: usize) -> bool {
        at >= 2
            && (self.reader.is_sign(at - 2, b"{")
                || self.reader.is_sign(at - 2, b",") && self.opens_table(at - 2))
    }

    fn opens_table(&self, at: usize) -> bool {
        let mut depth = 0i32;
        for place in (at.saturating_sub(FAR)..at).rev() {
            match self.reader.tokens[place].word {
                Word::Sign(b"}" | b")") => depth += 1,
                Word::Sign(b"{") if depth == 0 => return true,
                Word::Sign(b"(") if depth == 0 => return false,
                Word::Sign(b"{" | b"(") => depth -= 1,
                Word::Name(b"local" | b"then" | b"do" | b"return") if depth == 0 => return false,
                _ => {}
            }
        }
        false
    }
}
