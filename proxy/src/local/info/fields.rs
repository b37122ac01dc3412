//! What becomes of each field of INFO when several masters are told as one server: the one table that says so.

use crate::pubsub::matches;

/// What one server would say of a field that several masters tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Portico's own: it knows better than any node what its clients are served.
    Own,
    /// The sum: counts, sizes, rates. Of lists (`keys=2,expires=1`) name by name.
    Sum,
    /// The highest.
    Max,
    /// The lowest.
    Min,
    /// The first that is not `ok`.
    Worst,
    /// As the first master that answered tells it: masters of one cluster have it alike, or it cannot be merged.
    One,
    /// Made anew from the merged value of the field without `_human`.
    Human,
    /// Made anew: one merged field divided by another, with two decimals.
    Ratio(&'static str, &'static str),
    /// Made anew: as [`Rule::Ratio`], in per cent, of the first and of the second less the third (if there is one).
    Percent(&'static str, &'static str, &'static str),
    /// Not told: it is about one node's place in the cluster or one node's connections.
    Absent,
}

use Rule::{Absent, Human, Max, Min, One, Own, Percent, Ratio, Sum, Worst};

/// Every field of the servers that Portico serves (`INFO everything` of Redis 6.2 to 8 and Valkey 8 and 9), by section;
/// `*` stands for the rest of a name. The first line of a section that fits decides.
pub static FIELDS: &[(&str, &[(&str, Rule)])] = &[
    (
        "Server",
        &[
            ("redis_mode", Own),
            ("server_mode", Own),
            ("process_id", Own),
            ("process_supervised", Own),
            ("run_id", Own),
            ("tcp_port", Own),
            ("server_time_usec", Own),
            ("uptime_in_seconds", Own),
            ("uptime_in_days", Own),
            ("io_threads_active", Max),
            // Where a node listens is nobody's business.
            ("listener*", Absent),
            ("shutdown_in_milliseconds", Max),
            ("redis_*", One),
            ("valkey_*", One),
            ("server_name", One),
            ("availability_zone", One),
            ("os", One),
            ("arch_bits", One),
            ("monotonic_clock", One),
            ("multiplexing_api", One),
            ("atomicvar_api", One),
            ("gcc_version", One),
            ("hz", One),
            ("configured_hz", One),
            ("clients_hz", One),
            ("lru_clock", One),
            ("executable", One),
            ("config_file", One),
        ],
    ),
    (
        "Clients",
        &[
            ("connected_clients", Own),
            ("cluster_connections", Own),
            ("maxclients", Own),
            ("blocked_clients", Own),
            ("tracking_clients", Own),
            ("clients_in_timeout_table", Own),
            ("pubsub_clients", Absent),
            ("watching_clients", Absent),
            ("paused_*", Absent),
            ("client_recent_max_*_buffer", Max),
            ("client_longest_output_list", Max),
            ("client_biggest_input_buf", Max),
            ("total_watched_keys", Sum),
            ("total_blocking_keys", Sum),
            ("total_blocking_keys_on_nokey", Sum),
        ],
    ),
    (
        "Memory",
        &[
            ("used_memory_peak_perc", Percent("used_memory", "used_memory_peak", "")),
            (
                "used_memory_dataset_perc",
                Percent("used_memory_dataset", "used_memory", "used_memory_startup"),
            ),
            ("used_memory_peak_time", Max),
            ("allocator_frag_ratio", Ratio("allocator_active", "allocator_allocated")),
            ("allocator_rss_ratio", Ratio("allocator_resident", "allocator_active")),
            ("rss_overhead_ratio", Ratio("used_memory_rss", "allocator_resident")),
            ("mem_fragmentation_ratio", Ratio("used_memory_rss", "used_memory")),
            ("*_human", Human),
            // Of one machine; nothing tells which nodes share one.
            ("total_system_memory", Max),
            ("maxmemory_policy", One),
            ("mem_allocator", One),
            ("number_of_*", Max),
            ("active_defrag_running", Max),
            ("used_memory*", Sum),
            ("allocator_*", Sum),
            ("maxmemory", Sum),
            ("rss_overhead_bytes", Sum),
            ("mem_*", Sum),
            ("lazyfree*", Sum),
            ("databases_hashtable_rehashing_count", Sum),
            ("replicas_repl_buffer_*", Sum),
        ],
    ),
    (
        "Persistence",
        &[
            ("rdb_last_save_time", Min),
            ("loading_start_time", Min),
            ("loading_loaded_perc", Min),
            ("*_status", Worst),
            ("*_cow_*", Sum),
            ("current_cow_size_age", Max),
            ("loading", Max),
            ("async_loading", Max),
            ("*_in_progress", Max),
            ("aof_rewrite_scheduled", Max),
            ("aof_enabled", Max),
            ("*_time_sec", Max),
            ("*_seconds", Max),
            ("*_perc", Max),
            ("rdb_saves", Max),
            ("aof_rewrites*", Max),
            ("current_cow_peak", Sum),
            ("current_save_keys_*", Sum),
            ("rdb_*", Sum),
            ("aof_*", Sum),
            ("loading_*", Sum),
        ],
    ),
    (
        "Stats",
        &[
            ("total_connections_received", Own),
            ("rejected_connections", Own),
            ("pubsub_channels", Own),
            ("pubsub_patterns", Own),
            ("pubsubshard_channels", Own),
            ("expired_stale_perc", Max),
            ("latest_fork_usec", Max),
            ("current_*_time", Max),
            ("instantaneous_eventloop_duration_usec", Max),
            ("tracking_total_prefixes", Max),
            ("total_*", Sum),
            ("instantaneous_*", Sum),
            ("sync_*", Sum),
            ("expire*", Sum),
            ("evicted_*", Sum),
            ("keyspace_*", Sum),
            ("migrate_cached_sockets", Sum),
            ("slave_expires_tracked_keys", Sum),
            ("active_defrag_*", Sum),
            ("tracking_total_*", Sum),
            ("unexpected_error_replies", Sum),
            ("dump_payload_sanitizations", Sum),
            ("io_threaded_*", Sum),
            ("reply_buffer_*", Sum),
            ("eventloop_*", Sum),
            ("acl_access_denied_auth", Own),
            ("acl_access_denied_*", Sum),
            ("client_*_disconnections", Sum),
        ],
    ),
    (
        "Replication",
        &[
            ("role", Own),
            ("connected_slaves", Own),
            ("master_failover_state", Own),
            ("master_replid", Own),
            ("master_repl_offset", Own),
            ("repl_backlog_active", Own),
            ("repl_backlog_first_byte_offset", Own),
            ("repl_backlog_histlen", Own),
            ("master_replid2", One),
            ("second_repl_offset", One),
            ("repl_backlog_size", One),
            ("min_slaves_good_slaves", Absent),
            // A node's own replicas and master.
            ("slave*", Absent),
            ("master_*", Absent),
            ("replicas_waiting_psync", Absent),
            ("replicas_repl_buffer_*", Absent),
        ],
    ),
    ("CPU", &[("used_cpu_*", Sum), ("used_active_time_*", Sum)]),
    ("Modules", &[("module", One)]),
    ("Commandstats", &[("cmdstat_*", Sum)]),
    ("Errorstats", &[("errorstat_*", Sum)]),
    ("Latencystats", &[("latency_percentiles_usec_*", Max)]),
    ("Cluster", &[("cluster_enabled", Own)]),
    // One node's place in the cluster, as CLUSTER INFO tells it.
    ("Cluster Info", &[("*", Absent)]),
    ("TLS", &[("tls_*_expires_in_seconds", Min), ("tls_*", One)]),
    ("Scripting Engines", &[("engine_*", Max), ("engines_*", Max)]),
    ("Keyspace", &[("db*", Sum)]),
    ("Keysizes", &[("db*", Sum)]),
    ("Threads", &[("io_thread_*", Sum)]),
    ("Scripting_engines", &[("engine_*", Max), ("engines_*", Max)]),
    ("Scriptingengines", &[("engine_*", Max), ("engines_*", Max)]),
    ("Debug", &[("eventloop_*", Sum), ("*", One)]),
];

/// The rule of a field. `None`: nobody has decided; it is told as [`Rule::One`], since a server that is newer than this
/// table, or a module, tells it.
#[must_use]
pub fn rule(section: &str, field: &str) -> Option<Rule> {
    let (_, fields) = FIELDS.iter().find(|(name, _)| *name == section)?;
    fields.iter().find(|(pattern, _)| matches(pattern.as_bytes(), field.as_bytes())).map(|&(_, rule)| rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_that_fits_decides() {
        for (section, field, wanted) in [
            ("Memory", "used_memory", Some(Sum)),
            ("Memory", "used_memory_rss_human", Some(Human)),
            ("Memory", "number_of_functions", Some(Max)),
            ("Clients", "client_recent_max_input_buffer", Some(Max)),
            ("Persistence", "rdb_last_cow_size", Some(Sum)),
            ("Persistence", "rdb_bgsave_in_progress", Some(Max)),
            ("Persistence", "aof_last_bgrewrite_status", Some(Worst)),
            ("Replication", "slave0", Some(Absent)),
            ("Keysizes", "db0_distrib_strings_sizes", Some(Sum)),
            ("Memory", "of_a_module", None),
            ("search_version", "search_version", None),
        ] {
            assert_eq!(rule(section, field), wanted, "{section}: {field}");
        }
    }
}
