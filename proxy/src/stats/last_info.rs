//! What masters said last when they were asked for INFO, for when one does not answer.

use std::sync::Arc;
use std::time::Instant;

use dashmap::DashMap;
use portico_slots::NodeId;

/// The last texts, by master and question.
#[derive(Debug, Default)]
pub struct LastInfo {
    texts: DashMap<(NodeId, Box<[u8]>), Text>,
}

/// What was said, and when.
#[derive(Clone, Debug)]
struct Text {
    at: Instant,
    text: Arc<[u8]>,
}

impl LastInfo {
    /// More texts than that are forgotten all at once: few questions are asked again and again, the others never.
    const MOST: usize = 256;
    /// Longer texts are not kept, in bytes.
    const LONGEST: usize = 256 * 1024;

    /// What a master answers a question (INFO as it was asked).
    pub fn note(&self, node: NodeId, question: &[u8], text: &[u8], now: Instant) {
        if text.len() > Self::LONGEST {
            return;
        }
        if self.texts.len() >= Self::MOST {
            self.texts.clear();
        }
        self.texts.insert((node, question.into()), Text { at: now, text: text.into() });
    }

    /// What it answered the same question last, and when.
    #[must_use]
    pub fn last(&self, node: NodeId, question: &[u8]) -> Option<(Instant, Arc<[u8]>)> {
        self.texts.get(&(node, question.into())).map(|last| (last.at, Arc::clone(&last.text)))
    }
}
