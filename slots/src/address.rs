//! Where a node is reached: host and port, as Redis and as people write them.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

/// Host (name, IPv4 or bare IPv6, never bracketed) and TCP port of a node.
///
/// Written `host:port`, an IPv6 host in brackets; read in that form and in Redis' own, `::1:7000`, where the port
/// follows the last colon.
#[derive(Clone, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct Address {
    /// Name or IP address; IPv6 without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl Address {
    /// An address from its two parts, unchecked.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self { host: host.into(), port }
    }
}

/// Why a text is not an [`Address`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AddressError {
    /// No colon, or none after the bracket.
    #[error("no port: expected host:port")]
    NoPort,
    /// What follows the last colon is not a number from 1 to 65535.
    #[error("bad port: expected a number from 1 to 65535 after the last colon")]
    BadPort,
    /// Nothing before the port. Redis does so when it does not know its own address: the host that was asked is meant.
    #[error("no host before the port")]
    NoHost,
    /// A bracket without its pair, a blank, or colons that are not an IPv6 address.
    #[error("bad host: expected a name, an IPv4 address or an IPv6 address")]
    BadHost,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, after) = rest.split_once(']').ok_or(AddressError::BadHost)?;
                if !is_ipv6(host) {
                    return Err(AddressError::BadHost);
                }
                (host, after.strip_prefix(':').ok_or(AddressError::NoPort)?)
            }
            None => text.rsplit_once(':').ok_or(AddressError::NoPort)?,
        };
        if host.is_empty() {
            return Err(AddressError::NoHost);
        }
        // `::1` without a port must not become host `:` and port 1
        if host.contains(':') && !is_ipv6(host) || host.contains(is_foreign) {
            return Err(AddressError::BadHost);
        }
        // u16's own parser takes "+7"
        if !port.bytes().all(|b| b.is_ascii_digit()) {
            return Err(AddressError::BadPort);
        }
        match port.parse() {
            Ok(0) | Err(_) => Err(AddressError::BadPort),
            Ok(port) => Ok(Self::new(host, port)),
        }
    }
}

/// An IPv6 address, with or without a zone (`fe80::1%eth0`).
fn is_ipv6(host: &str) -> bool {
    host.split('%').next().is_some_and(|ip| ip.parse::<Ipv6Addr>().is_ok())
}

fn is_foreign(c: char) -> bool {
    c.is_whitespace() || c.is_control() || matches!(c, '[' | ']' | '@' | ',' | '/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_redis_and_people_write() {
        for (text, host, port) in [
            ("127.0.0.1:7000", "127.0.0.1", 7000),
            ("node-1.cache.local:1", "node-1.cache.local", 1),
            ("[::1]:7000", "::1", 7000),
            ("::1:7000", "::1", 7000),
            ("2001:db8::5:65535", "2001:db8::5", 65535),
            ("fe80::1%eth0:7000", "fe80::1%eth0", 7000),
        ] {
            let address: Address = text.parse().expect(text);
            assert_eq!(address, Address::new(host, port));
            assert_eq!(address.to_string().parse(), Ok(address));
        }
        assert_eq!(Address::new("::1", 7000).to_string(), "[::1]:7000");
        assert_eq!(Address::new("::1", 7000).to_string().parse(), Ok(Address::new("::1", 7000)));
    }

    #[test]
    fn says_what_is_wrong() {
        use AddressError::{BadHost, BadPort, NoHost, NoPort};
        for (text, error) in [
            ("", NoPort),
            ("localhost", NoPort),
            ("[::1]", NoPort),
            ("[::1]7000", NoPort),
            (":7000", NoHost),
            ("[]:7000", BadHost),
            ("[::1:7000", BadHost),
            ("[localhost]:7000", BadHost),
            ("::1", BadHost),
            ("a b:1", BadHost),
            ("a:b:1", BadHost),
            ("h:", BadPort),
            ("h:0", BadPort),
            ("h:+7", BadPort),
            ("h:65536", BadPort),
        ] {
            assert_eq!(text.parse::<Address>(), Err(error), "{text}");
        }
    }
}
