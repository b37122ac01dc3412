//! CLIENT ID, GETNAME, SETNAME, SETINFO, INFO and LIST.

use std::fmt::Write as _;
use std::time::Instant;

use portico_resp::encode;

use super::Context;
use crate::command::Args;
use crate::plan::RequestArgs;
use crate::session::{Client, ClientFlags, Unblock};

/// Which clients CLIENT LIST tells of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientFilter {
    /// All.
    All,
    /// None: of a type that Portico does not have.
    Nobody,
    /// Those with these numbers.
    Ids(Vec<u64>),
}

impl ClientFilter {
    /// Whether a client is one of them.
    #[must_use]
    pub fn admits(&self, client: &Client) -> bool {
        match self {
            Self::All => true,
            Self::Nobody => false,
            Self::Ids(ids) => ids.contains(&client.id),
        }
    }
}

/// CLIENT LIST [TYPE normal|master|replica|pubsub] [ID id ...]
///
/// # Errors
/// The error line that Redis would answer with.
pub fn filter(args: &RequestArgs<'_>) -> Result<ClientFilter, String> {
    match args.count() {
        2 => Ok(ClientFilter::All),
        4 if args.is(2, "type") => match args.text(3).to_ascii_lowercase().as_str() {
            "normal" => Ok(ClientFilter::All),
            "master" | "replica" | "slave" | "pubsub" => Ok(ClientFilter::Nobody),
            _ => Err(format!("ERR Unknown client type '{}'", args.text(3))),
        },
        count if count > 3 && args.is(2, "id") => (3..count)
            .map(|at| args.integer(at).and_then(|id| u64::try_from(id).ok()).filter(|&id| id > 0))
            .collect::<Option<Vec<u64>>>()
            .map(ClientFilter::Ids)
            .ok_or_else(|| "ERR Invalid client ID".to_owned()),
        _ => Err("ERR syntax error".to_owned()),
    }
}

/// CLIENT UNBLOCK client-id [TIMEOUT|ERROR]
///
/// # Errors
/// The error line that Redis would answer with.
pub fn unblock(args: &RequestArgs<'_>) -> Result<(u64, Unblock), String> {
    let how = match args.count() {
        3 => Unblock::Timeout,
        4 if args.is(3, "timeout") => Unblock::Timeout,
        4 if args.is(3, "error") => Unblock::Error,
        4 => return Err("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR".to_owned()),
        _ => return Err("ERR syntax error".to_owned()),
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
        _ => return encode::error(context.out, format!("ERR Unrecognized option '{}'", args.text(2))),
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
pub fn info(context: &mut Context<'_>) {
    let mut line = String::new();
    let seconds = context.now.saturating_duration_since(context.shared.started).as_secs() as u32;
    client_line(context.client, context.now, seconds, &mut line);
    encode::verbatim_txt(context.out, line.as_bytes(), context.client.protocol());
}

/// A client's line in CLIENT LIST, with the fields of 7.0 in their order. What Portico does not have is 0.
pub fn client_line(client: &Client, now: Instant, seconds: u32, out: &mut String) {
    let about = &client.about;
    let age = now.saturating_duration_since(about.since).as_secs();
    let idle = u64::from(seconds.saturating_sub(client.heard)).min(age);
    let address = |address: &Option<std::net::SocketAddr>| match address {
        Some(address) => address.to_string(),
        None => "unix:0".to_owned(),
    };
    let (held, untold, input) = client
        .work
        .as_deref()
        .map_or((0, 0, 0), |work| (work.queue.held_bytes(), work.untold(), work.input.len()));
    let mut flags = client.tracking_letters();
    match (client.flags.has(ClientFlags::CLOSING), about.peer) {
        (true, _) => flags.push('c'),
        (_, None) => flags.push('U'),
        _ if flags.is_empty() => flags.push('N'),
        _ => {}
    }
    let resp = if client.flags.has(ClientFlags::RESP3) { 3 } else { 2 };
    let total = held + untold + input + size_of::<Client>();
    // Writing to a string cannot fail.
    let _ = writeln!(
        out,
        "id={} addr={} laddr={} fd=0 name={} age={age} idle={idle} flags={flags} db=0 sub=0 psub=0 ssub=0 multi=-1 \
         qbuf={input} qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl={untold} oll=0 omem={held} tot-mem={total} \
         events=r cmd={} user=default redir={} resp={resp}",
        client.id,
        address(&about.peer),
        address(&about.local),
        about.name,
        client.last_command,
        client.redirection(),
    );
}
