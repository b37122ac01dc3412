//! The seeds: `host:port` or `redis://user:password@host:port`, which also carries the credentials.

use std::str::FromStr;

use portico_slots::Address;

use super::values::items;
use super::{Invalid, Secret};

/// What the list of nodes says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Seeds {
    pub(super) addresses: Vec<Address>,
    pub(super) username: Option<String>,
    pub(super) password: Option<Secret>,
    /// What stood behind an address and means nothing to a cluster: a database, options.
    pub(super) ignored: Vec<String>,
}

impl FromStr for Seeds {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let mut seeds = Seeds::default();
        for item in items(text) {
            let Some(rest) = item.strip_prefix("redis://") else {
                if item.starts_with("rediss://") {
                    return Err(Invalid::must_be("without rediss://: this release has no TLS"));
                }
                seeds.addresses.push(address(item)?);
                continue;
            };
            // The last @: a password may hold one, a host cannot.
            let (credentials, place) = rest.rsplit_once('@').unwrap_or(("", rest));
            let end = place.find(['/', '?']).unwrap_or(place.len());
            let (place, behind) = place.split_at(end);
            seeds.addresses.push(address(place)?);
            if !matches!(behind, "" | "/" | "/0") {
                // Options may hold a password.
                let shown = behind.split_once('?').map_or(behind.into(), |(path, _)| format!("{path}?.."));
                seeds.ignored.push(format!("{shown} behind {place}"));
            }
            if !credentials.is_empty() {
                seeds.use_credentials(credentials)?;
            }
        }
        if seeds.addresses.is_empty() { Err(expected()) } else { Ok(seeds) }
    }
}

impl Seeds {
    /// `user:password`, `:password` or `user:`, percent-encoded.
    fn use_credentials(&mut self, text: &str) -> Result<(), Invalid> {
        let (username, password) = text.split_once(':').unwrap_or((text, ""));
        let username = Some(percent_decode(username)?).filter(|name| !name.is_empty());
        let password = Some(percent_decode(password)?).filter(|word| !word.is_empty()).map(Secret::new);
        if (self.password.is_some() || self.username.is_some())
            && (&self.username, &self.password) != (&username, &password)
        {
            return Err(Invalid::must_be("nodes with the same credentials: one cluster has one"));
        }
        (self.username, self.password) = (username, password);
        Ok(())
    }
}

fn address(text: &str) -> Result<Address, Invalid> {
    text.parse().map_err(|_| expected())
}

fn expected() -> Invalid {
    Invalid::must_be("HOST:PORT or redis://USER:PASSWORD@HOST:PORT, several parted by commas or spaces")
}

fn percent_decode(text: &str) -> Result<String, Invalid> {
    let broken = || Invalid::must_be("percent-encoded in its credentials (% itself is %25)");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((plain, encoded)) = rest.split_once('%') {
        bytes.extend_from_slice(plain.as_bytes());
        let digits = encoded.get(..2).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        bytes.push(digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()).ok_or_else(broken)?);
        rest = &encoded[2..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8(bytes).map_err(|_| broken())
}
