//! The wire: finds where RESP requests and replies begin and end, and writes both.
//!
//! Nothing here does I/O, reads a clock or allocates per message: the scanners look at bytes that the
//! caller holds, and remember how far they came, so that a byte is looked at once however the input is cut
//! (a length line, of at most 23 bytes, is read again when it was cut in two).

pub mod encode;
mod error_code;
#[doc(hidden)]
pub mod fuzz;
mod inline;
mod limits;
mod number;
mod parse;
mod protocol_error;
mod reply;
mod request;
mod several;
mod stream;

pub use encode::Protocol;
pub use error_code::ErrorCode;
pub use limits::Limits;
pub use parse::{Items, array_items, bulk_reply, integer_reply, is_error, is_null, replies};
pub use protocol_error::ProtocolError;
pub use reply::{ReplyError, ReplyScanner};
pub use request::{Arg, RequestScanner, Scan};
pub use several::{count_requests, request_ranges};
pub use stream::{RequestStream, StreamStep};
