//! CONFIG SET: all of it is looked at before any of it is done, and told apart by whose it is.

use super::names::{Decision, Name, named};
use super::{PREFIX, own};
use crate::command::{Args, errors};
use crate::config::{Config, SETTINGS, memory_value};
use crate::plan::RequestArgs;
use crate::topology::Identity;

/// A CONFIG SET that nothing speaks against so far; nodes look at what is theirs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Portico's own.
    pub own: Vec<(&'static str, String)>,
    /// For all nodes.
    pub nodes: Vec<(Vec<u8>, Vec<u8>)>,
    /// To be divided among the masters, in bytes.
    pub whole: Option<(Vec<u8>, u64)>,
}

/// Reads a CONFIG SET. `most_clients`: as many as there are descriptors for. `nodes`: what they are.
///
/// # Errors
/// The reply, in the words and in the order of checks of Redis 7.0 (`configSetCommand`).
pub fn settings_to_set(
    args: &RequestArgs<'_>,
    config: &Config,
    most_clients: usize,
    nodes: &Identity,
) -> Result<Settings, Vec<u8>> {
    if !args.count().is_multiple_of(2) {
        return Err(b"ERR syntax error".to_vec());
    }
    let pairs = || (2..args.count()).step_by(2).map(|at| (args.word(at), args.word(at + 1)));
    let mut seen: Vec<&[u8]> = Vec::new();
    for (name, _) in pairs() {
        let refused = match named(name) {
            _ if is_portico(name) => Some("can't set immutable config"),
            None => {
                let text = "ERR Unknown option or number of arguments for CONFIG SET - '";
                return Err(errors::quoting(text, name, "'"));
            }
            Some(row) => row.refused.filter(|reason| reason.starts_with("can't set ")),
        };
        if let Some(reason) = refused {
            return Err(failed(name, reason));
        }
        if seen.iter().any(|other| other.eq_ignore_ascii_case(name)) {
            return Err(failed(name, "duplicate parameter"));
        }
        seen.push(name);
    }
    // What a server would set, but Portico does not; to leave it as it is can be asked for.
    let stays = |row: &Name, value: &[u8]| match row.decision {
        Decision::Own | Decision::Both => own::show(row.name, config).as_bytes() == value,
        Decision::Is(is) => is.as_bytes() == value,
        Decision::Secret(_) => value.is_empty(),
        _ => false,
    };
    for (name, value) in pairs() {
        if let Some(row) = named(name)
            && let Some(reason) = row.refused
            && !stays(row, value)
        {
            return Err(failed(name, reason));
        }
    }
    let mut settings = Settings::default();
    let mut changed = config.clone();
    for (name, value) in pairs() {
        let Some(row) = named(name).filter(|row| row.refused.is_none()) else { continue };
        if matches!(row.decision, Decision::Own | Decision::Both) {
            let set = own::set(row.name, value, &mut changed, most_clients, nodes);
            set.map_err(|reason| failed(name, &reason))?;
            settings.own.push((row.name, String::from_utf8_lossy(value).into_owned()));
        }
        match row.decision {
            Decision::Own | Decision::Is(_) | Decision::Secret(_) => {}
            Decision::Whole if settings.whole.is_none() => match size(value) {
                Some(size) => settings.whole = Some((name.to_vec(), size)),
                None => return Err(failed(name, "argument must be a memory value")),
            },
            Decision::Both | Decision::Nodes | Decision::Whole => {
                settings.nodes.push((name.to_vec(), value.to_vec()));
            }
        }
    }
    Ok(settings)
}

fn size(value: &[u8]) -> Option<u64> {
    memory_value(std::str::from_utf8(value).ok()?)
}

fn is_portico(name: &[u8]) -> bool {
    let name = name.to_ascii_lowercase();
    let own = name.strip_prefix(PREFIX.as_bytes());
    own.is_some_and(|own| SETTINGS.iter().any(|setting| setting.name.as_bytes() == own))
}

fn failed(name: &[u8], reason: &str) -> Vec<u8> {
    let before = "ERR CONFIG SET failed (possibly related to argument '";
    errors::quoting(before, name, &format!("') - {reason}"))
}

/// The share of each of `masters` in `whole`, in bytes: together exactly that. But none is 0, which is no limit.
pub fn shares(whole: u64, masters: usize) -> impl Iterator<Item = u64> {
    let masters = masters.max(1) as u64;
    let (more, least) = (whole % masters, u64::from(whole > 0));
    (0..masters).map(move |at| (whole / masters + u64::from(at < more)).max(least))
}

#[cfg(test)]
mod tests {
    use portico_resp::{Limits, RequestScanner, encode};

    use super::*;

    fn set(words: &[&str]) -> Result<Settings, String> {
        let words: Vec<&[u8]> =
            [&["CONFIG", "SET"], words].concat().iter().map(|word| word.as_bytes()).collect();
        let mut request = Vec::new();
        encode::command(&mut request, &words);
        let mut scanner = RequestScanner::new();
        scanner.scan(&request, &Limits { authenticated: true, ..Limits::default() }).expect("a request");
        let args = RequestArgs::new(&request, scanner.args());
        settings_to_set(&args, &Config::default(), 10_000, &Identity::redis("7.0.0"))
            .map_err(|error| String::from_utf8_lossy(&error).into_owned())
    }

    #[test]
    fn each_goes_where_it_belongs() {
        let settings = set(&["timeout", "5", "HZ", "20", "MaxMemory", "10mb", "proto-max-bulk-len", "2mb"]);
        let settings = settings.expect("all is right");
        let own = [("timeout", "5".to_owned()), ("proto-max-bulk-len", "2mb".to_owned())];
        assert_eq!(settings.own, own);
        let pair = |name: &str, value: &str| (name.as_bytes().to_vec(), value.as_bytes().to_vec());
        assert_eq!(settings.nodes, [pair("HZ", "20"), pair("proto-max-bulk-len", "2mb")]);
        assert_eq!(settings.whole, Some((b"MaxMemory".to_vec(), 10 << 20)));
        assert_eq!(shares(100, 3).collect::<Vec<_>>(), [34, 33, 33]);
        assert_eq!(shares(1, 3).collect::<Vec<_>>(), [1, 1, 1]);
        assert_eq!(shares(0, 3).collect::<Vec<_>>(), [0, 0, 0]);
    }

    #[test]
    fn what_is_wrong_is_told_as_redis_tells_it() {
        let related = |name: &str, why: &str| {
            Err(format!("ERR CONFIG SET failed (possibly related to argument '{name}') - {why}"))
        };
        assert_eq!(set(&["maxclients", "10", "port"]), Err("ERR syntax error".into()));
        let unknown = "ERR Unknown option or number of arguments for CONFIG SET - 'None'";
        assert_eq!(set(&["hz", "10", "None", "1"]), Err(unknown.into()));
        assert_eq!(
            set(&["requirepass", "x", "databases", "3"]),
            related("databases", "can't set immutable config")
        );
        assert_eq!(set(&["dir", "/tmp"]), related("dir", "can't set protected config"));
        assert_eq!(set(&["hz", "10", "HZ", "20"]), related("HZ", "duplicate parameter"));
        assert_eq!(set(&["maxmemory", "1xb"]), related("maxmemory", "argument must be a memory value"));
        assert_eq!(
            set(&["portico-maxclients", "1"]),
            related("portico-maxclients", "can't set immutable config")
        );
        let port = Config::default().port.to_string();
        assert_eq!(
            set(&["port", &port, "maxmemory-clients", "0", "masterauth", ""]),
            Ok(Settings::default()),
            "they are so"
        );
        for name in ["masterauth", "port", "cluster-node-timeout", "replica-announce-ip", "tls-port", "bind"]
        {
            assert!(set(&[name, "1"]).is_err_and(|error| error.contains(name)), "{name}");
        }
    }
}
