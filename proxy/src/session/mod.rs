//! One client's state, without its socket: who it is, what it asked for and what it still has to be told.

mod attempt;
mod queue;
mod state;

pub use attempt::{Attempt, Parked, Target};
pub use queue::{Pending, PendingFlags, ReplyQueue};
pub use state::{About, Client, ClientFlags, Stall, Work};

slotmap::new_key_type! {
    /// Names a client within its worker; a reused place gets a new key.
    pub struct ClientKey;
    /// Names a connection to a node within its worker; a reused place gets a new key.
    pub struct LinkKey;
}
