//! MULTI, EXEC, DISCARD, WATCH and UNWATCH.
//!
//! What MULTI began is queued here and checked as Redis checks it. EXEC sends MULTI, the queue and EXEC back to back
//! as one request, so that nothing comes between and no connection has to be reserved. Keys are watched on
//! connections of the client's own.

use portico_resp::is_error;
use portico_slots::{NodeId, Slot, slot};

use super::Engine;
use super::long_scripts::scripts_in;
use super::send::{Flow, Traits};
use crate::backend::{ClientKey, InFlight, Lane, RequestFlags};
use crate::command::{Args, Command, Flags, Handling, Keys, Transaction};
use crate::config::CrossSlot;
use crate::local;
use crate::plan::{
    Event, Layout, Merge, Outcome, Plan, RequestArgs, count_keyed, nil, plan_transaction, transaction_outcome,
};
use crate::session::{self, Caching, ClientFlags, Stall};
use crate::topology::Cluster;

const MULTI: &[u8] = b"*1\r\n$5\r\nMULTI\r\n";
const EXEC: &[u8] = b"*1\r\n$4\r\nEXEC\r\n";
const UNWATCH: &[u8] = b"*1\r\n$7\r\nUNWATCH\r\n";

impl Engine {
    pub(super) fn transaction(
        &mut self,
        key: ClientKey,
        cluster: &Cluster,
        command: &Command,
        what: Transaction,
        request: &[u8],
        args: &[portico_resp::Arg],
    ) -> Flow {
        let Some(client) = self.clients.get_mut(key) else { return Flow::Close };
        let queues = client.flags.has(ClientFlags::MULTI);
        match what {
            // Newer nodes say that of these, which discards the transaction.
            Transaction::Multi | Transaction::Watch if queues && command.flags.has(Flags::NO_MULTI) => {
                self.not_in_multi(key, cluster, command)
            }
            Transaction::Multi if queues => self.refuse(key, b"ERR MULTI calls can not be nested"),
            Transaction::Multi => {
                client.flags.set(ClientFlags::MULTI.with(ClientFlags::TRANSACTED));
                self.reply_ok(key)
            }
            // The lane is left only when nothing is outstanding on it.
            Transaction::Discard | Transaction::Exec
                if queues && client.gives_up_watch(what == Transaction::Discard) && !client.is_answered() =>
            {
                Flow::Wait(Stall::Order)
            }
            Transaction::Exec if queues => self.exec(key, cluster),
            Transaction::Exec => self.refuse(key, b"ERR EXEC without MULTI"),
            Transaction::Discard if queues => {
                self.discard(key);
                self.reply_ok(key)
            }
            Transaction::Discard => self.refuse(key, b"ERR DISCARD without MULTI"),
            Transaction::Watch if queues => self.refuse(key, b"ERR WATCH inside MULTI is not allowed"),
            Transaction::Watch => {
                client.flags.set(ClientFlags::TRANSACTED);
                self.watch(key, cluster, command, request, args)
            }
            Transaction::Unwatch => self.unwatch(key),
        }
    }

    pub(super) fn reply_ok(&mut self, key: ClientKey) -> Flow {
        self.reply_now(key, b"+OK\r\n");
        Flow::Done
    }

    /// Queues a command.
    pub(super) fn queue(
        &mut self,
        key: ClientKey,
        cluster: &Cluster,
        command: &Command,
        request: &[u8],
        words: &RequestArgs<'_>,
    ) -> Flow {
        if command.flags.has(Flags::NO_MULTI) {
            return self.not_in_multi(key, cluster, command);
        }
        if command.handling == Handling::Tracking {
            return self.turn_away(key, b"ERR CLIENT TRACKING inside MULTI is not available through Portico");
        }
        if let Handling::Refuse(_) | Handling::Unroutable = command.handling {
            let text = format!("ERR {} is not available through Portico", command.name.to_uppercase());
            return self.turn_away(key, text.as_bytes());
        }
        let mut home = None;
        if let Some(refused) = self.object_to_queued(key, cluster, command, words, &mut home) {
            return refused;
        }
        let limit = self.config.client_query_buffer_limit;
        let Some(client) = self.clients.get_mut(key) else { return Flow::Close };
        let transaction = &mut client.standing().transaction;
        transaction.home = transaction.home.or(home);
        let start = transaction.requests.len();
        if !transaction.aborted {
            transaction.requests.extend_from_slice(request);
            transaction.scripts |= command.is_script();
            transaction.ranges.push(start..start + request.len());
        }
        if transaction.requests.len() as u64 > limit {
            self.query_too_long(key);
            return Flow::Close;
        }
        self.reply_now(key, b"+QUEUED\r\n");
        Flow::Done
    }

    /// What no transaction may have discards it.
    fn not_in_multi(&mut self, key: ClientKey, cluster: &Cluster, command: &Command) -> Flow {
        if !cluster.identity.is_valkey((9, 0)) {
            return self.turn_away(key, b"ERR Command not allowed inside a transaction");
        }
        let text = format!("ERR Command '{}' not allowed inside a transaction", command.name);
        self.turn_away(key, text.as_bytes())
    }

    /// What would fail when it runs though others have run by then is refused when it is queued. `home`: where a
    /// script belongs that declares no keys.
    fn object_to_queued(
        &mut self,
        key: ClientKey,
        cluster: &Cluster,
        command: &Command,
        words: &RequestArgs<'_>,
        home: &mut Option<Slot>,
    ) -> Option<Flow> {
        use Handling as H;
        if let Some(objected) = self.object_to_script(key, cluster, command, words) {
            return Some(self.objected(key, objected));
        }
        let mut positions = Vec::new();
        if !matches!(command.handling, H::Key | H::KeyUnlessBlock | H::Block | H::Copy)
            || matches!(command.keys, Keys::One(_))
            || command.key_positions(words, &mut positions).is_err()
        {
            return None;
        }
        let mut slots = positions.iter().map(|&at| slot(words.word(at as usize)));
        let Some(first) = slots.next() else {
            if command.is_script() {
                match self.home_of_script(key, cluster, words) {
                    Ok(slot) => *home = Some(slot),
                    Err(text) => return Some(self.turn_away(key, &text)),
                }
            }
            return None;
        };
        // At the other levels EXEC runs nothing of a transaction with keys in several slots.
        if self.config.cross_slot == CrossSlot::Emulate && slots.any(|other| other != first) {
            let text = self.apart(command);
            return Some(self.turn_away(key, text.as_bytes()));
        }
        None
    }

    /// A command was refused: what is being queued will not run.
    pub(super) fn abort_transaction(&mut self, key: ClientKey) {
        if let Some(client) = self.clients.get_mut(key)
            && client.flags.has(ClientFlags::MULTI)
        {
            let transaction = &mut client.standing().transaction;
            *transaction = session::Transaction { aborted: true, ..session::Transaction::default() };
        }
    }

    /// Forgets what was queued, and the watched keys.
    pub(super) fn discard(&mut self, key: ClientKey) {
        let Some(client) = self.clients.get_mut(key) else { return };
        client.flags.clear(ClientFlags::MULTI);
        if let Some(standing) = client.standing.as_deref_mut() {
            standing.transaction = session::Transaction::default();
        }
        self.forget_watch(key);
    }

    /// EXEC of what was queued.
    fn exec(&mut self, key: ClientKey, cluster: &Cluster) -> Flow {
        let Some(client) = self.clients.get_mut(key) else { return Flow::Close };
        let watching = client.flags.has(ClientFlags::WATCHING);
        let agent = client.flags.has(ClientFlags::AGENT);
        let protocol = client.protocol();
        let standing = client.standing();
        if standing.transaction.aborted {
            self.discard(key);
            return self.refuse(key, b"EXECABORT Transaction discarded because of previous errors.");
        }
        if watching && standing.watch_broken {
            self.discard(key);
            self.reply_now(key, &nil(protocol));
            return Flow::Done;
        }
        let mut transaction = std::mem::take(&mut standing.transaction);
        let watched = standing.watched.clone();
        let home = standing.home.or(watched.first().copied()).or(transaction.home);
        let home = home.unwrap_or_else(|| self.session_slot(key, cluster));
        let emulates = self.config.cross_slot == CrossSlot::Emulate;
        let plan = transaction
            .plan
            .take()
            .unwrap_or_else(|| plan_transaction(&cluster.table, &transaction.requests, &transaction.ranges));
        let flow = match plan {
            Plan::Native { .. } if transaction.ranges.is_empty() && !watching && !agent => {
                self.reply_now(key, b"*0\r\n");
                Flow::Done
            }
            // An agent's is a step, whatever else is watched.
            Plan::Native { slot, signal, keys }
                if agent || watched.iter().all(|&other| other == slot.unwrap_or(home)) =>
            {
                let traits = Traits { flags: RequestFlags::default(), signal, keys };
                let flow =
                    self.exec_native(key, cluster, slot.unwrap_or(home), traits, &transaction, &watched);
                transaction.plan = Some(plan);
                flow
            }
            plan => {
                let mut slots = plan.slots();
                slots.extend_from_slice(&watched);
                slots.sort_unstable();
                slots.dedup();
                if slots.len() > 1 && !emulates {
                    self.discard(key);
                    return self.refuse(
                        key,
                        b"EXECABORT Transaction discarded because its keys are in several slots: Portico runs those \
                          at --cross-slot emulate, one slot after another; or give the keys one {hash tag}",
                    );
                }
                let Some(client) = self.clients.get_mut(key) else { return Flow::Close };
                if !client.is_answered() {
                    transaction.plan = Some(plan);
                    client.standing().transaction = transaction;
                    return Flow::Wait(Stall::Order); // an agent's requests would overtake the client's own
                }
                return self.exec_in_steps(key, cluster, transaction, plan, &watched);
            }
        };
        let Some(client) = self.clients.get_mut(key) else { return flow };
        if matches!(flow, Flow::Wait(_)) {
            client.standing().transaction = transaction;
        } else {
            client.flags.clear(ClientFlags::MULTI);
        }
        flow
    }

    /// Sends a transaction of one slot to its node. A watch ends with it, whatever comes of it.
    fn exec_native(
        &mut self,
        key: ClientKey,
        cluster: &Cluster,
        slot: Slot,
        traits: Traits,
        transaction: &session::Transaction,
        watched: &[Slot],
    ) -> Flow {
        let flow = self.send_transaction(key, cluster, slot, traits, transaction, watched);
        let Some(client) = self.clients.get_mut(key) else { return Flow::Close };
        if flow == Flow::Done
            && client.flags.has(ClientFlags::WATCHING)
            && !client.flags.has(ClientFlags::AGENT)
        {
            if client.is_answered() {
                self.forget_watch(key);
                return Flow::Done; // refused
            }
            client.standing().leaving = true;
            self.mark_behind(key, slot);
            return Flow::Block;
        }
        flow
    }

    /// Sends a transaction as one request.
    fn send_transaction(
        &mut self,
        key: ClientKey,
        cluster: &Cluster,
        slot: Slot,
        traits: Traits,
        transaction: &session::Transaction,
        watched: &[Slot],
    ) -> Flow {
        if !transaction.scripts {
            return self.put_transaction(key, cluster, slot, traits, transaction, watched);
        }
        let short = self.all_end_soon(&transaction.requests);
        let alone = match self.lane_for_scripts(key, cluster, slot, short) {
            Ok(alone) => alone,
            Err(stall) => return Flow::Wait(stall),
        };
        let flow = self.put_transaction(key, cluster, slot, traits, transaction, watched);
        if alone { self.sent_alone(key, flow, || scripts_in(&transaction.requests)) } else { flow }
    }

    fn put_transaction(
        &mut self,
        key: ClientKey,
        cluster: &Cluster,
        slot: Slot,
        traits: Traits,
        transaction: &session::Transaction,
        watched: &[Slot],
    ) -> Flow {
        let owner = |slot| cluster.topology.owner(slot);
        // Before anything is put together: it is looked often whether a node is back.
        let link = match self.ready(key, owner(slot), slot) {
            Ok(link) => link,
            Err(flow) => return flow,
        };
        if let Some(error) = self.links.get(link).and_then(|link| link.identity.refuses_multi.as_deref()) {
            let text = format!("EXECABORT Transaction discarded because the node refuses MULTI: {error}");
            self.discard(key);
            return self.refuse(key, text.as_bytes());
        }
        if transaction.scripts {
            self.before_scripts(key, cluster, slot, &transaction.requests);
        }
        let mut flags = RequestFlags::GROUP.with(RequestFlags::TRANSACTION);
        if watched.iter().any(|&other| owner(other) == owner(slot)) {
            flags = flags.with(RequestFlags::GUARDED);
        }
        let said =
            self.clients.get(key).and_then(|client| client.standing.as_deref()).and_then(|it| it.caching);
        if said.is_some() {
            flags = flags.with(RequestFlags::CACHING);
        }
        let bytes = [MULTI, said.map_or(b"", Caching::request), &transaction.requests, EXEC].concat();
        self.send(key, slot, Traits { flags, ..traits }, &bytes)
    }

    /// A node's answer to a transaction.
    pub(super) fn transaction_reply(
        &mut self,
        node: NodeId,
        entry: InFlight,
        refused: &[(u32, Box<[u8]>)],
        reply: &[u8],
        request: &[u8],
    ) {
        if is_error(reply) {
            self.spoil_trial(entry.client, Event::Error(reply));
        }
        let said = entry.flags.has(RequestFlags::CACHING);
        let keyed = || count_keyed(&self.cluster.table, request);
        match transaction_outcome(refused, reply, keyed) {
            Outcome::Answer(reply) => {
                let reply = self.exec_receivers(node, request, reply);
                let reply = if said { super::caching::without_first(&reply) } else { reply };
                self.answer(&entry, &reply);
            }
            Outcome::Decide(line) => self.decide(entry, Some(node), Event::Error(&line), request),
        }
    }

    /// EXEC's reply when a watched key was touched, or may have been.
    pub(super) fn answer_nil(&mut self, entry: &InFlight) {
        let Some(client) = self.clients.get(entry.client) else { return };
        let nil = nil(client.protocol());
        self.forget_watch(entry.client); // it did not run: what was watched still is
        self.answer(entry, &nil);
    }

    fn watch(
        &mut self,
        key: ClientKey,
        cluster: &Cluster,
        command: &Command,
        request: &[u8],
        args: &[portico_resp::Arg],
    ) -> Flow {
        let words = RequestArgs::new(request, args);
        let Some(client) = self.clients.get_mut(key) else { return Flow::Close };
        if !client.is_answered() {
            return Flow::Wait(Stall::Order); // its next requests take another way
        }
        let mut slots: Vec<Slot> = (1..words.count()).map(|at| slot(words.word(at))).collect();
        slots.extend_from_slice(&client.standing().watched);
        slots.sort_unstable();
        slots.dedup();
        if slots.len() > 1 && self.config.cross_slot != CrossSlot::Emulate {
            let text = format!(
                "{} (Portico watches keys of several slots at --cross-slot emulate; or give the keys one {{hash tag}})",
                local::CROSSSLOT
            );
            return self.refuse(key, text.as_bytes());
        }
        if !self.take_lane(key) {
            return Flow::Wait(Stall::Backpressure);
        }
        let flow = match self.fan_keys(key, cluster, command, request, args, (Layout::step(1), Merge::KeyOk))
        {
            Flow::Block => Flow::Done,
            flow => flow,
        };
        let Some(client) = self.clients.get_mut(key) else { return Flow::Close };
        if flow == Flow::Done && client.is_answered() {
            self.leave_lane(key);
            return Flow::Done; // refused
        }
        if flow == Flow::Done {
            client.flags.set(ClientFlags::WATCHING);
            client.standing().watched = slots;
            return Flow::Block;
        }
        flow
    }

    fn unwatch(&mut self, key: ClientKey) -> Flow {
        let Some(client) = self.clients.get(key) else { return Flow::Close };
        if client.flags.has(ClientFlags::WATCHING) && !client.is_answered() {
            return Flow::Wait(Stall::Order);
        }
        self.forget_watch(key);
        self.reply_ok(key)
    }

    /// The watched keys are of no interest any more, and the connections that they are watched on were not told.
    pub(super) fn forget_watch(&mut self, key: ClientKey) {
        let Some(client) = self.clients.get(key) else { return };
        if !client.flags.has(ClientFlags::WATCHING) {
            return;
        }
        let lane = client.lane;
        self.unwatch_on(lane);
        self.end_watch(key);
    }

    /// Nothing is watched on a leased lane's connections any more.
    pub(super) fn unwatch_on(&mut self, lane: Lane) {
        if !lane.is_leased() {
            return; // its client has left the one that it watched on
        }
        self.tell_lane(lane, UNWATCH);
    }

    /// EXEC has ended the watch where it ran.
    pub(super) fn end_watch(&mut self, key: ClientKey) {
        let Some(client) = self.clients.get_mut(key) else { return };
        client.flags.clear(ClientFlags::WATCHING);
        let standing = client.standing();
        standing.watched.clear();
        standing.watch_broken = false;
        self.leave_lane(key);
    }

    /// Keys that a client watches may have changed without notice: its EXEC will not run.
    pub(super) fn break_watch(&mut self, key: ClientKey) {
        if let Some(client) = self.clients.get_mut(key)
            && client.flags.has(ClientFlags::WATCHING)
        {
            client.standing().watch_broken = true;
        }
    }

    /// A request failed. If it is a WATCH (nothing else is outstanding then), its EXEC must not run.
    pub(super) fn watch_failed(&mut self, key: ClientKey) {
        const WATCHES: ClientFlags = ClientFlags::WATCHING.with(ClientFlags::BLOCKED);
        if self.clients.get(key).is_some_and(|client| client.flags.has(WATCHES)) {
            self.break_watch(key);
        }
    }

    /// A new map is in force: keys whose slot has another master now are not watched any more.
    pub(super) fn break_moved_watches(&mut self, before: &Cluster) {
        let holders: Vec<ClientKey> = self.lanes.iter().filter_map(|lane| lane.holder).collect();
        for key in holders {
            let Some(standing) = self.clients.get(key).and_then(|client| client.standing.as_deref()) else {
                continue;
            };
            let owner = |cluster: &Cluster, slot| {
                cluster.topology.owner(slot).map(|node| cluster.topology.node(node).id)
            };
            if standing.watched.iter().any(|&slot| owner(before, slot) != owner(&self.cluster, slot)) {
                self.break_watch(key);
            }
        }
    }
}
