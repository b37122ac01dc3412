//! Lines of MONITOR: whose they are, and whether they are Portico's own chatter.

use dashmap::DashMap;

/// The addresses of this process' connections to nodes, as the nodes see them, and of each whether all that comes
/// from it is Portico's own.
#[derive(Debug, Default)]
pub struct OwnAddresses(DashMap<String, bool>);

impl OwnAddresses {
    /// A connection was made. `control`: no client's request goes that way.
    pub fn add(&self, address: &str, control: bool) {
        self.0.insert(address.to_owned(), control);
    }

    /// A connection was closed a while ago.
    pub fn remove(&self, address: &str) {
        self.0.remove(address);
    }

    /// Whether a line tells of something that Portico does by itself.
    #[must_use]
    pub fn is_chatter(&self, line: &[u8]) -> bool {
        is_chatter(line, |address| self.0.get(address).map(|control| *control))
    }
}

/// The address and the command of a line: `+1700000000.123456 [0 127.0.0.1:5000] "GET" "key"`.
fn parts(line: &[u8]) -> Option<(&str, &[u8])> {
    let open = memchr::memchr(b'[', line)?;
    let close = open + memchr::memmem::find(&line[open..], b"] \"")?;
    let address = line[open + 1..close].split(|&byte| byte == b' ').nth(1)?;
    Some((std::str::from_utf8(address).ok()?, &line[close + 2..]))
}

/// Whether a line tells of something that Portico does by itself. `own`: what is known of an address, whether all
/// that comes from it is Portico's own, or only what no client's request becomes.
fn is_chatter(line: &[u8], own: impl FnOnce(&str) -> Option<bool>) -> bool {
    let Some((address, command)) = parts(line) else { return false };
    /// What is answered without the nodes, or was refused to clients.
    const NEVER_A_CLIENTS: [&[u8]; 6] = [b"PING", b"HELLO", b"CLIENT", b"ASKING", b"CLUSTER", b"AUTH"];
    let name = command.get(1..).unwrap_or_default();
    let is = |word: &&[u8]| name.strip_prefix(*word).is_some_and(|rest| rest.first() == Some(&b'"'));
    match own(address) {
        None => false,
        Some(true) => true,
        Some(false) => NEVER_A_CLIENTS.iter().any(is),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chatter_is_told_from_what_clients_asked() {
        let own = |address: &str| match address {
            "127.0.0.1:1" => Some(true),
            "127.0.0.1:2" | "[::1]:2" => Some(false),
            _ => None,
        };
        for (line, expected) in [
            ("+1.2 [0 127.0.0.1:1] \"INFO\" \"server\"", true),
            ("+1.2 [0 127.0.0.1:2] \"INFO\" \"server\"", false),
            ("+1.2 [0 127.0.0.1:2] \"PING\"", true),
            ("+1.2 [0 [::1]:2] \"CLIENT\" \"ID\"", true),
            ("+1.2 [0 127.0.0.1:2] \"PINGX\"", false),
            ("+1.2 [0 127.0.0.1:2] \"get\" \"] \\\"PING\\\"\"", false),
            ("+1.2 [0 127.0.0.1:3] \"PING\"", false),
            ("+1.2 [0 lua] \"get\" \"k\"", false),
            ("+OK", false),
        ] {
            assert_eq!(is_chatter(line.as_bytes(), own), expected, "{line}");
        }
    }
}
