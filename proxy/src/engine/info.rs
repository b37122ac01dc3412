//! INFO, and the way in which CONFIG GET asks too: all masters are asked, and none is waited for longer than a moment.
//! Whoever watches a cluster asks most when something is wrong with it.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use portico_resp::{bulk_reply, encode};
use portico_slots::NodeIndex;

use super::Engine;
use super::send::{Flow, Traits};
use crate::backend::{ClientKey, InFlight, Lane, RequestFlags};
use crate::command::Args;
use crate::local::{self, Master, Surroundings};
use crate::plan::{Part, RequestArgs};
use crate::session::{Fan, FanKind, InfoQuestion};
use crate::topology::Cluster;

/// How long a master has to answer.
const PATIENCE: Duration = Duration::from_millis(200);

/// A question that masters have still to answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    /// Told with what is known by then.
    pub(super) at: Instant,
    /// Names it in the requests to the masters: these are Portico's own, as an answer that comes late is nobody's.
    ticket: u32,
    client: ClientKey,
    seq: u32,
}

impl Engine {
    /// INFO.
    pub(super) fn ask_info(
        &mut self,
        key: ClientKey,
        cluster: &Cluster,
        request: &[u8],
        words: &RequestArgs<'_>,
    ) -> Flow {
        self.publish();
        let masters = cluster.topology.masters();
        let kind = FanKind::Info(InfoQuestion {
            request: request.into(),
            sections: (1..words.count()).map(|at| words.text(at).to_lowercase()).collect(),
            masters: masters.iter().map(|&master| cluster.topology.node(master).id).collect(),
        });
        self.ask_impatiently(key, ("info", kind), masters.iter().map(|&master| (master, request)))
    }

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
        self.last_info_ticket = self.last_info_ticket.wrapping_add(1);
        let asked = Asked { at: self.now + PATIENCE, ticket: self.last_info_ticket, client: key, seq };
        let mut remaining = 0;
        for (part, (master, request)) in requests.enumerate() {
            let Some(link_key) = self.route(lane, master) else { continue };
            let Some(link) = self.links.get_mut(link_key) else { continue };
            if link.pipe.outstanding_bytes() > Self::MOST_ON_LINK {
                continue;
            }
            if link.pipe.is_empty() {
                link.moved = self.now;
            }
            let flags = RequestFlags::READONLY.with(RequestFlags::IMPATIENT);
            let entry = InFlight { seq: asked.ticket, part: part as u32, flags, ..InFlight::nobodys() };
            link.pipe.push(request.as_ref(), entry);
            self.mark_link(link_key);
            remaining += 1;
        }
        if let Some(fan) = self.info_fan(asked) {
            fan.remaining = remaining;
        }
        if remaining == 0 {
            self.tell_info(asked);
        } else {
            self.infos.push_back(asked);
        }
        Flow::Done
    }

    /// A master answers, or its connection is lost (an empty reply).
    pub(super) fn info_answered(&mut self, entry: &InFlight, reply: &[u8]) {
        let Some(at) = self.infos.iter().position(|asked| asked.ticket == entry.seq) else { return };
        let asked = self.infos[at];
        let Some(fan) = self.info_fan(asked) else { return };
        fan.parts.answer(entry.part as usize, reply);
        fan.remaining = fan.remaining.saturating_sub(1);
        if fan.remaining == 0 {
            self.infos.remove(at);
            self.tell_info(asked);
        }
    }

    /// Tells what is known of those whose time is over.
    pub(super) fn tell_late_infos(&mut self) {
        while let Some(&asked) = self.infos.front()
            && asked.at <= self.now
        {
            self.infos.pop_front();
            self.tell_info(asked);
        }
    }

    fn info_fan(&mut self, asked: Asked) -> Option<&mut Fan> {
        let work = self.clients.get_mut(asked.client)?.work.as_deref_mut()?;
        let at = work.fan_of(asked.seq)?;
        work.fans.get_mut(at).map(|(_, fan)| &mut **fan)
    }

    fn tell_info(&mut self, asked: Asked) {
        let entry = InFlight { client: asked.client, seq: asked.seq, ..InFlight::nobodys() };
        let work = self.clients.get(asked.client).and_then(|client| client.work.as_deref());
        if let Some(index) = work.and_then(|work| work.fan_of(asked.seq)) {
            self.finish_fan(&entry, index);
        }
    }

    /// The reply, from the parts that came. `None`: no master can be asked for this, and the first says why.
    pub(super) fn one_info(&self, fan: &Fan, question: &InfoQuestion, out: &mut Vec<u8>) -> Option<()> {
        let topology = &self.cluster.topology;
        let counts = topology.slot_counts();
        let mut masters = Vec::with_capacity(question.masters.len());
        for (&id, reply) in question.masters.iter().zip(fan.parts.iter()) {
            let Some(index) = topology.index_of(&id) else { continue };
            let (text, age) = match bulk_reply(reply) {
                Some(text) => {
                    self.shared.last_info.note(id, &question.request, text, self.now);
                    (Some(Cow::Borrowed(text)), None)
                }
                None => match self.shared.last_info.last(id, &question.request) {
                    Some((at, text)) => {
                        (Some(Cow::Owned(text.to_vec())), Some(self.now.saturating_duration_since(at)))
                    }
                    None => (None, None),
                },
            };
            masters.push(Master {
                address: topology.node(index).address.clone(),
                slots: counts[usize::from(index)],
                text,
                age,
            });
        }
        if fan.parts.iter().any(portico_resp::is_error) && masters.iter().all(|master| master.text.is_none())
        {
            return None;
        }
        let around = Surroundings {
            shared: &self.shared,
            config: &self.config,
            version: &self.cluster.version,
            now: self.now,
        };
        encode::verbatim_txt(out, local::info(&masters, &question.sections, around).as_bytes(), fan.protocol);
        Some(())
    }
}
