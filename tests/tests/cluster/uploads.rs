//! A value over 1 MB whose node refuses it, closes or dies: its client is answered, served on, and missed when it goes.

use std::io::Write;
use std::net::Shutdown;
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

use anyhow::{Result, ensure};
use portico::sandbox::{Cluster, ClusterOptions};
use portico_slots::slot;
use portico_tests::live::{cut_connections, failing_over, wait_until};
use portico_tests::{Client, Portico, encode, show};

const MB: usize = 1 << 20;

/// Sends a SET of so many bytes as far as it is taken, by a thread that ends with it.
fn send_value(client: &mut Client, key: &str, size: usize) -> Result<JoinHandle<std::io::Result<()>>> {
    let mut writer = client.writer()?;
    let request = encode(&[b"SET", key.as_bytes(), &vec![b'x'; size]]);
    Ok(std::thread::spawn(move || writer.write_all(&request)))
}

fn clients(portico: &Portico) -> Result<usize> {
    Ok(portico.client()?.text("CLIENT LIST")?.matches("id=").count())
}

#[test]
fn who_was_refused_a_large_value_is_answered_and_served_on() -> Result<()> {
    let cluster = Cluster::start(ClusterOptions::default())?;
    let portico = Portico::start(&cluster, &[])?;
    for node in cluster.nodes() {
        node.ask(&["CONFIG", "SET", "proto-max-bulk-len", &MB.to_string()])?;
    }
    for number in 0..24 {
        let size = [3 * MB / 2, 3 * MB, 8 * MB, 20 * MB][number % 4];
        let mut client = portico.client()?;
        client.set_patience(Duration::from_secs(5))?;
        let sent = send_value(&mut client, &format!("up:{number}"), size)?;
        let told = show(&client.reply()?);
        ensure!(sent.join().is_ok_and(|sent| sent.is_ok()), "the rest is not read: {told}");
        let right = told.starts_with("-ERR Protocol error: invalid bulk length")
            || told.starts_with("-TRYAGAIN The connection to the node was lost while a value over 1 MB");
        ensure!(right, "{size} bytes: {told}");
        client.expect("PING", "+PONG\r\n")?;
    }
    wait_until(Duration::from_secs(3), "nobody is left", || Ok(clients(&portico)? == 1))
}

#[test]
fn who_sends_a_large_value_to_a_node_that_goes_is_answered_and_served_on() -> Result<()> {
    let mut cluster = Cluster::start(ClusterOptions { masters: 3, ..failing_over() })?;
    let portico = Portico::start(&cluster, &["--failover-timeout", "10000"])?;
    let key = (0..).map(|number| format!("up{number}")).find(|key| slot(key.as_bytes()) < 5000);
    let key = key.expect("one of many");
    for kills in [false, true] {
        // The node takes nothing more, so that the client is not read either.
        cluster.nodes()[0].pause()?;
        let (mut stays, mut goes) = (portico.client()?, portico.client()?);
        send_value(&mut goes, &key, 60 * MB)?;
        let sent = send_value(&mut stays, &key, 60 * MB)?;
        sleep(Duration::from_millis(300));
        goes.stream().shutdown(Shutdown::Both)?;
        if kills {
            cluster.node(0).kill()?;
        } else {
            cluster.nodes()[0].resume()?;
            cut_connections(&cluster, &[0])?;
        }
        let told = show(&stays.reply()?);
        let right =
            ["+OK\r\n", "-TRYAGAIN The connection to the node was lost while a value over 1 MB", "-UNKNOWN "];
        ensure!(right.iter().any(|right| told.starts_with(&show(right.as_bytes()))), "{told}");
        ensure!(sent.join().is_ok_and(|sent| sent.is_ok()), "the rest is not read: {told}");
        stays.expect("PING", "+PONG\r\n")?;
        drop(stays);
        wait_until(Duration::from_secs(10), "nobody is left", || Ok(clients(&portico)? == 1))?;
    }
    Ok(())
}
