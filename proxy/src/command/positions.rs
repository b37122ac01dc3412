//! The indexes of a request's keys.

use super::{Args, Begin, Command, Find, Flags, KeySpec, Keys};

/// Why a request's keys cannot be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The arguments do not fit the command (a bad count, a missing keyword): any node has the error for it.
    #[error("the arguments do not fit the command")]
    NotFound,
    /// A key is without what belongs to it (`MSET a 1 b`): [`wrong_arity`](super::errors::wrong_arity).
    #[error("a key is without its value")]
    Unpaired,
    /// Nobody but the server knows where this command's keys are.
    #[error("only the server knows the keys")]
    Unknown,
}

impl Command {
    /// Replaces `out` by the argument indexes of all keys, in the order of the key specs (a destination first).
    /// Without keys, or with a count of keys that may be and is 0, it is empty.
    ///
    /// # Errors
    /// See [`KeyError`]; `out` is then empty.
    #[inline]
    pub fn key_positions<A: Args + ?Sized>(&self, args: &A, out: &mut Vec<u32>) -> Result<(), KeyError> {
        out.clear();
        match &self.keys {
            &Keys::One(at) if (at as usize) < args.count() => {
                out.push(at);
                Ok(())
            }
            Keys::None => Ok(()),
            Keys::One(_) => Err(KeyError::NotFound),
            Keys::Unknown => Err(KeyError::Unknown),
            Keys::Specs(specs) => {
                let optional = self.flags.has(Flags::NO_MANDATORY_KEYS);
                let found = specs.iter().try_for_each(|spec| spec.positions(args, optional, out));
                found.inspect_err(|_| out.clear())
            }
            Keys::Walk(walk) => walk.positions(args, out).inspect_err(|_| out.clear()),
        }
    }
}

impl KeySpec {
    /// Redis' `getKeysUsingKeySpecs`. `optional`: no keys at all is fine.
    fn positions<A: Args + ?Sized>(
        &self,
        args: &A,
        optional: bool,
        out: &mut Vec<u32>,
    ) -> Result<(), KeyError> {
        let argc = args.count();
        let begin = match &self.begin {
            Begin::Index(at) => *at as usize,
            Begin::Keyword { word, from } => match find_keyword(args, word.as_bytes(), *from) {
                Some(at) => at + 1,
                None => return Ok(()),
            },
            Begin::Unknown => return Err(KeyError::Unknown),
        };
        let (first, last, step) = match self.find {
            Find::Range { last, step, limit } => {
                let back = last.unsigned_abs() as usize;
                let last = match (last, limit) {
                    (0.., _) => begin + back,
                    (_, 0 | 1) => argc.checked_sub(back).ok_or(KeyError::NotFound)?,
                    (_, limit) => {
                        let keys = argc.saturating_sub(begin) / limit as usize;
                        (begin + keys).checked_sub(back).ok_or(KeyError::NotFound)?
                    }
                };
                (begin, last, step)
            }
            Find::KeyNum { at, first, step } => {
                let at = begin + at as usize;
                if at >= argc {
                    return Err(KeyError::NotFound);
                }
                let count = parse_count(args.get(at)).ok_or(KeyError::NotFound)?;
                if count == 0 && optional {
                    return Ok(());
                }
                // More keys than arguments cannot be, and must not overflow.
                if count == 0 || count > argc {
                    return Err(KeyError::NotFound);
                }
                let first = begin + first as usize;
                (first, first + (count - 1) * step as usize, step)
            }
            Find::Unknown => return Err(KeyError::Unknown),
        };
        if last < first || last >= argc {
            return Err(KeyError::NotFound);
        }
        // Only a run up to the end of the request can be cut short.
        let step = step.max(1);
        if step > 1
            && matches!(self.find, Find::Range { last: -1, .. })
            && !(argc - first).is_multiple_of(step as usize)
        {
            return Err(KeyError::Unpaired);
        }
        out.extend((first as u32..=last as u32).step_by(step as usize));
        Ok(())
    }
}

/// Where a key spec's keyword is, searched as Redis does: from `from` on, or backwards from `-from` before the end.
fn find_keyword<A: Args + ?Sized>(args: &A, word: &[u8], from: i32) -> Option<usize> {
    let argc = args.count();
    let found = |&at: &usize| args.get(at).eq_ignore_ascii_case(word);
    if from > 0 {
        (from as usize..argc.saturating_sub(1)).find(found)
    } else {
        let start = argc.checked_sub(from.unsigned_abs() as usize)?;
        (2..=start.min(argc - 1)).rev().find(found)
    }
}

/// A count of keys as Redis reads it: digits without sign or leading zeros. `None`: not a number, negative, or
/// beyond any request.
fn parse_count(text: &[u8]) -> Option<usize> {
    match text {
        b"0" => Some(0),
        [b'1'..=b'9', rest @ ..] if text.len() <= 9 && rest.iter().all(u8::is_ascii_digit) => {
            Some(text.iter().fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0')))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::command::{Resolved, Table};

    fn keys(request: &str) -> Result<Vec<u32>, KeyError> {
        let args: Vec<&str> = request.split(' ').map(|arg| if arg == "\"\"" { "" } else { arg }).collect();
        let table = Table::builtin();
        let Resolved::Command(command) = table.resolve(&args[..]) else { panic!("{request} is unknown") };
        let mut out = vec![99];
        let found = command.key_positions(&args[..], &mut out);
        assert!(found.is_ok() || out.is_empty());
        found.map(|()| out)
    }

    // What a server agrees to is in tests/tests/oracle/command_table.rs; here is what it cannot be asked, or says otherwise
    // to COMMAND GETKEYS than it does when it routes.

    #[test]
    fn no_keys_where_none_are_needed() {
        assert_eq!(keys("PING"), Ok(vec![]));
        assert_eq!(keys("EVAL s 0"), Ok(vec![]));
        assert_eq!(keys("FCALL_RO f 0 a"), Ok(vec![]));
    }

    #[test]
    fn a_count_that_is_none_is_for_the_node_to_complain_of() {
        for count in ["1", "-1", "01", "+0", "x", "99999999999999999999", "4294967297", "\"\""] {
            assert_eq!(keys(&format!("EVAL s {count}")), Err(KeyError::NotFound), "{count}");
        }
        assert_eq!(keys("EVAL s"), Err(KeyError::NotFound));
        assert_eq!(keys("SINTERCARD 0 a"), Err(KeyError::NotFound));
        assert_eq!(keys("ZUNIONSTORE d 0 a"), Err(KeyError::NotFound));
        assert_eq!(keys("LMPOP 2 a LEFT"), Ok(vec![2, 3]));
    }

    #[test]
    fn arguments_that_are_missing_are_not_keys() {
        for request in ["GET", "LMOVE a", "DEL", "OBJECT ENCODING", "XREAD STREAMS", "XREAD COUNT 1", "SORT"]
        {
            assert_eq!(keys(request), Err(KeyError::NotFound), "{request}");
        }
        assert_eq!(keys("MSET a 1 b"), Err(KeyError::Unpaired));
        assert_eq!(keys("MSETNX a"), Err(KeyError::Unpaired));
    }

    #[test]
    fn a_sharded_channel_is_routed_as_a_key_is() {
        assert_eq!(keys("SPUBLISH c m"), Ok(vec![1]));
        assert_eq!(keys("SSUBSCRIBE a b"), Ok(vec![1, 2]));
    }

    #[test]
    fn streams_may_be_a_groups_name() {
        assert_eq!(keys("XREADGROUP GROUP streams c STREAMS a b > >"), Ok(vec![5, 6]));
        assert_eq!(keys("XREADGROUP COUNT 1 GROUP g streams STREAMS a >"), Ok(vec![7]));
        assert_eq!(keys("XREAD STREAMS streams 0"), Ok(vec![2]));
        assert_eq!(keys("XREAD STREAMS a b 0"), Err(KeyError::NotFound));
    }

    #[test]
    fn the_last_store_counts() {
        assert_eq!(keys("SORT k STORE a BY store STORE b"), Ok(vec![1, 7]));
        assert_eq!(keys("GEORADIUS k 1 1 1 m STORE a STOREDIST b"), Ok(vec![1, 9]));
        assert_eq!(keys("GEORADIUS k 1 1 1 m STORE"), Ok(vec![1]));
    }

    #[test]
    fn migrate_names_one_key_or_many() {
        assert_eq!(keys("MIGRATE h 1 k 0 5"), Ok(vec![3]));
        assert_eq!(keys("MIGRATE h 1 \"\" 0 5 AUTH keys KEYS a b"), Ok(vec![9, 10]));
        assert_eq!(keys("MIGRATE h 1 k 0 5 KEYS a b"), Err(KeyError::NotFound));
    }

    #[test]
    fn debug_has_a_key_with_some_subcommands() {
        assert_eq!(keys("DEBUG object k"), Ok(vec![2]));
        assert_eq!(keys("DEBUG DIGEST-VALUE a b"), Ok(vec![2, 3]));
        assert_eq!(keys("DEBUG SLEEP 1"), Ok(vec![]));
        assert_eq!(keys("DEBUG OBJECT"), Ok(vec![]));
    }

    proptest! {
        #[test]
        fn whatever_comes_a_key_is_an_argument(
            name in 0..366usize,
            rest in prop::collection::vec("[a-c0-3]|STREAMS|STORE|KEYS|BY|GROUP|COUNT|9{1,20}|-1", 0..9),
        ) {
            let table = Table::builtin();
            let command = table.commands().nth(name).expect("there are as many");
            let mut args: Vec<&str> = command.name.split('|').collect();
            args.extend(rest.iter().map(String::as_str));
            let mut out = Vec::new();
            if command.key_positions(&args[..], &mut out).is_ok() {
                prop_assert!(out.iter().all(|&at| (1..args.len()).contains(&(at as usize))));
            } else {
                prop_assert!(out.is_empty());
            }
        }
    }
}
