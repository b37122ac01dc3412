//! What of a reply is compared with another server's: `tests/cases/README.md` and `tests/dialogues/README.md`.

use crate::{Frame, canonical, shape};

/// How two servers' replies to one command are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compare {
    /// To the byte.
    Bytes,
    /// The elements of the outermost aggregate in any order.
    AnyOrder,
    /// Likewise at every depth.
    AnyOrderWithin,
    /// Likewise for the outermost, two elements staying together.
    Pairs,
    /// Only kinds and numbers, and the text of an error.
    Shape,
    /// With names in place of ids, addresses and times.
    Named,
    /// The lines of CLIENT LIST: what the server's load and age do not change.
    Fields,
}

/// What a server calls a connection.
#[derive(Debug, Clone)]
pub struct Name {
    /// What the test calls it.
    pub letter: char,
    /// Its CLIENT ID.
    pub id: String,
    /// Its address, as its server sees it.
    pub address: String,
    /// The server's address, as it sees that.
    pub server: String,
}

/// Fields of CLIENT LIST whose values a client determines.
const FIELDS: [&str; 15] = [
    "id", "addr", "laddr", "name", "flags", "db", "sub", "psub", "ssub", "multi", "cmd", "user", "redir",
    "resp", "qbuf",
];

impl Compare {
    /// Takes the mark off the beginning of a line.
    #[must_use]
    pub fn mark(line: &str) -> (Self, &str) {
        let marks = [
            ("~~ ", Compare::AnyOrderWithin),
            ("~ ", Compare::AnyOrder),
            ("% ", Compare::Pairs),
            ("? ", Compare::Shape),
            ("@ ", Compare::Named),
            ("= ", Compare::Fields),
        ];
        let marked = marks.iter().find_map(|(mark, compare)| Some((*compare, line.strip_prefix(mark)?)));
        marked.unwrap_or((Compare::Bytes, line))
    }

    /// What two replies must have in common to be alike.
    #[must_use]
    pub fn view(self, reply: &[u8], names: &[Name]) -> Vec<u8> {
        match self {
            Compare::Bytes => reply.to_vec(),
            Compare::AnyOrder => canonical(reply, false),
            Compare::Pairs => canonical(reply, true),
            Compare::AnyOrderWithin => within(&Frame::read(reply).0),
            Compare::Shape => shape(reply).into_bytes(),
            Compare::Named => named(&Frame::read(reply).0, names),
            Compare::Fields => match Frame::read(reply).0 {
                frame if reply.starts_with(b"-") => named(&frame, names),
                frame => {
                    let body = frame.body().unwrap_or_default();
                    // In RESP3 it is a verbatim text.
                    let text = body.strip_prefix(b"txt:").unwrap_or(body);
                    let mut view = vec![reply[0]];
                    view.extend(fields(&String::from_utf8_lossy(text), names).into_bytes());
                    view
                }
            },
        }
    }
}

fn within(frame: &Frame<'_>) -> Vec<u8> {
    let Frame::Many(kind, elements) = frame else {
        let Frame::Leaf(leaf) = frame else { unreachable!("one of two") };
        return leaf.to_vec();
    };
    let together = if *kind == b'%' { 2 } else { 1 };
    let mut parts: Vec<_> =
        elements.chunks(together).map(|part| part.iter().flat_map(within).collect()).collect();
    parts.sort();
    let mut out = format!("{}{}\r\n", char::from(*kind), elements.len()).into_bytes();
    parts.iter().for_each(|part: &Vec<u8>| out.extend_from_slice(part));
    out
}

/// Without lengths, which names change.
fn named(frame: &Frame<'_>, names: &[Name]) -> Vec<u8> {
    match frame {
        Frame::Leaf(leaf) => {
            let mut out = vec![leaf[0]];
            let Some(body) = frame.body() else { return leaf.to_vec() };
            out.extend_from_slice(name_in(&String::from_utf8_lossy(body), names).as_bytes());
            out.extend_from_slice(b"\r\n");
            out
        }
        Frame::Many(kind, elements) => {
            let mut out = format!("{}{}\r\n", char::from(*kind), elements.len()).into_bytes();
            let mut before: Option<&[u8]> = None;
            for element in elements {
                // Each server lists its modules in an order of its own.
                let view = if before == Some(b"modules") { within(element) } else { named(element, names) };
                out.extend_from_slice(&view);
                before = element.body();
            }
            out
        }
    }
}

fn name_in(text: &str, names: &[Name]) -> String {
    if let Some(name) = names.iter().find(|name| name.id == text) {
        return format!("<id:{}>", name.letter);
    }
    let mut text = text.to_owned();
    // A line of MONITOR: a time, [database address], and words in quotes. Who asks a node may be another than who
    // asks Portico.
    let stamp = text.find(" [").filter(|end| text[..*end].parse::<f64>().is_ok());
    if let Some(end) = stamp {
        let (database, rest) = text[end + 2..].split_once(' ').unwrap_or_default();
        let (address, words) = rest.split_once(']').unwrap_or_default();
        let address = if address.contains(':') { "<address>" } else { address };
        text = format!("<time> [{database} {address}]{words}");
    }
    for Name { letter, id, address, server } in names {
        text = text.replace(address, &format!("<addr:{letter}>")).replace(server, "<server>");
        if stamp.is_some() {
            text = text.replace(&format!("\"{id}\""), &format!("\"<id:{letter}>\""));
        }
    }
    text
}

fn fields(text: &str, names: &[Name]) -> String {
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines() {
        let words = line.split(' ').map(|word| match word.split_once('=') {
            Some((field, value)) if FIELDS.contains(&field) => match field {
                "db" | "sub" | "psub" | "ssub" | "multi" | "resp" => word.to_owned(),
                _ => format!("{field}={}", name_in(value, names)),
            },
            Some((field, _)) => format!("{field}="),
            None => word.to_owned(),
        });
        let line = words.collect::<Vec<_>>().join(" ");
        // Others than the test's own may be connected.
        if line.starts_with("id=<") || !line.starts_with("id=") {
            lines.push(line);
        }
    }
    lines.sort();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Vec<Name> {
        let name = |letter, id: &str, address: &str| Name {
            letter,
            id: id.to_owned(),
            address: address.to_owned(),
            server: "127.0.0.1:6379".to_owned(),
        };
        vec![name('a', "7", "127.0.0.1:50001"), name('b', "8", "127.0.0.1:50002")]
    }

    fn view(mark: &str, reply: &[u8]) -> String {
        let (compare, rest) = Compare::mark(mark);
        assert_eq!(rest, "", "{mark}");
        String::from_utf8(compare.view(reply, &names())).expect("text")
    }

    #[test]
    fn names_replace_what_is_a_servers_own() {
        assert_eq!(view("@ ", b":8\r\n"), ":<id:b>\r\n");
        assert_eq!(view("@ ", b":88\r\n"), ":88\r\n");
        assert_eq!(view("@ ", b"*2\r\n:7\r\n$-1\r\n"), "*2\r\n:<id:a>\r\n$-1\r\n");
        assert_eq!(
            view("@ ", b"+1700000000.123456 [0 127.0.0.1:50001] \"client\" \"kill\" \"8\"\r\n"),
            "+<time> [0 <address>] \"client\" \"kill\" \"<id:b>\"\r\n"
        );
    }

    #[test]
    fn fields_keep_what_a_client_determines() {
        let list = "id=8 addr=127.0.0.1:50002 age=3 cmd=get\nid=9 addr=x age=1 cmd=get\nid=7 addr=127.0.0.1:50001 age=1 cmd=\n";
        let list = format!("${}\r\n{list}\r\n", list.len());
        assert_eq!(
            view("= ", list.as_bytes()),
            "$id=<id:a> addr=<addr:a> age= cmd=\nid=<id:b> addr=<addr:b> age= cmd=get"
        );
        let list = "txt:id=9 addr=x\nid=7 addr=127.0.0.1:50001\n";
        let list = format!("={}\r\n{list}\r\n", list.len());
        assert_eq!(view("= ", list.as_bytes()), "=id=<id:a> addr=<addr:a>");
        assert_eq!(view("= ", b"-ERR x\r\n"), "-ERR x\r\n");
    }

    #[test]
    fn order_may_be_any_at_every_depth() {
        let (one, other) = (b"*2\r\n*2\r\n+a\r\n+b\r\n+c\r\n", b"*2\r\n+c\r\n*2\r\n+b\r\n+a\r\n");
        assert_eq!(view("~~ ", one), view("~~ ", other));
        assert_ne!(view("~ ", one), view("~ ", other));
        // A map's keys keep their values.
        let (one, other) = (b"%2\r\n+a\r\n:1\r\n+b\r\n:2\r\n", b"%2\r\n+a\r\n:2\r\n+b\r\n:1\r\n");
        assert_ne!(view("~~ ", one), view("~~ ", other));
    }
}
