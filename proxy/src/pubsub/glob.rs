//! Glob patterns as Redis matches them (`stringmatchlen`), with its oddities.

/// Whether `text` matches `pattern`.
#[must_use]
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    matches_from(pattern, text, &mut false)
}

/// `hopeless`: what follows a `*` matches nowhere in the rest, so an earlier `*` need not take more.
fn matches_from(mut pattern: &[u8], mut text: &[u8], hopeless: &mut bool) -> bool {
    while let (Some(&first), Some(&byte)) = (pattern.first(), text.first()) {
        match first {
            b'*' => {
                while pattern.get(1) == Some(&b'*') {
                    pattern = &pattern[1..];
                }
                if pattern.len() == 1 {
                    return true;
                }
                while !text.is_empty() {
                    if matches_from(&pattern[1..], text, hopeless) {
                        return true;
                    }
                    if *hopeless {
                        return false;
                    }
                    text = &text[1..];
                }
                *hopeless = true;
                return false;
            }
            b'?' => pattern = &pattern[1..],
            b'[' => {
                let (found, rest) = class(&pattern[1..], byte);
                if !found {
                    return false;
                }
                pattern = rest;
            }
            first => {
                let escaped = first == b'\\' && pattern.len() >= 2;
                pattern = &pattern[usize::from(escaped)..];
                if pattern[0] != byte {
                    return false;
                }
                pattern = &pattern[1..];
            }
        }
        text = &text[1..];
        if text.is_empty() {
            while pattern.first() == Some(&b'*') {
                pattern = &pattern[1..];
            }
        }
    }
    pattern.is_empty() && text.is_empty()
}

/// Whether `byte` is in the class that begins after its `[`, and what follows the class. One that is not closed ends
/// with the pattern.
fn class(mut rest: &[u8], byte: u8) -> (bool, &[u8]) {
    let inverted = rest.first() == Some(&b'^');
    if inverted {
        rest = &rest[1..];
    }
    let mut found = false;
    loop {
        match *rest {
            [b'\\', escaped, ..] => {
                found |= escaped == byte;
                rest = &rest[2..];
            }
            [b']', ..] => return (found != inverted, &rest[1..]),
            [] => return (found != inverted, rest),
            [start, b'-', end, ..] => {
                // Bytes are signed to Redis.
                let (start, end) = (start.cast_signed(), end.cast_signed());
                found |= (start.min(end)..=start.max(end)).contains(&byte.cast_signed());
                rest = &rest[3..];
            }
            [single, ..] => {
                found |= single == byte;
                rest = &rest[1..];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_redis_matches() {
        let rows: &[(&str, &[&str], &[&str])] = &[
            ("h?llo", &["hello", "hallo"], &["hllo", "heello"]),
            ("h*llo", &["hllo", "heeeello"], &["hell"]),
            ("h[ae]llo", &["hello", "hallo"], &["hillo"]),
            ("h[^e]llo", &["hallo"], &["hello"]),
            ("h[a-c]llo", &["hallo", "hbllo"], &["hdllo"]),
            ("h[c-a]llo", &["hbllo"], &["hdllo"]),
            ("a\\*", &["a*"], &["ab"]),
            ("e\\", &["e\\"], &["e"]),
            ("f[ab", &["fa", "fb"], &["f[ab", "f"]),
            ("[\\]]d", &["]d"], &["d"]),
            ("[]a", &[], &["]a", "a"]),
            ("[^]b", &["xb"], &["b"]),
            ("[a-]c", &["a", "c", "]", "_"], &["-c", "ac", "b"]), // from ] to a, and c; not closed
            ("**g", &["g", "xxg"], &["gx"]),
            ("*", &["a", "ab"], &[""]), // an empty name matches nothing but an empty pattern
            ("", &[""], &["a"]),
            ("a*", &["a", "ab"], &["", "b"]),
            ("a*c*e", &["ace", "abcde"], &["acf"]),
            ("*[", &[], &["[", "a["]),
        ];
        for (pattern, yes, no) in rows {
            for (texts, expected) in [(yes, true), (no, false)] {
                for text in *texts {
                    assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
                }
            }
        }
    }

    #[test]
    fn many_stars_take_no_time() {
        let pattern = "a*".repeat(50) + "b";
        assert!(!matches(pattern.as_bytes(), "a".repeat(200).as_bytes()));
    }
}
