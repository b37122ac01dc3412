//! AUTH, HELLO and RESET: who a client is and which protocol it speaks.

use std::time::Duration;

use portico_resp::{Protocol, encode};

use super::Context;
use crate::command::{Args, errors};
use crate::plan::RequestArgs;
use crate::session::ClientFlags;
use crate::topology::Origin;

const WRONG_PASS: &str = "WRONGPASS invalid username-password pair or user is disabled.";

/// Compares without telling by its duration where the difference is, as Redis does.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

/// Whether user and password are right; if so the client is authenticated. There is one user, `default`.
fn authenticate(context: &mut Context<'_>, user: &[u8], password: &[u8]) -> bool {
    let right = match &context.config.requirepass {
        Some(secret) => same(secret.expose().as_bytes(), password),
        None => true,
    };
    let right = right && user == b"default";
    if right {
        context.client.flags.set(ClientFlags::AUTHENTICATED);
    } else {
        note_failure(context);
    }
    right
}

/// Counts a login that failed. The log is not told the user's name: a password may stand in its place.
fn note_failure(context: &Context<'_>) {
    const PAUSE: Duration = Duration::from_secs(10);
    let since_start = context.now.saturating_duration_since(context.shared.started);
    if let Some(times) = context.shared.failed_logins.happened(since_start, PAUSE) {
        let client = context.client.about.peer;
        let client = client.map_or_else(|| "a Unix socket".to_owned(), |peer| peer.to_string());
        tracing::info!(%client, times, "a client gave a wrong user or password");
    }
}

/// `AUTH [username] password`
pub fn auth(context: &mut Context<'_>, args: &RequestArgs<'_>) {
    let (user, password) = match args.count() {
        2 => (&b"default"[..], args.word(1)),
        3 => (args.word(1), args.word(2)),
        _ => return encode::error(context.out, "ERR syntax error"),
    };
    if args.count() == 2 && context.config.requirepass.is_none() {
        return encode::error(
            context.out,
            "ERR AUTH <password> called without any password configured for the default user. \
             Are you sure your configuration is correct?",
        );
    }
    if authenticate(context, user, password) {
        encode::simple(context.out, "OK");
    } else {
        encode::error(context.out, WRONG_PASS);
    }
}

/// HELLO [protover [AUTH username password] [SETNAME clientname]]
pub fn hello(context: &mut Context<'_>, args: &RequestArgs<'_>) {
    let mut protocol = None;
    if args.count() > 1 {
        protocol = match args.integer(1) {
            Some(2) => Some(Protocol::Resp2),
            Some(3) => Some(Protocol::Resp3),
            Some(_) => return encode::error(context.out, "NOPROTO unsupported protocol version"),
            None => {
                return encode::error(context.out, "ERR Protocol version is not an integer or out of range");
            }
        };
    }
    let (mut credentials, mut name) = (None, None);
    let mut at = 2;
    while at < args.count() {
        let more = args.count() - 1 - at;
        if args.is(at, "auth") && more >= 2 {
            credentials = Some((args.word(at + 1), args.word(at + 2)));
            at += 3;
        } else if args.is(at, "setname") && more >= 1 {
            match super::client::valid_name(args.word(at + 1)) {
                // Before 7.2 it was set whatever follows.
                Ok(valid) if !super::at_least(context.version, (7, 2)) => context.client.about.name = valid,
                Ok(valid) => name = Some(valid),
                Err(error) => return encode::error(context.out, error),
            }
            at += 2;
        } else {
            let error = errors::quoting("ERR Syntax error in HELLO option '", args.word(at), "'");
            return encode::error(context.out, error);
        }
    }
    if let Some((user, password)) = credentials
        && !authenticate(context, user, password)
    {
        return encode::error(context.out, WRONG_PASS);
    }
    if !context.client.flags.has(ClientFlags::AUTHENTICATED) {
        // 7.2 added a word.
        let protocol = if super::at_least(context.version, (7, 2)) { "<proto> " } else { "" };
        return encode::error(
            context.out,
            format!(
                "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO {protocol}AUTH \
                 <user> <pass> option can be used to authenticate the client and select the RESP protocol version at \
                 the same time"
            ),
        );
    }
    if let Some(name) = name {
        context.client.about.name = name;
    }
    match protocol {
        Some(Protocol::Resp3) => {
            context.client.flags.set(ClientFlags::RESP3);
        }
        Some(Protocol::Resp2) => context.client.flags.clear(ClientFlags::RESP3),
        None => {}
    }
    describe(context);
}

/// The server as HELLO describes it.
fn describe(context: &mut Context<'_>) {
    let protocol = context.client.protocol();
    let out = &mut *context.out;
    encode::map_header(out, 7, protocol);
    for (field, value) in [("server", &*context.identity.name), ("version", &context.identity.version)] {
        encode::bulk(out, field.as_bytes());
        encode::bulk(out, value.as_bytes());
    }
    encode::bulk(out, b"proto");
    encode::integer(out, if protocol == Protocol::Resp3 { 3 } else { 2 });
    encode::bulk(out, b"id");
    encode::integer(out, context.client.id.cast_signed());
    for (field, value) in [("mode", "standalone"), ("role", "master")] {
        encode::bulk(out, field.as_bytes());
        encode::bulk(out, value.as_bytes());
    }
    encode::bulk(out, b"modules");
    encode::array_header(out, context.identity.modules.len());
    for module in &context.identity.modules {
        encode::map_header(out, if module.origin.is_some() { 4 } else { 2 }, protocol);
        encode::bulk(out, b"name");
        encode::bulk(out, module.name.as_bytes());
        encode::bulk(out, b"ver");
        encode::integer(out, module.version);
        if let Some(Origin { path, args }) = &module.origin {
            encode::bulk(out, b"path");
            encode::bulk(out, path.as_bytes());
            encode::bulk(out, b"args");
            encode::array_header(out, args.len());
            args.iter().for_each(|arg| encode::bulk(out, arg.as_bytes()));
        }
    }
}

/// RESET: the client is as when it connected.
pub fn reset(context: &mut Context<'_>) {
    let client = &mut *context.client;
    client.flags.clear(ClientFlags::RESP3.with(ClientFlags::REPLY_OFF));
    if super::at_least(context.version, (7, 2)) {
        client.flags.clear(ClientFlags::NO_EVICT.with(ClientFlags::NO_TOUCH));
    }
    if context.config.requirepass.is_some() {
        client.flags.clear(ClientFlags::AUTHENTICATED);
    }
    client.about.name = "".into();
    encode::simple(context.out, "RESET");
}
