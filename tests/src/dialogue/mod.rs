//! Dialogues of several connections with a server, compared with another server's: `tests/dialogues/README.md`.

mod parse;
mod peer;
mod run;

pub use parse::{Action, Dialogue, Frames, Line, Protocols, Script};
pub use peer::{Peer, Received};
pub use run::{Side, differences};
