//! A password, which no log, error or debug output can show.

use std::fmt;

/// Holds a password; `Debug` and `Display` print `(secret)`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// What stands for a secret wherever one would be shown.
pub(super) const HIDDEN: &str = "(secret)";

impl Secret {
    /// Takes the password in clear.
    pub fn new(password: impl Into<String>) -> Self {
        Secret(password.into())
    }

    /// The password in clear: only for sending AUTH and for comparing with what a client sent.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}
