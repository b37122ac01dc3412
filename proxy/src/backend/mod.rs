//! Connections to nodes, as pure state: what is queued, what is in flight, how a connection is set up.

mod handshake;
mod keys;
mod mark;
mod pipe;

pub use handshake::{Credentials, Fence, Handshake, HandshakeError, Identity};
pub use keys::{ClientKey, Lane, LinkKey};
pub use pipe::{Group, InFlight, Pipe, RequestFlags};
