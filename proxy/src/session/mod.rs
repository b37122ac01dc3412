//! One client's state, without its socket: who it is, what it asked for and what it still has to be told.

mod attempt;
mod block;
mod fan;
mod input;
mod queue;
mod standing;
mod state;
mod task;
mod tracking;
mod transaction;
mod upload;

pub use attempt::{Attempt, Parked, Target};
pub use block::{Block, Unblock};
pub use fan::{Fan, FanKind, InfoQuestion, Told, Unsent, Who};
pub use input::Input;
pub use queue::{Pending, PendingFlags, ReplyQueue};
pub use standing::{Standing, Subscribing};
pub use state::{About, Client, ClientFlags, Stall, Work};
pub use task::Task;
pub use tracking::{Caching, Hearer, Tracking, TrackingMode};
pub use transaction::{Exec, Transaction};
pub use upload::{Stage, Upload};
