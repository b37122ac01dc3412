//! Whole requests back to back, as Portico itself queues them: where each ends.

use std::ops::Range;

use crate::limits::Limits;
use crate::request::{RequestScanner, Scan};

/// Where each request in `bytes` lies. `bytes` holds whole requests (no inline commands) and nothing else; what
/// comes after something that is none is left out.
#[must_use]
pub fn request_ranges(bytes: &[u8]) -> Vec<Range<usize>> {
    let limits =
        Limits { max_bulk_len: u64::MAX, large_bulk: u64::MAX, authenticated: true, ..Limits::default() };
    let mut scanner = RequestScanner::new();
    let (mut ranges, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        match scanner.scan(&bytes[at..], &limits) {
            Ok(Scan::Complete { len }) => ranges.push(at..at + len),
            _ => break,
        }
        at = ranges.last().map_or(bytes.len(), |range| range.end);
    }
    ranges
}

/// How many requests `bytes` holds.
#[must_use]
pub fn count_requests(bytes: &[u8]) -> u32 {
    request_ranges(bytes).len() as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode;

    #[test]
    fn every_request_is_found_also_after_a_large_one() {
        let mut bytes = Vec::new();
        let large = vec![b'x'; 3 << 20];
        let requests: [&[&[u8]]; 3] = [&[b"MULTI"], &[b"SET", b"k", &large], &[b"EXEC"]];
        requests.iter().for_each(|words| encode::command(&mut bytes, words));
        let ranges = request_ranges(&bytes);
        assert_eq!(ranges.len(), 3);
        assert_eq!(bytes[ranges[0].clone()], *b"*1\r\n$5\r\nMULTI\r\n");
        assert_eq!((ranges[1].start, ranges[2].end), (ranges[0].end, bytes.len()));
        assert_eq!(count_requests(&bytes), 3);
    }
}
