//! Clients that send what they have and half-close: they are told what a standalone Redis tells them, closed, and
//! forgotten.

use std::time::Duration;

use anyhow::{Result, ensure};
use portico::sandbox::{Cluster, ClusterOptions, Server, ServerOptions};
use portico_tests::live::wait_until;
use portico_tests::{Client, Portico, encode_line, show};

/// Keys in one slot, since not all masters have to be asked for what is compared.
const CASES: &[&[&str]] = &[
    &["PING"],
    &["MULTI", "DBSIZE", "EXEC"],
    &["MULTI", "SET {h}m 1", "GET {h}m", "EXEC"],
    &["WAIT 0 0", "SET {h}after 1"],
    &["GET {h}after"],
    &["WAIT 1 0", "SET {h}never 1"],
    &["GET {h}never"],
    &["RPUSH {h}q a b", "BLPOP {h}q 0"],
    &["BLPOP {h}q 0"],
    &["BLPOP {h}q 0"],
    &["RPUSH {h}q c", "BLPOP {h}q 0", "BLPOP {h}q 0", "SET {h}never 1"],
    &["GET {h}never"],
    &["RPUSH {h}q d", "BLMOVE {h}q {h}r LEFT RIGHT 0", "PING"],
    &["BLPOP {h}none 0.01"],
    &["BRPOP {h}none 0"],
    &["XREAD BLOCK 0 STREAMS {h}s $"],
    &["SET {h}k v", "GET {h}k", "BLPOP {h}none 0", "PING"],
    &["WATCH {h}k", "MULTI", "GET {h}k", "EXEC"],
    &["WATCH {h}k", "BLPOP {h}none 0"],
    &["SUBSCRIBE c"],
    &["SUBSCRIBE c", "UNSUBSCRIBE c", "GET {h}k"],
    &["HELLO 3", "CLIENT TRACKING ON", "GET {h}k"],
    &["MONITOR"],
    &["EVAL \"return 1\" 1 {h}k"],
    &["MULTI", "BLPOP {h}none 0", "EXEC"],
    &["CLIENT NO-EVICT ON"],
    &["KEYS {h}q"],
    &["MGET {h}k {h}k"],
];

fn told(port: u16, lines: &[&str]) -> Result<String> {
    let mut client = Client::connect(port)?;
    let bytes: Vec<u8> = lines.iter().flat_map(|line| encode_line(line)).collect();
    client.send(&bytes)?;
    client.end_requests()?;
    client.set_patience(Duration::from_secs(5))?;
    Ok(show(&client.rest()?))
}

fn clients(port: u16) -> Result<usize> {
    Ok(Client::connect(port)?.text("CLIENT LIST")?.matches("id=").count())
}

#[test]
fn half_closed_clients_are_told_what_redis_tells_them_and_forgotten() -> Result<()> {
    let cluster = Cluster::start(ClusterOptions::default())?;
    let portico = Portico::start(&cluster, &[])?;
    let alone = Server::start(ServerOptions::default())?;
    for round in 0..3 {
        for lines in CASES {
            let mut right = told(alone.port(), lines)?;
            let got = told(portico.port(), lines)?;
            if let (Some(at), Some(from)) = (right.find("%7"), got.find("%7")) {
                // HELLO tells of the server.
                ensure!(at == from, "{lines:?}: {got} instead of {right}");
                let end = |text: &str| text.rfind("*0").map(|at| text[at..].to_owned()).unwrap_or_default();
                right = end(&right);
                ensure!(end(&got) == right, "{lines:?}: {got} instead of {right}");
                continue;
            }
            ensure!(got == right, "round {round}, {lines:?}: {got:?} instead of {right:?}");
        }
    }
    wait_until(Duration::from_secs(2), "they are forgotten", || Ok(clients(portico.port())? == 1))
}

#[test]
fn half_closed_clients_leave_room_for_others() -> Result<()> {
    let cluster = Cluster::start(ClusterOptions::default())?;
    let portico = Portico::start(&cluster, &["--maxclients", "50"])?;
    for _ in 0..120 {
        told(portico.port(), &["MULTI", "DBSIZE", "EXEC"])?;
    }
    portico.client()?.expect("PING", "+PONG\r\n")
}
