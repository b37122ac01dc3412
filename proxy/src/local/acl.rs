//! ACL as far as it is about the user that Portico connects to the nodes as: never locked out, its passwords not told.

use portico_resp::Items;

use crate::command::{Args, errors};
use crate::config::Config;
use crate::plan::RequestArgs;

/// Digits of a password's SHA-256.
const HASH: usize = 64;

/// The user that Portico connects as.
fn own_user(config: &Config) -> &str {
    config.node_username.as_deref().unwrap_or("default")
}

/// The error for an ACL SETUSER or DELUSER after which the nodes might not let Portico in any more, or not let it do
/// what it has to. None: it does no harm.
#[must_use]
pub fn locks_out(args: &RequestArgs<'_>, config: &Config) -> Option<Vec<u8>> {
    let own = own_user(config);
    let what = if args.is(1, "deluser") {
        // A node itself refuses to delete the user default.
        (2..args.count())
            .find(|&at| args.word(at) == own.as_bytes() && own != "default")
            .map(|at| args.word(at))
    } else if args.word(2) == own.as_bytes() {
        (3..args.count()).map(|at| args.word(at)).find(|rule| !is_harmless(rule, config))
    } else {
        None
    };
    let before = "ERR Portico connects to the nodes as this user, and would be locked out by '";
    let after = "': change it at the nodes and in Portico's node-username and node-password together; the password of \
                 this endpoint is CONFIG SET requirepass";
    what.map(|what| errors::quoting(before, what, after))
}

/// Whether a rule only adds to what a user may, and leaves the way in as it is.
fn is_harmless(rule: &[u8], config: &Config) -> bool {
    let is = |word: &str| rule.eq_ignore_ascii_case(word.as_bytes());
    let adds = [
        "on",
        "nopass",
        "allcommands",
        "allkeys",
        "allchannels",
        "sanitize-payload",
        "skip-sanitize-payload",
    ];
    match rule.first() {
        // A password ends `nopass`; Portico's own is the one that it comes with.
        Some(b'>') => config.node_password.as_ref().is_some_and(|own| own.expose().as_bytes() == &rule[1..]),
        Some(b'+' | b'~' | b'%' | b'&' | b'(') => true,
        _ => adds.iter().any(|word| is(word)),
    }
}

/// A node's reply to ACL LIST (lines `user NAME ...`) or to ACL GETUSER of the user in question, with the hashes of the
/// passwords of Portico's user made unreadable.
#[must_use]
pub fn without_hashes(reply: &[u8], config: &Config) -> Vec<u8> {
    let mut told = reply.to_vec();
    let own = format!("user {} ", own_user(config));
    let mut at = told.len() - Items::new(reply).map_or(0, |items| items.map(<[u8]>::len).sum());
    for item in Items::new(reply).into_iter().flatten() {
        let line = item.iter().position(|&byte| byte == b'\n').map_or(&item[..0], |end| &item[end + 1..]);
        let is_line = line.starts_with(b"user ");
        if !is_line || line.starts_with(own.as_bytes()) {
            hide(&mut told[at..at + item.len()]);
        }
        at += item.len();
    }
    told
}

/// Stars for each run of exactly as many hexadecimal digits as a hash has.
fn hide(text: &mut [u8]) {
    text.split_mut(|byte| !byte.is_ascii_hexdigit())
        .filter(|run| run.len() == HASH)
        .for_each(|run| run.fill(b'*'));
}

/// Whether ACL GETUSER asks for the user that Portico connects as.
#[must_use]
pub fn is_own_user(name: &[u8], config: &Config) -> bool {
    name == own_user(config).as_bytes()
}

#[cfg(test)]
mod tests {
    use portico_resp::{Limits, RequestScanner, encode};

    use super::*;
    use crate::config::{Config, Secret};

    fn refused(line: &str, config: &Config) -> bool {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        let mut request = Vec::new();
        encode::command(&mut request, &words);
        let mut scanner = RequestScanner::new();
        scanner.scan(&request, &Limits { authenticated: true, ..Limits::default() }).expect("a request");
        locks_out(&RequestArgs::new(&request, scanner.args()), config).is_some()
    }

    #[test]
    fn what_would_lock_portico_out_is_refused() {
        let open = Config::default();
        for rule in [
            "off",
            ">x",
            "resetpass",
            "-get",
            "nocommands",
            "resetkeys",
            "reset",
            "<x",
            "#00",
            "resetchannels",
        ] {
            assert!(refused(&format!("ACL SETUSER default {rule}"), &open), "{rule}");
            assert!(refused(&format!("acl setuser default on {rule} +@all"), &open), "{rule}");
            assert!(!refused(&format!("ACL SETUSER other {rule}"), &open), "{rule}");
        }
        for rule in ["on", "NOPASS", "+get", "~x", "&y", "allkeys"] {
            assert!(!refused(&format!("ACL SETUSER default {rule}"), &open), "{rule}");
        }
        let named = Config {
            node_username: Some("proxy".into()),
            node_password: Some(Secret::new("x")),
            ..Config::default()
        };
        assert!(refused("ACL SETUSER proxy off", &named) && !refused("ACL SETUSER default off", &named));
        assert!(!refused("ACL SETUSER proxy >x", &named) && refused("ACL SETUSER proxy >y", &named));
        assert!(refused("ACL DELUSER a proxy", &named) && !refused("ACL DELUSER a", &named));
    }

    #[test]
    fn hashes_of_portico_s_user_are_not_told() {
        let hash = "0123456789abcdef".repeat(4);
        let line = |user: &str| format!("user {user} on #{hash} ~* &* +@all");
        let mut reply = Vec::new();
        encode::array_header(&mut reply, 2);
        encode::bulk(&mut reply, line("default").as_bytes());
        encode::bulk(&mut reply, line("other").as_bytes());
        let told = String::from_utf8(without_hashes(&reply, &Config::default())).expect("text");
        assert!(
            told.contains(&line("default").replace(&hash, &"*".repeat(64))) && told.contains(&line("other"))
        );
        let mut user = Vec::new();
        encode::array_header(&mut user, 2);
        encode::bulk(&mut user, b"passwords");
        encode::array_header(&mut user, 1);
        encode::bulk(&mut user, hash.as_bytes());
        let told = String::from_utf8(without_hashes(&user, &Config::default())).expect("text");
        assert!(!told.contains(&hash) && told.len() == user.len(), "{told}");
    }
}
