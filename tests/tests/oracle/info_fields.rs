//! Every field that a server tells in INFO has a rule for how several masters' are made one, and through Portico a
//! client finds the fields that it would find at one server.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use portico::local::{InfoRule, info_rule};
use portico::sandbox::{Cluster, ClusterOptions, Server, ServerOptions};
use portico_tests::live::wait_until;
use portico_tests::{Client, Portico};

const LIMIT: Duration = Duration::from_secs(5);

fn info(client: &mut Client) -> Result<String> {
    Ok(String::from_utf8_lossy(&client.call(&["INFO", "everything"])?).into_owned())
}

/// Section and field of each line.
fn fields(text: &str) -> BTreeSet<(String, String)> {
    let mut section = String::new();
    let mut fields = BTreeSet::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("# ") {
            name.clone_into(&mut section);
        } else if let Some((field, _)) = line.split_once(':') {
            fields.insert((section.clone(), field.to_owned()));
        }
    }
    fields
}

#[test]
fn every_field_of_the_server_is_decided_and_told() -> Result<()> {
    let server = Server::start(ServerOptions::default())?;
    let cluster = Cluster::start(ClusterOptions { replicas: 1, ..ClusterOptions::default() })?;
    let portico = Portico::start(&cluster, &[])?;

    let (mut direct, mut through) = (Client::connect(server.port())?, portico.client()?);
    for client in [&mut direct, &mut through] {
        client.call(&["SET", "key", "value"])?;
        client.call(&["LPUSH", "key", "an error"])?;
    }
    let (here, there) = (fields(&info(&mut direct)?), fields(&info(&mut through)?));
    let mut node = Client::connect(cluster.nodes()[0].port())?;
    let undecided: Vec<_> = here
        .iter()
        .chain(&fields(&info(&mut node)?))
        .filter(|(section, field)| info_rule(section, field).is_none())
        .cloned()
        .collect();
    ensure!(undecided.is_empty(), "local/info/fields.rs has no rule for {undecided:?}");

    let kept = |fields: &BTreeSet<(String, String)>| -> BTreeSet<(String, String)> {
        let statistics = ["Commandstats", "Errorstats", "Latencystats", "Portico"];
        let told = fields.iter().filter(|(section, field)| {
            !statistics.contains(&section.as_str()) && info_rule(section, field) != Some(InfoRule::Absent)
        });
        told.cloned().collect()
    };
    ensure!(
        kept(&here) == kept(&there),
        "only at one server: {:?}\nonly through Portico: {:?}",
        kept(&here).difference(&kept(&there)).collect::<Vec<_>>(),
        kept(&there).difference(&kept(&here)).collect::<Vec<_>>()
    );
    let role = through.call(&["ROLE"])?;
    ensure!(role == direct.call(&["ROLE"])?, "ROLE does not agree with INFO: {role:?}");
    Ok(())
}

#[test]
fn who_waits_is_counted_as_by_one_server() -> Result<()> {
    let cluster = Cluster::start(ClusterOptions::default())?;
    let portico = Portico::start(&cluster, &[])?;
    let mut watcher = portico.client()?;
    let mut counts = || -> Result<(String, String)> {
        let text = info(&mut watcher)?;
        let of = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
        Ok((of("blocked_clients:").context("told")?, of("clients_in_timeout_table:").context("told")?))
    };
    let both = |all: &str, timed: &str| (all.to_owned(), timed.to_owned());
    ensure!(counts()? == both("0", "0"));

    let (mut timed, mut endless) = (portico.client()?, portico.client()?);
    timed.request(&["BLPOP", "a", "100"])?;
    endless.request(&["BLPOP", "b", "0"])?;
    wait_until(LIMIT, "both wait", || Ok(counts()? == both("2", "1")))?;
    portico.client()?.call(&["RPUSH", "b", "x"])?;
    endless.reply()?;
    wait_until(LIMIT, "one waits", || Ok(counts()? == both("1", "1")))?;
    drop(timed);
    wait_until(LIMIT, "nobody waits", || Ok(counts()? == both("0", "0")))?;

    // So are those who wait for the end of a pause.
    let (mut writes, mut leaves) = (portico.client()?, portico.client()?);
    endless.expect("CLIENT PAUSE 60000 WRITE", "+OK\r\n")?;
    writes.request(&["SET", "a", "x"])?;
    leaves.request(&["SET", "a", "x"])?;
    wait_until(LIMIT, "two are paused", || Ok(counts()? == both("2", "0")))?;
    drop(leaves);
    wait_until(LIMIT, "one is paused", || Ok(counts()? == both("1", "0")))?;
    endless.expect("CLIENT UNPAUSE", "+OK\r\n")?;
    writes.reply()?;
    wait_until(LIMIT, "none is paused", || Ok(counts()? == both("0", "0")))
}
