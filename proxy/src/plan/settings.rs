//! CONFIG GET and SET: what is known before any node is asked, and the one reply; what a SET changes when all have agreed.

use std::collections::HashMap;

use portico_resp::{Items, Protocol, bulk_reply, encode};

use super::Parts;

/// Where the value of a setting is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// It is this.
    Known(String),
    /// It is this where the nodes have the setting of this name.
    Where(String, String),
    /// What a node says.
    Node,
    /// The sum of what the masters say, which are so many; those that do not answer count as the others do.
    Sum(u64),
}

/// One setting that CONFIG GET tells of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The name as it is told: as it was asked for if by its whole name.
    pub name: Vec<u8>,
    /// Where its value is from.
    pub source: Source,
}

impl Asked {
    /// What a node has to be asked for. None: nothing.
    #[must_use]
    pub fn of_node(&self) -> Option<&[u8]> {
        match &self.source {
            Source::Known(_) => None,
            Source::Where(name, _) => Some(name.as_bytes()),
            Source::Node | Source::Sum(_) => Some(&self.name),
        }
    }
}

/// The reply to CONFIG GET. `parts` are nodes' replies to CONFIG GET, each a map of some of the names.
pub fn tell_settings(asked: &[Asked], parts: &Parts, protocol: Protocol, out: &mut Vec<u8>) {
    let mut said: HashMap<Vec<u8>, Vec<&[u8]>> = HashMap::new();
    for reply in parts.iter() {
        let mut items = Items::new(reply).into_iter().flatten().filter_map(bulk_reply);
        while let (Some(name), Some(value)) = (items.next(), items.next()) {
            said.entry(name.to_ascii_lowercase()).or_default().push(value);
        }
    }
    let values = |name: &[u8]| said.get(&name.to_ascii_lowercase()).map(Vec::as_slice);
    let value = |asked: &Asked| -> Option<Vec<u8>> {
        Some(match &asked.source {
            Source::Known(value) => value.clone().into_bytes(),
            Source::Where(name, value) => values(name.as_bytes()).map(|_| value.clone().into_bytes())?,
            Source::Node => values(&asked.name)?.first()?.to_vec(),
            Source::Sum(masters) => {
                let number = |value: &&[u8]| std::str::from_utf8(value).ok()?.parse::<u64>().ok();
                let told: Vec<u64> = values(&asked.name)?.iter().filter_map(number).collect();
                let sum = told.iter().copied().fold(0, u64::saturating_add);
                let silent = masters.saturating_sub(told.len() as u64);
                let each = sum.checked_div(told.len() as u64).unwrap_or(0);
                sum.saturating_add(each.saturating_mul(silent)).to_string().into_bytes()
            }
        })
    };
    let told: Vec<(&[u8], Vec<u8>)> =
        asked.iter().filter_map(|asked| Some((asked.name.as_slice(), value(asked)?))).collect();
    encode::map_header(out, told.len(), protocol);
    for (name, value) in told {
        encode::bulk(out, name);
        encode::bulk(out, &value);
    }
}

/// What CONFIG SET changes once every node has agreed to its part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SettingsChange {
    /// Portico's own settings and their values.
    pub own: Vec<(&'static str, String)>,
    /// What nodes that come later are told, by name in lower case.
    pub nodes: Vec<(String, Vec<u8>)>,
    /// Who is told now, by run id or id.
    pub told: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Part;

    #[test]
    fn nodes_fill_in_what_was_not_known() {
        let asked = |name: &str, source| Asked { name: name.as_bytes().to_vec(), source };
        let settings = [
            asked("port", Source::Known("6379".into())),
            asked("tls-port", Source::Where("tls-port".into(), "0".into())),
            asked("primaryauth", Source::Where("availability-zone".into(), String::new())),
            asked("MaxMemory", Source::Sum(2)),
            asked("hz", Source::Node),
            asked("none", Source::Node),
        ];
        let mut parts = Parts::default();
        for reply in [
            "*4\r\n$9\r\nMaxMemory\r\n$1\r\n2\r\n$2\r\nhz\r\n$2\r\n10\r\n",
            "%1\r\n$9\r\nMaxMemory\r\n$1\r\n3\r\n",
            "*2\r\n$8\r\ntls-port\r\n$4\r\n6380\r\n",
        ] {
            parts.parts.push(Part::default());
            parts.answer(parts.parts.len() - 1, reply.as_bytes());
        }
        let mut out = Vec::new();
        tell_settings(&settings, &parts, Protocol::Resp2, &mut out);
        let text = String::from_utf8(out).expect("text");
        let words: Vec<&str> = text.lines().skip(1).filter(|line| !line.starts_with('$')).collect();
        assert_eq!(words, ["port", "6379", "tls-port", "0", "MaxMemory", "5", "hz", "10"]);
        assert!(text.starts_with("*8\r\n"));
    }
}
