//! What a server's error reply means to a cluster client.

/// Slots of a cluster; a redirect to one beyond is none.
const SLOTS: u16 = 16_384;

/// Refusals in the words of Redis 7.0 (`server.c`, `cluster.c`) and, where it names itself, of Valkey.
const REFUSALS: [&str; 9] = [
    "TRYAGAIN Multiple keys request during rehashing of slot",
    "CLUSTERDOWN The cluster is down",
    "CLUSTERDOWN The cluster is down and only accepts read commands",
    "CLUSTERDOWN Hash slot not served",
    "LOADING Redis is loading the dataset in memory",
    "LOADING Valkey is loading the dataset in memory",
    "READONLY You can't write against a read only replica.",
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    "NOSCRIPT No matching script. Please use EVAL.",
];

/// An error reply by its first word, as far as a proxy treats it differently from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCode<'a> {
    /// The slot is served elsewhere from now on.
    Moved {
        /// The slot, below 16 384.
        slot: u16,
        /// `host:port` as sent. The host may be empty (the one that was asked), `?` or a bare IPv6 address.
        address: &'a str,
    },
    /// The key is elsewhere already, this once.
    Ask {
        /// The slot, below 16 384.
        slot: u16,
        /// `host:port`, as in `Moved`.
        address: &'a str,
    },
    /// Some keys of the request have moved and some have not.
    TryAgain,
    /// The cluster, or the slot, is not served.
    ClusterDown,
    /// The keys are of different slots.
    CrossSlot,
    /// The server is reading its data.
    Loading,
    /// A write was sent to a replica.
    ReadOnly,
    /// A replica lost its primary and serves no stale data.
    MasterDown,
    /// Authentication is required.
    NoAuth,
    /// Authentication failed.
    WrongPass,
    /// The user may not do this.
    NoPerm,
    /// `EVALSHA` of an unknown script.
    NoScript,
    /// A script or module command is running.
    Busy,
    /// Too few replicas for a write.
    NoReplicas,
    /// The transaction was discarded.
    ExecAbort,
    /// Anything else, a malformed redirect included.
    Other,
}

impl<'a> ErrorCode<'a> {
    /// Classifies a complete reply; `None` if it is no error (`-`, or `!` in RESP3).
    pub fn parse(reply: &'a [u8]) -> Option<Self> {
        let text = error_text(reply)?;
        let (word, rest) = match memchr::memchr(b' ', text) {
            Some(space) => (&text[..space], &text[space + 1..]),
            None => (text, &[][..]),
        };
        Some(match word {
            b"MOVED" => redirect(rest).map_or(Self::Other, |(slot, address)| Self::Moved { slot, address }),
            b"ASK" => redirect(rest).map_or(Self::Other, |(slot, address)| Self::Ask { slot, address }),
            b"TRYAGAIN" => Self::TryAgain,
            b"CLUSTERDOWN" => Self::ClusterDown,
            b"CROSSSLOT" => Self::CrossSlot,
            b"LOADING" => Self::Loading,
            b"READONLY" => Self::ReadOnly,
            b"MASTERDOWN" => Self::MasterDown,
            b"NOAUTH" => Self::NoAuth,
            b"WRONGPASS" => Self::WrongPass,
            b"NOPERM" => Self::NoPerm,
            b"NOSCRIPT" => Self::NoScript,
            b"BUSY" => Self::Busy,
            b"NOREPLICAS" => Self::NoReplicas,
            b"EXECABORT" => Self::ExecAbort,
            _ => Self::Other,
        })
    }

    /// Whether the reply is a redirect or refusal (`MOVED`, `ASK`, `TRYAGAIN`, `CLUSTERDOWN`, `LOADING`,
    /// `READONLY`, `MASTERDOWN`, `NOSCRIPT`) letter by letter as the server itself makes it, so that nothing was executed.
    ///
    /// A script can make an error with the same first word after it has written something, and Redis tells
    /// the two apart no better; but the script would have to forge the whole text.
    pub fn is_server_form(reply: &'a [u8]) -> bool {
        let Some(text) = reply.strip_prefix(b"-").and_then(|line| line.strip_suffix(b"\r\n")) else {
            return false;
        };
        match Self::parse(reply) {
            Some(Self::Moved { address, .. } | Self::Ask { address, .. }) => has_port(address),
            Some(_) => REFUSALS.iter().any(|refusal| refusal.as_bytes() == text),
            None => false,
        }
    }
}

/// What an error says, its code included.
fn error_text(reply: &[u8]) -> Option<&[u8]> {
    let text = match reply.first()? {
        b'-' => &reply[1..],
        b'!' => &reply[memchr::memchr(b'\n', reply)? + 1..],
        _ => return None,
    };
    text.strip_suffix(b"\r\n")
}

/// The slot and address of a redirect, `3999 127.0.0.1:6381`, without a byte more or less.
fn redirect(text: &[u8]) -> Option<(u16, &str)> {
    let (slot, address) = std::str::from_utf8(text).ok()?.split_once(' ')?;
    let plain = slot.bytes().all(|byte| byte.is_ascii_digit()) && (slot == "0" || !slot.starts_with('0'));
    let slot = slot.parse().ok().filter(|&slot| plain && slot < SLOTS)?;
    let whole = address.contains(':') && !address.contains(|c: char| c.is_whitespace() || c.is_control());
    whole.then_some((slot, address))
}

/// Whether a port ends the address, as `%d` prints one.
fn has_port(address: &str) -> bool {
    address
        .rsplit_once(':')
        .is_some_and(|(_, port)| !port.starts_with(['0', '+']) && port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_by_their_first_word() {
        let parse = |reply: &'static str| ErrorCode::parse(reply.as_bytes());
        let moved = Some(ErrorCode::Moved { slot: 3999, address: "127.0.0.1:6381" });
        assert_eq!(parse("-MOVED 3999 127.0.0.1:6381\r\n"), moved);
        assert_eq!(parse("!26\r\nMOVED 3999 127.0.0.1:6381\r\n"), moved);
        assert_eq!(parse("-ASK 0 :6381\r\n"), Some(ErrorCode::Ask { slot: 0, address: ":6381" }));
        assert_eq!(parse("-ASK 16383 ::1:1\r\n"), Some(ErrorCode::Ask { slot: 16383, address: "::1:1" }));
        for (text, code) in [
            ("TRYAGAIN x", ErrorCode::TryAgain),
            ("CLUSTERDOWN x", ErrorCode::ClusterDown),
            ("CROSSSLOT x", ErrorCode::CrossSlot),
            ("LOADING x", ErrorCode::Loading),
            ("READONLY x", ErrorCode::ReadOnly),
            ("MASTERDOWN x", ErrorCode::MasterDown),
            ("NOAUTH x", ErrorCode::NoAuth),
            ("WRONGPASS x", ErrorCode::WrongPass),
            ("NOPERM x", ErrorCode::NoPerm),
            ("NOSCRIPT x", ErrorCode::NoScript),
            ("BUSY x", ErrorCode::Busy),
            ("NOREPLICAS", ErrorCode::NoReplicas),
            ("EXECABORT x", ErrorCode::ExecAbort),
            ("ERR MOVED 1 a:1", ErrorCode::Other),
            ("BUSYKEY x", ErrorCode::Other),
            ("", ErrorCode::Other),
        ] {
            assert_eq!(ErrorCode::parse(format!("-{text}\r\n").as_bytes()), Some(code), "{text}");
        }
        for reply in ["+MOVED 1 a:1\r\n", "$-1\r\n", "", "-MOVED 1 a:1"] {
            assert_eq!(parse(reply), None, "{reply:?}");
        }
    }

    #[test]
    fn malformed_redirects_are_other_errors() {
        for text in [
            "MOVED",
            "MOVED 1",
            "MOVED x a:1",
            "MOVED 16384 a:1",
            "MOVED 01 a:1",
            "MOVED +1 a:1",
            "MOVED -1 a:1",
            "MOVED 1  a:1",
            "MOVED 1 a:1 b",
            "MOVED 1 a",
            "ASK 99999 a:1",
            "ASK  a:1",
        ] {
            assert_eq!(ErrorCode::parse(format!("-{text}\r\n").as_bytes()), Some(ErrorCode::Other), "{text}");
        }
    }

    #[test]
    fn server_form_is_letter_by_letter() {
        let form = |text: &str| ErrorCode::is_server_form(format!("-{text}\r\n").as_bytes());
        for text in REFUSALS.into_iter().chain(["MOVED 1 a:1", "ASK 16383 :6381", "MOVED 5 ::1:65535"]) {
            assert!(form(text), "{text}");
            assert!(!form(&format!("{text} script: f, on @user_script:1.")), "{text}");
        }
        for text in ["TRYAGAIN", "LOADING soon", "MOVED 1 a:", "MOVED 1 a:01", "MOVED 1 a:65536", "ERR x"] {
            assert!(!form(text), "{text}");
        }
        assert!(!ErrorCode::is_server_form(b"!11\r\nMOVED 1 a:1\r\n"), "Redis sends no blob errors");
        assert!(!ErrorCode::is_server_form(b"+OK\r\n"));
    }
}
