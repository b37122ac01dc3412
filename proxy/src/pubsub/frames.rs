//! The frames of subscriptions: confirmations, and what nodes push.

use portico_resp::{Items, Protocol, array_items, bulk_reply, encode};

use super::Kind;

/// A push that a node sent to a subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard<'a> {
    /// What was subscribed to.
    pub kind: Kind,
    /// Its name: the channel or the pattern.
    pub name: &'a [u8],
    /// The channel.
    pub channel: &'a [u8],
}

/// What a push says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told<'a> {
    /// A message.
    Message(Heard<'a>),
    /// A sharded channel is not subscribed to any more: its slot is another node's, or so it was asked.
    Unsubscribed(&'a [u8]),
    /// Something else.
    Other,
}

impl<'a> Told<'a> {
    /// Reads a push.
    #[must_use]
    pub fn read(push: &'a [u8]) -> Self {
        let Some(mut words) =
            Items::new(push).map(|items| items.map(|item| bulk_reply(item).unwrap_or_default()))
        else {
            return Self::Other;
        };
        let (Some(what), Some(name)) = (words.next(), words.next()) else { return Self::Other };
        match what {
            b"message" => Self::Message(Heard { kind: Kind::Channel, name, channel: name }),
            b"smessage" => Self::Message(Heard { kind: Kind::Shard, name, channel: name }),
            b"pmessage" => {
                let Some(channel) = words.next() else { return Self::Other };
                Self::Message(Heard { kind: Kind::Pattern, name, channel })
            }
            b"sunsubscribe" => Self::Unsubscribed(name),
            _ => Self::Other,
        }
    }
}

/// A push as a RESP2 client is told it: as an array.
#[must_use]
pub fn in_resp2(push: &[u8]) -> Vec<u8> {
    let mut frame = push.to_vec();
    if let Some(kind) = frame.first_mut() {
        *kind = b'*';
    }
    frame
}

/// Appends the confirmation of a subscription, or of its end: `verb` is what was asked for.
pub fn confirmation(verb: &str, name: &[u8], count: usize, protocol: Protocol, out: &mut Vec<u8>) {
    header(protocol, out);
    encode::bulk(out, verb.as_bytes());
    encode::bulk(out, name);
    encode::integer(out, count as i64);
}

/// Appends what is told when all subscriptions of a kind were to end and there was none.
pub fn none_left(kind: Kind, count: usize, protocol: Protocol, out: &mut Vec<u8>) {
    header(protocol, out);
    encode::bulk(out, kind.leave().as_bytes());
    encode::null(out, protocol);
    encode::integer(out, count as i64);
}

fn header(protocol: Protocol, out: &mut Vec<u8>) {
    let start = out.len();
    encode::array_header(out, 3);
    if protocol == Protocol::Resp3 {
        out[start] = b'>';
    }
    debug_assert_eq!(array_items(&out[start..]).map(|(count, _)| count), Some(3));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pushes_are_told_apart() {
        let message = b">3\r\n$7\r\nmessage\r\n$2\r\nch\r\n$2\r\nhi\r\n";
        let heard = Heard { kind: Kind::Channel, name: b"ch", channel: b"ch" };
        assert_eq!(Told::read(message), Told::Message(heard));
        assert!(in_resp2(message).starts_with(b"*3\r\n$7\r\nmessage"));
        let pattern = b">4\r\n$8\r\npmessage\r\n$2\r\nc*\r\n$2\r\nch\r\n$2\r\nhi\r\n";
        let heard = Heard { kind: Kind::Pattern, name: b"c*", channel: b"ch" };
        assert_eq!(Told::read(pattern), Told::Message(heard));
        let moved = b">3\r\n$12\r\nsunsubscribe\r\n$2\r\nch\r\n:0\r\n";
        assert_eq!(Told::read(moved), Told::Unsubscribed(b"ch"));
        for other in [
            &b">3\r\n$9\r\nsubscribe\r\n$2\r\nch\r\n:1\r\n"[..],
            b">2\r\n$10\r\ninvalidate\r\n_\r\n",
            b">0\r\n",
        ] {
            assert_eq!(Told::read(other), Told::Other);
        }
    }

    #[test]
    fn confirmations_in_both_protocols() {
        let mut out = Vec::new();
        confirmation("subscribe", b"ch", 1, Protocol::Resp2, &mut out);
        none_left(Kind::Shard, 0, Protocol::Resp3, &mut out);
        assert_eq!(
            out,
            b"*3\r\n$9\r\nsubscribe\r\n$2\r\nch\r\n:1\r\n>3\r\n$12\r\nsunsubscribe\r\n_\r\n:0\r\n"
        );
    }
}
