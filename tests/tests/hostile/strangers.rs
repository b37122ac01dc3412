//! Those who speak something else at the port, or the wrong password: told if they would understand, logged now and then.

use std::time::Duration;

use anyhow::{Result, ensure};
use portico::sandbox::{Cluster, ClusterOptions};
use portico_tests::{Portico, show};

/// The beginning of what OpenSSL 3 says first.
const TLS_HELLO: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 random \n and more";

fn one_master() -> Result<Cluster> {
    Cluster::start(ClusterOptions { masters: 1, ..ClusterOptions::default() })
}

/// All that is said to these bytes until the connection is closed.
fn said(portico: &Portico, pieces: &[&[u8]]) -> Result<String> {
    let mut client = portico.client()?;
    client.set_patience(Duration::from_secs(2))?;
    for piece in pieces {
        client.send(piece)?;
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(show(&client.rest()?))
}

#[test]
fn strangers_are_turned_away() -> Result<()> {
    let cluster = one_master()?;
    let portico = Portico::start(&cluster, &[])?;
    for text in ["speaks TLS", "PROXY protocol", "SECURITY ATTACK"] {
        portico.expect_log(text);
    }
    let proxy_v1 = b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 6379\r\n*1\r\n$4\r\nPING\r\n";
    let proxy_v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x01\xc0\x00\x02\x02\xdc\x04\x18\xeb*1\r\n$4\r\nPING\r\n";
    for round in 0..3 {
        for pieces in [&[TLS_HELLO][..], &[&TLS_HELLO[..1], &TLS_HELLO[1..]]] {
            let told = said(&portico, pieces)?;
            ensure!(told.is_empty(), "round {round}: TLS is answered {told:?}");
        }
        for pieces in [
            &[&proxy_v1[..]][..],
            &[b"PROXY UNKNOWN\r\nPING\r\n"],
            &[&proxy_v2[..]],
            &[&proxy_v2[..9], &proxy_v2[9..]],
        ] {
            let told = said(&portico, pieces)?;
            ensure!(told.starts_with("-ERR Protocol error") && told.contains("proxy-protocol"), "{told}");
            ensure!(told.matches("\\r\\n").count() <= 1 && !told.contains("PONG"), "more follows: {told}");
        }
        let told = said(&portico, &[b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\n"])?;
        ensure!(told.is_empty(), "POST is answered {told:?}");
    }
    for text in ["speaks TLS", "PROXY protocol", "SECURITY ATTACK"] {
        let lines = portico.log().matches(text).count();
        ensure!(lines == 1, "{text} is logged {lines} times");
    }
    // A word that only begins alike is a command like any other.
    portico.client()?.expect("PING", "+PONG\r\n")
}

#[test]
fn failed_logins_are_counted_and_logged_now_and_then() -> Result<()> {
    let cluster = one_master()?;
    let portico = Portico::start(&cluster, &["--requirepass", "sesame"])?;
    let mut client = portico.client()?;
    for line in ["AUTH wrong", "AUTH somebody sesame", "HELLO 3 AUTH default wrong"] {
        ensure!(client.text(line)?.starts_with("-WRONGPASS"), "{line}");
    }
    client.expect("AUTH sesame", "+OK\r\n")?;
    let info = client.text("INFO portico")?;
    ensure!(info.contains("portico_failed_logins:3"), "{info}");
    let log = portico.log();
    ensure!(log.matches("wrong user or password").count() == 1, "{log}");
    ensure!(log.contains("client=127.0.0.1:") && !log.contains("sesame"), "{log}");
    Ok(())
}
