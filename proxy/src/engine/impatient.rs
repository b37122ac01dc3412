//! Questions to all masters of which none is waited for longer than a moment: INFO, CONFIG GET.
//!
//! The parts are Portico's own requests, each with the number of its question: an answer that comes late finds none.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use portico_slots::NodeIndex;

use super::Engine;
use super::send::{Flow, Traits};
use crate::backend::{ClientKey, InFlight, Lane, RequestFlags};
use crate::plan::Part;
use crate::session::{Fan, FanKind};

/// How long a master has to answer.
const PATIENCE: Duration = Duration::from_millis(200);

/// A question that masters have still to answer.
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

    fn ticket(&mut self) -> u32 {
        self.last_ticket = self.last_ticket.wrapping_add(1);
        self.last_ticket
    }
}

impl Engine {
    /// Asks masters, one part each, for a reply that is made of what they have said within a moment. Those to which no
    /// connection stands or is being opened are not asked.
    pub(super) fn ask_impatiently<R: AsRef<[u8]>>(
        &mut self,
        key: ClientKey,
        (name, kind): (&'static str, FanKind),
        requests: impl ExactSizeIterator<Item = (NodeIndex, R)>,
    ) -> Flow {
        let traits = Traits::question();
        if let Some(stall) = self.gate_fan(key, traits, std::iter::empty()) {
            return Flow::Wait(stall);
        }
        let Some(client) = self.clients.get(key) else { return Flow::Close };
        let (lane, protocol) = (Lane::shared(client.protocol()), client.protocol());
        let mut fan = self.new_fan(name, kind, protocol, traits.flags);
        fan.parts.parts.resize(requests.len(), Part::default());
        let Some(seq) = self.begin_fan(key, fan, traits) else { return Flow::Close };
        let ticket = self.questions.ticket();
        let asked = Asked { at: self.now + PATIENCE, ticket, client: key, seq };
        let mut remaining = 0;
        for (part, (master, request)) in requests.enumerate() {
            let Some(link_key) = self.route(lane, master) else { continue };
            let Some(link) = self.links.get(link_key) else { continue };
            if link.pipe.outstanding_bytes() > Self::MOST_ON_LINK {
                continue;
            }
            let flags = RequestFlags::READONLY.with(RequestFlags::IMPATIENT);
            let entry = InFlight { seq: asked.ticket, part: part as u32, flags, ..InFlight::nobodys() };
            self.tell_node_as(link_key, request.as_ref(), entry);
            remaining += 1;
        }
        if let Some(fan) = self.asked_fan(asked) {
            fan.remaining = remaining;
        }
        if remaining == 0 {
            self.tell_known(asked);
        } else {
            self.questions.asked.push_back(asked);
        }
        Flow::Done
    }

    /// A master answers, or its connection is lost (an empty reply).
    pub(super) fn question_answered(&mut self, entry: &InFlight, reply: &[u8]) {
        let Some(at) = self.questions.asked.iter().position(|asked| asked.ticket == entry.seq) else {
            return;
        };
        let asked = self.questions.asked[at];
        let Some(fan) = self.asked_fan(asked) else { return };
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

    fn asked_fan(&mut self, asked: Asked) -> Option<&mut Fan> {
        let work = self.clients.get_mut(asked.client)?.work.as_deref_mut()?;
        let at = work.fan_of(asked.seq)?;
        work.fans.get_mut(at).map(|(_, fan)| &mut **fan)
    }

    fn tell_known(&mut self, asked: Asked) {
        let entry = InFlight { client: asked.client, seq: asked.seq, ..InFlight::nobodys() };
        let work = self.clients.get(asked.client).and_then(|client| client.work.as_deref());
        if let Some(index) = work.and_then(|work| work.fan_of(asked.seq)) {
            self.finish_fan(&entry, index);
        }
    }
}
