//! INFO: all masters are asked, none is waited for, and what they say is told as one server's. Whoever watches a cluster
//! asks most when something is wrong with it.

use std::borrow::Cow;

use portico_resp::{bulk_reply, encode};

use super::Engine;
use super::impatient::{Inquiry, PATIENCE};
use super::send::{Flow, Traits};
use crate::backend::ClientKey;
use crate::command::Args;
use crate::local::{self, Master, Surroundings};
use crate::plan::RequestArgs;
use crate::session::{Fan, FanKind, InfoQuestion};
use crate::topology::Cluster;

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
        let traits = Traits::question();
        let inquiry = Inquiry { name: "info", kind, traits, patience: PATIENCE, otherwise: b"" };
        self.ask_impatiently(key, inquiry, masters.iter().map(|&master| (master, request)))
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
