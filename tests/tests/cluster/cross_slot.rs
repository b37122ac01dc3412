//! What the levels of `--cross-slot` make of keys in several slots.

use anyhow::Result;
use portico::sandbox::{Cluster, ClusterOptions};
use portico_tests::Portico;

/// With `--cross-slot refuse` a cluster's own words.
#[test]
fn refuse_says_what_a_cluster_says() -> Result<()> {
    let cluster = Cluster::start(ClusterOptions::default())?;
    let portico = Portico::start(&cluster, &["--cross-slot", "refuse"])?;
    let mut client = portico.client()?;
    let crossslot = "-CROSSSLOT Keys in request don't hash to the same slot\r\n";
    for line in ["MGET a b", "MSET a 1 b 2", "DEL a b", "UNLINK a b", "EXISTS a b", "TOUCH a b", "SUNION a b"]
    {
        client.expect(line, crossslot)?;
    }
    client.expect("MSET {t}a 1 {t}b 2", "+OK\r\n")?;
    client.expect("MGET {t}b {t}a", "*2\r\n$1\r\n2\r\n$1\r\n1\r\n")?;
    client.expect("DEL {t}b {t}a {t}c", ":2\r\n")?;
    Ok(())
}

/// What no step of a transaction can do yet is refused before anything has run, and no level advises itself.
#[test]
fn emulate_refuses_when_queued_what_it_cannot_do() -> Result<()> {
    let cluster = Cluster::start(ClusterOptions::default())?;
    let portico = Portico::start(&cluster, &["--cross-slot", "emulate"])?;
    let mut client = portico.client()?;
    for line in [
        "SMOVE a b x",
        "RENAME a b",
        "COPY a b",
        "SINTERSTORE a b c",
        "BLPOP a b 0",
        "EVAL \"return 1\" 2 a b",
    ] {
        let name = line.split(' ').next().unwrap_or_default();
        let apart = format!(
            "-CROSSSLOT Keys in request don't hash to the same slot (Portico does not do {name} across slots yet: give \
             the keys one {{hash tag}})\r\n"
        );
        client.expect(line, &apart)?;
        client.expect("MULTI", "+OK\r\n")?;
        client.expect(line, &apart)?;
        client.expect("INCR c", "+QUEUED\r\n")?;
        client.expect("EXEC", "-EXECABORT Transaction discarded because of previous errors.\r\n")?;
    }
    client.expect("EXISTS a b c", ":0\r\n")?;
    Ok(())
}
