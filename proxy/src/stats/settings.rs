//! What CONFIG SET changed: Portico's own settings as they are now, and the nodes', for nodes that come later.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::ArcSwap;

use crate::config::{Config, find};

/// Longest value that is remembered for nodes to come, in bytes.
const LONGEST: usize = 64 << 10;
/// Most settings that are remembered: more than servers have.
const MOST: usize = 1_000;
/// Most processes of nodes that are known to have been told.
const MOST_TOLD: usize = 10_000;

/// Settings that may change while Portico runs. A worker reads them when it is told that they have.
#[derive(Debug)]
pub struct Settings {
    now: ArcSwap<Now>,
    remembered: ArcSwap<Remembered>,
    most_clients: AtomicUsize,
}

#[derive(Clone, Debug)]
struct Now {
    config: Arc<Config>,
    /// Names of what is not any more as Portico was started with.
    changed: Vec<&'static str>,
}

/// What clients have set at the nodes.
#[derive(Clone, Debug, Default)]
struct Remembered {
    values: BTreeMap<String, Vec<u8>>,
    /// Nodes that have all of it, by run id or id.
    told: HashSet<String>,
}

impl Settings {
    pub(super) fn new(config: Arc<Config>) -> Self {
        Self {
            now: ArcSwap::from_pointee(Now { config, changed: Vec::new() }),
            remembered: ArcSwap::default(),
            most_clients: AtomicUsize::new(usize::MAX),
        }
    }

    /// The settings as they are now.
    #[must_use]
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.now.load().config)
    }

    /// Changes Portico's own settings. The values were looked at before.
    pub fn change(&self, own: &[(&'static str, String)]) {
        self.now.rcu(|now| {
            let mut now = Now::clone(now);
            let mut config = Config::clone(&now.config);
            for (name, value) in own {
                if find(name).is_some_and(|setting| setting.set(&mut config, value).is_ok())
                    && !now.changed.contains(name)
                {
                    now.changed.push(name);
                }
            }
            now.config = Arc::new(config);
            now
        });
    }

    /// The names of what [`Settings::change`] has changed.
    #[must_use]
    pub fn changed(&self) -> Vec<&'static str> {
        self.now.load().changed.clone()
    }

    /// How many clients there are descriptors for.
    #[must_use]
    pub fn most_clients(&self) -> usize {
        self.most_clients.load(Ordering::Relaxed)
    }

    /// There are descriptors for so many clients.
    pub fn set_most_clients(&self, most: usize) {
        self.most_clients.store(most, Ordering::Relaxed);
    }

    /// These nodes, each named by its run id or its id, have taken these values. Others will be told.
    pub fn remember(&self, values: &[(String, Vec<u8>)], told: &[String]) {
        for (name, _) in values.iter().filter(|(_, value)| value.len() > LONGEST) {
            tracing::warn!(name, "a value is too long to be told to nodes that come later");
        }
        self.remembered.rcu(|remembered| {
            let mut remembered = Remembered::clone(remembered);
            let first = remembered.values.is_empty();
            for (name, value) in values.iter().filter(|(_, value)| value.len() <= LONGEST) {
                if remembered.values.len() < MOST || remembered.values.contains_key(name) {
                    remembered.values.insert(name.clone(), value.clone());
                }
            }
            let told: HashSet<String> = told.iter().cloned().collect();
            remembered.told =
                if first { told } else { remembered.told.intersection(&told).cloned().collect() };
            remembered
        });
    }

    /// What a node has still to be told, of all that was set. Empty: nothing.
    #[must_use]
    pub fn missing_at(&self, node: &str) -> Vec<(String, Vec<u8>)> {
        let remembered = self.remembered.load();
        if remembered.told.contains(node) {
            return Vec::new();
        }
        remembered.values.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    /// A node has all that was set, or, if not `done`, was not reached.
    pub fn told(&self, node: &str, done: bool) {
        self.remembered.rcu(|remembered| {
            let mut remembered = Remembered::clone(remembered);
            if !done {
                remembered.told.remove(node);
                return remembered;
            }
            if remembered.told.len() >= MOST_TOLD {
                remembered.told.clear(); // to be told once more does no harm
            }
            remembered.told.insert(node.to_owned());
            remembered
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_told_what_it_has_not_been_told() {
        let settings = Settings::new(Arc::new(Config::default()));
        let set = |name: &str, value: &str, told: &[&str]| {
            let told: Vec<String> = told.iter().map(|&node| node.to_owned()).collect();
            settings.remember(&[(name.to_owned(), value.as_bytes().to_vec())], &told);
        };
        assert!(settings.missing_at("a").is_empty());
        set("hz", "20", &["a", "b"]);
        assert!(settings.missing_at("a").is_empty());
        assert_eq!(settings.missing_at("c"), [("hz".to_owned(), b"20".to_vec())]);
        settings.told("c", true);
        set("hz", "30", &["a", "c"]);
        assert_eq!(settings.missing_at("b"), [("hz".to_owned(), b"30".to_vec())], "it was not there");
        assert!(settings.missing_at("c").is_empty());
        settings.told("c", false);
        assert_eq!(settings.missing_at("c").len(), 1);
    }

    #[test]
    fn what_was_changed_is_named() {
        let settings = Settings::new(Arc::new(Config::default()));
        settings.change(&[("timeout", "5".into()), ("maxclients", "7".into())]);
        settings.change(&[("timeout", "6".into())]);
        assert_eq!(settings.config().timeout.as_secs(), 6);
        assert_eq!(settings.changed(), ["timeout", "maxclients"]);
    }
}
