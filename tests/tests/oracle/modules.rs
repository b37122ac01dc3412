//! Commands of modules through Portico are answered as by one server that has the modules; what cannot be is refused.

use anyhow::{Context as _, Result, ensure};
use portico::sandbox::{Cluster, ClusterOptions, Server, ServerOptions, text};
use portico_tests::{Case, Client, Portico, show};
use redis_protocol::resp2::types::BytesFrame;

/// A standalone, a cluster and Portico in front of it; none where the server has not these modules.
fn start() -> Result<Option<(Server, Cluster, Portico)>> {
    let args = ["--databases", "1"].map(str::to_owned).to_vec();
    let server = Server::start(ServerOptions { args, ..ServerOptions::default() })?;
    let BytesFrame::Array(modules) = server.call(&["MODULE", "LIST"])? else {
        anyhow::bail!("MODULE LIST is no array");
    };
    let has = |name: &str| {
        modules.iter().any(|module| match module {
            BytesFrame::Array(fields) => fields.iter().filter_map(text).any(|field| field == name),
            _ => false,
        })
    };
    if !["ReJSON", "bf", "timeseries", "search"].into_iter().all(has) {
        println!("not asked: the server has no modules");
        return Ok(None);
    }
    let cluster = Cluster::start(ClusterOptions::default())?;
    let portico = Portico::start(&cluster, &["--cross-slot", "emulate"])?;
    // It waits for the map: from then on Portico knows the modules' commands.
    portico.client()?.line("GET none")?;
    Ok(Some((server, cluster, portico)))
}

fn compare(version: u8) -> Result<()> {
    let Some((server, _cluster, portico)) = start()? else { return Ok(()) };
    let (mut direct, mut through) = (Client::connect(server.port())?, portico.client()?);
    if version == 3 {
        direct.hello3()?;
        through.hello3()?;
    }
    let mut differences = Vec::new();
    for case in Case::list("modules")? {
        let wanted = direct.call(&case.words).context("redis")?;
        let got = through.call(&case.words).with_context(|| differences.join("\n"))?;
        differences.extend(case.difference(&wanted, &got));
    }
    portico.check_log()?;
    ensure!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));
    Ok(())
}

#[test]
fn commands_of_modules_one_by_one() -> Result<()> {
    compare(2)
}

#[test]
fn commands_of_modules_one_by_one_in_resp3() -> Result<()> {
    compare(3)
}

#[test]
fn what_would_be_one_masters_part_is_refused() -> Result<()> {
    let Some((_server, _cluster, portico)) = start()? else { return Ok(()) };
    let mut client = portico.client()?;
    for (line, error) in [
        ("TS.MRANGE - + FILTER a=1 GROUPBY a REDUCE sum", "-ERR GROUPBY"),
        ("FT.CREATE i SCHEMA a TEXT", "-ERR "),
        ("FT.SEARCH i *", "-ERR "),
        ("FT.AGGREGATE i *", "-ERR "),
        ("FT._LIST", "-ERR "),
        ("CMS.MERGE a 1 b", "-CROSSSLOT "),
        ("TDIGEST.MERGE a 1 b", "-CROSSSLOT "),
        ("TIMESERIES.REFRESHCLUSTER", "-ERR "),
    ] {
        let reply = show(&client.line(line)?);
        ensure!(reply.starts_with(error), "{line}: {reply}");
    }
    Ok(())
}
