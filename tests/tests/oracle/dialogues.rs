//! Several connections at a time, and what each receives: the same from a standalone Redis and through Portico.
//!
//! `DIALOGUES_ONLY=text` runs those whose title holds the text, `DIALOGUES_SHOW=1` prints what Redis says, and
//! `DIALOGUES_SELF=1` puts a second standalone Redis in Portico's place, which shows that the dialogues are sound.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use anyhow::{Context, Result, ensure};
use portico::sandbox::{Cluster, ClusterOptions, Server, ServerOptions};
use portico_tests::Portico;
use portico_tests::dialogue::{Script, Side, differences};

/// Each dialogue assumes empty servers: they take turns.
struct Servers {
    redis: Server,
    /// A second one, or what Portico is in front of.
    behind: Behind,
}

enum Behind {
    Redis(Server),
    Cluster { cluster: Cluster, porticos: HashMap<Vec<String>, Portico> },
}

fn standalone(more: &[&str]) -> Result<Server> {
    // A cluster has one database, and so has this.
    let args = ["--databases", "1"].iter().chain(more).map(ToString::to_string).collect();
    Server::start(ServerOptions { args, ..ServerOptions::default() })
}

impl Servers {
    fn take() -> MutexGuard<'static, Self> {
        static SERVERS: OnceLock<Mutex<Servers>> = OnceLock::new();
        let servers = SERVERS.get_or_init(|| Mutex::new(Servers::start().expect("redis-server starts")));
        servers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start() -> Result<Self> {
        let behind = if std::env::var_os("DIALOGUES_SELF").is_some() {
            Behind::Redis(standalone(&[])?)
        } else {
            Behind::Cluster { cluster: Cluster::start(ClusterOptions::default())?, porticos: HashMap::new() }
        };
        Ok(Servers { redis: standalone(&[])?, behind })
    }
}

fn plain<'s>(server: &'s Server, name: &'static str) -> Side<'s> {
    Side { name, port: server.port(), servers: vec![server] }
}

fn run(name: &str) -> Result<()> {
    let script = Script::load(name)?;
    let only = std::env::var("DIALOGUES_ONLY").ok();
    let mut servers = Servers::take();
    let Servers { redis, behind } = &mut *servers;
    let redis = plain(redis, "redis");
    let mut found = Vec::new();
    match behind {
        Behind::Redis(second) => {
            found.extend(differences(&script, [&redis, &plain(second, "other")], only.as_deref()));
        }
        Behind::Cluster { cluster, porticos } => {
            let flags: Vec<&str> = script.flags.iter().map(String::as_str).collect();
            // One that has died, in a dialogue before, is not there for the next ones.
            if let Some(portico) = porticos.get_mut(&script.flags)
                && portico.status()?.is_some()
            {
                portico.expect_log("");
                porticos.remove(&script.flags);
            }
            if !porticos.contains_key(&script.flags) {
                let portico = Portico::start(cluster, &flags)?;
                // So that no client's number is one that means something else in a reply.
                for _ in 0..100 {
                    portico.client()?;
                }
                porticos.insert(script.flags.clone(), portico);
            }
            let portico = porticos.get(&script.flags).context("it was started")?;
            let side =
                Side { name: "portico", port: portico.port(), servers: cluster.nodes().iter().collect() };
            found.extend(differences(&script, [&redis, &side], only.as_deref()));
            if let Err(error) = portico.check_log() {
                found.push(format!("{error:#}"));
                // Not the next file's fault.
                error.to_string().lines().skip(1).for_each(|line| portico.expect_log(line));
            }
        }
    }
    ensure!(found.is_empty(), "{} dialogues differ:\n{}", found.len(), found.join("\n"));
    Ok(())
}

macro_rules! files {
    ($($file:ident),* $(,)?) => {
        const FILES: &[&str] = &[$(stringify!($file)),*];

        $(
            #[test]
            fn $file() -> Result<()> {
                run(stringify!($file))
            }
        )*
    };
}

files!(
    transactions,
    watch,
    transactions_across_slots,
    blocking,
    blocking_streams,
    pubsub,
    sharded_pubsub,
    notifications,
    scripts,
    functions,
    connection,
    client_kill,
    client_pause,
    command,
    tracking,
    monitor
);

#[test]
fn every_file_is_run() -> Result<()> {
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/dialogues"))? {
        let path = entry?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        ensure!(name == "README" || FILES.contains(&&*name), "{name} is not among the files");
    }
    Ok(())
}

/// Two servers that differ in one reply differ in that line, and what follows is compared all the same.
#[test]
fn a_difference_is_seen_and_the_next_dialogue_runs() -> Result<()> {
    let (one, other) = (standalone(&[])?, standalone(&["--maxclients", "77"])?);
    let script = Script::parse(
        "test",
        "== alike\nwith resp 2\na: PING\nb> BLPOP k 0\nblocked 1\na: RPUSH k v\nb< 1\n\
         == differing\nwith resp 2\na: CONFIG GET maxclients\na: PING\na: ? CONFIG GET maxclients\n\
         == unsound\nwith resp 2\na> PING\na silent\na: @ CLIENT ID\na> BLPOP k 0\n\
         == alike again\nwith resp 3\na: @ CLIENT ID\na: MULTI\na: GET k\na: EXEC\n",
    )?;
    let found = differences(&script, [&plain(&one, "one"), &plain(&other, "other")], None);
    let [differing, unsound] = &found[..] else { panic!("two, not {found:#?}") };
    ensure!(differing.contains("line 10: a: CONFIG GET maxclients"), "{differing}");
    ensure!(differing.contains("maxclients") && differing.contains(r"$2\r\n77\r\n"), "{differing}");
    ensure!(differing.lines().count() == 4, "{differing}");
    ensure!(unsound.contains("line 16: a silent"), "{unsound}");
    Ok(())
}
