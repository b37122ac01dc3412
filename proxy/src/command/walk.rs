//! Commands whose keys hang on their options: Redis has a function of its own for each.

use super::words::words;
use super::{Args, Debug, KeyError};

words! {
    /// Which of Redis' own functions finds the keys.
    Walk {
        /// `SORT key [BY p] [LIMIT o c] [GET p ...] [STORE dst]`: the last STORE counts.
        Sort = "sort";
        /// `GEORADIUS key ... [STORE key] [STOREDIST key]`: the last of the two counts.
        GeoStore = "geo-store";
        /// `XREAD [COUNT n] [BLOCK ms] STREAMS key ... id ...`: a group may be called STREAMS.
        Streams = "streams";
        /// `MIGRATE host port key|"" db timeout [AUTH p] [KEYS key ...]`.
        Migrate = "migrate";
        /// `DEBUG OBJECT key` and the like.
        Debug = "debug";
    }
}

impl Walk {
    /// Appends the argument indexes of the keys.
    pub(super) fn positions<A: Args + ?Sized>(self, args: &A, out: &mut Vec<u32>) -> Result<(), KeyError> {
        let argc = args.count();
        match self {
            Self::Sort | Self::GeoStore => {
                if argc < 2 {
                    return Err(KeyError::NotFound);
                }
                out.push(1);
                let store = if self == Self::Sort { sort_store(args) } else { geo_store(args) };
                out.extend(store.map(|at| at as u32));
            }
            Self::Streams => {
                let streams = Options::of(args).streams.ok_or(KeyError::NotFound)?;
                let rest = argc - streams - 1;
                if rest == 0 || !rest.is_multiple_of(2) {
                    return Err(KeyError::NotFound);
                }
                out.extend((streams as u32 + 1..).take(rest / 2));
            }
            Self::Migrate => migrate(args, out)?,
            Self::Debug => debug(args, out),
        }
        Ok(())
    }
}

/// Where an XREAD or XREADGROUP says how long it blocks; none if it does not. Of several, the last counts.
#[must_use]
pub fn block_option<A: Args + ?Sized>(args: &A) -> Option<usize> {
    Options::of(args).block
}

/// The options of XREAD and XREADGROUP, up to the first that is none.
#[derive(Default)]
struct Options {
    /// Where BLOCK's value is.
    block: Option<usize>,
    /// Where the word STREAMS is.
    streams: Option<usize>,
}

impl Options {
    fn of<A: Args + ?Sized>(args: &A) -> Self {
        let mut options = Self::default();
        let mut at = 1;
        while at < args.count() {
            let word = args.get(at);
            at += match word.len() {
                5 if word.eq_ignore_ascii_case(b"block") => {
                    options.block = Some(at + 1);
                    2
                }
                5 if word.eq_ignore_ascii_case(b"count") => 2,
                5 if word.eq_ignore_ascii_case(b"claim") => 2,
                5 if word.eq_ignore_ascii_case(b"group") => 3,
                5 if word.eq_ignore_ascii_case(b"noack") => 1,
                7 if word.eq_ignore_ascii_case(b"streams") => {
                    options.streams = Some(at);
                    break;
                }
                _ => break,
            };
        }
        options
    }
}

fn sort_store<A: Args + ?Sized>(args: &A) -> Option<usize> {
    let (mut at, mut store) = (2, None);
    while at < args.count() {
        let word = args.get(at);
        if word.eq_ignore_ascii_case(b"limit") {
            at += 2;
        } else if word.eq_ignore_ascii_case(b"get") || word.eq_ignore_ascii_case(b"by") {
            at += 1;
        } else if word.eq_ignore_ascii_case(b"store") && at + 1 < args.count() {
            store = Some(at + 1);
        }
        at += 1;
    }
    store
}

fn geo_store<A: Args + ?Sized>(args: &A) -> Option<usize> {
    let (mut at, mut store) = (5, None);
    while at + 1 < args.count() {
        let word = args.get(at);
        if word.eq_ignore_ascii_case(b"store") || word.eq_ignore_ascii_case(b"storedist") {
            at += 1;
            store = Some(at);
        }
        at += 1;
    }
    store
}

fn migrate<A: Args + ?Sized>(args: &A, out: &mut Vec<u32>) -> Result<(), KeyError> {
    let argc = args.count();
    if argc < 4 {
        return Err(KeyError::NotFound);
    }
    let mut at = 6;
    while at < argc {
        let word = args.get(at);
        if word.eq_ignore_ascii_case(b"keys") {
            if !args.get(3).is_empty() {
                return Err(KeyError::NotFound);
            }
            out.extend(at as u32 + 1..argc as u32);
            return Ok(());
        }
        at += match () {
            () if word.eq_ignore_ascii_case(b"auth") => 2,
            () if word.eq_ignore_ascii_case(b"auth2") => 3,
            () => 1,
        };
    }
    out.push(3);
    Ok(())
}

fn debug<A: Args + ?Sized>(args: &A, out: &mut Vec<u32>) {
    let argc = args.count();
    if argc < 3 {
        return;
    }
    match Debug::of(args.get(1)) {
        Some(Debug::Key) => out.push(2),
        Some(Debug::Keys) => out.extend(2..argc as u32),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_counts_only_as_an_option() {
        let asks = |request: &str| block_option(&request.split(' ').collect::<Vec<_>>()[..]).is_some();
        assert!(asks("XREAD BLOCK 0 STREAMS k $"));
        assert!(asks("xreadgroup group g c count 1 block 5 noack streams k >"));
        assert!(!asks("XREAD COUNT 1 STREAMS block 0"));
        assert!(!asks("XREADGROUP GROUP block block STREAMS k >"));
    }
}
