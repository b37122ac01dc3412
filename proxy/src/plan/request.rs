//! A request as the scanner left it: its bytes and where its arguments lie in them.

use portico_resp::Arg;

use crate::command::Args;

/// The arguments of a request, the command's name first.
#[derive(Clone, Copy, Debug)]
pub struct RequestArgs<'a> {
    request: &'a [u8],
    args: &'a [Arg],
}

impl<'a> RequestArgs<'a> {
    /// The arguments `args` of `request`.
    #[must_use]
    pub fn new(request: &'a [u8], args: &'a [Arg]) -> Self {
        Self { request, args }
    }

    /// How long the request is as it was sent, and its arguments alone, in bytes.
    #[must_use]
    pub fn lengths(&self) -> (usize, usize) {
        (self.request.len(), self.args.iter().map(|arg| arg.of(self.request).len()).sum())
    }

    /// The argument `index`; empty if there is none.
    #[must_use]
    pub fn word(&self, index: usize) -> &'a [u8] {
        self.args.get(index).map_or(b"", |arg| arg.of(self.request))
    }

    /// Whether the argument `index` is `word`, whatever its case.
    #[must_use]
    pub fn is(&self, index: usize, word: &str) -> bool {
        self.word(index).eq_ignore_ascii_case(word.as_bytes())
    }

    /// The argument `index` as text, with what is not UTF-8 replaced.
    #[must_use]
    pub fn text(&self, index: usize) -> std::borrow::Cow<'a, str> {
        String::from_utf8_lossy(self.word(index))
    }

    /// The argument `index` as an integer, by Redis' rules: decimal, no sign but `-`, no leading zeros.
    #[must_use]
    pub fn integer(&self, index: usize) -> Option<i64> {
        let text = std::str::from_utf8(self.word(index)).ok()?;
        let canonical = |value: &i64| value.to_string() == text;
        text.parse().ok().filter(canonical)
    }
}

impl Args for RequestArgs<'_> {
    fn count(&self) -> usize {
        self.args.len()
    }

    fn get(&self, index: usize) -> &[u8] {
        self.word(index)
    }
}
