//! A command line's words, quoted as in redis-cli.

use anyhow::{Result, bail};

/// Splits a line: `SET key "a\x00\n" 'b c'`.
///
/// # Errors
/// Quotes are not closed.
pub fn words(line: &str) -> Result<Vec<Vec<u8>>> {
    let mut words = Vec::new();
    let mut bytes = line.bytes().peekable();
    loop {
        while bytes.next_if(u8::is_ascii_whitespace).is_some() {}
        let Some(&first) = bytes.peek() else { return Ok(words) };
        let mut word = Vec::new();
        if first == b'"' || first == b'\'' {
            bytes.next();
            loop {
                match bytes.next() {
                    None => bail!("unbalanced quotes: {line}"),
                    Some(byte) if byte == first => break,
                    Some(b'\\') if first == b'"' => match bytes.next() {
                        Some(b'n') => word.push(b'\n'),
                        Some(b'r') => word.push(b'\r'),
                        Some(b't') => word.push(b'\t'),
                        Some(b'x') => {
                            let mut digit = || bytes.next().and_then(|byte| char::from(byte).to_digit(16));
                            let (Some(high), Some(low)) = (digit(), digit()) else { bail!("\\x: {line}") };
                            word.push(u8::try_from(high * 16 + low)?);
                        }
                        Some(byte) => word.push(byte),
                        None => bail!("unbalanced quotes: {line}"),
                    },
                    Some(byte) => word.push(byte),
                }
            }
        } else {
            while let Some(byte) = bytes.next_if(|byte| !byte.is_ascii_whitespace()) {
                word.push(byte);
            }
        }
        words.push(word);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn words_are_split_as_redis_cli_does() {
        let words = super::words(r#"SET  "a b\x00\"" 'c"d' e"#).expect("balanced");
        assert_eq!(words, [&b"SET"[..], b"a b\0\"", b"c\"d", b"e"]);
        assert!(super::words("\"a").is_err());
    }
}
