//! Clients that have left channels, and are told so when the nodes know it.

use std::collections::HashMap;

use super::Engine;
use super::send::{Flow, Traits};
use crate::backend::ClientKey;
use crate::pubsub::{Kind, Name};

/// A client whose request is answered when the nodes know what it has left.
#[derive(Debug)]
struct Farewell {
    client: ClientKey,
    seq: u32,
    /// How many names the nodes have not left yet.
    left: usize,
    reply: Vec<u8>,
}

/// All of them, by what they wait for: a node's word about one name costs the same whatever else is being left.
#[derive(Debug, Default)]
pub(super) struct Farewells {
    waiting: HashMap<u64, Farewell>,
    by_name: HashMap<(Kind, Name), Vec<u64>>,
    next: u64,
}

impl Farewells {
    fn add(&mut self, client: ClientKey, seq: u32, names: Vec<(Kind, Name)>, reply: &[u8]) {
        let id = self.next;
        self.next += 1;
        self.waiting.insert(id, Farewell { client, seq, left: names.len(), reply: reply.to_vec() });
        for name in names {
            self.by_name.entry(name).or_default().push(id);
        }
    }

    /// A name was left. Returns those who waited for nothing else.
    fn name_left(&mut self, name: &(Kind, Name)) -> Vec<Farewell> {
        let mut done = Vec::new();
        for id in self.by_name.remove(name).unwrap_or_default() {
            let Some(farewell) = self.waiting.get_mut(&id) else { continue };
            farewell.left -= 1;
            if farewell.left == 0 {
                done.extend(self.waiting.remove(&id));
            }
        }
        done
    }
}

impl Engine {
    /// Answers a request of a client once the nodes know that it has left these.
    pub(super) fn answer_when_left(
        &mut self,
        key: ClientKey,
        mut names: Vec<(Kind, Name)>,
        reply: &[u8],
    ) -> Flow {
        names.retain(|(kind, name)| self.hub.is_leaving(*kind, name));
        if names.is_empty() {
            self.confirm_now(key, reply);
            return Flow::Done;
        }
        let Some(seq) = self.begin_wait(key, Traits::question()) else { return Flow::Close };
        self.farewells.add(key, seq, names, reply);
        Flow::Block
    }

    /// Answers those who have left these, if the nodes know it by now.
    pub(super) fn say_farewell(&mut self, names: impl IntoIterator<Item = (Kind, Name)>) {
        for name in names {
            if self.farewells.waiting.is_empty() {
                return;
            }
            if self.hub.is_leaving(name.0, &name.1) {
                continue;
            }
            for farewell in self.farewells.name_left(&name) {
                self.confirm(farewell.client, farewell.seq, &farewell.reply);
            }
        }
    }

    /// The same of all, since a node was lost.
    pub(super) fn say_farewells(&mut self) {
        let names: Vec<_> = self.farewells.by_name.keys().cloned().collect();
        self.say_farewell(names);
    }
}
