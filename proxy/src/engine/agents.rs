//! Agents: clients of Portico's own, without a connection, that run requests for a client that waits for them.
//!
//! Whatever takes several steps (a transaction over several slots) is a [`Task`]: its agent sends the requests of a
//! step as any client would, with everything that routing, redirects and failover need, and the replies of all of
//! them are the reason for the next step. The client that waits has one request outstanding, which the task answers
//! at its end. A client that goes away does not stop its agent.

use portico_resp::Protocol;

use super::Engine;
use super::guard::defect;
use crate::backend::{ClientKey, Lane};
use crate::session::{About, Client, ClientFlags, Task};

impl Engine {
    /// Hires an agent for `owner`. It takes over the owner's lane, if that has one of its own.
    pub(super) fn hire(&mut self, owner: ClientKey) -> Option<ClientKey> {
        let client = self.clients.get_mut(owner)?;
        let shared = Lane::shared(client.protocol());
        let lane = std::mem::replace(&mut client.lane, shared);
        let key = self.hire_on(lane, owner)?;
        let client = self.clients.get_mut(owner)?;
        let tracks = client.flags.has(ClientFlags::TRACKING);
        let said = client.standing.as_deref().and_then(|standing| standing.caching);
        if let Some(agent) = self.clients.get_mut(key) {
            agent.standing().owner = Some(owner);
            if tracks {
                agent.flags.set(ClientFlags::TRACKING);
                agent.standing().caching = said;
            }
        }
        if lane.is_leased() {
            self.lanes[lane.index()].holder = Some(key);
        }
        Some(key)
    }

    /// An agent's lane is its owner's again, if that tracks keys on it.
    pub(super) fn return_lane(&mut self, agent: ClientKey, owner: ClientKey) {
        let tracks = |client: &Client| client.flags.has(ClientFlags::TRACKING);
        let Some(client) = self.clients.get_mut(agent).filter(|client| tracks(client)) else { return };
        client.flags.clear(ClientFlags::TRACKING);
        let lane = client.lane;
        if lane.is_leased() && self.clients.get(owner).is_some_and(tracks) {
            if let Some(client) = self.clients.get_mut(agent) {
                client.lane = Lane::shared(client.protocol());
            }
            if let Some(client) = self.clients.get_mut(owner) {
                client.lane = lane;
            }
            self.lanes[lane.index()].holder = Some(owner);
            self.change_lane(owner); // it may speak another protocol since
        }
    }

    /// The owner speaks another protocol since the last step, and so do the replies of the next; but where keys are
    /// watched the agent stays, to be told if one was touched.
    pub(super) fn speak_as(&mut self, agent: ClientKey, owner: ClientKey) {
        let resp3 = self.clients.get(owner).is_some_and(|client| client.flags.has(ClientFlags::RESP3));
        let Some(client) = self.clients.get_mut(agent) else { return };
        if client.lane.is_leased() {
            return;
        }
        client.flags.clear(ClientFlags::RESP3);
        if resp3 {
            client.flags.set(ClientFlags::RESP3);
        }
        self.change_lane(agent);
    }

    /// Hires an agent for `owner`, whose requests take `lane`.
    pub(super) fn hire_on(&mut self, lane: Lane, owner: ClientKey) -> Option<ClientKey> {
        let mut agent = self.new_client(About::new(None, None, self.now));
        let client = self.clients.get(owner)?;
        agent.flags = ClientFlags::AUTHENTICATED.with(ClientFlags::AGENT);
        if client.flags.has(ClientFlags::RESP3) {
            agent.flags.set(ClientFlags::RESP3);
        }
        agent.lane = lane;
        agent.standing().acts_for = Some(client.id);
        Some(self.add_client(agent))
    }

    /// An agent that acts for no client.
    pub(super) fn hire_for_nobody(&mut self, protocol: Protocol) -> ClientKey {
        let mut agent = self.new_client(About::new(None, None, self.now));
        agent.flags = ClientFlags::AUTHENTICATED.with(ClientFlags::AGENT);
        agent.lane = Lane::shared(protocol);
        if protocol == Protocol::Resp3 {
            agent.flags.set(ClientFlags::RESP3);
        }
        self.add_client(agent)
    }

    /// Sends an agent's requests; [`Engine::agent_told`] is called when all are answered.
    pub(super) fn instruct(&mut self, agent: ClientKey, requests: &[u8]) {
        self.client_input(agent, requests);
    }

    /// An agent was told something: if that was all, its task goes on. Called by the shell in place of a write.
    pub fn agent_told(&mut self, key: ClientKey) {
        let Some(client) = self.clients.get_mut(key) else { return };
        client.flags.clear(ClientFlags::DIRTY);
        let Some(work) = client.work.as_deref_mut() else { return };
        if !client.flags.has(ClientFlags::AGENT) || !work.queue.is_empty() || !work.input.is_empty() {
            return;
        }
        let replies = std::mem::take(&mut work.out);
        let Some(task) = client.standing().task.take() else { return };
        let owner = task.owner();
        let went_on = self.for_client(key, |engine| {
            let task = engine.go_on_with(key, task, &replies);
            engine.keep_on(key, task);
        });
        if let (None, Some(owner)) = (went_on, owner) {
            self.close_client(owner); // nobody would answer it any more
        }
    }

    /// An agent has begun a step of its task; or it is done with, and dismissed.
    pub(super) fn keep_on(&mut self, agent: ClientKey, task: Option<Task>) {
        match (task, self.clients.get_mut(agent)) {
            (Some(task), Some(client)) => client.standing().task = Some(task),
            _ => self.dismiss(agent),
        }
    }

    /// An agent had to be closed: whoever waits for it waits in vain.
    pub(super) fn give_up_task(&mut self, agent: ClientKey) {
        let standing = self.clients.get_mut(agent).and_then(|client| client.standing.as_deref_mut());
        if let Some(owner) = standing.and_then(|standing| standing.task.take()).and_then(|task| task.owner())
        {
            self.close_client(owner);
        }
    }

    /// The next step of a task. None: it is done.
    fn go_on_with(&mut self, agent: ClientKey, task: Task, replies: &[u8]) -> Option<Task> {
        defect(replies);
        match task {
            Task::PutBack(taken) => self.put_back_step(agent, taken, replies),
            Task::Exec(exec) => {
                self.heed_reply_on(&exec);
                let replies = self.pongs_of(&exec, replies);
                self.exec_step(agent, exec, &replies).map(Task::Exec)
            }
            Task::Aside { owner, seq } => {
                self.settle(owner, seq, replies);
                None
            }
        }
    }

    fn dismiss(&mut self, agent: ClientKey) {
        self.forget_watch(agent);
        let Some(client) = self.clients.remove(agent) else { return };
        if client.lane.is_leased() {
            self.give_back(client.lane);
        }
        if let Some(work) = client.work {
            self.pool.give_work(work);
        }
    }

    /// Answers a request that was registered with `begin_wait`, in its place in the order.
    pub(super) fn settle(&mut self, key: ClientKey, seq: u32, reply: &[u8]) {
        let Some(client) = self.clients.get_mut(key) else { return };
        let unsaid = client.standing.as_deref_mut().and_then(|standing| standing.unsaid.take());
        let reply = unsaid.map_or(reply, |unsaid| Self::said_of(reply, unsaid));
        let Some(work) = client.work.as_deref_mut() else { return };
        if let Some(pending) = work.queue.complete(seq, reply, &mut work.out) {
            self.completed(key, pending);
        }
    }
}
