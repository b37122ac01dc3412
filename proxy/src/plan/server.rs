//! What several nodes say about themselves, as one server would say it: slow commands, latencies, memory, digests.

use std::collections::{BTreeMap, HashSet};

use super::Parts;
use crate::scripts::Sha;
use portico_resp::{Items, Protocol, bulk_reply, encode, integer_reply, is_error};

/// DEBUG DIGEST. A server's digest is the exclusive or of its keys' digests and of a constant of each database that is
/// not empty (`computeDatasetDigest` in debug.c); in a cluster there is one database.
pub(super) fn digest(parts: &Parts, out: &mut Vec<u8>) {
    let (mut whole, mut filled) = ([0u8; 20], 0);
    for digest in parts.iter().filter_map(bulk_reply).filter_map(Sha::parse) {
        filled += u32::from(*digest.bytes() != [0; 20]);
        mix(&mut whole, &digest);
    }
    if filled > 0 && filled % 2 == 0 {
        let database = Sha::of(&0u32.to_be_bytes());
        mix(&mut whole, &Sha::of(database.bytes()));
    }
    encode::simple(out, &whole.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
}

fn mix(whole: &mut [u8; 20], digest: &Sha) {
    whole.iter_mut().zip(digest.bytes()).for_each(|(byte, other)| *byte ^= other);
}

/// Texts for people: what all say once, and otherwise one after another. Where some have an error, those of the others.
pub(super) fn texts(parts: &Parts, protocol: Protocol, out: &mut Vec<u8>) {
    let mut seen = HashSet::new();
    let texts: Vec<&[u8]> = parts.iter().filter_map(bulk_reply).filter(|text| seen.insert(*text)).collect();
    match (parts.iter().find(|reply| is_error(reply)), texts.as_slice()) {
        (Some(error), []) => out.extend_from_slice(error),
        // Some servers tell as plain bulk what others tell as text, and in RESP2 all do.
        (_, texts) if parts.iter().any(|reply| reply.starts_with(b"$")) => {
            encode::bulk(out, &texts.join(&b"\n\n"[..]));
        }
        (_, texts) => encode::verbatim_txt(out, &texts.join(&b"\n\n"[..]), protocol),
    }
}

/// SLOWLOG LEN: as many as all have, but no more than one server would keep. The first part is CONFIG GET
/// slowlog-max-len.
pub(super) fn slow_count(parts: &Parts, out: &mut Vec<u8>) {
    let count: i64 = parts.iter().skip(1).filter_map(integer_reply).sum();
    encode::integer(out, count.min(kept(parts) as i64));
}

/// SLOWLOG GET: the latest `count` first. The first part is CONFIG GET slowlog-max-len. An entry's number is made such
/// that no two masters have the same.
pub(super) fn slow_entries(parts: &Parts, count: Option<u64>, out: &mut Vec<u8>) {
    let masters = parts.parts.len().saturating_sub(1) as i64;
    let mut entries: Vec<(i64, i64, &[u8])> = Vec::new();
    for (at, reply) in (0..).zip(parts.iter().skip(1)) {
        for entry in Items::new(reply).into_iter().flatten() {
            let Some(mut items) = Items::new(entry) else { continue };
            let (Some(id), Some(time)) = (items.next(), items.next()) else { continue };
            let number = integer_reply(id).unwrap_or(0).saturating_mul(masters).saturating_add(at);
            let header = entry.iter().position(|&byte| byte == b'\n').map_or(0, |end| end + 1);
            entries.push((integer_reply(time).unwrap_or(0), number, &entry[header + id.len()..]));
        }
    }
    entries.sort_by_key(|&(time, number, _)| std::cmp::Reverse((time, number)));
    let most = count.map_or(usize::MAX, |count| usize::try_from(count).unwrap_or(usize::MAX));
    entries.truncate(most.min(kept(parts)));
    encode::array_header(out, entries.len());
    for (_, number, rest) in entries {
        // What follows its number, which is the first of its fields.
        encode::array_header(out, 1 + portico_resp::replies(rest).count());
        encode::integer(out, number);
        out.extend_from_slice(rest);
    }
}

fn kept(parts: &Parts) -> usize {
    let value = parts.iter().next().and_then(|reply| Items::new(reply)?.nth(1)).and_then(bulk_reply);
    value.and_then(|value| std::str::from_utf8(value).ok()?.parse().ok()).unwrap_or(usize::MAX)
}

/// ACL LOG: the youngest `count` entries first.
pub(super) fn acl_log(parts: &Parts, count: u64, out: &mut Vec<u8>) {
    let age = |entry: &[u8]| field(entry, b"age-seconds").and_then(double).unwrap_or(f64::MAX);
    let mut entries: Vec<&[u8]> = parts.iter().filter_map(Items::new).flatten().collect();
    entries.sort_by(|a, b| age(a).total_cmp(&age(b)));
    entries.truncate(usize::try_from(count).unwrap_or(usize::MAX));
    encode::array_header(out, entries.len());
    entries.iter().for_each(|entry| out.extend_from_slice(entry));
}

/// LATENCY LATEST: for each event the latest time of all, the longest of all and, where servers tell them, the sums.
pub(super) fn latest(parts: &Parts, out: &mut Vec<u8>) {
    let mut events: Vec<(&[u8], Vec<i64>)> = Vec::new();
    for event in parts.iter().filter_map(Items::new).flatten() {
        let mut items = Items::new(event).into_iter().flatten();
        let Some(name) = items.next() else { continue };
        let numbers: Vec<i64> = items.filter_map(integer_reply).collect();
        let Some((_, known)) = events.iter_mut().find(|(known, _)| *known == name) else {
            events.push((name, numbers));
            continue;
        };
        // When, how long, the longest so far, and from Valkey 8.1 and Redis 8.2 on the sum and the count.
        let age = numbers.first().cmp(&known.first());
        for (at, (mine, theirs)) in known.iter_mut().zip(numbers).enumerate() {
            *mine = match at {
                0 | 1 if age.is_gt() => theirs,
                0 => *mine,
                1 if age.is_lt() => *mine, // in one second the longest counts
                1 | 2 => theirs.max(*mine),
                _ => theirs.saturating_add(*mine),
            };
        }
    }
    encode::array_header(out, events.len());
    for (name, numbers) in events {
        encode::array_header(out, 1 + numbers.len());
        out.extend_from_slice(name);
        numbers.iter().for_each(|&number| encode::integer(out, number));
    }
}

/// LATENCY HISTORY: the longest of each second, as a server keeps it (`latencyAddSample`), the last 160 of them
/// (`LATENCY_TS_LEN`).
pub(super) fn history(parts: &Parts, out: &mut Vec<u8>) {
    const KEPT: usize = 160;
    let mut longest: BTreeMap<i64, i64> = BTreeMap::new();
    for sample in parts.iter().filter_map(Items::new).flatten() {
        let mut numbers = Items::new(sample).into_iter().flatten().filter_map(integer_reply);
        let (Some(second), Some(latency)) = (numbers.next(), numbers.next()) else { continue };
        let known = longest.entry(second).or_insert(latency);
        *known = latency.max(*known);
    }
    let before = longest.len().saturating_sub(KEPT);
    encode::array_header(out, longest.len() - before);
    for (second, latency) in longest.into_iter().skip(before) {
        encode::array_header(out, 2);
        encode::integer(out, second);
        encode::integer(out, latency);
    }
}

/// LATENCY HISTOGRAM: calls are added up, and how many took no longer than each bound.
pub(super) fn histogram(parts: &Parts, protocol: Protocol, out: &mut Vec<u8>) {
    let mut commands: Vec<(&[u8], i64, BTreeMap<i64, i64>)> = Vec::new();
    for reply in parts.iter() {
        let mut items = Items::new(reply).into_iter().flatten();
        while let (Some(name), Some(of)) = (items.next(), items.next()) {
            let calls = field(of, b"calls").and_then(integer_reply).unwrap_or(0);
            let at = commands.iter().position(|(known, ..)| *known == name).unwrap_or_else(|| {
                commands.push((name, 0, BTreeMap::new()));
                commands.len() - 1
            });
            let (_, sum, bounds) = &mut commands[at];
            *sum += calls;
            let (mut before, buckets) = (0, field(of, b"histogram_usec").and_then(Items::new));
            let mut buckets = buckets.into_iter().flatten().filter_map(integer_reply);
            while let (Some(bound), Some(upto)) = (buckets.next(), buckets.next()) {
                *bounds.entry(bound).or_default() += upto - before;
                before = upto;
            }
        }
    }
    encode::map_header(out, commands.len(), protocol);
    for (name, calls, bounds) in commands {
        out.extend_from_slice(name);
        encode::map_header(out, 2, protocol);
        encode::bulk(out, b"calls");
        encode::integer(out, calls);
        encode::bulk(out, b"histogram_usec");
        encode::map_header(out, bounds.len(), protocol);
        let mut upto = 0;
        for (bound, more) in bounds {
            upto += more;
            encode::integer(out, bound);
            encode::integer(out, upto);
        }
    }
}

/// A value of MEMORY STATS.
#[derive(Clone, Debug, PartialEq)]
enum Stat {
    Count(i64),
    Ratio(f64),
    Map(Stats),
    Other(Vec<u8>),
}

/// Fields in the order in which they first came.
type Stats = Vec<(Vec<u8>, Stat)>;

/// MEMORY STATS: sizes and counts are added up, ratios made from the sums.
pub(super) fn memory_stats(parts: &Parts, protocol: Protocol, out: &mut Vec<u8>) {
    let mut whole = Stats::new();
    for reply in parts.iter() {
        add(&mut whole, stats(reply));
    }
    let counts: BTreeMap<Vec<u8>, i64> = whole
        .iter()
        .filter_map(
            |(name, stat)| if let Stat::Count(count) = stat { Some((name.clone(), *count)) } else { None },
        )
        .collect();
    let of = |name: &str| counts.get(name.as_bytes()).copied().unwrap_or(0) as f64;
    let used = of("total.allocated") - of("startup.allocated");
    let resident = of("allocator.resident") + of("rss-overhead.bytes");
    let ratio = |above: f64, below: f64| if below == 0.0 { 0.0 } else { above / below };
    for (name, stat) in &mut whole {
        let made = match name.as_slice() {
            b"keys.bytes-per-key" => ratio(used, of("keys.count")).floor(),
            b"dataset.percentage" => ratio(of("dataset.bytes") * 100.0, used),
            b"peak.percentage" => ratio(of("total.allocated") * 100.0, of("peak.allocated")),
            b"allocator-fragmentation.ratio" => ratio(of("allocator.active"), of("allocator.allocated")),
            b"allocator-rss.ratio" => ratio(of("allocator.resident"), of("allocator.active")),
            b"rss-overhead.ratio" => ratio(resident, of("allocator.resident")),
            b"fragmentation" => ratio(resident, of("total.allocated")),
            _ => continue,
        };
        *stat = match stat {
            Stat::Count(_) => Stat::Count(made as i64),
            _ => Stat::Ratio(made),
        };
    }
    put(&whole, protocol, out);
}

fn stats(reply: &[u8]) -> Stats {
    let mut stats = Stats::new();
    let mut items = Items::new(reply).into_iter().flatten();
    while let (Some(name), Some(value)) = (items.next(), items.next()) {
        let stat = match (integer_reply(value), double(value)) {
            (Some(count), _) => Stat::Count(count),
            (_, Some(ratio)) => Stat::Ratio(ratio),
            _ if Items::new(value).is_some() => Stat::Map(self::stats(value)),
            _ => Stat::Other(value.to_vec()),
        };
        stats.push((bulk_reply(name).unwrap_or_default().to_vec(), stat));
    }
    stats
}

fn add(whole: &mut Stats, part: Stats) {
    for (name, stat) in part {
        match (whole.iter_mut().find(|(known, _)| *known == name), stat) {
            (Some((_, Stat::Count(sum))), Stat::Count(count)) => *sum = sum.saturating_add(count),
            // What is not made from the sums: the worst.
            (Some((_, Stat::Ratio(most))), Stat::Ratio(ratio)) => *most = most.max(ratio),
            (Some((_, Stat::Map(sums))), Stat::Map(more)) => add(sums, more),
            (Some(_), _) => {}
            (None, stat) => whole.push((name, stat)),
        }
    }
}

fn put(stats: &Stats, protocol: Protocol, out: &mut Vec<u8>) {
    encode::map_header(out, stats.len(), protocol);
    for (name, stat) in stats {
        encode::bulk(out, name);
        match stat {
            Stat::Count(count) => encode::integer(out, *count),
            Stat::Ratio(ratio) => encode::double(out, *ratio, protocol),
            Stat::Map(inner) => put(inner, protocol, out),
            Stat::Other(reply) => out.extend_from_slice(reply),
        }
    }
}

/// A double as either protocol has it.
fn double(reply: &[u8]) -> Option<f64> {
    let text = reply.strip_prefix(b",").and_then(|rest| rest.strip_suffix(b"\r\n")).or(bulk_reply(reply))?;
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// A value of a map.
pub(super) fn field<'a>(reply: &'a [u8], wanted: &[u8]) -> Option<&'a [u8]> {
    let mut items = Items::new(reply)?;
    while let (Some(name), Some(value)) = (items.next(), items.next()) {
        if bulk_reply(name) == Some(wanted) {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Merge, Part, merge};

    fn merged(rule: Merge, replies: &[&str]) -> String {
        let mut parts = Parts::default();
        for (at, reply) in replies.iter().enumerate() {
            parts.parts.push(Part::default());
            parts.answer(at, reply.replace(' ', "\r\n").as_bytes());
        }
        let mut out = Vec::new();
        merge(rule, "x", &parts, Protocol::Resp2, &mut out);
        String::from_utf8(out).expect("text").replace("\r\n", " ")
    }

    /// What a standalone 7.0.15 says of `SET a 1`, `SET b 2`, `SET c 3`, of the first two and of all three.
    const DIGESTS: [&str; 5] = [
        "+943d800368fb9c0e951138f1bc0e313ac769d91f ",
        "+43f25254b30b4502d35b14b8588d2be6bac05311 ",
        "+50dfab933c4a6f9596f27ad3c911f97265fbed4b ",
        "+7dff4aa4711992a6870417c26949f355d23a7cac ",
        "+871079c4e7bab699d0b8569a2d92e3ae18526745 ",
    ];

    #[test]
    fn digests_make_that_of_the_whole() {
        let [a, b, c, two, three] = DIGESTS;
        let empty = format!("+{} ", "0".repeat(40));
        assert_eq!(merged(Merge::Digest, &[&empty, &empty]), empty);
        assert_eq!(merged(Merge::Digest, &[&empty, a, &empty]), a, "the one that has keys has all of them");
        assert_eq!(merged(Merge::Digest, &[a, &empty, b]), two);
        assert_eq!(merged(Merge::Digest, &[a, b, c]), three);
    }

    #[test]
    fn texts_are_told_once() {
        let (a, b, error) = ("$1 a ", "$1 b ", "-NONE ");
        assert_eq!(merged(Merge::Texts, &[a, a]), "$1 a ");
        assert_eq!(merged(Merge::Texts, &[a, b, error]), "$4 a\n\nb ");
        assert_eq!(merged(Merge::Texts, &[error, error]), error);
    }

    #[test]
    fn the_slow_log_is_the_latest_of_all_with_numbers_of_its_own() {
        let kept = "*2 $15 slowlog-max-len $1 3 ";
        let first = "*2 *4 :5 :100 :7 *1 $1 a *4 :4 :80 :7 *1 $1 b ";
        let second = "*2 *4 :5 :90 :7 *1 $1 c *4 :4 :70 :7 *1 $1 d ";
        let get = |count| merged(Merge::SlowlogGet { count }, &[kept, first, second]);
        assert_eq!(get(Some(2)), "*2 *4 :10 :100 :7 *1 $1 a *4 :11 :90 :7 *1 $1 c ");
        assert!(get(None).starts_with("*3 ") && get(None).ends_with("*4 :8 :80 :7 *1 $1 b "));
        assert_eq!(merged(Merge::SlowlogLen, &[kept, ":2 ", ":2 "]), ":3 ");
        assert_eq!(merged(Merge::SlowlogLen, &[kept, ":1 ", ":1 "]), ":2 ");
        assert_eq!(merged(Merge::SlowlogLen, &[kept, "-ERROR ", "-ERROR "]), "-ERROR ");
    }

    #[test]
    fn latencies_are_of_all() {
        let first = "*1 *4 $1 e :100 :5 :9 ";
        let second = "*2 *4 $1 e :101 :4 :20 *4 $1 f :1 :2 :3 ";
        assert_eq!(merged(Merge::Latest, &[first, second]), "*2 *4 $1 e :101 :4 :20 *4 $1 f :1 :2 :3 ");
        let samples = ["*2 *2 :3 :1 *2 :5 :1 ", "*1 *2 :4 :9 "];
        let same = "*1 *4 $1 e :100 :7 :7 ";
        assert_eq!(
            merged(Merge::Latest, &[first, same]),
            "*1 *4 $1 e :100 :7 :9 ",
            "of one second, the longest"
        );
        let seconds = ["*2 *2 :4 :2 *2 :5 :3 ", "*1 *2 :4 :6 "];
        assert_eq!(merged(Merge::History, &seconds), "*2 *2 :4 :6 *2 :5 :3 ");
        assert_eq!(merged(Merge::History, &samples), "*3 *2 :3 :1 *2 :4 :9 *2 :5 :1 ");
        let histogram = |calls: u32, buckets: &str| {
            format!("*2 $3 get *4 $5 calls :{calls} $14 histogram_usec {buckets} ")
        };
        let (a, b) = (histogram(3, "*4 :1 :1 :4 :3"), histogram(5, "*4 :2 :4 :4 :5"));
        assert_eq!(merged(Merge::Histogram, &[&a, &b]), histogram(8, "*6 :1 :1 :2 :5 :4 :8"));
    }

    #[test]
    fn ratios_are_made_from_sums() {
        let stats = |total: u32, keys: u32, percent: &str| {
            format!(
                "*12 $14 peak.allocated :{total} $15 total.allocated :{total} $17 startup.allocated :100 $10 keys.count \
                 :{keys} $18 keys.bytes-per-key :7 $15 peak.percentage $3 {percent} "
            )
        };
        let told = merged(Merge::MemoryStats, &[&stats(300, 1, "1.5"), &stats(500, 2, "2.5")]);
        for part in
            ["total.allocated :800 ", "keys.count :3 ", "keys.bytes-per-key :200 ", "peak.percentage $3 100 "]
        {
            assert!(told.contains(part), "{part} in {told}");
        }
    }

    #[test]
    fn the_youngest_of_the_acl_log_come_first() {
        let entry = |age: &str| format!("*2 $11 age-seconds ${} {age} ", age.len());
        let (a, b) = (format!("*2 {}{}", entry("1.5"), entry("30.1")), format!("*1 {}", entry("2.25")));
        let told = merged(Merge::AclLog { count: 2 }, &[&a, &b]);
        assert_eq!(told, format!("*2 {}{}", entry("1.5"), entry("2.25")));
    }
}
