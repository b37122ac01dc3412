//! INFO for the whole: the masters' texts made into one server's, with what is Portico's own put in its place.

mod combine;
mod fields;

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use portico_slots::Address;

pub use fields::{FIELDS, Rule, rule};

use crate::config::Config;
use crate::pubsub::Kind;
use crate::stats::{Shared, Totals};

/// A master, and what it says.
#[derive(Debug)]
pub struct Master<'t> {
    /// Where it is.
    pub address: Address,
    /// How many slots it owns.
    pub slots: usize,
    /// Its own INFO; `None` if it does not answer and never did.
    pub text: Option<Cow<'t, [u8]>>,
    /// How old that is, if it does not answer now.
    pub age: Option<Duration>,
}

/// What else than the masters' texts goes into INFO.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings<'a> {
    /// What all workers share.
    pub shared: &'a Shared,
    /// The settings.
    pub config: &'a Config,
    /// `redis_version` of the nodes.
    pub version: &'a str,
    /// The time.
    pub now: Instant,
}

/// A section's name, and its fields in their order.
type Section = (String, Vec<(String, String)>);

/// Whether the sections that were asked for (in lower case; none: those that INFO tells by itself) hold this one.
fn is_asked(sections: &[String], name: &str) -> bool {
    let name = name.to_lowercase();
    sections.is_empty()
        || sections
            .iter()
            .any(|section| *section == name || ["all", "everything", "default"].contains(&section.as_str()))
}

/// One server's INFO, for these sections' names (in lower case). Masters that do not answer are told with what they said last, and are named in `# Portico`.
#[must_use]
pub fn info(masters: &[Master<'_>], asked: &[String], around: Surroundings<'_>) -> String {
    let texts = masters.iter().filter_map(|master| master.text.as_deref());
    let sections: Vec<Section> = match union(texts) {
        sections if sections.is_empty() => own_sections(asked, around.version),
        sections => sections,
    };
    let merged: HashMap<&str, &str> = sections
        .iter()
        .flat_map(|(_, fields)| fields.iter().map(|(field, value)| (field.as_str(), value.as_str())))
        .collect();
    let totals = around.shared.totals();
    let mut out = String::new();
    let is_absent = |section: &str, field: &str| rule(section, field) == Some(Rule::Absent);
    for (section, fields) in &sections {
        // One that a server outside a cluster does not have.
        if !fields.is_empty() && fields.iter().all(|(field, _)| is_absent(section, field)) {
            continue;
        }
        if !out.is_empty() {
            out.push_str("\r\n");
        }
        let _ = write!(out, "# {section}\r\n");
        for (field, value) in fields {
            let value = match rule(section, field) {
                Some(Rule::Absent) => continue,
                Some(Rule::Own) => own_value(field, &totals, around).map_or(Cow::from(value), Cow::from),
                Some(rule) => combine::made_anew(rule, field, &merged).map_or(Cow::from(value), Cow::from),
                None => Cow::from(value),
            };
            let _ = write!(out, "{field}:{value}\r\n");
        }
    }
    if is_asked(asked, "portico") {
        if !out.is_empty() {
            out.push_str("\r\n");
        }
        portico_section(&totals, masters, around.shared, &mut out);
    }
    out
}

/// All sections and fields of all texts, in the order in which they are first met, merged.
fn union<'t>(texts: impl Iterator<Item = &'t [u8]>) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    let mut places: HashMap<(usize, String), usize> = HashMap::new();
    for text in texts {
        let text = String::from_utf8_lossy(text);
        let mut section = 0;
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("# ") {
                section = sections.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
                    sections.push((name.to_owned(), Vec::new()));
                    sections.len() - 1
                });
                continue;
            }
            let Some((field, value)) = line.split_once(':') else { continue };
            let Some((name, fields)) = sections.get_mut(section) else { continue };
            let place = (section, field.to_owned());
            if name == "Modules" {
                // A line for each module, all of one name.
                if !fields.iter().any(|(_, known)| known == value) {
                    fields.push((place.1, value.to_owned()));
                }
                continue;
            }
            match places.get(&place).and_then(|&at| fields.get_mut(at)) {
                Some((_, known)) => {
                    if let Some(merged) = combine::two(rule(name, field), field, known, value) {
                        *known = merged;
                    }
                }
                None => {
                    fields.push((field.to_owned(), value.to_owned()));
                    places.insert(place, fields.len() - 1);
                }
            }
        }
    }
    sections
}

/// What Portico can say by itself, when no master ever said anything.
fn own_sections(asked: &[String], version: &str) -> Vec<Section> {
    let own = |rows: &[(&str, Rule)]| -> Vec<(String, String)> {
        let mut fields: Vec<_> = rows
            .iter()
            .filter(|(_, rule)| *rule == Rule::Own)
            .map(|(field, _)| ((*field).to_owned(), String::new()))
            .collect();
        // Valkey's, and of 7.2 and later
        fields.retain(|(field, _)| field != "server_mode" && field != "acl_access_denied_auth");
        fields
    };
    let mut sections = Vec::new();
    for (name, rows) in FIELDS {
        let mut fields = own(rows);
        if *name == "Server" {
            fields.insert(0, ("redis_version".to_owned(), version.to_owned()));
        }
        if !fields.is_empty() && is_asked(asked, name) {
            sections.push(((*name).to_owned(), fields));
        }
    }
    sections
}

/// What is Portico's to say instead of a node's.
fn own_value(field: &str, totals: &Totals, around: Surroundings<'_>) -> Option<String> {
    let Surroundings { shared, config, now, .. } = around;
    let uptime = now.saturating_duration_since(shared.started).as_secs();
    Some(match field {
        "redis_mode" | "server_mode" => "standalone".to_owned(),
        "process_supervised" => "no".to_owned(),
        "role" => "master".to_owned(),
        "master_failover_state" => "no-failover".to_owned(),
        "run_id" | "master_replid" => shared.run_id.clone(),
        "process_id" => std::process::id().to_string(),
        "tcp_port" => shared.port.to_string(),
        "server_time_usec" => shared.time(now).as_micros().to_string(),
        "uptime_in_seconds" => uptime.to_string(),
        "uptime_in_days" => (uptime / 86_400).to_string(),
        "connected_clients" => shared.clients().to_string(),
        "tracking_clients" => shared.tracking_clients().to_string(),
        "blocked_clients" => totals.blocked.all.to_string(),
        "clients_in_timeout_table" => totals.blocked.timed.to_string(),
        "pubsub_channels" => shared.pubsub.len(Kind::Channel).to_string(),
        "pubsub_patterns" => shared.pubsub.len(Kind::Pattern).to_string(),
        "pubsubshard_channels" => shared.pubsub.len(Kind::Shard).to_string(),
        "maxclients" => config.maxclients.to_string(),
        "total_connections_received" => totals.counters.connections.to_string(),
        "acl_access_denied_auth" => shared.failed_logins.total().to_string(),
        "rejected_connections" => totals.counters.rejected_connections.to_string(),
        // One server without replicas and without a cluster.
        "cluster_enabled"
        | "cluster_connections"
        | "connected_slaves"
        | "master_repl_offset"
        | "repl_backlog_active"
        | "repl_backlog_first_byte_offset"
        | "repl_backlog_histlen" => "0".to_owned(),
        _ => return None,
    })
}

fn portico_section(totals: &Totals, masters: &[Master<'_>], shared: &Shared, out: &mut String) {
    let version = env!("CARGO_PKG_VERSION");
    let _ = write!(out, "# Portico\r\nportico_version:{version}\r\nportico_workers:{}\r\n", shared.workers);
    let silent = masters.iter().filter(|master| master.text.is_none() || master.age.is_some()).count();
    let _ = write!(
        out,
        "portico_masters:{}\r\nportico_masters_silent:{silent}\r\nportico_node_connections:{}\r\n",
        masters.len(),
        totals.links
    );
    for (number, master) in masters.iter().enumerate() {
        let Address { host, port } = &master.address;
        let state = if master.text.is_some() && master.age.is_none() { "online" } else { "silent" };
        let _ =
            write!(out, "portico_master{number}:ip={host},port={port},state={state},slots={}", master.slots);
        if let Some(age) = master.age {
            let _ = write!(out, ",figures_age_ms={}", age.as_millis());
        }
        for field in ["used_memory", "maxmemory"] {
            let text = master.text.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
            let mut lines = text.lines();
            let value = lines.find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
            if let Some(value) = value {
                let _ = write!(out, ",{field}={value}");
            }
        }
        out.push_str("\r\n");
    }
    for (worker, load) in shared.loads().enumerate() {
        let (clients, busy) = (load.clients(), f64::from(load.busy()) / 1000.0);
        let _ = write!(out, "portico_worker{worker}:clients={clients},busy={busy:.3}\r\n");
    }
    let _ = write!(
        out,
        "portico_masters_unheard:{}\r\nportico_failed_logins:{}\r\n",
        totals.unheard,
        shared.failed_logins.total()
    );
    for (name, value) in totals.counters.named() {
        let _ = write!(out, "portico_{name}:{value}\r\n");
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test's time begins at any instant")]
mod tests {
    use super::*;
    use std::time::SystemTime;

    fn told(texts: &[Option<&str>], asked: &[&str]) -> String {
        let now = Instant::now();
        let shared = Shared::new(&std::sync::Arc::new(Config::default()), 1, now, SystemTime::UNIX_EPOCH);
        let masters: Vec<Master<'_>> = texts
            .iter()
            .zip(7000..)
            .map(|(text, port)| Master {
                address: Address::new("127.0.0.1", port),
                slots: 100,
                text: text.map(|text| Cow::Borrowed(text.as_bytes())),
                age: None,
            })
            .collect();
        let asked: Vec<String> = asked.iter().map(|&name| name.to_owned()).collect();
        let config = Config::default();
        info(&masters, &asked, Surroundings { shared: &shared, config: &config, version: "7.0.15", now })
    }

    fn has(told: &str, lines: &[&str]) {
        for line in lines {
            assert!(told.lines().any(|told| told == *line), "{line} is missing in {told}");
        }
    }

    #[test]
    fn a_whole_is_told_as_one_server() {
        let a = "# Server\r\nredis_version:7.0.15\r\nredis_mode:cluster\r\n\r\n# Clients\r\nblocked_clients:7\r\n\r\n# Memory\r\nused_memory:1048576\r\nused_memory_human:1.00M\r\nused_memory_rss:4194304\r\nmem_fragmentation_ratio:4.00\r\nnumber_of_cached_scripts:2\r\n\r\n# Persistence\r\nrdb_bgsave_in_progress:0\r\nrdb_last_bgsave_status:ok\r\nrdb_last_save_time:20\r\n\r\n# Commandstats\r\ncmdstat_get:calls=2,usec=10,usec_per_call=5.00\r\n\r\n# Keyspace\r\ndb0:keys=2,expires=1,avg_ttl=10\r\n";
        let b = "# Server\r\nredis_version:7.0.15\r\nredis_mode:cluster\r\n\r\n# Clients\r\nblocked_clients:1\r\n\r\n# Memory\r\nused_memory:1048576\r\nused_memory_human:1.00M\r\nused_memory_rss:2097152\r\nmem_fragmentation_ratio:2.00\r\nnumber_of_cached_scripts:3\r\n\r\n# Persistence\r\nrdb_bgsave_in_progress:1\r\nrdb_last_bgsave_status:err\r\nrdb_last_save_time:10\r\n\r\n# Commandstats\r\ncmdstat_get:calls=1,usec=20,usec_per_call=20.00\r\ncmdstat_set:calls=1,usec=1,usec_per_call=1.00\r\n\r\n# Keyspace\r\ndb0:keys=3,expires=3,avg_ttl=50\r\n";
        let told = told(&[Some(a), Some(b)], &["all"]);
        has(
            &told,
            &[
                "redis_mode:standalone",
                "blocked_clients:0",
                "used_memory:2097152",
                "used_memory_human:2.00M",
                "mem_fragmentation_ratio:3.00",
                "number_of_cached_scripts:3",
                "rdb_bgsave_in_progress:1",
                "rdb_last_bgsave_status:err",
                "rdb_last_save_time:10",
                "cmdstat_get:calls=3,usec=30,usec_per_call=10.00",
                "cmdstat_set:calls=1,usec=1,usec_per_call=1.00",
                "db0:keys=5,expires=4,avg_ttl=40",
            ],
        );
    }

    #[test]
    fn sizes_of_keys_are_added_size_by_size() {
        let a = "# Keysizes\r\ndb0_distrib_strings_sizes:1=2,8=1\r\n";
        let b = "# Keysizes\r\ndb0_distrib_strings_sizes:1=1,2=4\r\ndb0_distrib_lists_items:1=1\r\n";
        has(
            &told(&[Some(a), Some(b)], &["keysizes"]),
            &["db0_distrib_strings_sizes:1=3,2=4,8=1", "db0_distrib_lists_items:1=1"],
        );
    }

    #[test]
    fn without_any_node_portico_says_what_it_knows() {
        let server = told(&[None], &["server"]);
        has(&server, &["# Server", "redis_version:7.0.15", "redis_mode:standalone", "tcp_port:6379"]);
        assert!(!server.contains("# Clients"), "{server}");
        let all = told(&[None], &[]);
        has(&all, &["connected_clients:0", "role:master", "portico_masters_silent:1"]);
        has(&all, &["portico_master0:ip=127.0.0.1,port=7000,state=silent,slots=100"]);
    }
}
