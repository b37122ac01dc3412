//! Told to end, Portico answers what it received and ends; told twice, it ends at once.

use std::net::TcpStream;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use portico::sandbox::{Cluster, ClusterOptions};
use portico_tests::{Client, Portico, encode, ensure_timely, on_a_calm_machine};

const PASSWORD: &str = "a secret of the node";

fn cluster() -> Result<Cluster> {
    let password = Some(PASSWORD.to_owned());
    Cluster::start(ClusterOptions { masters: 2, password, ..ClusterOptions::default() })
}

fn flags() -> [&'static str; 4] {
    ["--node-password", PASSWORD, "--requirepass", "another secret"]
}

fn client(portico: &Portico) -> Result<Client> {
    let mut client = portico.client()?;
    ensure!(client.call(&["AUTH", "another secret"])? == b"+OK\r\n", "AUTH");
    Ok(client)
}

fn secrets_are_kept(portico: &Portico) -> Result<()> {
    let log = portico.log();
    ensure!(!log.contains(PASSWORD) && !log.contains("another secret"), "a secret in the log:\n{log}");
    Ok(())
}

/// A key of the first master: its slot is below 8192.
const FIRST: &str = "k"; // 7629

#[test]
fn what_was_received_is_answered() -> Result<()> {
    let cluster = cluster()?;
    let mut portico = Portico::start(&cluster, &flags())?;
    let mut clients: Vec<_> = (0..20).map(|_| client(&portico)).collect::<Result<_>>()?;
    let mut idle = client(&portico)?;
    clients[0].expect(&format!("SET {FIRST} 0"), "+OK\r\n")?;
    // The node answers later, so that the requests are in flight.
    cluster.nodes()[0].pause()?;
    for client in &mut clients {
        client.send(&[encode(&["PING"]), encode(&["INCR", FIRST]).repeat(100)].concat())?;
        // The first reply comes when the piece was read.
        ensure!(client.reply()? == b"+PONG\r\n", "PING");
    }
    portico.signal("TERM")?;
    portico.wait_for_log("told to end", Duration::from_secs(5))?;
    sleep(Duration::from_millis(200));
    ensure!(portico.status()?.is_none(), "it ended with requests in flight");
    ensure!(TcpStream::connect(("127.0.0.1", portico.port())).is_err(), "it still takes connections");
    cluster.nodes()[0].resume()?;
    let mut seen = Vec::new();
    for client in &mut clients {
        let text = String::from_utf8(client.rest()?)?;
        let replies: Vec<u32> =
            text.split_terminator("\r\n").map(|reply| reply[1..].parse()).collect::<Result<_, _>>()?;
        assert_eq!(replies.len(), 100, "{text}");
        ensure!(replies.is_sorted(), "out of order: {replies:?}");
        seen.extend(replies);
    }
    seen.sort_unstable();
    assert_eq!(seen, (1..=2000).collect::<Vec<_>>());
    ensure!(idle.rest()?.is_empty(), "an idle client is told something");
    let status = portico.wait(Duration::from_secs(5))?;
    ensure!(status.success(), "{status}");
    secrets_are_kept(&portico)
}

/// In the middle of a stream of requests: each write that was carried out was answered, in order, and none twice.
#[test]
fn a_stream_of_requests_ends_cleanly() -> Result<()> {
    let cluster = cluster()?;
    let mut portico = Portico::start(&cluster, &flags())?;
    let clients: Vec<_> = (0..8).map(|_| client(&portico)).collect::<Result<_>>()?;
    let counted = std::thread::scope(|scope| -> Result<u32> {
        let threads: Vec<_> = clients
            .into_iter()
            .enumerate()
            .map(|(number, mut client)| {
                scope.spawn(move || -> Result<u32> {
                    let key = format!("stream:{number}");
                    let mut writer = client.writer()?;
                    let requests = encode(&["INCR", &key]).repeat(50);
                    let writing = std::thread::spawn(move || {
                        use std::io::Write;
                        let deadline = Instant::now() + Duration::from_secs(10);
                        while Instant::now() < deadline && writer.write_all(&requests).is_ok() {
                            sleep(Duration::from_millis(1));
                        }
                    });
                    let text = String::from_utf8(client.rest()?)?;
                    writing.join().expect("no panic");
                    ensure!(text.ends_with("\r\n"), "half a reply");
                    let mut last = 0;
                    for reply in text.split_terminator("\r\n") {
                        last += 1;
                        ensure!(reply == format!(":{last}"), "{reply} instead of :{last}");
                    }
                    Ok(last)
                })
            })
            .collect();
        sleep(Duration::from_millis(300));
        portico.signal("TERM")?;
        threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
    })?;
    let status = portico.wait(Duration::from_secs(5))?;
    ensure!(status.success(), "{status}");
    let again = Portico::start(&cluster, &flags())?;
    let mut check = client(&again)?;
    let mut stored = 0;
    for number in 0..8 {
        let text = check.text(&format!("GET stream:{number}"))?;
        stored += text.split(r"\r\n").nth(1).map_or(Ok(0), str::parse)?;
    }
    ensure!(counted > 0, "nothing was answered");
    assert_eq!(counted, stored, "answered, and carried out");
    secrets_are_kept(&portico)
}

#[test]
fn a_second_signal_ends_it_at_once() -> Result<()> {
    on_a_calm_machine(|| {
        let cluster = cluster()?;
        let mut portico = Portico::start(&cluster, &flags())?;
        portico.expect_log("second time");
        let mut client = client(&portico)?;
        client.expect(&format!("SET {FIRST} 0"), "+OK\r\n")?;
        cluster.nodes()[0].pause()?;
        client.request(&["GET", FIRST])?;
        sleep(Duration::from_millis(100));
        portico.signal("TERM")?;
        portico.wait_for_log("told to end", Duration::from_secs(5))?;
        sleep(Duration::from_millis(200));
        ensure!(portico.status()?.is_none(), "it ended with a request in flight");
        let began = Instant::now();
        portico.signal("INT")?;
        let status = portico.wait(Duration::from_secs(5))?;
        ensure_timely!(began.elapsed() < Duration::from_secs(1), "it took {:?}", began.elapsed());
        ensure!(!status.success(), "{status}");
        cluster.nodes()[0].resume()?;
        secrets_are_kept(&portico)
    })
}

#[test]
fn without_clients_it_ends_at_once() -> Result<()> {
    on_a_calm_machine(|| {
        let cluster = cluster()?;
        for signal in ["TERM", "INT"] {
            let mut portico = Portico::start(&cluster, &flags())?;
            let _idle: Vec<_> = (0..10).map(|_| client(&portico)).collect::<Result<_>>()?;
            let mut half = client(&portico)?;
            half.send(b"*2\r\n$3\r\nGET\r\n$10\r\nabc")?;
            let began = Instant::now();
            portico.signal(signal)?;
            let status = portico.wait(Duration::from_secs(5))?;
            ensure!(status.success(), "{signal}: {status}");
            ensure_timely!(
                began.elapsed() < Duration::from_secs(2),
                "{signal}: it took {:?}",
                began.elapsed()
            );
        }
        Ok(())
    })
}

/// What was not received in full is not answered, however large its beginning.
#[test]
fn half_a_large_request_does_not_keep_it() -> Result<()> {
    let cluster = cluster()?;
    let mut portico = Portico::start(&cluster, &flags())?;
    let mut half = client(&portico)?;
    half.send(format!("*3\r\n$3\r\nSET\r\n$1\r\n{FIRST}\r\n$50000000\r\n").as_bytes())?;
    half.send(&vec![b'v'; 5_000_000])?;
    sleep(Duration::from_millis(200));
    portico.signal("TERM")?;
    let status = portico.wait(Duration::from_secs(5))?;
    ensure!(status.success(), "{status}");
    ensure!(half.rest()?.is_empty(), "half a request is answered");
    Ok(())
}
