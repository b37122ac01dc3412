//! CONFIG: whose each setting is, what Portico tells of its own, and what is asked of nodes or set at them.

mod get;
mod names;
mod own;
mod set;

use portico_resp::encode;

pub use get::{asked_settings, known_settings, questions};
pub use names::{Decision, Name, names};
pub use set::{Settings, settings_to_set, shares};

/// The reply to CONFIG REWRITE when all nodes have rewritten their files. `changed`: what Portico has no file for.
pub fn rewritten(changed: &[&str], out: &mut Vec<u8>) {
    if changed.is_empty() {
        return encode::simple(out, "OK");
    }
    let text = format!(
        "ERR Rewriting config file: the nodes have rewritten theirs, Portico does not write its own: put {} into it, or          it is forgotten when Portico ends",
        changed.join(", ")
    );
    encode::error(out, text);
}

/// Before the name of a flag: that setting in Portico's own words.
const PREFIX: &str = "portico-";

#[cfg(test)]
mod tests {
    use super::rewritten;

    #[test]
    fn what_is_not_written_anywhere_is_named() {
        let told = |changed: &[&str]| {
            let mut out = Vec::new();
            rewritten(changed, &mut out);
            String::from_utf8(out).expect("text")
        };
        assert_eq!(told(&[]), "+OK\r\n");
        let some = told(&["timeout", "maxclients"]);
        assert!(
            some.starts_with("-ERR Rewriting config file") && some.contains("timeout, maxclients"),
            "{some}"
        );
    }
}
