//! Commands that Portico answers itself, as a standalone server would.

mod auth;
mod client;
mod config;
mod connection;
mod info;
mod tracking;

use std::sync::Arc;
use std::time::Instant;

use crate::config::Config;
use crate::session::Client;
use crate::stats::Shared;

pub use auth::{auth, hello, reset};
pub use client::{
    ClientFilter, client_line, filter as client_filter, info as client_info, name as client_name, set_info,
    set_name, unblock,
};
pub use config::{config_get, config_set, names_own_setting};
pub use connection::{cluster_disabled, copies_elsewhere, echo, move_key, ping, select, swap_db};
pub use info::info;
pub use tracking::{NO_SUCH_CLIENT, TrackingRequest, caching, redirection, tracking_info};

/// What a cluster says of keys in several slots, and what a client can do about it.
pub const CROSSSLOT: &str = "CROSSSLOT Keys in request don't hash to the same slot";

/// What answering a command needs.
pub struct Context<'a> {
    /// Who asks.
    pub client: &'a mut Client,
    /// The settings.
    pub config: &'a Config,
    /// The process.
    pub shared: &'a Arc<Shared>,
    /// `redis_version` of the nodes.
    pub version: &'a str,
    /// The time.
    pub now: Instant,
    /// Where the reply goes.
    pub out: &'a mut Vec<u8>,
}
