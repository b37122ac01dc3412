//! PING, ECHO, SELECT and the commands of databases and clusters that one server without either has.

use portico_resp::{Protocol, encode};
use portico_slots::slot;

use super::Context;
use crate::command::Args;
use crate::plan::RequestArgs;
use crate::session::ClientFlags;

const NOT_AN_INTEGER: &str = "ERR value is not an integer or out of range";
const NOT_AN_INT: &str = "ERR value is out of range, value must between -2147483648 and 2147483647";
const OUT_OF_RANGE: &str = "ERR DB index is out of range";

/// `PING [message]`
pub fn ping(context: &mut Context<'_>, args: &RequestArgs<'_>) {
    let listens = context.client.flags.has(ClientFlags::SUBSCRIBED);
    match args.count() {
        1 | 2 if listens && context.client.protocol() == Protocol::Resp2 => {
            encode::array_header(context.out, 2);
            encode::bulk(context.out, b"pong");
            encode::bulk(context.out, args.word(1));
        }
        1 => encode::simple(context.out, "PONG"),
        2 => encode::bulk(context.out, args.word(1)),
        _ => encode::error(context.out, "ERR wrong number of arguments for 'ping' command"),
    }
}

/// ECHO message
pub fn echo(context: &mut Context<'_>, args: &RequestArgs<'_>) {
    encode::bulk(context.out, args.word(1));
}

/// SELECT index: a cluster has database 0 only, as a server with `databases 1`.
pub fn select(context: &mut Context<'_>, args: &RequestArgs<'_>) {
    match args.integer(1).map(i32::try_from) {
        Some(Ok(0)) => encode::simple(context.out, "OK"),
        Some(Ok(_)) => encode::error(context.out, OUT_OF_RANGE),
        Some(Err(_)) => encode::error(context.out, NOT_AN_INT),
        None => encode::error(context.out, NOT_AN_INTEGER),
    }
}

/// SWAPDB index1 index2
pub fn swap_db(context: &mut Context<'_>, args: &RequestArgs<'_>) {
    match (args.integer(1), args.integer(2)) {
        (None, _) => encode::error(context.out, "ERR invalid first DB index"),
        (_, None) => encode::error(context.out, "ERR invalid second DB index"),
        (Some(0), Some(0)) => encode::simple(context.out, "OK"),
        _ => encode::error(context.out, OUT_OF_RANGE),
    }
}

/// MOVE key db
pub fn move_key(context: &mut Context<'_>, args: &RequestArgs<'_>) {
    match args.integer(2).map(i32::try_from) {
        None => encode::error(context.out, NOT_AN_INTEGER),
        Some(Err(_)) => encode::error(context.out, NOT_AN_INT),
        Some(Ok(0)) => encode::error(context.out, "ERR source and destination objects are the same"),
        Some(Ok(_)) => encode::error(context.out, OUT_OF_RANGE),
    }
}

/// ROLE: one server without replicas, as INFO tells.
pub fn role(context: &mut Context<'_>) {
    encode::array_header(context.out, 3);
    encode::bulk(context.out, b"master");
    encode::integer(context.out, 0);
    encode::array_header(context.out, 0);
}

/// TIME: seconds since 1970, and microseconds.
pub fn time(context: &mut Context<'_>) {
    let time = context.shared.time(context.now);
    encode::array_header(context.out, 2);
    encode::bulk(context.out, time.as_secs().to_string().as_bytes());
    encode::bulk(context.out, time.subsec_micros().to_string().as_bytes());
}

/// CLUSTER, READONLY, READWRITE, ASKING: what a server outside a cluster says.
pub fn cluster_disabled(context: &mut Context<'_>, args: &RequestArgs<'_>) {
    // Valkey takes these also without cluster mode.
    if context.identity.is_valkey((8, 0)) && (args.is(0, "readonly") || args.is(0, "readwrite")) {
        return encode::simple(context.out, "OK");
    }
    if context.identity.is_valkey((9, 1)) && args.is(0, "cluster") && args.is(1, "keyslot") {
        return encode::integer(context.out, slot(args.word(2)).into());
    }
    encode::error(context.out, "ERR This instance has cluster support disabled");
}

/// `COPY source destination [DB destination-db] [REPLACE]`: the error that naming another database gets.
#[must_use]
pub fn copies_elsewhere(args: &RequestArgs<'_>) -> Option<&'static str> {
    let database = (3..args.count().saturating_sub(1)).find(|&at| args.is(at, "db"))?;
    match args.integer(database + 1).map(i32::try_from)? {
        Ok(0) => None,
        Ok(_) => Some(OUT_OF_RANGE),
        Err(_) => Some(NOT_AN_INT),
    }
}
