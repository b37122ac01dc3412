//! EXEC of a transaction that is more than one transaction of one node: its steps, one after another.
//!
//! Each group is a transaction of its own, so nothing guards the whole: it stops at the first failure, and once
//! something has run the reply is an error that says what ran, never nil.

use portico_resp::{Items, Protocol, encode, is_error, is_null, replies};
use portico_slots::Slot;

use super::Engine;
use super::send::{Flow, Traits};
use crate::backend::ClientKey;
use crate::command::{Handling, Local, Resolved};
use crate::plan::{Plan, RequestArgs, Step, with_queued};
use crate::session::{Client, ClientFlags, Exec, Task, Transaction};
use crate::topology::Cluster;

impl Engine {
    /// Begins a transaction that is run step by step. Its client waits for the end.
    pub(super) fn exec_in_steps(
        &mut self,
        key: ClientKey,
        cluster: &Cluster,
        transaction: Transaction,
        plan: Plan,
        watched: &[Slot],
    ) -> Flow {
        let steps = steps(cluster, plan, &transaction, watched);
        let Some(seq) = self.begin_wait(key, Traits::question()) else { return Flow::Close };
        let replies = vec![None; transaction.ranges.len()];
        let exec = Box::new(Exec { owner: key, seq, transaction, steps, begun: 0, replies });
        let Some(agent) = self.hire(key) else { return Flow::Close };
        let Some(client) = self.clients.get_mut(key) else { return Flow::Close };
        client.flags.clear(ClientFlags::MULTI);
        if client.flags.has(ClientFlags::WATCHING) {
            // The watch goes with the lane.
            client.flags.clear(ClientFlags::WATCHING);
            let standing = client.standing();
            standing.watched.clear();
            if let Some(agent) = self.clients.get_mut(agent) {
                agent.flags.set(ClientFlags::WATCHING);
                agent.standing().watched = watched.to_vec();
            }
        }
        let task = self.begin_step(agent, exec).map(Task::Exec);
        self.keep_on(agent, task);
        Flow::Block
    }

    /// Has an agent begin the next step of its transaction; what Portico answers itself needs none. None: it is
    /// done with.
    fn begin_step(&mut self, agent: ClientKey, mut exec: Box<Exec>) -> Option<Box<Exec>> {
        let mut requests = Vec::new();
        while requests.is_empty() {
            let Some(step) = exec.steps.get(exec.begun).cloned() else { break };
            exec.begun += 1;
            let queued = |at: usize| &exec.transaction.requests[exec.transaction.ranges[at].clone()];
            match step {
                Step::Group(slot, commands) => {
                    let owner = self.clients.get_mut(exec.owner);
                    let said = owner.and_then(|owner| owner.standing.as_deref_mut()?.caching.take());
                    if let Some(client) = self.clients.get_mut(agent) {
                        client.standing().home = Some(slot);
                        client.standing().caching = said.or(client.standing().caching);
                    }
                    encode::command(&mut requests, &[b"MULTI"]);
                    commands.iter().for_each(|&at| requests.extend_from_slice(queued(at)));
                    encode::command(&mut requests, &[b"EXEC"]);
                }
                Step::Alone(at) => {
                    let request = queued(at).to_vec();
                    match self.answer_own(exec.owner, &request) {
                        Some(reply) => exec.replies[at] = Some(reply),
                        None => requests = request,
                    }
                    self.speak_as(agent, exec.owner);
                }
            }
        }
        if requests.is_empty() {
            self.finish_exec(agent, &exec, None);
            return None;
        }
        self.instruct(agent, &requests);
        Some(exec)
    }

    /// An agent's step was answered. None: the transaction is done with.
    pub(super) fn exec_step(
        &mut self,
        agent: ClientKey,
        mut exec: Box<Exec>,
        told: &[u8],
    ) -> Option<Box<Exec>> {
        let reply = replies(told).last().unwrap_or_default();
        match exec.steps.get(exec.begun.wrapping_sub(1)) {
            Some(Step::Group(_, commands)) => {
                if is_error(reply) || is_null(reply) {
                    self.finish_exec(agent, &exec, Some(reply));
                    return None;
                }
                for (&at, item) in commands.iter().zip(Items::new(reply).into_iter().flatten()) {
                    exec.replies[at] = Some(item.to_vec());
                }
            }
            // A SUBSCRIBE of several channels is answered with as many frames.
            Some(&Step::Alone(at)) => exec.replies[at] = Some(told.to_vec()),
            None => {}
        }
        self.begin_step(agent, exec)
    }

    /// Answers EXEC. `failure`: what a group was answered in place of its replies.
    fn finish_exec(&mut self, agent: ClientKey, exec: &Exec, failure: Option<&[u8]>) {
        let protocol = self.clients.get(agent).map_or(Protocol::Resp2, Client::protocol);
        self.forget_watch(agent);
        self.return_lane(agent, exec.owner);
        let mut reply = Vec::new();
        let ran = exec.replies.iter().flatten().count();
        match failure {
            None => {
                encode::array_header(&mut reply, exec.replies.len());
                let closes =
                    self.clients.get(exec.owner).is_some_and(|owner| owner.flags.has(ClientFlags::CLOSING));
                for (item, range) in exec.replies.iter().zip(&exec.transaction.ranges) {
                    match item {
                        Some(item) => reply.extend_from_slice(item),
                        None => encode::null(&mut reply, protocol),
                    }
                    let kills = |args: &RequestArgs<'_>| args.is(0, "client") && args.is(1, "kill");
                    if closes && with_queued(&exec.transaction.requests[range.clone()], kills) == Some(true) {
                        break; // it has killed itself: that was the last it is told
                    }
                }
            }
            Some(failure) if ran == 0 => reply.extend_from_slice(failure),
            Some(failure) => {
                let why = match failure {
                    nil if is_null(nil) => "a watched key was touched".to_owned(),
                    error => String::from_utf8_lossy(&error[1..]).trim_end().to_owned(),
                };
                let name = |at: usize| {
                    let request = &exec.transaction.requests[exec.transaction.ranges[at].clone()];
                    with_queued(request, |args| args.text(0).to_lowercase()).unwrap_or_default()
                };
                let done: Vec<String> = exec
                    .replies
                    .iter()
                    .enumerate()
                    .filter(|(_, reply)| reply.is_some())
                    .take(20)
                    .map(|(at, _)| format!("{} {}", at + 1, name(at)))
                    .collect();
                let text = format!(
                    "ERR EXEC stopped after {ran} of {} commands had run ({}), since its keys are in several slots: {why}",
                    exec.replies.len(),
                    done.join(", ")
                );
                encode::error(&mut reply, text);
            }
        }
        self.settle(exec.owner, exec.seq, &reply);
    }

    /// What Portico answers itself, from what it knows of one client. None: it is no such command.
    fn answer_own(&mut self, owner: ClientKey, request: &[u8]) -> Option<Vec<u8>> {
        let cluster = std::sync::Arc::clone(&self.cluster);
        with_queued(request, |args| {
            let Resolved::Command(command) = cluster.table.resolve(args) else { return None };
            let Handling::Local(what) = command.handling else { return None };
            if matches!(what, Local::ConfigGet | Local::ConfigSet) {
                return None;
            }
            let mut made = Vec::new();
            self.answer_local(owner, &cluster, what, args, &mut made)?;
            Some(made)
        })?
    }
}

/// The steps of a plan, and before them the questions about watched slots that no group is in.
fn steps(cluster: &Cluster, plan: Plan, transaction: &Transaction, watched: &[Slot]) -> Vec<Step> {
    let owner = |slot| cluster.topology.owner(slot);
    let mut steps = match plan {
        Plan::Steps { steps, .. } => steps,
        Plan::Native { slot, .. } => {
            let home = slot.or(watched.first().copied()).unwrap_or(0);
            vec![Step::Group(home, (0..transaction.ranges.len()).collect())]
        }
    };
    // Only the very first step asks before anything has run.
    let first = steps.first().and_then(|step| match step {
        Step::Group(slot, _) => Some(*slot),
        Step::Alone(_) => None,
    });
    // An EXEC ends the whole watch of its connection, and asks about all of it: one a node.
    let mut asked = vec![first.and_then(owner)];
    for &slot in watched {
        if !asked.contains(&owner(slot)) {
            asked.push(owner(slot));
            steps.insert(0, Step::Group(slot, Vec::new()));
        }
    }
    steps
}
