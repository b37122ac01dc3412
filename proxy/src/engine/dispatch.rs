//! One request: what it is, whether it may run, and where it goes.

use portico_resp::Arg;
use portico_slots::{Slot, slot};

use super::Engine;
use super::fan::Audience;
use super::send::{Flow, Traits};
use crate::backend::{ClientKey, RequestFlags};
use crate::command::{
    Args as _, Command, Fan, Flags, Handling, KeyError, Keys, Resolved, Rule, Transaction, block_option,
    errors,
};
use crate::config::CrossSlot;
use crate::local;
use crate::plan::{Layout, Merge, RequestArgs};
use crate::session::{ClientFlags, FanKind};
use crate::topology::Cluster;

impl Engine {
    /// Sends or answers one request, or says why it has to wait.
    #[inline]
    pub(super) fn dispatch(
        &mut self,
        key: ClientKey,
        cluster: &Cluster,
        request: &[u8],
        args: &[Arg],
    ) -> Flow {
        let words = RequestArgs::new(request, args);
        let command = match cluster.table.resolve(&words) {
            Resolved::Command(command) => command,
            Resolved::UnknownCommand if args.is_empty() => return Flow::Done,
            Resolved::UnknownCommand if words.is(0, "post") || words.is(0, "host:") => {
                self.close_attacker(key);
                return Flow::Close;
            }
            // Until the nodes have said which commands they have, nobody knows.
            Resolved::UnknownCommand | Resolved::UnknownSubcommand(_)
                if cluster.topology.masters().is_empty() =>
            {
                return self.unreachable(key, 0);
            }
            Resolved::UnknownCommand => return self.unknown(key, &errors::unknown_command(&words)),
            Resolved::UnknownSubcommand(_) => return self.unknown(key, &errors::unknown_subcommand(&words)),
        };
        let Some(mut client) = self.clients.get_mut(key) else { return Flow::Close };
        if !command.arity_ok(args.len()) {
            return self.reject(key, command, &errors::wrong_arity(command.name));
        }
        if !client.flags.has(ClientFlags::AUTHENTICATED) || client.flags.any(self.look) {
            if let Some(flow) = self.look_first(key, cluster, command, request, args) {
                return flow;
            }
            let Some(again) = self.clients.get_mut(key) else { return Flow::Close };
            client = again;
        }
        client.last_command = command.name;
        self.counters.requests += 1;
        if let (Handling::Key, Keys::One(at)) = (command.handling, &command.keys) {
            let slot = slot(words.word(*at as usize));
            return self.send(key, slot, Traits::of(command), request);
        }
        self.dispatch_other(key, cluster, command, request, args)
    }

    /// A request that was looked at and may run.
    pub(super) fn run(
        &mut self,
        key: ClientKey,
        cluster: &Cluster,
        command: &Command,
        request: &[u8],
        args: &[Arg],
    ) -> Flow {
        self.counters.requests += 1;
        self.dispatch_other(key, cluster, command, request, args)
    }

    fn dispatch_other(
        &mut self,
        key: ClientKey,
        cluster: &Cluster,
        command: &Command,
        request: &[u8],
        args: &[Arg],
    ) -> Flow {
        let words = RequestArgs::new(request, args);
        match command.handling {
            Handling::Key | Handling::KeyUnlessBlock | Handling::Block => {
                self.by_keys(key, cluster, command, request, args)
            }
            Handling::Copy => match local::copies_elsewhere(&words) {
                Some(error) => self.refuse(key, error.as_bytes()),
                None => self.by_keys(key, cluster, command, request, args),
            },
            Handling::Wait => self.wait(key, cluster, command, request, &words),
            Handling::Fan(fan) => {
                let layout = Layout::of(fan);
                let rule = match fan {
                    Fan::Mget | Fan::MgetPath | Fan::Madd => Merge::Values,
                    Fan::Sum => Merge::KeySum,
                    Fan::Mset | Fan::MsetPath => Merge::KeyOk,
                };
                if !layout.fits(args.len()) {
                    return self.refuse(key, &errors::wrong_arity(command.name));
                }
                self.fan_keys(key, cluster, command, request, args, (layout, rule))
            }
            Handling::Masters(rule) => self.send_to_masters(key, cluster, command, rule, request, &words),
            Handling::Nodes(rule) => {
                let kind = FanKind::Merge(merge_of(rule, false));
                self.fan_nodes(
                    key,
                    cluster,
                    (command.name, Traits::of(command)),
                    Audience::Nodes,
                    kind,
                    request,
                )
            }
            Handling::Scan => self.scan(key, cluster, command, request, args),
            Handling::Any => self.send_anywhere(key, cluster, Traits::question(), request),
            Handling::PubSub(what) => self.pubsub(key, cluster, command, what, request, args),
            Handling::Monitor => self.monitor(key),
            Handling::Debug => self.debug(key, cluster, command, request, args),
            Handling::Local(what) => self.locally(key, cluster, command, what, request, &words),
            Handling::Scripts(what) => self.scripts(key, cluster, command, what, request, &words),
            Handling::Transaction(what) => self.transaction(key, cluster, command, what, request, args),
            Handling::Tracking => self.track(key, &words),
            Handling::Refuse(advice) => {
                let name = command.name.replace('|', " ").to_uppercase();
                self.refuse(key, format!("ERR {name} is not available through Portico: {advice}").as_bytes())
            }
            Handling::Unroutable if cluster.topology.masters().len() == 1 && is_about_data(command) => {
                self.send_anywhere(key, cluster, Traits::of(command), request)
            }
            Handling::Unroutable => {
                let text = format!(
                    "ERR Portico does not know where '{}' would have to run: it has no keys that the server tells of, and \
                     one master's answer would be a part of the whole",
                    command.name
                );
                self.refuse(key, text.as_bytes())
            }
        }
    }

    /// A command whose keys have to be in one slot.
    pub(super) fn by_keys(
        &mut self,
        key: ClientKey,
        cluster: &Cluster,
        command: &Command,
        request: &[u8],
        args: &[Arg],
    ) -> Flow {
        let words = &RequestArgs::new(request, args);
        let mut positions = std::mem::take(&mut self.positions);
        positions.clear();
        let found = command.key_positions(words, &mut positions);
        let mut slots = positions.iter().map(|&at| slot(words.word(at as usize)));
        let first = slots.next();
        let apart = slots.any(|other| Some(other) != first);
        let mut traits = Traits::of(command);
        if positions.len() > 1 && !apart {
            traits = traits.with_keys(positions.iter().map(|&at| words.word(at as usize)));
        }
        self.positions = positions;
        if command.is_script()
            && found.is_ok()
            && let Some(objected) = self.object_to_script(key, cluster, command, words)
        {
            return self.objected(key, objected);
        }
        match (found, first) {
            (Ok(()), Some(_)) if apart => {
                let text = self.apart(command);
                self.refuse(key, text.as_bytes())
            }
            (Ok(()), Some(slot)) if may_wait(command, words) => {
                self.begin_block(key, cluster, command, slot, request, args)
            }
            (Ok(()), Some(slot)) if command.is_script() => {
                self.send_script(key, cluster, slot, traits, request, words)
            }
            (Ok(()), Some(slot)) => self.send(key, slot, traits, request),
            (Err(KeyError::Unpaired), _) => self.refuse(key, &errors::wrong_arity(command.name)),
            (Ok(()), None) if command.is_script() => match self.home_of_script(key, cluster, words) {
                Ok(slot) => {
                    traits.signal |= !command.flags.has(Flags::READONLY);
                    self.send_script(key, cluster, slot, traits, request, words)
                }
                Err(text) => self.refuse(key, &text),
            },
            // No keys, or none that can be told: a master knows what to do or to say.
            _ => self.send_anywhere(key, cluster, traits, request),
        }
    }

    /// The error for keys in several slots.
    pub(super) fn apart(&self, command: &Command) -> String {
        if self.config.cross_slot == CrossSlot::Refuse {
            return local::CROSSSLOT.to_owned();
        }
        let name = command.name.to_uppercase();
        format!(
            "{} (Portico does not do {name} across slots yet: give the keys one {{hash tag}})",
            local::CROSSSLOT
        )
    }

    /// To one master, the same for a session as long as it answers.
    pub(super) fn send_anywhere(
        &mut self,
        key: ClientKey,
        cluster: &Cluster,
        mut traits: Traits,
        request: &[u8],
    ) -> Flow {
        // What has keys after all, and is sent for its error, is redirected if that was not one.
        if traits.flags.has(RequestFlags::READONLY) {
            traits.flags = traits.flags.with(RequestFlags::ANYWHERE);
        }
        let slot = self.session_slot(key, cluster);
        self.send(key, slot, traits, request)
    }

    /// The slot that stands for what has no keys, by session: the first of a master's that answers.
    pub(super) fn session_slot(&self, key: ClientKey, cluster: &Cluster) -> Slot {
        self.clients.get(key).map_or(0, |client| self.numbered_slot(key, cluster, client.id))
    }

    /// The slot that stands for what has no keys, by a number: the first of a master's that answers.
    pub(super) fn numbered_slot(&self, key: ClientKey, cluster: &Cluster, number: u64) -> Slot {
        let masters = cluster.topology.masters();
        let Some(client) = self.clients.get(key) else { return 0 };
        let Some(at) = number.checked_rem(masters.len() as u64) else { return 0 };
        let mut turn = masters.iter().cycle().skip(at as usize).take(masters.len()).copied();
        let living = turn.clone().find(|&master| self.may_answer(client.lane, master));
        living.or_else(|| turn.next()).and_then(|master| cluster.topology.first_slot(master)).unwrap_or(0)
    }

    fn send_to_masters(
        &mut self,
        key: ClientKey,
        cluster: &Cluster,
        command: &Command,
        rule: Rule,
        request: &[u8],
        words: &RequestArgs<'_>,
    ) -> Flow {
        if let Some(flow) = self.ask_servers(key, cluster, command, rule, request, words) {
            return flow;
        }
        let open = cluster.topology.has_open();
        let kind = match rule {
            Rule::Info => return self.ask_info(key, cluster, request, words),
            Rule::Random => FanKind::RandomSizes,
            Rule::Series if (1..words.count()).any(|at| words.is(at, "groupby")) => {
                let text = "ERR GROUPBY over time series of several masters is not available through Portico";
                return self.refuse(key, text.as_bytes());
            }
            rule => FanKind::Merge(merge_of(rule, open)),
        };
        let in_turn = open && matches!(rule, Rule::Sum | Rule::Concat);
        let audience = if in_turn { Audience::MastersInTurn } else { Audience::Masters };
        let target = (command.name, Traits::of(command));
        let random = rule == Rule::Random;
        let request = if random { b"*1\r\n$6\r\nDBSIZE\r\n" } else { request };
        let flow = self.fan_nodes(key, cluster, target, audience, kind, request);
        // A second question is not overtaken by what the client sent behind the first.
        if in_turn || random { self.until_answered(key, flow) } else { flow }
    }

    /// Answers what nobody knows. CLIENT LIST tells of it as of no command.
    #[cold]
    fn unknown(&mut self, key: ClientKey, text: &[u8]) -> Flow {
        if let Some(client) = self.clients.get_mut(key) {
            client.last_command = "NULL";
        }
        self.turn_away(key, text)
    }

    /// Answers a command that may not run. An EXEC that is refused ends its transaction, and says so.
    #[cold]
    pub(super) fn reject(&mut self, key: ClientKey, command: &Command, text: &[u8]) -> Flow {
        if let Some(client) = self.clients.get_mut(key) {
            client.last_command = command.name;
        }
        if command.handling != Handling::Transaction(Transaction::Exec) {
            return self.turn_away(key, text);
        }
        self.discard(key);
        let why = text.strip_prefix(b"ERR ").unwrap_or(text);
        self.refuse(key, &[b"EXECABORT Transaction discarded because of: ", why].concat())
    }

    /// Answers a request that may not run; a transaction that it would have been part of is discarded by EXEC.
    #[cold]
    pub(super) fn turn_away(&mut self, key: ClientKey, text: &[u8]) -> Flow {
        self.abort_transaction(key);
        self.forget_caching(key);
        self.refuse(key, text)
    }

    /// Answers with an error; the request is done with.
    #[cold]
    pub(super) fn refuse(&mut self, key: ClientKey, text: &[u8]) -> Flow {
        self.reply_error(key, text);
        Flow::Done
    }
}

/// Whether a command that nobody knows reads or writes data, so that it leaves the connection as it is.
fn is_about_data(command: &Command) -> bool {
    let blocks = command.flags.has(Flags::BLOCKING);
    !blocks && (command.flags.has(Flags::READONLY) || command.flags.has(Flags::WRITE))
}

/// Whether a request waits on a connection of its client's own.
fn may_wait(command: &Command, words: &RequestArgs<'_>) -> bool {
    match command.handling {
        Handling::Block => true,
        Handling::KeyUnlessBlock => block_option(words).is_some(),
        _ => false,
    }
}

fn merge_of(rule: Rule, open: bool) -> Merge {
    match rule {
        Rule::Sum => Merge::Sum,
        Rule::Least => Merge::Least,
        Rule::Most => Merge::Most,
        Rule::Once => Merge::Kill,
        Rule::Concat => Merge::Concat { distinct: open },
        Rule::Series => Merge::Sorted,
        Rule::Texts => Merge::Texts,
        Rule::Latest => Merge::Latest,
        Rule::History => Merge::History,
        Rule::Histogram => Merge::Histogram,
        Rule::MemoryStats => Merge::MemoryStats,
        // Those with counts are made by `ask_servers`.
        Rule::SlowlogLen | Rule::SlowlogGet | Rule::AclLog => Merge::Same,
        Rule::Same | Rule::Info | Rule::Random => Merge::Same,
        Rule::All => Merge::All,
    }
}
