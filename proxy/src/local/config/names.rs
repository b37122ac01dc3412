//! The table of all names that CONFIG knows: whose each is, and why it is not set through Portico.

use std::sync::LazyLock;

use crate::pubsub::matches;
use crate::topology::Identity;

/// `names.tsv`: its head says what the columns are.
const TEXT: &str = include_str!("names.tsv");

/// Whose a name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Portico's setting of that name.
    Own,
    /// Portico's, and the nodes' as well: GET tells of Portico's, SET sets both.
    Both,
    /// GET asks a master, SET sets all nodes, those that come later too.
    Nodes,
    /// Likewise, but the masters' are added up, and what is set is divided among them.
    Whole,
    /// This value, whatever the nodes have; not to be set.
    Is(&'static str),
    /// Empty, never asked of a node and not to be set. It is told where a node has the name given here; always if that
    /// is empty.
    Secret(&'static str),
}

/// A server whose names are in the table.
struct Server {
    name: &'static str,
    valkey: bool,
    since: (u32, u32),
}

const fn server(name: &'static str, valkey: bool, since: (u32, u32)) -> Server {
    Server { name, valkey, since }
}

/// Each family's from the oldest on.
const SERVERS: [Server; 6] = [
    server("6.2", false, (6, 2)),
    server("7.0", false, (7, 0)),
    server("7.4", false, (7, 4)),
    server("8.2", false, (8, 2)),
    server("valkey8.1", true, (8, 1)),
    server("valkey9.1", true, (9, 1)),
];

/// One name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name {
    /// The name, in lower case; a pattern in a module's row.
    pub name: &'static str,
    /// The servers that list it, with commas between; or `all`, `hidden`, `module`.
    pub servers: &'static str,
    /// Whose it is.
    pub decision: Decision,
    /// Why CONFIG SET is refused, if it is.
    pub refused: Option<&'static str>,
}

impl Name {
    fn parse(line: &'static str) -> Option<Self> {
        let columns: Vec<&'static str> = line.split('\t').collect();
        let &[name, servers, decision, refused] = columns.as_slice() else { return None };
        let (what, of) = decision.split_once(':').unwrap_or((decision, ""));
        let decision = match what {
            "own" => Decision::Own,
            "both" => Decision::Both,
            "nodes" => Decision::Nodes,
            "whole" => Decision::Whole,
            "is" => Decision::Is(of),
            "secret" => Decision::Secret(of),
            _ => return None,
        };
        Some(Self { name, servers, decision, refused: (refused != "-").then_some(refused) })
    }

    /// Whether every server has it, so that no node has to be asked for that.
    #[must_use]
    pub fn is_everywhere(&self) -> bool {
        self.servers == "all"
    }

    /// Whether `CONFIG GET *` tells of it at a server that the table calls so.
    #[must_use]
    pub fn is_listed_by(&self, server: &str) -> bool {
        self.is_everywhere() || self.servers.split(',').any(|other| other == server)
    }

    /// Whether `CONFIG GET *` of such nodes tells of it: as the servers of the table do that are nearest to them. Of
    /// names that only one of two has, a node leaves out itself what it has not.
    #[must_use]
    pub fn is_listed(&self, nodes: &Identity) -> bool {
        let family = SERVERS.iter().filter(|server| server.valkey == nodes.is_valkey((0, 0)));
        let reached = |server: &&Server| nodes.has(server.since, server.since);
        if let Some(same) = family.clone().find(|server| nodes.is_of(server.since)) {
            return self.is_listed_by(same.name);
        }
        let (older, newer) = (family.clone().rfind(reached), family.clone().find(|server| !reached(server)));
        older.into_iter().chain(newer).any(|server| self.is_listed_by(server.name))
    }
}

static NAMES: LazyLock<Vec<Name>> = LazyLock::new(|| {
    let lines = TEXT.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| Name::parse(line).expect("the table is right: a test reads it")).collect()
});

/// All names, modules' patterns last.
#[must_use]
pub fn names() -> &'static [Name] {
    &NAMES
}

/// The row of a name, whatever its case; for a module's name the row of its pattern. None: no server that is known
/// here has it.
#[must_use]
pub(super) fn named(name: &[u8]) -> Option<&'static Name> {
    let name = name.to_ascii_lowercase();
    let exact = NAMES.iter().find(|row| row.name.as_bytes() == name);
    let is_pattern = name.iter().any(|byte| b"[*?".contains(byte));
    let module = |row: &&Name| row.servers == "module" && matches(row.name.as_bytes(), &name);
    exact.or_else(|| NAMES.iter().filter(|_| !is_pattern).find(module))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_has_one_decision() {
        let rows: Vec<&str> = TEXT.lines().filter(|line| !line.starts_with('#')).collect();
        assert!(rows.iter().all(|row| Name::parse(row).is_some()), "{rows:?}");
        let mut sorted: Vec<&str> = names().iter().map(|row| row.name).collect();
        let count = sorted.len();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), count, "a name is there twice");
    }

    #[test]
    fn what_is_a_setting_of_portico_is_its_own_and_what_is_refused_says_why() {
        for row in names() {
            let setting = crate::config::find(row.name);
            let own = matches!(row.decision, Decision::Own | Decision::Both);
            assert!(setting.is_none() || own || row.name == "log-format", "{} is a setting", row.name);
            assert!(setting.is_some() || !own || row.name == "dir", "{} is no setting", row.name);
            let fixed = matches!(row.decision, Decision::Is(_) | Decision::Secret(_));
            assert!(!fixed || row.refused.is_some(), "{}", row.name);
        }
    }

    #[test]
    fn names_are_listed_as_by_the_servers_nearest_to_the_nodes() {
        let listed =
            |name: &str, nodes: &Identity| named(name.as_bytes()).is_some_and(|row| row.is_listed(nodes));
        let redis = |version| Identity::redis(version);
        let valkey = |version: &str| Identity { name: "valkey".into(), ..Identity::redis(version) };
        for (version, old, new) in [("7.0.15", true, false), ("7.2.4", true, false), ("7.4.1", false, false)]
        {
            assert_eq!(listed("aof-disable-auto-gc", &redis(version)), old, "{version}");
            assert_eq!(listed("replica-full-sync-buffer-limit", &redis(version)), new, "{version}");
        }
        assert!(
            ["8.0.1", "8.2.3", "9.0.0"].iter().all(|v| listed("replica-full-sync-buffer-limit", &redis(v)))
        );
        assert!(
            ["8.0.2", "8.1.8", "10.0.0"].iter().all(|v| listed("commandlog-request-larger-than", &valkey(v)))
        );
        assert!(!listed("commandlog-request-larger-than", &redis("8.2.3")));
        assert!(listed("maxmemory", &redis("8.2.3")) && !listed("none", &redis("8.2.3")));
    }

    #[test]
    fn names_are_found_in_any_case_and_modules_by_pattern() {
        assert_eq!(named(b"MaxMemory").map(|row| row.decision), Some(Decision::Whole));
        assert_eq!(named(b"my.setting").map(|row| row.decision), Some(Decision::Nodes));
        assert_eq!(named(b"none"), None);
        assert_eq!(named(b"search-*"), Some(named(b"search-*").expect("the row")));
        assert_eq!(named(b"a.*b"), None);
    }
}
