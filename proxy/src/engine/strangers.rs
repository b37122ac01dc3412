//! Those who speak something else than RESP at the port for RESP: browsers, TLS, load balancers' PROXY headers. Looked at
//! only where an inline command is, is not complete or is wrong.

use std::time::Duration;

use super::Engine;
use crate::backend::ClientKey;

/// The log is told of each kind no more often; Redis' own time for attacks.
const PAUSE: Duration = Duration::from_secs(60);
/// What begins a PROXY protocol header of version 2, without the two line ends before it, which are empty inline commands.
const PROXY_V2: &[u8] = b"\0\r\nQUIT\n";

impl Engine {
    /// Whether a client does not speak RESP, by what an inline command of its begins with. It is told if it would
    /// understand, and closed.
    #[cold]
    pub(super) fn turn_stranger_away(&mut self, key: ClientKey, begin: &[u8]) -> bool {
        match begin {
            // A record of the handshake, of any version from SSL 3.0 to TLS 1.3 (RFC 8446, 5.1).
            [0x16, 0x03, 0x00..=0x04, ..] => {
                self.count_stranger(
                    key,
                    |shared| &shared.tls_hellos,
                    "a client speaks TLS at the plain port; Portico does not serve TLS yet. It is disconnected",
                );
                self.close_client(key);
            }
            _ if begin.starts_with(PROXY_V2) || is_proxy_v1(begin) => {
                self.count_stranger(
                    key,
                    |shared| &shared.proxy_headers,
                    "a load balancer sends the PROXY protocol, which Portico does not understand yet. It is disconnected",
                );
                self.reply_error(
                    key,
                    "ERR Protocol error: a PROXY protocol header, and Portico has no setting proxy-protocol yet: have the \
                     load balancer send none",
                );
                self.close_when_told(key);
            }
            _ => return false,
        }
        self.counters.protocol_errors += 1;
        true
    }

    /// HTTP sent here through somebody's browser (a cross-protocol attack): closed without a word, as Redis does.
    #[cold]
    pub(super) fn close_attacker(&mut self, key: ClientKey) {
        self.count_stranger(
            key,
            |shared| &shared.attacks,
            "Possible SECURITY ATTACK detected. It looks like somebody is sending POST or Host: commands to Redis. This \
             is likely due to an attacker attempting to use Cross Protocol Scripting to compromise your Redis instance. \
             Connection aborted.",
        );
        self.close_client(key);
    }

    fn count_stranger(
        &self,
        key: ClientKey,
        of: impl Fn(&crate::stats::Shared) -> &crate::stats::Seldom,
        what: &str,
    ) {
        let since_start = self.now.saturating_duration_since(self.shared.started);
        if let Some(times) = of(&self.shared).happened(since_start, PAUSE) {
            let client = self.clients.get(key).and_then(|client| client.about.peer);
            let client = client.map_or_else(|| "a Unix socket".to_owned(), |peer| peer.to_string());
            tracing::warn!(%client, times, "{what}");
        }
    }
}

/// `PROXY TCP4 source destination port port`, or `PROXY UNKNOWN` and anything.
fn is_proxy_v1(line: &[u8]) -> bool {
    [&b"PROXY TCP4 "[..], b"PROXY TCP6 ", b"PROXY UNKNOWN"].iter().any(|begin| line.starts_with(begin))
}
