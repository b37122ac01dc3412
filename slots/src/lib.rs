//! Where a key lives: slots and topology.
