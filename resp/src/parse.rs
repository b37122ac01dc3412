//! Reads complete replies, as far as merging several into one needs it.

use crate::number::string2ll;
use crate::reply::{ReplyScanner, length};

/// The number of top-level elements of an array, set, push or map (twice its pairs), and the bytes before the
/// first; `None` for a null array and for anything else.
pub fn array_items(reply: &[u8]) -> Option<(u64, usize)> {
    let kind = reply.first()?;
    let (count, header_len) = match kind {
        b'*' | b'~' | b'>' | b'%' => length(reply, 0).ok()??,
        _ => return None,
    };
    let count = if *kind == b'%' { count?.checked_mul(2)? } else { count? };
    Some((count, header_len))
}

/// The value of an integer reply; `None` for anything else.
pub fn integer_reply(reply: &[u8]) -> Option<i64> {
    string2ll(reply.strip_prefix(b":")?.strip_suffix(b"\r\n")?)
}

/// The body of a bulk string, simple string or verbatim string (without its format); `None` for a null and
/// for anything else.
pub fn bulk_reply(reply: &[u8]) -> Option<&[u8]> {
    let body = match reply.first()? {
        b'+' => &reply[1..],
        b'$' => &reply[length(reply, 0).ok()?.filter(|(len, _)| len.is_some())?.1..],
        b'=' => reply.get(length(reply, 0).ok()??.1 + "txt:".len()..)?,
        _ => return None,
    };
    body.strip_suffix(b"\r\n")
}

/// Whether the reply is a null, of either protocol.
pub fn is_null(reply: &[u8]) -> bool {
    matches!(reply, b"$-1\r\n" | b"*-1\r\n" | b"_\r\n")
}

/// Whether the reply is an error, of either protocol.
#[inline]
pub fn is_error(reply: &[u8]) -> bool {
    matches!(reply.first(), Some(b'-' | b'!'))
}

/// The top-level elements of a complete array, set, push or map (keys and values by turns), each as it stands
/// in the reply. An element that is not complete ends them.
#[derive(Clone, Debug)]
pub struct Items<'a> {
    rest: &'a [u8],
    left: u64,
}

impl<'a> Items<'a> {
    /// The elements of `reply`; `None` if it has none: a null array, or not of those types.
    pub fn new(reply: &'a [u8]) -> Option<Self> {
        let (left, header_len) = array_items(reply)?;
        Some(Self { rest: &reply[header_len..], left })
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        self.left = self.left.checked_sub(1)?;
        let Ok(Some(end)) = ReplyScanner::default().scan(self.rest) else {
            self.left = 0;
            return None;
        };
        let (item, rest) = self.rest.split_at(end);
        self.rest = rest;
        Some(item)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, usize::try_from(self.left).ok())
    }
}

/// The complete replies in `bytes`, one after another.
pub fn replies(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    Items { rest: bytes, left: u64::MAX }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers() {
        assert_eq!(array_items(b"*0\r\n"), Some((0, 4)));
        assert_eq!(array_items(b"*12\r\n..."), Some((12, 5)));
        assert_eq!(array_items(b"%3\r\n"), Some((6, 4)));
        assert_eq!(array_items(b"~1\r\n"), Some((1, 4)));
        for reply in [&b"*-1\r\n"[..], b"$1\r\na\r\n", b"*1", b"", b"%9999999999999999999\r\n", b"*x\r\n"] {
            assert_eq!(array_items(reply), None, "{reply:?}");
        }
    }

    #[test]
    fn values() {
        assert_eq!(integer_reply(b":-42\r\n"), Some(-42));
        assert_eq!(integer_reply(b":4x\r\n"), None);
        assert_eq!(integer_reply(b"$1\r\n4\r\n"), None);
        assert_eq!(bulk_reply(b"$4\r\na\r\nb\r\n"), Some(&b"a\r\nb"[..]));
        assert_eq!(bulk_reply(b"+OK\r\n"), Some(&b"OK"[..]));
        assert_eq!(bulk_reply(b"=6\r\ntxt:ab\r\n"), Some(&b"ab"[..]));
        for reply in [&b"$-1\r\n"[..], b"*0\r\n", b"=1\r\nx\r\n", b"$", b"="] {
            assert_eq!(bulk_reply(reply), None, "{reply:?}");
        }
        assert!(is_null(b"$-1\r\n") && is_null(b"*-1\r\n") && is_null(b"_\r\n") && !is_null(b"$0\r\n\r\n"));
        assert!(is_error(b"-ERR\r\n") && is_error(b"!1\r\nE\r\n") && !is_error(b"+OK\r\n"));
    }

    #[test]
    fn items_as_they_stand() {
        let reply = b"*4\r\n:1\r\n*2\r\n$1\r\na\r\n_\r\n|1\r\n+a\r\n+b\r\n+c\r\n$-1\r\n";
        let items: Vec<_> = Items::new(reply).into_iter().flatten().collect();
        let expected: [&[u8]; 4] =
            [b":1\r\n", b"*2\r\n$1\r\na\r\n_\r\n", b"|1\r\n+a\r\n+b\r\n+c\r\n", b"$-1\r\n"];
        assert_eq!(items, expected);
        assert_eq!(Items::new(b"%1\r\n+k\r\n+v\r\n").into_iter().flatten().count(), 2);
        assert_eq!(
            Items::new(b"*3\r\n:1\r\n:2").into_iter().flatten().count(),
            1,
            "an incomplete one ends them"
        );
        assert!(Items::new(b"*-1\r\n").is_none());
    }
}
