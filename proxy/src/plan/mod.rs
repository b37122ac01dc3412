//! Pure decisions: where a request goes, how parts' replies become one, what an error asks for.

mod block;
mod decide;
mod merge;
mod objection;
mod request;
pub mod scan_cursor;
mod scripts;
mod server;
mod settings;
mod split;
mod transaction;

pub use block::{Patience, Timeout, can_put_back, nil, put_back, reads_from_the_end};
pub use decide::{Action, Event, Facts, Refusal, advised, decide};
pub use merge::{Merge, Part, Parts, merge};
pub use objection::{Given, Home, Objection, home, objection};
pub use request::RequestArgs;
pub use scripts::{ScriptCall, merge_exists, script_call};
pub use settings::{Asked, SettingsChange, Source, tell_settings};
pub use split::{Layout, Split, split};
pub use transaction::{Outcome, Plan, Step, count_keyed, plan_transaction, transaction_outcome, with_queued};
