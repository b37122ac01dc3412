//! Which servers are served, by their version.

use redis_protocol::resp2::types::{BytesFrame, Resp2Frame};

/// The oldest, major and minor: earlier ones have neither the RESP3 nor the key positions that are relied on.
const OLDEST: (u32, u32) = (6, 2);

/// What the nodes are, as HELLO tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// `redis` or `valkey`.
    pub name: Box<str>,
    /// Of its own counting: Valkey 8.1 says that it is like Redis 7.2.4.
    pub version: Box<str>,
    /// What it has loaded, in its own order.
    pub modules: Box<[Module]>,
}

/// A module as HELLO describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// Its name.
    pub name: Box<str>,
    /// Its version.
    pub version: i64,
    /// From Redis 7.0 on.
    pub origin: Option<Origin>,
}

/// Where a module comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The file.
    pub path: Box<str>,
    /// What it was given when it was loaded.
    pub args: Box<[Box<str>]>,
}

impl Module {
    /// Reads an entry of MODULE LIST.
    pub(super) fn read(entry: &BytesFrame) -> Option<Self> {
        let BytesFrame::Array(fields) = entry else { return None };
        let field = |name: &str| {
            let mut pairs = fields.chunks_exact(2);
            pairs.find(|pair| pair[0].as_str() == Some(name)).map(|pair| &pair[1])
        };
        let text = |frame: &BytesFrame| frame.as_str().map(Box::from);
        let BytesFrame::Integer(version) = field("ver")? else { return None };
        let args = match field("args") {
            Some(BytesFrame::Array(args)) => args.iter().filter_map(text).collect(),
            _ => Box::default(),
        };
        let origin = field("path").and_then(text).map(|path| Origin { path, args });
        Some(Self { name: text(field("name")?)?, version: *version, origin })
    }
}

impl Identity {
    /// Redis of this version.
    #[must_use]
    pub fn redis(version: &str) -> Self {
        Self { name: "redis".into(), version: version.into(), modules: Box::default() }
    }

    /// Whether it is Redis of the first version, major and minor, or later, or Valkey of the second.
    #[must_use]
    pub fn has(&self, redis: (u32, u32), valkey: (u32, u32)) -> bool {
        let since = if &*self.name == "valkey" { valkey } else { redis };
        numbers(&self.version).is_none_or(|version| version >= since)
    }

    /// Whether its version, major and minor, is this.
    #[must_use]
    pub fn is_of(&self, version: (u32, u32)) -> bool {
        numbers(&self.version) == Some(version)
    }

    /// Whether it is Valkey of this version, major and minor, or later.
    #[must_use]
    pub fn is_valkey(&self, since: (u32, u32)) -> bool {
        &*self.name == "valkey" && numbers(&self.version).is_some_and(|version| version >= since)
    }
}

/// Major and minor of `7.2.4`.
fn numbers(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.').map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?))
}

/// Whether nodes of this `redis_version` are served; one that cannot be read is taken for a new one.
#[must_use]
pub fn is_served(version: &str) -> bool {
    numbers(version).is_none_or(|version| version >= OLDEST)
}

/// What is said of a node that is not.
#[must_use]
pub fn not_served(version: &str) -> String {
    format!("Redis {version} is not served: 6.2 and later, and Valkey, are")
}

#[cfg(test)]
mod tests {
    use super::is_served;

    #[test]
    fn from_6_2_on() {
        assert!(
            ["6.2.0", "6.2.14", "7.0.15", "10.0.0", "255.255.255", "unstable", ""].into_iter().all(is_served)
        );
        assert!(!["6.0.20", "5.0.14", "2.8.7"].into_iter().any(is_served));
    }
}
