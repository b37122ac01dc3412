//! What CLIENT PAUSE asks for.

use std::time::Duration;

use crate::command::{Args, errors};
use crate::plan::RequestArgs;
use crate::topology::Identity;

/// CLIENT PAUSE milliseconds [WRITE|ALL]: for how long, and whether all requests wait. `nodes`: what they are.
///
/// # Errors
/// The error line that Redis would answer with.
pub fn pause(args: &RequestArgs<'_>, nodes: &Identity) -> Result<(Duration, bool), Vec<u8>> {
    let all = match args.count() {
        3 => true,
        // Valkey ignores what follows, and then the mode too.
        5.. if nodes.is_valkey((8, 1)) => true,
        5.. => {
            let before = "ERR unknown subcommand or wrong number of arguments for '";
            return Err(errors::quoting(before, args.word(1), "'. Try CLIENT HELP."));
        }
        _ if args.is(3, "write") => false,
        _ if args.is(3, "all") => true,
        _ => return Err(b"ERR CLIENT PAUSE mode must be WRITE or ALL".to_vec()),
    };
    let millis = args.integer(2).ok_or(&b"ERR timeout is not an integer or out of range"[..])?;
    let millis = u64::try_from(millis).map_err(|_| &b"ERR timeout is negative"[..])?;
    // A time that no clock can tell: Redis 7.2 says so, before that its sum was in the past.
    const CLOCK: u64 = 1 << 41;
    if millis > i64::MAX.unsigned_abs() - CLOCK {
        return if nodes.has((7, 2), (7, 2)) {
            Err(b"ERR timeout is out of range".to_vec())
        } else {
            Ok((Duration::ZERO, all))
        };
    }
    Ok((Duration::from_millis(millis), all))
}
