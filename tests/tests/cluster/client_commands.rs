//! What clients do to each other and to themselves by CLIENT, where a dialogue with a standalone (`dialogues.rs`) is
//! not enough: with values that are streamed, with times, and with many at once.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use portico::sandbox::{Cluster, ClusterOptions};
use portico_tests::{Client, Portico, show};

/// Longer than what Portico streams.
const LARGE: usize = 3 << 20;

fn start() -> Result<(Cluster, Portico)> {
    let cluster = Cluster::start(ClusterOptions::default())?;
    let portico = Portico::start(&cluster, &["--workers", "2"])?;
    Ok((cluster, portico))
}

/// How often a word is in the reply to CLIENT LIST.
fn listed(client: &mut Client, word: &str) -> Result<usize> {
    let list = String::from_utf8(client.call(&["CLIENT", "LIST"])?)?;
    Ok(list.split_whitespace().filter(|found| *found == word).count())
}

/// Waits until CLIENT LIST has a word so often.
fn wait_for(client: &mut Client, word: &str, count: usize) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    while listed(client, word)? != count {
        ensure!(Instant::now() < deadline, "{word} not {count} times: {}", client.text("CLIENT LIST")?);
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// A reply that is not wanted is not told either where it is too large to keep, and neither is a large request's.
#[test]
fn large_replies_that_are_not_wanted_are_dropped() -> Result<()> {
    let (_cluster, portico) = start()?;
    let (mut client, mut other) = (portico.client()?, portico.client()?);
    let large = vec![b'x'; LARGE];
    client.call(&[&b"SET"[..], b"k", &large])?;
    let mut requests = Vec::new();
    for line in ["CLIENT REPLY SKIP", "GET k", "ECHO 1", "CLIENT REPLY OFF", "GET k", "GET none", "GET k"] {
        requests.extend(portico_tests::encode_line(line));
    }
    requests.extend(portico_tests::encode(&[&b"SET"[..], b"l", &large]));
    for line in ["CLIENT REPLY ON", "STRLEN l"] {
        requests.extend(portico_tests::encode_line(line));
    }
    client.send(&requests)?;
    let replies: Vec<_> = client.replies(3)?.iter().map(|reply| show(reply)).collect();
    assert_eq!(replies, [r"$1\r\n1\r\n", r"+OK\r\n", &format!(r":{LARGE}\r\n")]);
    // The connection to the node is whole.
    assert_eq!(other.call(&["GET", "k"])?.len(), large.len() + format!("${LARGE}\r\n\r\n").len());
    client.expect("PING", "+PONG\r\n")?;
    portico.check_log()
}

/// A request too large to keep is held, queued and left unanswered like any other.
#[test]
fn large_requests_are_paused_and_queued() -> Result<()> {
    let (_cluster, portico) = start()?;
    let (mut client, mut other) = (portico.client()?, portico.client()?);
    let large = vec![b'x'; LARGE];
    client.expect("MULTI", "+OK\r\n")?;
    assert_eq!(client.call(&[&b"SET"[..], b"k", &large])?, b"+QUEUED\r\n");
    other.expect("EXISTS k", ":0\r\n")?;
    client.expect("EXEC", "*1\r\n+OK\r\n")?;
    other.expect("STRLEN k", &format!(":{LARGE}\r\n"))?;

    other.expect("CLIENT PAUSE 20000 WRITE", "+OK\r\n")?;
    client.request(&[&b"SET"[..], b"l", &large])?;
    wait_for(&mut other, "flags=b", 1)?;
    other.expect("EXISTS l", ":0\r\n")?;
    other.expect("CLIENT UNPAUSE", "+OK\r\n")?;
    assert_eq!(client.reply()?, b"+OK\r\n");
    other.expect("STRLEN l", &format!(":{LARGE}\r\n"))?;
    portico.check_log()
}

/// Nobody is told before the pause is over, and all go on then, each with its whole pipeline in order.
#[test]
fn many_wait_for_the_end_of_a_pause() -> Result<()> {
    let (_cluster, portico) = start()?;
    let mut watcher = portico.client()?;
    let mut clients = (0..200).map(|_| portico.client()).collect::<Result<Vec<_>>>()?;
    let begin = Instant::now();
    let pause = Duration::from_millis(1500);
    watcher.expect(&format!("CLIENT PAUSE {} WRITE", pause.as_millis()), "+OK\r\n")?;
    for (at, client) in clients.iter_mut().enumerate() {
        for line in [format!("GET k{at}"), format!("SET k{at} v"), format!("GET k{at}")] {
            client.send(&portico_tests::encode_line(&line))?;
        }
    }
    wait_for(&mut watcher, "flags=b", clients.len())?;
    ensure!(begin.elapsed() < pause, "too slow to see it");
    for client in &mut clients {
        assert_eq!(client.reply()?, b"$-1\r\n");
    }
    for client in &mut clients {
        assert_eq!(client.reply()?, b"+OK\r\n");
        ensure!(begin.elapsed() >= pause, "told after {:?} of {pause:?}", begin.elapsed());
        assert_eq!(client.reply()?, b"$1\r\nv\r\n");
    }
    ensure!(
        begin.elapsed() < pause + Duration::from_secs(3),
        "they went on {:?} later",
        begin.elapsed() - pause
    );
    assert_eq!(listed(&mut watcher, "flags=b")?, 0);
    portico.check_log()
}

/// Who goes away during a pause is gone, and who stops Portico does not wait for its end.
#[test]
fn a_pause_holds_nobody_who_goes() -> Result<()> {
    let (_cluster, mut portico) = start()?;
    let (mut watcher, mut goes, mut stays) = (portico.client()?, portico.client()?, portico.client()?);
    watcher.expect("CLIENT PAUSE 100000 WRITE", "+OK\r\n")?;
    goes.request(&["SET", "k", "v"])?;
    stays.request(&["SET", "l", "v"])?;
    wait_for(&mut watcher, "flags=b", 2)?;
    drop(goes);
    wait_for(&mut watcher, "flags=b", 1)?;
    watcher.expect("EXISTS k", ":0\r\n")?;
    let begin = Instant::now();
    portico.signal("TERM")?;
    assert_eq!(stays.reply()?, b"+OK\r\n", "what was received is answered");
    ensure!(portico.wait(Duration::from_secs(10))?.success());
    ensure!(begin.elapsed() < Duration::from_secs(10));
    portico.check_log()
}

/// All but the one that asks, whatever they are doing.
#[test]
fn everybody_else_is_killed() -> Result<()> {
    let (_cluster, portico) = start()?;
    let mut killer = portico.client()?;
    let mut clients = (0..100).map(|_| portico.client()).collect::<Result<Vec<_>>>()?;
    let lines = ["BLPOP nothing 0", "MULTI", "WATCH k", "GET k", "CLIENT REPLY OFF"];
    for (at, client) in clients.iter_mut().enumerate() {
        client.send(&portico_tests::encode_line(lines[at % lines.len()]))?;
    }
    wait_for(&mut killer, "flags=b", clients.len() / lines.len())?;
    killer.expect("CLIENT KILL TYPE normal", ":100\r\n")?;
    for client in &mut clients {
        client.rest()?;
    }
    assert_eq!(listed(&mut killer, "resp=2")?, 1);
    killer.expect("RPUSH nothing v", ":1\r\n")?;
    killer.expect("LLEN nothing", ":1\r\n")?;
    portico.check_log()
}
