//! What must hold of any bytes at all: no panic, and the same result however they are cut.
//!
//! Called by the fuzz targets and by the property tests.

use crate::{Limits, ReplyError, ReplyScanner, RequestScanner, RequestStream, Scan};

/// Bounds near which small inputs come: every limit can be met.
const SMALL: Limits = Limits {
    max_bulk_len: 40,
    max_multibulk_len: 12,
    max_inline_len: 30,
    large_bulk: 8,
    authenticated: true,
};

/// Scans `data` as a client's requests: whole, and cut in ways that its bytes choose.
///
/// # Panics
/// If the cut shows in the result.
pub fn request(data: &[u8]) {
    for limits in [SMALL, Limits { authenticated: false, ..SMALL }, Limits::default()] {
        for large in [Large::Hold, Large::Stream] {
            let whole = requests(data, &mut |len| len, &limits, large);
            for seed in 0..3 {
                let cut = requests(data, &mut pieces(data, seed), &limits, large);
                assert_eq!(cut, whole, "seed {seed}, {large:?}, {limits:?}");
            }
        }
        // Held or streamed, a pipeline is cut into the same requests.
        let ends = |large| requests(data, &mut |len| len, &limits, large).into_iter().map(|seen| seen.end);
        assert!(ends(Large::Hold).eq(ends(Large::Stream)), "{limits:?}");
    }
}

/// Scans `data` as a server's replies: whole, cut, and cut with what was scanned drained.
///
/// # Panics
/// If the cut or the draining shows in the result.
pub fn reply(data: &[u8]) {
    let whole = replies(data, &mut |len| len, false);
    for seed in 0..3 {
        for drain in [false, true] {
            assert_eq!(replies(data, &mut pieces(data, seed), drain), whole, "seed {seed}, drain {drain}");
        }
    }
    if let Some(&Ok(end)) = whole.first() {
        let items = crate::Items::new(&data[..end]).map(Iterator::count);
        let count = crate::array_items(&data[..end]).map(|(count, _)| count as usize);
        assert_eq!(items, count, "elements of a complete reply");
        let _ = (crate::ErrorCode::parse(&data[..end]), crate::ErrorCode::is_server_form(&data[..end]));
        let _ = (crate::bulk_reply(&data[..end]), crate::integer_reply(&data[..end]));
    }
}

/// What to do with a large argument.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Large {
    Hold,
    Stream,
}

/// One request, as seen.
#[derive(Debug, PartialEq)]
struct Seen {
    /// Where it ended in the whole input, or why it did not.
    end: Result<usize, String>,
    args: Vec<Vec<u8>>,
    larges: Vec<(usize, u64)>,
}

/// Sizes of the pieces in which to deliver the input: single bytes, or what the input's own bytes say.
fn pieces(data: &[u8], seed: usize) -> impl FnMut(usize) -> usize {
    let mut at = seed;
    move |_| {
        at = at.wrapping_mul(31).wrapping_add(7);
        match seed {
            0 => 1,
            _ => 1 + data.get(at % data.len().max(1)).map_or(0, |&byte| usize::from(byte % 16)),
        }
    }
}

/// The requests in `data`, as far as they are complete, delivered in pieces.
fn requests(data: &[u8], next: &mut dyn FnMut(usize) -> usize, limits: &Limits, large: Large) -> Vec<Seen> {
    let (mut scanner, mut seen) = (RequestScanner::new(), Vec::new());
    let (mut start, mut arrived) = (0, 0);
    let mut stream: Option<(RequestStream, usize)> = None;
    let mut larges = Vec::new();
    loop {
        let buf = &data[start..arrived];
        let result = match &mut stream {
            Some((stream, from)) => stream.feed(&data[*from..arrived], limits).map(|step| {
                assert!(step.done || step.used == arrived - *from, "a stream takes all until it is done");
                *from += step.used;
                if step.done { Scan::Complete { len: *from - start } } else { Scan::Incomplete }
            }),
            None => scanner.scan(buf, limits),
        };
        let mut note = |end, args| seen.push(Seen { end, args, larges: std::mem::take(&mut larges) });
        match result {
            Ok(Scan::Incomplete) => {
                if arrived == data.len() {
                    return seen;
                }
                let piece = next(data.len() - arrived).max(1);
                arrived = data.len().min(arrived + piece);
            }
            Ok(Scan::Large { header_len, bulk_len }) => {
                assert!(bulk_len > limits.large_bulk && header_len <= buf.len(), "a large one is large");
                assert!(scanner.args().len() < scanner.declared() && scanner.is_mid_request());
                larges.push((header_len, bulk_len));
                match large {
                    Large::Hold => scanner.accept_large(),
                    Large::Stream => stream = Some((scanner.take_stream(), start + header_len)),
                }
            }
            Ok(Scan::Complete { len }) => {
                let args = scanner.args().iter().map(|arg| {
                    let framed = arg.framed(buf);
                    assert_eq!(framed[0], b'$', "a framed argument begins with its type");
                    assert_eq!(&framed[framed.len() - 2 - arg.len as usize..framed.len() - 2], arg.of(buf));
                    arg.of(buf).to_vec()
                });
                note(Ok(start + len), args.collect());
                assert!(len > 0 && !scanner.is_mid_request(), "requests have bytes and an end");
                start += len;
                stream = None;
            }
            Ok(Scan::Inline { len }) => {
                note(Ok(start + len), scanner.inline_args().to_vec());
                start += len;
            }
            Err(error) => {
                note(Err(error.to_string()), Vec::new());
                return seen;
            }
        }
    }
}

/// Where the replies in `data` end, as far as they are complete, delivered in pieces.
fn replies(data: &[u8], next: &mut dyn FnMut(usize) -> usize, drain: bool) -> Vec<Result<usize, ReplyError>> {
    let (mut scanner, mut ends) = (ReplyScanner::default(), Vec::new());
    let (mut start, mut arrived) = (0, 0);
    loop {
        match scanner.scan(&data[start..arrived]) {
            Ok(Some(end)) => {
                assert!(!scanner.is_mid_reply() && scanner.position() == 0, "reset for the next");
                start += end;
                ends.push(Ok(start));
            }
            Ok(None) => {
                assert!(scanner.position() <= arrived - start, "nothing is known of bytes not seen");
                if drain {
                    let known = scanner.position();
                    scanner.rebase(known);
                    start += known;
                }
                if arrived == data.len() {
                    return ends;
                }
                let piece = next(data.len() - arrived).max(1);
                arrived = data.len().min(arrived + piece);
            }
            Err(error) => {
                ends.push(Err(error));
                return ends;
            }
        }
    }
}
