//! Open files: those for nodes are set aside before clients have theirs, as redis-server does for its own.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Config;

/// Listeners, event queues, the log, the refresher's, and a connection a worker, node and protocol.
const BESIDES: u64 = 1024;
/// With fewer files nothing can be served.
const FEWEST: u64 = 64;

/// Room for as many clients as `maxclients` can be set to.
const MOST: u64 = 1_000_000 + BESIDES;

/// Raises the limit of open files as far as it goes; where that is too little for `maxclients` and `max-leases`, lowers
/// these, and says so. Returns how many clients there is room for.
///
/// # Errors
/// There are too few to serve anybody.
pub fn reserve(config: &mut Config) -> anyhow::Result<usize> {
    let (clients, leases) = (config.maxclients as u64, (config.max_leases * config.workers) as u64);
    let wanted = clients + leases.min(clients) + BESIDES;
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(MOST).min(MOST);
    let mut possible = limit.current.unwrap_or(MOST);
    for files in [most, most.min(wanted)] {
        let raise = Rlimit { current: Some(files), maximum: limit.maximum };
        if possible < files && setrlimit(Resource::Nofile, raise).is_ok() {
            possible = files;
        }
    }
    anyhow::ensure!(
        possible >= FEWEST,
        "Your current 'ulimit -n' of {possible} is not enough for the server to start. Please increase your open file \
         limit to at least {}. Exiting.",
        clients + BESIDES
    );
    let share = share(possible, clients, leases);
    config.max_leases = (share.leases as usize / config.workers).max(1).min(config.max_leases);
    if share.clients < clients {
        config.maxclients = share.clients as usize;
        tracing::warn!(
            "You requested maxclients of {clients} requiring at least {} max file descriptors. Current maximum open files \
             is {possible}. maxclients has been reduced to {} to compensate for low ulimit, and max-leases to {} for each \
             worker. If you need higher maxclients increase 'ulimit -n'.",
            clients + BESIDES,
            config.maxclients,
            config.max_leases
        );
    }
    Ok((for_clients(possible) - share.leases) as usize)
}

/// What is left when those are set aside that are for nobody in particular: half of few.
fn for_clients(possible: u64) -> u64 {
    possible - BESIDES.min(possible / 2)
}

/// Who may have how many files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Share {
    clients: u64,
    leases: u64,
}

/// How `possible` files are shared out: a quarter of those for clients is for connections that they lease, unless all
/// clients have room beside some.
fn share(possible: u64, clients: u64, leases: u64) -> Share {
    const SOME: u64 = 256;
    let rest = for_clients(possible);
    let leased = leases.min(rest / 4);
    let clients = if rest >= clients + leased.min(SOME) { clients } else { rest - leased };
    Share { clients, leases: leases.min(rest - clients) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_have_theirs_first() {
        let of = |possible, clients, leases| {
            let Share { clients, leases } = share(possible, clients, leases);
            (clients, leases)
        };
        assert_eq!(of(21_024, 10_000, 20_000), (10_000, 10_000));
        assert_eq!(of(200, 10_000, 20_000), (75, 25));
        assert_eq!(of(200, 10_000, 2), (98, 2));
        assert_eq!(of(200, 50, 2), (50, 2));
        assert_eq!(of(12_000, 10_000, 20_000), (10_000, 976));
        assert_eq!(of(11_100, 10_000, 20_000), (7557, 2519));
        assert_eq!(of(64, 10, 20_000), (10, 22));
    }
}
