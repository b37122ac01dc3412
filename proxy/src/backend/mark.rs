//! The mark on a connection: an ECHO of a number, which comes back behind every reply to what was sent before it.

use portico_resp::encode;

/// What precedes the number's bulk string in a mark's request.
const BEFORE: usize = "*2\r\n$4\r\nECHO\r\n".len();

/// The request.
pub(super) fn request(number: u64) -> Vec<u8> {
    let mut out = Vec::new();
    encode::command(&mut out, &[b"ECHO", number.to_string().as_bytes()]);
    out
}

/// Whether `reply` is the reply to the mark `request`.
pub(super) fn is_reply(request: &[u8], reply: &[u8]) -> bool {
    request.get(BEFORE..) == Some(reply)
}
