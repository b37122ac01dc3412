//! CONFIG: Portico's own settings are told and changed here, the nodes' asked of them and set at them.

use std::sync::Arc;

use portico_resp::encode;
use portico_slots::{NodeIndex, Slot};

use super::fan::Audience;
use super::impatient::{Inquiry, PATIENCE};
use super::send::{Flow, Traits};
use super::{Effect, Engine, Question};
use crate::backend::{ClientKey, InFlight};
use crate::command::Command;
use crate::local;
use crate::plan::{Asked, Part, RequestArgs, SettingsChange};
use crate::session::{ClientFlags, Fan, FanKind, Told};
use crate::topology::Cluster;

impl Engine {
    /// CONFIG GET. No node is asked for what Portico knows; for what is the nodes', all masters are, and those who do not
    /// answer at once are not waited for.
    pub(super) fn config_get(
        &mut self,
        key: ClientKey,
        cluster: &Cluster,
        command: &Command,
        words: &RequestArgs<'_>,
    ) -> Flow {
        let Some(client) = self.clients.get(key) else { return Flow::Close };
        let protocol = client.protocol();
        let topology = &cluster.topology;
        let asked =
            local::asked_settings(words, &self.config, topology.masters().len() as u64, &cluster.identity);
        if let Some(reply) = local::known_settings(&asked, protocol) {
            self.reply_now(key, &reply);
            return Flow::Done;
        }
        let questions = [false, true].map(|sums| local::questions(&asked, sums, &cluster.version)).concat();
        let requests: Vec<(NodeIndex, &Vec<u8>)> = questions
            .iter()
            .flat_map(|question| topology.masters().iter().map(move |&master| (master, question)))
            .collect();
        if requests.is_empty() {
            return self.unreachable(key, 0);
        }
        let mut words: Vec<&[u8]> = vec![b"CONFIG", b"GET"];
        words.extend(asked.iter().filter_map(Asked::of_node));
        let mut otherwise = Vec::new();
        encode::command(&mut otherwise, &words);
        let inquiry = Inquiry {
            name: command.name,
            kind: FanKind::ConfigGet(asked),
            traits: Traits::question(),
            patience: PATIENCE,
            otherwise: &otherwise,
        };
        self.ask_impatiently(key, inquiry, requests.into_iter())
    }

    /// CONFIG SET. The client waits for the answer: what it has sent behind finds the settings changed.
    pub(super) fn config_set(
        &mut self,
        key: ClientKey,
        cluster: &Cluster,
        command: &Command,
        words: &RequestArgs<'_>,
    ) -> Flow {
        let flow = self.change_settings(key, cluster, command, words);
        self.until_answered(key, flow)
    }

    /// All of it is looked at first; Portico's own settings change when the nodes have taken theirs.
    fn change_settings(
        &mut self,
        key: ClientKey,
        cluster: &Cluster,
        command: &Command,
        words: &RequestArgs<'_>,
    ) -> Flow {
        let most = self.shared.settings.most_clients();
        let local::Settings { own, nodes, whole } =
            match local::settings_to_set(words, &self.config, most, &cluster.identity) {
                Ok(settings) => settings,
                Err(error) => return self.refuse(key, &error),
            };
        if nodes.is_empty() && whole.is_none() {
            self.shared.settings.change(&own);
            return self.fan_workers(key, command, Question::Settings);
        }
        let topology = &cluster.topology;
        let masters = topology.masters();
        let shares: Vec<u64> =
            whole.iter().flat_map(|&(_, whole)| local::shares(whole, masters.len())).collect();
        let members = Audience::Nodes.members(cluster);
        let request = |node: NodeIndex| {
            let mut words: Vec<&[u8]> = vec![b"CONFIG", b"SET"];
            nodes.iter().for_each(|(name, value)| words.extend([name.as_slice(), value]));
            let at = masters.iter().position(|&master| {
                master == node || topology.replicas_of(master).any(|replica| replica == node)
            });
            let share = at.and_then(|at| shares.get(at)).map(u64::to_string).unwrap_or_default();
            if let Some((name, _)) = &whole {
                words.extend([name.as_slice(), share.as_bytes()]);
            }
            let mut request = Vec::new();
            encode::command(&mut request, &words);
            request
        };
        let parts: Vec<(NodeIndex, Slot, Vec<u8>)> =
            members.into_iter().map(|(node, slot)| (node, slot, request(node))).collect();
        let lower = |name: &[u8]| String::from_utf8_lossy(name).to_ascii_lowercase();
        let mut remembered: Vec<(String, Vec<u8>)> =
            nodes.iter().map(|(name, value)| (lower(name), value.clone())).collect();
        // Who comes later gets as much as each of the others has.
        let most = shares.iter().max().map(|share| share.to_string().into_bytes());
        remembered.extend(whole.iter().map(|(name, _)| lower(name)).zip(most));
        let told = parts.iter().map(|&(node, ..)| topology.node(node).process().to_owned()).collect();
        let change = SettingsChange { own, nodes: remembered, told };
        let traits = Traits::of(command);
        self.fan_requests(key, (command.name, traits), FanKind::ConfigSet(Box::new(change)), parts)
    }

    /// CONFIG REWRITE and RESETSTAT: the nodes' part, and then Portico's.
    pub(super) fn config_everywhere(
        &mut self,
        key: ClientKey,
        cluster: &Cluster,
        command: &Command,
        kind: FanKind,
        request: &[u8],
    ) -> Flow {
        let target = (command.name, Traits::of(command));
        self.fan_nodes(key, cluster, target, Audience::Nodes, kind, request)
    }

    /// All nodes have done their part of a request; now the workers do theirs.
    pub(super) fn workers_too(
        &mut self,
        entry: &InFlight,
        index: usize,
        (seq, mut fan): (u32, Box<Fan>),
        question: Question,
    ) {
        fan.kind = FanKind::Workers(Told::Done);
        fan.parts.clear();
        fan.parts.parts.resize(self.shared.workers, Part::default());
        fan.remaining = self.shared.workers;
        let Some(client) = self.clients.get_mut(entry.client) else { return };
        let Some(work) = client.work.as_deref_mut() else { return };
        work.fans.insert(index, (seq, fan));
        self.ask_workers(entry.client, seq, question);
    }

    /// The settings have changed.
    pub(super) fn take_settings(&mut self) {
        let config = self.shared.settings.config();
        self.limits.max_bulk_len = config.proto_max_bulk_len;
        self.output_watch = config.client_output_buffer_limit.harmless();
        if config.requirepass.is_none() {
            self.clients.values_mut().for_each(|client| {
                client.flags.set(ClientFlags::AUTHENTICATED);
            });
        }
        self.config = Arc::clone(&config);
        self.effects.push(Effect::Settings(config));
    }

    /// CONFIG RESETSTAT: what INFO tells of clients begins anew.
    pub(super) fn reset_statistics(&mut self) {
        self.counters.connections = 0;
        self.counters.rejected_connections = 0;
        self.publish();
    }
}
