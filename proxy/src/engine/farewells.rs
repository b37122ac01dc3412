//! Clients that have left channels, and are told so when the nodes know it.

use std::collections::{HashMap, VecDeque};

use super::Engine;
use super::hub::{SLICE, together};
use super::send::{Flow, Traits};
use crate::backend::ClientKey;
use crate::pubsub::{Kind, Name};
use crate::session::ClientFlags;

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

/// Names that somebody who has gone listened to or waited for, one after another.
struct Leaving {
    client: ClientKey,
    listened: Box<dyn Iterator<Item = (Kind, Name)> + Send>,
    waited: Box<dyn Iterator<Item = (Kind, Name)> + Send>,
}

/// What clients that have gone listened to: many names are left little by little, so that others are served meanwhile.
#[derive(Default)]
pub(super) struct Departed(VecDeque<Leaving>);

impl Departed {
    /// Whether nothing is left to be done.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Engine {
    /// A client is gone: it listens to nothing any more.
    pub(super) fn stop_listening(&mut self, key: ClientKey) {
        self.end_monitor(key);
        let Some(client) = self.clients.get_mut(key) else { return };
        let Some(standing) = client.standing.as_deref_mut() else { return };
        let many = standing.subscriptions.is_many() || standing.subscribing.len() > 1;
        if !many {
            self.forget_subscriptions(key);
            return;
        }
        client.flags.clear(ClientFlags::SUBSCRIBED);
        let subscriptions = std::mem::take(&mut standing.subscriptions);
        let subscribing = std::mem::take(&mut standing.subscribing);
        let waited = subscribing.into_iter().flat_map(|asked| {
            let kind = asked.kind;
            asked.names.into_iter().map(move |name| (kind, name))
        });
        let (listened, waited) = (Box::new(subscriptions.into_all()), Box::new(waited));
        self.departed.0.push_back(Leaving { client: key, listened, waited });
    }

    /// Leaves the next names of those who have gone.
    pub(super) fn leave_for_departed(&mut self) {
        let mut orders = Vec::new();
        let mut left = SLICE;
        while let Some(leaving) = self.departed.0.front_mut().filter(|_| left > 0) {
            left -= 1;
            if let Some((kind, name)) = leaving.waited.next() {
                orders.extend(self.hub.leave_waiting(kind, &name, leaving.client));
            } else if let Some((kind, name)) = leaving.listened.next() {
                orders.extend(self.hub.leave(kind, &name, leaving.client));
            } else {
                self.departed.0.pop_front();
            }
        }
        self.carry_out_orders(together(orders));
    }

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
