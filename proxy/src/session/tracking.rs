//! What a client is to be told of the keys that it may have cached: CLIENT TRACKING, as it is in force.

use std::collections::BTreeSet;

use portico_resp::encode;

use super::{Client, ClientFlags};
use crate::backend::ClientKey;

/// The options of CLIENT TRACKING ON.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrackingMode {
    /// Of all keys with one of the prefixes, read or not.
    pub bcast: bool,
    /// Only what is read after CLIENT CACHING YES.
    pub optin: bool,
    /// Not what is read after CLIENT CACHING NO.
    pub optout: bool,
    /// Not of what the client itself writes.
    pub noloop: bool,
    /// Of BCAST; sorted, as Redis lists them.
    pub prefixes: BTreeSet<Vec<u8>>,
    /// The number of the client that is told in its place; 0 for none.
    pub redirect: u64,
}

impl TrackingMode {
    /// Appends the command that has a node track so. `listener`: the number that the connection which is told has there.
    ///
    /// Of all keys without a PREFIX: an empty one is refused beside others, which Redis takes before a BCAST without
    /// any. It tells of keys with those prefixes twice then; here, where a connection begins so, once.
    pub fn command(&self, listener: Option<u64>, out: &mut Vec<u8>) {
        let listener = listener.map(|id| id.to_string());
        let mut words: Vec<&[u8]> = vec![b"CLIENT", b"TRACKING", b"ON"];
        if let Some(id) = &listener {
            words.extend([&b"REDIRECT"[..], id.as_bytes()]);
        }
        let options = [
            (self.bcast, &b"BCAST"[..]),
            (self.optin, b"OPTIN"),
            (self.optout, b"OPTOUT"),
            (self.noloop, b"NOLOOP"),
        ];
        words.extend(options.iter().filter(|(set, _)| *set).map(|(_, word)| *word));
        let all_keys = self.prefixes.contains(&b""[..]);
        for prefix in self.prefixes.iter().filter(|_| !all_keys) {
            words.extend([&b"PREFIX"[..], prefix]);
        }
        encode::command(out, &words);
    }
}

/// A client that is told in the place of one that tracks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hearer {
    /// The worker that it is with; it stays there.
    pub worker: usize,
    /// Its key there.
    pub client: ClientKey,
}

/// What is known of a client that tracks.
#[derive(Debug)]
pub struct Tracking {
    /// Its options.
    pub mode: TrackingMode,
    /// Whom its invalidations go to, if not to itself.
    pub hearer: Option<Hearer>,
    /// That one has gone.
    pub broken: bool,
    /// It is to be told to forget everything, soon.
    pub flush: bool,
    /// And once more behind the replies that are outstanding then.
    pub behind: bool,
}

/// What a client says about the next command's keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caching {
    /// CLIENT CACHING YES.
    Yes,
    /// CLIENT CACHING NO.
    No,
}

impl Caching {
    /// The request that says so.
    #[must_use]
    pub const fn request(self) -> &'static [u8] {
        match self {
            Self::Yes => b"*3\r\n$6\r\nCLIENT\r\n$7\r\nCACHING\r\n$3\r\nYES\r\n",
            Self::No => b"*3\r\n$6\r\nCLIENT\r\n$7\r\nCACHING\r\n$2\r\nNO\r\n",
        }
    }
}

impl Client {
    /// How it tracks, if it does.
    #[must_use]
    pub fn tracking(&self) -> Option<&Tracking> {
        let standing = self.standing.as_deref().filter(|_| self.flags.has(ClientFlags::TRACKING))?;
        standing.tracking.as_deref()
    }

    /// The client that is told in its place: 0 for none, -1 when it does not track.
    #[must_use]
    pub fn redirection(&self) -> i64 {
        self.tracking().map_or(-1, |tracking| tracking.mode.redirect.cast_signed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(prefixes: &[&str]) -> String {
        let prefixes = prefixes.iter().map(|prefix| prefix.as_bytes().to_vec()).collect();
        let mut out = Vec::new();
        TrackingMode { bcast: true, prefixes, ..TrackingMode::default() }.command(None, &mut out);
        let text = String::from_utf8_lossy(&out).into_owned();
        text.split("\r\n").filter(|word| !word.starts_with(['*', '$'])).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn no_prefix_is_named_where_all_keys_are_told_of() {
        assert_eq!(command(&["u:", "x"]), "CLIENT TRACKING ON BCAST PREFIX u: PREFIX x ");
        assert_eq!(command(&["", "u:"]), "CLIENT TRACKING ON BCAST ");
        assert_eq!(command(&[""]), "CLIENT TRACKING ON BCAST ");
    }
}
