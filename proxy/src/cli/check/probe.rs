//! Asking one node what Portico will ask it, and whether it may.

use anyhow::{Context, Result, ensure};
use portico_slots::{Address, View, parse};
use redis_protocol::resp2::types::BytesFrame;

use crate::config::Config;
use crate::sandbox::{Connection, text};
use crate::topology::{is_served, not_served};

/// What Portico does at a node besides serving, and what it cannot do without. The client that the CLIENT KILL names
/// does not exist.
const NEEDED: &[(&[&str], &str)] = &[
    (&["COMMAND", "COUNT"], "commands that this release does not know are not learned"),
    (&["CLIENT", "ID"], "connections cannot be fenced off"),
    (
        &["CLIENT", "KILL", "ID", "9223372036854775807"],
        "a write whose outcome is unknown may still run after that was said",
    ),
    // The last: everything after it would be queued.
    (&["MULTI"], "transactions are refused"),
];

/// What changes nothing, whoever asks it, and needs a right that Portico does not need.
const NOT_NEEDED: &[&str] = &["CLUSTER", "DELSLOTS", "-1"];

/// What a node said.
pub(super) struct Probe {
    pub(super) view: View,
    /// `Redis 7.0.15` or `Valkey 8.0.1`.
    pub(super) version: String,
    /// CLUSTER INFO's `cluster_state`.
    pub(super) state: String,
    /// What is not permitted: the node's words and what that costs.
    pub(super) refused: Vec<String>,
    /// The user that Portico logs in as may change the cluster.
    pub(super) rules_cluster: bool,
}

pub(super) fn probe(address: &Address, config: &Config) -> Result<Probe> {
    let mut node = Connection::open(address, config.connect_timeout).context("cannot connect")?;
    log_in(&mut node, config).context("cannot log in")?;
    let nodes = node.ask(&["CLUSTER", "NODES"]).context("CLUSTER NODES")?;
    let cluster = node.ask(&["CLUSTER", "INFO"]).context("CLUSTER INFO")?;
    let server = node.ask(&["INFO", "server"]).context("INFO server")?;
    let numbers = field(&server, "redis_version").unwrap_or_default();
    ensure!(is_served(numbers), "{}", not_served(numbers));
    let denied =
        |reply: &BytesFrame| matches!(reply, BytesFrame::Error(error) if error.starts_with("NOPERM"));
    let rules_cluster = !denied(&node.call(NOT_NEEDED)?);
    let mut refused = Vec::new();
    for (command, cost) in NEEDED {
        if let BytesFrame::Error(error) = node.call(command)? {
            let name = command.iter().take(2).copied().collect::<Vec<_>>().join(" ");
            refused.push(format!("{name}: {error}; {cost}"));
        }
    }
    let version = field(&server, "valkey_version").map(|version| format!("Valkey {version}"));
    let redis = || field(&server, "redis_version").map(|version| format!("Redis {version}"));
    Ok(Probe {
        view: parse(&nodes, address).context("cannot read CLUSTER NODES")?,
        version: version.or_else(redis).unwrap_or_else(|| "unknown version".to_owned()),
        state: field(&cluster, "cluster_state").unwrap_or("unknown").to_owned(),
        refused,
        rules_cluster,
    })
}

fn log_in(node: &mut Connection, config: &Config) -> Result<()> {
    let Some(password) = &config.node_password else { return Ok(()) };
    let mut command = vec!["AUTH"];
    command.extend(config.node_username.as_deref());
    command.push(password.expose());
    match node.call(&command)? {
        error @ BytesFrame::Error(_) => anyhow::bail!("{}", text(&error).unwrap_or_default()),
        _ => Ok(()),
    }
}

/// The value of `name:value` in an INFO text.
fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
}
