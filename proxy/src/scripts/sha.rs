//! What a script is called by: the SHA1 of its text.

use sha1::{Digest as _, Sha1};

/// A script's SHA1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sha([u8; 20]);

impl Sha {
    /// That of a text.
    #[must_use]
    pub fn of(text: &[u8]) -> Self {
        Self(Sha1::digest(text).into())
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8; 20] {
        &self.0
    }

    /// Reads what EVALSHA is given: forty hexadecimal digits, in upper case as well.
    #[must_use]
    pub fn parse(hex: &[u8]) -> Option<Self> {
        let (pairs, rest) = hex.as_chunks::<2>();
        if pairs.len() != 20 || !rest.is_empty() {
            return None;
        }
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let mut sha = [0; 20];
        for (byte, [high, low]) in sha.iter_mut().zip(pairs) {
            *byte = (digit(*high)? * 16 + digit(*low)?) as u8;
        }
        Some(Self(sha))
    }
}

impl std::fmt::Display for Sha {
    /// Forty hexadecimal digits in lower case.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_redis_reads_and_makes_them() {
        let sha = Sha::of(b"return ARGV[1]");
        assert_eq!(Sha::parse(b"098e0f0d1448c0a81dafe820f66d460eb09263da"), Some(sha));
        assert_eq!(Sha::parse(b"098E0F0D1448C0A81DAFE820F66D460EB09263DA"), Some(sha));
        for wrong in
            ["", "x", "098e0f0d1448c0a81dafe820f66d460eb09263d", "098e0f0d1448c0a81dafe820f66d460eb09263dx"]
        {
            assert_eq!(Sha::parse(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
