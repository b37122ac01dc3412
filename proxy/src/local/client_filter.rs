//! Which clients CLIENT LIST tells of and CLIENT KILL closes.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Instant;

use super::client::{address, flags_of};
use crate::command::{Args, errors};
use crate::plan::RequestArgs;
use crate::session::{Client, ClientFlags};
use crate::topology::Identity;

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

/// What may be asked of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Trait {
    Type(Type),
    Peer(Vec<u8>),
    Local(Vec<u8>),
    /// The peer's address without its port.
    Ip(Vec<u8>),
    /// Connected for so many seconds.
    Age(u64),
    /// Silent for so many seconds.
    Idle(u64),
    /// All of these letters.
    Flags(Vec<u8>),
    Name(Vec<u8>),
    LibName(Vec<u8>),
    LibVersion(Vec<u8>),
    /// All of these letters.
    Capa(Vec<u8>),
    /// These numbers: in [`ClientFilter::ids`], unless it is to have none of them.
    Ids(Vec<i64>),
    /// What every client of Portico's has: user `default`, database 0.
    All,
}

impl Trait {
    /// Whether a client has it. `now`: and the second of the engine's clock.
    fn is_of(&self, client: &Client, (now, second): (Instant, u32)) -> bool {
        let about = &client.about;
        let age = now.saturating_duration_since(about.since).as_secs();
        let is = |found: Option<SocketAddr>, wanted: &[u8]| address(found).as_bytes() == wanted;
        match self {
            Self::Type(kind) => *kind == Type::of(client),
            Self::Peer(wanted) => is(about.peer, wanted),
            Self::Local(wanted) => is(about.local, wanted),
            Self::Ip(wanted) => about.peer.is_some_and(|peer| peer.ip().to_string().as_bytes() == wanted),
            Self::Age(least) => age >= *least,
            Self::Idle(least) => u64::from(second.saturating_sub(client.heard)).min(age) >= *least,
            Self::Flags(letters) => {
                let flags = flags_of(client);
                letters.iter().all(|letter| flags.as_bytes().contains(letter))
            }
            // Who has no name has not the empty one.
            Self::Name(wanted) => !wanted.is_empty() && about.name.as_bytes() == wanted,
            Self::LibName(wanted) => !wanted.is_empty() && about.lib_name.as_bytes() == wanted,
            Self::LibVersion(wanted) => !wanted.is_empty() && about.lib_version.as_bytes() == wanted,
            Self::Capa(letters) => letters.is_empty() || client.flags.has(ClientFlags::CAPA_REDIRECT),
            Self::Ids(ids) => ids.contains(&client.id.cast_signed()),
            Self::All => true,
        }
    }
}

/// Which clients: those that all of it admits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientFilter {
    /// Those with these numbers, each with its places in the order in which they were asked for; without places it
    /// has that of its number.
    pub ids: Option<HashMap<i64, Vec<u64>>>,
    /// Each with whether a client must have it or must not.
    traits: Vec<(Trait, bool)>,
    /// All but this one.
    but: Option<u64>,
}

impl ClientFilter {
    /// Whether a client is one of them. `times`: now, and the second of the engine's clock.
    #[must_use]
    pub fn admits(&self, client: &Client, times: (Instant, u32)) -> bool {
        self.ids.as_ref().is_none_or(|ids| ids.contains_key(&client.id.cast_signed()))
            && self.but != Some(client.id)
            && self.traits.iter().all(|(of, wanted)| of.is_of(client, times) == *wanted)
    }

    /// The later of a kind counts.
    fn ask(&mut self, of: Trait, wanted: bool) {
        let kind = std::mem::discriminant(&of);
        self.traits
            .retain(|(other, other_wanted)| std::mem::discriminant(other) != kind || *other_wanted != wanted);
        self.traits.push((of, wanted));
    }

    /// `SKIPME yes|no`
    fn skip(&mut self, word: &[u8], me: u64) -> Result<(), Vec<u8>> {
        self.but = match word.to_ascii_lowercase().as_slice() {
            b"yes" => Some(me),
            b"no" => None,
            _ => return Err(syntax_error()),
        };
        Ok(())
    }
}

fn syntax_error() -> Vec<u8> {
    b"ERR syntax error".to_vec()
}

/// CLIENT LIST [TYPE normal|master|replica|pubsub] [ID id ...]; of Valkey since 8.1 whatever CLIENT KILL takes. `me`: who
/// asks.
///
/// # Errors
/// The error line that Redis would answer with.
pub fn list_filter(args: &RequestArgs<'_>, me: u64, nodes: &Identity) -> Result<ClientFilter, Vec<u8>> {
    match args.count() {
        2 => Ok(ClientFilter::default()),
        _ if nodes.is_valkey((8, 1)) => valkeys_filter(args, ClientFilter::default(), me, nodes),
        4 if args.is(2, "type") => {
            let kind = Trait::Type(Type::named(args.word(3))?);
            Ok(ClientFilter { traits: vec![(kind, true)], ..ClientFilter::default() })
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
/// [MAXAGE seconds]; of Valkey more. `me`: who asks.
///
/// # Errors
/// The error line that Redis would answer with.
pub fn kill_filter(args: &RequestArgs<'_>, me: u64, nodes: &Identity) -> Result<ClientFilter, Vec<u8>> {
    if args.count() == 3 {
        let peer = Trait::Peer(args.word(2).to_vec());
        return Ok(ClientFilter { traits: vec![(peer, true)], ..ClientFilter::default() });
    }
    let mut filter = ClientFilter { but: Some(me), ..ClientFilter::default() };
    if nodes.is_valkey((8, 1)) {
        return valkeys_filter(args, filter, me, nodes);
    }
    let mut at = 2;
    while at < args.count() {
        let value = args.word(at + 1);
        let option = args.word(at).to_ascii_lowercase();
        match option.as_slice() {
            _ if at + 1 == args.count() => return Err(syntax_error()),
            b"id" => {
                filter.ids = Some(HashMap::from([(client_id(args, at + 1)?, vec![0])]));
            }
            b"skipme" => filter.skip(value, me)?,
            b"maxage" if !nodes.has((7, 4), (8, 0)) => return Err(syntax_error()),
            b"type" | b"addr" | b"laddr" | b"user" | b"maxage" => {
                filter.ask(asked_trait(&option, args, at + 1)?, true);
            }
            _ => return Err(syntax_error()),
        }
        at += 2;
    }
    Ok(filter)
}

/// What CLIENT LIST and KILL of Valkey take since 8.1, and since 9.0 also by what a client is called, does and is not.
fn valkeys_filter(
    args: &RequestArgs<'_>,
    mut filter: ClientFilter,
    me: u64,
    nodes: &Identity,
) -> Result<ClientFilter, Vec<u8>> {
    const OLD: [&[u8]; 5] = [b"type", b"addr", b"laddr", b"user", b"maxage"];
    const NEW: [&[u8]; 7] = [b"ip", b"idle", b"flags", b"name", b"lib-name", b"lib-ver", b"capa"];
    let is_new = nodes.is_valkey((9, 0));
    let mut at = 2;
    while at < args.count() {
        let word = args.word(at).to_ascii_lowercase();
        let (option, wanted) = match word.strip_prefix(b"not-") {
            // There is none of these.
            Some(b"maxage" | b"idle" | b"skipme") => return Err(syntax_error()),
            Some(option) if is_new => (option, false),
            _ => (&word[..], true),
        };
        at += 1;
        match option {
            _ if at == args.count() => return Err(syntax_error()),
            b"id" => {
                // As many as there are.
                let mut ids = Vec::new();
                while at < args.count() && args.integer(at).is_some() {
                    ids.push(client_id(args, at)?);
                    at += 1;
                }
                if ids.is_empty() {
                    return Err(syntax_error());
                }
                if wanted {
                    // In the order of the clients, each once.
                    filter.ids.get_or_insert_default().extend(ids.into_iter().map(|id| (id, Vec::new())));
                } else {
                    filter.traits.push((Trait::Ids(ids), false));
                }
                continue;
            }
            b"skipme" => filter.skip(args.word(at), me)?,
            b"db" if is_new => filter.ask(database(args, at)?, wanted),
            _ if OLD.contains(&option) || (is_new && NEW.contains(&option)) => {
                let of = asked_trait(option, args, at)?;
                let unknown = match &of {
                    Trait::Flags(letters) => letters.iter().any(|letter| !FLAGS.contains(letter)),
                    Trait::Capa(letters) => letters.iter().any(|letter| *letter != b'r'),
                    _ => false,
                };
                if unknown {
                    let what = if option == b"capa" { "capa" } else { "flags" };
                    let filter =
                        if wanted { "provided".to_owned() } else { format!("NOT-{}", what.to_uppercase()) };
                    let text = format!("ERR Unknown {what} found in the {filter} filter: ");
                    return Err(errors::quoting(&text, args.word(at), ""));
                }
                filter.ask(of, wanted);
            }
            _ => return Err(syntax_error()),
        }
        at += 1;
    }
    Ok(filter)
}

/// All letters that Valkey 9 has for what a client is.
const FLAGS: &[u8] = b"bcdeirtuxABEIMNOPRSTU";

/// What one option asks for, by the word at `at`.
fn asked_trait(option: &[u8], args: &RequestArgs<'_>, at: usize) -> Result<Trait, Vec<u8>> {
    let value = || args.word(at).to_vec();
    Ok(match option {
        b"type" => Trait::Type(Type::named(args.word(at))?),
        b"addr" => Trait::Peer(value()),
        b"laddr" => Trait::Local(value()),
        b"ip" => Trait::Ip(value()),
        b"name" => Trait::Name(value()),
        b"lib-name" => Trait::LibName(value()),
        b"lib-ver" => Trait::LibVersion(value()),
        b"flags" => Trait::Flags(value()),
        b"capa" => Trait::Capa(value()),
        // There is one user, and everybody is.
        b"user" if args.word(at) == b"default" => Trait::All,
        b"user" => return Err(errors::quoting("ERR No such user '", args.word(at), "'")),
        b"maxage" => Trait::Age(seconds("maxage", args, at)?),
        b"idle" => Trait::Idle(seconds("idle", args, at)?),
        _ => return Err(syntax_error()),
    })
}

fn client_id(args: &RequestArgs<'_>, at: usize) -> Result<i64, Vec<u8>> {
    let id = args.integer(at).filter(|id| *id > 0);
    id.ok_or_else(|| b"ERR client-id should be greater than 0".to_vec())
}

fn seconds(name: &str, args: &RequestArgs<'_>, at: usize) -> Result<u64, Vec<u8>> {
    let value = args.integer(at).ok_or_else(|| format!("ERR {name} is not an integer or out of range"))?;
    let value = u64::try_from(value).ok().filter(|value| *value > 0);
    value.ok_or_else(|| format!("ERR {name} should be greater than 0").into_bytes())
}

/// There is one database, and everybody is in it.
fn database(args: &RequestArgs<'_>, at: usize) -> Result<Trait, Vec<u8>> {
    match args.integer(at) {
        Some(0) => Ok(Trait::All),
        Some(_) => Err(b"ERR DB number should be between 0 and 0".to_vec()),
        None => Err(b"ERR DB is not an integer or out of range".to_vec()),
    }
}
