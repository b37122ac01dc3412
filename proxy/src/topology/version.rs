//! Which servers are served, by their version.

/// The oldest, major and minor: earlier ones have neither the RESP3 nor the key positions that are relied on.
const OLDEST: (u32, u32) = (6, 2);

/// What the nodes are, as HELLO tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// `redis` or `valkey`.
    pub name: Box<str>,
    /// Of its own counting: Valkey 8.1 says that it is like Redis 7.2.4.
    pub version: Box<str>,
}

impl Identity {
    /// Redis of this version.
    #[must_use]
    pub fn redis(version: &str) -> Self {
        Self { name: "redis".into(), version: version.into() }
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
