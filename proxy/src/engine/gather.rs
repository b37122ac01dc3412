//! What one worker asks all of them on behalf of a client, and how their answers become one.

use std::fmt::Write as _;

use portico_resp::encode;

use super::send::{Flow, Traits};
use super::{Effect, Engine, Gather, Question};
use crate::backend::{ClientKey, InFlight, RequestFlags};
use crate::command::{Args, Command};
use crate::local::{ClientFilter, client_line, kill_filter};
use crate::plan::{Part, RequestArgs};
use crate::session::{Client, ClientFlags, Fan, FanKind, Told};
use crate::topology::Cluster;

impl Engine {
    /// Asks every worker.
    pub(super) fn fan_workers(&mut self, key: ClientKey, command: &Command, question: Question) -> Flow {
        let Some(client) = self.clients.get(key) else { return Flow::Close };
        let protocol = client.protocol();
        let kind = FanKind::Workers(question.told());
        let mut fan = self.new_fan(command.name, kind, protocol, RequestFlags::READONLY);
        fan.parts.parts.resize(self.shared.workers, Part::default());
        fan.remaining = self.shared.workers;
        let Some(seq) = self.begin_fan(key, fan, Traits::question()) else { return Flow::Close };
        self.ask_workers(key, seq, question);
        Flow::Done
    }

    /// Asks every worker, on behalf of a client or of nobody.
    pub(super) fn ask_workers(&mut self, client: ClientKey, seq: u32, question: Question) {
        self.shared.ask_all();
        let gather = Gather { worker: self.worker, client, seq, question: question.into() };
        self.effects.push(Effect::Gather(gather));
    }

    /// A worker asks. The answer may come later.
    pub fn asked(&mut self, gather: &Gather) {
        let answer = match &*gather.question {
            Question::List { filter, asks, query } => self.list_clients(filter, *asks, *query),
            Question::Kill { filter, me, .. } => self.kill_clients(filter, *me).to_string().into_bytes(),
            Question::Pause => {
                self.look_at_pause();
                Vec::new()
            }
            Question::Settings => {
                self.take_settings();
                Vec::new()
            }
            Question::ResetStat => {
                self.reset_statistics();
                Vec::new()
            }
            Question::Monitor => {
                self.look_at_monitors();
                Vec::new()
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
        self.shared.answered();
    }

    /// The lines of CLIENT LIST, each with the number before it by which it is placed among the others'.
    fn list_clients(&self, filter: &ClientFilter, asks: u64, query: (usize, usize)) -> Vec<u8> {
        let mut lines = String::new();
        let times = (self.now, self.seconds());
        for (_, client) in self.clients().filter(|(_, client)| filter.admits(client, times)) {
            let mut line = |place: u64| {
                // Writing to a string cannot fail.
                let _ = write!(lines, "{place} ");
                let query = if client.id == asks { query } else { (0, 0) };
                client_line(client, times, &self.cluster.identity, query, &mut lines);
            };
            match filter.ids.as_ref().and_then(|ids| ids.get(&client.id.cast_signed())) {
                // As they were asked for, be it twice.
                Some(places) if !places.is_empty() => places.iter().for_each(|&place| line(place)),
                _ => line(client.id),
            }
        }
        lines.into_bytes()
    }

    /// CLIENT KILL, asked of this worker. `me`, who asks, is closed after the reply. Returns how many.
    fn kill_clients(&mut self, filter: &ClientFilter, me: u64) -> usize {
        let times = (self.now, self.seconds());
        let of =
            |(key, client): (ClientKey, &Client)| filter.admits(client, times).then_some((key, client.id));
        let found: Vec<(ClientKey, u64)> = self.clients().filter_map(of).collect();
        for &(key, id) in &found {
            if id != me {
                self.close_client(key);
            } else if let Some(client) = self.clients.get_mut(key) {
                client.flags.set(ClientFlags::CLOSING);
            }
        }
        found.len()
    }

    /// CLIENT KILL. The client waits for the answer: what it has sent behind does not run if it kills itself.
    pub(super) fn kill(
        &mut self,
        key: ClientKey,
        cluster: &Cluster,
        command: &Command,
        words: &RequestArgs<'_>,
    ) -> Flow {
        let Some(client) = self.clients.get(key) else { return Flow::Close };
        let acts_for = client.standing.as_deref().and_then(|standing| standing.acts_for);
        let me = acts_for.unwrap_or(client.id);
        let filter = match kill_filter(words, me, &cluster.identity) {
            Ok(filter) => filter,
            Err(error) => return self.refuse(key, &error),
        };
        let flow =
            self.fan_workers(key, command, Question::Kill { filter, me, old_form: words.count() == 3 });
        self.until_answered(key, flow)
    }

    /// A worker's part of what `Engine::fan_workers` asked.
    pub fn gathered(&mut self, client: ClientKey, seq: u32, worker: usize, answer: &[u8]) {
        if self.enabling.contains_key(&client) {
            return self.heard_of(client, seq, worker, answer);
        }
        let entry = InFlight { client, seq, part: worker as u32, ..InFlight::nobodys() };
        self.part_answered(&entry, answer);
    }

    /// The one reply to what all workers were asked.
    pub(super) fn tell_gathered(told: Told, fan: &Fan, out: &mut Vec<u8>) {
        let count = |part| std::str::from_utf8(part).ok()?.parse::<i64>().ok();
        let count = || fan.parts.iter().filter_map(count).sum();
        match told {
            Told::Lines => encode::verbatim_txt(out, &in_order(fan), fan.protocol),
            Told::Count => encode::integer(out, count()),
            Told::Found if count() == 0 => encode::error(out, "ERR No such client"),
            Told::Found | Told::Done => encode::simple(out, "OK"),
        }
    }
}

impl Question {
    fn told(&self) -> Told {
        match self {
            Self::List { .. } => Told::Lines,
            Self::Kill { old_form: true, .. } => Told::Found,
            Self::Kill { .. } | Self::Unblock(..) => Told::Count,
            Self::Pause | Self::Monitor | Self::Hearer(_) | Self::Settings | Self::ResetStat => Told::Done,
        }
    }
}

/// All workers' lines, in the order of the numbers before them and without those.
fn in_order(fan: &Fan) -> Vec<u8> {
    let lines = fan.parts.iter().flat_map(|part| part.split_inclusive(|&byte| byte == b'\n'));
    let mut lines: Vec<(u64, &[u8])> = lines
        .filter_map(|line| {
            let (place, line) = std::str::from_utf8(line).ok()?.split_once(' ')?;
            Some((place.parse().ok()?, line.as_bytes()))
        })
        .collect();
    lines.sort_by_key(|(place, _)| *place);
    lines.into_iter().flat_map(|(_, line)| line).copied().collect()
}
