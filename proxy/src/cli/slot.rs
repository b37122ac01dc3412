//! `portico slot`: where keys live.

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command, value_parser};
use portico_slots::{hash_tag, slot};

const KEYS: &str = "keys";

pub(super) fn command() -> Command {
    Command::new("slot").about("Print the slot of each key, the key, and its hash tag if it has one").arg(
        Arg::new(KEYS)
            .value_name("KEY")
            .value_parser(value_parser!(OsString))
            .num_args(1..)
            .required(true)
            .allow_hyphen_values(true),
    )
}

pub(super) fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let mut output = std::io::stdout().lock();
    for key in matches.get_many::<OsString>(KEYS).into_iter().flatten() {
        output.write_all(&line(key.as_encoded_bytes()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn line(key: &[u8]) -> Vec<u8> {
    let mut line = format!("{} ", slot(key)).into_bytes();
    line.extend_from_slice(key);
    let tag = hash_tag(key);
    if tag.len() < key.len() {
        line.extend_from_slice(b" (hash tag: ");
        line.extend_from_slice(tag);
        line.push(b')');
    }
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_line_has_slot_key_and_hash_tag() {
        assert_eq!(super::line(b"foo"), b"12182 foo\n");
        assert_eq!(super::line(b"{foo}\xff"), b"12182 {foo}\xff (hash tag: foo)\n");
    }
}
