//! Scripts: what clients call by a SHA1 is given to nodes that are not known to have it; SCRIPT and FUNCTION as such.
//!
//! A connection on which a script was not given to its node yet is given it right before the EVALSHA, in the same
//! write, as a request of Portico's own. So an EVALSHA may follow an EVAL or a SCRIPT LOAD to any slot, also after a
//! failover, on a new master, or redirected to one. Losing a connection forgets what its node has: it may be another
//! process by then. What somebody flushed behind Portico's back is noticed by the node's NOSCRIPT.

use std::collections::HashMap;
use std::sync::Arc;

use portico_resp::{encode, request_ranges};
use portico_slots::{NodeId, Slot};

use super::Engine;
use super::fan::Audience;
use super::send::{Flow, Traits};
use crate::backend::{ClientKey, InFlight, Lane, LinkKey, RequestFlags};
use crate::command::{Args as _, Command, Scripts};
use crate::plan::{Event, Merge, Part, RequestArgs, ScriptCall, script_call, with_queued};
use crate::scripts::{Script, ScriptName, Sha};
use crate::session::{FanKind, PendingFlags, Task};
use crate::topology::Cluster;

/// What a worker knows of the table of texts without asking it, so that an EVAL costs no hash.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Scripts that were sent as texts, by a few of their bytes.
    kept: HashMap<u64, Kept>,
    bytes: usize,
    /// Scripts of the table.
    by_sha: HashMap<Sha, Arc<Script>>,
    /// The table's counts, as of when this was true.
    flushes: u64,
    losses: u64,
}

#[derive(Debug)]
struct Kept {
    script: Arc<Script>,
    /// What it is called by, once it is in the table.
    remembered: Option<Sha>,
}

/// Texts that a worker recognizes, together.
const MOST_KEPT: usize = 8 << 20;
/// Scripts that are known to be known on one connection.
const MOST_SCRIPTS: usize = 10_000;
/// How all servers begin what they answer that do not have a script.
const NOSCRIPT: &[u8] = b"-NOSCRIPT No matching script";

impl Engine {
    /// What a request calls; the text of an EVAL is known from now on. None: nothing that can be a script.
    #[inline(never)]
    pub(super) fn meet_script(&mut self, words: &RequestArgs<'_>) -> Option<ScriptName> {
        self.heed_flushes();
        match script_call(words) {
            Some(ScriptCall::Text(text)) => Some(ScriptName::Script(self.remember_evaluated(text))),
            Some(ScriptCall::Sha(hex)) => Sha::parse(hex).map(ScriptName::Script),
            None => Some(ScriptName::function(words.word(1))),
        }
    }

    /// A script that was met is about to be sent to the owner of `slot`.
    pub(super) fn before_script(
        &mut self,
        key: ClientKey,
        cluster: &Cluster,
        slot: Slot,
        words: &RequestArgs<'_>,
    ) {
        let Some(owner) = cluster.topology.owner(slot) else { return };
        // For SCRIPT KILL: once the script runs, it is too late to introduce oneself.
        self.route(Lane::CONTROL, owner);
        if let Some(ScriptCall::Sha(hex)) = script_call(words) {
            let Some(lane) = self.clients.get(key).map(|client| client.lane) else { return };
            let link = self.routes[lane.index()][usize::from(owner)];
            if let Some(sha) = Sha::parse(hex) {
                self.give_script(link, sha);
            }
        }
    }

    /// A transaction whose scripts were met is about to be sent to the owner of `slot`.
    pub(super) fn before_scripts(&mut self, key: ClientKey, cluster: &Cluster, slot: Slot, requests: &[u8]) {
        for range in request_ranges(requests) {
            with_queued(&requests[range], |words| self.before_script(key, cluster, slot, words));
        }
    }

    /// Requests are about to be sent again on `link`, which they were not meant for at first.
    pub(super) fn give_scripts(&mut self, link: LinkKey, requests: &[u8]) {
        self.heed_flushes();
        for range in request_ranges(requests) {
            let sha = with_queued(&requests[range], |words| self.script_of(words)).flatten();
            if let Some(sha) = sha {
                self.give_script(link, sha);
            }
        }
    }

    /// A script is about to be streamed: keeps its text, or tells by which SHA1 it is called.
    pub(super) fn before_streamed_script(&mut self, words: &RequestArgs<'_>) -> Option<Sha> {
        if let Some(ScriptCall::Text(text)) = script_call(words) {
            self.heed_flushes();
            self.remember_evaluated(text);
        }
        self.script_of(words)
    }

    /// The script that a request calls by its SHA1.
    fn script_of(&self, words: &RequestArgs<'_>) -> Option<Sha> {
        match script_call(words)? {
            ScriptCall::Sha(hex) => Sha::parse(hex),
            ScriptCall::Text(_) => None,
        }
    }

    /// Gives a node a script, unless it was given it on this connection.
    fn give_script(&mut self, link_key: LinkKey, sha: Sha) {
        let Some(link) = self.links.get_mut(link_key) else { return };
        if link.scripts.contains(&sha) || link.pipe.outstanding_bytes() > Self::MOST_ON_LINK {
            return;
        }
        let Some(script) = self.shared.scripts.script(&sha) else { return };
        let mut load = Vec::new();
        encode::command(&mut load, &[b"SCRIPT", b"LOAD", &script.text]);
        if link.scripts.len() >= MOST_SCRIPTS {
            link.scripts.clear();
        }
        link.scripts.insert(sha);
        self.counters.scripts_given += 1;
        self.tell_node(link_key, &load);
    }

    /// Keeps the text of an EVAL, which a standalone would know by its SHA1 from then on.
    fn remember_evaluated(&mut self, text: &[u8]) -> Sha {
        let script = self.read_script(text);
        let kept = self.script_memory.kept.get_mut(&fingerprint(text));
        if let Some(sha) = kept.as_ref().and_then(|kept| kept.remembered) {
            return sha;
        }
        let sha = Sha::of(text);
        self.shared.scripts.remember(sha, &script, false);
        if let Some(kept) = kept {
            kept.remembered = Some(sha);
        }
        sha
    }

    /// A text as a script: what it calls is read once.
    pub(super) fn read_script(&mut self, text: &[u8]) -> Arc<Script> {
        self.heed_flushes();
        let memory = &mut self.script_memory;
        let fingerprint = fingerprint(text);
        if let Some(kept) = memory.kept.get(&fingerprint).filter(|kept| *kept.script.text == *text) {
            return Arc::clone(&kept.script);
        }
        let script = Arc::new(Script::read(text));
        if memory.bytes + text.len() > MOST_KEPT {
            memory.kept.clear();
            memory.bytes = 0;
        }
        memory.bytes += text.len();
        let kept = Kept { script: Arc::clone(&script), remembered: None };
        if let Some(before) = memory.kept.insert(fingerprint, kept) {
            memory.bytes -= before.script.text.len();
        }
        script
    }

    /// A script of the table.
    pub(super) fn script_by_sha(&mut self, sha: Sha) -> Option<Arc<Script>> {
        self.heed_flushes();
        let memory = &mut self.script_memory;
        if let Some(script) = memory.by_sha.get(&sha) {
            return Some(Arc::clone(script));
        }
        let script = self.shared.scripts.script(&sha)?;
        if memory.by_sha.len() >= MOST_SCRIPTS {
            memory.by_sha.clear();
        }
        memory.by_sha.insert(sha, Arc::clone(&script));
        Some(script)
    }

    /// Forgets what a SCRIPT FLUSH on any worker, or the table's limit, made untrue.
    #[inline]
    fn heed_flushes(&mut self) {
        let scripts = &self.shared.scripts;
        let (flushes, losses) = (scripts.flushes(), scripts.losses());
        let memory = &mut self.script_memory;
        if memory.losses != losses {
            *memory = Memory { losses, flushes: memory.flushes, ..Memory::default() };
        }
        if memory.flushes != flushes {
            memory.flushes = flushes;
            self.links.values_mut().for_each(|link| link.scripts.clear());
        }
    }

    /// Whether a node refused a script that it can be given, and the request may be sent again: nothing that its
    /// client has on the way may have been run in its place.
    pub(super) fn lacks_script(
        &mut self,
        entry: &InFlight,
        node: Option<NodeId>,
        event: Event<'_>,
        request: &[u8],
    ) -> bool {
        let script = entry.flags.has(RequestFlags::SCRIPT)
            && !entry.flags.has(RequestFlags::TRANSACTION)
            && !entry.flags.has(RequestFlags::LOADED);
        if !matches!(event, Event::Error(line) if line.starts_with(NOSCRIPT)) || !script {
            return false;
        }
        for link in self.links.values_mut().filter(|link| Some(link.node) == node) {
            link.scripts.clear();
        }
        let sha = with_queued(request, |words| self.script_of(words)).flatten();
        if sha.is_none_or(|sha| !self.shared.scripts.has(&sha)) {
            return false;
        }
        let Some(work) = self.clients.get(entry.client).and_then(|client| client.work.as_deref()) else {
            return false;
        };
        let first = work.queue.first();
        let after = |seq: u32| seq.wrapping_sub(first) > entry.seq.wrapping_sub(first);
        !work.queue.outstanding().any(|(seq, other)| {
            after(seq) && (other.slot == entry.slot || other.flags.has(PendingFlags::FAN))
        })
    }

    /// SCRIPT and FUNCTION, as far as they are not simply asked of all nodes.
    pub(super) fn scripts(
        &mut self,
        key: ClientKey,
        cluster: &Cluster,
        command: &Command,
        what: Scripts,
        request: &[u8],
        words: &RequestArgs<'_>,
    ) -> Flow {
        let traits = Traits::of(command);
        if let Some(objected) = self.object_to_script(key, cluster, command, words) {
            return self.objected(key, objected);
        }
        match what {
            Scripts::Load => {
                let text = words.word(2);
                let script = self.read_script(text);
                self.shared.scripts.remember(Sha::of(text), &script, true);
                let target = (command.name, traits);
                self.ask_living(key, cluster, target, Audience::Nodes, FanKind::ScriptLoad, request)
            }
            Scripts::Functions => {
                self.shared.scripts.long.doubt(); // a name may be another function's from now on
                let kind = FanKind::FunctionsChanged;
                self.fan_nodes(key, cluster, (command.name, traits), Audience::Masters, kind, request)
            }
            Scripts::Flush => {
                let valid =
                    words.count() == 2 || words.count() == 3 && (words.is(2, "SYNC") || words.is(2, "ASYNC"));
                let kind = if valid { FanKind::ScriptFlush } else { FanKind::Merge(Merge::Same) };
                let flow =
                    self.fan_nodes(key, cluster, (command.name, traits), Audience::Nodes, kind, request);
                if valid && flow == Flow::Done {
                    self.shared.scripts.flush();
                }
                flow
            }
            Scripts::Exists => {
                let known =
                    |at: usize| Sha::parse(words.word(at)).is_some_and(|sha| self.shared.scripts.has(&sha));
                let kind = FanKind::ScriptsExist((2..words.count()).map(known).collect());
                let target = (command.name, Traits::question());
                self.ask_living(key, cluster, target, Audience::Masters, kind, request)
            }
            Scripts::Kill => self.aside(key, cluster, (command.name, traits), Merge::Kill, request),
            Scripts::Stats => {
                let target = (command.name, Traits::question());
                self.aside(key, cluster, target, Merge::FunctionStats, request)
            }
        }
    }

    /// Asks all masters on connections that no client's request can hold up: an agent does it.
    fn aside(
        &mut self,
        key: ClientKey,
        cluster: &Cluster,
        target: (&'static str, Traits),
        merge: Merge,
        request: &[u8],
    ) -> Flow {
        let Some(client) = self.clients.get(key) else { return Flow::Close };
        if client.lane == Lane::CONTROL {
            return self.ask_masters_aside(key, cluster, target, merge, request);
        }
        let Some(seq) = self.begin_wait(key, Traits::question()) else { return Flow::Close };
        let Some(agent) = self.hire_on(Lane::CONTROL, key) else { return Flow::Close };
        self.instruct(agent, request);
        self.keep_on(agent, Some(Task::Aside { owner: key, seq }));
        Flow::Block
    }

    fn ask_masters_aside(
        &mut self,
        key: ClientKey,
        cluster: &Cluster,
        (name, traits): (&'static str, Traits),
        merge: Merge,
        request: &[u8],
    ) -> Flow {
        let mut targets = Audience::Masters.members(cluster);
        // A master that is down runs nothing; one that only looks so, since it is busy, is connected to already.
        let answers = |node| {
            self.routes[Lane::CONTROL.index()][usize::from(node)] != LinkKey::default()
                || !cluster.topology.node(node).failed
        };
        if targets.iter().any(|&(node, _)| answers(node)) {
            targets.retain(|&(node, _)| answers(node));
        }
        let Some(&(_, slot)) = targets.first() else { return self.unreachable(key, 0) };
        let missing = targets.iter().filter(|&&(node, _)| self.route(Lane::CONTROL, node).is_none()).count();
        if missing > 0 {
            return self.unreachable(key, slot);
        }
        let Some(client) = self.clients.get(key) else { return Flow::Close };
        let mut fan = self.new_fan(name, FanKind::Merge(merge), client.protocol(), traits.flags);
        fan.parts.parts.resize(targets.len(), Part::default());
        fan.remaining = targets.len();
        self.send_parts(key, fan, traits, targets, (&|_, _| {}, request))
    }
}

/// A number that two texts seldom share: of a few of their bytes, since reading all of them is what it is to save.
pub(super) fn fingerprint(text: &[u8]) -> u64 {
    const SAMPLES: usize = 16;
    let mut mixed = text.len() as u64;
    for sample in 0..SAMPLES {
        let at = text.len().saturating_sub(8) * sample / (SAMPLES - 1);
        let mut bytes = [0; 8];
        let piece = &text[at..text.len().min(at + 8)];
        bytes[..piece.len()].copy_from_slice(piece);
        mixed = (mixed ^ u64::from_le_bytes(bytes)).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
    }
    mixed
}
