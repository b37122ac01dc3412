//! One setting: its names, its help, and how its value is read and shown.

use super::secret::HIDDEN;
use super::values::items;
use super::{Config, Invalid};

/// The one definition of a setting, from which the flag, the environment variables, the key in the file, the help
/// and `CONFIG GET portico-*` come.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Its name in flags and in the file; redis.conf's where that has one.
    pub name: &'static str,
    /// Under which heading the help lists it.
    pub heading: &'static str,
    /// What one value is: a unit (`seconds`, `bytes`) or a form (`host:port`, `text|json`).
    pub unit: &'static str,
    /// What it is for.
    pub help: &'static str,
    /// Environment variables that also set it, after `PORTICO_<NAME>`.
    pub aliases: &'static [&'static str],
    /// Takes several values, also by repeating the flag.
    pub list: bool,
    /// Its value is never shown.
    pub secret: bool,
    /// The setting that says the same in another way; both on one level are an error.
    pub instead_of: Option<&'static str>,
    parse: fn(&mut Config, &str) -> Result<(), Invalid>,
    show: fn(&Config) -> String,
}

impl Setting {
    pub(super) const fn new(
        name: &'static str,
        unit: &'static str,
        help: &'static str,
        parse: fn(&mut Config, &str) -> Result<(), Invalid>,
        show: fn(&Config) -> String,
    ) -> Self {
        let (heading, aliases) = ("", &[]);
        Setting {
            name,
            heading,
            unit,
            help,
            aliases,
            list: false,
            secret: false,
            instead_of: None,
            parse,
            show,
        }
    }

    pub(super) const fn under(self, heading: &'static str) -> Self {
        Setting { heading, ..self }
    }

    pub(super) const fn also(self, aliases: &'static [&'static str]) -> Self {
        Setting { aliases, ..self }
    }

    pub(super) const fn list(self) -> Self {
        Setting { list: true, ..self }
    }

    pub(super) const fn secret(self) -> Self {
        Setting { secret: true, ..self }
    }

    pub(super) const fn instead_of(self, other: &'static str) -> Self {
        Setting { instead_of: Some(other), ..self }
    }

    /// Reads a value into the configuration.
    ///
    /// # Errors
    /// The value is not one that this setting takes; the configuration is as it was.
    pub fn set(&self, config: &mut Config, value: &str) -> Result<(), Invalid> {
        (self.parse)(config, if self.secret { value } else { value.trim() })
    }

    /// The value as it would be written in the file; `(secret)` for a secret, empty for nothing.
    #[must_use]
    pub fn show(&self, config: &Config) -> String {
        (self.show)(config)
    }

    /// The environment variables that set it; the first that is not empty counts.
    pub fn environment(&self) -> impl Iterator<Item = String> {
        let own = format!("PORTICO_{}", self.name.to_ascii_uppercase().replace('-', "_"));
        std::iter::once(own).chain(self.aliases.iter().map(|alias| (*alias).to_owned()))
    }

    /// A given value as an error may quote it: a password, also one within a URL, is not shown.
    pub(super) fn quote(&self, value: &str) -> String {
        if self.secret {
            return HIDDEN.to_owned();
        }
        let begin = value.find("://").map_or(0, |at| at + "://".len());
        match value.rfind('@') {
            // All that is before the last of them, in case that a password holds a comma or another.
            Some(at) => format!("{:?}", format!("{}{HIDDEN}{}", &value[..begin.min(at)], &value[at..])),
            // user:password without a host?
            None if begin > 0 && !items(&value[begin..]).all(ends_in_port) => HIDDEN.to_owned(),
            None => format!("{value:?}"),
        }
    }
}

/// Whether a number or nothing, and no word, is behind an address' last colon.
fn ends_in_port(address: &str) -> bool {
    let behind = address.rsplit_once(':').map_or("", |(_, behind)| behind);
    behind.split(['/', '?']).next().is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()))
}
