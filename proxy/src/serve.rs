//! Serving clients: starts the workers and the refresher, and ends them on a signal.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Instant, SystemTime};

use anyhow::Context as _;
use mio::{Poll, Waker};

use crate::command::Table;
use crate::config::Config;
use crate::descriptors;
use crate::memory;
use crate::signals::{self, Signals};
use crate::stats::Shared;
use crate::topology::{Cluster, RefreshRequests, Refresher, SharedCluster};
use crate::worker::{Listener, MAILBOX, Mailbox, Message, Post, Shell, ShellOptions};

/// Serves clients until the process is told to end.
///
/// Who ends what: the signal thread tells the workers to stop; each ends when its last client was answered; when the
/// last worker has ended, this returns and the other threads end with the process.
///
/// # Errors
/// An address cannot be listened on, or the system refuses threads, signals or event queues.
pub fn run(mut config: Config, signals: Signals) -> anyhow::Result<()> {
    let most_clients = descriptors::reserve(&mut config)?;
    let config = Arc::new(config);
    let workers = config.workers;
    let shared = Arc::new(Shared::new(&config, workers, Instant::now(), SystemTime::now()));
    let cluster = Arc::new(SharedCluster::from_pointee(Cluster::unknown(Arc::new(Table::builtin()))));
    let refresh = RefreshRequests::default();
    shared.settings.set_most_clients(most_clients);
    let mut listeners = listen(&config)?;

    let mut parts = Vec::new();
    let mut posts: Vec<Post> = Vec::new();
    for _ in 0..workers {
        let poll = Poll::new().context("cannot create an event queue")?;
        let waker = Waker::new(poll.registry(), MAILBOX).context("cannot create a waker")?;
        let (mailbox, post) = Mailbox::new(Arc::new(waker));
        parts.push((poll, mailbox));
        posts.push(post);
    }
    start_refresher(&config, &cluster, &refresh, &shared, posts.clone())?;

    let mut threads: Vec<JoinHandle<std::io::Result<()>>> = Vec::new();
    for (worker, (poll, mailbox)) in parts.into_iter().enumerate() {
        let options = ShellOptions {
            config: Arc::clone(&config),
            shared: Arc::clone(&shared),
            cluster: Arc::clone(&cluster),
            refresh: refresh.clone(),
            worker,
            listeners: std::mem::take(&mut listeners),
            mailbox,
            posts: posts.clone(),
        };
        let shell = Shell::new(poll, options).context("cannot start a worker")?;
        let thread = std::thread::Builder::new().name(format!("worker-{worker}")).spawn(|| shell.run())?;
        threads.push(thread);
    }

    let stop = move || {
        shared.stop();
        posts.iter().for_each(|post| post.send(Message::Stop));
    };
    std::thread::Builder::new().name("signals".into()).spawn(move || signals::heed(signals, stop))?;
    std::thread::Builder::new().name("memory".into()).spawn(memory::keep_trim)?;
    for thread in threads {
        match thread.join() {
            Ok(ended) => ended.context("a worker failed")?,
            Err(_) => anyhow::bail!("a worker panicked"),
        }
    }
    if let Some(path) = &config.unixsocket {
        let _ = std::fs::remove_file(path);
    }
    tracing::info!("Portico is now ready to exit, bye bye...");
    Ok(())
}

fn listen(config: &Config) -> anyhow::Result<Vec<Listener>> {
    let mut listeners = Vec::new();
    for bind in config.bind.iter().filter(|_| config.port != 0) {
        let address = (bind.address, config.port).into();
        match Listener::tcp(address, config.tcp_backlog, config.tcp_keepalive) {
            Ok(listener) => listeners.push(listener),
            Err(error) if bind.optional && is_absent(&error) => {
                tracing::debug!(%address, %error, "an optional address is not there");
            }
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("Could not create server TCP listening socket {address}"));
            }
        }
    }
    if let Some(path) = &config.unixsocket {
        let listener = Listener::unix(path, config.unixsocketperm);
        listeners.push(listener.with_context(|| format!("Failed opening Unix socket {}", path.display()))?);
    }
    anyhow::ensure!(!listeners.is_empty(), "none of the addresses of bind can be listened on");
    Ok(listeners)
}

/// Whether an address or its protocol does not exist here.
fn is_absent(error: &std::io::Error) -> bool {
    const EAFNOSUPPORT: i32 = 97;
    const EPROTONOSUPPORT: i32 = 93;
    error.kind() == std::io::ErrorKind::AddrNotAvailable
        || matches!(error.raw_os_error(), Some(EAFNOSUPPORT | EPROTONOSUPPORT))
}

fn start_refresher(
    config: &Arc<Config>,
    cluster: &Arc<SharedCluster>,
    refresh: &RefreshRequests,
    shared: &Arc<Shared>,
    posts: Vec<Post>,
) -> anyhow::Result<()> {
    let (port, workers) = (config.port, config.workers);
    let ready = std::sync::Once::new();
    tracing::info!(port, workers, "Listening; requests wait until the nodes have told their map");
    let published = Box::new(move || {
        ready.call_once(|| tracing::info!(port, workers, "Ready to accept connections"));
        posts.iter().for_each(|post| post.send(Message::Topology));
    });
    let (config, cluster) = (Arc::clone(config), Arc::clone(cluster));
    let refresher = Refresher::new(config, cluster, refresh.clone(), Arc::clone(shared), published);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("refresher".into()).spawn(move || runtime.block_on(refresher.run()))?;
    Ok(())
}
