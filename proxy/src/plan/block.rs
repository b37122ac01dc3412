//! Requests that wait: how long, how they are asked again for the time that is left, and how what they took is put back.

use std::time::Duration;

use portico_resp::{Items, Protocol, bulk_reply, encode, is_error, is_null};

use super::{RequestArgs, with_queued};
use crate::command::{Args, block_option};

/// Where a request says how long it waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeout {
    at: usize,
    unit: Unit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    /// With a fraction.
    Seconds,
    Milliseconds,
}

/// How long a request is willing to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// For ever.
    Endless,
    /// For so long.
    For(Duration),
    /// Only Redis knows: it has an error for it, or reads it as nobody else does.
    AsSaid,
}

/// In milliseconds: Redis accepts no more than this or a little less.
const LONGEST: f64 = i64::MAX as f64;

impl Timeout {
    /// That of a blocking command's request. None: it has none.
    #[must_use]
    pub fn of(name: &str, args: &RequestArgs<'_>) -> Option<Self> {
        match name {
            "blmpop" | "bzmpop" => Some(Self { at: 1, unit: Unit::Seconds }),
            "xread" | "xreadgroup" => Some(Self { at: block_option(args)?, unit: Unit::Milliseconds }),
            _ => Some(Self { at: args.count().checked_sub(1)?, unit: Unit::Seconds }),
        }
    }

    /// What the request says: a part of a millisecond counts as a whole one, as in Redis, so that a little less than 0
    /// is 0.
    #[must_use]
    pub fn read(self, args: &RequestArgs<'_>) -> Patience {
        let millis = match self.unit {
            Unit::Seconds => args.text(self.at).parse::<f64>().ok().map(|seconds| (seconds * 1000.0).ceil()),
            Unit::Milliseconds => args.integer(self.at).map(|millis| millis as f64),
        };
        match millis {
            Some(0.0) => Patience::Endless,
            Some(millis @ 1.0..LONGEST) => Patience::For(Duration::from_millis(millis as u64)),
            _ => Patience::AsSaid,
        }
    }

    /// The same request for the time that is left, with other words at some places. It never says 0, which is for
    /// ever, if it did not.
    #[must_use]
    pub fn rewrite(self, request: &[u8], left: Patience, others: &[(usize, Vec<u8>)]) -> Vec<u8> {
        let left = match (left, self.unit) {
            (Patience::Endless | Patience::AsSaid, _) => None,
            (Patience::For(left), Unit::Seconds) => Some(format!("{:.3}", left.as_secs_f64().max(0.001))),
            (Patience::For(left), Unit::Milliseconds) => Some(left.as_millis().max(1).to_string()),
        };
        let rewritten = with_queued(request, |args| {
            let word = |at: usize| {
                let other = others.iter().find(|(place, _)| *place == at).map(|(_, word)| word.as_slice());
                let left = left.as_deref().filter(|_| at == self.at).map(str::as_bytes);
                left.or(other).unwrap_or(args.word(at))
            };
            let words: Vec<&[u8]> = (0..args.count()).map(word).collect();
            let mut out = Vec::new();
            encode::command(&mut out, &words);
            out
        });
        rewritten.unwrap_or_else(|| request.to_vec())
    }
}

/// A null array: what a blocking command answers when nothing came, and EXEC when a watched key was touched.
#[must_use]
pub fn nil(protocol: Protocol) -> Vec<u8> {
    let mut out = Vec::new();
    encode::null_array(&mut out, protocol);
    out
}

/// The requests that put back what a reply took from lists and sorted sets, to the end that it was taken from. Empty
/// where nothing was taken, or where it lies elsewhere (moved, or pending in a stream's group).
#[must_use]
pub fn put_back(name: &str, request: &[u8], reply: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    if is_error(reply) || is_null(reply) {
        return out;
    }
    let items: Vec<&[u8]> = Items::new(reply).into_iter().flatten().collect();
    let [key, taken @ ..] = &items[..] else { return out };
    let Some(key) = bulk_reply(key) else { return out };
    match (name, taken) {
        ("blpop" | "brpop", [element]) => {
            let push: &[u8] = if name == "blpop" { b"LPUSH" } else { b"RPUSH" };
            if let Some(element) = bulk_reply(element) {
                encode::command(&mut out, &[push, key, element]);
            }
        }
        ("blmpop", [elements]) => {
            let count = with_queued(request, |args| args.integer(2)).flatten().unwrap_or(0);
            let left = with_queued(request, |args| args.is(count as usize + 3, "left")).unwrap_or(true);
            let mut words = vec![if left { &b"LPUSH"[..] } else { b"RPUSH" }, key];
            let elements = Items::new(elements).into_iter().flatten().filter_map(bulk_reply);
            let elements: Vec<&[u8]> = elements.collect();
            words.extend(elements.iter().rev());
            encode::command(&mut out, &words);
        }
        ("bzpopmin" | "bzpopmax", [member, score]) => add(key, &[(member, score)], &mut out),
        ("bzmpop", [pairs]) => {
            let pairs: Vec<Vec<&[u8]>> = Items::new(pairs)
                .into_iter()
                .flatten()
                .map(|pair| Items::new(pair).into_iter().flatten().collect())
                .collect();
            let pairs: Vec<(&&[u8], &&[u8])> =
                pairs.iter().filter_map(|pair| Some((pair.first()?, pair.get(1)?))).collect();
            add(key, &pairs, &mut out);
        }
        _ => {}
    }
    out
}

/// Whether what the command takes can be put back by [`put_back`], or it takes nothing.
#[must_use]
pub fn can_put_back(name: &str) -> bool {
    !["blmove", "brpoplpush", "xreadgroup"].contains(&name)
}

fn add(key: &[u8], pairs: &[(&&[u8], &&[u8])], out: &mut Vec<u8>) {
    // A member that came back meanwhile has a newer score.
    let mut words = vec![&b"ZADD"[..], key, b"NX"];
    for (member, score) in pairs {
        let score = bulk_reply(score).or_else(|| score.strip_prefix(b",")?.strip_suffix(b"\r\n"));
        if let (Some(member), Some(score)) = (bulk_reply(member), score) {
            words.extend([score, member]);
        }
    }
    if words.len() > 3 {
        encode::command(out, &words);
    }
}

/// XREAD's streams from whose end it reads: the argument of each `$`, and the stream's name.
#[must_use]
pub fn reads_from_the_end(name: &str, args: &RequestArgs<'_>) -> Vec<(usize, Vec<u8>)> {
    if name != "xread" {
        return Vec::new();
    }
    let Some(streams) = (1..args.count()).find(|&at| args.is(at, "streams")) else { return Vec::new() };
    let count = (args.count() - streams - 1) / 2;
    let ids = streams + 1 + count..args.count();
    ids.filter(|&at| args.word(at) == b"$").map(|at| (at, args.word(at - count).to_vec())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(line: &str) -> Vec<u8> {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        let mut out = Vec::new();
        encode::command(&mut out, &words);
        out
    }

    fn timeout(line: &str) -> (Timeout, Patience) {
        let name = line.split(' ').next().expect("a name").to_lowercase();
        with_queued(&request(line), |args| {
            let timeout = Timeout::of(&name, args).expect("it waits");
            (timeout, timeout.read(args))
        })
        .expect("a whole request")
    }

    #[test]
    fn how_long_each_waits() {
        let millis = |n| Patience::For(Duration::from_millis(n));
        assert_eq!(timeout("BLPOP a b 1.5").1, millis(1500));
        assert_eq!(timeout("BLMPOP 0.25 1 a LEFT").1, millis(250));
        assert_eq!(timeout("BLPOP a 0.0001").1, millis(1));
        assert_eq!(timeout("XREAD COUNT 1 BLOCK 20 STREAMS a $").1, millis(20));
        assert_eq!(timeout("XREAD BLOCK 100 BLOCK 20 STREAMS a $").1, millis(20));
        assert_eq!(timeout("XREADGROUP GROUP block 7 BLOCK 20 STREAMS a >").1, millis(20));
        for endless in ["BLMOVE a b LEFT LEFT 0", "BLPOP a -0.0001", "BLPOP a 0e9"] {
            assert_eq!(timeout(endless).1, Patience::Endless, "{endless}");
        }
        let odd = ["x", "-1", "inf", "nan", "0x3", "1e16", "1e19", "9223372036854775807", "1e400"]
            .map(|t| format!("BLPOP a {t}"));
        for odd in odd
            .iter()
            .map(String::as_str)
            .chain(["XREAD BLOCK 1.5 STREAMS a $", "XREAD BLOCK -1 STREAMS a $"])
        {
            assert_eq!(timeout(odd).1, Patience::AsSaid, "{odd}");
            assert_eq!(timeout(odd).0.rewrite(&request(odd), Patience::AsSaid, &[]), request(odd));
        }
    }

    #[test]
    fn asked_again_for_the_time_that_is_left() {
        let left = Patience::For(Duration::from_millis(1234));
        let again =
            |line: &str, others: &[(usize, Vec<u8>)]| timeout(line).0.rewrite(&request(line), left, others);
        assert_eq!(again("BRPOP a 5", &[]), request("BRPOP a 1.234"));
        let ids = [(5, b"7-1".to_vec())];
        assert_eq!(again("XREAD BLOCK 9000 STREAMS s $", &ids), request("XREAD BLOCK 1234 STREAMS s 7-1"));
        let over = timeout("BRPOP a 5").0.rewrite(&request("BRPOP a 5"), Patience::For(Duration::ZERO), &[]);
        assert_eq!(over, request("BRPOP a 0.001"), "0 would be for ever");
    }

    #[test]
    fn what_was_taken_goes_back_to_its_end() {
        let popped = b"*2\r\n$1\r\nk\r\n$1\r\nx\r\n";
        assert_eq!(put_back("blpop", &request("BLPOP k 0"), popped), request("LPUSH k x"));
        assert_eq!(put_back("brpop", &request("BRPOP k 0"), popped), request("RPUSH k x"));
        let many = b"*2\r\n$1\r\nk\r\n*2\r\n$1\r\na\r\n$1\r\nb\r\n";
        assert_eq!(put_back("blmpop", &request("BLMPOP 0 1 k LEFT COUNT 2"), many), request("LPUSH k b a"));
        assert_eq!(put_back("blmpop", &request("BLMPOP 0 1 k RIGHT"), many), request("RPUSH k b a"));
        let member = b"*3\r\n$1\r\nk\r\n$1\r\nm\r\n,1.5\r\n";
        assert_eq!(put_back("bzpopmin", &request("BZPOPMIN k 0"), member), request("ZADD k NX 1.5 m"));
        let members = b"*2\r\n$1\r\nk\r\n*1\r\n*2\r\n$1\r\nm\r\n$1\r\n2\r\n";
        assert_eq!(put_back("bzmpop", &request("BZMPOP 0 1 k MIN"), members), request("ZADD k NX 2 m"));
        assert!(put_back("blmove", &request("BLMOVE a b LEFT LEFT 0"), b"$1\r\nx\r\n").is_empty());
        assert!(put_back("blpop", &request("BLPOP k 0"), b"*-1\r\n").is_empty());
    }

    #[test]
    fn the_ends_of_streams() {
        let found =
            with_queued(&request("XREAD BLOCK 0 STREAMS a b $ 0"), |args| reads_from_the_end("xread", args));
        assert_eq!(found, Some(vec![(6, b"a".to_vec())]));
    }
}
