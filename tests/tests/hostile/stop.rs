//! Told to end, Portico answers what it received and ends; told twice, it ends at once.

use std::net::TcpStream;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use portico::sandbox::{Cluster, ClusterOptions};
use portico_tests::{Binary, Client, Portico, encode, ensure_timely, on_a_calm_machine};

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

/// Whoever does not read is closed when `shutdown-timeout` is over.
#[test]
fn a_client_that_never_reads_does_not_keep_it() -> Result<()> {
    on_a_calm_machine(|| {
        let cluster = cluster()?;
        let mut portico = Portico::start(&cluster, &[&flags()[..], &["--shutdown-timeout", "2"]].concat())?;
        portico.expect_log("shutdown-timeout is over");
        let (mut deaf, mut other) = (client(&portico)?, client(&portico)?);
        deaf.call(&["SET", FIRST, &"v".repeat(900_000)])?;
        deaf.send(&encode(&["GET", FIRST]).repeat(50))?;
        other.call(&["GET", FIRST])?;
        let began = Instant::now();
        portico.signal("TERM")?;
        ensure!(other.rest()?.is_empty(), "it is closed, and told nothing");
        ensure!(portico.status()?.is_none(), "it waits for the other");
        let status = portico.wait(Duration::from_secs(10))?;
        ensure!(status.success(), "{status}");
        ensure!(began.elapsed() >= Duration::from_secs(2), "it did not wait");
        ensure_timely!(began.elapsed() < Duration::from_secs(4), "it took {:?}", began.elapsed());
        secrets_are_kept(&portico)
    })
}

#[test]
fn no_other_signal_ends_it() -> Result<()> {
    let cluster = cluster()?;
    let mut portico = Portico::start(&cluster, &flags())?;
    let mut client = client(&portico)?;
    for signal in ["HUP", "USR1", "USR2", "ALRM", "PIPE", "HUP"] {
        portico.signal(signal)?;
        sleep(Duration::from_millis(50));
        client.expect("PING", "+PONG\r\n")?;
    }
    portico.wait_for_log("settings are not read again", Duration::from_secs(5))?;
    portico.wait_for_log("ignored", Duration::from_secs(5))?;
    portico.signal("TERM")?;
    let status = portico.wait(Duration::from_secs(5))?;
    ensure!(status.success(), "{status}");
    Ok(())
}

/// Told to end before it is ready, it ends as it would later, and not by the signal.
#[test]
fn told_to_end_while_it_starts_it_ends_cleanly() -> Result<()> {
    use std::os::unix::process::ExitStatusExt as _;
    let cluster = cluster()?;
    let seeds: Vec<String> = cluster.seeds().iter().map(ToString::to_string).collect();
    let (mut clean, mut early) = (0, 0);
    for milliseconds in 0..40 {
        let port = portico::sandbox::Port::reserve()?;
        let mut child = Binary::command()?
            .args(["--port", &port.number().to_string(), "--nodes", &seeds.join(",")])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()?;
        sleep(Duration::from_micros(milliseconds * 500));
        let handled = handles_term(child.id());
        let told = std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status()?;
        ensure!(told.success(), "kill");
        let status = child.wait()?;
        if handled {
            ensure!(status.success(), "after {milliseconds} half milliseconds: {status}");
            clean += 1;
        } else {
            ensure!(status.success() || status.signal() == Some(15), "{status}");
            early += 1;
        }
    }
    ensure!(clean > 10, "{clean} of {} were told after it had begun", clean + early);
    Ok(())
}

/// Whether a process has said what it does at SIGTERM.
fn handles_term(process: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 << 14 != 0)
}

/// Where there are few open files clients cannot use up those for nodes.
#[test]
fn few_open_files_are_shared_out() -> Result<()> {
    let cluster = cluster()?;
    let mut limited = std::process::Command::new("sh");
    limited.args(["-c", "ulimit -n 200; exec \"$@\"", "sh"]);
    let portico = Portico::start_by(limited, &cluster, &flags())?;
    portico.expect_log("maxclients has been reduced");
    portico.wait_for_log("maxclients has been reduced to 75", Duration::from_secs(5))?;
    let mut served: Vec<Client> = Vec::new();
    while served.len() < 200 {
        let mut next = portico.client()?;
        if next.call(&["AUTH", "another secret"])?.starts_with(b"-ERR max number of clients") {
            break;
        }
        served.push(next);
    }
    ensure!((70..=75).contains(&served.len()), "{} were served", served.len());
    // Blocked ones have connections to nodes; the others are served beside them.
    let (blocked, others) = served.split_at_mut(30);
    blocked.iter_mut().try_for_each(|client| client.request(&["BLPOP", "nothing", "3"]))?;
    for client in others.iter_mut() {
        client.expect(&format!("SET {FIRST} 1"), "+OK\r\n")?;
        client.expect("MGET a b c", "*3\r\n$-1\r\n$-1\r\n$-1\r\n")?;
    }
    for client in blocked {
        ensure!(client.reply()? == b"*-1\r\n", "BLPOP");
    }
    drop(served);
    sleep(Duration::from_millis(200));
    client(&portico)?.expect(&format!("GET {FIRST}"), "$1\r\n1\r\n")?;
    Ok(())
}
