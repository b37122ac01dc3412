//! Throwaway Redis servers and clusters as values, for `portico sandbox` and the end-to-end tests.
//!
//! Real `redis-server` processes (6.2 or later, or Valkey) on loopback ports that nobody else uses. Dropping the
//! value ends them and removes their folders; should this process itself be killed, a watchdog does.

mod cluster;
mod connection;
mod port;
mod program;
mod server;
mod watchdog;

pub use cluster::{Cluster, ClusterOptions};
pub use connection::{Connection, text};
pub use port::Port;
pub use server::{Server, ServerOptions};
pub use watchdog::Watchdog;
