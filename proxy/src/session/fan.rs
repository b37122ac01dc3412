//! A request that is split over nodes or workers, until its last part is answered.

use std::collections::VecDeque;

use portico_resp::{Arg, Protocol};
use portico_slots::{NodeId, Slot};

use crate::backend::RequestFlags;
use crate::plan::scan_cursor::ScanCursor;
use crate::plan::{Asked, Layout, Merge, Parts, SettingsChange, Split};
use crate::pubsub::Kind;

/// What is asked about subscriptions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// PUBSUB CHANNELS, SHARDCHANNELS.
    Channels(Kind),
    /// PUBSUB NUMSUB, SHARDNUMSUB.
    Subscribers(Kind),
    /// PUBSUB NUMPAT, of these nodes.
    Patterns(Vec<NodeId>),
}

/// What is made of the parts' replies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FanKind {
    /// One reply by a rule.
    Merge(Merge),
    /// INFO: a single server's, for the whole.
    Info(InfoQuestion),
    /// RANDOMKEY, first step: how many keys each master has.
    RandomSizes,
    /// ACL LIST, or GETUSER of the user that Portico connects as.
    Users,
    /// CONFIG GET.
    ConfigGet(Vec<Asked>),
    /// CONFIG SET at the nodes, and what follows when they have taken it.
    ConfigSet(Box<SettingsChange>),
    /// CONFIG REWRITE.
    ConfigRewrite,
    /// CONFIG RESETSTAT at the nodes, after which the workers do theirs.
    ConfigResetStat,
    /// SCAN on one node.
    Scan(ScanCursor),
    /// SCAN's last step: the keys that the last node told, held until the nodes' map is seen to be the walk's.
    ScanConfirm(ScanCursor, Vec<u8>),
    /// SCRIPT LOAD.
    ScriptLoad,
    /// SCRIPT EXISTS, with which texts are known.
    ScriptsExist(Vec<bool>),
    /// SCRIPT FLUSH.
    ScriptFlush,
    /// What changes the nodes' functions.
    FunctionsChanged,
    /// What every worker answered.
    Workers(Told),
    /// Who listens to what, and for names the pattern that they have to match.
    PubSub(Who, Option<Vec<u8>>),
}

/// INFO, as it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InfoQuestion {
    /// The request.
    pub request: Box<[u8]>,
    /// The sections' names, in lower case; none for those that INFO tells by itself.
    pub sections: Vec<String>,
    /// The master that each part is for.
    pub masters: Vec<NodeId>,
}

/// How the answers of all workers are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// As one text, its lines in the order of the numbers before them.
    Lines,
    /// As the sum of their counts.
    Count,
    /// OK, or that there is no such client if nobody counted one.
    Found,
    /// OK.
    Done,
}

/// What is left of a request with so many parts that they are sent a few at a time.
#[derive(Debug)]
pub struct Unsent {
    /// The whole request.
    pub request: Vec<u8>,
    /// Its arguments.
    pub args: Vec<Arg>,
    /// Its keys, by slot.
    pub groups: Split,
    /// Where its keys are.
    pub layout: Layout,
    /// What goes before each part.
    pub prefix: &'static [u8],
    /// The next part.
    pub part: u32,
    /// Its first key's place in [`Split::order`].
    pub at: usize,
}

impl Unsent {
    /// Parts that are on their way at once: a node's other clients wait behind its share of them.
    pub const MOST_SENT: usize = 1024;
}

/// The next part's number, its slot, and what is sent.
impl Iterator for Unsent {
    type Item = (u32, Slot, Vec<u8>);

    fn next(&mut self) -> Option<Self::Item> {
        let (slot, keys) = self.groups.part_at(self.at)?;
        let mut request = self.prefix.to_vec();
        Split::encode(&self.request, &self.args, self.layout, keys, &mut request);
        let part = self.part;
        self.part += 1;
        self.at += keys.len();
        Some((part, slot, request))
    }
}

/// A request that is split over nodes (or workers) and not answered yet.
#[derive(Debug)]
pub struct Fan {
    /// The command's name.
    pub name: &'static str,
    /// What is made of the replies.
    pub kind: FanKind,
    /// The client's, when it asked.
    pub protocol: Protocol,
    /// The parts and their replies.
    pub parts: Parts,
    /// Parts without a reply.
    pub remaining: usize,
    /// Nodes to be asked one after another, by part, after the current part is answered.
    pub later: VecDeque<(NodeId, Slot, u32)>,
    /// What they are asked.
    pub request: Vec<u8>,
    /// What the parts are.
    pub flags: RequestFlags,
    /// Parts of a large request that wait until earlier ones are answered.
    pub unsent: Option<Box<Unsent>>,
}

impl Fan {
    /// The parts that are to be sent now: none before half of those on their way are answered.
    pub fn next_parts(&mut self) -> Vec<(u32, Slot, Vec<u8>)> {
        let Some(unsent) = self.unsent.as_mut() else { return Vec::new() };
        let sent = self.remaining - (self.parts.parts.len() - unsent.part as usize);
        if sent > Unsent::MOST_SENT / 2 {
            return Vec::new();
        }
        let next = unsent.take(Unsent::MOST_SENT - sent).collect();
        if unsent.part as usize == self.parts.parts.len() {
            self.unsent = None;
        }
        next
    }
}

impl Default for Fan {
    fn default() -> Self {
        Self {
            name: "",
            kind: FanKind::Merge(Merge::First),
            protocol: Protocol::default(),
            parts: Parts::default(),
            remaining: 0,
            later: VecDeque::new(),
            request: Vec::new(),
            flags: RequestFlags::default(),
            unsent: None,
        }
    }
}
