//! The cursor of a SCAN over the whole cluster: stateless, readable by any Portico, below 2^53.

use portico_slots::Topology;

/// Bits of a node's own cursor. A table of 2^32 buckets is 16 times what a node can hold in 1 TB.
const CURSOR_BITS: u32 = 32;
/// Bits of the node's place in the walk.
const NODE_BITS: u32 = 8;
/// Bits of the walk's tag.
const TAG_BITS: u32 = 13;

/// Where a walk over all masters stands.
///
/// `tag` names the slot map (owners, epochs, open slots, run ids) that was in force when the walk began. While the map
/// is another, the walk begins again; when the last node is done, the nodes are asked for the map, and only if it is
/// still the same the cursor is 0. An element may then be told twice, as Redis allows itself, but what was there from
/// start to end is told.
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
    /// The tag of a map. Epochs are part of it: a slot that moved and came back moved.
    #[must_use]
    pub fn tag(topology: &Topology) -> u16 {
        let masters = topology.masters().iter().map(|&master| topology.node(master).config_epoch);
        let mixed = masters.fold(topology.fingerprint(), |hash, epoch| {
            (hash.rotate_left(5) ^ epoch).wrapping_mul(0x0100_0000_01b3)
        });
        let folded = mixed ^ (mixed >> 26) ^ (mixed >> 39);
        (folded % ((1 << TAG_BITS) - 1)) as u16 + 1
    }

    /// Reads a client's cursor. 0, what no Portico made, and what belongs to another map begin a new walk.
    #[must_use]
    pub fn decode(cursor: u64, tag: u16, nodes: usize) -> Self {
        let read = Self {
            cursor: cursor as u32,
            node: (cursor >> CURSOR_BITS) as u8,
            tag: (cursor >> (CURSOR_BITS + NODE_BITS)) as u16,
        };
        let fits = cursor >> (CURSOR_BITS + NODE_BITS + TAG_BITS) == 0 && usize::from(read.node) < nodes;
        if fits && read.tag == tag { read } else { Self::begin(tag) }
    }

    /// The beginning of a walk.
    #[must_use]
    pub fn begin(tag: u16) -> Self {
        Self { tag, node: 0, cursor: 0 }
    }

    /// The number that the client is given.
    #[must_use]
    pub fn encode(self) -> u64 {
        u64::from(self.tag) << (CURSOR_BITS + NODE_BITS)
            | u64::from(self.node) << CURSOR_BITS
            | u64::from(self.cursor)
    }

    /// Where the walk stands after the node answered with `next`; `nodes` masters are walked. `None`: at its end.
    ///
    /// # Errors
    /// The node's cursor does not fit.
    pub fn after(self, next: u64, nodes: usize) -> Result<Option<Self>, CursorTooLarge> {
        if next != 0 {
            let cursor = u32::try_from(next).map_err(|_| CursorTooLarge)?;
            return Ok(Some(Self { cursor, ..self }));
        }
        let node = usize::from(self.node) + 1;
        if node >= nodes {
            return Ok(None);
        }
        let node = u8::try_from(node).map_err(|_| CursorTooLarge)?;
        Ok(Some(Self { node, cursor: 0, ..self }))
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
    fn a_walk_visits_every_node_and_ends() {
        let mut cursor = ScanCursor::decode(0, 77, 3);
        let mut visited = Vec::new();
        loop {
            visited.push((cursor.node, cursor.cursor));
            let next = if cursor.cursor == 0 { 77 } else { 0 };
            let Some(after) = cursor.after(next, 3).expect("small") else { break };
            assert!(after.encode() < 1 << 53 && after.encode() != 0);
            cursor = ScanCursor::decode(after.encode(), 77, 3);
        }
        assert_eq!(visited, [(0, 0), (0, 77), (1, 0), (1, 77), (2, 0), (2, 77)]);
    }

    #[test]
    fn a_changed_map_has_everything_walked_again() {
        let middle = ScanCursor { tag: 5, node: 2, cursor: 9 }.encode();
        assert_eq!(ScanCursor::decode(middle, 5, 3).node, 2);
        assert_eq!(ScanCursor::decode(middle, 6, 3), ScanCursor::begin(6));
        assert_eq!(ScanCursor::decode(middle, 5, 2), ScanCursor::begin(5));
    }

    #[test]
    fn the_largest_cursor_is_a_safe_integer_and_larger_ones_are_refused() {
        let last = ScanCursor { tag: (1 << TAG_BITS) - 1, node: u8::MAX, cursor: u32::MAX };
        assert!(last.encode() < 1 << 53);
        assert_eq!(last.after(1 << 32, 256), Err(CursorTooLarge));
        assert_eq!(last.after(0, 300), Err(CursorTooLarge));
        assert_eq!(ScanCursor::decode(u64::MAX, 3, 300), ScanCursor::begin(3));
    }
}
