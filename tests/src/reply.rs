//! Replies, taken apart to be compared where bytes alone will not do.

use portico_resp::ReplyScanner;

/// One reply as a tree of slices.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Frame<'r> {
    /// Anything without elements: all its bytes.
    Leaf(&'r [u8]),
    /// An aggregate: its kind and its elements (a map's keys and values alternate).
    Many(u8, Vec<Frame<'r>>),
}

impl<'r> Frame<'r> {
    /// Takes the first reply apart; returns also what follows it.
    ///
    /// # Panics
    /// The bytes are not a whole reply.
    #[must_use]
    pub fn read(reply: &'r [u8]) -> (Self, &'r [u8]) {
        let kind = *reply.first().expect("a reply");
        if !matches!(kind, b'*' | b'~' | b'>' | b'%') || reply.starts_with(b"*-1") {
            let end = ReplyScanner::default().scan(reply).expect("RESP").expect("a whole reply");
            let (leaf, rest) = reply.split_at(end);
            return (Frame::Leaf(leaf), rest);
        }
        let line = reply.iter().position(|&byte| byte == b'\r').expect("a whole reply");
        let count: usize = std::str::from_utf8(&reply[1..line]).expect("digits").parse().expect("digits");
        let mut rest = &reply[line + 2..];
        let count = if kind == b'%' { count * 2 } else { count };
        let mut elements = Vec::new();
        for _ in 0..count {
            let (element, after) = Frame::read(rest);
            elements.push(element);
            rest = after;
        }
        (Frame::Many(kind, elements), rest)
    }

    /// The elements of an aggregate.
    #[must_use]
    pub fn elements(&self) -> &[Frame<'r>] {
        match self {
            Frame::Leaf(_) => &[],
            Frame::Many(_, elements) => elements,
        }
    }

    /// What a string or a number says.
    #[must_use]
    pub fn body(&self) -> Option<&'r [u8]> {
        let Frame::Leaf(leaf) = self else { return None };
        let line = leaf.iter().position(|&byte| byte == b'\r')?;
        match leaf.first()? {
            b'$' | b'=' if leaf.len() > line + 2 => Some(&leaf[line + 2..leaf.len() - 2]),
            b'+' | b':' | b',' | b'(' | b'#' | b'-' => Some(&leaf[1..line]),
            _ => None,
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Frame::Leaf(leaf) => out.extend_from_slice(leaf),
            Frame::Many(kind, elements) => {
                out.extend_from_slice(format!("{}{}\r\n", char::from(*kind), elements.len()).as_bytes());
                elements.iter().for_each(|element| element.write(out));
            }
        }
    }

    fn sort(&mut self, pairs: bool) {
        let Frame::Many(kind, elements) = self else { return };
        if pairs || *kind == b'%' {
            let mut entries: Vec<_> = elements.chunks(2).map(<[_]>::to_vec).collect();
            entries.sort();
            *elements = entries.concat();
        } else {
            elements.sort();
        }
    }

    fn shape(&self, out: &mut String) {
        match self {
            // An error's text counts.
            Frame::Leaf(leaf) if leaf[0] == b'-' => out.push_str(&show(leaf)),
            Frame::Leaf(leaf) => {
                out.push(char::from(leaf[0]));
                if *leaf == b"$-1\r\n" || *leaf == b"*-1\r\n" {
                    out.push_str("nil");
                }
            }
            Frame::Many(kind, elements) => {
                let shapes = elements.iter().map(|element| {
                    let mut shape = String::new();
                    element.shape(&mut shape);
                    shape
                });
                let mut shapes: Vec<_> = shapes.collect();
                shapes.sort();
                out.push_str(&format!("{}{}({})", char::from(*kind), elements.len(), shapes.concat()));
            }
        }
    }
}

/// The reply with the elements of its outermost aggregate in a fixed order; with `pairs`, two stay together.
#[must_use]
pub fn canonical(reply: &[u8], pairs: bool) -> Vec<u8> {
    let (mut frame, _) = Frame::read(reply);
    frame.sort(pairs);
    let mut out = Vec::new();
    frame.write(&mut out);
    out
}

/// The kinds of a reply's elements and how many there are, without their values and their order; an error's text.
#[must_use]
pub fn shape(reply: &[u8]) -> String {
    let mut out = String::new();
    Frame::read(reply).0.shape(&mut out);
    out
}

/// Bytes, legible and not too long.
#[must_use]
pub fn show(bytes: &[u8]) -> String {
    const MOST: usize = 600;
    let text = bytes[..bytes.len().min(MOST)].escape_ascii().to_string();
    if bytes.len() > MOST { format!("{text}... ({} bytes)", bytes.len()) } else { text }
}
