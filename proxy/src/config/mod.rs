//! What Portico was told: typed settings, each defined once in the table [`SETTINGS`].

mod address_map;
mod bind;
mod choices;
mod environment;
mod error;
mod file;
mod load;
mod nodes;
mod output_limit;
mod secret;
mod setting;
mod table;
#[cfg(test)]
mod tests;
mod values;

use std::path::PathBuf;
use std::time::Duration;

use portico_slots::Address;

pub use address_map::AddressMap;
pub use bind::BindAddress;
pub use choices::{Choice, CrossSlot, LogFormat, LogLevel, PipelineOrder, ScriptCommands};
pub use environment::{Remark, remarks};
pub use error::{ConfigError, Invalid, Origin};
pub use load::{CONFIG_FILE, arguments};
pub use output_limit::{OutputLimit, OutputLimits};
pub use secret::Secret;
pub use setting::Setting;
pub use table::{SETTINGS, find};
pub use values::memory_value;

/// Everything that can be set. What each field means, its unit and its bounds: the setting of the same name in
/// [`SETTINGS`], and `portico serve --help`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field's text is its setting's help in the table")]
pub struct Config {
    pub bind: Vec<BindAddress>,
    /// 0: no TCP listener.
    pub port: u16,
    pub unixsocket: Option<PathBuf>,
    /// Mode bits; `None` leaves them to the umask.
    pub unixsocketperm: Option<u32>,
    pub tcp_backlog: u32,
    /// Zero: off.
    pub tcp_keepalive: Duration,
    pub maxclients: usize,
    /// For each worker.
    pub max_leases: usize,
    /// Zero: idle clients stay.
    pub timeout: Duration,
    /// How long clients that do not read keep the process from ending.
    pub shutdown_timeout: Duration,
    pub workers: usize,

    pub nodes: Vec<Address>,
    pub node_username: Option<String>,
    pub node_password: Option<Secret>,
    pub node_password_file: Option<PathBuf>,
    pub node_address_map: AddressMap,
    pub connect_timeout: Duration,
    pub refresh_interval: Duration,
    pub refresh_debounce: Duration,
    pub max_redirections: u32,
    pub failover_timeout: Duration,
    pub tryagain_timeout: Duration,
    pub cross_slot: CrossSlot,
    pub pipeline_order: PipelineOrder,
    pub script_commands: ScriptCommands,

    pub requirepass: Option<Secret>,
    pub requirepass_file: Option<PathBuf>,

    /// Bytes.
    pub proto_max_bulk_len: u64,
    /// By class.
    pub client_output_buffer_limit: OutputLimits,
    /// Bytes a client.
    pub client_query_buffer_limit: u64,

    pub loglevel: LogLevel,
    pub log_format: LogFormat,
    /// `None`: standard error.
    pub logfile: Option<PathBuf>,

    /// What is to be said about the settings once there is a log.
    pub remarks: Vec<Remark>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            bind: BindAddress::loopback(),
            port: 6379,
            unixsocket: None,
            unixsocketperm: None,
            tcp_backlog: 511,
            tcp_keepalive: Duration::from_secs(300),
            maxclients: 10_000,
            max_leases: 10_000,
            timeout: Duration::ZERO,
            shutdown_timeout: Duration::from_secs(10),
            workers: std::thread::available_parallelism()
                .map_or(1, |cores| cores.get().min(table::MAX_WORKERS)),

            nodes: Vec::new(),
            node_username: None,
            node_password: None,
            node_password_file: None,
            node_address_map: AddressMap::default(),
            connect_timeout: Duration::from_secs(1),
            refresh_interval: Duration::from_secs(10),
            refresh_debounce: Duration::from_millis(50),
            max_redirections: 16,
            failover_timeout: Duration::from_secs(30),
            tryagain_timeout: Duration::from_secs(5),
            cross_slot: CrossSlot::FanOut,
            pipeline_order: PipelineOrder::Signal,
            script_commands: ScriptCommands::Read,

            requirepass: None,
            requirepass_file: None,

            proto_max_bulk_len: 512 * values::MB,
            client_output_buffer_limit: OutputLimits::default(),
            client_query_buffer_limit: values::GB,

            loglevel: LogLevel::Notice,
            log_format: LogFormat::Text,
            logfile: None,
            remarks: Vec::new(),
        }
    }
}
