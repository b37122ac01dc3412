//! What one worker asks all of them on behalf of a client, and how their answers become one.

use portico_resp::encode;

use super::send::{Flow, Traits};
use super::{Effect, Engine, Gather, Question};
use crate::backend::{ClientKey, InFlight, RequestFlags};
use crate::command::Command;
use crate::local::client_line;
use crate::plan::Part;
use crate::session::{Fan, FanKind};

impl Engine {
    /// Asks every worker.
    pub(super) fn fan_workers(&mut self, key: ClientKey, command: &Command, question: Question) -> Flow {
        let Some(client) = self.clients.get(key) else { return Flow::Close };
        let protocol = client.protocol();
        let mut fan = self.new_fan(command.name, FanKind::Workers, protocol, RequestFlags::READONLY);
        fan.parts.parts.resize(self.shared.workers, Part::default());
        fan.remaining = self.shared.workers;
        let Some(seq) = self.begin_fan(key, fan, Traits::question()) else { return Flow::Close };
        let gather = Gather { worker: self.worker, client: key, seq, question: question.into() };
        self.effects.push(Effect::Gather(gather));
        Flow::Done
    }

    /// A worker asks. The answer may come later.
    pub fn asked(&mut self, gather: &Gather) {
        let answer = match &*gather.question {
            Question::List(filter) => {
                let mut lines = String::new();
                let seconds = self.seconds();
                for (_, client) in self.clients().filter(|(_, client)| filter.admits(client)) {
                    client_line(client, self.now, seconds, &mut lines);
                }
                lines.into_bytes()
            }
            &Question::Hearer(id) => self.find_hearer(id),
            &Question::Unblock(id, how) => u8::from(self.unblock_client(id, how)).to_string().into_bytes(),
        };
        self.effects.push(Effect::Gathered {
            to: gather.worker,
            client: gather.client,
            seq: gather.seq,
            answer,
        });
    }

    /// A worker's part of what [`Engine::fan_workers`] asked.
    pub fn gathered(&mut self, client: ClientKey, seq: u32, worker: usize, answer: &[u8]) {
        if self.enabling.contains_key(&client) {
            return self.heard_of(client, seq, worker, answer);
        }
        let entry = InFlight { client, seq, part: worker as u32, ..InFlight::nobodys() };
        self.part_answered(&entry, answer);
    }

    /// The one reply to what all workers were asked.
    pub(super) fn tell_gathered(&self, fan: &Fan, out: &mut Vec<u8>) {
        if fan.name == "client|list" {
            let text: Vec<u8> = fan.parts.iter().flatten().copied().collect();
            return encode::verbatim_txt(out, &text, fan.protocol);
        }
        let count = |part| std::str::from_utf8(part).ok()?.parse::<i64>().ok();
        encode::integer(out, fan.parts.iter().filter_map(count).sum());
    }
}
