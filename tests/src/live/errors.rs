//! Error replies, counted by the word that they begin with.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Result, ensure};

use crate::show;

/// How many errors of each kind, and one of each.
#[derive(Debug, Clone, Default)]
pub struct ErrorWords(BTreeMap<String, (u64, String)>);

impl ErrorWords {
    /// Counts an error reply.
    pub fn add(&mut self, reply: &[u8]) {
        self.count_in(word(reply), 1, &show(reply));
    }

    /// Counts what another has counted.
    pub fn merge(&mut self, other: &ErrorWords) {
        other.0.iter().for_each(|(word, (count, example))| self.count_in(word, *count, example));
    }

    fn count_in(&mut self, word: &str, count: u64, example: &str) {
        let entry = self.0.entry(word.to_owned()).or_default();
        entry.0 += count;
        example.clone_into(&mut entry.1);
    }

    /// How many begin with this word.
    #[must_use]
    pub fn count(&self, word: &str) -> u64 {
        self.0.get(word).map_or(0, |entry| entry.0)
    }

    /// Fails unless all of them begin with one of these words.
    ///
    /// # Errors
    /// The others.
    pub fn expect_only(&self, words: &[&str]) -> Result<()> {
        let others: Vec<_> = self.0.iter().filter(|(word, _)| !words.contains(&word.as_str())).collect();
        ensure!(others.is_empty(), "unexpected errors: {others:?}");
        Ok(())
    }
}

impl fmt::Display for ErrorWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("no errors");
        }
        let words: Vec<_> = self.0.iter().map(|(word, (count, _))| format!("{word} {count}")).collect();
        f.write_str(&words.join(", "))
    }
}

/// The word that an error reply begins with.
fn word(reply: &[u8]) -> &str {
    let text = reply.strip_prefix(b"-").unwrap_or(reply);
    let end = text.iter().position(u8::is_ascii_whitespace).unwrap_or(text.len());
    std::str::from_utf8(&text[..end]).unwrap_or("?")
}

#[cfg(test)]
mod tests {
    use super::ErrorWords;

    #[test]
    fn errors_are_known_by_their_first_word() {
        let (mut all, mut some) = (ErrorWords::default(), ErrorWords::default());
        some.add(b"-UNKNOWN it may have run\r\n");
        some.add(b"-ERR\r\n");
        all.merge(&some);
        all.merge(&some);
        assert_eq!(all.to_string(), "ERR 2, UNKNOWN 2");
        assert!(all.expect_only(&["UNKNOWN"]).is_err());
        assert!(all.expect_only(&["UNKNOWN", "ERR"]).is_ok());
    }
}
