//! What was received from a client and is not done with.

/// Bytes, the first of which are done with. Those are thrown away many at a time: a long pipeline of which one request
/// is served at a time is not copied for each of them.
#[derive(Debug, Default)]
pub struct Input {
    bytes: Vec<u8>,
    done: usize,
}

/// More than this is not kept for later.
const KEEP: usize = 64 * 1024;

impl Input {
    /// What is not done with.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[self.done..]
    }

    /// How much that is.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len() - self.done
    }

    /// Whether all is done with.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.len() == self.done
    }

    /// More has come.
    pub fn add(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// So many more are done with.
    pub fn consume(&mut self, count: usize) {
        self.done += count;
        if self.is_empty() {
            self.clear();
        } else if self.done > self.bytes.len() / 2 {
            self.bytes.drain(..self.done);
            self.done = 0;
        }
    }

    /// All is done with.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.done = 0;
        self.trim();
    }

    /// Gives back what is held beyond ordinary need.
    pub fn trim(&mut self) {
        if self.is_empty() && self.bytes.capacity() > KEEP {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_with_is_not_seen_again() {
        let mut input = Input::default();
        let mut expected: Vec<u8> = Vec::new();
        for round in 0..100_u8 {
            let more = vec![round; 1 + usize::from(round) % 7];
            input.add(&more);
            expected.extend_from_slice(&more);
            let gone = expected.len().min(usize::from(round) % 5);
            input.consume(gone);
            expected.drain(..gone);
            assert_eq!((input.bytes(), input.len()), (&expected[..], expected.len()));
            assert_eq!(input.is_empty(), expected.is_empty());
            assert!(input.bytes.len() <= 2 * expected.len() + 7, "at most half is done with");
        }
        input.add(&vec![0; 2 * KEEP]);
        input.consume(input.len());
        assert_eq!((input.is_empty(), input.bytes.capacity()), (true, 0));
    }
}
