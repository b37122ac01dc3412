//! The arguments of a request, however they are kept.

/// The arguments of one request; the command's name is argument 0.
pub trait Args {
    /// How many there are.
    fn count(&self) -> usize;
    /// Argument `i`. Only asked for `i < count()`.
    fn get(&self, i: usize) -> &[u8];
}

impl Args for [Vec<u8>] {
    fn count(&self) -> usize {
        self.len()
    }
    fn get(&self, i: usize) -> &[u8] {
        &self[i]
    }
}

impl Args for [&[u8]] {
    fn count(&self) -> usize {
        self.len()
    }
    fn get(&self, i: usize) -> &[u8] {
        self[i]
    }
}

impl Args for [&str] {
    fn count(&self) -> usize {
        self.len()
    }
    fn get(&self, i: usize) -> &[u8] {
        self[i].as_bytes()
    }
}
