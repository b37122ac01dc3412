//! A request too large to keep: streamed to its node over a connection of its own, in bounded memory.
//!
//! A streamed request cannot follow a redirect. So the slot's owner is asked first, with a cheap command on the same
//! key, and the body is not read from the client before somebody has said that the slot is served there.

use portico_resp::{RequestScanner, encode};
use portico_slots::{Slot, slot};

use super::retry::ASKING;
use super::script_rules::Objected;
use super::send::{Flow, Traits};
use super::{Effect, Engine};
use crate::backend::{ClientKey, InFlight, Lane, LinkKey, RequestFlags};
use crate::command::{Args, Handling, Resolved};
use crate::plan::{Action, Event, Refusal, RequestArgs};
use crate::session::{Client, ClientFlags, Pending, PendingFlags, Stage, Stall, Upload};
use crate::topology::Cluster;

/// The arguments known so far, with the rest of the announced ones empty.
struct Announced<'a> {
    known: RequestArgs<'a>,
    count: usize,
}

impl Args for Announced<'_> {
    fn count(&self) -> usize {
        self.count
    }

    fn get(&self, index: usize) -> &[u8] {
        if index < self.known.count() { self.known.get(index) } else { b"" }
    }
}

impl Engine {
    /// Bytes on the way to a node above which the client is not read on.
    const MOST_UNSENT: usize = 1 << 20;

    /// A large argument begins. `None`: its request has to be kept whole, since its place cannot be known yet.
    #[cold]
    pub(super) fn begin_upload(
        &mut self,
        key: ClientKey,
        cluster: &Cluster,
        head: &[u8],
        scanner: &mut RequestScanner,
    ) -> Option<Flow> {
        let known = RequestArgs::new(head, scanner.args());
        let flags = self.clients.get(key)?.flags;
        if known.count() == 0 || !flags.has(ClientFlags::AUTHENTICATED) || flags.any(self.look) {
            return None;
        }
        let announced = Announced { count: scanner.declared(), known };
        let Resolved::Command(command) = cluster.table.resolve(&announced) else { return None };
        if command.handling != Handling::Key || !command.keys_lead() || !command.arity_ok(announced.count) {
            return None;
        }
        let mut positions = std::mem::take(&mut self.positions);
        positions.clear();
        let found = command.key_positions(&announced, &mut positions).is_ok();
        let slots: Vec<Slot> = positions.iter().map(|&at| slot(announced.get(at as usize))).collect();
        let known_in_full = positions.iter().all(|&at| (at as usize) < announced.known.count());
        let first = positions.first().map(|&at| announced.get(at as usize).to_vec());
        self.positions = positions;
        let &slot = slots.first()?;
        if !found || !known_in_full || slots.iter().any(|&other| other != slot) {
            return None;
        }
        let traits = Traits::of(command);
        if command.is_script()
            && let Some(objected) = self.object_to_script(key, cluster, command, &known)
        {
            return match objected {
                Objected::Wait(stall) => Some(Flow::Wait(stall)),
                Objected::Refuse(_) => None, // kept whole, and refused then
            };
        }
        if command.is_script() && self.is_judged_whole(key, &known) {
            return None;
        }
        let script = if command.is_script() { self.before_streamed_script(&known) } else { None };
        let now = self.now;
        let client = self.clients.get_mut(key)?;
        let work = client.work.as_deref_mut()?;
        if work.queue.outstanding_count() > 0 {
            return Some(Flow::Wait(Stall::Order));
        }
        client.last_command = command.name;
        client.flags.set(ClientFlags::UPLOADING);
        work.upload = Some(Box::new(Upload {
            slot,
            key: first.unwrap_or_default(),
            head: head.to_vec(),
            stream: scanner.take_stream(),
            script,
            flags: traits.flags.with(RequestFlags::STREAMED),
            stage: Stage::Waiting(now),
            link: None,
            asking: None,
            hops: 0,
            since: now,
        }));
        self.uploading.push(key);
        self.next_tick = now;
        self.counters.large_requests += 1;
        self.counters.requests += 1;
        Some(Flow::Done)
    }

    fn upload_mut(&mut self, key: ClientKey) -> Option<&mut Upload> {
        self.clients.get_mut(key)?.work.as_deref_mut()?.upload.as_deref_mut()
    }

    /// Opens connections for the large requests that wait for one.
    pub(super) fn start_uploads(&mut self) {
        let mut waiting = std::mem::take(&mut self.uploading);
        waiting.retain(|&key| self.for_client(key, |engine| engine.start_upload(key)) == Some(true));
        self.uploading.extend(waiting);
    }

    /// Returns whether the upload still waits.
    fn start_upload(&mut self, key: ClientKey) -> bool {
        let (now, timeout) = (self.now, self.config.failover_timeout);
        let Some(client) = self.clients.get(key) else { return false };
        let protocol = client.protocol();
        let Some(upload) = self.upload_mut(key) else { return false };
        let Stage::Waiting(not_before) = upload.stage else { return false };
        if now < not_before {
            return true;
        }
        if now >= upload.since + timeout {
            self.refuse_upload(key, Refusal::TimedOut);
            return false;
        }
        let slot = upload.slot;
        let asking = upload.asking.clone();
        let topology = &self.cluster.topology;
        let node = asking.and_then(|address| topology.find(&address)).or_else(|| topology.owner(slot));
        let node = node.map(|node| topology.node(node).id);
        let link = node.and_then(|node| self.open(node, protocol, Lane::shared(protocol), Some(key)));
        let pause = self.after(Self::TICK * 4);
        let Some(upload) = self.upload_mut(key) else { return false };
        match link {
            Some(link) => {
                upload.link = Some(link);
                upload.stage = Stage::Probing;
                false
            }
            None => {
                upload.stage = Stage::Waiting(pause);
                true
            }
        }
    }

    /// The connection of its own stands: asks whether the slot is served there.
    pub(super) fn upload_link_ready(&mut self, key: ClientKey, link_key: LinkKey) {
        let Some(upload) = self.upload_mut(key) else { return self.lose_link(link_key) };
        let mut probe = Vec::new();
        encode::command(&mut probe, &[b"EXISTS", &upload.key]);
        let (slot, asks) = (upload.slot, upload.asking.is_some());
        let Some(link) = self.links.get_mut(link_key) else { return };
        if asks {
            link.pipe.push(ASKING, InFlight::ignored());
        }
        let flags = RequestFlags::PROBE.with(RequestFlags::READONLY);
        link.pipe.push(&probe, InFlight { client: key, slot, flags, ..InFlight::nobodys() });
        self.mark_link(link_key);
    }

    /// The slot is served there: the body may come.
    pub(super) fn upload_probed(&mut self, key: ClientKey) {
        let Some(upload) = self.upload_mut(key) else { return };
        upload.stage = Stage::Streaming;
        let (head, slot, flags) = (std::mem::take(&mut upload.head), upload.slot, upload.flags);
        let asks = upload.asking.is_some();
        let (script, link) = (upload.script, upload.link);
        let script = script.and_then(|sha| self.shared.scripts.script(&sha));
        let Some(link_key) = link else { return };
        let Some(client) = self.clients.get_mut(key) else { return };
        let Some(work) = client.work.as_deref_mut() else { return };
        let write = !flags.has(RequestFlags::READONLY);
        let pending = if write { PendingFlags::WRITE } else { PendingFlags::default() };
        let seq = work.queue.push(Pending::sent(link_key, slot, pending));
        client.writes += u32::from(write);
        // What follows on this slot goes to the shared connection: not before this is answered.
        client.flags.set(ClientFlags::CAREFUL);
        client.write_link = link_key;
        client.in_flight += 1;
        let input = std::mem::take(&mut work.input);
        if let Some(link) = self.links.get_mut(link_key) {
            let mut ahead = |request: &[u8]| {
                let flags = RequestFlags::IGNORED.with(RequestFlags::STREAMED);
                link.pipe.push(b"", InFlight { flags, ..InFlight::nobodys() });
                link.pipe.stream(request);
            };
            if let Some(script) = script {
                let mut load = Vec::new();
                encode::command(&mut load, &[b"SCRIPT", b"LOAD", &script.text]);
                ahead(&load);
            }
            if asks {
                ahead(ASKING);
            }
            link.pipe.push(b"", InFlight { client: key, seq, slot, flags, ..InFlight::nobodys() });
            link.pipe.stream(&head);
        }
        self.mark_link(link_key);
        if self.upload_input(key, input.bytes()) {
            self.effects.push(Effect::ResumeClient(key));
        }
    }

    /// The probe was refused, or its connection lost: tries elsewhere or again, up to the failover timeout.
    pub(super) fn upload_refused(&mut self, key: ClientKey, event: Event<'_>, action: Action) {
        let pause = self.after(Self::TICK * 4);
        let (now, most) = (self.now, self.config.max_redirections);
        self.refresh_wanted = true;
        let map = self.config.node_address_map.clone();
        let Some(upload) = self.upload_mut(key) else { return };
        let link = upload.link.take();
        upload.asking = None;
        upload.stage = Stage::Waiting(pause);
        let passes = action == Action::Pass;
        let refusal = match action {
            Action::Ask { target, .. } if upload.hops < most => {
                upload.hops += 1;
                upload.asking = target.map(|address| map.map(&address));
                upload.stage = Stage::Waiting(now);
                None
            }
            Action::Refuse(refusal) => Some(refusal),
            Action::Pass => Some(Refusal::TimedOut),
            _ => None,
        };
        if let Some(link) = link
            && matches!(event, Event::Error(_))
        {
            self.lose_link(link);
        }
        match (refusal, event) {
            (Some(_), Event::Error(reply)) if passes => self.discard_upload(key, reply),
            (Some(refusal), _) => self.refuse_upload(key, refusal),
            (None, _) => {
                self.uploading.push(key);
                self.next_tick = now;
            }
        }
    }

    /// The connection could not be made, or is lost; `asked`: with the probe on it, which was decided about.
    pub(super) fn upload_link_lost(&mut self, key: ClientKey, link: LinkKey, asked: bool) {
        let Some(upload) = self.upload_mut(key).filter(|upload| upload.link == Some(link)) else { return };
        match upload.stage {
            Stage::Probing if !asked => {
                let event = Event::Lost { sent: false, overtaken: false };
                self.upload_refused(key, event, Action::Resend);
            }
            Stage::Streaming => {
                // The client was answered. It may not be read now, and nobody else would have it read again.
                upload.stage = Stage::Discarding;
                upload.link = None;
                self.effects.push(Effect::ResumeClient(key));
            }
            _ => {}
        }
    }

    fn refuse_upload(&mut self, key: ClientKey, refusal: Refusal) {
        let slot = self.upload_mut(key).map_or(0, |upload| upload.slot);
        let text = self.refusal_text(refusal, &InFlight { slot, ..InFlight::nobodys() });
        let mut reply = Vec::new();
        encode::error(&mut reply, &text);
        self.discard_upload(key, &reply);
    }

    /// Answers, and reads on only to find the request's end.
    fn discard_upload(&mut self, key: ClientKey, reply: &[u8]) {
        self.reply_now(key, reply);
        let Some(upload) = self.upload_mut(key) else { return };
        upload.stage = Stage::Discarding;
        let Some(work) = self.clients.get_mut(key).and_then(|client| client.work.as_deref_mut()) else {
            return;
        };
        let input = std::mem::take(&mut work.input);
        self.upload_input(key, input.bytes());
        self.effects.push(Effect::ResumeClient(key));
    }

    /// More of a large request. Returns whether the client may be read on.
    pub(super) fn upload_input(&mut self, key: ClientKey, bytes: &[u8]) -> bool {
        let limits = self.limits;
        let Some(client) = self.clients.get_mut(key) else { return false };
        let Some(work) = client.work.as_deref_mut() else { return false };
        let Some(upload) = work.upload.as_deref_mut() else { return true };
        let streaming = match upload.stage {
            Stage::Waiting(_) | Stage::Probing => {
                work.input.add(bytes);
                return false;
            }
            Stage::Streaming => true,
            Stage::Discarding => false,
        };
        let step = match upload.stream.feed(bytes, &limits) {
            Ok(step) => step,
            Err(error) => {
                let link = upload.link.take();
                work.upload = None;
                client.flags.clear(ClientFlags::UPLOADING);
                client.flags.set(ClientFlags::CLOSING);
                if let Some(link) = link {
                    self.lose_link(link); // the node never saw the end of the request
                }
                self.reply_error(key, format!("ERR {error}"));
                self.close_when_told(key);
                return false;
            }
        };
        let link_key = upload.link;
        if step.done {
            work.upload = None;
            client.flags.clear(ClientFlags::UPLOADING);
        }
        let mut room = true;
        if streaming
            && let Some(link_key) = link_key
            && let Some(link) = self.links.get_mut(link_key)
        {
            link.pipe.stream(&bytes[..step.used]);
            if step.done {
                link.pipe.end_stream();
            }
            room = link.pipe.unsent().len() < Self::MOST_UNSENT;
            self.mark_link(link_key);
        }
        if step.done {
            if let Some(link_key) = link_key {
                self.close_lease_if_done(link_key); // in case it was answered before its end
            }
            return self.client_input(key, &bytes[step.used..]);
        }
        room
    }

    /// A leased connection's bytes were taken by the kernel: its client may be read on.
    pub fn link_sent(&mut self, key: LinkKey) {
        let Some(link) = self.links.get(key) else { return };
        if let Some(client) = link.leased_to
            && link.pipe.unsent().len() < Self::MOST_UNSENT / 4
        {
            self.effects.push(Effect::ResumeClient(client));
        }
    }

    /// A connection of a large request's own has no further use once it was answered.
    pub(super) fn close_lease_if_done(&mut self, key: LinkKey) {
        if let Some(link) = self.links.get(key)
            && let Some(client) = link.leased_to
            && link.pipe.is_empty()
            && self.upload_mut(client).is_none_or(|upload| upload.link != Some(key))
        {
            self.close_link(key);
        }
    }

    /// The client is gone in the middle of a large request: the node never sees its end.
    pub(super) fn abandon_upload(&mut self, client: &mut Client) {
        let upload = client.work.as_deref_mut().and_then(|work| work.upload.take());
        if let Some(link) = upload.and_then(|upload| upload.link) {
            self.close_link(link);
        }
    }
}
