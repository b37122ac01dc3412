//! SCAN over all masters: one step of the walk, and at its end the question whether the map is still the same.

use std::collections::HashMap;

use portico_resp::{Arg, Items, bulk_reply, encode};
use portico_slots::{merge, parse};

use super::Engine;
use super::fan::Audience;
use super::send::{Flow, Traits};
use crate::backend::{ClientKey, InFlight, RequestFlags};
use crate::command::Command;
use crate::plan::Part;
use crate::plan::scan_cursor::ScanCursor;
use crate::session::{Fan, FanKind};
use crate::topology::Cluster;

impl Engine {
    /// One step of the walk.
    pub(super) fn scan(
        &mut self,
        key: ClientKey,
        cluster: &Cluster,
        command: &Command,
        request: &[u8],
        args: &[Arg],
    ) -> Flow {
        let traits = Traits::of(command);
        let given = std::str::from_utf8(args[1].of(request)).ok().and_then(|text| text.parse::<u64>().ok());
        // Sources of open slots before their targets, so that a key that is being moved is not missed.
        let masters = Audience::MastersInTurn.members(cluster);
        let Some(&(_, first)) = masters.first() else { return self.unreachable(key, 0) };
        let Some(given) = given else {
            return self.send(key, first, traits, request); // the node has the words for it
        };
        let cursor = ScanCursor::decode(given, ScanCursor::tag(&cluster.topology), masters.len());
        let (node, slot) = masters[usize::from(cursor.node)];
        if let Some(stall) = self.gate_fan(key, traits, std::iter::empty()) {
            return Flow::Wait(stall);
        }
        let link = match self.ready_unless_lost(key, node, slot) {
            Ok(link) => link,
            Err(flow) => return flow,
        };
        let Some(client) = self.clients.get(key) else { return Flow::Close };
        let protocol = client.protocol();
        let mut fan = self.new_fan(command.name, FanKind::Scan(cursor), protocol, traits.flags);
        fan.parts.parts.push(Part::default());
        fan.remaining = 1;
        let Some(seq) = self.begin_fan(key, fan, traits) else { return Flow::Close };
        let entry = InFlight { client: key, seq, part: 0, len: 0, slot, flags: traits.flags };
        self.send_part(link, entry, |out| {
            encode::array_header(out, args.len());
            out.extend_from_slice(args[0].framed(request));
            encode::bulk(out, cursor.cursor.to_string().as_bytes());
            args[2..].iter().for_each(|arg| out.extend_from_slice(arg.framed(request)));
        });
        Flow::Done
    }

    /// Makes the reply of one step; at the end of the walk it returns the last node's keys instead.
    pub(super) fn scan_step(&self, fan: &Fan, cursor: ScanCursor, out: &mut Vec<u8>) -> Option<Vec<u8>> {
        let reply = fan.parts.iter().next().unwrap_or_default();
        let mut items = Items::new(reply).into_iter().flatten();
        let next =
            items.next().and_then(bulk_reply).and_then(|text| std::str::from_utf8(text).ok()?.parse().ok());
        let (Some(next), Some(keys)) = (next, items.next()) else {
            encode::error(out, "ERR SCAN: the node's reply cannot be read");
            return None;
        };
        match cursor.after(next, self.cluster.topology.masters().len()) {
            Ok(Some(after)) => tell(after.encode(), keys, out),
            Ok(None) => return Some(keys.to_vec()),
            Err(error) => encode::error(out, error.to_string()),
        }
        None
    }

    /// The walk is at its end: asks the masters whether the map is still the one it began with. Portico's own may be
    /// behind: nothing tells it of a slot that moves while nobody asks for its keys.
    pub(super) fn confirm_scan(
        &mut self,
        entry: &InFlight,
        index: usize,
        (seq, mut fan): (u32, Box<Fan>),
        cursor: ScanCursor,
        keys: Vec<u8>,
    ) {
        let cluster = std::sync::Arc::clone(&self.cluster);
        let masters = Audience::Masters.members(&cluster);
        fan.kind = FanKind::ScanConfirm(cursor, keys);
        fan.parts.clear();
        fan.parts.parts.resize(masters.len(), Part::default());
        fan.remaining = masters.len();
        let Some(work) = self.clients.get_mut(entry.client).and_then(|client| client.work.as_deref_mut())
        else {
            return;
        };
        work.fans.insert(index, (seq, fan));
        let mut request = Vec::new();
        encode::command(&mut request, &[b"CLUSTER", b"NODES"]);
        for ((node, slot), part) in masters.into_iter().zip(0..) {
            let next = InFlight { part, slot, flags: RequestFlags::READONLY, ..*entry };
            self.send_next(next, cluster.topology.node(node).id, &request);
        }
    }

    /// Whether what the masters say of the map is what the walk began with.
    pub(super) fn is_unchanged(&mut self, cursor: ScanCursor, fan: &Fan) -> bool {
        let topology = &self.cluster.topology;
        let texts = fan.parts.iter().filter_map(|reply| std::str::from_utf8(bulk_reply(reply)?).ok());
        let addresses = topology.masters().iter().map(|&master| &topology.node(master).address);
        let views: Vec<_> =
            texts.zip(addresses).filter_map(|(text, address)| parse(text, address).ok()).collect();
        let run_ids: HashMap<_, _> =
            topology.nodes().iter().filter_map(|node| Some((node.id, node.run_id.clone()?))).collect();
        let map = &self.config.node_address_map;
        let now = merge(&views, &|address| map.map(address)).map(|merged| merged.with_run_ids(&run_ids));
        let unchanged = now.is_ok_and(|now| ScanCursor::tag(&now) == cursor.tag);
        self.refresh_wanted |= !unchanged;
        unchanged
    }
}

/// SCAN's reply: Portico's cursor and a node's keys.
pub(super) fn tell(cursor: u64, keys: &[u8], out: &mut Vec<u8>) {
    encode::array_header(out, 2);
    encode::bulk(out, cursor.to_string().as_bytes());
    out.extend_from_slice(keys);
}
