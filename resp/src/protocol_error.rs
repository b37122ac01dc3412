//! Why a request cannot be understood, in Redis' own words.

use thiserror::Error;

/// A request that breaks the protocol; the connection is beyond repair.
///
/// `Display` is the text that Redis 7.0 (`networking.c`) sends after `-ERR `.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ProtocolError {
    /// The element count is no integer, or above `max_multibulk_len`.
    #[error("Protocol error: invalid multibulk length")]
    InvalidMultibulkLength,
    /// An argument's length is no integer, negative, above `max_bulk_len`, or brings the request above 4 GiB.
    #[error("Protocol error: invalid bulk length")]
    InvalidBulkLength,
    /// An argument began with this byte. Redis echoes it, CR and LF as a space; `Display` shows a byte above
    /// 127 as the Latin-1 character it may be.
    #[error("Protocol error: expected '$', got '{}'", printable(*.0))]
    ExpectedDollar(u8),
    /// More than 10 elements before AUTH.
    #[error("Protocol error: unauthenticated multibulk length")]
    UnauthenticatedMultibulk,
    /// An argument of more than 16 384 bytes before AUTH.
    #[error("Protocol error: unauthenticated bulk length")]
    UnauthenticatedBulk,
    /// No newline within `max_inline_len` bytes.
    #[error("Protocol error: too big inline request")]
    TooBigInline,
    /// No CR within `max_inline_len` bytes of the element count.
    #[error("Protocol error: too big mbulk count string")]
    TooBigMultibulkCount,
    /// No CR within `max_inline_len` bytes of an argument's length.
    #[error("Protocol error: too big bulk count string")]
    TooBigBulkCount,
    /// An inline request whose quotes do not pair.
    #[error("Protocol error: unbalanced quotes in request")]
    UnbalancedQuotes,
}

/// The byte as `addReplyErrorFormat` lets it through.
fn printable(byte: u8) -> char {
    if matches!(byte, b'\r' | b'\n') { ' ' } else { char::from(byte) }
}
