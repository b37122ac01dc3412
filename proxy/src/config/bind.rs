//! An address to listen on, written as redis.conf's `bind` does.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use super::Invalid;

/// One address of `bind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BindAddress {
    /// Where to listen.
    pub address: IpAddr,
    /// Written with a leading `-`: an address that this machine does not have is no error.
    pub optional: bool,
}

impl BindAddress {
    /// `127.0.0.1 -::1`, redis.conf's default.
    pub(super) fn loopback() -> Vec<Self> {
        vec![
            BindAddress { address: Ipv4Addr::LOCALHOST.into(), optional: false },
            BindAddress { address: Ipv6Addr::LOCALHOST.into(), optional: true },
        ]
    }
}

impl FromStr for BindAddress {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let (optional, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let address = match text {
            "*" => Ipv4Addr::UNSPECIFIED.into(),
            "::*" => Ipv6Addr::UNSPECIFIED.into(),
            _ => text.trim_start_matches('[').trim_end_matches(']').parse().map_err(|_| {
                Invalid::must_be(
                    "IP addresses parted by spaces or commas, such as 127.0.0.1 -::1 (* is all of IPv4, ::* all \
                     of IPv6, and a leading - allows an address to be missing)",
                )
            })?,
        };
        Ok(BindAddress { address, optional })
    }
}

impl fmt::Display for BindAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.optional { "-" } else { "" }, self.address)
    }
}
