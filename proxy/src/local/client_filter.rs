//! Which clients CLIENT LIST tells of and CLIENT KILL closes.

use std::collections::HashMap;
use std::time::Instant;

use super::client::address;
use crate::command::{Args, errors};
use crate::plan::RequestArgs;
use crate::session::{Client, ClientFlags};

/// What a client is, as CLIENT LIST and KILL name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Normal,
    PubSub,
    /// A master or a replica: never one of Portico's.
    Replication,
}

impl Type {
    fn named(word: &[u8]) -> Result<Self, Vec<u8>> {
        match word.to_ascii_lowercase().as_slice() {
            b"normal" => Ok(Self::Normal),
            b"pubsub" => Ok(Self::PubSub),
            b"master" | b"replica" | b"slave" => Ok(Self::Replication),
            _ => Err(errors::quoting("ERR Unknown client type '", word, "'")),
        }
    }

    fn of(client: &Client) -> Self {
        if client.flags.has(ClientFlags::SUBSCRIBED) { Self::PubSub } else { Self::Normal }
    }
}

/// Which clients: those that all of it admits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientFilter {
    /// Those with these numbers, each with its places in the order in which they were asked for.
    pub ids: Option<HashMap<i64, Vec<u64>>>,
    kind: Option<Type>,
    peer: Option<Vec<u8>>,
    local: Option<Vec<u8>>,
    /// All but this one.
    but: Option<u64>,
    /// Those that have been connected for so many seconds.
    age: Option<u64>,
}

impl ClientFilter {
    /// Whether a client is one of them.
    #[must_use]
    pub fn admits(&self, client: &Client, now: Instant) -> bool {
        let about = &client.about;
        let age = || now.saturating_duration_since(about.since).as_secs();
        let is = |wanted: &Option<Vec<u8>>, is: Option<std::net::SocketAddr>| {
            wanted.as_ref().is_none_or(|wanted| address(is).as_bytes() == wanted)
        };
        self.ids.as_ref().is_none_or(|ids| ids.contains_key(&client.id.cast_signed()))
            && self.kind.is_none_or(|kind| kind == Type::of(client))
            && self.but != Some(client.id)
            && self.age.is_none_or(|least| age() >= least)
            && is(&self.peer, about.peer)
            && is(&self.local, about.local)
    }
}

fn syntax_error() -> Vec<u8> {
    b"ERR syntax error".to_vec()
}

/// CLIENT LIST [TYPE normal|master|replica|pubsub] [ID id ...]
///
/// # Errors
/// The error line that Redis would answer with.
pub fn list_filter(args: &RequestArgs<'_>) -> Result<ClientFilter, Vec<u8>> {
    match args.count() {
        2 => Ok(ClientFilter::default()),
        4 if args.is(2, "type") => {
            Ok(ClientFilter { kind: Some(Type::named(args.word(3))?), ..ClientFilter::default() })
        }
        count if count > 3 && args.is(2, "id") => {
            let mut ids: HashMap<i64, Vec<u64>> = HashMap::new();
            for (at, place) in (3..count).zip(0..) {
                let id = args.integer(at).ok_or_else(|| b"ERR Invalid client ID".to_vec())?;
                ids.entry(id).or_default().push(place);
            }
            Ok(ClientFilter { ids: Some(ids), ..ClientFilter::default() })
        }
        _ => Err(syntax_error()),
    }
}

/// CLIENT KILL ip:port, or [ID id] [TYPE type] [USER name] [ADDR ip:port] [LADDR ip:port] [SKIPME yes|no]
/// [MAXAGE seconds]. `me`: who asks. `version`: of the nodes; MAXAGE came with 7.4.
///
/// # Errors
/// The error line that Redis would answer with.
pub fn kill_filter(args: &RequestArgs<'_>, me: u64, version: &str) -> Result<ClientFilter, Vec<u8>> {
    if args.count() == 3 {
        return Ok(ClientFilter { peer: Some(args.word(2).to_vec()), ..ClientFilter::default() });
    }
    let mut filter = ClientFilter { but: Some(me), ..ClientFilter::default() };
    let mut at = 2;
    while at < args.count() {
        let value = args.word(at + 1);
        let option = args.word(at).to_ascii_lowercase();
        match option.as_slice() {
            _ if at + 1 == args.count() => return Err(syntax_error()),
            b"id" => {
                let id = args.integer(at + 1).filter(|id| *id > 0);
                let id = id.ok_or_else(|| b"ERR client-id should be greater than 0".to_vec())?;
                filter.ids = Some(HashMap::from([(id, vec![0])]));
            }
            b"type" => filter.kind = Some(Type::named(value)?),
            b"addr" => filter.peer = Some(value.to_vec()),
            b"laddr" => filter.local = Some(value.to_vec()),
            // There is one user, and everybody is.
            b"user" if value == b"default" => {}
            b"user" => return Err(errors::quoting("ERR No such user '", value, "'")),
            b"skipme" if value.eq_ignore_ascii_case(b"yes") => filter.but = Some(me),
            b"skipme" if value.eq_ignore_ascii_case(b"no") => filter.but = None,
            b"maxage" if super::at_least(version, (7, 4)) => {
                let age = args
                    .integer(at + 1)
                    .ok_or_else(|| b"ERR maxage is not an integer or out of range".to_vec())?;
                let age = u64::try_from(age).ok().filter(|age| *age > 0);
                filter.age = Some(age.ok_or_else(|| b"ERR maxage should be greater than 0".to_vec())?);
            }
            _ => return Err(syntax_error()),
        }
        at += 2;
    }
    Ok(filter)
}
