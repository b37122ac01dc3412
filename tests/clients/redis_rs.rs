//! redis-rs as it talks to one standalone Redis: a plain connection and a multiplexed one, in RESP2 and in RESP3.

use std::collections::{BTreeSet, HashMap};

use anyhow::{Context, Result, ensure};
use redis::{AsyncCommands, Client, Commands, Connection, ErrorKind, RedisError, Script, ServerErrorKind};

/// Does all of it at the server on that loopback port.
pub(crate) fn check(port: u16) -> Result<()> {
    for protocol in ["resp2", "resp3"] {
        let client = Client::open(format!("redis://127.0.0.1:{port}/?protocol={protocol}"))?;
        let mut connection = client.get_connection()?;
        let (): () = redis::cmd("FLUSHALL").query(&mut connection)?;
        values(&mut connection).with_context(|| format!("values, {protocol}"))?;
        pipelines(&mut connection).with_context(|| format!("pipelines, {protocol}"))?;
        scans_and_scripts(&mut connection).with_context(|| format!("scans and scripts, {protocol}"))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(multiplexed(&client)).with_context(|| format!("multiplexed, {protocol}"))?;
    }
    Ok(())
}

fn values(connection: &mut Connection) -> Result<()> {
    let (): () = connection.set("rs:n", 1)?;
    let n: i64 = connection.incr("rs:n", 41)?;
    ensure!(n == 42);
    let absent: Option<String> = connection.get("rs:absent")?;
    ensure!(absent.is_none());

    let pairs: Vec<(String, usize)> = (0..500).map(|i| (format!("rs:m:{i}"), i)).collect();
    let names: Vec<&String> = pairs.iter().map(|(name, _)| name).collect();
    let (): () = connection.mset(&pairs)?;
    let values: Vec<usize> = connection.mget(&names)?;
    ensure!(values == (0..500).collect::<Vec<_>>());
    let gone: usize = connection.del(&names)?;
    ensure!(gone == 500);

    let fields: HashMap<String, f64> = (0..50).map(|i| (format!("f{i}"), f64::from(i) / 4.0)).collect();
    let (): () = connection.hset_multiple("rs:h", &fields.iter().collect::<Vec<_>>())?;
    let read: HashMap<String, f64> = connection.hgetall("rs:h")?;
    ensure!(read == fields);
    let (): () = connection.zadd_multiple("rs:z", &[(1.5, "a"), (f64::INFINITY, "b")])?;
    let scores: Vec<(String, f64)> = connection.zrange_withscores("rs:z", 0, -1)?;
    ensure!(scores == [("a".to_owned(), 1.5), ("b".to_owned(), f64::INFINITY)]);

    let error = connection.lpush::<_, _, i64>("rs:h", 1).expect_err("a hash is no list");
    ensure!(error.code() == Some("WRONGTYPE"), "{error}");

    let value: Vec<u8> = (0..3_000_000_u32).map(|i| i.to_le_bytes()[0]).collect();
    let (): () = connection.set("rs:big", &value)?;
    let read: Vec<u8> = connection.get("rs:big")?;
    ensure!(read == value);
    Ok(())
}

fn pipelines(connection: &mut Connection) -> Result<()> {
    let mut pipeline = redis::pipe();
    for i in 0..1000 {
        pipeline.set(format!("rs:p:{i}"), i).ignore().incr(format!("rs:p:{i}"), 1);
    }
    let replies: Vec<i64> = pipeline.query(connection)?;
    ensure!(replies == (1..=1000).collect::<Vec<_>>());
    let names: Vec<String> = (0..1000).map(|i| format!("rs:p:{i}")).collect();
    let gone: usize = connection.unlink(names)?;
    ensure!(gone == 1000);
    Ok(())
}

fn scans_and_scripts(connection: &mut Connection) -> Result<()> {
    let names: BTreeSet<String> = (0..300).map(|i| format!("rs:scan:{i}")).collect();
    let pairs: Vec<(&String, &str)> = names.iter().map(|name| (name, "x")).collect();
    let (): () = connection.mset(&pairs)?;
    let found: BTreeSet<String> =
        connection.scan_match::<_, String>("rs:scan:*")?.collect::<Result<_, RedisError>>()?;
    ensure!(found == names);
    let gone: usize = connection.del(names.iter().collect::<Vec<_>>())?;
    ensure!(gone == 300);

    let script = Script::new("return redis.call('INCRBY', KEYS[1], ARGV[1])");
    let sums: Vec<i64> =
        (1..=3).map(|i| script.key("rs:sum").arg(i).invoke(connection)).collect::<Result<_, _>>()?;
    ensure!(sums == [1, 3, 6]);
    let failed = Script::new("return redis.call('INCR', KEYS[1], 1)").key("rs:sum").invoke::<i64>(connection);
    ensure!(failed.is_err_and(|error| error.kind() == ErrorKind::Server(ServerErrorKind::ResponseError)));
    Ok(())
}

/// One connection shared by many tasks, as async programs use it.
async fn multiplexed(client: &Client) -> Result<()> {
    let connection = client.get_multiplexed_async_connection().await?;
    let mut tasks = tokio::task::JoinSet::new();
    for i in 0..500_i64 {
        let mut connection = connection.clone();
        tasks.spawn(async move {
            let name = format!("rs:task:{i}");
            let (): () = connection.set(&name, i).await?;
            let read: i64 = connection.get(&name).await?;
            let next: i64 = connection.incr(&name, 1).await?;
            let (): () = connection.del(&name).await?;
            ensure!((read, next) == (i, i + 1), "{name}: {read}, {next}");
            Ok(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}
