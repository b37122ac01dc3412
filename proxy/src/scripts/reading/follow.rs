//! What a script's expressions can be: its variables followed to where they get their values.

use std::collections::HashSet;

use super::{Call, MOST_CHOICES, MOST_HOPS, MOST_STEPS, MOST_WAYS, Made, Piece, Scan};
use crate::scripts::lua::Expr;

impl<'t> Scan<'t> {
    /// A call with what its arguments can be.
    pub(super) fn call(&mut self, line: u32, args: &[Expr<'t>]) -> Call {
        let mut made: Vec<Box<[Made]>> = Vec::new();
        let mut open = false;
        for arg in args {
            match arg {
                Expr::Call(callee, None, list) if is_unpack(callee) => {
                    open = true;
                    made.push(self.first_of(list));
                    break;
                }
                Expr::Unknown if made.len() + 1 == args.len() => open = true,
                _ => {}
            }
            made.push(self.choices(arg, 0));
        }
        // Without any argument the call fails.
        if made.first().is_some_and(|name| name.is_empty()) {
            self.doubt(line);
        }
        Call { line, args: made.into(), open }
    }

    /// What an expression can be; nothing: it cannot be told.
    fn choices(&mut self, expr: &Expr<'t>, hops: u32) -> Box<[Made]> {
        let mut found = Vec::new();
        if self.follow(expr, hops, &mut found) && found.len() <= MOST_CHOICES {
            let mut seen = HashSet::new();
            found.retain(|made: &Made| seen.insert(made.clone()));
            return found.into();
        }
        Box::default()
    }

    /// Adds what an expression can be. Returns whether that is all.
    fn follow(&mut self, expr: &Expr<'t>, hops: u32, found: &mut Vec<Made>) -> bool {
        self.steps += 1;
        if self.steps > MOST_STEPS || hops > MOST_HOPS || found.len() > MOST_CHOICES {
            return false;
        }
        let one = |piece: Piece| -> Made { [piece].into() };
        match expr {
            Expr::Text(text) => found.push(one(Piece::Text(text.as_slice().into()))),
            Expr::Number(number) => found.push(one(Piece::Text((*number).into()))),
            Expr::NoText => {}
            Expr::Either(choices) => return choices.iter().all(|choice| self.follow(choice, hops, found)),
            Expr::Joined(parts) => return self.join(parts, hops, found),
            Expr::Index(table, index) => return self.element(table, index, hops, found),
            Expr::Call(callee, method, args) => {
                let kept = match (&**callee, method, args.as_slice()) {
                    // Case does not matter to a command's name; a key's is another key.
                    (Expr::Name(b"tostring"), None, [value]) if !self.is_own(b"tostring") => value,
                    (Expr::Index(module, what), None, [value])
                        if **module == Expr::Name(b"string") && is_case(what) && !self.is_own(b"string") =>
                    {
                        value
                    }
                    (value, Some(b"upper" | b"lower"), []) => value,
                    _ => return false,
                };
                return self.follow(kept, hops + 1, found);
            }
            Expr::Name(name) => return self.variable(name, hops, found),
            Expr::Table(_) | Expr::Unknown => return false,
        }
        true
    }

    fn join(&mut self, parts: &[Expr<'t>], hops: u32, found: &mut Vec<Made>) -> bool {
        let mut made: Vec<Vec<Piece>> = vec![Vec::new()];
        for part in parts {
            let choices = self.choices(part, hops + 1);
            if choices.is_empty() || made.len() * choices.len() > MOST_CHOICES {
                return false;
            }
            let any =
                |pieces: &[Piece]| pieces.iter().any(|piece| matches!(piece, Piece::AnyArg | Piece::AnyKey));
            if choices.iter().any(|choice| any(choice)) {
                return false;
            }
            made = made
                .iter()
                .flat_map(|before| choices.iter().map(|choice| [before.as_slice(), choice].concat()))
                .collect();
        }
        found.extend(made.into_iter().map(|pieces| Made::from(folded(pieces))));
        true
    }

    fn variable(&mut self, name: &'t [u8], hops: u32, found: &mut Vec<Made>) -> bool {
        let values = self.values.get(name).map(Vec::as_slice).unwrap_or_default();
        let parameters = self.parameters.get(name).map(Vec::as_slice).unwrap_or_default();
        let ways = values.len() + parameters.len();
        if ways == 0 || ways > MOST_WAYS {
            return false;
        }
        let (values, parameters) = (values.to_vec(), parameters.to_vec());
        let followed = values.iter().all(|value| self.follow(value, hops + 1, found));
        followed && parameters.iter().all(|&(function, place)| self.parameter(function, place, hops, found))
    }

    /// What a function's parameter can be: what it is called with.
    fn parameter(
        &mut self,
        function: Option<&'t [u8]>,
        place: usize,
        hops: u32,
        found: &mut Vec<Made>,
    ) -> bool {
        let Some(calls) = function.and_then(|name| self.functions.get(name)) else { return false };
        if calls.escapes || calls.args.is_empty() || calls.args.len() > MOST_WAYS {
            return false;
        }
        let args = calls.args.clone();
        args.iter().all(|args| match args.get(place) {
            Some(value) => self.follow(value, hops + 1, found),
            None => !matches!(args.last(), Some(Expr::Call(..) | Expr::Unknown)),
        })
    }

    /// What a table's element can be.
    fn element(&mut self, table: &Expr<'t>, index: &Expr<'t>, hops: u32, found: &mut Vec<Made>) -> bool {
        let number = match index {
            Expr::Number(number) => std::str::from_utf8(number).ok().and_then(|number| number.parse().ok()),
            _ => None,
        };
        let given = self.given(table, hops);
        if given.is_some() && self.writes_to_given() {
            return false;
        }
        let piece = match (given, number.filter(|_| !self.shuffles)) {
            (Some(Given::Keys), Some(number)) => Piece::Key(number),
            (Some(Given::Keys), None) => Piece::AnyKey,
            (Some(Given::Args), Some(number)) => Piece::Arg(number),
            (Some(Given::Args), None) => Piece::AnyArg,
            (None, _) => {
                let Some(elements) = self.elements(table, number) else { return false };
                return !elements.is_empty()
                    && elements.iter().all(|element| self.follow(element, hops + 1, found));
            }
        };
        found.push([piece].into());
        true
    }

    /// Whether something is put into KEYS or ARGV.
    fn writes_to_given(&self) -> bool {
        self.put.keys().any(|name| self.given(&Expr::Name(name), 0).is_some())
    }

    /// What `unpack(table, ...)` begins with.
    fn first_of(&mut self, args: &[Expr<'t>]) -> Box<[Made]> {
        let Some(table) = args.first().filter(|_| !self.is_own(b"unpack")) else { return Box::default() };
        let index = match args.get(1) {
            None => Expr::Number(b"1"),
            Some(Expr::Number(number)) => Expr::Number(number),
            Some(_) => Expr::Unknown,
        };
        let mut found = Vec::new();
        if self.element(table, &index, 0, &mut found) { found.into() } else { Box::default() }
    }

    /// Whether a table is KEYS or ARGV, by whatever name.
    fn given(&self, table: &Expr<'t>, hops: u32) -> Option<Given> {
        let Expr::Name(name) = table else { return None };
        match *name {
            b"KEYS" if !self.is_own(name) => return Some(Given::Keys),
            b"ARGV" if !self.is_own(name) => return Some(Given::Args),
            _ if hops > MOST_HOPS => return None,
            _ => {}
        }
        let values = self.values.get(name);
        if let Some([Expr::Name(other)]) = values.map(Vec::as_slice) {
            return self.given(&Expr::Name(other), hops + MOST_HOPS / 4);
        }
        if !self.library || values.is_some() {
            return None;
        }
        // A function that is registered is called with the keys and the arguments.
        let parameters = self.parameters.get(name)?;
        let registered = |function: &Option<&[u8]>| {
            function.is_none_or(|name| self.functions.get(name).is_some_and(|calls| calls.args.is_empty()))
        };
        let place = parameters.first()?.1;
        if !parameters.iter().all(|(function, other)| *other == place && registered(function)) {
            return None;
        }
        match place {
            0 => Some(Given::Keys),
            1 => Some(Given::Args),
            _ => None,
        }
    }

    /// What the element `number` of a table can be, or any element: what the table is made with, and what is put there
    /// later.
    fn elements(&self, table: &Expr<'t>, number: Option<u32>) -> Option<Vec<Expr<'t>>> {
        let place = |number: u32| (number as usize).checked_sub(1);
        let name = match table {
            Expr::Table(elements) => return Some(chosen(elements, number.and_then(place))),
            Expr::Name(name) if !self.parameters.contains_key(name) => name,
            _ => return None,
        };
        let [Expr::Table(made)] = self.values.get(name)?.as_slice() else { return None };
        let mut found = chosen(made, number.and_then(place));
        let put = self.put.get(name).map(Vec::as_slice).unwrap_or_default();
        if put.len() > MOST_WAYS {
            return None;
        }
        let begins_empty = found.is_empty();
        for (place, value) in put {
            let fits = match (place, number) {
                (_, None) | (Some(Expr::Name(_)), _) => true,
                (Some(Expr::Number(place)), Some(number)) => *place == number.to_string().as_bytes(),
                (None | Some(_), Some(_)) => false, // behind what is there
            };
            if fits || begins_empty && found.is_empty() {
                found.push(value.clone());
            }
        }
        Some(found)
    }
}

/// One of a table's elements, or all of them.
fn chosen<'t>(elements: &[Expr<'t>], place: Option<usize>) -> Vec<Expr<'t>> {
    match place {
        Some(place) => elements.get(place).cloned().into_iter().collect(),
        None => elements.to_vec(),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Given {
    Keys,
    Args,
}

fn is_unpack(callee: &Expr<'_>) -> bool {
    matches!(callee, Expr::Name(b"unpack"))
        || matches!(callee, Expr::Index(module, what)
            if **module == Expr::Name(b"table") && matches!(&**what, Expr::Text(what) if what == b"unpack"))
}

fn is_case(what: &Expr<'_>) -> bool {
    matches!(what, Expr::Text(what) if matches!(what.as_slice(), b"upper" | b"lower"))
}

/// Texts that follow each other are one.
fn folded(pieces: Vec<Piece>) -> Vec<Piece> {
    let mut folded: Vec<Piece> = Vec::new();
    for piece in pieces {
        match (folded.last_mut(), piece) {
            (Some(Piece::Text(before)), Piece::Text(text)) => {
                *before = [&before[..], &text[..]].concat().into();
            }
            (_, piece) => folded.push(piece),
        }
    }
    folded
}
