//! CONFIG through Portico where a dialogue with one Redis cannot show it: what is the endpoint's, what is the nodes', and
//! what a client can change of neither.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use portico::sandbox::{Cluster, ClusterOptions, Server};
use portico_tests::{Client, Portico};

/// A node's setting.
fn at(node: &Server, name: &str) -> Result<String> {
    let reply = node.connect()?.call(&["CONFIG", "GET", name])?;
    let redis_protocol::resp2::types::BytesFrame::Array(pair) = reply else { anyhow::bail!("{reply:?}") };
    portico::sandbox::text(pair.get(1).context("a value")?).context("a text")
}

#[test]
fn the_password_that_a_client_sets_is_the_endpoints() -> Result<()> {
    let cluster = Cluster::start(ClusterOptions::default())?;
    let portico = Portico::start(&cluster, &["--workers", "2"])?;
    let (mut client, mut other) = (portico.client()?, portico.client()?);
    other.expect("PING", "+PONG\r\n")?;
    client.expect("CONFIG SET requirepass sesame timeout 0", "+OK\r\n")?;
    let mut fresh = portico.client()?;
    fresh.expect("GET a", "-NOAUTH Authentication required.\r\n")?;
    fresh.expect("AUTH wrong", "-WRONGPASS invalid username-password pair or user is disabled.\r\n")?;
    fresh.expect("AUTH sesame", "+OK\r\n")?;
    // Where a connection of its own to the nodes is needed.
    fresh.expect("BLPOP none 0.01", "*-1\r\n")?;
    fresh.expect("CONFIG GET requirepass", "*2\r\n$11\r\nrequirepass\r\n$8\r\n(secret)\r\n")?;
    other.expect("GET a", "$-1\r\n")?; // was let in before
    for node in cluster.nodes() {
        ensure!(at(node, "requirepass")?.is_empty(), "a node has a password now");
    }
    let mut waiting = portico.client()?;
    waiting.expect("GET a", "-NOAUTH Authentication required.\r\n")?;
    client.expect("CONFIG SET requirepass \"\"", "+OK\r\n")?;
    waiting.expect("GET a", "$-1\r\n")?;
    portico.client()?.expect("GET a", "$-1\r\n")?;
    ensure!(!portico.log().contains("sesame"), "the log holds the password");
    portico.check_log()
}

#[test]
fn no_client_is_told_the_nodes_secrets_or_sets_them() -> Result<()> {
    const PASSWORD: &str = "node-secret";
    const HASH: usize = 64; // digits of a SHA-256
    let password = Some(PASSWORD.to_owned());
    let cluster = Cluster::start(ClusterOptions { password, ..ClusterOptions::default() })?;
    let portico = Portico::start(&cluster, &["--node-password", PASSWORD])?;
    let mut client = portico.client()?;
    for version in ["2", "3"] {
        client.line(&format!("HELLO {version}"))?;
        for line in [
            "CONFIG GET *",
            "CONFIG GET masterauth requirepass",
            "CONFIG GET [r]equirepass MASTERAUTH",
            "ACL LIST",
            "ACL GETUSER default",
        ] {
            let reply = client.text(line)?;
            ensure!(!reply.contains(PASSWORD), "{line}: {reply}");
            let hashed = reply.split(|c: char| !c.is_ascii_hexdigit()).find(|run| run.len() == HASH);
            ensure!(hashed.is_none(), "{line}: {reply}");
        }
    }
    for name in ["masterauth", "masteruser", "tls-key-file-pass"] {
        let reply = client.text(&format!("CONFIG SET {name} x hz 20"))?;
        ensure!(reply.starts_with("-ERR CONFIG SET failed") && reply.contains(name), "{reply}");
    }
    // In every transaction as well.
    client.line("HELLO 2")?;
    client.expect("MULTI", "+OK\r\n")?;
    client.expect("CONFIG GET masterauth", "+QUEUED\r\n")?;
    client.expect("CONFIG SET masterauth x", "+QUEUED\r\n")?;
    let reply = client.text("EXEC")?;
    ensure!(
        reply.starts_with(r"*2\r\n*2\r\n$10\r\nmasterauth\r\n$0\r\n\r\n-ERR CONFIG SET failed"),
        "{reply}"
    );
    for node in cluster.nodes() {
        ensure!(
            node.ask(&["CONFIG", "GET", "hz"]).is_err() || at(node, "hz").is_err() || at(node, "hz")? == "10"
        );
    }
    Ok(())
}

#[test]
fn a_node_is_not_moved_closed_or_renamed_by_a_client() -> Result<()> {
    let cluster = Cluster::start(ClusterOptions::default())?;
    let portico = Portico::start(&cluster, &[])?;
    let mut client = portico.client()?;
    for (name, value) in [
        ("port", "0"),
        ("bind", "127.0.0.1"),
        ("dir", "/"),
        ("dbfilename", "x"),
        ("cluster-node-timeout", "1"),
        ("cluster-announce-port", "1"),
        ("cluster-require-full-coverage", "no"),
        ("replica-announce-ip", "1.2.3.4"),
        ("tls-port", "1"),
        ("protected-mode", "yes"),
        ("maxmemory-clients", "1mb"),
        ("unixsocket", "x"),
    ] {
        let before: Vec<String> = cluster.nodes().iter().map(|node| at(node, name)).collect::<Result<_>>()?;
        let reply = client.text(&format!("CONFIG SET {name} {value}"))?;
        ensure!(reply.starts_with("-ERR CONFIG SET failed") && reply.contains(name), "{name}: {reply}");
        let after: Vec<String> = cluster.nodes().iter().map(|node| at(node, name)).collect::<Result<_>>()?;
        assert_eq!(before, after, "{name}");
    }
    // What closes clients closes those of Portico, and not its connections to the nodes.
    client.expect(
        "CONFIG SET timeout 1 maxclients 3 client-output-buffer-limit \"normal 1mb 0 0\"",
        "+OK\r\n",
    )?;
    for (node, name) in cluster.nodes().iter().zip(["timeout", "maxclients", "client-output-buffer-limit"]) {
        ensure!(
            !["1", "3"].contains(&at(node, name)?.as_str()) && !at(node, name)?.contains("1048576"),
            "{name}"
        );
    }
    let port = client.text("CONFIG GET port")?;
    ensure!(port.contains(&portico.port().to_string()), "{port}");
    portico.check_log()
}

#[test]
fn portico_s_own_settings_change_while_it_runs() -> Result<()> {
    let cluster = Cluster::start(ClusterOptions { masters: 1, ..ClusterOptions::default() })?;
    let portico = Portico::start(&cluster, &["--workers", "2"])?;
    let mut client = portico.client()?;
    client.expect("CONFIG SET maxclients 2", "+OK\r\n")?;
    let info = client.text("INFO clients")?;
    ensure!(info.contains("maxclients:2"), "{info}");
    let mut second = portico.client()?;
    second.expect("PING", "+PONG\r\n")?;
    let mut third = portico.client()?;
    assert_eq!(third.rest()?, b"-ERR max number of clients reached\r\n");
    client.expect("CONFIG SET maxclients 100 timeout 1", "+OK\r\n")?;
    let began = Instant::now();
    while !second.is_closed() {
        ensure!(began.elapsed() < Duration::from_secs(10), "an idle client is not closed");
        client.expect("PING", "+PONG\r\n")?;
        std::thread::sleep(Duration::from_millis(50));
    }
    client.expect("CONFIG SET timeout 0 proto-max-bulk-len 1mb loglevel debug", "+OK\r\n")?;
    let mut large = portico.client()?;
    large.send(b"*2\r\n$4\r\nPING\r\n$1048577\r\n")?;
    assert_eq!(large.rest()?, b"-ERR Protocol error: invalid bulk length\r\n");
    assert_eq!(at(&cluster.nodes()[0], "proto-max-bulk-len")?, "1048576");
    client.expect("CONFIG GET portico-timeout", "*2\r\n$15\r\nportico-timeout\r\n$1\r\n0\r\n")?;
    let rewritten = client.text("CONFIG REWRITE")?;
    ensure!(rewritten.starts_with("-ERR The server is running without a config file"), "{rewritten}");
    // What INFO tells of clients is Portico's, and begins anew.
    client.expect("CONFIG RESETSTAT", "+OK\r\n")?;
    let stats = client.text("INFO stats")?;
    ensure!(stats.contains(r"total_connections_received:0\r\n"), "{stats}");
    ensure!(stats.contains(r"rejected_connections:0\r\n"), "{stats}");
    Ok(())
}

fn wait_for(node: &Server, name: &str, value: &str) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(15);
    while at(node, name)? != value {
        ensure!(Instant::now() < deadline, "{name} is {} and not {value}", at(node, name)?);
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

#[test]
fn nodes_that_come_later_have_what_was_set() -> Result<()> {
    let mut cluster = Cluster::start(ClusterOptions { replicas: 1, ..ClusterOptions::default() })?;
    let portico = Portico::start(&cluster, &["--refresh-interval", "300"])?;
    let mut client = portico.client()?;
    client.expect("CONFIG SET maxmemory 300mb slowlog-max-len 77", "+OK\r\n")?;
    client.expect("CONFIG SET maxmemory-policy allkeys-lru", "+OK\r\n")?;
    client.expect("CONFIG GET maxmemory", "*2\r\n$9\r\nmaxmemory\r\n$9\r\n314572800\r\n")?;
    for node in cluster.nodes() {
        assert_eq!(at(node, "maxmemory")?, "104857600");
        assert_eq!(at(node, "slowlog-max-len")?, "77");
    }
    let joined = cluster.add_node()?;
    wait_for(&cluster.nodes()[joined], "maxmemory-policy", "allkeys-lru")?;
    wait_for(&cluster.nodes()[joined], "slowlog-max-len", "77")?;
    assert_eq!(at(&cluster.nodes()[joined], "maxmemory")?, "104857600");
    // A process that was started anew has forgotten it.
    cluster.node(0).kill()?;
    std::thread::sleep(Duration::from_millis(300));
    cluster.node(0).restart()?;
    wait_for(&cluster.nodes()[0], "slowlog-max-len", "77")?;
    wait_for(&cluster.nodes()[0], "maxmemory-policy", "allkeys-lru")?;
    Ok(())
}

#[test]
fn portico_is_not_locked_out_and_no_node_is_killed() -> Result<()> {
    let cluster = Cluster::start(ClusterOptions::default())?;
    let portico = Portico::start(&cluster, &[])?;
    let mut client = portico.client()?;
    for line in [
        "ACL SETUSER default >x",
        "ACL SETUSER default off",
        "ACL SETUSER default resetpass",
        "ACL SETUSER default on -@admin",
        "ACL SETUSER default nocommands",
        "ACL SETUSER default reset",
        "ACL SETUSER default resetkeys",
        "ACL LOAD",
        "DEBUG SEGFAULT",
        "DEBUG RESTART",
        "debug panic",
        "DEBUG OOM",
        "DEBUG ASSERT",
        "DEBUG CRASH-AND-RECOVER 1",
        "DEBUG CHANGE-REPL-ID",
        "DEBUG POPULATE 10",
        "DEBUG REPLICATE x",
        "DEBUG ERROR \"MOVED 1 127.0.0.1:1\"",
    ] {
        let reply = client.text(line)?;
        ensure!(reply.starts_with("-ERR "), "{line}: {reply}");
        ensure!(reply.contains("Portico"), "{line} does not say why: {reply}");
    }
    client.expect("ACL SETUSER default on nopass +@all", "+OK\r\n")?;
    client.expect("ACL SETUSER other on >x ~* +@all", "+OK\r\n")?;
    client.expect("ACL DELUSER other", ":1\r\n")?;
    // A new connection to each node is let in.
    for key in ["a", "b", "c", "d", "e"] {
        client.expect(&format!("BLPOP {key} 0.01"), "*-1\r\n")?;
    }
    portico.check_log()
}

/// The entries of a slow log: each one's number and what it is of.
fn slow(client: &mut Client, line: &str) -> Result<Vec<(String, String)>> {
    let reply = client.text(line)?;
    let entries = reply.split(r"*6\r\n:").skip(1);
    let entry = |text: &str| -> Option<(String, String)> {
        let (number, rest) = text.split_once(r"\r\n")?;
        let name = rest.split(r"\r\n").find(|word| word.chars().all(|c| c.is_ascii_alphabetic()))?;
        Some((number.to_owned(), name.to_owned()))
    };
    entries.map(|text| entry(text).with_context(|| text.to_owned())).collect()
}

#[test]
fn the_slow_log_is_one_servers() -> Result<()> {
    let cluster = Cluster::start(ClusterOptions::default())?;
    let portico = Portico::start(&cluster, &[])?;
    let mut client = portico.client()?;
    client.expect("CONFIG SET slowlog-max-len 5 slowlog-log-slower-than 0", "+OK\r\n")?;
    for number in 0..30 {
        client.call(&["SET".to_owned(), format!("k{number}"), "v".to_owned()])?;
    }
    client.expect("SLOWLOG LEN", ":5\r\n")?;
    client.expect("CONFIG SET slowlog-log-slower-than -1", "+OK\r\n")?;
    let all = slow(&mut client, "SLOWLOG GET -1")?;
    let numbers: std::collections::HashSet<_> = all.iter().map(|(number, _)| number).collect();
    ensure!(all.len() == 5 && numbers.len() == 5, "{all:?}");
    ensure!(slow(&mut client, "SLOWLOG GET 2")?.len() == 2 && slow(&mut client, "SLOWLOG GET")? == all);
    client.expect("SLOWLOG RESET", "+OK\r\n")?;
    client.expect("SLOWLOG LEN", ":0\r\n")?;
    portico.check_log()
}

/// One who watches asks most when something is wrong.
#[test]
fn settings_are_told_while_a_master_is_silent() -> Result<()> {
    let options = ClusterOptions { node_timeout: Duration::from_secs(60), ..ClusterOptions::default() };
    let cluster = Cluster::start(options)?;
    let portico = Portico::start(&cluster, &[])?;
    let mut client = portico.client()?;
    client.expect("CONFIG SET maxmemory 300mb", "+OK\r\n")?;
    let all = client.call(&["CONFIG", "GET", "*"])?.len();
    for node in cluster.nodes() {
        node.pause()?;
        let began = Instant::now();
        client.expect("CONFIG GET port maxmemory hz", &settings_of(&portico))?;
        let close = client.call(&["CONFIG", "GET", "*"])?.len().abs_diff(all);
        ensure!(close < 10, "{close} bytes more or less are told");
        let took = began.elapsed();
        node.resume()?;
        ensure!(took < Duration::from_secs(5), "it took {took:?}");
    }
    // When none says anything one is waited for.
    cluster.nodes().iter().try_for_each(Server::pause)?;
    client.request(&["CONFIG", "GET", "hz"])?;
    client.request(&["ACL", "LIST"])?;
    std::thread::sleep(Duration::from_millis(600));
    cluster.nodes().iter().try_for_each(Server::resume)?;
    assert_eq!(client.reply()?, b"*2\r\n$2\r\nhz\r\n$2\r\n10\r\n");
    ensure!(client.reply()?.starts_with(b"*1\r\n"), "the next reply");
    Ok(())
}

fn settings_of(portico: &Portico) -> String {
    let port = portico.port().to_string();
    let pairs = [("port", port.as_str()), ("maxmemory", "314572800"), ("hz", "10")];
    let bulk = |text: &str| format!("${}\r\n{text}\r\n", text.len());
    let pairs: String = pairs.iter().map(|(name, value)| bulk(name) + &bulk(value)).collect();
    format!("*6\r\n{pairs}")
}
