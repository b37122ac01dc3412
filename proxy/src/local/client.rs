//! CLIENT SETNAME, GETNAME, SETINFO, INFO, the lines of LIST, NO-EVICT and NO-TOUCH; what UNBLOCK asks for.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Instant;

use portico_resp::encode;

use super::Context;
use crate::command::{Args, errors};
use crate::plan::RequestArgs;
use crate::pubsub::Kind;
use crate::session::{Client, ClientFlags, Unblock};
use crate::topology::Identity;

/// CLIENT UNBLOCK client-id [TIMEOUT|ERROR]
///
/// # Errors
/// The error line that Redis would answer with.
pub fn unblock(args: &RequestArgs<'_>, nodes: &Identity) -> Result<(u64, Unblock), String> {
    let how = match args.count() {
        3 => Unblock::Timeout,
        // Valkey ignores what follows.
        5.. if !nodes.is_valkey((8, 1)) => {
            let name = args.text(1);
            return Err(format!(
                "ERR unknown subcommand or wrong number of arguments for '{name}'. Try CLIENT HELP."
            ));
        }
        _ if args.is(3, "timeout") => Unblock::Timeout,
        _ if args.is(3, "error") => Unblock::Error,
        _ => return Err("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR".to_owned()),
    };
    let id = args.integer(2).ok_or("ERR value is not an integer or out of range")?;
    Ok((u64::try_from(id).unwrap_or(0), how))
}

/// Checks what CLIENT SETNAME and SETINFO store: printable, without spaces, so that CLIENT LIST can be read.
fn printable(word: &[u8]) -> Option<Box<str>> {
    let text = std::str::from_utf8(word).ok()?;
    text.bytes().all(|byte| (b'!'..=b'~').contains(&byte)).then(|| text.into())
}

/// A valid connection name, or the error line that Redis answers with.
pub(super) fn valid_name(word: &[u8]) -> Result<Box<str>, &'static str> {
    printable(word).ok_or("ERR Client names cannot contain spaces, newlines or special characters.")
}

/// CLIENT SETNAME name
pub fn set_name(context: &mut Context<'_>, args: &RequestArgs<'_>) {
    match valid_name(args.word(2)) {
        Ok(name) => {
            context.client.about.name = name;
            encode::simple(context.out, "OK");
        }
        Err(error) => encode::error(context.out, error),
    }
}

/// CLIENT SETINFO lib-name|lib-ver value
pub fn set_info(context: &mut Context<'_>, args: &RequestArgs<'_>) {
    let attribute = args.text(2).to_ascii_lowercase();
    let about = &mut context.client.about;
    let field = match attribute.as_str() {
        "lib-name" => &mut about.lib_name,
        "lib-ver" => &mut about.lib_version,
        _ => {
            let error = errors::quoting("ERR Unrecognized option '", args.word(2), "'");
            return encode::error(context.out, error);
        }
    };
    match printable(args.word(3)) {
        Some(value) => {
            *field = value;
            encode::simple(context.out, "OK");
        }
        None => encode::error(
            context.out,
            format!("ERR {attribute} cannot contain spaces, newlines or special characters."),
        ),
    }
}

/// CLIENT GETNAME
pub fn name(context: &mut Context<'_>) {
    match &*context.client.about.name {
        "" => encode::null(context.out, context.client.protocol()),
        name => encode::bulk(context.out, name.as_bytes()),
    }
}

/// CLIENT INFO
pub fn info(context: &mut Context<'_>, args: &RequestArgs<'_>) {
    let mut line = String::new();
    let seconds = context.now.saturating_duration_since(context.shared.started).as_secs() as u32;
    client_line(context.client, (context.now, seconds), context.identity, args.lengths(), &mut line);
    encode::verbatim_txt(context.out, line.as_bytes(), context.client.protocol());
}

/// CLIENT CAPA capability ...: what a client understands of redirects, of which there are none. It is told by CLIENT LIST.
pub fn capa(context: &mut Context<'_>, args: &RequestArgs<'_>) {
    if (2..args.count()).any(|at| args.is(at, "redirect")) {
        context.client.flags.set(ClientFlags::CAPA_REDIRECT);
    }
    encode::simple(context.out, "OK");
}

/// CLIENT NO-EVICT ON|OFF, or NO-TOUCH. That is kept and told by CLIENT LIST, no more: Portico has no
/// `maxmemory-clients` that it would evict clients for, and a connection to a node is not this client's alone, so its
/// reads touch keys like any other's.
pub fn set_flag(context: &mut Context<'_>, args: &RequestArgs<'_>, flag: ClientFlags) {
    let flags = &mut context.client.flags;
    if args.is(2, "on") {
        flags.set(flag);
    } else if args.is(2, "off") {
        flags.clear(flag);
    } else {
        return encode::error(context.out, "ERR syntax error");
    }
    encode::simple(context.out, "OK");
}

/// A client's address, as CLIENT LIST and MONITOR tell it.
#[must_use]
pub fn client_address(client: &Client) -> String {
    address(client.about.peer)
}

/// An address as CLIENT LIST tells it.
pub(super) fn address(address: Option<SocketAddr>) -> String {
    address.map_or_else(|| "unix:0".to_owned(), |address| address.to_string())
}

/// What CLIENT LIST calls flags, in Redis' order.
pub(super) fn flags_of(client: &Client) -> String {
    let is = |flag| client.flags.has(flag);
    let broken = client.standing.as_deref().is_some_and(|standing| standing.watch_broken);
    let flags: String = [
        (is(ClientFlags::MONITOR), 'O'),
        (is(ClientFlags::SUBSCRIBED), 'P'),
        (is(ClientFlags::MULTI), 'x'),
        (client.is_waiting() || client.is_paused(), 'b'),
        (is(ClientFlags::TRACKING), 't'),
        (client.tracking().is_some_and(|tracking| tracking.broken), 'R'),
        (client.tracking().is_some_and(|tracking| tracking.mode.bcast), 'B'),
        (broken, 'd'),
        (is(ClientFlags::CLOSING), 'c'),
        (client.about.peer.is_none(), 'U'),
        (is(ClientFlags::NO_EVICT), 'e'),
        (is(ClientFlags::NO_TOUCH), 'T'),
    ]
    .into_iter()
    .filter_map(|(is, letter)| is.then_some(letter))
    .collect();
    if flags.is_empty() { "N".to_owned() } else { flags }
}

/// A client's line in CLIENT LIST, with the fields of the nodes' version in their order. What Portico does not have
/// is 0. `seconds`: since the engine's process began. `query`: the request that the client is just being answered, and
/// its arguments alone, in bytes.
pub fn client_line(
    client: &Client,
    (now, seconds): (Instant, u32),
    nodes: &Identity,
    (query, arguments): (usize, usize),
    out: &mut String,
) {
    let about = &client.about;
    let age = now.saturating_duration_since(about.since).as_secs();
    let idle = u64::from(seconds.saturating_sub(client.heard)).min(age);
    let (held, untold, input) = client
        .work
        .as_deref()
        .map_or((0, 0, 0), |work| (work.queue.early_bytes(), work.untold(), work.input.len()));
    let standing = client.standing.as_deref();
    let queued = standing.map(|standing| &standing.transaction);
    let multi = match queued {
        Some(queued) if client.flags.has(ClientFlags::MULTI) => queued.ranges.len() as i64,
        _ if client.flags.has(ClientFlags::MULTI) => 0,
        // Valkey has no transaction until the first one, and an empty one ever after.
        _ if client.flags.has(ClientFlags::TRANSACTED) && nodes.is_valkey((8, 1)) => 0,
        _ => -1,
    };
    let multi_mem = queued.map_or(0, |queued| queued.requests.len());
    let watch = match standing.map_or(0, |standing| standing.watched.len()) {
        _ if !nodes.has((7, 4), (8, 0)) => String::new(),
        watched => format!(" watch={watched}"),
    };
    let capa = match client.flags.has(ClientFlags::CAPA_REDIRECT) {
        _ if !nodes.is_valkey((8, 1)) => "",
        true => " capa=r",
        false => " capa=",
    };
    let listens = |kind| client.standing.as_deref().map_or(0, |standing| standing.subscriptions.len(kind));
    // Valkey has read the request that it answers out of its buffer.
    let input = input + if nodes.is_valkey((8, 1)) { 0 } else { query };
    let resp = if client.flags.has(ClientFlags::RESP3) { 3 } else { 2 };
    let total = held + untold + input + arguments + multi_mem + size_of::<Client>();
    // Writing to a string cannot fail.
    let _ = write!(
        out,
        "id={} addr={} laddr={} fd={} name={} age={age} idle={idle} flags={}{capa} db=0 sub={} psub={} ssub={} \
         multi={multi}{watch} qbuf={input} qbuf-free=0 argv-mem={arguments} multi-mem={multi_mem} rbs=0 rbp=0 obl={untold} \
         oll=0 omem={held} tot-mem={total} events=r cmd={} user=default redir={} resp={resp}",
        client.id,
        address(about.peer),
        address(about.local),
        about.descriptor,
        about.name,
        flags_of(client),
        listens(Kind::Channel),
        listens(Kind::Pattern),
        listens(Kind::Shard),
        client.last_command,
        client.redirection(),
    );
    if nodes.has((7, 2), (7, 2)) {
        let _ = write!(out, " lib-name={} lib-ver={}", about.lib_name, about.lib_version);
    }
    if !nodes.is_valkey((0, 0)) && nodes.has((8, 0), (8, 0)) {
        out.push_str(" io-thread=0");
    }
    // No client's bytes and commands are counted.
    if nodes.has((8, 2), (8, 0)) {
        out.push_str(" tot-net-in=0 tot-net-out=0 tot-cmds=0");
    }
    out.push('\n');
}
