//! Reads the text that a node answers to CLUSTER NODES: Redis 3 to 8 and Valkey.

use crate::{Address, NodeId, Role, SLOT_COUNT, Slot};
use std::ops::RangeInclusive;

/// The cluster as one node sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct View {
    /// Where the node was asked: reachable, whatever it announces.
    pub asked: Address,
    /// The node that answered.
    pub myself: NodeId,
    /// What it says of each node that it knows, itself included.
    pub lines: Vec<Line>,
}

impl View {
    /// What the node says of `id`.
    #[must_use]
    pub fn line(&self, id: &NodeId) -> Option<&Line> {
        self.lines.iter().find(|line| line.id == *id)
    }

    /// What the node says of itself.
    #[must_use]
    pub fn own(&self) -> Option<&Line> {
        self.line(&self.myself)
    }
}

/// One line: one node in another's (or its own) eyes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Line {
    /// The node.
    pub id: NodeId,
    /// What it announces, before any mapping: its IP, or its hostname if it has no IP (empty or `?`). None if it has
    /// neither, no port, or the flag `noaddr`.
    pub address: Option<Address>,
    /// The hostname it announces (Redis 7).
    pub hostname: Option<String>,
    /// Its flags.
    pub flags: Flags,
    /// The master that it replicates.
    pub master: Option<NodeId>,
    /// Its config epoch; the higher one wins a quarrel about a slot.
    pub config_epoch: u64,
    /// Whether the viewer's cluster-bus link to it is up.
    pub connected: bool,
    /// The slots that it owns.
    pub slots: Vec<RangeInclusive<Slot>>,
    /// `[slot->-node]`: slots that leave it, and to where. Only on a node's line about itself.
    pub migrating: Vec<(Slot, NodeId)>,
    /// `[slot-<-node]`: slots that come to it, and from where. Only on a node's line about itself.
    pub importing: Vec<(Slot, NodeId)>,
}

impl Line {
    /// Its role, if the line tells (a replica may have lost its master, a node in handshake has no role yet).
    #[must_use]
    pub fn role(&self) -> Option<Role> {
        if self.flags.master { Some(Role::Master) } else { self.master.map(|of| Role::Replica { of }) }
    }
}

/// A line's flags; those that Portico has no use for are not kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Flags {
    /// The line is about the node that answered.
    pub myself: bool,
    /// A master.
    pub master: bool,
    /// `slave`.
    pub replica: bool,
    /// `fail`: the cluster agrees that it is down.
    pub failed: bool,
    /// `fail?`: the node that answered cannot reach it.
    pub suspected: bool,
    /// `handshake`: not yet, or never, a member; its id is made up.
    pub handshake: bool,
    /// `noaddr`: its address is not known any more.
    pub noaddr: bool,
}

/// Why a text is not an answer to CLUSTER NODES.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ParseError {
    /// A line that cannot be understood. Skipping it could lose slots, so the whole view is refused.
    #[error("CLUSTER NODES, line {line}: {what}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        what: &'static str,
    },
    /// No line says which node answered.
    #[error("CLUSTER NODES: no line is flagged myself")]
    NoMyself,
    /// Several lines say so.
    #[error("CLUSTER NODES: several lines are flagged myself")]
    TwoMyselfs,
}

/// Reads `text`, the answer of the node at `asked`.
///
/// A node that has not learned its own IP yet announces none (`:7000@17000`): its line's address is then its
/// hostname or None, and [`crate::merge()`] takes what other nodes say of it, or `asked`.
///
/// # Errors
/// If a line cannot be understood, or if not exactly one is flagged `myself`.
pub fn parse(text: &str, asked: &Address) -> Result<View, ParseError> {
    let mut lines = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        // `vars currentEpoch ...` ends the file nodes.conf, which is otherwise this format
        if line.trim().is_empty() || line.starts_with("vars ") {
            continue;
        }
        lines.push(parse_line(line).map_err(|what| ParseError::Line { line: number, what })?);
    }
    let mut own = lines.iter().filter(|line| line.flags.myself);
    let myself = own.next().ok_or(ParseError::NoMyself)?.id;
    if own.next().is_some() {
        return Err(ParseError::TwoMyselfs);
    }
    Ok(View { asked: asked.clone(), myself, lines })
}

/// `id ip:port@cport[,hostname[,aux=..]] flags master ping pong epoch link [slots]`
fn parse_line(line: &str) -> Result<Line, &'static str> {
    let mut fields = line.split_ascii_whitespace();
    let mut next = || fields.next().ok_or("too few fields");

    let id = next()?.parse().map_err(|_| "bad node id")?;
    let (address, hostname) = parse_endpoint(next()?)?;
    let flags = parse_flags(next()?);
    let master = match next()? {
        "-" => None,
        id => Some(id.parse().map_err(|_| "bad id of the master")?),
    };
    let _ping_sent = next()?;
    let _pong_received = next()?;
    let config_epoch = next()?.parse().map_err(|_| "bad config epoch")?;
    let connected = match next()? {
        "connected" => true,
        "disconnected" => false,
        _ => return Err("bad link state"),
    };
    let address = address.filter(|_| !flags.noaddr);
    let (slots, migrating, importing) = (Vec::new(), Vec::new(), Vec::new());
    let mut line =
        Line { id, address, hostname, flags, master, config_epoch, connected, slots, migrating, importing };
    fields.try_for_each(|field| parse_slots(field, &mut line))?;
    Ok(line)
}

fn parse_endpoint(field: &str) -> Result<(Option<Address>, Option<String>), &'static str> {
    let mut parts = field.split(',');
    let announced = parts.next().unwrap_or_default();
    // between the hostname and here Redis 7.2 and Valkey may put `shard-id=..` and others
    let hostname = parts.next().filter(|name| !matches!(*name, "" | "?") && !name.contains('='));

    let announced = announced.rsplit_once('@').map_or(announced, |(address, _bus_port)| address);
    let (ip, port) = announced.rsplit_once(':').ok_or("no port in the address")?;
    let host = match ip {
        "" | "?" => hostname,
        ip => Some(ip),
    };
    let address = match (host, port) {
        (None, _) | (_, "0") => None, // 0: a port that this kind of connection (plain, TLS) does not have
        (Some(host), port) => Some(format!("{host}:{port}").parse().map_err(|_| "bad address")?),
    };
    Ok((address, hostname.map(str::to_owned)))
}

fn parse_flags(field: &str) -> Flags {
    let mut flags = Flags::default();
    for flag in field.split(',') {
        match flag {
            "myself" => flags.myself = true,
            "master" => flags.master = true,
            "slave" => flags.replica = true,
            "fail" => flags.failed = true,
            "fail?" => flags.suspected = true,
            "handshake" => flags.handshake = true,
            "noaddr" => flags.noaddr = true,
            _ => {} // noflags, nofailover, and what is to come
        }
    }
    flags
}

/// `5`, `0-99`, `[93->-id]` or `[77-<-id]`.
fn parse_slots(field: &str, line: &mut Line) -> Result<(), &'static str> {
    if let Some(moving) = field.strip_prefix('[') {
        let moving = moving.strip_suffix(']').ok_or("bad open slot")?;
        let (slot, id, moves) = if let Some((slot, id)) = moving.split_once("->-") {
            (slot, id, &mut line.migrating)
        } else if let Some((slot, id)) = moving.split_once("-<-") {
            (slot, id, &mut line.importing)
        } else {
            return Err("bad open slot");
        };
        moves.push((parse_slot(slot)?, id.parse().map_err(|_| "bad node id of an open slot")?));
        return Ok(());
    }
    let (first, last) = field.split_once('-').unwrap_or((field, field));
    let range = parse_slot(first)?..=parse_slot(last)?;
    if range.is_empty() {
        return Err("slot range ends before it starts");
    }
    line.slots.push(range);
    Ok(())
}

fn parse_slot(text: &str) -> Result<Slot, &'static str> {
    text.parse().ok().filter(|&slot| slot < SLOT_COUNT).ok_or("bad slot")
}

#[cfg(test)]
mod tests;
