//! Scripts and functions through Portico are known at every slot, whatever becomes of the nodes, and can be killed.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use portico::sandbox::{Cluster, ClusterOptions};
use portico_slots::slot;
use portico_tests::{Client, Portico, encode, encode_line};

const NOSCRIPT: &str = "-NOSCRIPT No matching script. Please use EVAL.\r\n";
/// `return ARGV[1]`
const ECHO: &str = "098e0f0d1448c0a81dafe820f66d460eb09263da";
/// A key for each shard of three.
const KEYS: [&str; 3] = ["b", "c", "a"];

/// Scripts are interrupted soon, and no node is missed meanwhile.
fn options() -> ClusterOptions {
    let extra_args = ["--busy-reply-threshold", "100"].map(String::from).to_vec();
    ClusterOptions { node_timeout: Duration::from_secs(10), extra_args, ..ClusterOptions::default() }
}

/// Pipelines an EVALSHA for each of many keys of all slots.
fn call_everywhere(client: &mut Client) -> Result<()> {
    let calls: Vec<u8> =
        (0..60).flat_map(|n| encode(&["EVALSHA", ECHO, "1", &format!("key:{n}"), &format!("{n}")])).collect();
    client.send(&calls)?;
    for (n, reply) in client.replies(60)?.into_iter().enumerate() {
        let wanted = format!("${}\r\n{n}\r\n", n.to_string().len());
        ensure!(reply == wanted.as_bytes(), "key:{n}: {}", String::from_utf8_lossy(&reply));
    }
    Ok(())
}

fn flush_directly(cluster: &Cluster) -> Result<()> {
    cluster.nodes().iter().try_for_each(|node| node.ask(&["SCRIPT", "FLUSH"]).map(drop))
}

/// The beginning of what a script is told that asks about all keys.
const WHOLE: &str = "-ERR this script calls ";

/// With several masters, a script would be told of one's keys.
#[test]
fn a_script_about_the_whole_keyspace_is_refused_unless_there_is_one_master() -> Result<()> {
    let cluster = Cluster::start(options())?;
    let portico = Portico::start(&cluster, &[])?;
    let mut client = portico.client()?;
    for key in KEYS {
        client.expect(&format!("SET {key} x"), "+OK\r\n")?;
    }
    let purge =
        "local r = redis.call('scan', '0') for _, k in ipairs(r[2]) do redis.call('unlink', k) end return 1";
    let texts = [
        "return redis.call('keys', '*')",
        "return redis.call('dbsize')",
        "return redis.call('flushall')",
        purge,
    ];
    for text in texts {
        for line in
            [format!("EVAL \"{text}\" 0"), format!("EVAL \"{text}\" 1 a"), format!("SCRIPT LOAD \"{text}\"")]
        {
            client.send(&encode_line(&line))?;
            let told = String::from_utf8(client.reply()?)?;
            ensure!(told.starts_with(WHOLE) && told.contains("one of 3 masters"), "{line}: {told}");
        }
        client.expect("MULTI", "+OK\r\n")?;
        client.send(&encode_line(&format!("EVAL \"{text}\" 0")))?;
        ensure!(client.reply()?.starts_with(WHOLE.as_bytes()));
        client.expect("EXEC", "-EXECABORT Transaction discarded because of previous errors.\r\n")?;
    }
    client.expect("DBSIZE", ":3\r\n")?;
    let alone = Cluster::start(ClusterOptions { masters: 1, ..options() })?;
    let portico = Portico::start(&alone, &[])?;
    let mut client = portico.client()?;
    client.expect("MSET a 1 b 2 c 3", "+OK\r\n")?;
    client.expect("EVAL \"return redis.call('dbsize')\" 0", ":3\r\n")?;
    client.expect("EVAL \"return #redis.call('keys', '*')\" 0", ":3\r\n")?;
    client.expect("EVAL \"return redis.call('flushall')\" 0", "+OK\r\n")?;
    client.expect("DBSIZE", ":0\r\n")
}

/// Also of functions that came to the nodes by another way.
#[test]
fn a_function_about_the_whole_keyspace_or_the_cluster_is_refused() -> Result<()> {
    let cluster = Cluster::start(options())?;
    let portico = Portico::start(&cluster, &[])?;
    let mut client = portico.client()?;
    let library = |name: &str, body: &str| {
        format!("#!lua name={name}\nredis.register_function('{name}', function(keys, args) {body} end)")
    };
    let whole = "ERR this library calls DBSIZE, which is about the whole keyspace";
    let told = client.call(&["FUNCTION", "LOAD", &library("size", "return redis.call('dbsize')")])?;
    ensure!(told.starts_with(format!("-{whole}").as_bytes()), "{}", String::from_utf8_lossy(&told));
    let cluster_text = library("nodes", "return redis.call('cluster', 'nodes')");
    ensure!(
        client.call(&["FUNCTION", "LOAD", &cluster_text])?
            == b"-ERR This instance has cluster support disabled\r\n"
    );
    for node in cluster.nodes() {
        node.ask(&["FUNCTION", "LOAD", &library("size", "return redis.call('dbsize')")])?;
        node.ask(&["FUNCTION", "LOAD", &cluster_text])?;
        node.ask(&["FUNCTION", "LOAD", &library("any", "return redis.call(args[1], unpack(keys))")])?;
    }
    let told = client.call(&["FCALL", "size", "0"])?;
    ensure!(
        told.starts_with(b"-ERR the function's library calls DBSIZE"),
        "{}",
        String::from_utf8_lossy(&told)
    );
    client.expect(
        "FCALL nodes 0",
        "-ERR This instance has cluster support disabled script: nodes, on @user_function:2.\r\n",
    )?;
    client.expect("FCALL any 1 a get", "$-1\r\n")?;
    client.expect(
        "FCALL any 1 a cluster",
        "-ERR This instance has cluster support disabled script: any, on @user_function:2.\r\n",
    )?;
    client.expect("FCALL none 0", "-ERR Function not found\r\n")
}

/// What cannot be read is not run, unless Portico is told to.
#[test]
fn a_script_whose_commands_cannot_be_read_is_refused_or_trusted() -> Result<()> {
    let cluster = Cluster::start(options())?;
    let line = "EVAL \"local t = cjson.decode(ARGV[1]) return redis.call(t[1], KEYS[1])\" 1 a '[\"get\"]'";
    let strict = Portico::start(&cluster, &[])?;
    let mut client = strict.client()?;
    client.send(&encode_line(line))?;
    let told = String::from_utf8(client.reply()?)?;
    ensure!(told.starts_with("-ERR Portico cannot read which command this script calls in line 1"), "{told}");
    let portico = Portico::start(&cluster, &["--script-commands", "any"])?;
    portico.client()?.expect(line, "$-1\r\n")?;
    // By whom it is called makes no difference.
    for _ in 0..6 {
        let mut client = portico.client()?;
        client.expect("EVAL \"return redis.call('set', ARGV[1], 'x')\" 0 foo", "+OK\r\n")?;
        client.send(&encode_line(
            "EVAL \"redis.call('set', 'foo', 1) return redis.call('set', 'bar', 1)\" 0",
        ))?;
        ensure!(client.reply()?.starts_with(b"-CROSSSLOT this script names keys of several masters"));
    }
    Ok(())
}

#[test]
fn a_script_is_known_at_every_slot_once_it_was_seen() -> Result<()> {
    let cluster = Cluster::start(options())?;
    let portico = Portico::start(&cluster, &[])?;
    let (mut client, mut resp3) = (portico.client()?, portico.client()?);
    resp3.hello3()?;
    client.expect(&format!("EVALSHA {ECHO} 1 a x"), NOSCRIPT)?;
    client.expect("EVAL \"return ARGV[1]\" 1 a x", "$1\r\nx\r\n")?;
    call_everywhere(&mut client)?;
    call_everywhere(&mut resp3)?;
    client.expect(&format!("SCRIPT EXISTS {ECHO}"), "*1\r\n:1\r\n")?;
    client.expect(&format!("EVALSHA {} 0 x", ECHO.to_uppercase()), "$1\r\nx\r\n")?;
    client.expect(&format!("EVALSHA_RO {ECHO} 1 c x"), "$1\r\nx\r\n")?;
    // Somebody else flushes: each is given again.
    flush_directly(&cluster)?;
    for key in KEYS {
        client.expect(&format!("EVALSHA {ECHO} 1 {key} {key}"), &format!("$1\r\n{key}\r\n"))?;
    }
    // A SCRIPT FLUSH through Portico is one.
    client.send(&[encode_line("SCRIPT FLUSH"), encode_line(&format!("EVALSHA {ECHO} 1 a x"))].concat())?;
    ensure!(client.reply()? == b"+OK\r\n" && client.reply()? == NOSCRIPT.as_bytes());
    for key in KEYS {
        client.expect(&format!("EVALSHA {ECHO} 1 {key} x"), NOSCRIPT)?;
        resp3.expect(&format!("EVALSHA {ECHO} 1 {key} x"), NOSCRIPT)?;
    }
    client.expect(&format!("SCRIPT EXISTS {ECHO}"), "*1\r\n:0\r\n")?;
    // Right behind a SCRIPT LOAD.
    client.request(&["SCRIPT", "LOAD", "return ARGV[1]"])?;
    call_everywhere_after_one(&mut client)?;
    call_everywhere(&mut resp3)
}

fn call_everywhere_after_one(client: &mut Client) -> Result<()> {
    let calls: Vec<u8> = KEYS.iter().flat_map(|key| encode(&["EVALSHA", ECHO, "1", key, key])).collect();
    client.send(&calls)?;
    let replies = client.replies(4)?;
    ensure!(replies[0].ends_with(format!("{ECHO}\r\n").as_bytes()));
    ensure!(
        replies[1..].iter().zip(KEYS).all(|(reply, key)| *reply == format!("$1\r\n{key}\r\n").as_bytes())
    );
    Ok(())
}

#[test]
fn a_transactions_scripts_and_large_arguments_reach_a_node_that_lacks_them() -> Result<()> {
    let mut cluster = Cluster::start(options())?;
    let portico = Portico::start(&cluster, &[])?;
    let mut client = portico.client()?;
    client.expect("EVAL \"return ARGV[1]\" 1 a x", "$1\r\nx\r\n")?;
    for key in KEYS {
        client.expect("MULTI", "+OK\r\n")?;
        client.expect(&format!("EVALSHA {ECHO} 1 {key} 1"), "+QUEUED\r\n")?;
        client.expect(&format!("EVAL \"return 'in {key}'\" 1 {key}"), "+QUEUED\r\n")?;
        client.expect("EXEC", &format!("*2\r\n$1\r\n1\r\n$4\r\nin {key}\r\n"))?;
    }
    client.expect("MULTI", "+OK\r\n")?;
    client.expect(&format!("EVALSHA {ECHO} 0 1"), "+QUEUED\r\n")?;
    client.expect("EXEC", "*1\r\n$1\r\n1\r\n")?;
    // "return 'in a'", which only a transaction has run, elsewhere.
    client.expect("EVALSHA c6eecb10b7a1dd2d5b1b0bcc6318eeacf77f878b 1 b", "$4\r\nin a\r\n")?;
    let large = "x".repeat(3 << 20);
    flush_directly(&cluster)?;
    for key in KEYS {
        let reply = client.call(&["EVALSHA", ECHO, "1", key, &large])?;
        ensure!(reply.len() > large.len(), "{key}: {}", String::from_utf8_lossy(&reply[..60]));
    }
    // A node that restarts has none.
    for node in 0..3 {
        cluster.node(node).restart()?;
    }
    cluster.wait_until_agreed()?;
    call_everywhere(&mut client)?;
    for node in 0..3 {
        cluster.node(node).restart()?;
    }
    cluster.wait_until_agreed()?;
    for key in KEYS {
        let lines = ["MULTI", &format!("EVALSHA {ECHO} 1 {key} 1"), "EXEC"].map(encode_line).concat();
        client.send(&lines)?;
        let replies = client.replies(3)?;
        ensure!(replies[2] == b"*1\r\n$1\r\n1\r\n", "{key}: {}", String::from_utf8_lossy(&replies[2]));
    }
    Ok(())
}

#[test]
fn a_slots_new_owner_is_given_its_scripts() -> Result<()> {
    let mut cluster = Cluster::start(options())?;
    let portico = Portico::start(&cluster, &[])?;
    let mut client = portico.client()?;
    client.expect("SCRIPT LOAD \"return ARGV[1]\"", &format!("$40\r\n{ECHO}\r\n"))?;
    call_everywhere(&mut client)?;
    let new = cluster.add_node()?;
    let (source, number) = (&cluster.nodes()[2], slot(b"a").to_string());
    let id = |node: usize| cluster.nodes()[node].ask(&["CLUSTER", "MYID"]);
    let (from, to) = (id(2)?, id(new)?);
    let target = &cluster.nodes()[new];
    target.ask(&["CLUSTER", "SETSLOT", &number, "IMPORTING", &from])?;
    source.ask(&["CLUSTER", "SETSLOT", &number, "MIGRATING", &to])?;
    // Redirected by ASK: the text goes ahead of ASKING.
    client.expect(&format!("EVALSHA {ECHO} 1 a x"), "$1\r\nx\r\n")?;
    target.ask(&["SCRIPT", "FLUSH"])?;
    let transaction = ["MULTI", &format!("EVALSHA {ECHO} 1 a y"), "EXEC"].map(encode_line).concat();
    let mut other = portico.client()?;
    other.hello3()?; // over another connection
    other.send(&transaction)?;
    let replies = other.replies(3)?;
    ensure!(replies[2] == b"*1\r\n$1\r\ny\r\n", "{}", String::from_utf8_lossy(&replies[2]));
    // Redirected by MOVED.
    target.ask(&["SCRIPT", "FLUSH"])?;
    for node in [target, source] {
        node.ask(&["CLUSTER", "SETSLOT", &number, "NODE", &to])?;
    }
    client.expect(&format!("EVALSHA {ECHO} 1 a x"), "$1\r\nx\r\n")?;
    call_everywhere(&mut client)
}

/// Until `wanted` is in the reply to a line; returns the reply.
fn until(client: &mut Client, line: &str, wanted: &str) -> Result<String> {
    let deadline = Instant::now() + Duration::from_secs(15);
    loop {
        let reply = client.text(line)?;
        if reply.contains(wanted) {
            return Ok(reply);
        }
        ensure!(Instant::now() < deadline, "{line}: {reply}");
        sleep(Duration::from_millis(20));
    }
}

#[test]
fn script_kill_ends_a_running_script_while_others_wait() -> Result<()> {
    let cluster = Cluster::start(options())?;
    let portico = Portico::start(&cluster, &[])?;
    let (mut runs, mut waits, mut kills) = (portico.client()?, portico.client()?, portico.client()?);
    kills.expect("SCRIPT KILL", "-NOTBUSY No scripts in execution right now.\r\n")?;
    kills.expect("FUNCTION KILL", "-NOTBUSY No scripts in execution right now.\r\n")?;
    waits.expect("SET a 1", "+OK\r\n")?;
    runs.request(&["EVAL", "while true do end", "1", "a"])?;
    until(&mut waits, "GET a", "-BUSY")?;
    // Other nodes are not concerned.
    kills.expect("SET b 1", "+OK\r\n")?;
    kills.expect(
        "FUNCTION KILL",
        "-BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.\r\n",
    )?;
    ensure!(kills.text("FUNCTION STATS")?.starts_with("-BUSY "));
    kills.expect("SCRIPT KILL", "+OK\r\n")?;
    let killed = String::from_utf8(runs.reply()?)?;
    ensure!(killed.contains("Script killed by user with SCRIPT KILL"), "{killed}");
    waits.expect("GET a", "$1\r\n1\r\n")?;
    runs.expect("GET a", "$1\r\n1\r\n")?;
    // A script that has written is not killed; this one ends by itself.
    let writes = "redis.call('SET', KEYS[1], 2) local function now() local t = redis.call('TIME') \
                  return t[1] * 1000 + t[2] / 1000 end local start = now() while now() < start + 1500 do end";
    runs.request(&["EVAL", writes, "1", "a"])?;
    let reply = until(&mut kills, "SCRIPT KILL", "-UNKILLABLE")?;
    ensure!(reply.starts_with("-UNKILLABLE Sorry the script already executed write commands"), "{reply}");
    ensure!(runs.reply()? == b"$-1\r\n");
    waits.expect("GET a", "$1\r\n2\r\n")?;
    kills.expect("SCRIPT KILL", "-NOTBUSY No scripts in execution right now.\r\n")
}

/// What is endless is so when it is run for the first time, however it is called.
#[test]
fn behind_an_endless_script_others_are_told_that_the_node_is_busy() -> Result<()> {
    const BUSY: &str =
        "-BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.\r\n";
    let cluster = Cluster::start(options())?;
    let portico = Portico::start(&cluster, &["--cross-slot", "emulate"])?;
    let (mut other, mut kills) = (portico.client()?, portico.client()?);
    let library = "#!lua name=lib\nredis.register_function{function_name='spin', callback=function() while true do \
                   end end, flags={'no-writes'}}";
    ensure!(kills.call(&["FUNCTION", "LOAD", library])? == b"$3\r\nlib\r\n");
    let loaded = kills.call(&["SCRIPT", "LOAD", "while 1 do end"])?;
    let sha = String::from_utf8_lossy(&loaded[5..45]).into_owned();
    let calls: [(&str, &[&[&str]]); 6] = [
        ("SCRIPT KILL", &[&["EVAL", "while true do end", "1", "a"]]),
        ("SCRIPT KILL", &[&["EVAL_RO", "while true do local x end", "1", "a"]]),
        ("SCRIPT KILL", &[&["EVALSHA", &sha, "1", "a"]]),
        ("FUNCTION KILL", &[&["FCALL", "spin", "1", "a"]]),
        ("SCRIPT KILL", &[&["MULTI"], &["EVAL", "repeat until false", "1", "a"], &["EXEC"]]),
        ("SCRIPT KILL", &[&["MULTI"], &["GET", "b"], &["EVAL", "repeat until nil", "1", "a"], &["EXEC"]]),
    ];
    for (kill, calls) in calls {
        other.expect("GET a", "$-1\r\n")?;
        let (mut runs, mut new) = (portico.client()?, portico.client()?);
        runs.send(&calls.iter().flat_map(|call| encode(call)).collect::<Vec<u8>>())?;
        for client in [&mut other, &mut new] {
            let busy = until(client, "GET a", "-BUSY")?;
            ensure!(busy.contains(kill), "{calls:?}: {busy}");
        }
        // Its connection is to be opened only now.
        if new.hello3().is_ok() {
            let asked = Instant::now();
            let busy = new.text("GET a")?;
            ensure!(busy.contains("BUSY") && busy.contains(kill), "{calls:?}: {busy}");
            ensure!(asked.elapsed() < Duration::from_secs(2), "{calls:?}: {:?}", asked.elapsed());
        }
        other.expect("PING", "+PONG\r\n")?; // it is one shard's trouble
        other.expect("SET b 1", "+OK\r\n")?;
        other.expect("DEL b", ":1\r\n")?;
        kills.expect(kill, "+OK\r\n")?;
        let killed = runs.replies(calls.len())?.pop().context("the last reply")?;
        ensure!(String::from_utf8_lossy(&killed).contains("killed by user"), "{calls:?}");
    }
    // Without keys it runs at one of the masters.
    let mut runs = portico.client()?;
    runs.request(&["EVAL", "while not nil do end", "0"])?;
    let deadline = Instant::now() + Duration::from_secs(15);
    while !KEYS.iter().any(|key| other.text(&format!("GET {key}")).is_ok_and(|reply| reply.contains("BUSY")))
    {
        ensure!(Instant::now() < deadline, "no node is busy");
    }
    until(&mut other, "PING", "-BUSY")?; // it is no shard's
    kills.expect("SCRIPT KILL", "+OK\r\n")?;
    ensure!(String::from_utf8_lossy(&runs.reply()?).contains("killed by user"));
    other.expect("PING", "+PONG\r\n")?;
    // One that was seen to end soon, and then does not.
    let text = "while ARGV[1] == 'on' do end return 1";
    ensure!(other.call(&["EVAL", text, "1", "a", "off"])? == b":1\r\n");
    ensure!(other.call(&["EVAL", text, "1", "a", "off"])? == b":1\r\n");
    let mut runs = portico.client()?;
    runs.request(&["EVAL", text, "1", "a", "on"])?;
    sleep(Duration::from_millis(400));
    let asked = Instant::now();
    ensure!(other.text("GET a")?.replace("\\r\\n", "\r\n") == BUSY);
    ensure!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
    kills.expect("SCRIPT KILL", "+OK\r\n")
}

#[test]
fn a_script_that_others_run_is_killed_too() -> Result<()> {
    let cluster = Cluster::start(options())?;
    let portico = Portico::start(&cluster, &[])?;
    let mut kills = portico.client()?;
    kills.expect("GET b", "$-1\r\n")?;
    let mut direct = cluster.nodes()[2].connect()?;
    std::thread::scope(|scope| {
        let runs = scope.spawn(move || direct.call(&["EVAL", "while true do end", "1", "a"]));
        sleep(Duration::from_millis(400));
        kills.expect("SCRIPT KILL", "+OK\r\n")?;
        runs.join().ok().context("it ends")??;
        kills.expect("GET a", "$-1\r\n")
    })
}

#[test]
fn function_kill_and_stats_reach_the_node_that_runs_one() -> Result<()> {
    let cluster = Cluster::start(options())?;
    let portico = Portico::start(&cluster, &[])?;
    let (mut runs, mut kills) = (portico.client()?, portico.client()?);
    let library = "#!lua name=lib\nredis.register_function{function_name='spin', callback=function() while true do \
                   end end, flags={'no-writes'}}";
    ensure!(kills.call(&["FUNCTION", "LOAD", library])? == b"$3\r\nlib\r\n");
    for key in KEYS {
        runs.request(&["FCALL", "spin", "1", key])?;
        let stats = until(&mut kills, "FUNCTION STATS", "spin")?;
        ensure!(stats.contains(r"duration_ms\r\n:"), "{stats}");
        ensure!(kills.text("SCRIPT KILL")?.starts_with("-BUSY "));
        kills.expect("FUNCTION KILL", "+OK\r\n")?;
        let killed = String::from_utf8(runs.reply()?)?;
        ensure!(killed.starts_with("-ERR") && killed.contains("killed by user"), "{killed}");
    }
    let stats = kills.text("FUNCTION STATS")?;
    ensure!(stats.starts_with(r"*4\r\n$14\r\nrunning_script\r\n$-1\r\n"), "{stats}");
    Ok(())
}
