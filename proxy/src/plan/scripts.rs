//! Scripts: which one a request calls, and what the masters' answers about scripts say together.

use portico_resp::{Items, Protocol, bulk_reply, encode, integer_reply, is_error};

use super::server::field;
use super::{Parts, RequestArgs};

/// How a request names its script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScriptCall<'a> {
    /// EVAL: its text.
    Text(&'a [u8]),
    /// EVALSHA: its SHA1 as the client wrote it.
    Sha(&'a [u8]),
}

/// The script that a request calls; none if it is no EVAL or EVALSHA.
#[must_use]
pub fn script_call<'a>(args: &RequestArgs<'a>) -> Option<ScriptCall<'a>> {
    if args.is(0, "EVALSHA") || args.is(0, "EVALSHA_RO") {
        Some(ScriptCall::Sha(args.word(1)))
    } else if args.is(0, "EVAL") || args.is(0, "EVAL_RO") {
        Some(ScriptCall::Text(args.word(1)))
    } else {
        None
    }
}

/// SCRIPT EXISTS: 1 where all masters say so, or where one does and its text is `known`, so that the others can be
/// given it. (A text that is no script is known at times, but to no node.)
pub fn merge_exists(known: &[bool], parts: &Parts, out: &mut Vec<u8>) {
    let mut counts = vec![0; known.len()];
    for reply in parts.iter() {
        for (count, item) in counts.iter_mut().zip(Items::new(reply).into_iter().flatten()) {
            *count += usize::from(integer_reply(item) == Some(1));
        }
    }
    encode::array_header(out, known.len());
    for (count, known) in counts.into_iter().zip(known) {
        let exists = count == parts.parts.len() || *known && count > 0;
        encode::integer(out, i64::from(exists));
    }
}

/// SCRIPT KILL and FUNCTION KILL: OK if one node had something to kill. Otherwise what a node says that does run
/// something wins over "nothing is running".
pub(super) fn merge_kill(parts: &Parts, out: &mut Vec<u8>) {
    let rank = |reply: &[u8]| match reply {
        reply if !is_error(reply) => 0,
        reply if reply.starts_with(b"-UNKILLABLE") => 1,
        reply if !reply.starts_with(b"-NOTBUSY") => 2,
        _ => 3,
    };
    out.extend_from_slice(parts.iter().min_by_key(|reply| rank(reply)).unwrap_or(b"+OK\r\n"));
}

/// FUNCTION STATS: of the node that runs a function, if one does. All have the same libraries. The replies are RESP2.
pub(super) fn merge_function_stats(parts: &Parts, protocol: Protocol, out: &mut Vec<u8>) {
    let runs = |reply: &&[u8]| is_error(reply) || field(reply, b"running_script").is_some_and(is_list);
    let Some(reply) = parts.iter().find(runs).or(parts.iter().next()) else { return };
    if is_error(reply) {
        return out.extend_from_slice(reply);
    }
    put_map(reply, protocol, out, |name, value, out| match name {
        b"running_script" if is_list(value) => {
            put_map(value, protocol, out, |_, value, out| out.extend_from_slice(value));
        }
        b"running_script" => encode::null(out, protocol),
        b"engines" => put_map(value, protocol, out, |_, engine, out| {
            put_map(engine, protocol, out, |_, value, out| out.extend_from_slice(value));
        }),
        _ => out.extend_from_slice(value),
    });
}

fn is_list(reply: &[u8]) -> bool {
    reply.starts_with(b"*") && reply != b"*-1\r\n"
}

/// A map as RESP2 has it, in the client's protocol; `put` writes each value.
fn put_map(reply: &[u8], protocol: Protocol, out: &mut Vec<u8>, put: impl Fn(&[u8], &[u8], &mut Vec<u8>)) {
    let items: Vec<&[u8]> = Items::new(reply).into_iter().flatten().collect();
    encode::map_header(out, items.len() / 2, protocol);
    for (name, value) in items.as_chunks::<2>().0.iter().map(|[name, value]| (*name, *value)) {
        out.extend_from_slice(name);
        put(bulk_reply(name).unwrap_or_default(), value, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Part;

    fn parts(replies: &[&str]) -> Parts {
        let mut parts = Parts::default();
        for (at, reply) in replies.iter().enumerate() {
            parts.parts.push(Part::default());
            parts.answer(at, reply.as_bytes());
        }
        parts
    }

    fn made(make: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        make(&mut out);
        String::from_utf8(out).expect("the replies here are text")
    }

    #[test]
    fn a_script_exists_where_all_have_it_or_can_be_given_it() {
        let replies = parts(&["*4\r\n:1\r\n:1\r\n:0\r\n:1\r\n", "*4\r\n:1\r\n:0\r\n:0\r\n:0\r\n"]);
        let merged = made(|out| merge_exists(&[false, true, true, false], &replies, out));
        assert_eq!(merged, "*4\r\n:1\r\n:1\r\n:0\r\n:0\r\n");
    }

    #[test]
    fn whoever_runs_a_script_decides_about_its_end() {
        let notbusy = "-NOTBUSY No scripts in execution right now.\r\n";
        let unkillable = "-UNKILLABLE Sorry the script already executed write commands.\r\n";
        let busy = "-BUSY Redis is busy running a script.\r\n";
        let merged = |replies: &[&str]| made(|out| merge_kill(&parts(replies), out));
        assert_eq!(merged(&[notbusy, "+OK\r\n", unkillable]), "+OK\r\n");
        assert_eq!(merged(&[notbusy, busy, unkillable]), unkillable);
        assert_eq!(merged(&[notbusy, busy]), busy);
        assert_eq!(merged(&[notbusy, notbusy]), notbusy);
    }

    #[test]
    fn function_stats_are_those_of_the_node_that_runs_one() {
        let engines = "$7\r\nengines\r\n*2\r\n$3\r\nLUA\r\n*4\r\n$15\r\nlibraries_count\r\n:1\r\n$15\r\nfunctions_count\r\n:2\r\n";
        let idle = format!("*4\r\n$14\r\nrunning_script\r\n$-1\r\n{engines}");
        let running = format!(
            "*4\r\n$14\r\nrunning_script\r\n*6\r\n$4\r\nname\r\n$1\r\nf\r\n$7\r\ncommand\r\n*1\r\n$5\r\nfcall\r\n$11\r\nduration_ms\r\n:7\r\n{engines}"
        );
        let merged =
            |replies: &[&str], protocol| made(|out| merge_function_stats(&parts(replies), protocol, out));
        assert_eq!(merged(&[&idle, &running], Protocol::Resp2), running);
        assert_eq!(merged(&[&idle, &idle], Protocol::Resp2), idle);
        assert_eq!(
            merged(&[&idle, &running], Protocol::Resp3),
            "%2\r\n$14\r\nrunning_script\r\n%3\r\n$4\r\nname\r\n$1\r\nf\r\n$7\r\ncommand\r\n*1\r\n$5\r\nfcall\r\n\
             $11\r\nduration_ms\r\n:7\r\n$7\r\nengines\r\n%1\r\n$3\r\nLUA\r\n%2\r\n$15\r\nlibraries_count\r\n:1\r\n\
             $15\r\nfunctions_count\r\n:2\r\n"
        );
        assert!(merged(&[&idle], Protocol::Resp3).starts_with("%2\r\n$14\r\nrunning_script\r\n_\r\n"));
        let busy =
            "-BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.\r\n";
        assert_eq!(merged(&[&idle, busy], Protocol::Resp2), busy);
    }
}
