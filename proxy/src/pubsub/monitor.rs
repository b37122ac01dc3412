//! Lines of MONITOR: made of what clients ask, and of what nodes tell, those that are somebody else's.

use std::fmt::Write as _;
use std::time::Duration;

use dashmap::DashSet;

/// The addresses of this process' connections to nodes, as the nodes see them.
#[derive(Debug, Default)]
pub struct OwnAddresses(DashSet<String>);

impl OwnAddresses {
    /// A connection was made.
    pub fn add(&self, address: &str) {
        self.0.insert(address.to_owned());
    }

    /// A connection was closed a while ago.
    pub fn remove(&self, address: &str) {
        self.0.remove(address);
    }

    /// Whether a node's line tells of something that did not come from this process; what a script does comes from
    /// nobody.
    #[must_use]
    pub fn is_foreign(&self, line: &[u8]) -> bool {
        address(line).is_none_or(|address| !self.0.contains(address))
    }
}

/// Whose line it is: `+1700000000.123456 [0 127.0.0.1:5000] "GET" "key"`.
fn address(line: &[u8]) -> Option<&str> {
    let open = memchr::memchr(b'[', line)?;
    let close = open + memchr::memmem::find(&line[open..], b"] \"")?;
    std::str::from_utf8(line[open + 1..close].split(|&byte| byte == b' ').nth(1)?).ok()
}

/// The line of a command. `time` since 1970; `address`: the client's.
#[must_use]
pub fn monitor_line<'a>(time: Duration, address: &str, words: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut line = format!("+{}.{:06} [0 {address}]", time.as_secs(), time.subsec_micros());
    for word in words {
        line.push_str(" \"");
        word.iter().for_each(|&byte| escape(byte, &mut line));
        line.push('"');
    }
    line.push_str("\r\n");
    line.into_bytes()
}

/// As `sdscatrepr` writes it.
fn escape(byte: u8, out: &mut String) {
    let short = match byte {
        b'\\' => "\\\\",
        b'"' => "\\\"",
        b'\n' => "\\n",
        b'\r' => "\\r",
        b'\t' => "\\t",
        0x07 => "\\a",
        0x08 => "\\b",
        b' '..=b'~' => return out.push(char::from(byte)),
        _ => {
            // Writing to a string cannot fail.
            let _ = write!(out, "\\x{byte:02x}");
            return;
        }
    };
    out.push_str(short);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_others_are_told_from_our_own() {
        let own = OwnAddresses::default();
        own.add("127.0.0.1:2");
        own.add("[::1]:2");
        for (line, foreign) in [
            ("+1.2 [0 127.0.0.1:2] \"INFO\" \"server\"", false),
            ("+1.2 [0 [::1]:2] \"CLIENT\" \"ID\"", false),
            ("+1.2 [0 127.0.0.1:3] \"PING\" \"] \\\"x\"", true),
            ("+1.2 [0 lua] \"get\" \"k\"", true),
        ] {
            assert_eq!(own.is_foreign(line.as_bytes()), foreign, "{line}");
        }
        own.remove("[::1]:2");
        assert!(own.is_foreign(b"+1.2 [0 [::1]:2] \"CLIENT\" \"ID\""));
    }

    #[test]
    fn arguments_are_legible() {
        let words: [&[u8]; 3] = [b"SET", b"a b\x00\r\n\t\x07\x08\x1b\x7f\"\\\xff'", b""];
        let line = monitor_line(Duration::new(17, 42_000), "1.2.3.4:5", words.into_iter());
        let expected = r#"+17.000042 [0 1.2.3.4:5] "SET" "a b\x00\r\n\t\a\b\x1b\x7f\"\\\xff'" """#;
        assert_eq!(String::from_utf8_lossy(&line), format!("{expected}\r\n"));
    }
}
