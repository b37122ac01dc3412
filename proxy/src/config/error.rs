//! What can be wrong with a configuration: one message that says where, what and what is allowed instead.

use std::fmt;
use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// A value that a setting does not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// What would be right: completes "must be ...".
    pub allowed: String,
}

impl Invalid {
    /// `allowed` completes "must be ...".
    pub(super) fn must_be(allowed: impl Into<String>) -> Self {
        Invalid { allowed: allowed.into() }
    }
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The command line.
    Flag(&'static str),
    /// An environment variable.
    Environment(String),
    /// The configuration file.
    File {
        /// As it was given.
        path: PathBuf,
        /// From 1.
        line: usize,
    },
}

impl Origin {
    /// Which wins: flags over environment over file.
    pub(super) fn rank(&self) -> u8 {
        match self {
            Origin::File { .. } => 0,
            Origin::Environment(_) => 1,
            Origin::Flag(_) => 2,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Flag(name) => write!(f, "flag --{name}"),
            Origin::Environment(name) => write!(f, "environment variable {name}"),
            Origin::File { path, line } => write!(f, "{}:{line}", path.display()),
        }
    }
}

/// Why Portico does not start.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the message names every field")]
pub enum ConfigError {
    #[error("{origin}: {name} is {value}, but must be {allowed}")]
    Invalid { origin: Origin, name: &'static str, value: String, allowed: String },

    #[error("{origin}: there is no setting {key:?}{}", nearest.map(|name| format!("; did you mean {name:?}?")).unwrap_or_default())]
    Unknown { origin: Origin, key: String, nearest: Option<&'static str> },

    #[error("{origin}: {name} and {other} (given by {other_origin}) exclude each other: give one of them")]
    Conflict { origin: Origin, name: &'static str, other: &'static str, other_origin: Origin },

    #[error("{origin}: {message}")]
    Syntax { origin: Origin, message: String },

    #[error("cannot read the configuration file {}: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },

    #[error(
        "no cluster to serve: name at least one of its nodes with --nodes HOST:PORT, the environment variable \
         PORTICO_NODES or REDIS_CLUSTER_NODES, or nodes = [\"HOST:PORT\"] in the configuration file"
    )]
    NoNodes,

    #[error("nothing to listen on: port is 0 and there is no unixsocket")]
    NoListener,
}
