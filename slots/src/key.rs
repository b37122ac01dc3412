//! From a key to its slot: hash tag, CRC16, modulo 16384.

use crc16::{State, XMODEM};
use memchr::memchr;

/// Number of slots of a Redis Cluster; slots are `0..SLOT_COUNT`.
pub const SLOT_COUNT: u16 = 16384;

/// A hash slot, `0..SLOT_COUNT`.
pub type Slot = u16;

/// The part of `key` that is hashed: what stands between the first `{` and the first `}` after it, or all of the
/// key if there is no such pair or nothing between (Redis Cluster specification, "Hash tags").
#[inline]
#[must_use]
pub fn hash_tag(key: &[u8]) -> &[u8] {
    let Some(open) = memchr(b'{', key) else { return key };
    let inside = &key[open + 1..];
    match memchr(b'}', inside) {
        None | Some(0) => key,
        Some(close) => &inside[..close],
    }
}

/// The slot of `key`: CRC16 (XMODEM) of its hash tag, modulo [`SLOT_COUNT`].
#[inline]
#[must_use]
pub fn slot(key: &[u8]) -> Slot {
    State::<XMODEM>::calculate(hash_tag(key)) % SLOT_COUNT
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn slots_are_those_that_redis_computes() {
        assert_eq!(State::<XMODEM>::calculate(b"123456789"), 0x31C3); // the specification's own check value
        for (key, expected) in [
            (&b"123456789"[..], 12739),
            (b"foo", 12182),
            (b"bar", 5061),
            (b"hello", 866),
            (b"", 0),
            (b"{foo}", 12182),
            (b"somekey", 11058),
        ] {
            assert_eq!(slot(key), expected, "{}", key.escape_ascii());
        }
        assert_eq!(slot(b"{user1000}.following"), slot(b"{user1000}.followers"));
    }

    #[test]
    fn hash_tags_follow_the_specification() {
        for (key, expected) in [
            (&b"{user1000}.following"[..], &b"user1000"[..]),
            (b"foo{}{bar}", b"foo{}{bar}"),
            (b"foo{{bar}}zap", b"{bar"),
            (b"foo{bar}{zap}", b"bar"),
            (b"a{b", b"a{b"),
            (b"a}b{c}", b"c"),
            (b"a}b", b"a}b"),
            (b"{", b"{"),
            (b"{}", b"{}"),
            (b"{}x", b"{}x"),
            (b"", b""),
            (b"\0{\r\n}\xff", b"\r\n"),
        ] {
            assert_eq!(hash_tag(key), expected, "{}", key.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn any_key_has_a_slot_and_shares_it_with_its_tag(key in proptest::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(slot(&key) < SLOT_COUNT);
            let tag = hash_tag(&key);
            if tag.len() < key.len() && !tag.contains(&b'{') {
                prop_assert_eq!(slot(tag), slot(&key));
            }
        }
    }
}
