//! Errors about a request's first words, in Redis' own words (7.0.15, `server.c`).
//!
//! Bytes and not text, because a client's arguments are; without the leading `-` and the line end.

use super::Args;

/// How much of what the client sent an error repeats, in bytes.
const SHOWN: usize = 128;

/// `ERR unknown command 'foo', with args beginning with: 'a' 'b' `.
#[must_use]
pub fn unknown_command<A: Args + ?Sized>(args: &A) -> Vec<u8> {
    let mut shown = Vec::new();
    for at in 1..args.count() {
        if shown.len() >= SHOWN {
            break;
        }
        let room = SHOWN - shown.len();
        shown.push(b'\'');
        shown.extend_from_slice(c_string(args.get(at), room));
        shown.extend_from_slice(b"' ");
    }
    let name = if args.count() == 0 { b"" } else { args.get(0) };
    let mut error = b"ERR unknown command '".to_vec();
    error.extend_from_slice(c_string(name, SHOWN));
    error.extend_from_slice(b"', with args beginning with: ");
    error.extend_from_slice(&shown);
    one_line(error)
}

/// `ERR unknown subcommand 'foo'. Try CONFIG HELP.` For a request of at least two arguments.
#[must_use]
pub fn unknown_subcommand<A: Args + ?Sized>(args: &A) -> Vec<u8> {
    let word = |at| if at < args.count() { args.get(at) } else { b"" };
    let mut error = b"ERR unknown subcommand '".to_vec();
    error.extend_from_slice(c_string(word(1), SHOWN));
    error.extend_from_slice(b"'. Try ");
    error.extend_from_slice(&c_string(word(0), usize::MAX).to_ascii_uppercase());
    error.extend_from_slice(b" HELP.");
    one_line(error)
}

/// `ERR wrong number of arguments for 'config|get' command`; `name` as in [`Command::name`](super::Command::name).
#[must_use]
pub fn wrong_arity(name: &str) -> Vec<u8> {
    format!("ERR wrong number of arguments for '{name}' command").into_bytes()
}

/// A text with a word of the client's in it, as C prints it.
#[must_use]
pub fn quoting(before: &str, word: &[u8], after: &str) -> Vec<u8> {
    one_line([before.as_bytes(), c_string(word, usize::MAX), after.as_bytes()].concat())
}

/// What C prints of `bytes`: up to the first zero, `most` bytes at most.
fn c_string(bytes: &[u8], most: usize) -> &[u8] {
    let end = memchr::memchr(0, bytes).unwrap_or(bytes.len());
    &bytes[..end.min(most)]
}

/// An error is one line, whatever the client sent.
fn one_line(mut error: Vec<u8>) -> Vec<u8> {
    error.iter_mut().filter(|byte| matches!(byte, b'\r' | b'\n')).for_each(|byte| *byte = b' ');
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_cannot_break_the_line() {
        let args: [&[u8]; 3] = [b"a\r\nb", b"c\0d", b"\xff"];
        let expected: &[u8] = b"ERR unknown command 'a  b', with args beginning with: 'c' '\xff' ";
        assert_eq!(unknown_command(&args[..]), expected);
    }

    #[test]
    fn only_the_beginning_of_what_was_sent_is_shown() {
        let long = "x".repeat(300);
        let (name, first, rest) = (&long[..128], &long[..128], "'");
        let shown = unknown_command(&[long.as_str(), &long, "more"][..]);
        let expected = format!("ERR unknown command '{name}', with args beginning with: '{first}{rest} ");
        assert_eq!(shown, expected.as_bytes());
        let two = unknown_command(&["f", "yyy", &long, "more"][..]);
        let expected =
            format!("ERR unknown command 'f', with args beginning with: 'yyy' '{}' ", &long[..122]);
        assert_eq!(two, expected.as_bytes());
    }

    #[test]
    fn a_container_is_named_in_capitals() {
        let shown = unknown_subcommand(&["config", "foo", "bar"][..]);
        assert_eq!(shown, b"ERR unknown subcommand 'foo'. Try CONFIG HELP.");
        assert_eq!(wrong_arity("config|get"), b"ERR wrong number of arguments for 'config|get' command");
    }
}
