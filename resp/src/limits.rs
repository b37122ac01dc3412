//! What a client may ask for: the sizes that bound one request.

use crate::ProtocolError;

/// Elements that a client may announce before it has authenticated (`processMultibulkBuffer`).
const UNAUTHENTICATED_ELEMENTS: i64 = 10;
/// Bytes of one argument before the client has authenticated (`processMultibulkBuffer`).
const UNAUTHENTICATED_BULK: u64 = 16_384;

/// The bounds of one request. The defaults are those of Redis 7.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of one argument, at most: Redis' `proto-max-bulk-len` (512 MiB).
    pub max_bulk_len: u64,
    /// Elements of one request, at most (1 048 576).
    pub max_multibulk_len: u32,
    /// Bytes that may come before the end of an inline request or of a length line: Redis'
    /// `PROTO_INLINE_MAX_SIZE` (64 KiB).
    pub max_inline_len: usize,
    /// Bytes above which an argument is reported as [`Scan::Large`](crate::Scan::Large) (1 MiB).
    pub large_bulk: u64,
    /// Whether the client has authenticated, or need not. Otherwise a request has at most 10 elements of at
    /// most 16 384 bytes, as in Redis before AUTH.
    pub authenticated: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_bulk_len: 512 << 20,
            max_multibulk_len: 1 << 20,
            max_inline_len: 64 << 10,
            large_bulk: 1 << 20,
            authenticated: true,
        }
    }
}

impl Limits {
    /// The largest argument that needs no second thought: neither refused nor large.
    #[inline]
    pub(crate) fn ordinary_bulk(&self) -> u64 {
        let bulk = self.max_bulk_len.min(self.large_bulk);
        if self.authenticated { bulk } else { bulk.min(UNAUTHENTICATED_BULK) }
    }

    /// Judges an announced argument length, in the order in which Redis does.
    pub(crate) fn check_bulk(&self, len: u64) -> Result<(), ProtocolError> {
        if len > self.max_bulk_len {
            Err(ProtocolError::InvalidBulkLength)
        } else if !self.authenticated && len > UNAUTHENTICATED_BULK {
            Err(ProtocolError::UnauthenticatedBulk)
        } else {
            Ok(())
        }
    }

    /// Judges an announced element count; nothing to do (`*0`, `*-1`) is 0.
    pub(crate) fn check_multibulk(&self, count: i64) -> Result<u32, ProtocolError> {
        // Redis' own limit, from 7.0 on, comes before the question who asks; ours, the limit before 7.0, after it.
        if count > i64::from(i32::MAX) {
            Err(ProtocolError::InvalidMultibulkLength)
        } else if !self.authenticated && count > UNAUTHENTICATED_ELEMENTS {
            Err(ProtocolError::UnauthenticatedMultibulk)
        } else if count > i64::from(self.max_multibulk_len) {
            Err(ProtocolError::InvalidMultibulkLength)
        } else {
            Ok(u32::try_from(count).unwrap_or(0))
        }
    }
}
