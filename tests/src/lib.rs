//! Helpers for the end-to-end tests: the `portico` binary as a value, a raw client, lists of commands, dialogues.
//!
//! Redis itself comes from `portico::sandbox`. Set `PORTICO_BIN` to test another binary than the one that was built
//! beside the tests, and `PORTICO_LOG` to a level to see its log.

mod calm;
mod cases;
mod client;
mod compare;
mod costs;
pub mod dialogue;
pub mod live;
mod process;
mod random;
mod reply;
mod under_test;
mod words;

pub use calm::{TooSlow, on_a_calm_machine};
pub use cases::Case;
pub use client::{Client, encode, encode_line};
pub use compare::{Compare, Name};
pub use costs::Costs;
pub use process::{Binary, Portico};
pub use random::Random;
pub use reply::{Frame, canonical, shape, show};
pub use under_test::UnderTest;
pub use words::words;
