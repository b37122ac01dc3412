//! Splitting a request with independent keys into one part per slot.

use portico_resp::{Arg, encode};
use portico_slots::{Slot, slot};

/// A request's keys, grouped by slot; reused from request to request.
///
/// Invariant: `keys` holds the index of each key (0 is the first key) sorted by slot, and within a slot in the
/// order of the request, so that `DEL k k` and `MSET k 1 k 2` mean what they mean on one server.
#[derive(Debug, Default)]
pub struct Split {
    keys: Vec<(Slot, u32)>,
}

impl Split {
    /// Whether all keys are in one slot, so that the request can be passed on as it is.
    #[must_use]
    pub fn single(&self) -> Option<Slot> {
        let first = self.keys.first()?.0;
        (self.keys.last()?.0 == first).then_some(first)
    }

    /// The groups: a slot and the indexes of its keys.
    pub fn parts(&self) -> impl Iterator<Item = (Slot, &[(Slot, u32)])> {
        self.keys.chunk_by(|a, b| a.0 == b.0).map(|keys| (keys[0].0, keys))
    }

    /// The group that begins at this place of [`Split::order`].
    #[must_use]
    pub fn part_at(&self, at: usize) -> Option<(Slot, &[(Slot, u32)])> {
        self.keys.get(at..)?.chunk_by(|a, b| a.0 == b.0).next().map(|keys| (keys[0].0, keys))
    }

    /// The indexes of all keys, part after part.
    pub fn order(&self) -> impl Iterator<Item = u32> {
        self.keys.iter().map(|&(_, index)| index)
    }

    /// Appends the request for one part: the command's name, then each key with the `step - 1` arguments after it.
    pub fn encode(request: &[u8], args: &[Arg], step: usize, keys: &[(Slot, u32)], out: &mut Vec<u8>) {
        encode::array_header(out, 1 + keys.len() * step);
        out.extend_from_slice(args[0].framed(request));
        for &(_, index) in keys {
            let at = 1 + index as usize * step;
            for arg in &args[at..at + step] {
                out.extend_from_slice(arg.framed(request));
            }
        }
    }
}

/// Groups the keys of a request whose arguments are `step` each, the first of which is the key.
pub fn split(request: &[u8], args: &[Arg], step: usize, into: &mut Split) {
    into.keys.clear();
    let keys = args[1..].chunks_exact(step).enumerate();
    into.keys.extend(keys.map(|(index, group)| (slot(group[0].of(request)), index as u32)));
    // Most splits are short or in one slot already; the sort sees that.
    into.keys.sort_unstable();
}

#[cfg(test)]
mod tests {
    use super::*;
    use portico_resp::{Limits, RequestScanner, Scan};

    #[test]
    fn parts_keep_every_key_once_and_in_order() {
        let words: [&[u8]; 9] = [b"MSET", b"a", b"1", b"b", b"2", b"a", b"3", b"{a}x", b"4"];
        let mut request = Vec::new();
        encode::command(&mut request, &words);
        let mut scanner = RequestScanner::new();
        let scan = scanner.scan(&request, &Limits::default());
        assert!(matches!(scan, Ok(Scan::Complete { .. })));
        let mut groups = Split::default();
        split(&request, scanner.args(), 2, &mut groups);
        assert_eq!(groups.single(), None);
        let mut parts: Vec<Vec<u8>> = Vec::new();
        for (_, keys) in groups.parts() {
            let mut part = Vec::new();
            Split::encode(&request, scanner.args(), 2, keys, &mut part);
            parts.push(part);
        }
        let expected = |words: &[&[u8]]| {
            let mut out = Vec::new();
            encode::command(&mut out, words);
            out
        };
        // b is in slot 3300, a in slot 15495.
        assert_eq!(parts[0], expected(&[b"MSET", b"b", b"2"]));
        assert_eq!(parts[1], expected(&[b"MSET", b"a", b"1", b"a", b"3", b"{a}x", b"4"]));
        assert_eq!(groups.order().collect::<Vec<_>>(), [1, 0, 2, 3]);
    }
}
