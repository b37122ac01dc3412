//! Lines of MONITOR: whose they are, and whether they are Portico's own chatter.

use std::collections::HashMap;

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
}

/// The lines of one worker's connections.
#[derive(Debug, Default)]
pub struct Monitor {
    /// MULTIs of Portico's connections, until what follows shows whether they are a client's, by address.
    begun: HashMap<String, Vec<u8>>,
}

impl Monitor {
    /// What is told of a line: with Portico's own chatter left out.
    pub fn hear(&mut self, line: &[u8], own: &OwnAddresses, mut tell: impl FnMut(&[u8])) {
        let Some((address, command)) = parts(line) else { return tell(line) };
        match own.0.get(address).map(|control| *control) {
            None => return tell(line),
            Some(true) => return,
            Some(false) => {}
        }
        // A connection's setup asks whether MULTI is allowed.
        let begun = self.begun.remove(address);
        if is(command, b"DISCARD") && begun.is_some() {
            return;
        }
        if let Some(begun) = begun {
            tell(&begun);
        }
        if is(command, b"MULTI") {
            self.begun.insert(address.to_owned(), line.to_vec());
        } else if !NEVER_A_CLIENTS.iter().any(|name| is(command, name)) {
            tell(line);
        }
    }

    /// Nobody listens any more.
    pub fn clear(&mut self) {
        self.begun.clear();
    }
}

/// What is answered without the nodes, or refused to clients.
const NEVER_A_CLIENTS: [&[u8]; 6] = [b"PING", b"HELLO", b"CLIENT", b"ASKING", b"CLUSTER", b"AUTH"];

/// Whether a command, as a line has it, is this one. Portico writes its own in capitals.
fn is(command: &[u8], name: &[u8]) -> bool {
    let rest = command.get(1..).and_then(|command| command.strip_prefix(name));
    rest.is_some_and(|rest| rest.first() == Some(&b'"'))
}

/// The address and the command of a line: `+1700000000.123456 [0 127.0.0.1:5000] "GET" "key"`.
fn parts(line: &[u8]) -> Option<(&str, &[u8])> {
    let open = memchr::memchr(b'[', line)?;
    let close = open + memchr::memmem::find(&line[open..], b"] \"")?;
    let address = line[open + 1..close].split(|&byte| byte == b' ').nth(1)?;
    Some((std::str::from_utf8(address).ok()?, &line[close + 2..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chatter_is_told_from_what_clients_asked() {
        let (own, mut monitor) = (OwnAddresses::default(), Monitor::default());
        own.add("127.0.0.1:1", true);
        own.add("127.0.0.1:2", false);
        own.add("[::1]:2", false);
        for (line, told) in [
            ("+1.2 [0 127.0.0.1:1] \"INFO\" \"server\"", 0),
            ("+1.2 [0 127.0.0.1:2] \"INFO\" \"server\"", 1),
            ("+1.2 [0 127.0.0.1:2] \"PING\"", 0),
            ("+1.2 [0 [::1]:2] \"CLIENT\" \"ID\"", 0),
            ("+1.2 [0 127.0.0.1:2] \"PINGX\"", 1),
            ("+1.2 [0 127.0.0.1:2] \"get\" \"] \\\"PING\\\"\"", 1),
            ("+1.2 [0 127.0.0.1:3] \"PING\"", 1),
            ("+1.2 [0 lua] \"get\" \"k\"", 1),
            ("+1.2 [0 127.0.0.1:2] \"MULTI\"", 0),
            ("+1.2 [0 [::1]:2] \"MULTI\"", 0),
            ("+1.2 [0 127.0.0.1:2] \"DISCARD\"", 0),
            ("+1.2 [0 [::1]:2] \"set\" \"k\" \"v\"", 2),
            ("+1.2 [0 [::1]:2] \"EXEC\"", 1),
            ("+OK", 1),
        ] {
            let mut count = 0;
            monitor.hear(line.as_bytes(), &own, |_| count += 1);
            assert_eq!(count, told, "{line}");
        }
    }
}
