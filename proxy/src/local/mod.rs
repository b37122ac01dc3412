//! Commands that Portico answers itself, as a standalone server would.

mod acl;
mod auth;
mod client;
mod client_filter;
mod config;
mod connection;
mod info;
mod pause;
mod tracking;

use std::sync::Arc;
use std::time::Instant;

use crate::config::Config;
use crate::session::Client;
use crate::stats::Shared;
use crate::topology::Identity;

pub use acl::{is_own_user, locks_out, without_hashes};
pub use auth::{auth, hello, reset};
pub use client::{
    capa, client_address, client_line, info as client_info, name as client_name, set_flag, set_info,
    set_name, unblock,
};
pub use client_filter::{ClientFilter, kill_filter, list_filter};
pub use config::{
    Decision, Name, Settings, asked_settings, known_settings, names, questions, rewritten, settings_to_set,
    shares,
};
pub use connection::{cluster_disabled, copies_elsewhere, echo, move_key, ping, role, select, swap_db, time};
pub use info::{FIELDS as INFO_FIELDS, Master, Rule as InfoRule, Surroundings, info, rule as info_rule};
pub use pause::pause;
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
    /// What they are by their own name.
    pub identity: &'a Identity,
    /// The time.
    pub now: Instant,
    /// Where the reply goes.
    pub out: &'a mut Vec<u8>,
}

/// Whether nodes of this version have what came with `since`, major and minor.
#[must_use]
pub fn at_least(version: &str, since: (u32, u32)) -> bool {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= since
}
