//! Setting a connection up: protocol and credentials, who we are to the node, and the fence against our predecessor.

use std::collections::VecDeque;
use std::sync::Arc;

use portico_resp::{Protocol, encode};
use redis_protocol::resp3::decode::complete::decode;
use redis_protocol::resp3::types::OwnedFrame;

/// A connection that was lost or given up with requests unanswered. The node may still execute what its socket
/// holds, even after we closed it; its successor has it killed before it sends anything else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    /// CLIENT ID on that node.
    pub client_id: u64,
    /// Our address as the node saw it: without it, the number could be another client's after a restart.
    pub address: String,
}

impl Fence {
    /// Appends the request that has the node close that connection.
    pub fn kill(&self, out: &mut Vec<u8>) {
        let id = self.client_id.to_string();
        encode::command(out, &[b"CLIENT", b"KILL", b"ID", id.as_bytes(), b"ADDR", self.address.as_bytes()]);
    }
}

/// Who a connection is to its node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// CLIENT ID.
    pub client_id: u64,
    /// Our address as the node sees it; our own idea of it before 6.2, which cannot tell.
    pub address: String,
    /// Why the node refuses MULTI, if it does.
    pub refuses_multi: Option<String>,
}

/// User and password towards the nodes.
#[derive(Clone, Default)]
pub struct Credentials {
    /// ACL user; `default` if none.
    pub username: Option<Arc<str>>,
    /// Password; no AUTH is sent without one.
    pub password: Option<Arc<str>>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(secret)")
    }
}

/// Why a connection cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// The node refuses Portico's credentials.
    #[error("the node refuses Portico's credentials (node-username, node-password): {0}")]
    Credentials(String),
    /// The node refuses something else that is needed.
    #[error("the node refuses to set the connection up: {0}")]
    Refused(String),
    /// The node refuses what the connection is for.
    #[error("the node refuses to be used so: {0}")]
    Purpose(String),
    /// The reply could not be read.
    #[error("the node's reply cannot be read")]
    Unreadable,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Hello,
    Auth,
    SetName,
    Id,
    Info,
    /// A user who may not has MULTI refused, and what follows would run.
    Multi,
    Discard,
    Kill,
    /// What the connection is for.
    Purpose,
}

/// The replies that are still expected, and what was learned.
#[derive(Debug)]
pub struct Handshake {
    steps: VecDeque<Step>,
    identity: Identity,
    /// The predecessors that the node is asked to kill.
    pub fences: Vec<Fence>,
    /// The node would not let us kill our predecessor.
    pub unfenced: Option<String>,
    /// A script is running on the node, as it says: it told nothing of us, and killed nobody.
    pub busy: Option<String>,
}

impl Handshake {
    /// Begins: appends all requests to `out`. `own_address` is what our socket says, for nodes that cannot tell.
    pub fn begin(
        protocol: Protocol,
        credentials: &Credentials,
        own_address: String,
        fences: &[Fence],
        out: &mut Vec<u8>,
    ) -> Self {
        let mut steps = VecDeque::new();
        let mut ask = |step, words: &[&str]| {
            let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
            encode::command(out, &words);
            steps.push_back(step);
        };
        let user = credentials.username.as_deref();
        match (protocol, credentials.password.as_deref()) {
            (Protocol::Resp3, Some(password)) => {
                ask(Step::Hello, &["HELLO", "3", "AUTH", user.unwrap_or("default"), password]);
            }
            (Protocol::Resp3, None) => ask(Step::Hello, &["HELLO", "3"]),
            (Protocol::Resp2, Some(password)) => match user {
                Some(user) => ask(Step::Auth, &["AUTH", user, password]),
                None => ask(Step::Auth, &["AUTH", password]),
            },
            (Protocol::Resp2, None) => {}
        }
        ask(Step::SetName, &["CLIENT", "SETNAME", "portico"]);
        ask(Step::Id, &["CLIENT", "ID"]);
        ask(Step::Info, &["CLIENT", "INFO"]);
        ask(Step::Multi, &["MULTI"]);
        ask(Step::Discard, &["DISCARD"]);
        for fence in fences {
            fence.kill(out);
            steps.push_back(Step::Kill);
        }
        Self {
            steps,
            identity: Identity { address: own_address, ..Identity::default() },
            fences: fences.to_vec(),
            unfenced: None,
            busy: None,
        }
    }

    /// Also asks for what the connection is for, last of all; it cannot be used without.
    pub fn ask(&mut self, request: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(request);
        self.steps.push_back(Step::Purpose);
    }

    /// Takes the next reply. `Some` when it was the last: the connection may be used.
    ///
    /// # Errors
    /// The connection cannot be used.
    pub fn reply(&mut self, reply: &[u8]) -> Result<Option<Identity>, HandshakeError> {
        let Ok(Some((frame, _))) = decode(reply) else { return Err(HandshakeError::Unreadable) };
        let error = match &frame {
            OwnedFrame::SimpleError { data, .. } => Some(data.clone()),
            OwnedFrame::BlobError { data, .. } => Some(String::from_utf8_lossy(data).into_owned()),
            _ => None,
        };
        match (self.steps.pop_front(), error) {
            (None, _) => return Err(HandshakeError::Unreadable),
            (Some(Step::Hello | Step::Auth), Some(error)) => {
                // A node whose password was removed says so; the connection is as good as authenticated.
                if !error.contains("without any password configured") {
                    return Err(HandshakeError::Credentials(error));
                }
            }
            (Some(_), Some(error)) if error.starts_with("BUSY ") => self.busy = Some(error),
            (Some(Step::Kill), Some(error)) => {
                if !error.contains("No such client") {
                    self.unfenced = Some(error);
                }
            }
            (Some(Step::Purpose), Some(error)) => return Err(HandshakeError::Purpose(error)),
            (Some(Step::Multi), Some(error)) => self.identity.refuses_multi = Some(error),
            // In a transaction for ever: a user who may say MULTI has to be allowed DISCARD.
            (Some(Step::Discard), Some(error)) if self.identity.refuses_multi.is_none() => {
                return Err(HandshakeError::Refused(error));
            }
            (Some(Step::Id), Some(error)) if error.starts_with("NOAUTH") => {
                return Err(HandshakeError::Credentials(error));
            }
            (Some(Step::Id), Some(error)) => return Err(HandshakeError::Refused(error)),
            (Some(Step::Id), None) => {
                let OwnedFrame::Number { data, .. } = frame else { return Err(HandshakeError::Unreadable) };
                self.identity.client_id = data.unsigned_abs();
            }
            (Some(Step::Info), None) => {
                if let Some(address) = client_info_address(&frame) {
                    self.identity.address = address;
                }
            }
            (Some(_), _) => {}
        }
        Ok(self.steps.is_empty().then(|| std::mem::take(&mut self.identity)))
    }
}

/// `addr=` of a CLIENT INFO line.
fn client_info_address(frame: &OwnedFrame) -> Option<String> {
    let text = match frame {
        OwnedFrame::BlobString { data, .. } | OwnedFrame::VerbatimString { data, .. } => data,
        _ => return None,
    };
    let text = std::str::from_utf8(text).ok()?;
    text.split(' ').find_map(|field| field.strip_prefix("addr=")).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(protocol: Protocol, credentials: &Credentials, fences: &[Fence]) -> (Handshake, String) {
        let mut out = Vec::new();
        let handshake = Handshake::begin(protocol, credentials, "127.0.0.1:1".into(), fences, &mut out);
        (handshake, String::from_utf8(out).expect("text"))
    }

    #[test]
    fn the_predecessor_is_killed_before_the_connection_is_used() {
        let fence = Fence { client_id: 7, address: "127.0.0.1:5".into() };
        let (mut handshake, sent) = begin(Protocol::Resp2, &Credentials::default(), &[fence]);
        assert!(sent.ends_with("$4\r\nKILL\r\n$2\r\nID\r\n$1\r\n7\r\n$4\r\nADDR\r\n$11\r\n127.0.0.1:5\r\n"));
        assert_eq!(handshake.reply(b"+OK\r\n"), Ok(None));
        assert_eq!(handshake.reply(b":42\r\n"), Ok(None));
        assert_eq!(handshake.reply(b"$24\r\nid=42 addr=10.0.0.1:9 a=\r\n"), Ok(None));
        assert_eq!((handshake.reply(b"+OK\r\n"), handshake.reply(b"+OK\r\n")), (Ok(None), Ok(None)));
        let identity = Identity { client_id: 42, address: "10.0.0.1:9".into(), refuses_multi: None };
        assert_eq!(handshake.reply(b":1\r\n"), Ok(Some(identity)));
    }

    #[test]
    fn a_connection_is_not_used_without_what_it_is_for() {
        for (answer, usable) in [(&b"+OK\r\n"[..], true), (b"-NOPERM no\r\n", false)] {
            let (mut handshake, _) = begin(Protocol::Resp2, &Credentials::default(), &[]);
            let mut sent = Vec::new();
            handshake.ask(b"*1\r\n$1\r\nX\r\n", &mut sent);
            assert_eq!(sent, b"*1\r\n$1\r\nX\r\n");
            for reply in ["+OK\r\n", ":42\r\n", "-ERR\r\n", "+OK\r\n", "+OK\r\n"] {
                assert_eq!(handshake.reply(reply.as_bytes()), Ok(None));
            }
            let last = handshake.reply(answer);
            assert_eq!(matches!(last, Ok(Some(_))), usable, "{last:?}");
            assert_eq!(matches!(last, Err(HandshakeError::Purpose(_))), !usable, "{last:?}");
        }
    }

    #[test]
    fn a_wrong_password_is_told_apart_and_a_missing_permission_is_noted() {
        let credentials = Credentials { username: None, password: Some("secret".into()) };
        let (mut handshake, sent) = begin(Protocol::Resp3, &credentials, &[]);
        assert!(sent.contains("AUTH\r\n$7\r\ndefault\r\n$6\r\nsecret"));
        let refused = handshake.reply(b"-WRONGPASS invalid username-password pair or user is disabled.\r\n");
        assert!(matches!(refused, Err(HandshakeError::Credentials(_))));

        let fence = Fence { client_id: 7, address: "127.0.0.1:5".into() };
        let (mut handshake, _) = begin(Protocol::Resp2, &Credentials::default(), &[fence]);
        let no = "-NOPERM no permission\r\n";
        for reply in
            ["+OK\r\n", ":42\r\n", "-ERR unknown subcommand 'INFO'\r\n", no, "-ERR DISCARD without MULTI\r\n"]
        {
            assert_eq!(handshake.reply(reply.as_bytes()), Ok(None));
        }
        let refuses_multi = Some("NOPERM no permission".to_owned());
        let identity = Identity { client_id: 42, address: "127.0.0.1:1".into(), refuses_multi };
        assert_eq!(handshake.reply(b"-NOPERM no permission\r\n"), Ok(Some(identity)));
        assert!(handshake.unfenced.is_some());
    }
}
