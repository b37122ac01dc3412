//! Lua 5.1 as far as a script's calls can be read from its text: words, and expressions without their meaning.

use std::collections::HashMap;

/// What a word is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Word<'t> {
    /// A name or a keyword.
    Name(&'t [u8]),
    /// A string in any of its notations, as the bytes that it stands for.
    Text(Vec<u8>),
    /// A number as it is written.
    Number(&'t [u8]),
    /// Everything else.
    Sign(&'t [u8]),
}

/// A word and the line that it begins in, counted from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token<'t> {
    pub(super) word: Word<'t>,
    pub(super) line: u32,
}

/// Most words of a script that is read.
const MOST_TOKENS: usize = 200_000;
/// Signs of more than one character, the longest first.
const SIGNS: [&[u8]; 6] = [b"...", b"..", b"==", b"~=", b"<=", b">="];

/// The words of a text. None: it is no Lua (a string or a comment without an end), or too long to be read.
pub(super) fn tokens(text: &[u8]) -> Result<Vec<Token<'_>>, Unread> {
    let mut lexer = Lexer { text, at: 0, line: 1 };
    let mut tokens = Vec::new();
    if text.first() == Some(&b'#') {
        lexer.skip_line();
    }
    while let Some(token) = lexer.next()? {
        if tokens.len() == MOST_TOKENS {
            return Err(Unread::TooLong);
        }
        tokens.push(token);
    }
    Ok(tokens)
}

/// Why a text is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unread {
    /// No server takes it for a script either.
    NotLua,
    /// It has more words than are read.
    TooLong,
}

struct Lexer<'t> {
    text: &'t [u8],
    at: usize,
    line: u32,
}

impl<'t> Lexer<'t> {
    fn peek(&self, ahead: usize) -> Option<u8> {
        self.text.get(self.at + ahead).copied()
    }

    fn skip_line(&mut self) {
        while self.peek(0).is_some_and(|byte| !matches!(byte, b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// Over a line's end: `\r\n` and `\n\r` are one.
    fn new_line(&mut self) {
        let first = self.peek(0);
        self.at += 1;
        if self.peek(0).is_some_and(|next| matches!(next, b'\n' | b'\r') && Some(next) != first) {
            self.at += 1;
        }
        self.line = self.line.saturating_add(1);
    }

    fn take(&mut self, fits: impl Fn(u8) -> bool) -> &'t [u8] {
        let start = self.at;
        while self.peek(0).is_some_and(&fits) {
            self.at += 1;
        }
        &self.text[start..self.at]
    }

    fn next(&mut self) -> Result<Option<Token<'t>>, Unread> {
        while let Some(byte) = self.peek(0) {
            match byte {
                b'\n' | b'\r' => self.new_line(),
                b' ' | b'\t' | 0x0b | 0x0c => self.at += 1,
                b'-' if self.peek(1) == Some(b'-') => {
                    self.at += 2;
                    if let Some(level) = self.long_bracket() {
                        self.long_text(level)?;
                    } else {
                        self.skip_line();
                    }
                }
                _ => return self.word(byte).map(Some),
            }
        }
        Ok(None)
    }

    fn word(&mut self, first: u8) -> Result<Token<'t>, Unread> {
        let line = self.line;
        let word = match first {
            b'A'..=b'Z' | b'a'..=b'z' | b'_' | 0x80.. => {
                Word::Name(self.take(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80))
            }
            b'"' | b'\'' => Word::Text(self.quoted(first)?),
            b'0'..=b'9' => Word::Number(self.number()),
            b'.' if self.peek(1).is_some_and(|byte| byte.is_ascii_digit()) => Word::Number(self.number()),
            b'[' => match self.long_bracket() {
                Some(level) => Word::Text(self.long_text(level)?),
                None => self.sign(1),
            },
            _ => {
                let rest = &self.text[self.at..];
                let long = SIGNS.iter().find(|sign| rest.starts_with(sign));
                self.sign(long.map_or(1, |sign| sign.len()))
            }
        };
        Ok(Token { word, line })
    }

    fn sign(&mut self, length: usize) -> Word<'t> {
        let sign = &self.text[self.at..self.at + length];
        self.at += length;
        Word::Sign(sign)
    }

    fn number(&mut self) -> &'t [u8] {
        let start = self.at;
        self.take(|byte| byte.is_ascii_digit() || byte == b'.');
        if matches!(self.peek(0), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(0), Some(b'+' | b'-')) {
                self.at += 1;
            }
        }
        self.take(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        &self.text[start..self.at]
    }

    /// The level of `[[`, `[=[` and so on, if one begins here.
    fn long_bracket(&self) -> Option<usize> {
        if self.peek(0) != Some(b'[') {
            return None;
        }
        let level = self.text[self.at + 1..].iter().take_while(|byte| **byte == b'=').count();
        (self.peek(level + 1) == Some(b'[')).then_some(level)
    }

    fn long_text(&mut self, level: usize) -> Result<Vec<u8>, Unread> {
        self.at += level + 2;
        if matches!(self.peek(0), Some(b'\n' | b'\r')) {
            self.new_line();
        }
        let mut found = Vec::new();
        loop {
            match self.peek(0).ok_or(Unread::NotLua)? {
                b']' if self.closes(level) => {
                    self.at += level + 2;
                    return Ok(found);
                }
                b'\n' | b'\r' => {
                    self.new_line();
                    found.push(b'\n');
                }
                byte => {
                    self.at += 1;
                    found.push(byte);
                }
            }
        }
    }

    fn closes(&self, level: usize) -> bool {
        (1..=level).all(|ahead| self.peek(ahead) == Some(b'=')) && self.peek(level + 1) == Some(b']')
    }

    fn quoted(&mut self, quote: u8) -> Result<Vec<u8>, Unread> {
        self.at += 1;
        let mut found = Vec::new();
        loop {
            let byte = self.peek(0).ok_or(Unread::NotLua)?;
            match byte {
                b'\n' | b'\r' => return Err(Unread::NotLua),
                b'\\' => {
                    self.at += 1;
                    self.escape(&mut found)?;
                }
                _ => {
                    self.at += 1;
                    if byte == quote {
                        return Ok(found);
                    }
                    found.push(byte);
                }
            }
        }
    }

    /// What stands behind a backslash.
    fn escape(&mut self, found: &mut Vec<u8>) -> Result<(), Unread> {
        let byte = self.peek(0).ok_or(Unread::NotLua)?;
        if matches!(byte, b'\n' | b'\r') {
            self.new_line();
            found.push(b'\n');
            return Ok(());
        }
        if byte.is_ascii_digit() {
            let mut value = 0u32;
            for _ in 0..3 {
                let Some(digit) = self.peek(0).filter(u8::is_ascii_digit) else { break };
                value = value * 10 + u32::from(digit - b'0');
                self.at += 1;
            }
            found.push(u8::try_from(value).map_err(|_| Unread::NotLua)?);
            return Ok(());
        }
        self.at += 1;
        found.push(match byte {
            b'a' => 7,
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'v' => 11,
            other => other,
        });
        Ok(())
    }
}

/// An expression, as far as it matters what text it can be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expr<'t> {
    /// A string.
    Text(Vec<u8>),
    /// A number as it is written.
    Number(&'t [u8]),
    /// A variable.
    Name(&'t [u8]),
    /// A table's element.
    Index(Box<Self>, Box<Self>),
    /// A call; of a method if it has a name.
    Call(Box<Self>, Option<&'t [u8]>, Vec<Self>),
    /// What is joined with `..`.
    Joined(Vec<Self>),
    /// One of these: `a and b or c`.
    Either(Vec<Self>),
    /// A table, by its elements without a key.
    Table(Vec<Self>),
    /// Never a text: nil, a truth value, a function, a sum.
    NoText,
    /// `...`, or what is not understood.
    Unknown,
}

/// How deep expressions may lie in each other.
const DEEPEST: u32 = 60;

/// Reads expressions from a script's words.
pub(super) struct Reader<'t> {
    pub(super) tokens: Vec<Token<'t>>,
    /// What follows each function, by where it begins.
    ends: HashMap<usize, usize>,
}

impl<'t> Reader<'t> {
    pub(super) fn new(tokens: Vec<Token<'t>>) -> Self {
        let mut reader = Self { tokens, ends: HashMap::new() };
        let mut open = Vec::new();
        for at in 0..reader.tokens.len() {
            match reader.name(at) {
                _ if reader.is_field(at) => {}
                Some(b"function" | b"if" | b"do" | b"repeat") => open.push(at),
                Some(b"end" | b"until") => {
                    let begin = open.pop().filter(|&begin| reader.is_name(begin, b"function"));
                    reader.ends.extend(begin.map(|begin| (begin, at + 1)));
                }
                _ => {}
            }
        }
        reader
    }

    pub(super) fn name(&self, at: usize) -> Option<&'t [u8]> {
        match self.tokens.get(at)?.word {
            Word::Name(name) => Some(name),
            _ => None,
        }
    }

    pub(super) fn is_sign(&self, at: usize, sign: &[u8]) -> bool {
        matches!(self.tokens.get(at), Some(Token { word: Word::Sign(found), .. }) if *found == sign)
    }

    pub(super) fn is_name(&self, at: usize, name: &[u8]) -> bool {
        self.name(at) == Some(name)
    }

    /// The expressions of a list with commas, and where it ends.
    pub(super) fn list(&self, at: usize) -> (Vec<Expr<'t>>, usize) {
        self.list_in(at, 0)
    }

    fn list_in(&self, mut at: usize, depth: u32) -> (Vec<Expr<'t>>, usize) {
        let mut list = Vec::new();
        loop {
            let (expr, next) = self.expr(at, depth);
            list.push(expr);
            at = next;
            if !self.is_sign(at, b",") {
                return (list, at);
            }
            at += 1;
        }
    }

    /// The arguments of a call whose bracket, string or table is at `at`, and where they end. None: it is no call.
    pub(super) fn arguments(&self, at: usize) -> Option<(Vec<Expr<'t>>, usize)> {
        self.arguments_in(at, 0)
    }

    fn arguments_in(&self, at: usize, depth: u32) -> Option<(Vec<Expr<'t>>, usize)> {
        match &self.tokens.get(at)?.word {
            Word::Text(text) => Some((vec![Expr::Text(text.clone())], at + 1)),
            Word::Sign(b"{") => {
                let (table, next) = self.table(at, depth + 1);
                Some((vec![table], next))
            }
            Word::Sign(b"(") if self.is_sign(at + 1, b")") => Some((Vec::new(), at + 2)),
            Word::Sign(b"(") => {
                let (list, next) = self.list_in(at + 1, depth + 1);
                Some((list, next + usize::from(self.is_sign(next, b")"))))
            }
            _ => None,
        }
    }

    fn expr(&self, mut at: usize, depth: u32) -> (Expr<'t>, usize) {
        if depth > DEEPEST {
            return (Expr::Unknown, at);
        }
        let mut operands = Vec::new();
        let mut operators: Vec<&[u8]> = Vec::new();
        loop {
            let (operand, next) = self.operand(at, depth);
            operands.push(operand);
            at = next;
            let operator: &[u8] = match self.tokens.get(at).map(|token| &token.word) {
                Some(Word::Name(name @ (b"and" | b"or"))) => name,
                Some(Word::Sign(
                    sign @ (b".." | b"==" | b"~=" | b"<=" | b">=" | b"<" | b">" | b"+" | b"-" | b"*" | b"/"
                    | b"%" | b"^"),
                )) => sign,
                _ => return (combined(operands, &operators), at),
            };
            operators.push(operator);
            at += 1;
        }
    }

    fn operand(&self, at: usize, depth: u32) -> (Expr<'t>, usize) {
        let Some(token) = self.tokens.get(at) else { return (Expr::Unknown, at) };
        match &token.word {
            Word::Text(text) => (Expr::Text(text.clone()), at + 1),
            Word::Number(number) => (Expr::Number(number), at + 1),
            Word::Name(b"not") | Word::Sign(b"-" | b"#") if depth < DEEPEST => {
                (Expr::NoText, self.operand(at + 1, depth + 1).1)
            }
            Word::Name(b"nil" | b"true" | b"false") => (Expr::NoText, at + 1),
            Word::Name(b"function") => {
                (Expr::NoText, self.ends.get(&at).copied().unwrap_or(self.tokens.len()))
            }
            Word::Sign(b"...") => (Expr::Unknown, at + 1),
            Word::Sign(b"{") => self.table(at, depth + 1),
            Word::Sign(b"(") => {
                let (inner, next) = self.expr(at + 1, depth + 1);
                self.suffixes(inner, next + usize::from(self.is_sign(next, b")")), depth)
            }
            Word::Name(name) if !is_keyword(name) => self.suffixes(Expr::Name(name), at + 1, depth),
            _ => (Expr::Unknown, at),
        }
    }

    /// What is done with the value before `at`: an element taken, a call made.
    fn suffixes(&self, mut expr: Expr<'t>, mut at: usize, depth: u32) -> (Expr<'t>, usize) {
        let mut length = 0;
        loop {
            length += 1;
            if depth + length > DEEPEST {
                return (Expr::Unknown, at);
            }
            if self.is_sign(at, b".")
                && let Some(name) = self.name(at + 1)
            {
                expr = Expr::Index(Box::new(expr), Box::new(Expr::Text(name.to_vec())));
                at += 2;
            } else if self.is_sign(at, b"[") {
                let (index, next) = self.expr(at + 1, depth + 1);
                expr = Expr::Index(Box::new(expr), Box::new(index));
                at = next + usize::from(self.is_sign(next, b"]"));
            } else if self.is_sign(at, b":")
                && let Some(name) = self.name(at + 1)
                && let Some((list, next)) = self.arguments_in(at + 2, depth)
            {
                expr = Expr::Call(Box::new(expr), Some(name), list);
                at = next;
            } else if let Some((list, next)) = self.arguments_in(at, depth) {
                expr = Expr::Call(Box::new(expr), None, list);
                at = next;
            } else {
                return (expr, at);
            }
        }
    }

    fn table(&self, at: usize, depth: u32) -> (Expr<'t>, usize) {
        let mut elements = Vec::new();
        let mut at = at + 1;
        while at < self.tokens.len() && !self.is_sign(at, b"}") {
            let before = at;
            let keyed = if self.is_sign(at, b"[") {
                let (_, next) = self.expr(at + 1, depth + 1);
                Some(next + 2) // `]` and `=`
            } else {
                (self.name(at).is_some() && self.is_sign(at + 1, b"=")).then_some(at + 2)
            };
            let (value, next) = self.expr(keyed.unwrap_or(at), depth + 1);
            if keyed.is_none() {
                elements.push(value);
            }
            at = next;
            if self.is_sign(at, b",") || self.is_sign(at, b";") {
                at += 1;
            }
            if at == before {
                return (Expr::Unknown, at); // no Lua, or too deep
            }
        }
        (Expr::Table(elements), at + 1)
    }

    /// Whether the name at `at` is one of a table's: `x.name`, `x:name`.
    pub(super) fn is_field(&self, at: usize) -> bool {
        at > 0 && (self.is_sign(at - 1, b".") || self.is_sign(at - 1, b":"))
    }
}

/// What operands make together: `or` binds least, then `and`, comparisons, `..`, and arithmetic.
fn combined<'t>(mut operands: Vec<Expr<'t>>, operators: &[&[u8]]) -> Expr<'t> {
    if operators.is_empty() {
        return operands.pop().unwrap_or(Expr::Unknown);
    }
    let arithmetic = |sign: &[u8]| matches!(sign, b"+" | b"-" | b"*" | b"/" | b"%" | b"^");
    let mut choices = Vec::new();
    let (mut joined, mut compared) = (Vec::new(), false);
    let mut before: &[u8] = b"";
    for (at, operand) in operands.into_iter().enumerate() {
        let after = operators.get(at).copied().unwrap_or_default();
        compared |= matches!(after, b"==" | b"~=" | b"<" | b">" | b"<=" | b">=");
        if !arithmetic(before) {
            joined.push(if arithmetic(after) { Expr::Unknown } else { operand }); // a sum's digits are not known
        }
        if matches!(after, b"and" | b"or" | b"") {
            let mut part = std::mem::take(&mut joined);
            // What stands before `and` is the value only when it is nil or false.
            if after != b"and" && !compared {
                let one = if part.len() == 1 { part.pop() } else { Some(Expr::Joined(part)) };
                choices.extend(one);
            }
            compared = false;
        }
        before = after;
    }
    match choices.len() {
        0 => Expr::NoText,
        1 => choices.pop().unwrap_or(Expr::NoText),
        _ => Expr::Either(choices),
    }
}

pub(super) fn is_keyword(name: &[u8]) -> bool {
    const KEYWORDS: [&[u8]; 21] = [
        b"and",
        b"break",
        b"do",
        b"else",
        b"elseif",
        b"end",
        b"false",
        b"for",
        b"function",
        b"if",
        b"in",
        b"local",
        b"nil",
        b"not",
        b"or",
        b"repeat",
        b"return",
        b"then",
        b"true",
        b"until",
        b"while",
    ];
    KEYWORDS.contains(&name)
}
