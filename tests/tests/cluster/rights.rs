//! What the user that Portico logs in as may do, and which servers it serves: as `portico check` tells it.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::thread;

use anyhow::{Result, ensure};
use portico::sandbox::{Cluster, ClusterOptions};
use portico_tests::{Binary, Portico, encode_line};

/// As README gives it.
const RULES: [&str; 10] =
    ["ACL", "SETUSER", "portico", "on", ">secret", "~*", "&*", "+@all", "-cluster", "+cluster|nodes"];
const WARNING: &str = "the user that Portico logs in as may change the cluster";

fn check(arguments: &[&str]) -> Result<String> {
    let output = Binary::command()?.arg("check").args(arguments).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn a_user_that_may_not_change_the_cluster_is_enough() -> Result<()> {
    let cluster = Cluster::start(ClusterOptions::default())?;
    for node in cluster.nodes() {
        node.ask(&[&RULES[..], &["+cluster|info"]].concat())?;
    }
    let nodes = cluster.nodes()[0].address().to_string();
    let told = check(&["--nodes", &nodes])?;
    ensure!(
        told.matches(WARNING).count() == 1 && told.contains("-cluster +cluster|nodes +cluster|info"),
        "{told}"
    );
    let user = ["--node-username", "portico", "--node-password", "secret"];
    let told = check(&[&["--nodes", &nodes][..], &user].concat())?;
    ensure!(
        told.contains("16384 of 16384 slots") && !told.contains(WARNING) && !told.contains("NOPERM"),
        "{told}"
    );
    // What Portico does not read is kept from the cluster by the user's rights.
    let portico = Portico::start(&cluster, &[&user[..], &["--script-commands", "any"]].concat())?;
    let mut client = portico.client()?;
    client.expect("MSET a 1 b 2 c 3", "+OK\r\n")?;
    client.expect("MULTI", "+OK\r\n")?;
    client.expect("INCR a", "+QUEUED\r\n")?;
    client.expect("EXEC", "*1\r\n:2\r\n")?;
    client.expect("DBSIZE", ":3\r\n")?;
    let line = "EVAL \"return redis.call(cjson.decode(ARGV[1])[1], 'delslotsrange', '0', '5460')\" 0 '[\"cluster\"]'";
    client.send(&encode_line(line))?;
    let told = String::from_utf8(client.reply()?)?;
    ensure!(told.starts_with("-ERR The user executing the script can't run this command"), "{told}");
    Ok(())
}

/// A node that says that it is Redis 5.0.14.
#[test]
fn a_server_before_6_2_is_refused_with_the_reason() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?.to_string();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut request = [0; 4096];
                while let Ok(length @ 1..) = stream.read(&mut request) {
                    let asked = String::from_utf8_lossy(&request[..length]).to_uppercase();
                    let text = if asked.contains("NODES") {
                        format!("{} :0@0 myself,master - 0 0 1 connected 0-16383\n", "a".repeat(40))
                    } else if asked.contains("INFO") {
                        "cluster_state:ok\r\nredis_version:5.0.14\r\n".to_owned()
                    } else {
                        "OK".to_owned()
                    };
                    let reply = format!("${}\r\n{text}\r\n", text.len());
                    if stream.write_all(reply.as_bytes()).is_err() {
                        break;
                    }
                }
            });
        }
    });
    let told = check(&["--nodes", &address])?;
    ensure!(told.contains("Redis 5.0.14 is not served: 6.2 and later, and Valkey, are"), "{told}");
    Ok(())
}
