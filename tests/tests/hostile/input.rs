//! Bad input, bad passwords and bad manners are answered in Redis' own words, and harm nobody else.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use portico::sandbox::{Cluster, ClusterOptions, Server, ServerOptions};
use portico_tests::{Client, Portico, Random, encode, encode_line, ensure_timely, on_a_calm_machine, show};

const PASSWORD: &str = "correct horse battery staple";

fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| Cluster::start(ClusterOptions::default()).expect("redis-server starts"))
}

/// The one that every test may use.
fn portico() -> &'static Portico {
    static PORTICO: OnceLock<Portico> = OnceLock::new();
    PORTICO.get_or_init(|| Portico::start(cluster(), &[]).expect("portico starts"))
}

fn redis(password: Option<&str>) -> Result<Server> {
    Server::start(ServerOptions { password: password.map(str::to_owned), ..ServerOptions::default() })
}

/// What a server says to these bytes until it closes. A QUIT behind them ends what they did not: its OK comes last.
fn outcome(port: u16, input: &[u8]) -> Result<String> {
    let mut client = Client::connect(port)?;
    // Redis sees no line end behind a NUL, and waits: alike is what we want, and soon.
    client.set_patience(Duration::from_secs(if input.contains(&0) { 1 } else { 5 }))?;
    client.send(input)?;
    // Behind a line that is too long a further one could end it before anybody looked.
    if input.len() < 60_000 {
        client.send(&encode(&["QUIT"]))?;
    }
    Ok(client.rest().map_or_else(|error| format!("{error:#}"), |said| show(&said)))
}

fn compare(redis: u16, portico: u16, inputs: &[Vec<u8>]) -> Result<()> {
    let mut differences = Vec::new();
    for input in inputs {
        let (wanted, got) = (outcome(redis, input)?, outcome(portico, input)?);
        if wanted != got {
            differences.push(format!("{}\n   redis: {wanted}\n portico: {got}", show(input)));
        }
    }
    ensure!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));
    Ok(())
}

/// Inputs that break the protocol, or nearly.
fn malformed() -> Vec<Vec<u8>> {
    let mut inputs: Vec<Vec<u8>> = [
        "*x\r\n",
        "*\r\n",
        "* 1\r\n",
        "*1 \r\n",
        "*+1\r\n",
        "*01\r\n",
        "*1.5\r\n",
        "*2147483648\r\n",
        "*99999999999999999999\r\n",
        "*0\r\n",
        "*-1\r\n",
        "*-5\r\n",
        "*-x\r\n",
        "*1\r\n+PING\r\n",
        "*1\r\n:4\r\nPING\r\n",
        "*1\r\n\r\n",
        "*1\r\n*1\r\n",
        "*1\r\nPING\r\n",
        "*1\r\n$x\r\n",
        "*1\r\n$\r\n",
        "*1\r\n$-1\r\n",
        "*1\r\n$ 4\r\nPING\r\n",
        "*1\r\n$04\r\nPING\r\n",
        "*1\r\n$536870913\r\n",
        "*1\r\n$99999999999999999999\r\n",
        "*1\r\n$-99999999999999999999\r\n",
        "*2\r\n$4\r\nPING\r\n$x\r\n",
        "*2\r\n$3\r\nGET\r\n!1\r\na\r\n",
        "*1\r\n$4\r\nPINGxx",
        "*1\r\n$0\r\n\r\n",
        "*2\r\n$4\r\nECHO\r\n$0\r\n\r\n",
        "\r\n",
        "\n",
        "   \r\n",
        "\t\r\n",
        "PING\r\n",
        "PING\n",
        "  PING   hello  \r\n",
        "ping \"hello world\"\r\n",
        "ECHO \"a\\x00b\\n\\\"\"\r\n",
        "ECHO 'a\\x00b\\'c'\r\n",
        "ECHO \"\"\r\n",
        "ECHO a\0b\r\n",
        "SET \"a\r\n",
        "SET 'a\r\n",
        "SET \"a\"b c\r\n",
        "SET 'a'b c\r\n",
        "\"\r\n",
        "ECHO \"a\\x\"\r\n",
        "NOPE a b\r\n",
        "GET\r\n",
        "GET none\r\nGET none\nPING\r\n",
        "POST / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "Host: localhost\r\n",
        "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "$4\r\nPING\r\n",
        "+OK\r\n",
        "\0\0\0\0\r\n",
        "\u{1}\u{2}\u{3}\r\n",
    ]
    .map(|input| input.as_bytes().to_vec())
    .to_vec();
    // What came before is still answered, and in order.
    for bad in ["*x\r\n", "*1\r\n$x\r\n", "\"\r\n", "*1\r\n+PING\r\n"] {
        let mut input = Vec::new();
        for line in ["SET bad:a 1", "SET bad:b 2", "MGET bad:a bad:b bad:none", "PING", "GET bad:a"] {
            input.extend(encode_line(line));
        }
        input.extend(bad.as_bytes());
        inputs.push(input);
    }
    for byte in [b'\r', b'\n', 0, 1, b' ', b'\'', b'"', b'\\'] {
        inputs.push([b"*1\r\n", &[byte][..], b"4\r\nPING\r\n"].concat());
    }
    for head in ["", "*", "*1\r\n$"] {
        // Not a byte more than is read when the limit is noticed: a reset could swallow the error.
        let digits = "1".repeat(65_536 + 64 - head.len());
        inputs.push(format!("{head}{digits}").into_bytes());
    }
    inputs
}

#[test]
fn protocol_errors_are_redis_own() -> Result<()> {
    let redis = redis(None)?;
    portico().expect_log("SECURITY ATTACK");
    compare(redis.port(), portico().port(), &malformed())?;
    portico().check_log()
}

#[test]
fn before_authentication_little_is_allowed() -> Result<()> {
    let redis = redis(Some(PASSWORD))?;
    let portico = Portico::start(cluster(), &["--requirepass", PASSWORD])?;
    let mut inputs: Vec<Vec<u8>> = [
        "*11\r\n",
        "*10\r\n$16385\r\n",
        "*2\r\n$16385\r\n",
        "*1\r\n$536870913\r\n",
        "*1048577\r\n",
        "*11\r\n$4\r\nPING\r\n",
        "AUTH\r\n",
        "AUTH wrong\r\n",
        "AUTH default wrong\r\n",
        "AUTH nobody wrong\r\n",
        "AUTH a b c\r\n",
        "PING\r\n",
        "GET a\r\n",
        "GET\r\n",
        "NOPE\r\n",
        "NOPE a b\r\n",
        "MGET a b\r\n",
        "CLIENT ID\r\n",
        "CLIENT NOPE\r\n",
        "COMMAND\r\n",
        "ECHO x\r\n",
        "SELECT 0\r\n",
        "MULTI\r\n",
        "SUBSCRIBE a\r\n",
        "CLUSTER INFO\r\n",
        "HELLO\r\n",
        "HELLO 2\r\n",
        "HELLO 3\r\n",
        "HELLO 4\r\n",
        "HELLO x\r\n",
        "HELLO 3 AUTH default wrong\r\n",
        "HELLO 3 AUTH nobody x\r\n",
        "HELLO 3 AUTH x\r\n",
        "HELLO 3 SETNAME x\r\n",
        "HELLO 3 NOPE\r\n",
        "RESET\r\n",
        "QUIT\r\n",
    ]
    .map(|input| input.as_bytes().to_vec())
    .to_vec();
    inputs.push(encode(&["AUTH", PASSWORD]));
    inputs.push(encode(&["AUTH", "default", PASSWORD]));
    inputs.push(encode(&["AUTH", "nobody", PASSWORD]));
    // At once behind the password, in one piece, the limits are gone.
    let auth = encode(&["AUTH", PASSWORD]);
    let long = "x".repeat(20_000);
    inputs.push([&auth[..], &encode(&["ECHO", &long])].concat());
    inputs.push(
        [&auth[..], &encode(&["MGET", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11"])].concat(),
    );
    inputs.push([&auth[..], &encode(&["GET", "a"]), &encode(&["RESET"]), &encode(&["GET", "a"])].concat());
    inputs.push([&auth[..], &encode(&["AUTH", "wrong"]), &encode(&["GET", "a"])].concat());
    inputs.push([&encode(&["GET", "a"])[..], &auth, &encode(&["GET", "a"])].concat());
    inputs.push([&auth[..], &encode(&["ACL", "WHOAMI"])].concat());
    compare(redis.port(), portico.port(), &inputs)?;

    let hello = encode(&["HELLO", "3", "AUTH", "default", PASSWORD, "SETNAME", "me"]);
    for port in [redis.port(), portico.port()] {
        let mut client = Client::connect(port)?;
        client.send(&hello)?;
        let reply = client.reply()?;
        ensure!(reply.starts_with(b"%7\r\n"), "HELLO: {}", show(&reply));
        client.expect("CLIENT GETNAME", "$2\r\nme\r\n")?;
        client.expect("GET hello:none", "_\r\n")?;
    }
    ensure!(!portico.log().contains(PASSWORD), "the log holds the password");
    Ok(())
}

#[test]
fn the_nodes_password_is_porticos_own_business() -> Result<()> {
    let password = Some(PASSWORD.to_owned());
    let cluster = Cluster::start(ClusterOptions { masters: 2, password, ..ClusterOptions::default() })?;
    let portico = Portico::start(&cluster, &["--node-password", PASSWORD])?;
    let mut client = portico.client()?;
    client.expect("MSET a 1 b 2 c 3 d 4", "+OK\r\n")?;
    client.expect("MGET d c b a", "*4\r\n$1\r\n4\r\n$1\r\n3\r\n$1\r\n2\r\n$1\r\n1\r\n")?;
    client.hello3()?;
    client.expect("MGET a none", "*2\r\n$1\r\n1\r\n_\r\n")?;
    for line in ["INFO", "CLIENT LIST", "CONFIG GET portico-*", "CONFIG GET *pass*"] {
        let reply = client.line(line)?;
        let secret = reply.windows(PASSWORD.len()).any(|part| part == PASSWORD.as_bytes());
        ensure!(!secret, "{line} shows the password");
    }
    drop(client);
    ensure!(!portico.log().contains(PASSWORD), "the log holds the password");

    // The wrong one: an honest error to the client, who can do nothing about it, and a warning for the operator.
    let wrong = Portico::start(&cluster, &["--node-password", "sesame-sesame", "--failover-timeout", "500"])?;
    wrong.expect_log("");
    let mut client = wrong.client()?;
    let reply = client.text("GET a")?;
    ensure!(reply.starts_with('-'), "{reply}");
    ensure!(!reply.starts_with("-NOAUTH") && !reply.starts_with("-WRONGPASS"), "{reply}");
    ensure!(!wrong.log().contains("sesame-sesame"), "the log holds the password");
    ensure!(wrong.log().contains("warning"), "nobody is warned: {}", wrong.log());
    Ok(())
}

#[test]
fn too_many_clients() -> Result<()> {
    let portico = Portico::start(cluster(), &["--maxclients", "5"])?;
    let redis = Server::start(ServerOptions {
        args: ["--maxclients", "5"].map(str::to_owned).to_vec(),
        ..ServerOptions::default()
    })?;
    let mut said = Vec::new();
    for port in [redis.port(), portico.port()] {
        // The one that waited for the start may not be gone yet.
        let deadline = Instant::now() + Duration::from_secs(5);
        let mut clients = loop {
            let mut clients: Vec<_> = (0..5).map(|_| Client::connect(port)).collect::<Result<_>>()?;
            if clients
                .iter_mut()
                .all(|client| client.text("PING").is_ok_and(|reply| reply.starts_with("+PONG")))
            {
                break clients;
            }
            ensure!(Instant::now() < deadline, "five clients are too many");
            drop(clients);
            sleep(Duration::from_millis(50));
        };
        let mut further = Client::connect(port)?;
        said.push(show(&further.rest()?));
        clients.iter_mut().try_for_each(|client| client.expect("PING", "+PONG\r\n"))?;
        clients.pop();
        let deadline = Instant::now() + Duration::from_secs(5);
        while Client::connect(port)?.text("PING").is_err() {
            ensure!(Instant::now() < deadline, "no place for another although one has gone");
            sleep(Duration::from_millis(20));
        }
    }
    assert_eq!(said[0], r"-ERR max number of clients reached\r\n");
    assert_eq!(said[1], said[0]);
    Ok(())
}

#[test]
fn idle_clients_are_closed() -> Result<()> {
    let portico = Portico::start(cluster(), &["--timeout", "2"])?;
    let (mut idle, mut busy, mut half) = (portico.client()?, portico.client()?, portico.client()?);
    half.send(b"*2\r\n$3\r\nGET\r\n")?;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(4) {
        busy.expect("GET idle:none", "$-1\r\n")?;
        sleep(Duration::from_millis(100));
    }
    ensure!(idle.is_closed(), "an idle client stays");
    ensure!(half.is_closed(), "a client with half a request stays");
    busy.expect("PING", "+PONG\r\n")
}

#[test]
fn quit_answers_what_came_before() -> Result<()> {
    let redis = redis(None)?;
    let inputs = [
        "QUIT\r\n",
        "QUIT now\r\n",
        "SET quit:a 1\r\nGET quit:a\r\nMGET quit:a quit:b\r\nQUIT\r\nGET quit:a\r\nPING\r\n",
    ]
    .map(|input| input.as_bytes().to_vec());
    compare(redis.port(), portico().port(), &inputs)?;
    portico().check_log()
}

#[test]
fn a_client_that_never_reads_is_closed_at_the_limit() -> Result<()> {
    on_a_calm_machine(|| {
        let portico = Portico::start(cluster(), &["--client-output-buffer-limit", "4mb"])?;
        portico.expect_log("output buffer");
        let mut other = portico.client()?;
        let value = "v".repeat(100_000);
        other.call(&["SET", "reader:v", &value])?;
        let mut greedy = portico.client()?;
        // 200 MB of replies: far more than sockets hold.
        let requests = encode(&["GET", "reader:v"]).repeat(2000);
        greedy.send(&requests)?;
        let began = Instant::now();
        while !portico.log().contains("output buffer") {
            let asked = Instant::now();
            other.expect("GET reader:none", "$-1\r\n")?;
            ensure_timely!(
                asked.elapsed() < Duration::from_millis(500),
                "another client waited {:?}",
                asked.elapsed()
            );
            ensure_timely!(
                began.elapsed() < Duration::from_secs(20),
                "the client that does not read is not closed"
            );
            sleep(Duration::from_millis(10));
        }
        let rest = greedy.rest()?;
        ensure!(rest.len() < 2000 * 100_000, "it got everything");
        let memory = portico.memory()?;
        ensure!(memory < 100 << 20, "{} MB of memory", memory >> 20);
        Ok(())
    })
}

#[test]
fn a_request_without_end_is_closed_at_the_limit() -> Result<()> {
    let portico = Portico::start(cluster(), &["--client-query-buffer-limit", "2mb"])?;
    portico.expect_log("query buffer");
    let mut endless = portico.client()?;
    let mut other = portico.client()?;
    endless.send(b"*1000001\r\n$4\r\nMGET\r\n")?;
    let piece = "$1000\r\n".to_owned() + &"k".repeat(1000) + "\r\n";
    let piece = piece.repeat(100);
    let refused = (0..200).any(|_| endless.send(piece.as_bytes()).is_err());
    ensure!(refused, "20 MB of one request were taken");
    other.expect("PING", "+PONG\r\n")?;
    let memory = portico.memory()?;
    ensure!(memory < 100 << 20, "{} MB of memory", memory >> 20);
    Ok(())
}

/// Whatever one client does, others get their replies, and soon.
fn others_go_on(name: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let done = AtomicBool::new(false);
    scope(|scope| {
        let others: Vec<_> = (0..4)
            .map(|number| {
                let done = &done;
                scope.spawn(move || -> Result<()> {
                    let mut client = portico().client()?;
                    let mut count = 0;
                    loop {
                        // Once more after the work, however short that was.
                        let is_last = done.load(Ordering::Relaxed);
                        let began = Instant::now();
                        let key = format!("{name}:{number}");
                        client.expect(&format!("SET {key} {count}"), "+OK\r\n")?;
                        let value = count.to_string();
                        client.expect(&format!("GET {key}"), &format!("${}\r\n{value}\r\n", value.len()))?;
                        ensure_timely!(
                            began.elapsed() < Duration::from_secs(1),
                            "waited {:?}",
                            began.elapsed()
                        );
                        count += 1;
                        if is_last {
                            return Ok(());
                        }
                    }
                })
            })
            .collect();
        let result = work();
        done.store(true, Ordering::Relaxed);
        for other in others {
            other.join().expect("no panic")?;
        }
        result
    })?;
    portico().check_log()
}

#[test]
fn garbage_from_fifty_connections_disturbs_nobody() -> Result<()> {
    portico().expect_log("SECURITY ATTACK");
    others_go_on("garbage", || {
        let mut random = Random::new(99);
        for round in 0..6 {
            let clients: Vec<Client> = (0..50)
                .map(|_| {
                    let mut client = portico().client()?;
                    let length = 1 + random.below(5000);
                    let mut bytes = random.bytes(length);
                    // Some that begin well.
                    match round % 3 {
                        0 => {}
                        1 => bytes.splice(0..0, *b"*3\r\n$3\r\nSET\r\n$7\r\ngarbage\r\n$").for_each(drop),
                        _ => bytes.splice(0..0, *b"*1\r\n$4\r\nPING\r\n*").for_each(drop),
                    }
                    // It may be closed already.
                    let _ = client.send(&bytes);
                    Ok(client)
                })
                .collect::<Result<_>>()?;
            drop(clients);
        }
        Ok(())
    })
}

#[test]
fn half_requests_disturb_nobody() -> Result<()> {
    let whole =
        [encode_line("SET half v"), encode_line("MGET half h2 h3"), encode(&["ECHO", &"e".repeat(3000)])]
            .concat();
    others_go_on("half", || {
        for cut in (1..whole.len()).step_by(37) {
            let mut client = portico().client()?;
            client.send(&whole[..cut])?;
        }
        // And some that send all, and do not wait.
        for _ in 0..100 {
            let mut client = portico().client()?;
            client.send(&whole.repeat(20))?;
        }
        Ok(())
    })
}

#[test]
fn connections_come_and_go() -> Result<()> {
    // One of its own: what is counted here is nobody else's.
    let portico = Portico::start(cluster(), &[])?;
    let mut stays = portico.client()?;
    for at in 0..1000 {
        let mut client = portico.client()?;
        if at % 3 == 0 {
            client.expect("GET come:none", "$-1\r\n")?;
        }
        stays.expect("PING", "+PONG\r\n")?;
    }
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let clients = stays.text("INFO clients")?;
        let count = clients.split("connected_clients:").nth(1).context("connected_clients")?;
        let count: usize = count.chars().take_while(char::is_ascii_digit).collect::<String>().parse()?;
        if count == 1 {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{count} clients are left");
        sleep(Duration::from_millis(50));
    }
}
