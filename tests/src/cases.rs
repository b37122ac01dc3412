//! Lists of commands with the way in which their replies are compared: `tests/cases/README.md`.

use std::path::Path;

use anyhow::{Context, Result};

use crate::{canonical, encode, shape, show, words};

/// How two servers' replies to one command are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compare {
    Bytes,
    AnyOrder,
    Pairs,
    Shape,
}

/// One command of a list.
#[derive(Debug, Clone)]
pub struct Case {
    /// The command as it stands in the list.
    pub line: String,
    /// Its words.
    pub words: Vec<Vec<u8>>,
    compare: Compare,
}

impl Case {
    /// From a line with or without a mark.
    ///
    /// # Errors
    /// Its quotes are not closed.
    pub fn new(line: &str) -> Result<Self> {
        let marks = [("~ ", Compare::AnyOrder), ("% ", Compare::Pairs), ("? ", Compare::Shape)];
        let marked = marks.iter().find_map(|(mark, compare)| Some((line.strip_prefix(mark)?, *compare)));
        let (line, compare) = marked.unwrap_or((line, Compare::Bytes));
        Ok(Case { line: line.to_owned(), words: words(line)?, compare })
    }

    /// The cases of a file in `tests/cases`.
    ///
    /// # Errors
    /// There is no such file, or a line's quotes are not closed.
    pub fn list(name: &str) -> Result<Vec<Self>> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases").join(name).with_extension("txt");
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(Case::new).collect()
    }

    /// The bytes of the request.
    #[must_use]
    pub fn request(&self) -> Vec<u8> {
        encode(&self.words)
    }

    /// What two replies differ in; `None` if they are alike.
    #[must_use]
    pub fn difference(&self, redis: &[u8], portico: &[u8]) -> Option<String> {
        let (wanted, got) = match self.compare {
            Compare::Bytes => (show(redis), show(portico)),
            Compare::AnyOrder => (show(&canonical(redis, false)), show(&canonical(portico, false))),
            Compare::Pairs => (show(&canonical(redis, true)), show(&canonical(portico, true))),
            Compare::Shape => (shape(redis), shape(portico)),
        };
        let alike = if self.compare == Compare::Bytes { redis == portico } else { wanted == got };
        (!alike).then(|| format!("{}\n   redis: {wanted}\n portico: {got}", self.line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{canonical, encode};

    /// An array's elements in any order still are the same elements.
    #[test]
    fn a_failed_comparison_would_be_seen() -> Result<()> {
        let case = Case::new("~ SMEMBERS s")?;
        assert_eq!(case.difference(b"*2\r\n+a\r\n+b\r\n", b"*2\r\n+b\r\n+a\r\n"), None);
        assert!(case.difference(b"*2\r\n+a\r\n+b\r\n", b"*2\r\n+b\r\n+b\r\n").is_some());
        assert!(Case::new("GET a")?.difference(b"+a\r\n", b"+b\r\n").is_some());
        assert!(Case::new("? TIME")?.difference(b":1\r\n", b"-ERR x\r\n").is_some());
        assert_eq!(canonical(b"*4\r\n+b\r\n:1\r\n+a\r\n:2\r\n", true), b"*4\r\n+a\r\n:2\r\n+b\r\n:1\r\n");
        assert_eq!(encode(&["a"]), b"*1\r\n$1\r\na\r\n");
        Ok(())
    }
}
