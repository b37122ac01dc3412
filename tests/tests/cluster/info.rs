//! INFO and what else Portico can say by itself never wait for a node: whoever watches a cluster asks most when
//! something is wrong with it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use portico::sandbox::{Cluster, ClusterOptions};
use portico_tests::{Client, Portico, ensure_timely, on_a_calm_machine};

/// INFO's own limit is 200 ms.
const LIMIT: Duration = Duration::from_millis(300);

fn ask(client: &mut Client, command: &[&str]) -> Result<String> {
    let begun = Instant::now();
    let reply = String::from_utf8_lossy(&client.call(command)?).into_owned();
    ensure_timely!(begun.elapsed() < LIMIT, "{command:?} took {:?}", begun.elapsed());
    Ok(reply)
}

fn field<'t>(info: &'t str, name: &str) -> Result<&'t str> {
    let mut lines = info.lines();
    lines
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .with_context(|| format!("{name} in {info}"))
}

#[test]
fn a_master_that_is_gone_is_named_and_not_waited_for() -> Result<()> {
    on_a_calm_machine(|| {
        // Stopped, not dead: nothing refuses a connection, and nobody takes over.
        let cluster = Cluster::start(ClusterOptions::default())?;
        let portico = Portico::start(&cluster, &["--failover-timeout", "1000"])?;
        let mut client = portico.client()?;
        for key in 0..300 {
            client.call(&["SET", &format!("key:{key}"), "value"])?;
        }
        let before = ask(&mut client, &["INFO"])?;
        ensure!(field(&before, "portico_masters_silent")? == "0", "{before}");
        ensure!(field(&before, "db0")?.starts_with("keys=300,"), "{before}");

        let stopped = cluster.nodes()[1].port();
        cluster.nodes()[1].pause()?;
        for _ in 0..3 {
            // Asked by the connection that was there, and by a new one.
            for client in [&mut client, &mut portico.client()?] {
                let info = ask(client, &["INFO"])?;
                ensure!(field(&info, "portico_masters_silent")? == "1", "{info}");
                let named = format!("port={stopped},state=silent");
                ensure!(info.contains(&named), "{named} is not in {info}");
                ensure!(info.contains("figures_age_ms="), "its last figures are known: {info}");
                ensure!(field(&info, "db0")?.starts_with("keys=300,"), "with its last figures: {info}");
                ask(client, &["INFO", "server"])?;
                for own in [
                    &["PING"][..],
                    &["CLIENT", "LIST"],
                    &["ROLE"],
                    &["TIME"],
                    &["CONFIG", "GET", "portico-port"],
                ] {
                    ensure!(!ask(client, own)?.starts_with('-'), "{own:?}");
                }
            }
        }
        let size = String::from_utf8_lossy(&client.call(&["DBSIZE"])?).into_owned();
        ensure!(size.starts_with('-') && size.contains(&format!("127.0.0.1:{stopped}")), "{size}");

        for node in cluster.nodes() {
            node.pause()?;
        }
        let info = ask(&mut client, &["INFO"])?;
        ensure!(field(&info, "portico_masters_silent")? == "3", "{info}");
        for node in cluster.nodes() {
            node.resume()?;
        }
        cluster.wait_until_agreed()?;
        portico_tests::live::wait_until(Duration::from_secs(10), "all answer again", || {
            let info = String::from_utf8_lossy(&client.call(&["INFO"])?).into_owned();
            Ok(field(&info, "portico_masters_silent")? == "0")
        })?;
        portico.expect_log("topology");
        portico.check_log()
    })
}
