//! Client side caching over several nodes: what `dialogues/tracking.txt` cannot show, since one Redis has no nodes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use portico::sandbox::{Cluster, ClusterOptions};
use portico_slots::slot;
use portico_tests::live::{SlotMove, open_slot};
use portico_tests::{Client, Portico, encode, show};

/// A key for each node of three; their slots' nodes are 0, 1, 2.
const KEYS: [&str; 3] = ["b", "c", "a"];
const NULL: &str = ">2\r\n$10\r\ninvalidate\r\n_\r\n";
/// Longest that something that is told takes.
const SOON: Duration = Duration::from_secs(5);
const QUIET: Duration = Duration::from_millis(100);

fn invalid(key: &str) -> String {
    format!(">2\r\n$10\r\ninvalidate\r\n*1\r\n${}\r\n{key}\r\n", key.len())
}

fn start(flags: &[&str]) -> Result<(Cluster, Portico)> {
    let cluster = Cluster::start(ClusterOptions::default())?;
    let portico = Portico::start(&cluster, flags)?;
    Ok((cluster, portico))
}

fn resp3(portico: &Portico) -> Result<Client> {
    let mut client = portico.client()?;
    client.hello3()?;
    Ok(client)
}

fn tracker(portico: &Portico, options: &str) -> Result<Client> {
    let mut client = resp3(portico)?;
    client.expect(&format!("CLIENT TRACKING ON{options}"), "+OK\r\n")?;
    Ok(client)
}

/// The next thing that comes by itself is this.
fn comes(client: &mut Client, what: &str) -> Result<()> {
    let push = client.within(SOON)?.with_context(|| format!("{what:?} did not come"))?;
    ensure!(push == what.as_bytes(), "{} instead of {what:?}", show(&push));
    Ok(())
}

fn nothing_comes(client: &mut Client) -> Result<()> {
    match client.within(QUIET)? {
        Some(push) => anyhow::bail!("{} came", show(&push)),
        None => Ok(()),
    }
}

/// Waits for a null, whatever comes before.
fn forgets_all(client: &mut Client) -> Result<()> {
    let deadline = Instant::now() + SOON;
    while Instant::now() < deadline {
        if client.within(SOON)?.is_some_and(|push| push == NULL.as_bytes()) {
            // Connections that come back may be a reason of their own.
            while client.within(QUIET)?.is_some_and(|push| push == NULL.as_bytes()) {}
            return Ok(());
        }
    }
    anyhow::bail!("nobody said that all is invalid")
}

#[test]
fn lost_connections_to_nodes_make_all_invalid() -> Result<()> {
    let (cluster, portico) = start(&[])?;
    let mut writer = portico.client()?;
    let mut hearer = resp3(&portico)?;
    let id = hearer.text("CLIENT ID")?.trim_end_matches("\\r\\n").trim_start_matches(':').to_owned();
    let mut plain = tracker(&portico, "")?;
    let mut all = tracker(&portico, " BCAST PREFIX c")?;
    let mut redirects = tracker(&portico, &format!(" REDIRECT {id}"))?;
    for round in 0..3 {
        for key in KEYS {
            plain.line(&format!("GET {key}"))?;
            redirects.line(&format!("GET {key}"))?;
        }
        cluster.nodes()[round].ask(&["CLIENT", "KILL", "TYPE", "normal"])?;
        for client in [&mut plain, &mut all, &mut hearer] {
            forgets_all(client).with_context(|| format!("round {round}"))?;
        }
        nothing_comes(&mut redirects)?;
        // What is read from now on is tracked again, and all the time what need not be read.
        for key in KEYS {
            plain.line(&format!("GET {key}"))?;
            redirects.line(&format!("GET {key}"))?;
            writer.expect(&format!("SET {key} {round}"), "+OK\r\n")?;
            comes(&mut plain, &invalid(key))?;
            comes(&mut hearer, &invalid(key))?;
        }
        comes(&mut all, &invalid("c"))?;
    }
    ensure!(writer.text("INFO clients")?.contains("tracking_clients:3"), "three clients track");
    drop(plain);
    all.expect("CLIENT TRACKING OFF", "+OK\r\n")?;
    redirects.expect("RESET", "+RESET\r\n")?;
    sleep(QUIET);
    ensure!(writer.text("INFO clients")?.contains("tracking_clients:0"), "nobody tracks any more");
    Ok(())
}

#[test]
fn flushall_is_told_once() -> Result<()> {
    let (_cluster, portico) = start(&[])?;
    let mut writer = portico.client()?;
    for options in ["", " BCAST", " OPTIN"] {
        let mut client = tracker(&portico, options)?;
        for _ in 0..5 {
            client.line("GET a")?;
            writer.expect("FLUSHALL", "+OK\r\n")?;
            comes(&mut client, NULL)?;
            nothing_comes(&mut client)?;
        }
    }
    Ok(())
}

#[test]
fn a_slot_that_moves_takes_nothing_stale_with_it() -> Result<()> {
    let (cluster, portico) = start(&[])?;
    let mut writer = portico.client()?;
    let mut client = tracker(&portico, "")?;
    // An absent key leaves no trace where it was read.
    client.expect("GET a", "_\r\n")?;
    client.expect("GET {a}there", "_\r\n")?;
    writer.expect("SET {a}there 1", "+OK\r\n")?;
    comes(&mut client, &invalid("{a}there"))?;
    client.expect("GET {a}there", "$1\r\n1\r\n")?;
    SlotMove { cluster: &cluster, pause: Duration::from_millis(20) }.run(slot(b"a"), 2, 0)?;
    writer.expect("SET a 1", "+OK\r\n")?;
    forgets_all(&mut client)?;
    client.expect("GET a", "$1\r\n1\r\n")?;
    writer.expect("SET a 2", "+OK\r\n")?;
    comes(&mut client, &invalid("a"))
}

#[test]
fn what_is_read_while_a_slot_moves_is_tracked_or_forgotten() -> Result<()> {
    let (cluster, portico) = start(&[])?;
    let mut writer = portico.client()?;
    let (mut plain, mut optin) = (tracker(&portico, "")?, tracker(&portico, " OPTIN")?);
    open_slot(&cluster.nodes()[2], &cluster.nodes()[0], slot(b"a"))?;
    optin.expect("CLIENT CACHING YES", "+OK\r\n")?;
    optin.expect("GET a", "_\r\n")?;
    forgets_all(&mut optin)?;
    plain.line("GET a")?;
    // That the slot is open was perhaps not known yet.
    while plain.within(Duration::from_secs(1))?.is_some() {
        plain.line("GET a")?;
    }
    writer.expect("SET a 1", "+OK\r\n")?;
    comes(&mut plain, &invalid("a"))
}

#[test]
fn opted_in_keys_of_several_slots() -> Result<()> {
    let (_cluster, portico) = start(&["--cross-slot", "emulate"])?;
    let mut writer = portico.client()?;
    let mut client = tracker(&portico, " OPTIN")?;
    let mut changes = |client: &mut Client, tracked: &[&str]| -> Result<()> {
        for key in KEYS {
            writer.line(&format!("INCR {key}"))?;
            if tracked.contains(&key) {
                comes(client, &invalid(key)).with_context(|| key)?;
            }
        }
        nothing_comes(client)
    };
    client.line("MGET a b c")?;
    changes(&mut client, &[])?;
    client.expect("CLIENT CACHING YES", "+OK\r\n")?;
    client.line("MGET a b c")?;
    changes(&mut client, &KEYS)?;
    for line in ["CLIENT CACHING YES", "MULTI", "GET a", "GET b", "EXEC", "GET c"] {
        let reply = client.text(line)?;
        ensure!(line != "EXEC" || reply == "*2\\r\\n$1\\r\\n2\\r\\n$1\\r\\n2\\r\\n", "{reply}");
    }
    changes(&mut client, &["a", "b"])?;
    for line in ["MULTI", "GET a", "CLIENT CACHING YES", "GET b", "EXEC"] {
        client.line(line)?;
    }
    changes(&mut client, &["b"])
}

#[test]
fn a_large_invalidation_is_no_reply() -> Result<()> {
    let (_cluster, portico) = start(&[])?;
    let mut writer = portico.client()?;
    let mut client = tracker(&portico, " BCAST")?;
    let keys: Vec<String> = (0..3000).map(|at| format!("{{t}}{at}:{}", "x".repeat(1000))).collect();
    let mut set = vec!["MSET".to_owned()];
    set.extend(keys.iter().flat_map(|key| [key.clone(), "1".to_owned()]));
    writer.request(&set)?;
    let mut named = 0;
    for at in 0..200 {
        client.request(&["ECHO", &at.to_string()])?;
        client.request(&["STRLEN", &keys[0]])?;
        for due in [format!("${}\r\n{at}\r\n", at.to_string().len()), ":".to_owned()] {
            let mut reply = client.reply()?;
            while reply.starts_with(b">") {
                named += String::from_utf8_lossy(&reply).matches("{t}").count();
                reply = client.reply()?;
            }
            ensure!(reply.starts_with(due.as_bytes()), "{} instead of {due}", show(&reply));
        }
    }
    while let Some(push) = client.within(QUIET * 3)? {
        named += String::from_utf8_lossy(&push).matches("{t}").count();
    }
    ensure!(named == keys.len(), "{named} keys were named");
    Ok(())
}

#[test]
fn there_are_as_many_as_there_may_be() -> Result<()> {
    let (_cluster, portico) = start(&["--max-leases", "2", "--workers", "1"])?;
    let mut first = tracker(&portico, "")?;
    let mut second = resp3(&portico)?;
    let id = first.text("CLIENT ID")?.trim_end_matches("\\r\\n").trim_start_matches(':').to_owned();
    let refused = "-ERR Portico has no connections left for another client that tracks keys (max-leases)\r\n";
    second.expect(&format!("CLIENT TRACKING ON REDIRECT {id}"), refused)?;
    second.expect("CLIENT GETREDIR", ":-1\r\n")?;
    second.expect("CLIENT TRACKING ON", "+OK\r\n")?;
    resp3(&portico)?.expect("CLIENT TRACKING ON", refused)?;
    first.expect("CLIENT TRACKING OFF", "+OK\r\n")?;
    tracker(&portico, "").map(drop)
}

#[test]
fn clients_of_other_workers_are_told() -> Result<()> {
    let (_cluster, portico) = start(&["--workers", "2"])?;
    let ended = AtomicBool::new(false);
    // Enough to do for two workers, so that clients are with both.
    let load = || -> Result<()> {
        let (mut client, pipeline) = (portico.client()?, encode(&["ECHO", "x"]).repeat(1000));
        while !ended.load(Ordering::Relaxed) {
            client.send(&pipeline)?;
            client.replies(1000)?;
        }
        Ok(())
    };
    scope(|scope| {
        let loads: Vec<_> = (0..4).map(|_| scope.spawn(load)).collect();
        let told = (|| {
            let mut writer = portico.client()?;
            let deadline = Instant::now() + Duration::from_secs(30);
            let both = |info: &str| !info.contains("clients=0,") && info.contains("portico_worker1:");
            while !both(&writer.text("INFO portico")?) && Instant::now() < deadline {
                sleep(Duration::from_millis(100));
            }
            let mut pairs = Vec::new();
            for at in 0..10 {
                let mut hearer = resp3(&portico)?;
                hearer.line("PING")?;
                let id = hearer.text("CLIENT ID")?.trim_end_matches("\\r\\n")[1..].to_owned();
                let mut client = portico.client()?;
                client.expect(&format!("CLIENT TRACKING ON REDIRECT {id}"), "+OK\r\n")?;
                client.line(&format!("GET key:{at}"))?;
                pairs.push((client, hearer));
            }
            for (at, (client, hearer)) in pairs.iter_mut().enumerate() {
                writer.expect(&format!("SET key:{at} 1"), "+OK\r\n")?;
                comes(hearer, &invalid(&format!("key:{at}")))?;
                nothing_comes(client)?;
            }
            let info = writer.text("INFO portico")?;
            for (at, (mut client, hearer)) in pairs.into_iter().enumerate() {
                drop(hearer);
                client.line(&format!("GET key:{at}"))?;
                sleep(Duration::from_millis(20));
                writer.expect(&format!("SET key:{at} 2"), "+OK\r\n")?;
                let is_broken = |client: &mut Client| -> Result<bool> {
                    Ok(client.text("CLIENT TRACKINGINFO")?.contains("broken_redirect"))
                };
                let deadline = Instant::now() + SOON;
                while !is_broken(&mut client)? {
                    ensure!(Instant::now() < deadline, "nobody noticed that pair {at} is broken");
                    sleep(Duration::from_millis(10));
                }
            }
            Ok(info)
        })();
        ended.store(true, Ordering::Relaxed);
        loads.into_iter().try_for_each(|load| load.join().expect("it does not panic"))?;
        let info = told?;
        println!("{info}");
        Ok(())
    })
}
