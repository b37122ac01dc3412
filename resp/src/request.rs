//! Finds where a client's requests end and their arguments lie, however the input is cut.
//!
//! The rules are those of Redis 7's `processMultibulkBuffer` and `processInlineBuffer` (`networking.c`), with
//! their indifference: the byte after a header's CR and the two after a body are skipped unseen, and a NUL
//! hides the rest of its line (`strchr`).

use memchr::memchr2;

use crate::inline::InlineArgs;
use crate::limits::Limits;
use crate::number::{short_header, string2ll};
use crate::protocol_error::ProtocolError;
use crate::stream::RequestStream;

/// Arguments whose memory is kept from one request to the next (32 KiB).
const KEPT_ARGS: usize = 4096;

/// Where an argument's body lies, in bytes from the request's first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Arg {
    /// Offset of the body's first byte.
    pub start: u32,
    /// Bytes of the body.
    pub len: u32,
}

impl Arg {
    /// The argument's body; `request` is what was scanned, else this may panic.
    #[inline]
    pub fn of<'a>(&self, request: &'a [u8]) -> &'a [u8] {
        let start = self.start as usize;
        &request[start..start + self.len as usize]
    }

    /// The argument as it stands in the request, from `$` to the two bytes after its body.
    ///
    /// A length has one spelling only (`string2ll`), so the header's size follows from it.
    #[inline]
    pub fn framed<'a>(&self, request: &'a [u8]) -> &'a [u8] {
        let header = "$0\r\n".len() + self.len.checked_ilog10().unwrap_or(0) as usize;
        let start = self.start as usize;
        &request[start - header..start + self.len as usize + 2]
    }
}

/// What a scan found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scan {
    /// A request of `len` bytes with [`RequestScanner::args`]; without any there is nothing to do (`*0`).
    Complete {
        /// Bytes of the request.
        len: usize,
    },
    /// An inline command of `len` bytes with [`RequestScanner::inline_args`]; without any there is nothing to
    /// do (a blank line).
    Inline {
        /// Bytes of the command with its line end.
        len: usize,
    },
    /// More bytes are needed.
    Incomplete,
    /// The next argument, whose index is `args().len()`, is longer than [`Limits::large_bulk`].
    ///
    /// Reported as soon as its header is complete, whether or not the body is there, and again until
    /// [`RequestScanner::accept_large`] or [`RequestScanner::take_stream`].
    Large {
        /// Where the header ends and the body begins, in bytes from the request's first byte.
        header_len: usize,
        /// Bytes of the body.
        bulk_len: u64,
    },
}

/// What the bytes at the scanner's position are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
enum State {
    /// The first byte of a request.
    #[default]
    Start,
    /// An inline command's line.
    Inline,
    /// The line with the element count.
    Count,
    /// The line with an argument's length.
    Header,
    /// An argument's body of so many bytes.
    Body(u64),
    /// The same, and the caller has yet to say what to do with it.
    Large(u64),
}

/// Scans a client's requests one after the other; its memory is used again.
#[derive(Debug, Default)]
pub struct RequestScanner {
    state: State,
    /// Where the current line or body begins.
    pos: usize,
    /// The current line does not end before this offset; below the position if it was not searched yet.
    searched: usize,
    declared: u32,
    args: Vec<Arg>,
    inline: InlineArgs,
}

impl RequestScanner {
    /// A scanner at the beginning of a request.
    pub fn new() -> Self {
        Self::default()
    }

    /// Scans on in `buf`, which begins with the request's first byte and holds at least what it held at the
    /// call before.
    ///
    /// After `Complete` and `Inline` the next call begins a new request, which `buf` then begins with.
    ///
    /// # Errors
    /// The first breach of the protocol that Redis would report, as soon as it would; the same again if
    /// called again. A request above 4 GiB, where Redis drops the connection, is an invalid bulk length.
    #[inline]
    pub fn scan(&mut self, buf: &[u8], limits: &Limits) -> Result<Scan, ProtocolError> {
        if self.state == State::Start {
            let Some(&first) = buf.first() else { return Ok(Scan::Incomplete) };
            self.begin();
            self.state = if first == b'*' { State::Count } else { State::Inline };
        }
        match self.state {
            State::Inline => self.scan_inline(buf, limits),
            _ => self.scan_multibulk(buf, limits),
        }
    }

    /// The arguments found so far; those of a complete request until the next is scanned.
    #[inline]
    pub fn args(&self) -> &[Arg] {
        &self.args
    }

    /// The decoded arguments of the inline command just scanned.
    #[inline]
    pub fn inline_args(&self) -> &[Vec<u8>] {
        self.inline.as_slice()
    }

    /// The element count that the request announced; 0 for `*-1`, and before the count is known.
    #[inline]
    pub fn declared(&self) -> usize {
        self.declared as usize
    }

    /// After [`Scan::Large`]: treat the argument as any other, that is, wait until its body is in `buf`.
    pub fn accept_large(&mut self) {
        if let State::Large(len) = self.state {
            self.state = State::Body(len);
        }
    }

    /// After [`Scan::Large`]: pass the rest of the request through without holding it.
    ///
    /// The stream begins with the large argument's body: feed it the bytes from `header_len` on. The scanner
    /// is at the beginning of the next request, and its `args()` remain until that is scanned. In any other
    /// state the stream is done from the outset, and nothing changes.
    pub fn take_stream(&mut self) -> RequestStream {
        let State::Large(len) = self.state else { return RequestStream::default() };
        let after = self.declared() - self.args.len() - 1;
        self.state = State::Start;
        RequestStream::new(len, after)
    }

    /// Whether a request has begun and not ended.
    #[inline]
    pub fn is_mid_request(&self) -> bool {
        self.state != State::Start
    }

    /// Whether an inline command has begun and not ended.
    pub fn is_mid_inline(&self) -> bool {
        self.state == State::Inline
    }

    /// Forgets the current request; the next `buf` begins with a new one.
    pub fn reset(&mut self) {
        self.begin();
        self.state = State::Start;
    }

    /// Clears what the last request left.
    #[inline]
    fn begin(&mut self) {
        self.pos = 0;
        self.searched = 0;
        self.declared = 0;
        self.args.clear();
        if self.args.capacity() > KEPT_ARGS {
            self.args.shrink_to(KEPT_ARGS);
        }
        self.inline.clear();
    }

    fn scan_multibulk(&mut self, buf: &[u8], limits: &Limits) -> Result<Scan, ProtocolError> {
        match self.state {
            State::Count => {
                let Some(declared) = self.count(buf, limits)? else { return Ok(Scan::Incomplete) };
                self.declared = declared;
                self.state = State::Header;
            }
            State::Body(len) => {
                if !self.body(buf, len)? {
                    return Ok(Scan::Incomplete);
                }
                self.state = State::Header;
            }
            State::Large(bulk_len) => return Ok(Scan::Large { header_len: self.pos, bulk_len }),
            State::Start | State::Inline | State::Header => {}
        }
        let ordinary = limits.ordinary_bulk();
        while self.args.len() < self.declared as usize {
            let (len, body) = match short_header(buf, self.pos, b'$') {
                Some(header) => header,
                None => match self.unusual_header(buf, limits)? {
                    Some(header) => header,
                    None => return Ok(Scan::Incomplete),
                },
            };
            if len > ordinary {
                limits.check_bulk(len)?;
            }
            self.pos = body;
            if len > limits.large_bulk {
                self.state = State::Large(len);
                return Ok(Scan::Large { header_len: body, bulk_len: len });
            }
            if !self.body(buf, len)? {
                self.state = State::Body(len);
                return Ok(Scan::Incomplete);
            }
        }
        self.state = State::Start;
        Ok(Scan::Complete { len: self.pos })
    }

    /// Notes the argument whose body is at the position, if all of it is in `buf`, and goes behind it.
    #[inline(always)]
    fn body(&mut self, buf: &[u8], len: u64) -> Result<bool, ProtocolError> {
        // No overflow: the position is in `buf`, and `len` has passed through an i64.
        let end = self.pos as u64 + len + 2;
        if end > u64::from(u32::MAX) {
            return Err(ProtocolError::InvalidBulkLength);
        }
        if end > buf.len() as u64 {
            return Ok(false);
        }
        self.args.push(Arg { start: self.pos as u32, len: len as u32 });
        self.pos = end as usize;
        Ok(true)
    }

    /// The element count, if its line is complete, and the position behind it.
    #[inline]
    fn count(&mut self, buf: &[u8], limits: &Limits) -> Result<Option<u32>, ProtocolError> {
        let (count, end) = match short_header(buf, 0, b'*') {
            Some((count, end)) => (count as i64, end),
            None => {
                let line = self.find(b'\r', buf, limits, ProtocolError::TooBigMultibulkCount)?;
                let Some(cr) = line.filter(|cr| cr + 1 < buf.len()) else { return Ok(None) };
                (string2ll(&buf[1..cr]).ok_or(ProtocolError::InvalidMultibulkLength)?, cr + 2)
            }
        };
        let declared = limits.check_multibulk(count)?;
        self.pos = end;
        Ok(Some(declared))
    }

    /// An argument's length and where its body begins, for a line that is cut, wrong or unusual.
    #[cold]
    fn unusual_header(&mut self, buf: &[u8], limits: &Limits) -> Result<Option<(u64, usize)>, ProtocolError> {
        let line = self.find(b'\r', buf, limits, ProtocolError::TooBigBulkCount)?;
        let Some(cr) = line.filter(|cr| cr + 1 < buf.len()) else { return Ok(None) };
        bulk_length(&buf[self.pos..=cr]).map(|len| Some((len, cr + 2)))
    }

    fn scan_inline(&mut self, buf: &[u8], limits: &Limits) -> Result<Scan, ProtocolError> {
        let Some(newline) = self.find(b'\n', buf, limits, ProtocolError::TooBigInline)? else {
            return Ok(Scan::Incomplete);
        };
        let line = &buf[..newline];
        self.inline.split(line.strip_suffix(b"\r").unwrap_or(line))?;
        self.state = State::Start;
        Ok(Scan::Inline { len: newline + 1 })
    }

    /// Where the line at the position ends, if it does; `too_big` if it does not within the limit.
    fn find(
        &mut self,
        end: u8,
        buf: &[u8],
        limits: &Limits,
        too_big: ProtocolError,
    ) -> Result<Option<usize>, ProtocolError> {
        // Redis judges what has arrived; the line that ends just at its limit is the longest that always fits.
        let bound = self.pos.saturating_add(limits.max_inline_len);
        let window = buf.len().min(bound.saturating_add(1));
        self.searched = self.searched.max(self.pos);
        match memchr2(end, 0, buf.get(self.searched..window).unwrap_or_default()) {
            Some(i) => {
                self.searched += i;
                if buf[self.searched] == end {
                    return Ok(Some(self.searched));
                }
            }
            None => self.searched = self.searched.max(window),
        }
        if buf.len() > bound { Err(too_big) } else { Ok(None) }
    }
}

/// The length that an argument's header announces; `line` is it with its CR.
pub(crate) fn bulk_length(line: &[u8]) -> Result<u64, ProtocolError> {
    match line {
        [b'$', number @ .., _] => {
            string2ll(number).and_then(|len| u64::try_from(len).ok()).ok_or(ProtocolError::InvalidBulkLength)
        }
        [other, ..] => Err(ProtocolError::ExpectedDollar(*other)),
        [] => Err(ProtocolError::InvalidBulkLength),
    }
}

#[cfg(test)]
mod tests;
