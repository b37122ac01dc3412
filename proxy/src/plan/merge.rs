//! One reply from the replies of a split request's parts.

use std::collections::HashSet;

use portico_resp::{Items, Protocol, array_items, bulk_reply, encode, integer_reply, is_error};

use super::scripts::{merge_function_stats, merge_kill};
use super::server;

/// How parts' replies become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merge {
    /// MGET: one value a key, in the order of the request.
    Values,
    /// DEL, UNLINK, EXISTS, TOUCH: the sum of counts over keys.
    KeySum,
    /// MSET: OK when every key was set.
    KeyOk,
    /// DBSIZE: the sum of counts over nodes.
    Sum,
    /// The smallest integer.
    Least,
    /// The largest integer.
    Most,
    /// KEYS: all elements; what two nodes name is told once when `distinct`.
    Concat {
        /// A slot is being moved, so that two nodes may name one key.
        distinct: bool,
    },
    /// TS.MGET and the like: all elements, or pairs of a map, in the order of their names.
    Sorted,
    /// Everybody says the same: the first reply.
    Same,
    /// SCRIPT EXISTS: 1 where everybody says 1.
    All,
    /// SCRIPT KILL: OK if one node had something to kill.
    Kill,
    /// FUNCTION STATS: those of the node that runs a function.
    FunctionStats,
    /// DEBUG DIGEST: the whole's, of the masters'.
    Digest,
    /// Texts for people: each once, one after another.
    Texts,
    /// SLOWLOG LEN; the first part is CONFIG GET slowlog-max-len.
    SlowlogLen,
    /// SLOWLOG GET; the first part is CONFIG GET slowlog-max-len.
    SlowlogGet {
        /// How many entries are wanted; none for all.
        count: Option<u64>,
    },
    /// ACL LOG: the youngest entries.
    AclLog {
        /// How many are wanted.
        count: u64,
    },
    /// LATENCY LATEST.
    Latest,
    /// LATENCY HISTORY.
    History,
    /// LATENCY HISTOGRAM.
    Histogram,
    /// MEMORY STATS.
    MemoryStats,
    /// The one reply as it is: there is one part, which is asked about later.
    First,
}

/// One part: which keys it has and what it was answered.
#[derive(Clone, Copy, Debug, Default)]
pub struct Part {
    /// Where its reply lies in [`Parts::replies`].
    pub at: usize,
    /// Length of its reply in bytes; 0 while it has none.
    pub len: usize,
    /// How many keys it has.
    pub keys: u32,
}

/// The parts of one request and what they were answered.
#[derive(Debug, Default)]
pub struct Parts {
    /// In the order in which they were sent.
    pub parts: Vec<Part>,
    /// For each key of each part, in turn, its place in the request.
    pub order: Vec<u32>,
    /// The replies, in the order in which they came.
    pub replies: Vec<u8>,
}

impl Parts {
    /// Forgets everything, keeps the memory.
    pub fn clear(&mut self) {
        self.parts.clear();
        self.order.clear();
        self.replies.clear();
    }

    /// Keeps the reply of part `index`.
    #[inline]
    pub fn answer(&mut self, index: usize, reply: &[u8]) {
        let at = self.replies.len();
        self.replies.extend_from_slice(reply);
        if let Some(part) = self.parts.get_mut(index) {
            part.at = at;
            part.len = reply.len();
        }
    }

    /// The reply of `part`.
    #[inline]
    #[must_use]
    pub fn reply(&self, part: &Part) -> &[u8] {
        &self.replies[part.at..part.at + part.len]
    }

    /// The replies, part by part.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.parts.iter().map(|part| self.reply(part))
    }
}

/// Appends the one reply to `out`. `name` is the command's, for the error that says what was done.
///
/// An error is never turned into data: if any part failed, the reply is an error. When all parts failed alike it is
/// the error that a single server would have given; otherwise it also says how much was done.
pub fn merge(kind: Merge, name: &str, parts: &Parts, protocol: Protocol, out: &mut Vec<u8>) {
    match kind {
        Merge::Kill => return merge_kill(parts, out),
        Merge::FunctionStats => return merge_function_stats(parts, protocol, out),
        Merge::Texts => return server::texts(parts, protocol, out),
        _ => {}
    }
    if parts.iter().any(is_error) {
        return failure(kind, name, parts, out);
    }
    match kind {
        Merge::Values => values(parts, protocol, out),
        Merge::KeySum | Merge::Sum => {
            let sum = parts.iter().map(|reply| integer_reply(reply).unwrap_or(0)).sum();
            encode::integer(out, sum);
        }
        Merge::Least => {
            let least = parts.iter().filter_map(integer_reply).min();
            encode::integer(out, least.unwrap_or(0));
        }
        Merge::Most => {
            let most = parts.iter().filter_map(integer_reply).max();
            encode::integer(out, most.unwrap_or(0));
        }
        Merge::Digest => server::digest(parts, out),
        Merge::SlowlogLen => server::slow_count(parts, out),
        Merge::SlowlogGet { count } => server::slow_entries(parts, count, out),
        Merge::AclLog { count } => server::acl_log(parts, count, out),
        Merge::Latest => server::latest(parts, out),
        Merge::History => server::history(parts, out),
        Merge::Histogram => server::histogram(parts, protocol, out),
        Merge::MemoryStats => server::memory_stats(parts, protocol, out),
        Merge::KeyOk | Merge::Same | Merge::First | Merge::Kill | Merge::FunctionStats | Merge::Texts => {
            out.extend_from_slice(parts.iter().next().unwrap_or(b"+OK\r\n"));
        }
        Merge::Concat { distinct } => concat(parts, distinct, out),
        Merge::Sorted => sorted(parts, out),
        Merge::All => all(parts, out),
    }
}

fn failure(kind: Merge, name: &str, parts: &Parts, out: &mut Vec<u8>) {
    let first = parts.iter().find(|reply| is_error(reply)).unwrap_or(b"-ERR no reply\r\n");
    // The masters behind a question to one of them.
    let behind = usize::from(matches!(kind, Merge::SlowlogLen | Merge::SlowlogGet { .. }));
    // A wait that was ended by another client has not failed at some node.
    if first.starts_with(b"-UNBLOCKED ") || parts.iter().skip(behind).all(|reply| reply == first) {
        return out.extend_from_slice(first);
    }
    let text = error_text(first);
    let keys = |failed: bool| -> u32 {
        let side = parts.parts.iter().filter(|part| is_error(parts.reply(part)) == failed);
        side.map(|part| part.keys).sum()
    };
    let (done, not) = (keys(false), keys(true));
    let failed = parts.iter().filter(|reply| is_error(reply)).count();
    let told = match kind {
        Merge::Values => format!("{text} ({not} of {} keys were not read)", done + not),
        Merge::KeyOk => format!("{text} ({name}: {done} keys were set, {not} keys were not known to be set)"),
        Merge::KeySum => {
            format!("{text} ({name}: done for {done} keys, not known to be done for {not} keys)")
        }
        _ => format!("{text} ({name}: failed on {failed} of {} masters)", parts.parts.len()),
    };
    encode::error(out, &told);
}

/// An error's text with its code, without framing.
fn error_text(reply: &[u8]) -> String {
    let body = match reply.first() {
        Some(b'!') => reply.iter().position(|&b| b == b'\n').map_or(&b""[..], |end| &reply[end + 1..]),
        _ => reply.get(1..).unwrap_or_default(),
    };
    String::from_utf8_lossy(body).trim_end().to_owned()
}

fn values(parts: &Parts, protocol: Protocol, out: &mut Vec<u8>) {
    // Sorting would cost more than one pass that notes where each key's value lies.
    let mut places = vec![(0usize, 0usize); parts.order.len()];
    let mut order = parts.order.iter();
    for part in &parts.parts {
        let mut at = part.at;
        let reply = parts.reply(part);
        let (_, header) = array_items(reply).unwrap_or((0, reply.len()));
        at += header;
        let mut items = Items::new(reply).into_iter().flatten();
        for _ in 0..part.keys {
            let Some(&key) = order.next() else { break };
            let len = items.next().map_or(0, <[u8]>::len);
            places[key as usize] = (at, len);
            at += len;
        }
    }
    encode::array_header(out, places.len());
    for (at, len) in places {
        if len == 0 {
            encode::null(out, protocol); // a node that answers with fewer values than keys: cannot be told otherwise
        } else {
            out.extend_from_slice(&parts.replies[at..at + len]);
        }
    }
}

fn concat(parts: &Parts, distinct: bool, out: &mut Vec<u8>) {
    if distinct {
        let mut seen = HashSet::new();
        let unique: Vec<&[u8]> =
            parts.iter().filter_map(Items::new).flatten().filter(|item| seen.insert(*item)).collect();
        encode::array_header(out, unique.len());
        unique.iter().for_each(|item| out.extend_from_slice(item));
        return;
    }
    let count: u64 = parts.iter().filter_map(array_items).map(|(count, _)| count).sum();
    encode::array_header(out, count as usize);
    for reply in parts.iter() {
        if let Some((_, header)) = array_items(reply) {
            out.extend_from_slice(&reply[header..]);
        }
    }
}

/// An element's name is its first text: it is that itself, or an array that begins with it.
fn sorted(parts: &Parts, out: &mut Vec<u8>) {
    let kind = parts.iter().find_map(|reply| reply.first()).copied().unwrap_or(b'*');
    let together = if kind == b'%' { 2 } else { 1 };
    let name = |item: &[u8]| {
        let first = Items::new(item).and_then(|mut items| items.next().map(<[u8]>::to_vec));
        first.as_deref().or(Some(item)).and_then(bulk_reply).map(<[u8]>::to_vec)
    };
    let items: Vec<&[u8]> = parts.iter().filter_map(Items::new).flatten().collect();
    let mut elements: Vec<_> = items.chunks(together).map(|element| (name(element[0]), element)).collect();
    elements.sort();
    out.extend_from_slice(format!("{}{}\r\n", char::from(kind), elements.len()).as_bytes());
    elements.iter().flat_map(|(_, element)| *element).for_each(|item| out.extend_from_slice(item));
}

fn all(parts: &Parts, out: &mut Vec<u8>) {
    let mut least: Vec<i64> = Vec::new();
    for reply in parts.iter() {
        for (at, item) in Items::new(reply).into_iter().flatten().enumerate() {
            let value = integer_reply(item).unwrap_or(0);
            match least.get_mut(at) {
                Some(known) => *known = value.min(*known),
                None => least.push(value),
            }
        }
    }
    encode::array_header(out, least.len());
    least.iter().for_each(|&value| encode::integer(out, value));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(replies: &[(&str, &[u32])]) -> Parts {
        let mut parts = Parts::default();
        for (index, (reply, keys)) in replies.iter().enumerate() {
            parts.parts.push(Part { keys: keys.len() as u32, ..Part::default() });
            parts.order.extend_from_slice(keys);
            parts.answer(index, reply.as_bytes());
        }
        parts
    }

    fn merged(kind: Merge, replies: &[(&str, &[u32])]) -> String {
        let mut out = Vec::new();
        merge(kind, "mset", &parts(replies), Protocol::Resp2, &mut out);
        String::from_utf8(out).expect("the replies here are text")
    }

    #[test]
    fn values_come_in_the_order_of_the_request() {
        let replies: &[(&str, &[u32])] =
            &[("*2\r\n$1\r\nb\r\n$-1\r\n", &[1, 2]), ("*1\r\n$1\r\na\r\n", &[0])];
        assert_eq!(merged(Merge::Values, replies), "*3\r\n$1\r\na\r\n$1\r\nb\r\n$-1\r\n");
    }

    #[test]
    fn a_failed_part_is_never_turned_into_data() {
        let replies: &[(&str, &[u32])] = &[("*1\r\n$1\r\na\r\n", &[0]), ("-OOM no memory\r\n", &[1, 2])];
        assert_eq!(merged(Merge::Values, replies), "-OOM no memory (2 of 3 keys were not read)\r\n");
        let replies: &[(&str, &[u32])] = &[("+OK\r\n", &[0]), ("-OOM no memory\r\n", &[1, 2])];
        assert_eq!(
            merged(Merge::KeyOk, replies),
            "-OOM no memory (mset: 1 keys were set, 2 keys were not known to be set)\r\n"
        );
        let replies: &[(&str, &[u32])] = &[("-OOM no memory\r\n", &[0]), ("-OOM no memory\r\n", &[1])];
        assert_eq!(merged(Merge::KeyOk, replies), "-OOM no memory\r\n");
    }

    #[test]
    fn time_series_are_told_by_their_names() {
        let names: &[(&str, &[u32])] = &[("~1\r\n$1\r\nb\r\n", &[]), ("~2\r\n$1\r\na\r\n$1\r\nc\r\n", &[])];
        assert_eq!(merged(Merge::Sorted, names), "~3\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n");
        let arrays: &[(&str, &[u32])] =
            &[("*1\r\n*2\r\n$1\r\nb\r\n:1\r\n", &[]), ("*1\r\n*2\r\n$1\r\na\r\n:2\r\n", &[])];
        assert_eq!(merged(Merge::Sorted, arrays), "*2\r\n*2\r\n$1\r\na\r\n:2\r\n*2\r\n$1\r\nb\r\n:1\r\n");
        let maps: &[(&str, &[u32])] = &[("%1\r\n$1\r\nb\r\n:1\r\n", &[]), ("%1\r\n$1\r\na\r\n:2\r\n", &[])];
        assert_eq!(merged(Merge::Sorted, maps), "%2\r\n$1\r\na\r\n:2\r\n$1\r\nb\r\n:1\r\n");
    }

    #[test]
    fn sums_lists_and_agreements() {
        assert_eq!(merged(Merge::KeySum, &[(":2\r\n", &[0, 1]), (":1\r\n", &[2])]), ":3\r\n");
        assert_eq!(merged(Merge::Sum, &[(":20\r\n", &[]), (":1\r\n", &[])]), ":21\r\n");
        let lists: &[(&str, &[u32])] = &[("*2\r\n$1\r\na\r\n$1\r\nb\r\n", &[]), ("*1\r\n$1\r\nb\r\n", &[])];
        assert_eq!(
            merged(Merge::Concat { distinct: false }, lists),
            "*3\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nb\r\n"
        );
        assert_eq!(merged(Merge::Concat { distinct: true }, lists), "*2\r\n$1\r\na\r\n$1\r\nb\r\n");
        let exist: &[(&str, &[u32])] = &[("*2\r\n:1\r\n:1\r\n", &[]), ("*2\r\n:0\r\n:1\r\n", &[])];
        assert_eq!(merged(Merge::All, exist), "*2\r\n:0\r\n:1\r\n");
    }
}
