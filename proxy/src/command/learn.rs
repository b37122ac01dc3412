//! A server's `COMMAND` reply: what it says of its commands.

use redis_protocol::resp2::types::BytesFrame;

use super::{Begin, Find, Flags, KeyFlags, KeySpec};

/// One command as a server describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Learned {
    /// Lower-case and in full: `config|get`.
    pub name: String,
    /// As in [`Command::arity`](super::Command::arity).
    pub arity: i32,
    /// Its flags' names, in the server's order.
    pub flags: Vec<String>,
    /// Index of the first key, 0 for none.
    pub first: i32,
    /// Index of the last key; negative: from the end.
    pub last: i32,
    /// From one key to the next.
    pub step: i32,
    /// From Redis 7.0 on.
    pub key_specs: Vec<KeySpec>,
    /// From Redis 7.0 on.
    pub tips: Vec<String>,
    /// From Redis 7.0 on.
    pub subcommands: Vec<Self>,
}

impl Learned {
    /// Those of its flags that have a bit.
    #[must_use]
    pub fn flags(&self) -> Flags {
        self.flags.iter().filter_map(|flag| Flags::named(flag)).fold(Flags::default(), Flags::with)
    }
}

/// Reads the reply to `COMMAND` of any server from Redis 5.0 (six fields an entry) to Redis 8 and Valkey (ten).
/// What cannot be read is left out: a command less is better than no table.
#[must_use]
pub fn parse_command_reply(frame: &BytesFrame) -> Vec<Learned> {
    items(frame).iter().filter_map(command).collect()
}

fn command(frame: &BytesFrame) -> Option<Learned> {
    let [name, arity, flags, first, last, step, rest @ ..] = items(frame) else { return None };
    // Redis 6: ACL categories, which nobody needs; 7: those, tips, key specs and subcommands.
    let list = |at: usize| rest.get(at).map(items).unwrap_or_default();
    Some(Learned {
        name: text(name)?.to_ascii_lowercase(),
        arity: integer(arity)?,
        flags: texts(flags),
        first: integer(first)?,
        last: integer(last)?,
        step: integer(step)?,
        tips: rest.get(1).map(texts).unwrap_or_default(),
        key_specs: list(2).iter().map(|spec| key_spec(spec).unwrap_or(UNKNOWN)).collect(),
        subcommands: list(3).iter().filter_map(command).collect(),
    })
}

/// What stands for a key spec that cannot be read: it must not look like no keys.
const UNKNOWN: KeySpec = KeySpec { begin: Begin::Unknown, find: Find::Unknown, flags: KeyFlags::RW };

fn key_spec(frame: &BytesFrame) -> Option<KeySpec> {
    let flags = texts(field(frame, "flags")?);
    let part = |name| {
        let part = field(frame, name)?;
        Some((text(field(part, "type")?)?, field(part, "spec")?))
    };
    let (begin, spec) = part("begin_search")?;
    let begin = match begin {
        "index" => Begin::Index(natural(spec, "index")?),
        "keyword" => Begin::Keyword {
            word: text(field(spec, "keyword")?)?.into(),
            from: integer(field(spec, "startfrom")?)?,
        },
        _ => Begin::Unknown,
    };
    let (find, spec) = part("find_keys")?;
    let find = match find {
        "range" => Find::Range {
            last: integer(field(spec, "lastkey")?)?,
            step: natural(spec, "keystep")?,
            limit: natural(spec, "limit")?,
        },
        "keynum" => Find::KeyNum {
            at: natural(spec, "keynumidx")?,
            first: natural(spec, "firstkey")?,
            step: natural(spec, "keystep")?,
        },
        _ => Find::Unknown,
    };
    let flags =
        flags.iter().filter_map(|flag| KeyFlags::named(flag)).fold(KeyFlags::default(), KeyFlags::with);
    Some(KeySpec { begin, find, flags })
}

fn items(frame: &BytesFrame) -> &[BytesFrame] {
    if let BytesFrame::Array(items) = frame { items } else { &[] }
}

/// The value of `name` in a map, which RESP2 has as a flat array.
fn field<'f>(map: &'f BytesFrame, name: &str) -> Option<&'f BytesFrame> {
    items(map).chunks_exact(2).find(|pair| text(&pair[0]) == Some(name)).map(|pair| &pair[1])
}

fn text(frame: &BytesFrame) -> Option<&str> {
    match frame {
        BytesFrame::SimpleString(bytes) | BytesFrame::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        _ => None,
    }
}

fn texts(frame: &BytesFrame) -> Vec<String> {
    items(frame).iter().filter_map(text).map(str::to_owned).collect()
}

fn integer(frame: &BytesFrame) -> Option<i32> {
    if let BytesFrame::Integer(value) = frame { (*value).try_into().ok() } else { None }
}

fn natural(map: &BytesFrame, name: &str) -> Option<u32> {
    field(map, name).and_then(integer)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use redis_protocol::resp2::decode::decode_bytes;

    use super::*;
    use crate::command::Keys;

    fn parse(reply: &'static str) -> Vec<Learned> {
        let wire = reply.replace(' ', "\r\n") + "\r\n";
        let (frame, _) = decode_bytes(&Bytes::from(wire)).expect("RESP").expect("a whole frame");
        parse_command_reply(&frame)
    }

    #[test]
    fn six_fields_are_enough() {
        let learned =
            parse("*2 *6 $4 MGET :-2 *2 +readonly +fast :1 :-1 :1 *6 $4 eval :-3 *1 +movablekeys :0 :0 :0");
        assert_eq!((learned[0].name.as_str(), learned[0].arity), ("mget", -2));
        assert!(learned[0].flags().has(Flags::READONLY.with(Flags::FAST)));
        let keys = |l: &Learned| Keys::new(l.key_specs.clone(), (l.first, l.last, l.step), l.flags());
        let spec = KeySpec {
            begin: Begin::Index(1),
            find: Find::Range { last: -1, step: 1, limit: 0 },
            flags: KeyFlags::default(),
        };
        assert_eq!(keys(&learned[0]), Keys::Specs([spec].into()));
        assert_eq!(keys(&learned[1]), Keys::Unknown);
    }

    #[test]
    fn what_cannot_be_read_is_left_out() {
        assert_eq!(parse("*2 $-1 *1 $3 get"), []);
        assert_eq!(parse("+OK"), []);
    }

    #[test]
    fn a_key_spec_that_cannot_be_read_is_not_no_keys() {
        let learned = parse("*1 *10 $1 x :-2 *0 :0 :0 :0 *0 *0 *1 *2 $5 flags *0 *0");
        assert_eq!(learned[0].key_specs, [UNKNOWN]);
    }
}
