//! Where a node is reached, when that is not where the cluster says it is (NAT, Docker, port forwards).

use std::fmt;
use std::str::FromStr;

use portico_slots::Address;

use super::Invalid;
use super::values::items;

/// Announced addresses and the ones to use instead. The first pair that fits applies; a pair without a port on
/// the left fits every port, one without a port on the right keeps the port.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddressMap(Vec<(Place, Place)>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    host: String,
    port: Option<u16>,
}

impl AddressMap {
    /// Where the node that announces this address is reached from here.
    #[must_use]
    pub fn map(&self, announced: &Address) -> Address {
        self.0.iter().find(|(from, _)| from.fits(announced)).map_or_else(
            || announced.clone(),
            |(_, to)| Address { host: to.host.clone(), port: to.port.unwrap_or(announced.port) },
        )
    }
}

impl FromStr for AddressMap {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let pairs = items(text).map(|pair| {
            let (from, to) = pair.split_once('=')?;
            Some((Place::parse(from)?, Place::parse(to)?))
        });
        pairs.collect::<Option<Vec<_>>>().map(AddressMap).ok_or_else(|| {
            Invalid::must_be("ANNOUNCED=REACHABLE pairs of HOST or HOST:PORT, parted by commas or spaces")
        })
    }
}

impl fmt::Display for AddressMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (from, to)) in self.0.iter().enumerate() {
            write!(f, "{}{from}={to}", if index == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

impl Place {
    fn fits(&self, address: &Address) -> bool {
        self.host.eq_ignore_ascii_case(&address.host) && self.port.is_none_or(|port| port == address.port)
    }

    /// `host`, `host:port`, `[v6]` or `[v6]:port`; a bare IPv6 address has no port.
    fn parse(text: &str) -> Option<Self> {
        let bare_v6 = !text.starts_with('[') && text.bytes().filter(|byte| *byte == b':').count() > 1;
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !bare_v6 && !text.ends_with(']') => (host, Some(port.parse().ok()?)),
            _ => (text, None),
        };
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        (!host.is_empty()).then(|| Place { host: host.to_owned(), port })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => Address { host: self.host.clone(), port }.fmt(f),
            None => f.write_str(&self.host),
        }
    }
}
