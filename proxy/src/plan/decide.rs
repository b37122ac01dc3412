//! The decision table: a node's answer or a lost connection, and what to do about it. One total function.

use portico_resp::ErrorCode;
use portico_slots::{Address, Slot};

/// What became of a request that was sent to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// The node answered with this error line (with its `-`).
    Error(&'a [u8]),
    /// The connection was lost or given up before the reply was complete.
    Lost {
        /// The request's last byte reached the kernel, so that the node may have run it.
        sent: bool,
        /// A write of the same session on the same slot was sent behind it.
        overtaken: bool,
    },
}

/// What the decision needs to know of the request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The slot that it was routed by.
    pub slot: Slot,
    /// Flagged `readonly`: running it twice harms nobody.
    pub readonly: bool,
    /// A script can make any error text: only the server's own form counts as a refusal.
    pub script: bool,
    /// It calls a script by its SHA1 whose text is known, and nothing is behind it that it must not follow.
    pub can_load: bool,
    /// Its bytes were not kept.
    pub streamed: bool,
    /// How often it was sent elsewhere already, against `max-redirections`.
    pub hops_left: u32,
    /// `failover-timeout` is over.
    pub expired: bool,
    /// `tryagain-timeout` is over.
    pub tryagain_expired: bool,
}

/// Why a request is answered with an error of Portico's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It may have run: the connection died after it was written.
    OutcomeUnknown,
    /// A read whose connection died, with a write of its own session behind it.
    ReadLost,
    /// Redirected more often than `max-redirections`.
    TooManyRedirections,
    /// No master would take it within `failover-timeout`.
    TimedOut,
    /// One of all masters that it is for has failed, and no replica is left to take its place.
    ShardLost,
    /// The slot moved while a request too large to keep was being sent. It did not run.
    Streamed,
    /// The connection was lost while a request too large to keep was being sent. It did not run.
    StreamLost,
    /// The node refuses Portico's own credentials.
    NodeCredentials,
}

/// What to do about a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// The answer is the client's.
    Pass,
    /// Send it to the node that owns the slot now, and refresh the map.
    Follow {
        /// The slot that moved.
        slot: Slot,
        /// Its owner; `None` when the node did not name a usable address.
        owner: Option<Address>,
    },
    /// Send it once to this node, after ASKING; the map stays as it is.
    Ask {
        /// The slot that is being moved.
        slot: Slot,
        /// Where its absent keys are.
        target: Option<Address>,
    },
    /// Send it again to the slot's owner after a pause.
    Wait {
        /// Ask for the map as well: the cluster is changing.
        refresh: bool,
        /// The slot is open.
        open: bool,
    },
    /// Send it again after the connection was set up anew.
    Reconnect,
    /// Send it again behind the text of its script, which the node does not have.
    Load,
    /// It never ran: send it to the slot's owner, whoever that is by then.
    Resend,
    /// Answer with an error of Portico's own.
    Refuse(Refusal),
}

/// The decision table. Total: every event has an answer, whatever the facts.
#[must_use]
pub fn decide(event: Event<'_>, facts: Facts) -> Action {
    match event {
        Event::Lost { sent, overtaken } => on_lost(sent, overtaken, facts),
        Event::Error(line) => on_error(line, facts),
    }
}

fn on_lost(sent: bool, overtaken: bool, facts: Facts) -> Action {
    if sent && !facts.readonly {
        return Action::Refuse(Refusal::OutcomeUnknown);
    }
    if facts.streamed {
        return Action::Refuse(Refusal::StreamLost);
    }
    if sent && overtaken {
        return Action::Refuse(Refusal::ReadLost);
    }
    if facts.expired {
        return Action::Refuse(Refusal::TimedOut);
    }
    Action::Resend
}

fn on_error(line: &[u8], facts: Facts) -> Action {
    let Some(code) = ErrorCode::parse(line) else { return Action::Pass };
    let elsewhere = match code {
        ErrorCode::Moved { slot, .. } | ErrorCode::Ask { slot, .. } => slot != facts.slot,
        _ => false,
    };
    if facts.script && (elsewhere || !ErrorCode::is_server_form(line)) {
        return Action::Pass;
    }
    let again = match code {
        ErrorCode::Moved { slot, address } => Action::Follow { slot, owner: address.parse().ok() },
        ErrorCode::Ask { slot, address } => Action::Ask { slot, target: address.parse().ok() },
        ErrorCode::TryAgain if facts.tryagain_expired => return Action::Pass,
        ErrorCode::TryAgain => Action::Wait { refresh: false, open: true },
        ErrorCode::ClusterDown | ErrorCode::Loading | ErrorCode::MasterDown | ErrorCode::ReadOnly => {
            if facts.expired {
                return Action::Pass;
            }
            Action::Wait { refresh: true, open: false }
        }
        ErrorCode::NoScript if facts.can_load => Action::Load,
        ErrorCode::NoAuth if facts.expired => return Action::Refuse(Refusal::NodeCredentials),
        ErrorCode::NoAuth => Action::Reconnect,
        ErrorCode::WrongPass => return Action::Refuse(Refusal::NodeCredentials),
        _ => return Action::Pass,
    };
    if facts.streamed {
        return match (again, code) {
            (Action::Follow { .. } | Action::Ask { .. }, _) | (_, ErrorCode::ReadOnly) => {
                Action::Refuse(Refusal::Streamed)
            }
            (Action::Reconnect, _) => Action::Refuse(Refusal::NodeCredentials),
            _ => Action::Pass, // what the node says of itself
        };
    }
    let redirected = matches!(again, Action::Follow { .. } | Action::Ask { .. });
    if redirected && (facts.hops_left == 0 || facts.expired) {
        return Action::Refuse(Refusal::TooManyRedirections);
    }
    again
}

/// A node's error as a client is told it: what only a cluster says is told with what to do.
#[must_use]
pub fn advised(error: &[u8]) -> std::borrow::Cow<'_, [u8]> {
    // `BY option of SORT denied in cluster mode.`, `GET option ..`; 7.4 and later: `.. when keys formed by the pattern
    // may be in different slots.`
    const DENIED: [&[u8]; 2] = [b"-ERR BY option of SORT denied in", b"-ERR GET option of SORT denied in"];
    if !DENIED.iter().any(|denied| error.starts_with(denied)) {
        return error.into();
    }
    let line = error.strip_suffix(b"\r\n").unwrap_or(error);
    let advice = b" Portico does not look up other keys for SORT yet: sort by the elements alone, and read the other keys \
        with MGET\r\n";
    [line, advice].concat().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITE: Facts = Facts {
        slot: 866,
        readonly: false,
        script: false,
        can_load: false,
        streamed: false,
        hops_left: 16,
        expired: false,
        tryagain_expired: false,
    };
    const READ: Facts = Facts { readonly: true, ..WRITE };
    const SCRIPT: Facts = Facts { script: true, ..WRITE };
    const LOADABLE: Facts = Facts { can_load: true, ..SCRIPT };
    const STREAMED: Facts = Facts { streamed: true, ..WRITE };
    const EXPIRED: Facts = Facts { expired: true, tryagain_expired: true, ..WRITE };
    const NO_HOPS: Facts = Facts { hops_left: 0, ..WRITE };

    fn address(port: u16) -> Option<Address> {
        Some(Address { host: "10.0.0.7".into(), port })
    }

    #[test]
    fn every_row_of_an_answer() {
        let moved = "-MOVED 866 10.0.0.7:7001\r\n";
        let ask = "-ASK 866 10.0.0.7:7002\r\n";
        let tryagain = "-TRYAGAIN Multiple keys request during rehashing of slot\r\n";
        let down = "-CLUSTERDOWN The cluster is down\r\n";
        let unserved = "-CLUSTERDOWN Hash slot not served\r\n";
        let loading = "-LOADING Redis is loading the dataset in memory\r\n";
        let master_down =
            "-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.\r\n";
        let readonly = "-READONLY You can't write against a read only replica.\r\n";
        let follow = Action::Follow { slot: 866, owner: address(7001) };
        let asked = Action::Ask { slot: 866, target: address(7002) };
        let wait = Action::Wait { refresh: true, open: false };
        let open = Action::Wait { refresh: false, open: true };
        let refuse = Action::Refuse;
        let rows: &[(&str, Facts, Action)] = &[
            (moved, WRITE, follow.clone()),
            (moved, READ, follow.clone()),
            (moved, SCRIPT, follow),
            (moved, STREAMED, refuse(Refusal::Streamed)),
            (moved, NO_HOPS, refuse(Refusal::TooManyRedirections)),
            (moved, EXPIRED, refuse(Refusal::TooManyRedirections)),
            ("-MOVED 866 :0\r\n", WRITE, Action::Follow { slot: 866, owner: None }),
            (ask, WRITE, asked.clone()),
            (ask, SCRIPT, asked),
            (ask, STREAMED, refuse(Refusal::Streamed)),
            (ask, NO_HOPS, refuse(Refusal::TooManyRedirections)),
            (tryagain, WRITE, open.clone()),
            (tryagain, SCRIPT, open),
            (tryagain, EXPIRED, Action::Pass),
            (down, WRITE, wait.clone()),
            (unserved, READ, wait.clone()),
            (loading, WRITE, wait.clone()),
            (loading, SCRIPT, wait.clone()),
            (master_down, READ, wait.clone()),
            (readonly, WRITE, wait.clone()),
            (readonly, SCRIPT, wait),
            (readonly, STREAMED, refuse(Refusal::Streamed)),
            (loading, STREAMED, Action::Pass),
            (down, STREAMED, Action::Pass),
            (down, EXPIRED, Action::Pass),
            (loading, EXPIRED, Action::Pass),
            ("-NOAUTH Authentication required.\r\n", WRITE, Action::Reconnect),
            ("-NOAUTH Authentication required.\r\n", EXPIRED, refuse(Refusal::NodeCredentials)),
            ("-WRONGPASS invalid username-password pair\r\n", WRITE, refuse(Refusal::NodeCredentials)),
            ("-ERR syntax error\r\n", WRITE, Action::Pass),
            ("-WRONGTYPE Operation against a key holding the wrong kind of value\r\n", READ, Action::Pass),
            ("-OOM command not allowed when used memory > 'maxmemory'.\r\n", WRITE, Action::Pass),
            ("-NOSCRIPT No matching script. Please use EVAL.\r\n", SCRIPT, Action::Pass),
            ("-NOSCRIPT No matching script. Please use EVAL.\r\n", LOADABLE, Action::Load),
            ("-NOSCRIPT of my own making\r\n", LOADABLE, Action::Pass),
            ("-NOPERM this user has no permissions\r\n", WRITE, Action::Pass),
            ("-BUSY Redis is busy running a script.\r\n", WRITE, Action::Pass),
            ("-CROSSSLOT Keys in request don't hash to the same slot\r\n", WRITE, Action::Pass),
            ("-EXECABORT Transaction discarded because of previous errors.\r\n", WRITE, Action::Pass),
            ("-NOREPLICAS Not enough good replicas to write.\r\n", WRITE, Action::Pass),
            ("-MISCONF Redis is configured to save RDB snapshots\r\n", WRITE, Action::Pass),
            ("+OK\r\n", WRITE, Action::Pass),
        ];
        for (line, facts, action) in rows {
            assert_eq!(decide(Event::Error(line.as_bytes()), *facts), *action, "{line:?} {facts:?}");
        }
    }

    #[test]
    fn what_a_script_says_is_not_taken_for_a_redirect() {
        for forged in [
            "-MOVED 1 10.0.0.7:7001\r\n",
            "-ASK 1 10.0.0.7:7001\r\n",
            "-MOVED somewhere\r\n",
            "-TRYAGAIN later\r\n",
            "-CLUSTERDOWN says my script\r\n",
            "-READONLY no\r\n",
            "-LOADING x\r\n",
            "-MASTERDOWN x\r\n",
            "-NOAUTH x\r\n",
            "-WRONGPASS x\r\n",
        ] {
            assert_eq!(decide(Event::Error(forged.as_bytes()), SCRIPT), Action::Pass, "{forged:?}");
        }
    }

    #[test]
    fn every_row_of_a_lost_connection() {
        let lost = |sent, overtaken| Event::Lost { sent, overtaken };
        let refuse = Action::Refuse;
        let rows = [
            (lost(false, false), WRITE, Action::Resend),
            (lost(false, true), WRITE, Action::Resend),
            (lost(true, false), WRITE, refuse(Refusal::OutcomeUnknown)),
            (lost(true, false), SCRIPT, refuse(Refusal::OutcomeUnknown)),
            (lost(true, true), WRITE, refuse(Refusal::OutcomeUnknown)),
            (lost(false, false), READ, Action::Resend),
            (lost(true, false), READ, Action::Resend),
            (lost(true, true), READ, refuse(Refusal::ReadLost)),
            (lost(false, true), READ, Action::Resend),
            (lost(false, false), EXPIRED, refuse(Refusal::TimedOut)),
            (lost(true, false), EXPIRED, refuse(Refusal::OutcomeUnknown)),
            (lost(false, false), STREAMED, refuse(Refusal::StreamLost)),
            (lost(true, false), STREAMED, refuse(Refusal::OutcomeUnknown)),
        ];
        for (event, facts, action) in rows {
            assert_eq!(decide(event, facts), action, "{event:?} {facts:?}");
        }
    }

    #[test]
    fn no_write_that_may_have_run_is_ever_sent_again() {
        for bits in 0..64u32 {
            let bit = |i: u32| bits & (1 << i) != 0;
            let facts = Facts {
                slot: 866,
                readonly: false,
                script: bit(0),
                can_load: bit(0),
                streamed: bit(1),
                hops_left: bits & 4,
                expired: bit(3),
                tryagain_expired: bit(4),
            };
            let action = decide(Event::Lost { sent: true, overtaken: bit(5) }, facts);
            assert_eq!(action, Action::Refuse(Refusal::OutcomeUnknown), "{facts:?}");
        }
    }
}
