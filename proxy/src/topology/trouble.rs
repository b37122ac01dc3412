//! Why a node does not tell its map, so that each reason has words of its own.

use std::io::{self, ErrorKind};

/// Why a node could not be asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// It refuses the user or the password.
    #[error("it refuses Portico's user or password (node-username, node-password): {0}")]
    LogIn(String),
    /// The user may not ask.
    #[error("its user for Portico lacks a permission: {0}")]
    NotPermitted(String),
    /// It runs without cluster mode.
    #[error("it is no node of a cluster (cluster-enabled no): {0}")]
    NotACluster(String),
    /// It runs a script or reads its data.
    #[error("it is busy: {0}")]
    Busy(String),
    /// It answers with another error.
    #[error("it answers: {0}")]
    Refused(String),
    /// It closes the connection instead of answering, as a port for TLS does.
    #[error(
        "it closes the connection without an answer ({0}); if the port is one for TLS (tls-port), name a plain one: Portico does not speak TLS yet"
    )]
    Closed(String),
    /// What it says is not RESP, or no map.
    #[error("its answer cannot be read: {0}")]
    Unreadable(String),
    /// It is not there.
    #[error("cannot connect: {0}")]
    Unreachable(String),
    /// Others have answered long ago.
    #[error("no answer")]
    Late,
}

impl Trouble {
    /// What an error means that came while a node was connected to and asked. An error that the node answered is one
    /// of the kind `Other` with its words.
    #[must_use]
    pub fn of(error: &io::Error) -> Self {
        let text = error.to_string();
        match error.kind() {
            ErrorKind::Other => Self::of_reply(text),
            ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
                Self::Closed(text)
            }
            ErrorKind::InvalidData => Self::Unreadable(text),
            _ => Self::Unreachable(text),
        }
    }

    fn of_reply(text: String) -> Self {
        match text.split(' ').next().unwrap_or_default() {
            "WRONGPASS" | "NOAUTH" => Self::LogIn(text),
            "NOPERM" => Self::NotPermitted(text),
            "BUSY" | "LOADING" => Self::Busy(text),
            _ if text.contains("AUTH <password> called without any password") => Self::LogIn(text),
            _ if text.contains("cluster support disabled") => Self::NotACluster(text),
            _ => Self::Refused(text),
        }
    }

    /// Whether it is not about the node's health but about what somebody has to set right.
    #[must_use]
    pub fn needs_somebody(&self) -> bool {
        !matches!(self, Self::Unreachable(_) | Self::Late | Self::Busy(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_words_of_its_own() {
        let said = |text: &str| Trouble::of(&io::Error::other(text));
        for (text, word) in [
            ("WRONGPASS invalid username-password pair or user is disabled.", "password"),
            ("NOAUTH Authentication required.", "password"),
            ("ERR AUTH <password> called without any password configured for the default user.", "password"),
            ("NOPERM this user has no permissions to run the 'cluster|nodes' command", "permission"),
            ("ERR This instance has cluster support disabled", "no node of a cluster"),
            ("BUSY Redis is busy running a script.", "busy"),
            ("ERR max number of clients reached", "it answers: ERR max"),
        ] {
            let told = said(text).to_string();
            assert!(told.contains(word) && told.contains(text), "{told}");
        }
        let kind = |kind: ErrorKind| Trouble::of(&io::Error::from(kind)).to_string();
        assert!(kind(ErrorKind::ConnectionReset).contains("TLS"));
        assert!(kind(ErrorKind::UnexpectedEof).contains("TLS"));
        assert!(kind(ErrorKind::ConnectionRefused).contains("cannot connect"));
    }
}
