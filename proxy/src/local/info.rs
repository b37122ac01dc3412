//! INFO for the whole: the masters' texts made into one server's, with what is Portico's own put in its place.

use std::collections::HashMap;
use std::fmt::Write as _;

use crate::config::Config;
use crate::pubsub::Kind;
use crate::stats::{Shared, Totals};

/// Fields that are counts or sizes: a whole is the sum of its parts.
fn is_summed(field: &str) -> bool {
    const PREFIXES: [&str; 14] = [
        "used_memory",
        "total_",
        "keyspace_",
        "expired_",
        "evicted_",
        "instantaneous_",
        "used_cpu_",
        "mem_",
        "sync_",
        "errorstat_",
        "cmdstat_",
        "rdb_changes",
        "lazyfree",
        "allocator_",
    ];
    const EXACT: [&str; 12] = [
        "active_defrag_hits",
        "active_defrag_misses",
        "active_defrag_key_hits",
        "active_defrag_key_misses",
        "unexpected_error_replies",
        "tracking_total_keys",
        "tracking_total_items",
        "number_of_cached_scripts",
        "number_of_functions",
        "number_of_libraries",
        "expire_cycle_cpu_milliseconds",
        "maxmemory",
    ];
    let ratio = field.ends_with("_human") || field.ends_with("_perc") || field.contains("ratio");
    !ratio && (EXACT.contains(&field) || PREFIXES.iter().any(|prefix| field.starts_with(prefix)))
}

/// Adds two values of one field: integers, decimals, or lists of `name=value`.
fn add(field: &str, a: &str, b: &str) -> String {
    if a.contains('=') {
        return add_list(a, b);
    }
    if let (Ok(a), Ok(b)) = (a.parse::<i128>(), b.parse::<i128>()) {
        return (a + b).to_string();
    }
    let decimals = if field.starts_with("used_cpu") { 6 } else { 2 };
    match (a.parse::<f64>(), b.parse::<f64>()) {
        (Ok(a), Ok(b)) => format!("{:.decimals$}", a + b),
        _ => a.to_owned(),
    }
}

/// `calls=2,usec=30,usec_per_call=15.00` and `keys=2,expires=1,avg_ttl=9`.
fn add_list(a: &str, b: &str) -> String {
    let pairs = |text: &str| -> Vec<(String, f64)> {
        text.split(',')
            .filter_map(|pair| pair.split_once('='))
            .map(|(k, v)| (k.to_owned(), v.parse().unwrap_or(0.0)))
            .collect()
    };
    let (first, second) = (pairs(a), pairs(b));
    let value = |list: &[(String, f64)], name: &str| {
        list.iter().find(|(field, _)| field == name).map_or(0.0, |&(_, value)| value)
    };
    let both = |name: &str| value(&first, name) + value(&second, name);
    let parts = first.iter().map(|(name, own)| match name.as_str() {
        "usec_per_call" => format!("{name}={:.2}", both("usec") / both("calls").max(1.0)),
        "avg_ttl" => {
            let weight = |list: &[(String, f64)]| value(list, "avg_ttl") * value(list, "expires");
            let mean = (weight(&first) + weight(&second)) / both("expires").max(1.0);
            format!("{name}={mean:.0}")
        }
        // A percentile of a whole is at most the highest of its parts'.
        name if name.starts_with('p') => format!("{name}={:.3}", own.max(value(&second, name))),
        name => format!("{name}={:.0}", both(name)),
    });
    parts.collect::<Vec<_>>().join(",")
}

/// Bytes as INFO's `_human` fields tell them.
fn human(bytes: f64) -> String {
    let units = [(1u64 << 30, 'G'), (1 << 20, 'M'), (1 << 10, 'K')];
    match units.iter().find(|(size, _)| bytes >= *size as f64) {
        Some((size, unit)) => format!("{:.2}{unit}", bytes / *size as f64),
        None => format!("{bytes:.0}B"),
    }
}

/// One INFO from the masters' texts. `# Portico` is added when `own` is set.
#[must_use]
pub fn info(texts: &[&[u8]], own: bool, shared: &Shared, config: &Config) -> String {
    let texts: Vec<_> = texts.iter().map(|text| String::from_utf8_lossy(text)).collect();
    let fields = |text: &str| -> Vec<(String, String)> {
        text.lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .collect()
    };
    let mut sums: HashMap<String, String> = HashMap::new();
    for text in &texts {
        for (field, value) in fields(text) {
            let known = sums.get(&field);
            let summed = match known {
                Some(known) if is_summed(&field) || field.starts_with("db") => add(&field, known, &value),
                Some(_) => continue,
                None => value,
            };
            sums.insert(field, summed);
        }
    }
    let totals = shared.totals();
    let mut told = std::collections::HashSet::new();
    let mut out = String::new();
    let mut section = String::new();
    for line in texts.first().map_or("", |text| text.as_ref()).lines() {
        if let Some(name) = line.strip_prefix("# ") {
            // What only other masters have (a command's or an error's statistics) ends its section.
            rest_of_section(&section, &sums, &mut told, &mut out);
            name.clone_into(&mut section);
        }
        let Some((field, _)) = line.split_once(':') else {
            if line.is_empty() {
                rest_of_section(&section, &sums, &mut told, &mut out);
            }
            let _ = write!(out, "{line}\r\n");
            continue;
        };
        if field.starts_with("slave") && field != "slave_expires_tracked_keys" {
            continue;
        }
        told.insert(field.to_owned());
        let value = portico_value(field, &sums, &totals, shared, config)
            .or_else(|| sums.get(field).cloned())
            .unwrap_or_default();
        let _ = write!(out, "{field}:{value}\r\n");
    }
    rest_of_section(&section, &sums, &mut told, &mut out);
    if own {
        portico_section(&totals, texts.len(), shared, &mut out);
    }
    out
}

/// Fields of sections whose lines differ from master to master that the first master did not have.
fn rest_of_section(
    section: &str,
    sums: &HashMap<String, String>,
    told: &mut std::collections::HashSet<String>,
    out: &mut String,
) {
    let prefix = match section {
        "Commandstats" => "cmdstat_",
        "Errorstats" => "errorstat_",
        "Latencystats" => "latency_percentiles_usec_",
        "Keyspace" => "db",
        _ => return,
    };
    let mut rest: Vec<_> =
        sums.iter().filter(|(field, _)| field.starts_with(prefix) && !told.contains(*field)).collect();
    rest.sort();
    for (field, value) in rest {
        told.insert(field.clone());
        let _ = write!(out, "{field}:{value}\r\n");
    }
}

/// What is Portico's to say instead of a node's.
fn portico_value(
    field: &str,
    sums: &HashMap<String, String>,
    totals: &Totals,
    shared: &Shared,
    config: &Config,
) -> Option<String> {
    let uptime = shared.started.elapsed().as_secs();
    Some(match field {
        "redis_mode" => "standalone".to_owned(),
        "cluster_enabled" => "0".to_owned(),
        "role" => "master".to_owned(),
        "connected_slaves" => "0".to_owned(),
        "run_id" => shared.run_id.clone(),
        "process_id" => std::process::id().to_string(),
        "tcp_port" => shared.port.to_string(),
        "uptime_in_seconds" => uptime.to_string(),
        "uptime_in_days" => (uptime / 86_400).to_string(),
        "connected_clients" => shared.clients().to_string(),
        "tracking_clients" => shared.tracking_clients().to_string(),
        "cluster_connections" | "blocked_clients" | "clients_in_timeout_table" => "0".to_owned(),
        "pubsub_channels" => shared.pubsub.len(Kind::Channel).to_string(),
        "pubsub_patterns" => shared.pubsub.len(Kind::Pattern).to_string(),
        "pubsubshard_channels" => shared.pubsub.len(Kind::Shard).to_string(),
        "maxclients" => config.maxclients.to_string(),
        "total_connections_received" => totals.counters.connections.to_string(),
        "rejected_connections" => totals.counters.rejected_connections.to_string(),
        field if field.ends_with("_human") => human(sums.get(field.strip_suffix("_human")?)?.parse().ok()?),
        _ => return None,
    })
}

fn portico_section(totals: &Totals, masters: usize, shared: &Shared, out: &mut String) {
    if !out.is_empty() && !out.ends_with("\r\n\r\n") {
        out.push_str("\r\n");
    }
    let version = env!("CARGO_PKG_VERSION");
    let _ = write!(out, "# Portico\r\nportico_version:{version}\r\nportico_workers:{}\r\n", shared.workers);
    let _ = write!(out, "portico_masters:{masters}\r\nportico_node_connections:{}\r\n", totals.links);
    for (worker, load) in shared.loads().enumerate() {
        let (clients, busy) = (load.clients(), f64::from(load.busy()) / 1000.0);
        let _ = write!(out, "portico_worker{worker}:clients={clients},busy={busy:.3}\r\n");
    }
    for (name, value) in totals.counters.named() {
        let _ = write!(out, "portico_{name}:{value}\r\n");
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test's time begins at any instant")]
mod tests {
    use super::*;
    use std::time::{Instant, SystemTime};

    #[test]
    fn a_whole_is_told_as_one_server() {
        let a = "# Server\r\nredis_version:7.0.15\r\nredis_mode:cluster\r\n\r\n# Memory\r\nused_memory:1048576\r\nused_memory_human:1.00M\r\n\r\n# Commandstats\r\ncmdstat_get:calls=2,usec=10,usec_per_call=5.00\r\n\r\n# Keyspace\r\ndb0:keys=2,expires=1,avg_ttl=10\r\n";
        let b = "# Server\r\nredis_version:7.0.15\r\nredis_mode:cluster\r\n\r\n# Memory\r\nused_memory:1048576\r\nused_memory_human:1.00M\r\n\r\n# Commandstats\r\ncmdstat_get:calls=1,usec=20,usec_per_call=20.00\r\ncmdstat_set:calls=1,usec=1,usec_per_call=1.00\r\n\r\n# Keyspace\r\ndb0:keys=3,expires=3,avg_ttl=50\r\n";
        let shared = Shared::new(1, 6379, Instant::now(), SystemTime::UNIX_EPOCH);
        let told = info(&[a.as_bytes(), b.as_bytes()], false, &shared, &Config::default());
        for line in [
            "redis_mode:standalone",
            "used_memory:2097152",
            "used_memory_human:2.00M",
            "cmdstat_get:calls=3,usec=30,usec_per_call=10.00",
            "cmdstat_set:calls=1,usec=1,usec_per_call=1.00",
            "db0:keys=5,expires=4,avg_ttl=40",
        ] {
            assert!(told.lines().any(|told| told == line), "{line} is missing in {told}");
        }
    }
}
