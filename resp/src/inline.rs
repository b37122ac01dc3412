//! Inline commands: splits a line into arguments as Redis' `sdssplitargs` does.

use crate::ProtocolError;

/// Arguments whose buffers are kept from one inline command to the next.
const KEPT: usize = 16;
/// Bytes that such a buffer keeps.
const KEPT_BYTES: usize = 1024;

/// The decoded arguments of one inline command, in buffers that are used again.
#[derive(Debug, Default)]
pub(crate) struct InlineArgs {
    buffers: Vec<Vec<u8>>,
    used: usize,
}

impl InlineArgs {
    /// The arguments of the line split last.
    pub(crate) fn as_slice(&self) -> &[Vec<u8>] {
        &self.buffers[..self.used]
    }

    /// Forgets the arguments, and the memory of an unusually large command.
    pub(crate) fn clear(&mut self) {
        if self.used > 0 {
            self.used = 0;
            self.buffers.truncate(KEPT);
            self.buffers.iter_mut().for_each(|buffer| {
                buffer.clear();
                buffer.shrink_to(KEPT_BYTES);
            });
        }
    }

    /// Splits `line`, which is without its line end and has no NUL.
    pub(crate) fn split(&mut self, line: &[u8]) -> Result<(), ProtocolError> {
        self.clear();
        let mut at = 0;
        loop {
            at += line[at..].iter().take_while(|&&byte| is_space(byte)).count();
            if at == line.len() {
                return Ok(());
            }
            at += token(&line[at..], self.next())?;
        }
    }

    /// An empty buffer for one argument more.
    fn next(&mut self) -> &mut Vec<u8> {
        if self.used == self.buffers.len() {
            self.buffers.push(Vec::new());
        }
        self.used += 1;
        &mut self.buffers[self.used - 1]
    }
}

/// Decodes the argument at the beginning of `text`; returns the bytes it takes.
fn token(text: &[u8], out: &mut Vec<u8>) -> Result<usize, ProtocolError> {
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        at += 1;
        match byte {
            // Not all of `isspace`: VT and FF end no bare word.
            b' ' | b'\n' | b'\r' | b'\t' => break,
            // A closing quote ends the argument; an opening one may stand within.
            b'"' => return Ok(at + double_quoted(&text[at..], out)?),
            b'\'' => return Ok(at + single_quoted(&text[at..], out)?),
            _ => out.push(byte),
        }
    }
    Ok(at)
}

/// Decodes what follows an opening `"`, with its escapes.
fn double_quoted(text: &[u8], out: &mut Vec<u8>) -> Result<usize, ProtocolError> {
    let mut at = 0;
    loop {
        match text[at..] {
            [b'\\', b'x', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                out.push(hex(high) << 4 | hex(low));
                at += 4;
            }
            [b'\\', escaped, ..] => {
                out.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 0x08,
                    b'a' => 0x07,
                    other => other,
                });
                at += 2;
            }
            [b'"', ref rest @ ..] => return closed(at + 1, rest),
            [byte, ..] => {
                out.push(byte);
                at += 1;
            }
            [] => return Err(ProtocolError::UnbalancedQuotes),
        }
    }
}

/// Decodes what follows an opening `'`, where only `\'` is an escape.
fn single_quoted(text: &[u8], out: &mut Vec<u8>) -> Result<usize, ProtocolError> {
    let mut at = 0;
    loop {
        match text[at..] {
            [b'\\', b'\'', ..] => {
                out.push(b'\'');
                at += 2;
            }
            [b'\'', ref rest @ ..] => return closed(at + 1, rest),
            [byte, ..] => {
                out.push(byte);
                at += 1;
            }
            [] => return Err(ProtocolError::UnbalancedQuotes),
        }
    }
}

/// A closing quote must be followed by a space or by nothing.
fn closed(used: usize, rest: &[u8]) -> Result<usize, ProtocolError> {
    match rest.first() {
        Some(&byte) if !is_space(byte) => Err(ProtocolError::UnbalancedQuotes),
        _ => Ok(used),
    }
}

/// C's `isspace` in the "C" locale.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

/// The value of a hexadecimal digit.
fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(line: &str) -> Option<Vec<Vec<u8>>> {
        let mut args = InlineArgs::default();
        args.split(line.as_bytes()).ok().map(|()| args.as_slice().to_vec())
    }

    #[test]
    fn splits_as_sdssplitargs() {
        for (line, args) in [
            ("", &[] as &[&[u8]]),
            (" \t\x0b\x0c ", &[]),
            ("get  key ", &[b"get", b"key"]),
            ("a\rb", &[b"a", b"b"]),
            ("a\x0bb \x0bc", &[b"a\x0bb", b"c"]),
            (r#""a b" 'c d'"#, &[b"a b", b"c d"]),
            (r#"'' """#, &[b"", b""]),
            (r#"fo"o b"  x"#, &[b"foo b", b"x"]),
            (r#""\x41\xfF\x4" "#, &[b"A\xff\x78\x34"]),
            (r#""\n\r\t\b\a\\\"\q""#, &[b"\n\r\t\x08\x07\\\"q"]),
            (r"'\'\n'", &[b"'\\n"]),
            (r#"a\"b c\"#, &[]),
        ] {
            let expected: Vec<Vec<u8>> = args.iter().map(|arg| arg.to_vec()).collect();
            if line.starts_with(r#"a\"#) {
                assert_eq!(split(line), None, "a backslash outside quotes escapes nothing");
            } else {
                assert_eq!(split(line), Some(expected), "{line:?}");
            }
        }
    }

    #[test]
    fn quotes_must_pair_and_end_the_argument() {
        for line in
            [r#"""#, "'", r#""a"#, "'a", r#""a"b"#, "'a'b", r#""a\""#, r#""\"#, r#"''''"#, r#""a""b""#]
        {
            assert_eq!(split(line), None, "{line:?}");
        }
    }

    #[test]
    fn buffers_are_used_again() {
        let mut args = InlineArgs::default();
        assert!(args.split(b"one two three").is_ok());
        let before = args.as_slice()[0].as_ptr();
        assert!(args.split(b"x").is_ok());
        assert_eq!(args.as_slice(), [b"x".to_vec()]);
        assert_eq!(args.as_slice()[0].as_ptr(), before);
    }
}
