//! Which server the tests run with, and which lines of lists and dialogues are for it.

use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};
use portico::sandbox::ServerOptions;

/// What a server calls itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnderTest {
    /// `redis` or `valkey`.
    pub name: String,
    /// `7.0.15`.
    pub version: String,
}

impl UnderTest {
    /// The server that the sandbox starts.
    ///
    /// # Panics
    /// It cannot be run, or does not say what it is.
    #[must_use]
    pub fn get() -> &'static Self {
        static SERVER: OnceLock<UnderTest> = OnceLock::new();
        SERVER.get_or_init(|| Self::ask().expect("the server says what it is"))
    }

    fn ask() -> Result<Self> {
        let output = Command::new(ServerOptions::default().redis_server).arg("--version").output()?;
        let told = String::from_utf8(output.stdout)?;
        // Redis server v=7.0.15 sha=...
        let (name, rest) = told.split_once(" server v=").with_context(|| told.clone())?;
        let version = rest.split(' ').next().unwrap_or_default();
        Ok(Self { name: name.to_ascii_lowercase(), version: version.to_owned() })
    }

    /// Major and minor.
    #[must_use]
    pub fn series(&self) -> (u32, u32) {
        numbers(&self.version).unwrap_or((u32::MAX, 0))
    }

    /// Whether it is one of these, with spaces between: `redis`, `redis<7.2`, `valkey>=9.0`.
    ///
    /// # Errors
    /// A word means nothing.
    pub fn is_any_of(&self, servers: &str) -> Result<bool> {
        let each: Vec<bool> = servers.split(' ').map(|server| self.is(server)).collect::<Result<_>>()?;
        Ok(each.contains(&true))
    }

    fn is(&self, server: &str) -> Result<bool> {
        let end = server.find(['<', '>', '=']).unwrap_or(server.len());
        let (name, bound) = server.split_at(end);
        ensure!(["redis", "valkey"].contains(&name), "{server} is no server");
        let version = |bound: &str| numbers(bound).with_context(|| format!("{server} names no version"));
        let holds = match bound {
            "" => true,
            bound if bound.starts_with(">=") => self.series() >= version(&bound[2..])?,
            bound if bound.starts_with('<') => self.series() < version(&bound[1..])?,
            bound if bound.starts_with('=') => self.series() == version(&bound[1..])?,
            _ => anyhow::bail!("{server}: only <, = and >= are known"),
        };
        Ok(name == self.name && holds)
    }
}

fn numbers(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.').map(|part| part.parse().ok());
    Some((parts.next()??, parts.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_told_apart_by_name_and_version() -> Result<()> {
        let server = |name: &str, version: &str| UnderTest { name: name.into(), version: version.into() };
        let (redis, valkey) = (server("redis", "7.0.15"), server("valkey", "9.1.2"));
        for (servers, is_redis, is_valkey) in [
            ("redis", true, false),
            ("redis<7.2 valkey", true, true),
            ("redis>=7.0", true, false),
            ("redis<7.0 valkey<9.1", false, false),
            ("redis=7.0 valkey>=9.1", true, true),
            ("valkey>=10.0", false, false),
        ] {
            assert_eq!(redis.is_any_of(servers)?, is_redis, "{servers}");
            assert_eq!(valkey.is_any_of(servers)?, is_valkey, "{servers}");
        }
        for wrong in ["", "keydb", "redis<7", "redis>7.0", "redis<x.y"] {
            assert!(redis.is_any_of(wrong).is_err(), "{wrong}");
        }
        Ok(())
    }
}
