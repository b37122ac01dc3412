//! The I/O shell: worker threads, their sockets, and who of them serves a new client.

mod balance;
mod clients;
mod mailbox;
mod net;
mod shell;

pub use balance::Busy;
pub use clients::Handed;
pub use mailbox::{Mailbox, Message, Post};
pub use net::{Accepted, Listener, Stream};
pub use shell::{MAILBOX, Shell, ShellOptions};
