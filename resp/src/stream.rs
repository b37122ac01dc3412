//! The rest of a request that is passed through rather than held.

use crate::limits::Limits;
use crate::number::short_header;
use crate::protocol_error::ProtocolError;
use crate::request::bulk_length;

/// Bytes of a length line that are kept while it is cut; a longer line is wrong whatever follows.
const KEPT_LINE: usize = 24;

/// Follows a request from within, by its framing alone. See
/// [`RequestScanner::take_stream`](crate::RequestScanner::take_stream).
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestStream {
    /// Bytes of the current body and its line end that are yet to come.
    body: u64,
    /// Arguments after the current one.
    after: usize,
    line: Line,
}

/// How far a chunk belongs to the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamStep {
    /// Bytes of the chunk that are the request's; all of them unless `done`.
    pub used: usize,
    /// Whether the request ends there.
    pub done: bool,
}

impl RequestStream {
    /// A stream within a body of `len` bytes, with `after` arguments to follow it.
    pub(crate) fn new(len: u64, after: usize) -> Self {
        Self { body: len.saturating_add(2), after, line: Line::default() }
    }

    /// Whether the request has ended.
    pub fn is_done(&self) -> bool {
        self.body == 0 && self.after == 0
    }

    /// Follows the request into the bytes that come next.
    ///
    /// # Errors
    /// As [`RequestScanner::scan`](crate::RequestScanner::scan) for the arguments that follow, except that a
    /// stream has no greatest length; it is of no use afterwards.
    pub fn feed(&mut self, chunk: &[u8], limits: &Limits) -> Result<StreamStep, ProtocolError> {
        let mut used = 0;
        loop {
            let skip = self.body.min((chunk.len() - used) as u64);
            self.body -= skip;
            used += skip as usize;
            if self.is_done() {
                return Ok(StreamStep { used, done: true });
            }
            if used == chunk.len() {
                return Ok(StreamStep { used, done: false });
            }
            let len = match short_header(chunk, used, b'$').filter(|_| self.line.len == 0) {
                Some((len, next)) => {
                    used = next;
                    len
                }
                None => {
                    let (read, len) = self.line.read(&chunk[used..], limits)?;
                    used += read;
                    match len {
                        Some(len) => len,
                        None => return Ok(StreamStep { used, done: false }),
                    }
                }
            };
            limits.check_bulk(len)?;
            self.body = len.saturating_add(2);
            self.after -= 1;
        }
    }
}

/// A length line that comes in pieces.
#[derive(Clone, Copy, Debug, Default)]
struct Line {
    bytes: [u8; KEPT_LINE],
    len: usize,
    /// CR was the last byte, and the one that follows it ends the line.
    ending: bool,
    /// A NUL hides the rest of the line from Redis, up to the limit.
    hidden: bool,
}

impl Line {
    /// Reads on; returns the bytes read and, if the line ended, the length it announces.
    fn read(&mut self, chunk: &[u8], limits: &Limits) -> Result<(usize, Option<u64>), ProtocolError> {
        for (i, &byte) in chunk.iter().enumerate() {
            if self.ending {
                let len = bulk_length(&self.bytes[..self.len.min(KEPT_LINE)])?;
                *self = Self::default();
                return Ok((i + 1, Some(len)));
            }
            if let Some(kept) = self.bytes.get_mut(self.len) {
                *kept = byte;
            }
            self.len += 1;
            self.ending = byte == b'\r' && !self.hidden;
            self.hidden |= byte == 0;
            if self.len > limits.max_inline_len && !self.ending {
                return Err(ProtocolError::TooBigBulkCount);
            }
        }
        Ok((chunk.len(), None))
    }
}
