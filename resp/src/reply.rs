//! Finds where a server's replies end, RESP2 and RESP3, however the input is cut.
//!
//! Only framing is read: what a line says, other than a length, is left to whoever wants to know.

use memchr::memchr;
use thiserror::Error;

/// Digits of the longest length that can be meant, 2^63-1, and a sign.
const LENGTH_DIGITS: usize = 20;

/// A server that does not speak RESP; the connection is beyond repair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ReplyError {
    /// No reply begins with this byte.
    #[error("reply of unknown type 0x{0:02x}")]
    UnknownType(u8),
    /// A length is no integer, is negative where that has no meaning, or is streamed (`$?`), which Redis
    /// never does.
    #[error("reply with an invalid length")]
    InvalidLength,
    /// A length or count that this machine cannot hold.
    #[error("reply too long")]
    TooLong,
    /// A body is not followed by CRLF.
    #[error("reply whose body does not end where it should")]
    MissingLineEnd,
}

/// What the bytes at the scanner's position are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
enum State {
    /// The first byte of a reply or element.
    #[default]
    Item,
    /// The inside of a line.
    Line,
    /// The CRLF after a body.
    Tail,
}

/// Scans a server's replies one after the other; a few words, and no stack for nested replies.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReplyScanner {
    /// Where the scan stands; beyond the buffer while a body is awaited.
    pos: usize,
    /// Bytes in the buffer at the last scan.
    seen: usize,
    /// Elements to come after the current one, over all levels.
    pending: u64,
    state: State,
    begun: bool,
}

impl ReplyScanner {
    /// Scans on in `buf`, which begins with the reply's first byte (but for what [`rebase`](Self::rebase)
    /// took) and holds at least what it held at the call before.
    ///
    /// `Some(end)`: the reply is `buf[..end]`, and the next call begins a new one. `None`: more is needed.
    /// Attributes (`|`) belong to the reply that follows them.
    ///
    /// # Errors
    /// The bytes are no RESP, or announce more than 2^64 elements or bytes. The scanner is of no use
    /// afterwards, other than to be [`reset`](Self::reset).
    #[inline]
    pub fn scan(&mut self, buf: &[u8]) -> Result<Option<usize>, ReplyError> {
        self.seen = buf.len();
        self.begun |= !buf.is_empty();
        while self.item(buf)? {
            if self.pending == 0 {
                let end = self.pos;
                self.reset();
                return Ok(Some(end));
            }
            self.pending -= 1;
        }
        Ok(None)
    }

    /// Bytes of `buf`, as it was at the last scan, that are known to belong to the current reply.
    pub fn position(&self) -> usize {
        self.pos.min(self.seen)
    }

    /// The caller has drained the first `n` bytes, at most [`position`](Self::position): the next scan gets
    /// the buffer without them, and its offsets count from there.
    pub fn rebase(&mut self, n: usize) {
        debug_assert!(n <= self.position(), "drained bytes that were not scanned");
        self.pos = self.pos.saturating_sub(n);
        self.seen = self.seen.saturating_sub(n);
    }

    /// Whether a reply has begun and not ended.
    #[inline]
    pub fn is_mid_reply(&self) -> bool {
        self.begun
    }

    /// Forgets the current reply; the next `buf` begins with a new one.
    #[inline]
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// Goes behind the next item that has no further elements; false if it is incomplete.
    #[inline]
    fn item(&mut self, buf: &[u8]) -> Result<bool, ReplyError> {
        loop {
            match self.state {
                State::Item => {
                    let Some(&kind) = buf.get(self.pos) else { return Ok(false) };
                    match kind {
                        b'$' | b'=' | b'!' => match length(buf, self.pos)? {
                            None => return Ok(false),
                            Some((Some(len), body)) => {
                                let len = usize::try_from(len).map_err(|_| ReplyError::TooLong)?;
                                self.pos = body.checked_add(len).ok_or(ReplyError::TooLong)?;
                                self.state = State::Tail;
                            }
                            Some((None, end)) if kind == b'$' => {
                                self.pos = end;
                                return Ok(true);
                            }
                            Some((None, _)) => return Err(ReplyError::InvalidLength),
                        },
                        b'+' | b'-' | b':' | b'_' | b',' | b'#' | b'(' => {
                            self.pos += 1;
                            self.state = State::Line;
                        }
                        b'*' | b'~' | b'>' | b'%' | b'|' => match length(buf, self.pos)? {
                            None => return Ok(false),
                            Some((count, end)) => {
                                self.pos = end;
                                if self.elements(kind, count)? {
                                    return Ok(true);
                                }
                            }
                        },
                        other => return Err(ReplyError::UnknownType(other)),
                    }
                }
                State::Line => {
                    let rest = buf.get(self.pos..).unwrap_or_default();
                    let Some(cr) = memchr(b'\r', rest) else {
                        self.pos += rest.len();
                        return Ok(false);
                    };
                    // A CR at the end stays unread until it is known what follows.
                    self.pos += cr;
                    match rest.get(cr + 1) {
                        None => return Ok(false),
                        Some(b'\n') => {
                            self.pos += 2;
                            self.state = State::Item;
                            return Ok(true);
                        }
                        Some(_) => self.pos += 1,
                    }
                }
                State::Tail => {
                    return match buf.get(self.pos..).unwrap_or_default() {
                        [b'\r', b'\n', ..] => {
                            self.pos += 2;
                            self.state = State::Item;
                            Ok(true)
                        }
                        [] | [b'\r'] => Ok(false),
                        _ => Err(ReplyError::MissingLineEnd),
                    };
                }
            }
        }
    }

    /// Awaits the elements of an aggregate in its stead; true if there are none.
    fn elements(&mut self, kind: u8, count: Option<u64>) -> Result<bool, ReplyError> {
        let count = match count {
            Some(count) => count,
            None if kind == b'*' => return Ok(true),
            None => return Err(ReplyError::InvalidLength),
        };
        let count = if matches!(kind, b'%' | b'|') { count.checked_mul(2) } else { Some(count) };
        let total = count.and_then(|count| self.pending.checked_add(count)).ok_or(ReplyError::TooLong)?;
        if kind == b'|' {
            // The reply to which the attribute belongs takes its place.
            self.pending = total;
            Ok(false)
        } else if total == self.pending {
            Ok(true)
        } else {
            self.pending = total - 1;
            Ok(false)
        }
    }
}

/// A length line: the length, `None` for -1, and where the line ends. `None` while it is incomplete.
type Length = Option<(Option<u64>, usize)>;

/// Reads the length line whose type is at `at`.
#[inline]
pub(crate) fn length(buf: &[u8], at: usize) -> Result<Length, ReplyError> {
    // One or two digits, which is nearly all of them, without a loop.
    match *buf.get(at + 1..).unwrap_or_default() {
        [a @ b'0'..=b'9', b'\r', b'\n', ..] => Ok(Some((Some(u64::from(a - b'0')), at + 4))),
        [a @ b'0'..=b'9', b @ b'0'..=b'9', b'\r', b'\n', ..] => {
            Ok(Some((Some(u64::from(a - b'0') * 10 + u64::from(b - b'0')), at + 5)))
        }
        _ => any_length(buf, at),
    }
}

fn any_length(buf: &[u8], at: usize) -> Result<Length, ReplyError> {
    let text = buf.get(at + 1..).unwrap_or_default();
    let mut number = 0_u64;
    for (i, &byte) in text.iter().take(LENGTH_DIGITS).enumerate() {
        let digit = byte.wrapping_sub(b'0');
        if digit < 10 {
            // 19 digits fit; the 20th is not added, as only CR may be there.
            if i + 1 == LENGTH_DIGITS {
                return Err(ReplyError::InvalidLength);
            }
            number = number * 10 + u64::from(digit);
        } else if byte == b'\r' && i > 0 {
            return match text.get(i + 1) {
                None => Ok(None),
                Some(b'\n') => Ok(Some((Some(number), at + i + 3))),
                Some(_) => Err(ReplyError::InvalidLength),
            };
        } else if byte == b'-' && i == 0 {
            let null = b"-1\r\n";
            let shown = &text[..text.len().min(null.len())];
            return match null.strip_prefix(shown) {
                Some([]) => Ok(Some((None, at + 1 + null.len()))),
                Some(_) => Ok(None),
                None => Err(ReplyError::InvalidLength),
            };
        } else {
            return Err(ReplyError::InvalidLength);
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests;
