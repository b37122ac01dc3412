//! What is told, and what still works, while nodes are missing, refuse or have moved.

use std::net::TcpListener;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use portico::sandbox::{Cluster, ClusterOptions, Connection, Port, Server, ServerOptions};
use portico_slots::Address;
use portico_tests::{Client, Portico, ensure_timely, on_a_calm_machine};

const SOON: Duration = Duration::from_secs(10);

/// A key for each shard of three.
const KEYS: [&str; 3] = ["b", "c", "a"];

fn three_masters() -> Result<Cluster> {
    Cluster::start(ClusterOptions {
        extra_args: ["--cluster-require-full-coverage", "no"].map(String::from).to_vec(),
        ..ClusterOptions::default()
    })
}

/// Sets until it is so or time is up.
fn eventually(mut done: impl FnMut() -> Result<bool>, what: &str) -> Result<()> {
    let deadline = Instant::now() + SOON;
    while !done()? {
        ensure!(Instant::now() < deadline, "never: {what}");
        sleep(Duration::from_millis(50));
    }
    Ok(())
}

#[test]
fn nodes_that_all_have_moved_are_found_through_a_seed() -> Result<()> {
    let cluster = three_masters()?;
    let ports = [Port::reserve()?, Port::reserve()?, Port::reserve()?];
    // As a name in front of them would, the second seed leads to a node only later.
    let seeds = [cluster.seeds()[0].clone(), Address::new("localhost", ports[1].number())];
    let portico = Portico::start_at(&seeds, &["--refresh-interval", "60000", "--failover-timeout", "8000"])?;
    portico.expect_log("no node tells its map");
    let mut client = portico.client()?;
    client.expect("MSET a 1 b 2 c 3", "+OK\r\n")?;
    let mut direct: Vec<(Connection, u16)> = Vec::new();
    for (node, port) in cluster.nodes().iter().zip(&ports) {
        let mut connection = node.connect()?;
        connection.ask(&["CONFIG", "SET", "port", &port.number().to_string()])?;
        connection.ask(&["CONFIG", "SET", "cluster-announce-port", &port.number().to_string()])?;
        direct.push((connection, node.port()));
    }
    for (connection, _) in &mut direct {
        connection.call(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"])?;
    }
    client.expect("MGET a b c", "*3\r\n$1\r\n1\r\n$1\r\n2\r\n$1\r\n3\r\n")?;
    // Where the sandbox looks for them when it ends.
    for (connection, port) in &mut direct {
        connection.ask(&["CONFIG", "SET", "port", &port.to_string()])?;
    }
    Ok(())
}

#[test]
fn a_lost_shard_is_told_with_its_slots_and_told_again_when_it_is_back() -> Result<()> {
    let mut cluster = three_masters()?;
    let portico = Portico::start(&cluster, &["--failover-timeout", "1000"])?;
    portico.wait_for_log("Ready to accept connections", SOON)?;
    let log = portico.log();
    let ready = log.find("Ready to accept connections").context("ready")?;
    ensure!(log.find("slots 0-5460").is_some_and(|map| map < ready), "ready before there is a map: {log}");
    let mut client = portico.client()?;
    client.expect("MSET a 1 b 2 c 3", "+OK\r\n")?;
    ensure!(!portico.log().contains("no master"), "{}", portico.log());
    let address = cluster.nodes()[0].address();
    cluster.node(0).kill()?;
    ensure!(client.text("GET b")?.starts_with("-CLUSTERDOWN"));
    portico.wait_for_log("warning no master answers for slots 0-5460: ", SOON)?;
    ensure!(
        portico.log().contains(&format!("{address}: cannot connect"))
            || portico.log().contains(&format!("{address} has failed"))
    );
    cluster.node(0).restart()?;
    portico.wait_for_log("a master answers for slots 0-5460 again after", SOON)?;
    eventually(|| Ok(client.text("SET b 1")?.starts_with("+OK")), "SET works again")?;
    let lines = portico.log().matches("no master answers").count();
    ensure!(lines == 1, "told {lines} times:\n{}", portico.log());
    Ok(())
}

#[test]
fn why_no_map_is_to_be_had_is_told_in_its_own_words() -> Result<()> {
    let password =
        || ClusterOptions { masters: 1, password: Some("sesame".to_owned()), ..ClusterOptions::default() };
    let cluster = Cluster::start(password())?;
    let node = &cluster.nodes()[0];
    node.ask(&["ACL", "SETUSER", "weak", "on", ">weak", "+@connection", "+info", "+config|get"])?;
    let standalone = Server::start(ServerOptions::default())?;
    // A port that closes what it does not understand, as one for TLS does.
    let tls = TcpListener::bind("127.0.0.1:0")?;
    let closing = Address::new("127.0.0.1", tls.local_addr()?.port());
    std::thread::spawn(move || tls.incoming().flatten().for_each(drop));
    let dead = Port::reserve()?;
    for (seed, flags, words) in [
        (node.address(), &["--node-password", "wrong"][..], "refuses Portico's user or password"),
        (node.address(), &[], "refuses Portico's user or password"),
        (node.address(), &["--node-username", "weak", "--node-password", "weak"], "lacks a permission"),
        (standalone.address(), &[], "no node of a cluster"),
        (closing, &[], "does not speak TLS"),
        (Address::new("127.0.0.1", dead.number()), &[], "cannot connect: Connection refused"),
    ] {
        let portico = Portico::start_at(std::slice::from_ref(&seed), flags)?;
        portico.expect_log("no node tells its map");
        portico.wait_for_log(&format!("no node tells its map: {seed}: "), SOON)?;
        ensure!(portico.log().contains(words), "{flags:?}: no {words:?} in {}", portico.log());
        ensure!(!portico.log().contains("Ready to accept"), "ready without a map: {}", portico.log());
    }
    Ok(())
}

#[test]
fn messages_do_not_need_the_master_of_their_channels_slot() -> Result<()> {
    let mut cluster = three_masters()?;
    let portico = Portico::start(&cluster, &["--failover-timeout", "3000"])?;
    let mut client = portico.client()?;
    client.expect("MSET a 1 b 2 c 3", "+OK\r\n")?;
    cluster.node(2).kill()?;
    let channels: Vec<String> = (0..12).map(|number| format!("channel{number}")).collect();
    // Nobody has found out yet; those who publish must not have to.
    for channel in &channels {
        client.expect(&format!("PUBLISH {channel} early"), ":0\r\n")?;
    }
    let mut listener = portico.client()?;
    for (channel, count) in channels.iter().zip(1..) {
        listener.expect(&format!("SUBSCRIBE {channel}"), &confirmation("subscribe", channel, count))?;
    }
    let mut patterns = portico.client()?;
    patterns.expect("PSUBSCRIBE channel*", &confirmation("psubscribe", "channel*", 1))?;
    for channel in &channels {
        client.expect(&format!("PUBLISH {channel} hello"), ":2\r\n")?;
        let message = format!("*3\r\n$7\r\nmessage\r\n${}\r\n{channel}\r\n$5\r\nhello\r\n", channel.len());
        ensure!(listener.reply()? == message.as_bytes(), "{channel} is not heard");
        ensure!(String::from_utf8(patterns.reply()?)?.contains(channel.as_str()), "{channel} is not matched");
        let told = format!("*2\r\n${}\r\n{channel}\r\n:1\r\n", channel.len());
        client.expect(&format!("PUBSUB NUMSUB {channel}"), &told)?;
    }
    client.expect("PUBSUB NUMPAT", ":1\r\n")?;
    let told = client.text("PUBSUB CHANNELS")?;
    ensure!(told.starts_with("*12"), "{told}");
    for wire in [&mut listener, &mut patterns] {
        ensure!(wire.within(Duration::from_millis(300))?.is_none(), "something is heard twice");
    }
    Ok(())
}

fn confirmation(kind: &str, name: &str, count: usize) -> String {
    format!("*3\r\n${}\r\n{kind}\r\n${}\r\n{name}\r\n:{count}\r\n", kind.len(), name.len())
}

#[test]
fn a_gap_in_what_is_told_of_keys_is_never_confirmed_and_is_seen() -> Result<()> {
    let cluster = three_masters()?;
    let portico = Portico::start(&cluster, &["--failover-timeout", "1500", "--workers", "1"])?;
    portico.expect_log("cannot use a connection");
    portico.expect_log("is not heard");
    let mut client = portico.client()?;
    client.expect("CONFIG SET notify-keyspace-events KEA", "+OK\r\n")?;
    client.expect("MSET a 1 b 2 c 3", "+OK\r\n")?;
    // One master takes no further connections, but is well.
    let mut direct = cluster.nodes()[1].connect()?;
    direct.ask(&["CONFIG", "SET", "maxclients", "1"])?;
    let mut listener = portico.client()?;
    listener.request(&["PSUBSCRIBE", "__keyevent@0__:*"])?;
    let told = String::from_utf8(listener.reply()?)?;
    ensure!(told.starts_with("-CLUSTERDOWN Not every master"), "{told}");
    // Messages come from the others.
    listener.expect("PSUBSCRIBE news.*", &confirmation("psubscribe", "news.*", 1))?;
    listener.expect("PUNSUBSCRIBE", &confirmation("punsubscribe", "news.*", 0))?;

    direct.ask(&["CONFIG", "SET", "maxclients", "10000"])?;
    let pattern = "__keyevent@0__:set";
    listener.expect(&format!("PSUBSCRIBE {pattern}"), &confirmation("psubscribe", pattern, 1))?;
    hears_all(&mut client, &mut listener)?;

    direct.ask(&["CONFIG", "SET", "maxclients", "1"])?;
    direct.call(&["CLIENT", "KILL", "TYPE", "pubsub"])?;
    portico.wait_for_log("is not heard", SOON)?;
    let unheard = |client: &mut Client| {
        let info = String::from_utf8(client.line("INFO portico")?)?;
        let line = info.lines().find_map(|line| line.strip_prefix("portico_masters_unheard:"));
        line.map(str::to_owned).context("INFO tells of it")
    };
    eventually(|| Ok(unheard(&mut client)? == "1"), "INFO tells of the gap")?;
    direct.ask(&["CONFIG", "SET", "maxclients", "10000"])?;
    portico.wait_for_log("is heard again", SOON)?;
    eventually(|| Ok(unheard(&mut client)? == "0"), "INFO tells that it is over")?;
    hears_all(&mut client, &mut listener)
}

/// Each shard's keys are heard of.
fn hears_all(client: &mut Client, listener: &mut Client) -> Result<()> {
    for key in KEYS {
        client.expect(&format!("SET {key} 1"), "+OK\r\n")?;
        let told = String::from_utf8(listener.reply()?)?;
        ensure!(told.ends_with(&format!("$1\r\n{key}\r\n")), "{key}: {told}");
    }
    Ok(())
}

/// Well below the failover timeout of the tests that nobody should wait for.
const AT_ONCE: Duration = Duration::from_secs(4);
const LONG: &[&str] = &["--failover-timeout", "20000"];

/// One line's reply, which does not take long.
fn at_once(client: &mut Client, line: &str) -> Result<String> {
    let begun = Instant::now();
    let told = client.text(line)?;
    ensure_timely!(begun.elapsed() < AT_ONCE, "{line} took {:?}", begun.elapsed());
    Ok(told)
}

#[test]
fn scripts_are_loaded_by_those_that_live_and_given_to_the_others_later() -> Result<()> {
    on_a_calm_machine(|| {
        let mut cluster = three_masters()?;
        let portico = Portico::start(&cluster, LONG)?;
        portico.expect_log("");
        let mut client = portico.client()?;
        for (number, stop) in ["killed", "paused"].into_iter().enumerate() {
            client.expect("MSET a 1 b 2 c 3", "+OK\r\n")?;
            match stop {
                "killed" => cluster.node(2).kill()?,
                _ => cluster.node(2).pause()?,
            }
            let mut loaded = Vec::new();
            // First before anybody knows of it.
            for round in 0..2 {
                let load = format!("SCRIPT LOAD \"return {{KEYS[1], {number}, {round}}}\"");
                let told = at_once(&mut client, &load)?;
                let sha = told.strip_prefix("$40\\r\\n").with_context(|| format!("{stop}: {told}"))?;
                let sha = &sha[..40];
                loaded.push(sha.to_owned());
                let exists = at_once(&mut client, &format!("SCRIPT EXISTS {sha} {}", "0".repeat(40)))?;
                ensure!(exists == "*2\\r\\n:1\\r\\n:0\\r\\n", "{stop}: {exists}");
                let told = at_once(&mut client, &format!("EVALSHA {sha} 1 b"))?;
                ensure!(told.starts_with("*3\\r\\n$1\\r\\nb"), "{stop}: {told}");
                let told = at_once(&mut client, "SCRIPT LOAD \"return\" \"x\"")?;
                ensure!(told.starts_with("-ERR"), "{stop}: {told}");
                let told = at_once(&mut client, "SCRIPT LOAD \"this is none\"")?;
                ensure!(told.starts_with("-ERR Error compiling script"), "{stop}: {told}");
            }
            match stop {
                "killed" => cluster.node(2).restart()?,
                _ => cluster.node(2).resume()?,
            }
            cluster.wait_until_agreed()?;
            for (sha, round) in loaded.iter().zip(0..) {
                let told = format!("*3\r\n$1\r\na\r\n:{number}\r\n:{round}\r\n");
                client.expect(&format!("EVALSHA {sha} 1 a"), &told)?;
            }
        }
        Ok(())
    })
}

#[test]
fn what_all_masters_have_to_do_is_refused_at_once_when_a_shard_is_lost() -> Result<()> {
    on_a_calm_machine(|| {
        let mut cluster = three_masters()?;
        let portico = Portico::start(&cluster, LONG)?;
        portico.expect_log("");
        let mut client = portico.client()?;
        client.expect("MSET a 1 b 2 c 3", "+OK\r\n")?;
        let address = cluster.nodes()[0].address();
        cluster.node(0).kill()?;
        portico.wait_for_log(&format!("{address} has failed"), SOON)?;
        let library =
            "FUNCTION LOAD \"#!lua name=l\\nredis.register_function('f', function() return 1 end)\"";
        for line in ["DBSIZE", "KEYS *", "SCRIPT FLUSH", library, "FLUSHALL", "SLOWLOG LEN"] {
            let told = at_once(&mut client, line)?;
            let wanted = format!("-CLUSTERDOWN The master of slot 0 ({address}, 5461 slots) has failed");
            ensure!(told.starts_with(&wanted), "{line}: {told}");
        }
        cluster.node(0).restart()?;
        cluster.wait_until_agreed()?;
        eventually(|| Ok(client.text("DBSIZE")?.starts_with(':')), "DBSIZE is answered again")
    })
}

#[test]
fn who_has_written_nothing_waits_for_the_replicas_of_the_living() -> Result<()> {
    on_a_calm_machine(|| {
        let mut cluster = Cluster::start(ClusterOptions { replicas: 1, ..ClusterOptions::default() })?;
        let portico = Portico::start(&cluster, LONG)?;
        portico.expect_log("");
        portico.client()?.expect("MSET a 1 b 2 c 3", "+OK\r\n")?;
        ensure!(at_once(&mut portico.client()?, "WAIT 1 3000")? == ":1\\r\\n");
        for index in [0, 3] {
            cluster.node(index).pause()?;
        }
        // First before anybody knows of it.
        for _ in 0..3 {
            let told = at_once(&mut portico.client()?, "WAIT 1 1000")?;
            ensure!(told == ":1\\r\\n", "{told}");
        }
        for index in [0, 3] {
            cluster.node(index).resume()?;
        }
        Ok(())
    })
}

#[test]
fn what_any_master_may_answer_does_not_wait_for_one_that_has_just_stopped() -> Result<()> {
    on_a_calm_machine(|| {
        let cluster = three_masters()?;
        let flags = [LONG, &["--workers", "1"]].concat();
        let portico = Portico::start(&cluster, &flags)?;
        portico.expect_log("");
        portico.client()?.expect("MSET a 1 b 2 c 3", "+OK\r\n")?;
        for line in ["FUNCTION LIST", "COMMAND COUNT", "ACL LIST", "LASTSAVE", "PUBSUB NUMSUB x"] {
            // By their numbers, each of three asks another master.
            let mut clients = (0..3).map(|_| portico.client()).collect::<Result<Vec<Client>>>()?;
            let usual = clients[0].text(line)?;
            cluster.nodes()[1].pause()?;
            let asked = clients.iter_mut().map(|client| at_once(client, line)).collect::<Result<Vec<_>>>();
            cluster.nodes()[1].resume()?;
            ensure!(asked?.iter().all(|told| told.starts_with(&usual[..2])), "{line}: {usual}");
            eventually(|| Ok(portico.client()?.text("MSET a 1 b 2 c 3")?.starts_with("+OK")), "all is well")?;
        }
        Ok(())
    })
}
