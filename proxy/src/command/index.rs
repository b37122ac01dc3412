//! From a name to its place in the table: open addressing over the lower-cased name.

use super::Command;

/// An index over commands by name, without regard to case.
///
/// Invariant: the number of slots is a power of two and at least twice that of commands, so that a probe ends.
#[derive(Clone, Debug)]
pub(super) struct Index {
    slots: Box<[Slot]>,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    hash: u32,
    /// Into the commands; [`Slot::EMPTY`] for none.
    at: u32,
}

impl Slot {
    const EMPTY: u32 = u32::MAX;
}

impl Index {
    /// The index of `commands`; the first of two with one name wins.
    pub(super) fn of(commands: &[Command]) -> Self {
        let size = (commands.len() * 2).next_power_of_two().max(2);
        let mut slots = vec![Slot { hash: 0, at: Slot::EMPTY }; size];
        for (at, command) in commands.iter().enumerate() {
            let hash = hash(command.name.as_bytes());
            let mut probe = hash as usize & (size - 1);
            while slots[probe].at != Slot::EMPTY {
                probe = (probe + 1) & (size - 1);
            }
            slots[probe] = Slot { hash, at: at as u32 };
        }
        Self { slots: slots.into() }
    }

    #[inline]
    pub(super) fn find<'c>(&self, commands: &'c [Command], name: &[u8]) -> Option<&'c Command> {
        self.position(commands, name).map(|at| &commands[at])
    }

    /// Where the command of this name is.
    #[inline]
    pub(super) fn position(&self, commands: &[Command], name: &[u8]) -> Option<usize> {
        let hash = hash(name);
        let mask = self.slots.len() - 1;
        let mut probe = hash as usize & mask;
        loop {
            let slot = self.slots[probe];
            if slot.at == Slot::EMPTY {
                return None;
            }
            if slot.hash == hash {
                let command = &commands[slot.at as usize];
                if command.name.as_bytes().eq_ignore_ascii_case(name) {
                    return Some(slot.at as usize);
                }
            }
            probe = (probe + 1) & mask;
        }
    }
}

/// Hashes the first and the last eight bytes, which tell nearly all names apart; bit 0x20 is set in all of them, so
/// that case does not count.
#[inline]
fn hash(name: &[u8]) -> u32 {
    const FOLD: u64 = 0x2020_2020_2020_2020;
    let (a, b) = if let (Some(a), Some(b)) = (name.first_chunk(), name.last_chunk()) {
        (u64::from_le_bytes(*a), u64::from_le_bytes(*b))
    } else if let (Some(a), Some(b)) = (name.first_chunk(), name.last_chunk()) {
        (u32::from_le_bytes(*a).into(), u32::from_le_bytes(*b).into())
    } else if let [a, .., b] = name {
        (u64::from(*a), u64::from(name[name.len() / 2]) << 8 | u64::from(*b))
    } else {
        (name.first().copied().unwrap_or_default().into(), 0)
    };
    let mixed = ((a | FOLD) ^ name.len() as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15)
        ^ (b | FOLD).wrapping_mul(0xC2B2_AE3D_27D4_EB4F).rotate_left(23);
    (mixed >> 32) as u32 ^ mixed as u32
}
