//! Lists of commands with the way in which their replies are compared: `tests/cases/README.md`.

use std::path::Path;

use anyhow::{Context, Result};

use crate::{Compare, UnderTest, encode, show, words};

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
        let (compare, line) = Compare::mark(line);
        Ok(Case { line: line.to_owned(), words: words(line)?, compare })
    }

    /// The cases of a file in `tests/cases`.
    ///
    /// # Errors
    /// There is no such file, or a line's quotes are not closed.
    pub fn list(name: &str) -> Result<Vec<Self>> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases").join(name).with_extension("txt");
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let cases = lines.map(|line| match line.strip_prefix("on ") {
            None => Case::new(line).map(Some),
            Some(rest) => {
                let (servers, line) = rest.split_once(": ").with_context(|| line.to_owned())?;
                UnderTest::get().is_any_of(servers)?.then(|| Case::new(line)).transpose()
            }
        });
        cases.filter_map(Result::transpose).collect()
    }

    /// The bytes of the request.
    #[must_use]
    pub fn request(&self) -> Vec<u8> {
        encode(&self.words)
    }

    /// What two replies differ in; `None` if they are alike.
    #[must_use]
    pub fn difference(&self, redis: &[u8], portico: &[u8]) -> Option<String> {
        let (wanted, got) = (self.compare.view(redis, &[]), self.compare.view(portico, &[]));
        (wanted != got)
            .then(|| format!("{}\n   redis: {}\n portico: {}", self.line, show(&wanted), show(&got)))
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
