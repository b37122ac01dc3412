//! Numbers of length lines: the quick way for well-formed ones, Redis' `string2ll` for the rest.

/// Digits that the quick way reads; more are possible, and left to [`string2ll`].
const SHORT_DIGITS: usize = 10;

/// Reads the line at `at` if it is `type`, an integer from 0 without leading zeros, CR and one more byte.
///
/// Returns the number and where the next line begins; `None` says nothing: the line may be incomplete, wrong
/// or unusual. As in Redis, the byte after CR is taken for LF unseen.
#[inline(always)]
pub(crate) fn short_header(buf: &[u8], at: usize, kind: u8) -> Option<(u64, usize)> {
    let line = buf.get(at..)?;
    // Most numbers have one digit or two: no loop for them.
    match *line {
        [first, a @ b'0'..=b'9', b'\r', _, ..] if first == kind => Some((u64::from(a - b'0'), at + 4)),
        [first, a @ b'1'..=b'9', b @ b'0'..=b'9', b'\r', _, ..] if first == kind => {
            Some((u64::from(a - b'0') * 10 + u64::from(b - b'0'), at + 5))
        }
        [first, ref digits @ ..] if first == kind => {
            longer(digits).map(|(number, len)| (number, at + 1 + len))
        }
        _ => None,
    }
}

/// The same for any number of digits, from the first digit on; returns the number and the bytes read.
fn longer(digits: &[u8]) -> Option<(u64, usize)> {
    let mut number = 0;
    for (i, &byte) in digits.iter().take(SHORT_DIGITS + 1).enumerate() {
        let digit = byte.wrapping_sub(b'0');
        if digit < 10 {
            number = number * 10 + u64::from(digit);
        } else {
            let canonical = i == 1 || (i > 1 && digits[0] != b'0');
            return (byte == b'\r' && canonical && i + 1 < digits.len()).then_some((number, i + 2));
        }
    }
    None
}

/// Redis' `string2ll`: an `i64` without plus sign, leading zeros, spaces or `-0`.
pub(crate) fn string2ll(text: &[u8]) -> Option<i64> {
    if text == b"0" {
        return Some(0);
    }
    let (negative, digits) = match text.strip_prefix(b"-") {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    if !matches!(digits.first(), Some(b'1'..=b'9')) {
        return None;
    }
    digits
        .iter()
        .try_fold(0_i64, |number, &byte| {
            let digit = byte.wrapping_sub(b'0');
            // Counted downwards, as there is one negative number more.
            let digit = (digit < 10).then_some(i64::from(digit))?;
            number.checked_mul(10)?.checked_sub(digit)
        })
        .and_then(|number| if negative { Some(number) } else { number.checked_neg() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn string2ll_is_as_strict_as_redis() {
        for (text, number) in [
            ("0", Some(0)),
            ("7", Some(7)),
            ("-1", Some(-1)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("-9223372036854775809", None),
            ("99999999999999999999", None),
            ("", None),
            ("-", None),
            ("-0", None),
            ("+1", None),
            ("003", None),
            (" 1", None),
            ("1 ", None),
            ("1x", None),
        ] {
            assert_eq!(string2ll(text.as_bytes()), number, "{text}");
        }
    }

    #[test]
    fn short_headers_are_those_that_string2ll_accepts() {
        assert_eq!(short_header(b"$0\r\n", 0, b'$'), Some((0, 4)));
        assert_eq!(short_header(b"..$1234567890\r\nx", 2, b'$'), Some((1_234_567_890, 15)));
        for line in
            ["", "$", "$1", "$1\r", "$\r\n", "$00\r\n", "$01\r\n", "$-1\r\n", "*1\r\n", "$12345678901\r\n"]
        {
            assert_eq!(short_header(line.as_bytes(), 0, b'$'), None, "{line:?}");
        }
    }
}
