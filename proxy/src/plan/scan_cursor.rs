//! The cursor of a SCAN over the whole cluster: stateless, readable by any Portico, below 2^53.

/// Bits of a node's own cursor. A table of 2^32 buckets is 16 times what a node can hold in 1 TB.
const CURSOR_BITS: u32 = 32;
/// Bits of the node's place in the walk.
const NODE_BITS: u32 = 8;
/// Bits of the walk's tag.
const TAG_BITS: u32 = 13;

/// Where a walk over all masters stands.
///
/// `tag` names the slot map (owners, open slots, run ids) that was in force when the walk began. When the last node
/// is done and the map is still the same, nothing can have been missed and the cursor is 0; otherwise another walk
/// begins. An element may then be told twice, as Redis allows itself, but what was there from start to end is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanCursor {
    /// The map in force when this walk began; never 0, so that 0 means start and end only.
    pub tag: u16,
    /// The master being walked, counted in the order of node ids.
    pub node: u8,
    /// Its own cursor.
    pub cursor: u32,
}

impl ScanCursor {
    /// Shortens a topology's fingerprint to a tag.
    #[must_use]
    pub fn tag(fingerprint: u64) -> u16 {
        let folded = fingerprint ^ (fingerprint >> 26) ^ (fingerprint >> 39);
        (folded % ((1 << TAG_BITS) - 1)) as u16 + 1
    }

    /// Reads a client's cursor. 0, and what no Portico made, begins a new walk.
    #[must_use]
    pub fn decode(cursor: u64, tag: u16) -> Self {
        let read = Self {
            cursor: cursor as u32,
            node: (cursor >> CURSOR_BITS) as u8,
            tag: (cursor >> (CURSOR_BITS + NODE_BITS)) as u16,
        };
        let made_by_portico = read.tag != 0 && cursor >> (CURSOR_BITS + NODE_BITS + TAG_BITS) == 0;
        if made_by_portico { read } else { Self { tag, node: 0, cursor: 0 } }
    }

    /// The number that the client is given.
    #[must_use]
    pub fn encode(self) -> u64 {
        u64::from(self.tag) << (CURSOR_BITS + NODE_BITS)
            | u64::from(self.node) << CURSOR_BITS
            | u64::from(self.cursor)
    }

    /// The cursor after the node answered with `next`; `nodes` masters are walked and `tag` is in force now.
    /// 0 ends the walk.
    ///
    /// # Errors
    /// The node's cursor does not fit.
    pub fn after(self, next: u64, nodes: usize, tag: u16) -> Result<u64, CursorTooLarge> {
        if next != 0 {
            let cursor = u32::try_from(next).map_err(|_| CursorTooLarge)?;
            return Ok(Self { cursor, ..self }.encode());
        }
        let node = usize::from(self.node) + 1;
        if node < nodes {
            let node = u8::try_from(node).map_err(|_| CursorTooLarge)?;
            return Ok(Self { node, cursor: 0, ..self }.encode());
        }
        if tag == self.tag { Ok(0) } else { Ok(Self { tag, node: 0, cursor: 0 }.encode()) }
    }
}

/// A node's cursor or the number of masters is over what a 53-bit cursor can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("ERR SCAN: the cluster is too large for a cursor below 2^53 (256 masters of 2^32 buckets)")]
pub struct CursorTooLarge;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_visits_every_node_and_ends_with_0() {
        let tag = ScanCursor::tag(0xdead_beef_0bad_cafe);
        let mut cursor = ScanCursor::decode(0, tag);
        let mut visited = Vec::new();
        loop {
            visited.push((cursor.node, cursor.cursor));
            let next = if cursor.cursor == 0 { 77 } else { 0 };
            let told = cursor.after(next, 3, tag).expect("small");
            assert!(told < 1 << 53);
            if told == 0 {
                break;
            }
            cursor = ScanCursor::decode(told, tag);
        }
        assert_eq!(visited, [(0, 0), (0, 77), (1, 0), (1, 77), (2, 0), (2, 77)]);
    }

    #[test]
    fn a_changed_map_has_everything_walked_again() {
        let last = ScanCursor { tag: 5, node: 2, cursor: 9 };
        assert_eq!(last.after(0, 3, 5), Ok(0));
        let again = ScanCursor::decode(last.after(0, 3, 6).expect("small"), 6);
        assert_eq!(again, ScanCursor { tag: 6, node: 0, cursor: 0 });
    }

    #[test]
    fn the_largest_cursor_is_a_safe_integer_and_larger_ones_are_refused() {
        let last = ScanCursor { tag: (1 << TAG_BITS) - 1, node: u8::MAX, cursor: 1 };
        assert!(last.after(u64::from(u32::MAX), 256, 1).expect("fits") < 1 << 53);
        assert_eq!(last.after(1 << 32, 256, 1), Err(CursorTooLarge));
        assert_eq!(last.after(0, 300, 1), Err(CursorTooLarge));
        assert_eq!(ScanCursor::decode(u64::MAX, 3), ScanCursor { tag: 3, node: 0, cursor: 0 });
    }
}
