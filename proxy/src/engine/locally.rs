//! Commands that Portico answers itself.

use portico_resp::encode;

use super::send::Flow;
use super::{Engine, Question};
use crate::backend::ClientKey;
use crate::command::{Command, Local};
use crate::local::{self, Context};
use crate::plan::RequestArgs;
use crate::pubsub::{Kind, Name};
use crate::session::{ClientFlags, FanKind, Stall};
use crate::topology::Cluster;

impl Engine {
    /// What Portico answers itself.
    pub(super) fn locally(
        &mut self,
        key: ClientKey,
        cluster: &Cluster,
        command: &Command,
        what: Local,
        request: &[u8],
        words: &RequestArgs<'_>,
    ) -> Flow {
        match what {
            Local::ClientList => {
                let asks = self.clients.get(key).map_or(0, |client| client.id);
                return match local::list_filter(words, asks, &cluster.identity) {
                    Ok(filter) => {
                        let question = Question::List { filter, asks, query: words.lengths() };
                        self.fan_workers(key, command, question)
                    }
                    Err(error) => self.refuse(key, &error),
                };
            }
            Local::ClientKill => return self.kill(key, cluster, command, words),
            Local::ClientPause | Local::ClientUnpause => {
                return self.change_pause(key, cluster, command, words);
            }
            Local::ClientReply => return self.reply_mode(key, words),
            Local::ClientUnblock => {
                return match local::unblock(words, &cluster.identity) {
                    Ok((id, how)) => self.fan_workers(key, command, Question::Unblock(id, how)),
                    Err(error) => self.refuse(key, error.as_bytes()),
                };
            }
            Local::AclChange => return self.change_users(key, cluster, command, request, words),
            Local::AclTell => return self.tell_users(key, cluster, command, request, words),
            Local::ConfigGet => return self.config_get(key, cluster, command, words),
            Local::ConfigSet => return self.config_set(key, cluster, command, words),
            Local::ConfigRewrite => {
                return self.config_everywhere(key, cluster, command, FanKind::ConfigRewrite, request);
            }
            Local::ConfigResetStat => {
                return self.config_everywhere(key, cluster, command, FanKind::ConfigResetStat, request);
            }
            Local::Ping => {
                if let Some(busy) = self.shared.scripts.busy.said() {
                    return self.refuse(key, &busy);
                }
            }
            _ => {}
        }
        let Some(client) = self.clients.get_mut(key) else { return Flow::Close };
        let outstanding = client.work.as_deref().map_or(0, |work| work.queue.outstanding_count());
        if matches!(what, Local::Hello | Local::Reset) && outstanding > 0 {
            return Flow::Wait(Stall::Order); // the protocol of what is outstanding must not change
        }
        if what == Local::Hello && cluster.topology.masters().is_empty() {
            // Which version the nodes have is not known yet.
            let waiting = match client.stall {
                Some((Stall::Unreachable, since)) => self.now.saturating_duration_since(since),
                _ => std::time::Duration::ZERO,
            };
            if waiting < self.config.failover_timeout {
                return Flow::Wait(Stall::Unreachable);
            }
        }
        let left = if what == Local::Reset { self.end_session(key) } else { Vec::new() };
        let mut made = std::mem::take(&mut self.made);
        made.clear();
        self.answer_local(key, cluster, what, words, &mut made);
        if !left.is_empty() {
            let flow = self.answer_when_left(key, left, &made);
            self.made = made;
            return flow;
        }
        self.reply_now(key, &made);
        self.made = made;
        if what == Local::Quit {
            self.close_when_told(key);
            return Flow::Close;
        }
        Flow::Done
    }

    /// The reply to a command that Portico answers from what it knows of one client. None: it is no such command, or
    /// the client is gone.
    pub(super) fn answer_local(
        &mut self,
        key: ClientKey,
        cluster: &Cluster,
        what: Local,
        words: &RequestArgs<'_>,
        out: &mut Vec<u8>,
    ) -> Option<()> {
        let mut context = Context {
            client: self.clients.get_mut(key)?,
            config: &self.config,
            shared: &self.shared,
            version: &cluster.version,
            identity: &cluster.identity,
            now: self.now,
            out,
        };
        let context = &mut context;
        match what {
            Local::Auth => local::auth(context, words),
            Local::Hello => local::hello(context, words),
            Local::Ping => local::ping(context, words),
            Local::Echo => local::echo(context, words),
            Local::Quit => encode::simple(context.out, "OK"),
            Local::Reset => local::reset(context),
            Local::Select => local::select(context, words),
            Local::Move => local::move_key(context, words),
            Local::SwapDb => local::swap_db(context, words),
            Local::WhoAmI => encode::bulk(context.out, b"default"),
            Local::ClientCapa => local::capa(context, words),
            Local::ClientId => encode::integer(context.out, context.client.id.cast_signed()),
            Local::ClientGetName => local::client_name(context),
            Local::ClientSetName => local::set_name(context, words),
            Local::ClientSetInfo => local::set_info(context, words),
            Local::ClientInfo => local::client_info(context, words),
            Local::ClientCaching => local::caching(context, words),
            Local::ClientGetRedir => local::redirection(context),
            Local::ClientTrackingInfo => local::tracking_info(context),
            Local::ClusterDisabled => local::cluster_disabled(context, words),
            Local::Role => local::role(context),
            Local::Time => local::time(context),
            Local::ClientNoEvict => local::set_flag(context, words, ClientFlags::NO_EVICT),
            Local::ClientNoTouch => local::set_flag(context, words, ClientFlags::NO_TOUCH),
            Local::ClientList
            | Local::ClientKill
            | Local::ClientPause
            | Local::ClientUnpause
            | Local::ClientReply
            | Local::AclChange
            | Local::AclTell
            | Local::ClientUnblock
            | Local::ConfigGet
            | Local::ConfigSet
            | Local::ConfigRewrite
            | Local::ConfigResetStat => return None,
        }
        if matches!(what, Local::Hello | Local::Reset) {
            self.change_lane(key);
        }
        Some(())
    }

    /// RESET: nothing lasts of what the client began. Returns what it listened to.
    fn end_session(&mut self, key: ClientKey) -> Vec<(Kind, Name)> {
        self.discard(key);
        self.end_tracking(key);
        self.end_listening(key)
    }
}
