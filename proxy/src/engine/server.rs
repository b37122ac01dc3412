//! Commands about servers as such: DEBUG, ACL, and what the masters say of themselves told as one.

use portico_resp::{Arg, encode};

use super::Engine;
use super::fan::Audience;
use super::send::{Flow, Traits};
use crate::backend::{ClientKey, RequestFlags};
use crate::command::{Args, Command, Debug, Rule, errors};
use crate::local;
use crate::plan::{Merge, RequestArgs};
use crate::session::FanKind;
use crate::topology::Cluster;

impl Engine {
    /// DEBUG, by the table of its subcommands.
    pub(super) fn debug(
        &mut self,
        key: ClientKey,
        cluster: &Cluster,
        command: &Command,
        request: &[u8],
        args: &[Arg],
    ) -> Flow {
        let words = RequestArgs::new(request, args);
        let merge = match Debug::of(words.word(1)) {
            Some(Debug::Key | Debug::Keys) => return self.by_keys(key, cluster, command, request, args),
            Some(Debug::Any) => return self.send_anywhere(key, cluster, Traits::question(), request),
            Some(Debug::Masters) => Merge::Same,
            Some(Debug::Texts) => Merge::Texts,
            // With more words it is an error that all have alike.
            Some(Debug::Digest) if words.count() > 2 => Merge::Same,
            Some(Debug::Digest) => Merge::Digest,
            Some(Debug::Refuse(why)) => {
                let name = words.text(1).to_uppercase();
                let text = format!("ERR DEBUG {name} is not available through Portico: {why}");
                return self.refuse(key, text.as_bytes());
            }
            None => {
                let text = "ERR unknown subcommand or wrong number of arguments for '";
                let text = errors::quoting(text, words.word(1), "'. Try DEBUG HELP.");
                return self.refuse(key, &text);
            }
        };
        let target = (command.name, Traits::of(command));
        self.fan_nodes(key, cluster, target, Audience::Masters, FanKind::Merge(merge), request)
    }

    /// What every master has a part of, by a rule that needs the request's words. None: the rule does not.
    pub(super) fn ask_servers(
        &mut self,
        key: ClientKey,
        cluster: &Cluster,
        command: &Command,
        rule: Rule,
        request: &[u8],
        words: &RequestArgs<'_>,
    ) -> Option<Flow> {
        let count = words.integer(2).and_then(|count| u64::try_from(count).ok());
        match rule {
            Rule::SlowlogLen => Some(self.slowlog(key, cluster, command, Merge::SlowlogLen, request)),
            Rule::SlowlogGet => {
                let count = if words.count() == 2 { Some(10) } else { count };
                Some(self.slowlog(key, cluster, command, Merge::SlowlogGet { count }, request))
            }
            Rule::AclLog if words.is(2, "reset") => {
                let target = (command.name, Traits::of(command));
                let kind = FanKind::Merge(Merge::Same);
                Some(self.fan_nodes(key, cluster, target, Audience::Nodes, kind, request))
            }
            Rule::AclLog => {
                let kind = FanKind::Merge(Merge::AclLog { count: count.unwrap_or(10) });
                let target = (command.name, Traits::question());
                Some(self.fan_nodes(key, cluster, target, Audience::Masters, kind, request))
            }
            _ => None,
        }
    }

    /// All masters are asked, and one how many entries a server keeps.
    fn slowlog(
        &mut self,
        key: ClientKey,
        cluster: &Cluster,
        command: &Command,
        merge: Merge,
        request: &[u8],
    ) -> Flow {
        let slot = self.session_slot(key, cluster);
        let Some(one) = cluster.topology.owner(slot) else { return self.unreachable(key, slot) };
        let mut question = Vec::new();
        encode::command(&mut question, &[b"CONFIG", b"GET", b"slowlog-max-len"]);
        let masters = Audience::Masters.members(cluster).into_iter();
        let mut requests = vec![(one, slot, question)];
        requests.extend(masters.map(|(master, slot)| (master, slot, request.to_vec())));
        self.fan_requests(key, (command.name, Traits::question()), FanKind::Merge(merge), requests)
    }

    /// ACL SETUSER and DELUSER: all nodes, unless Portico would be locked out of them.
    pub(super) fn change_users(
        &mut self,
        key: ClientKey,
        cluster: &Cluster,
        command: &Command,
        request: &[u8],
        words: &RequestArgs<'_>,
    ) -> Flow {
        if let Some(error) = local::locks_out(words, &self.config) {
            return self.refuse(key, &error);
        }
        let target = (command.name, Traits::of(command));
        self.fan_nodes(key, cluster, target, Audience::Nodes, FanKind::Merge(Merge::Same), request)
    }

    /// ACL LIST and GETUSER: a master's, without the passwords of Portico's user.
    pub(super) fn tell_users(
        &mut self,
        key: ClientKey,
        cluster: &Cluster,
        command: &Command,
        request: &[u8],
        words: &RequestArgs<'_>,
    ) -> Flow {
        if words.count() == 3 && !local::is_own_user(words.word(2), &self.config) {
            return self.send_anywhere(key, cluster, Traits::question(), request);
        }
        let slot = self.session_slot(key, cluster);
        let Some(one) = cluster.topology.owner(slot) else { return self.unreachable(key, slot) };
        let requests = vec![(one, slot, request.to_vec())];
        let mut traits = Traits::question();
        traits.flags = traits.flags.with(RequestFlags::ANYWHERE);
        self.fan_requests(key, (command.name, traits), FanKind::Users, requests)
    }
}
