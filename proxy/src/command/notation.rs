//! How the table writes a key spec: `index:2/keynum:0:1:1/RO,access`.

use std::fmt;

use super::{Begin, Find, KeyFlags, KeySpec};

impl fmt::Display for KeySpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.begin {
            Begin::Index(at) => write!(f, "index:{at}")?,
            Begin::Keyword { word, from } => write!(f, "keyword:{word}:{from}")?,
            Begin::Unknown => f.write_str("unknown")?,
        }
        match self.find {
            Find::Range { last, step, limit } => write!(f, "/range:{last}:{step}:{limit}/")?,
            Find::KeyNum { at, first, step } => write!(f, "/keynum:{at}:{first}:{step}/")?,
            Find::Unknown => f.write_str("/unknown/")?,
        }
        let names = self.flags.names();
        f.write_str(&names.join(","))
    }
}

impl KeySpec {
    /// Reads what [`Display`](fmt::Display) writes. `None`: not in the notation.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('/');
        let (begin, find, flags) = (parts.next()?, parts.next()?, parts.next()?);
        let begin = match fields(begin)[..] {
            ["index", at] => Begin::Index(at.parse().ok()?),
            ["keyword", word, from] => Begin::Keyword { word: word.into(), from: from.parse().ok()? },
            ["unknown"] => Begin::Unknown,
            _ => return None,
        };
        let find = match fields(find)[..] {
            ["range", last, step, limit] => {
                Find::Range { last: last.parse().ok()?, step: step.parse().ok()?, limit: limit.parse().ok()? }
            }
            ["keynum", at, first, step] => {
                Find::KeyNum { at: at.parse().ok()?, first: first.parse().ok()?, step: step.parse().ok()? }
            }
            ["unknown"] => Find::Unknown,
            _ => return None,
        };
        let flags = flags
            .split(',')
            .try_fold(KeyFlags::default(), |flags, word| Some(flags.with(KeyFlags::named(word)?)))?;
        parts.next().is_none().then_some(Self { begin, find, flags })
    }
}

fn fields(text: &str) -> Vec<&str> {
    text.split(':').collect()
}
