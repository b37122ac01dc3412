//! The layers, every bad value, and that no error shows a secret.

use std::collections::HashMap;
use std::io::Write;
use std::time::Duration;

use clap::Command;
use portico_slots::Address;

use super::*;

fn command() -> Command {
    Command::new("portico").args(arguments())
}

fn load(flags: &[&str], env: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let env: HashMap<_, _> = env.iter().copied().collect();
    let args = std::iter::once("portico").chain(flags.iter().copied());
    let matches = command().try_get_matches_from(args).expect("flags that clap takes");
    Config::load(&matches, |name| env.get(name).map(|value| (*value).to_owned()))
}

/// With a configuration file of this text, and nodes from the environment.
fn load_file(text: &str, flags: &[&str], env: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let mut file = tempfile::Builder::new().suffix(".toml").tempfile().expect("a temporary file");
    file.write_all(text.as_bytes()).expect("written");
    let path = file.path().to_str().expect("UTF-8");
    load(&[flags, &["--config", path]].concat(), &[env, &[("PORTICO_NODES", "a:1")]].concat())
}

fn message(result: Result<Config, ConfigError>) -> String {
    result.expect_err("refused").to_string()
}

#[test]
fn flags_win_over_environment_over_file_over_default() {
    let file = "port = 1\ntimeout = 1\nmaxclients = 1\n";
    let config = load_file(file, &["--port", "3"], &[("PORTICO_PORT", "2"), ("PORTICO_TIMEOUT", "2")]);
    let config = config.expect("valid");
    assert_eq!((config.port, config.timeout, config.maxclients), (3, Duration::from_secs(2), 1));
    assert_eq!(config.tcp_backlog, 511);
}

#[test]
fn the_file_can_be_named_by_the_environment_and_may_set_everything() {
    let directory = tempfile::tempdir().expect("a folder");
    let secret = directory.path().join("password");
    std::fs::write(&secret, "hunter2\r\n").expect("written");
    let file = directory.path().join("portico.toml");
    let text = format!(
        "nodes = [\"10.0.0.1:7000\", \"[::1]:7001\"]\nbind = \"0.0.0.0 -::*\"\nunixsocketperm = 770\n\
         proto-max-bulk-len = \"1gb\"\nrequirepass-file = {secret:?}\nnode-address-map = [\"a=b\", \"c:1=d:2\"]\n\
         cross-slot = \"Refuse\"\npipeline-order = \"strict\"\nloglevel = \"debug\"\nlog-format = \"json\"\n"
    );
    std::fs::write(&file, text).expect("written");
    let config = load(&[], &[("PORTICO_CONFIG", file.to_str().expect("UTF-8"))]).expect("valid");
    assert_eq!(config.nodes, [Address::new("10.0.0.1", 7000), Address::new("::1", 7001)]);
    assert_eq!(values::show_list(&config.bind), "0.0.0.0 -::");
    assert_eq!(config.unixsocketperm, Some(0o770));
    assert_eq!(config.proto_max_bulk_len, 1 << 30);
    assert_eq!(config.requirepass, Some(Secret::new("hunter2")));
    assert_eq!(config.cross_slot, CrossSlot::Refuse);
    assert_eq!(config.pipeline_order, PipelineOrder::Strict);
    assert_eq!((config.loglevel, config.log_format), (LogLevel::Debug, LogFormat::Json));
}

#[test]
fn the_environment_goes_by_several_names_and_empty_is_not_set() {
    let env = [("PORTICO_NODES", ""), ("REDIS_CLUSTER_NODES", ""), ("REDIS_CLUSTER_ADDRS", "a:1,b:2 c:3")];
    let config = load(&[], &env).expect("valid");
    assert_eq!(values::show_list(&config.nodes), "a:1 b:2 c:3");

    let env = [
        ("REDIS_CLUSTER_NODES", "a:1"),
        ("REDIS_USERNAME", "app"),
        ("REDIS_PASSWORD", "word"),
        ("REDIS_CLUSTER_MAX_REDIRECTIONS", "3"),
        ("REDIS_CLUSTER_SLOTS_REFRESH_INTERVAL", "2500"),
        ("PORTICO_CLIENT_OUTPUT_BUFFER_LIMIT", "64kb"),
    ];
    let config = load(&[], &env).expect("valid");
    assert_eq!(config.node_username.as_deref(), Some("app"));
    assert_eq!(config.node_password, Some(Secret::new("word")));
    assert_eq!((config.max_redirections, config.refresh_interval), (3, Duration::from_millis(2500)));
    assert_eq!(config.client_output_buffer_limit.normal.hard(), 65_536);
}

#[test]
fn lists_are_given_by_repeating_a_flag_or_in_one() {
    let flags = ["--nodes", "a:1", "b:2", "--nodes", "c:3,d:4", "--bind=-::1 10.0.0.1", "--port", "7"];
    let config = load(&flags, &[]).expect("valid");
    assert_eq!(values::show_list(&config.nodes), "a:1 b:2 c:3 d:4");
    assert_eq!(values::show_list(&config.bind), "-::1 10.0.0.1");
}

#[test]
fn a_url_carries_credentials_and_the_settings_of_their_own_win() {
    let url = "redis://app:p%40ss@a:1/0,redis://app:p%40ss@b:2,c:3";
    let config = load(&["--nodes", url], &[]).expect("valid");
    assert_eq!(values::show_list(&config.nodes), "a:1 b:2 c:3");
    assert_eq!(config.node_username.as_deref(), Some("app"));
    assert_eq!(config.node_password, Some(Secret::new("p@ss")));

    let config = load(&["--nodes", "redis://:one@a:1"], &[("REDIS_PASSWORD", "two")]).expect("valid");
    assert_eq!((config.node_username, config.node_password), (None, Some(Secret::new("two"))));

    // Those of an overruled list must not be sent to others.
    let config = load(&["--nodes", "b:2"], &[("REDIS_CLUSTER_NODES", "redis://u:p@a:1")]).expect("valid");
    assert_eq!((config.node_username, config.node_password), (None, None));
}

#[test]
fn a_password_may_come_from_a_file_but_not_twice_on_one_level() {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), "from file\n").expect("written");
    let path = file.path().to_str().expect("UTF-8");
    let nodes = ("PORTICO_NODES", "a:1");

    let config = load(&[], &[nodes, ("REDIS_PASSWORD_FILE", path)]).expect("valid");
    assert_eq!(config.node_password, Some(Secret::new("from file")));
    let config =
        load(&["--requirepass", "-flag"], &[nodes, ("PORTICO_REQUIREPASS_FILE", path)]).expect("valid");
    assert_eq!(config.requirepass, Some(Secret::new("-flag")));
    let config =
        load(&["--requirepass-file", path], &[nodes, ("PORTICO_REQUIREPASS", "env")]).expect("valid");
    assert_eq!(config.requirepass, Some(Secret::new("from file")));

    let both = message(load(&[], &[nodes, ("REDIS_PASSWORD", "word"), ("REDIS_PASSWORD_FILE", path)]));
    assert_eq!(
        both,
        "environment variable REDIS_PASSWORD_FILE: node-password-file and node-password (given by environment \
         variable REDIS_PASSWORD) exclude each other: give one of them"
    );
    let absent = message(load(&["--requirepass-file", "/absent"], &[nodes]));
    assert!(
        absent.contains("\"/absent\", but must be a file that holds the password (No such file"),
        "{absent}"
    );
}

#[test]
fn a_bad_value_is_named_with_its_origin_and_what_is_allowed() {
    let cases = [
        ("bind", "localhost", "must be IP addresses"),
        ("port", "65536", "must be a number from 0 to 65535"),
        ("port", "-1", "must be a number from 0 to 65535"),
        ("unixsocketperm", "888", "must be permission bits in octal"),
        ("unixsocketperm", "7777", "must be permission bits in octal"),
        ("maxclients", "0", "must be a number from 1 to 1000000"),
        ("timeout", "1s", "must be a number from 0 to 2147483647"),
        ("tcp-keepalive", "-1", "must be a number from 0 to"),
        ("tcp-backlog", "0", "must be a number from 1 to"),
        ("workers", "257", "must be a number from 1 to 256"),
        ("nodes", "a", "must be HOST:PORT or redis://"),
        ("nodes", ",", "must be HOST:PORT or redis://"),
        ("nodes", "rediss://a:1", "has no TLS"),
        ("nodes", "redis://u:%zz@a:1", "percent-encoded"),
        ("nodes", "redis://u:p@a:1 redis://u:q@b:2", "the same credentials"),
        ("node-address-map", "a:1", "must be ANNOUNCED=REACHABLE pairs"),
        ("node-address-map", "a:x=b", "must be ANNOUNCED=REACHABLE pairs"),
        ("cross-slot", "all", "must be one of: refuse, fan-out, emulate"),
        ("pipeline-order", "none", "must be one of: slot, signal, strict"),
        ("max-redirections", "x", "must be a number from 1 to 1000"),
        ("failover-timeout", "3600001", "must be a number from 0 to 3600000"),
        ("tryagain-timeout", "", "must be a number from 0 to 3600000"),
        ("connect-timeout", "0", "must be a number from 1 to 3600000"),
        ("refresh-interval", "99", "must be a number from 100 to 3600000"),
        ("refresh-debounce", "60001", "must be a number from 0 to 60000"),
        ("proto-max-bulk-len", "1023kb", "must be a size from 1mb to"),
        ("client-output-buffer-limit", "0", "must be a size from 64kb to"),
        ("client-output-buffer-limit", "99999999999gb", "must be a size from 64kb to"),
        ("client-query-buffer-limit", "1tb", "must be a size from 1mb to"),
        ("loglevel", "info", "must be one of: debug, verbose, notice, warning, nothing"),
        ("log-format", "xml", "must be one of: text, json"),
    ];
    for (name, value, allowed) in cases {
        let text = message(load(&[&format!("--{name}={value}")], &[]));
        assert!(text.starts_with(&format!("flag --{name}: {name} is ")), "{text}");
        assert!(text.contains(allowed), "{text}");
        assert!(value.contains('@') || text.contains(&format!("{value:?}")), "{text}");
    }
    let from_env = message(load(&[], &[("REDIS_CLUSTER_MAX_REDIRECTIONS", "many")]));
    assert!(from_env.starts_with("environment variable REDIS_CLUSTER_MAX_REDIRECTIONS: max-redirections is"));
    let from_file = message(load_file("# Portico\n\nport = 70000\n", &[], &[]));
    assert!(from_file.contains(".toml:3: port is \"70000\", but must be a number from 0 to"), "{from_file}");
    let kind = message(load_file("port = true", &[], &[]));
    assert!(kind.contains(".toml:1: port is a boolean, but must be a string, a whole number"), "{kind}");
}

#[test]
fn an_unknown_key_is_refused_with_the_nearest_name() {
    let cases = [
        ("max_clients", "; did you mean \"maxclients\"?"),
        ("requirepas", "; did you mean \"requirepass\"?"),
        ("log-level", "; did you mean \"loglevel\"?"),
        ("node", "; did you mean \"nodes\"?"),
        ("appendonly", ""),
    ];
    for (key, hint) in cases {
        let text = message(load_file(&format!("port = 1\n{key} = 'x'\n"), &[], &[]));
        assert!(text.ends_with(&format!(".toml:2: there is no setting {key:?}{hint}")), "{text}");
    }
    let table = message(load_file("[limits]\nmaxclients = 1\n", &[], &[]));
    assert!(table.contains(".toml:1: there is no setting \"limits\""), "{table}");
    let syntax = message(load_file("port = 1\nrequirepass = 'hunter2\n", &[], &[]));
    assert!(syntax.contains(".toml:2: ") && !syntax.contains("hunter2"), "{syntax}");
    let absent = message(load(&["--config", "/absent.toml"], &[]));
    assert!(absent.starts_with("cannot read the configuration file /absent.toml: No such file"), "{absent}");
}

#[test]
fn a_cluster_and_a_listener_are_needed() {
    assert!(message(load(&[], &[])).starts_with("no cluster to serve: name at least one"));
    assert!(message(load(&["--nodes", "a:1", "--port", "0"], &[])).starts_with("nothing to listen on"));
    load(&["--nodes", "a:1", "--port", "0", "--unixsocket", "/tmp/s"], &[])
        .expect("a Unix socket alone will do");
}

#[test]
fn secrets_are_never_shown() {
    let flags = ["--nodes", "redis://u:hunter2@a:1", "--requirepass", "hunter2"];
    let config = load(&flags, &[]).expect("valid");
    assert!(!format!("{config:?}").contains("hunter2"));
    for setting in SETTINGS {
        assert!(!setting.show(&config).contains("hunter2"), "{}", setting.name);
    }
    for nodes in ["redis://u:hunter2@a", "redis://u:hunter2,a:1", "u:hunter2@a:1"] {
        let text = message(load(&["--nodes", nodes], &[]));
        assert!(!text.contains("hunter2") && text.contains("(secret)"), "{text}");
    }
    let text = message(load_file("node-password = { is = 'hunter2' }", &[], &[]));
    assert!(!text.contains("hunter2"), "{text}");
}

#[test]
fn only_secrets_are_hidden() {
    let refused = |nodes: &str| message(load(&["--nodes", nodes], &[]));
    assert!(refused("tcp://10.0.0.1:6379").contains("is \"tcp://10.0.0.1:6379\", but"));
    assert!(refused("rediss://10.0.0.1:6379").contains("is \"rediss://10.0.0.1:6379\", but"));
    let text = refused("redis://u:hunter2@a:1,redis://v:hunter3@b:x");
    assert!(text.contains("is \"redis://(secret)@b:x\", but"), "{text}");
    for nodes in ["redis://u:hunter2", "redis://u:hunter2, b:1"] {
        assert!(refused(nodes).contains("is (secret), but"), "{nodes}");
    }
}

#[test]
fn what_others_set_does_not_stop_the_start() {
    let link = ("PORTICO_PORT", "tcp://10.0.0.1:6380");
    let config = load(&["--nodes", "a:1"], &[link]).expect("valid");
    assert_eq!(config.port, 6379);
    let seconds = |value| load(&["--nodes", "a:1"], &[("REDIS_CLUSTER_SLOTS_REFRESH_INTERVAL", value)]);
    let config = seconds("10").expect("valid");
    assert_eq!(config.refresh_interval, Duration::from_secs(10));
    assert_eq!(config.remarks.len(), 1);
    assert!(config.remarks[0].text.contains("taken for seconds"), "{:?}", config.remarks);
    let config = seconds("5000").expect("valid");
    assert_eq!((config.refresh_interval, config.remarks.len()), (Duration::from_secs(5), 0));
    for refused in ["0", "x"] {
        assert!(message(seconds(refused)).contains("must be a number from 100"), "{refused}");
    }
    let own = load(&["--nodes", "a:1"], &[("PORTICO_REFRESH_INTERVAL", "10")]);
    assert!(message(own).contains("must be a number from 100"), "Portico's own name has one unit");
}

#[test]
fn a_database_that_no_cluster_has_is_told_of() {
    for (nodes, told) in [
        ("redis://a:1", None),
        ("redis://a:1/,redis://b:1/0", None),
        ("redis://u:p@a:1/3", Some("/3 behind a:1")),
        ("redis://a:1/0?timeout=5", Some("/0?.. behind a:1")),
        ("redis://a:1?password=hunter2", Some("?.. behind a:1")),
    ] {
        let config = load(&["--nodes", nodes], &[]).expect(nodes);
        let texts: Vec<_> = config.remarks.iter().map(|remark| remark.text.as_str()).collect();
        assert_eq!(texts.len(), usize::from(told.is_some()), "{nodes}: {texts:?}");
        assert!(told.is_none_or(|told| texts[0].contains(told)), "{nodes}: {texts:?}");
    }
}

#[test]
fn what_is_shown_reads_back_as_the_same() {
    let flags =
        ["--nodes", "a:1", "[::1]:2", "--node-address-map", "a:1=[::1]:2", "::1=b", "--unixsocketperm", "70"];
    let config = load(&flags, &[]).expect("valid");
    let mut copy = Config::default();
    for setting in SETTINGS.iter().filter(|setting| !setting.show(&config).is_empty()) {
        setting.set(&mut copy, &setting.show(&config)).expect(setting.name);
    }
    assert_eq!(copy, config);
}

#[test]
fn sizes_have_the_units_of_redis_conf() {
    let sizes = [("1", 1), ("7b", 7), ("2k", 2_000), ("2Kb", 2_048), ("3m", 3_000_000), ("3MB", 3 << 20)];
    for (text, bytes) in sizes {
        assert_eq!(values::memory(text, 0..=u64::MAX), Ok(bytes), "{text}");
        assert_eq!(values::memory(&values::show_memory(bytes), 0..=u64::MAX), Ok(bytes), "{text}");
    }
    for text in ["", "kb", "-1", "1.5gb", "1 kb", "18446744073709551615kb"] {
        values::memory(text, 0..=u64::MAX).expect_err(text);
    }
}

#[test]
fn announced_addresses_are_mapped() {
    let map: AddressMap = "10.0.0.1:7000=localhost:17000, 10.0.0.1=gateway [::1]=::2".parse().expect("valid");
    for (announced, reached) in [
        ("10.0.0.1:7000", "localhost:17000"),
        ("10.0.0.1:7001", "gateway:7001"),
        ("[::1]:7000", "[::2]:7000"),
        ("10.0.0.2:7000", "10.0.0.2:7000"),
    ] {
        let announced: Address = announced.parse().expect("an address");
        assert_eq!(map.map(&announced).to_string(), reached);
    }
}

#[test]
fn the_help_has_each_setting_with_default_unit_and_environment() {
    command().debug_assert();
    let help = command().render_long_help().to_string();
    for setting in SETTINGS {
        assert!(help.contains(&format!("--{} <", setting.name)), "{}", setting.name);
        assert!(setting.environment().all(|name| help.contains(&name)), "{}", setting.name);
    }
    assert!(help.contains("[default: 127.0.0.1 -::1]") && help.contains("[default: 512mb]"));
}
