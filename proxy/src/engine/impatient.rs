//! Questions to several nodes of which none is waited for longer than a moment: INFO, CONFIG GET, SCRIPT LOAD.
//!
//! The parts are Portico's own requests, each with the number of its question: an answer that comes late finds none.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portico_resp::ErrorCode;
use portico_slots::NodeIndex;

use super::Engine;
use super::fan::Audience;
use super::send::{Flow, Traits};
use super::turn::SILENT;
use crate::backend::{ClientKey, InFlight, Lane, RequestFlags};
use crate::plan::{Part, Parts};
use crate::session::{Fan, FanKind};
use crate::topology::Cluster;

/// How long a master has to tell of itself.
pub(super) const PATIENCE: Duration = Duration::from_millis(200);

/// What nodes are asked.
#[derive(Debug)]
pub(super) struct Inquiry<'r> {
    /// The command's name.
    pub(super) name: &'static str,
    pub(super) kind: FanKind,
    pub(super) traits: Traits,
    /// How long a node has to answer.
    pub(super) patience: Duration,
    /// What one master is asked, and waited for, if none has answered in time; then nothing is left of it in the fan.
    pub(super) otherwise: &'r [u8],
}

/// A question that nodes have still to answer.
#[derive(Clone, Copy, Debug)]
struct Asked {
    /// Told with what is known by then.
    at: Instant,
    /// Names it in the requests to the masters.
    ticket: u32,
    client: ClientKey,
    seq: u32,
}

/// The questions of one worker that masters have still to answer.
#[derive(Debug, Default)]
pub(super) struct Questions {
    /// In the order of their deadlines.
    asked: VecDeque<Asked>,
    last_ticket: u32,
}

impl Questions {
    /// When the next is told with what is known by then.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.asked.front().map(|asked| asked.at)
    }

    fn add(&mut self, asked: Asked) {
        let at = self.asked.partition_point(|other| other.at <= asked.at);
        self.asked.insert(at, asked);
    }

    fn ticket(&mut self) -> u32 {
        self.last_ticket = self.last_ticket.wrapping_add(1);
        self.last_ticket
    }
}

impl Engine {
    /// Asks nodes, one part each, for a reply that is made of what they have said within a moment. Those that are known not
    /// to answer are not asked, nor are those to which no connection stands yet.
    pub(super) fn ask_impatiently<R: AsRef<[u8]>>(
        &mut self,
        key: ClientKey,
        inquiry: Inquiry<'_>,
        requests: impl ExactSizeIterator<Item = (NodeIndex, R)>,
    ) -> Flow {
        let Inquiry { name, kind, traits, patience, otherwise } = inquiry;
        if let Some(stall) = self.gate_fan(key, traits, std::iter::empty()) {
            return Flow::Wait(stall);
        }
        let Some(client) = self.clients.get(key) else { return Flow::Close };
        let (lane, protocol) = (Lane::shared(client.protocol()), client.protocol());
        let mut fan = self.new_fan(name, kind, protocol, traits.flags);
        fan.parts.parts.resize(requests.len(), Part::default());
        fan.request.extend_from_slice(otherwise);
        let Some(seq) = self.begin_fan(key, fan, traits) else { return Flow::Close };
        let ticket = self.questions.ticket();
        let asked = Asked { at: self.now + patience, ticket, client: key, seq };
        let mut remaining = 0;
        for (part, (node, request)) in requests.enumerate() {
            // Also where it is not asked: so that it is known when it is back.
            let Some(link_key) = self.route(lane, node) else { continue };
            let Some(link) = self.links.get(link_key) else { continue };
            if link.pipe.outstanding_bytes() > Self::MOST_ON_LINK || self.is_in_trouble(lane, node) {
                continue;
            }
            let flags = RequestFlags::READONLY.with(RequestFlags::IMPATIENT);
            let entry = InFlight { seq: asked.ticket, part: part as u32, flags, ..InFlight::nobodys() };
            self.tell_node_as(link_key, request.as_ref(), entry);
            remaining += 1;
        }
        if let Some(fan) = self.fan_of(asked.client, asked.seq) {
            fan.remaining = remaining;
        }
        if remaining == 0 {
            self.tell_known(asked);
        } else {
            self.questions.add(asked);
        }
        Flow::Done
    }

    /// Asks all nodes that live what one master's answer is enough for: the others are given it when they are back.
    pub(super) fn ask_living(
        &mut self,
        key: ClientKey,
        cluster: &Cluster,
        (name, traits): (&'static str, Traits),
        audience: Audience,
        kind: FanKind,
        request: &[u8],
    ) -> Flow {
        let mut targets = audience.members(cluster);
        self.keep_living(key, &mut targets);
        for &(node, slot) in &targets {
            if let Err(flow) = self.ready(key, Some(node), slot) {
                return flow;
            }
        }
        let inquiry = Inquiry { name, kind, traits, patience: SILENT, otherwise: request };
        self.ask_impatiently(key, inquiry, targets.iter().map(|&(node, _)| (node, request)))
    }

    /// A master answers, or its connection is lost (an empty reply).
    pub(super) fn question_answered(&mut self, entry: &InFlight, reply: &[u8]) {
        let Some(at) = self.questions.asked.iter().position(|asked| asked.ticket == entry.seq) else {
            return;
        };
        let asked = self.questions.asked[at];
        let Some(fan) = self.fan_of(asked.client, asked.seq) else { return };
        fan.parts.answer(entry.part as usize, reply);
        fan.remaining = fan.remaining.saturating_sub(1);
        if fan.remaining == 0 {
            self.questions.asked.remove(at);
            self.tell_known(asked);
        }
    }

    /// Tells what is known of those whose time is over.
    pub(super) fn tell_late_answers(&mut self) {
        while let Some(&asked) = self.questions.asked.front()
            && asked.at <= self.now
        {
            self.questions.asked.pop_front();
            self.tell_known(asked);
        }
    }

    /// No node has answered in time: a master is waited for, as for any request.
    pub(super) fn ask_patiently(&mut self, key: ClientKey, index: usize, (seq, mut fan): (u32, Box<Fan>)) {
        let cluster = Arc::clone(&self.cluster);
        let slot = self.session_slot(key, &cluster);
        fan.parts.clear();
        fan.parts.parts.push(Part::default());
        fan.remaining = 1;
        let request = std::mem::take(&mut fan.request);
        let Some(work) = self.clients.get_mut(key).and_then(|client| client.work.as_deref_mut()) else {
            return;
        };
        work.fans.insert(index, (seq, fan));
        let flags = RequestFlags::READONLY;
        let entry = InFlight { client: key, seq, part: 0, slot, flags, ..InFlight::nobodys() };
        self.send_to_node(entry, cluster.topology.owner(slot), |out| out.extend_from_slice(&request));
    }

    fn tell_known(&mut self, asked: Asked) {
        let entry = InFlight { client: asked.client, seq: asked.seq, ..InFlight::nobodys() };
        let work = self.clients.get(asked.client).and_then(|client| client.work.as_deref());
        if let Some(index) = work.and_then(|work| work.fan_of(asked.seq)) {
            self.finish_fan(&entry, index);
        }
    }
}

/// Leaves out what was not answered, and what only says that a node cannot answer now. Returns whether anything is left.
pub(super) fn keep_answers(parts: &mut Parts) -> bool {
    let Parts { parts, replies, .. } = parts;
    parts.retain(|part| {
        let reply = &replies[part.at..part.at + part.len];
        let later = [ErrorCode::Loading, ErrorCode::MasterDown, ErrorCode::ClusterDown];
        !reply.is_empty() && ErrorCode::parse(reply).is_none_or(|code| !later.contains(&code))
    });
    !parts.is_empty()
}
