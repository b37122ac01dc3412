//! One client's state, without its socket: who it is, what it asked for and what it still has to be told.

mod attempt;
mod fan;
mod queue;
mod state;
mod upload;

pub use attempt::{Attempt, Parked, Target};
pub use fan::{Fan, FanKind};
pub use queue::{Pending, PendingFlags, ReplyQueue};
pub use state::{About, Client, ClientFlags, Stall, Work};
pub use upload::{Stage, Upload};
