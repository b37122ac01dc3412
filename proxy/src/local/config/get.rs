//! CONFIG GET: which settings the patterns name, and whose value each has.

use portico_resp::{Protocol, encode};

use super::names::{Decision, Name, named, names};
use super::{PREFIX, own};
use crate::command::Args;
use crate::config::{Config, SETTINGS};
use crate::plan::{Asked, Parts, RequestArgs, Source, tell_settings};
use crate::pubsub::matches;
use crate::topology::Identity;

/// The settings that a CONFIG GET asks for, each once, of a cluster of so many masters, of such `nodes`.
#[must_use]
pub fn asked_settings(args: &RequestArgs<'_>, config: &Config, masters: u64, nodes: &Identity) -> Vec<Asked> {
    let mut asked: Vec<Asked> = Vec::new();
    let mut add = |name: &[u8], source: Source| {
        if !asked.iter().any(|other| other.name == name) {
            asked.push(Asked { name: name.to_vec(), source });
        }
    };
    for at in 2..args.count() {
        let word = args.word(at);
        let pattern = word.to_ascii_lowercase();
        if pattern.starts_with(PREFIX.as_bytes()) {
            for setting in SETTINGS {
                let full = format!("{PREFIX}{}", setting.name);
                if matches(&pattern, full.as_bytes()) {
                    add(full.as_bytes(), Source::Known(setting.show(config)));
                }
            }
        } else if pattern.iter().any(|byte| b"[*?".contains(byte)) {
            let listed = names().iter().filter(|row| row.is_listed(nodes));
            for row in listed.filter(|row| matches(&pattern, row.name.as_bytes())) {
                add(row.name.as_bytes(), source(row, config, masters));
            }
        } else if let Some(row) = named(word) {
            add(word, source(row, config, masters));
        }
    }
    asked
}

fn source(row: &Name, config: &Config, masters: u64) -> Source {
    let known = |value: String, name: &str| match row.is_everywhere() {
        true => Source::Known(value),
        false => Source::Where(name.to_owned(), value),
    };
    match row.decision {
        Decision::Own | Decision::Both => known(own::show(row.name, config), row.name),
        Decision::Is(value) => known(value.to_owned(), row.name),
        Decision::Secret(beside) => known(String::new(), beside),
        Decision::Nodes => Source::Node,
        Decision::Whole => Source::Sum(masters),
    }
}

/// The reply when no node has to be asked. None: one has to be.
#[must_use]
pub fn known_settings(asked: &[Asked], protocol: Protocol) -> Option<Vec<u8>> {
    if asked.iter().any(|asked| asked.of_node().is_some()) {
        return None;
    }
    let mut out = Vec::new();
    tell_settings(asked, &Parts::default(), protocol, &mut out);
    Some(out)
}

/// What a node is asked. `sums`: those that all masters are asked for, otherwise the others. Before 7.0 a CONFIG GET
/// had one name.
#[must_use]
pub fn questions(asked: &[Asked], sums: bool, version: &str) -> Vec<Vec<u8>> {
    let wanted = asked.iter().filter(|asked| matches!(asked.source, Source::Sum(_)) == sums);
    let mut names: Vec<&[u8]> = wanted.filter_map(Asked::of_node).collect();
    names.dedup();
    let at_once = if crate::local::at_least(version, (7, 0)) { names.len() } else { 1 };
    let question = |names: &[&[u8]]| {
        let mut request = Vec::new();
        encode::command(&mut request, &[&[&b"CONFIG"[..], b"GET"], names].concat());
        request
    };
    names.chunks(at_once.max(1)).map(question).collect()
}

#[cfg(test)]
mod tests {
    use portico_resp::{Limits, RequestScanner};

    use super::*;

    fn asked(words: &[&str]) -> Vec<Asked> {
        let words: Vec<&[u8]> =
            [&["CONFIG", "GET"], words].concat().iter().map(|word| word.as_bytes()).collect();
        let mut request = Vec::new();
        encode::command(&mut request, &words);
        let mut scanner = RequestScanner::new();
        scanner.scan(&request, &Limits { authenticated: true, ..Limits::default() }).expect("a request");
        asked_settings(
            &RequestArgs::new(&request, scanner.args()),
            &Config::default(),
            3,
            &Identity::redis("7.0.0"),
        )
    }

    #[test]
    fn no_node_is_asked_for_a_secret_or_for_what_is_the_endpoints() {
        let all = asked(&["*"]);
        let of_nodes: Vec<&[u8]> = all.iter().filter_map(Asked::of_node).collect();
        for secret in
            ["requirepass", "masterauth", "masteruser", "primaryauth", "tls-key-file-pass", "hash-seed"]
        {
            assert!(!of_nodes.contains(&secret.as_bytes()), "{secret}");
            assert!(asked(&[secret])[0].of_node() != Some(secret.as_bytes()), "{secret}");
        }
        assert!(
            known_settings(&asked(&["port", "MAXCLIENTS", "masterauth", "none"]), Protocol::Resp2).is_some()
        );
        assert!(known_settings(&asked(&["port", "hz"]), Protocol::Resp2).is_none());
    }

    #[test]
    fn names_are_told_once_and_as_they_were_asked_for() {
        let names = |words: &[&str]| -> Vec<String> {
            let name = |asked: &Asked| String::from_utf8_lossy(&asked.name).into_owned();
            asked(words).iter().map(name).collect()
        };
        assert_eq!(names(&["Port", "port", "por?", "none", "mod.x"]), ["Port", "port", "mod.x"]);
        assert_eq!(names(&["portico-maxcl*"]), ["portico-maxclients"]);
        assert!(!names(&["*"]).iter().any(|name| name == "key-load-delay" || name.contains('*')));
        assert_eq!(names(&["key-load-delay"]), ["key-load-delay"]);
    }

    #[test]
    fn one_name_at_a_time_before_7() {
        let asked = asked(&["hz", "maxmemory", "save"]);
        assert_eq!(questions(&asked, false, "7.0.0").len(), 1);
        assert_eq!(questions(&asked, false, "6.2.1").len(), 2);
        assert_eq!(
            questions(&asked, true, "6.2.1"),
            [b"*3\r\n$6\r\nCONFIG\r\n$3\r\nGET\r\n$9\r\nmaxmemory\r\n"]
        );
    }
}
