//! A storm of clients ends, and the memory that it took goes back to the system.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use portico::sandbox::{Cluster, ClusterOptions};
use portico_tests::live::wait_until;
use portico_tests::{Client, Portico};

const CLIENTS: usize = 700;
/// What may be left of a storm, and when, in bytes.
const LEFT: u64 = 80 << 20;
const SOON: Duration = Duration::from_secs(60);

#[test]
fn a_storm_of_half_sent_requests_leaves_nothing() -> Result<()> {
    let cluster = Cluster::start(ClusterOptions { masters: 1, ..ClusterOptions::default() })?;
    let portico = Portico::start(&cluster, &[])?;
    portico.client()?.expect("SET k v", "+OK\r\n")?;
    let before = portico.memory()?;
    let mut request = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1000000\r\n".to_vec();
    request.resize(request.len() + 900_000, b'x');
    // The second finds the allocator used to large buffers.
    for _ in 0..2 {
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            let mut client: Client = portico.client()?;
            client.send(&request)?;
            clients.push(client);
        }
        wait_until(SOON, "all is received", || Ok(portico.memory()? > before + CLIENTS as u64 * 800_000))?;
    }
    let ended = Instant::now();
    while portico.memory()? > before + LEFT {
        ensure!(ended.elapsed() < SOON, "{} MB are held", portico.memory()? >> 20);
        std::thread::sleep(Duration::from_millis(500));
    }
    println!("memory: {} MB are left after {:?}", (portico.memory()? - before) >> 20, ended.elapsed());
    portico.client()?.expect("GET k", "$1\r\nv\r\n")
}
