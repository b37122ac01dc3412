//! Splitting a request with independent keys into one part per slot.

use portico_resp::{Arg, encode};
use portico_slots::{Slot, slot};

use crate::command::Fan;

/// How a request's arguments belong to its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// So many belong to each key, which is the first of them.
    pub step: usize,
    /// So many at the end belong to all keys.
    pub tail: usize,
}

impl Layout {
    /// Each key has `step` arguments, itself included, and nothing follows.
    #[must_use]
    pub const fn step(step: usize) -> Self {
        Self { step, tail: 0 }
    }

    /// That of a command with independent keys.
    #[must_use]
    pub const fn of(fan: Fan) -> Self {
        match fan {
            Fan::Mget | Fan::Sum => Self::step(1),
            Fan::Mset => Self::step(2),
            Fan::Madd | Fan::MsetPath => Self::step(3),
            Fan::MgetPath => Self { step: 1, tail: 1 },
        }
    }

    /// The arguments that belong to single keys, and those of all.
    fn divide(self, args: &[Arg]) -> (&[Arg], &[Arg]) {
        args[1..].split_at((args.len() - 1).saturating_sub(self.tail))
    }

    /// The keys of a request.
    pub fn keys(self, args: &[Arg]) -> impl Iterator<Item = &Arg> {
        self.divide(args).0.iter().step_by(self.step)
    }

    /// Whether a request of so many arguments, its name included, has a key, and none that lacks any of its arguments.
    #[must_use]
    pub fn fits(self, count: usize) -> bool {
        let keyed = count.saturating_sub(1 + self.tail);
        keyed > 0 && keyed.is_multiple_of(self.step)
    }
}

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

    /// Appends the request for one part: the command's name, then each key with its arguments, then those of all.
    pub fn encode(request: &[u8], args: &[Arg], layout: Layout, keys: &[(Slot, u32)], out: &mut Vec<u8>) {
        let Layout { step, tail } = layout;
        encode::array_header(out, 1 + keys.len() * step + tail);
        out.extend_from_slice(args[0].framed(request));
        for &(_, index) in keys {
            let at = 1 + index as usize * step;
            for arg in &args[at..at + step] {
                out.extend_from_slice(arg.framed(request));
            }
        }
        for arg in &args[args.len() - tail..] {
            out.extend_from_slice(arg.framed(request));
        }
    }
}

/// Groups the keys of a request.
pub fn split(request: &[u8], args: &[Arg], layout: Layout, into: &mut Split) {
    into.keys.clear();
    let keys = layout.divide(args).0.chunks_exact(layout.step).enumerate();
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
        let (parts, order) = parts(&["MSET", "a", "1", "b", "2", "a", "3", "{a}x", "4"], Layout::step(2));
        // b is in slot 3300, a in slot 15495.
        assert_eq!(parts[0], request(&["MSET", "b", "2"]));
        assert_eq!(parts[1], request(&["MSET", "a", "1", "a", "3", "{a}x", "4"]));
        assert_eq!(order, [1, 0, 2, 3]);
    }

    #[test]
    fn what_belongs_to_all_keys_is_in_each_part() {
        let (parts, order) = parts(&["JSON.MGET", "a", "b", "{a}x", "$"], Layout { step: 1, tail: 1 });
        assert_eq!(parts[0], request(&["JSON.MGET", "b", "$"]));
        assert_eq!(parts[1], request(&["JSON.MGET", "a", "{a}x", "$"]));
        assert_eq!(order, [1, 0, 2]);
    }

    fn request(words: &[&str]) -> Vec<u8> {
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        let mut request = Vec::new();
        encode::command(&mut request, &words);
        request
    }

    fn parts(words: &[&str], layout: Layout) -> (Vec<Vec<u8>>, Vec<u32>) {
        let request = request(words);
        let mut scanner = RequestScanner::new();
        let scan = scanner.scan(&request, &Limits::default());
        assert!(matches!(scan, Ok(Scan::Complete { .. })));
        assert!(layout.fits(scanner.args().len()));
        let mut groups = Split::default();
        split(&request, scanner.args(), layout, &mut groups);
        assert_eq!(groups.single(), None);
        let part = |keys: &[(Slot, u32)]| {
            let mut part = Vec::new();
            Split::encode(&request, scanner.args(), layout, keys, &mut part);
            part
        };
        (groups.parts().map(|(_, keys)| part(keys)).collect(), groups.order().collect())
    }
}
