//! The table of all settings.

use std::path::PathBuf;

use super::nodes::Seeds;
use super::values::{
    MAX_MEMORY, MB, choice, items, memory, milliseconds, number, optional, permissions, seconds, secret_file,
    show_list, show_memory,
};
use super::{Choice, Invalid, Remark, Secret, Setting};

/// More threads than this have never helped anybody.
pub(super) const MAX_WORKERS: usize = 256;

/// An hour: nothing here is worth waiting for longer.
const HOUR: u64 = 3_600_000;

const CLIENTS: &str = "Clients";
const CLUSTER: &str = "Cluster";
const SECURITY: &str = "Security";
const LIMITS: &str = "Limits";
const LOG: &str = "Log";

/// Every setting, in the order in which the help lists them. A later one may refine what an earlier one set.
pub static SETTINGS: &[Setting] = &[
    Setting::new(
        "bind",
        "ip",
        "Addresses to listen on, as in redis.conf: * is all of IPv4, ::* all of IPv6, and one written with a \
         leading - may be missing",
        |config, text| {
            config.bind = items(text).map(str::parse).collect::<Result<_, _>>()?;
            Ok(())
        },
        |config| show_list(&config.bind),
    )
    .under(CLIENTS)
    .list(),
    Setting::new(
        "port",
        "port",
        "TCP port to listen on; 0: none",
        |config, text| number(text, 0..=u16::MAX).map(|port| config.port = port),
        |config| config.port.to_string(),
    )
    .under(CLIENTS),
    Setting::new(
        "unixsocket",
        "path",
        "Unix socket to listen on as well",
        |config, text| set(&mut config.unixsocket, optional(text)),
        |config| show_path(config.unixsocket.as_ref()),
    )
    .under(CLIENTS),
    Setting::new(
        "unixsocketperm",
        "octal",
        "Permissions of the Unix socket; without it the umask decides",
        |config, text| permissions(text).map(|mode| config.unixsocketperm = Some(mode)),
        |config| config.unixsocketperm.map(|mode| format!("{mode:o}")).unwrap_or_default(),
    )
    .under(CLIENTS),
    Setting::new(
        "maxclients",
        "number",
        "Most clients at one time; further ones get an error and are closed",
        |config, text| number(text, 1..=1_000_000).map(|clients| config.maxclients = clients),
        |config| config.maxclients.to_string(),
    )
    .under(CLIENTS),
    Setting::new(
        "max-leases",
        "number",
        "Most clients of one worker that have connections to nodes of their own at one time, because they are \
         blocked, watch keys or track them (with REDIRECT, one counts for two); further ones wait for one, or get an \
         error from CLIENT TRACKING",
        |config, text| number(text, 1..=60_000).map(|leases| config.max_leases = leases),
        |config| config.max_leases.to_string(),
    )
    .under(CLIENTS),
    Setting::new(
        "timeout",
        "seconds",
        "Close a client that was idle for so long; 0: never",
        |config, text| seconds(text).map(|time| config.timeout = time),
        |config| config.timeout.as_secs().to_string(),
    )
    .under(CLIENTS),
    Setting::new(
        "shutdown-timeout",
        "seconds",
        "Told to end, wait so long for what was received to be answered and for clients to read it",
        |config, text| seconds(text).map(|time| config.shutdown_timeout = time),
        |config| config.shutdown_timeout.as_secs().to_string(),
    )
    .under(CLIENTS),
    Setting::new(
        "tcp-keepalive",
        "seconds",
        "Probe idle TCP connections after so long; 0: do not",
        |config, text| seconds(text).map(|time| config.tcp_keepalive = time),
        |config| config.tcp_keepalive.as_secs().to_string(),
    )
    .under(CLIENTS),
    Setting::new(
        "tcp-backlog",
        "number",
        "Connections that may wait to be accepted; the kernel's somaxconn caps it",
        |config, text| number(text, 1..=65_535).map(|backlog| config.tcp_backlog = backlog),
        |config| config.tcp_backlog.to_string(),
    )
    .under(CLIENTS),
    Setting::new(
        "workers",
        "threads",
        "Most threads that serve clients, one a core unless told otherwise; as many serve as the load needs",
        |config, text| number(text, 1..=MAX_WORKERS).map(|workers| config.workers = workers),
        |config| config.workers.to_string(),
    )
    .under(CLIENTS),
    Setting::new(
        "nodes",
        "host:port",
        "Nodes of the cluster to ask for the others; some that live are enough. redis://USER:PASSWORD@HOST:PORT \
         also says how to log in",
        |config, text| {
            let seeds: Seeds = text.parse()?;
            config.nodes = seeds.addresses;
            for ignored in seeds.ignored {
                let text = format!("nodes: {ignored} is ignored: a cluster has only database 0, and other options are settings");
                config.remarks.push(Remark { warning: true, text });
            }
            if seeds.username.is_some() || seeds.password.is_some() {
                (config.node_username, config.node_password) = (seeds.username, seeds.password);
            }
            Ok(())
        },
        |config| show_list(&config.nodes),
    )
    .under(CLUSTER)
    .also(&["REDIS_CLUSTER_NODES", "REDIS_CLUSTER_ADDRS"])
    .list(),
    Setting::new(
        "node-username",
        "name",
        "User to log in as at the nodes; without one it is the default user",
        |config, text| set(&mut config.node_username, optional(text)),
        |config| config.node_username.clone().unwrap_or_default(),
    )
    .under(CLUSTER)
    .also(&["REDIS_USERNAME"]),
    Setting::new(
        "node-password",
        "password",
        "Password at the nodes. Everybody on this machine sees flags: better from the environment or a file",
        |config, text| set(&mut config.node_password, optional::<String>(text).map(Secret::new)),
        |config| show_secret(config.node_password.as_ref()),
    )
    .under(CLUSTER)
    .also(&["REDIS_PASSWORD"])
    .secret(),
    Setting::new(
        "node-password-file",
        "path",
        "File that holds the password at the nodes",
        |config, text| {
            let (path, password) = secret_file(text)?;
            (config.node_password_file, config.node_password) = (Some(path), Some(password));
            Ok(())
        },
        |config| show_path(config.node_password_file.as_ref()),
    )
    .under(CLUSTER)
    .also(&["REDIS_PASSWORD_FILE"])
    .instead_of("node-password"),
    Setting::new(
        "node-address-map",
        "announced=reachable",
        "Where nodes are reached that announce addresses which are no use from here (NAT, Docker): pairs of \
         HOST or HOST:PORT",
        |config, text| text.parse().map(|map| config.node_address_map = map),
        |config| config.node_address_map.to_string(),
    )
    .under(CLUSTER)
    .list(),
    Setting::new(
        "cross-slot",
        "refuse|fan-out|emulate",
        "Keys in several slots: refuse them as a cluster does; or split and merge commands whose keys are \
         independent; or also run transactions, one slot after another, without atomicity across slots",
        |config, text| choice(text).map(|level| config.cross_slot = level),
        |config| config.cross_slot.name().to_owned(),
    )
    .under(CLUSTER),
    Setting::new(
        "pipeline-order",
        "slot|signal|strict",
        "How much of a pipeline's order is kept between slots: none, that of commands which wake or tell others \
         after the writes before them, or that of all writes",
        |config, text| choice(text).map(|order| config.pipeline_order = order),
        |config| config.pipeline_order.name().to_owned(),
    )
    .under(CLUSTER),
    Setting::new(
        "script-commands",
        "read|any",
        "Scripts that call commands whose names cannot be read from their text: refuse them; or run them, so that \
         only the rights of node-username keep them from CLUSTER",
        |config, text| choice(text).map(|which| config.script_commands = which),
        |config| config.script_commands.name().to_owned(),
    )
    .under(CLUSTER),
    Setting::new(
        "max-redirections",
        "number",
        "Most MOVED and ASK that one request follows",
        |config, text| number(text, 1..=1_000).map(|hops| config.max_redirections = hops),
        |config| config.max_redirections.to_string(),
    )
    .under(CLUSTER)
    .also(&["REDIS_CLUSTER_MAX_REDIRECTIONS"]),
    Setting::new(
        "failover-timeout",
        "milliseconds",
        "Longest that a request waits for its slot to have a living master",
        |config, text| milliseconds(text, 0..=HOUR).map(|time| config.failover_timeout = time),
        |config| config.failover_timeout.as_millis().to_string(),
    )
    .under(CLUSTER),
    Setting::new(
        "tryagain-timeout",
        "milliseconds",
        "Longest that a request for several keys waits while its slot is being moved",
        |config, text| milliseconds(text, 0..=HOUR).map(|time| config.tryagain_timeout = time),
        |config| config.tryagain_timeout.as_millis().to_string(),
    )
    .under(CLUSTER),
    Setting::new(
        "connect-timeout",
        "milliseconds",
        "Longest that connecting to a node may take",
        |config, text| milliseconds(text, 1..=HOUR).map(|time| config.connect_timeout = time),
        |config| config.connect_timeout.as_millis().to_string(),
    )
    .under(CLUSTER),
    Setting::new(
        "refresh-interval",
        "milliseconds",
        "How often the nodes are asked for the slots although nothing seems to have changed",
        |config, text| milliseconds(text, 100..=HOUR).map(|time| config.refresh_interval = time),
        |config| config.refresh_interval.as_millis().to_string(),
    )
    .under(CLUSTER)
    .also(&["REDIS_CLUSTER_SLOTS_REFRESH_INTERVAL"]),
    Setting::new(
        "refresh-debounce",
        "milliseconds",
        "Shortest time between two times that the nodes are asked for the slots",
        |config, text| milliseconds(text, 0..=60_000).map(|time| config.refresh_debounce = time),
        |config| config.refresh_debounce.as_millis().to_string(),
    )
    .under(CLUSTER),
    Setting::new(
        "requirepass",
        "password",
        "Password that clients have to give. Everybody on this machine sees flags: better from the environment \
         or a file",
        |config, text| set(&mut config.requirepass, optional::<String>(text).map(Secret::new)),
        |config| show_secret(config.requirepass.as_ref()),
    )
    .under(SECURITY)
    .secret(),
    Setting::new(
        "requirepass-file",
        "path",
        "File that holds the password that clients have to give",
        |config, text| {
            let (path, password) = secret_file(text)?;
            (config.requirepass_file, config.requirepass) = (Some(path), Some(password));
            Ok(())
        },
        |config| show_path(config.requirepass_file.as_ref()),
    )
    .under(SECURITY)
    .instead_of("requirepass"),
    Setting::new(
        "proto-max-bulk-len",
        "bytes",
        "Longest single argument of a request",
        |config, text| memory(text, MB..=MAX_MEMORY).map(|bytes| config.proto_max_bulk_len = bytes),
        |config| show_memory(config.proto_max_bulk_len),
    )
    .under(LIMITS),
    Setting::new(
        "client-output-buffer-limit",
        "class hard soft seconds",
        "Most that is held for a client that does not read; beyond it the client is closed: one size for all, or as \
         in redis.conf for the classes normal and pubsub, e.g. \"normal 256mb 0 0 pubsub 32mb 8mb 60\"",
        |config, text| {
            config.client_output_buffer_limit = config.client_output_buffer_limit.parse(text)?;
            Ok(())
        },
        |config| config.client_output_buffer_limit.show(),
    )
    .under(LIMITS),
    Setting::new(
        "client-query-buffer-limit",
        "bytes",
        "Most that is held of one client's requests; beyond it the client is closed",
        |config, text| memory(text, MB..=MAX_MEMORY).map(|bytes| config.client_query_buffer_limit = bytes),
        |config| show_memory(config.client_query_buffer_limit),
    )
    .under(LIMITS),
    Setting::new(
        "loglevel",
        "debug|verbose|notice|warning",
        "What is logged: this level and those after it",
        |config, text| choice(text).map(|level| config.loglevel = level),
        |config| config.loglevel.name().to_owned(),
    )
    .under(LOG),
    Setting::new(
        "log-format",
        "text|json",
        "Lines for people, or one JSON object a line",
        |config, text| choice(text).map(|format| config.log_format = format),
        |config| config.log_format.name().to_owned(),
    )
    .under(LOG),
    Setting::new(
        "logfile",
        "path",
        "File to append the log to; without one it goes to standard error",
        |config, text| set(&mut config.logfile, optional(text)),
        |config| show_path(config.logfile.as_ref()),
    )
    .under(LOG),
];

/// The setting of that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

#[expect(clippy::unnecessary_wraps, reason = "what a setting's parser returns")]
fn set<T>(field: &mut T, value: T) -> Result<(), Invalid> {
    *field = value;
    Ok(())
}

fn show_path(path: Option<&PathBuf>) -> String {
    path.map(|path| path.display().to_string()).unwrap_or_default()
}

fn show_secret(secret: Option<&Secret>) -> String {
    secret.map(Secret::to_string).unwrap_or_default()
}
