//! What a server lists by COMMAND, CONFIG and INFO, written into a folder below `tests/servers/`.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use portico::command::Learned;
use portico::sandbox::{Server, ServerOptions, text};
use redis_protocol::resp2::types::BytesFrame;

/// Writes the three lists.
pub(crate) fn record(program: &str, commands: &mut [Learned], folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    commands.sort_by(|one, other| one.name.cmp(&other.name));
    let columns: Vec<String> = commands.iter().map(|command| command.columns("")).collect();
    write(folder, "commands.tsv", columns)?;

    let (mut settings, mut fields) = (BTreeSet::new(), BTreeSet::new());
    for cluster in [None, Some(Duration::from_secs(5))] {
        let options = ServerOptions { redis_server: program.into(), cluster, ..ServerOptions::default() };
        let server = Server::start(options)?;
        let BytesFrame::Array(listed) = server.call(&["CONFIG", "GET", "*"])? else {
            anyhow::bail!("CONFIG GET is no array")
        };
        settings.extend(listed.iter().step_by(2).filter_map(text));
        // Some sections and fields are there only when there is something to tell.
        let _ = server.call(&["LPUSH", "key", "element"])?;
        let _ = server.call(&["GET", "key"])?;
        fields.extend(info_fields(&server.ask(&["INFO", "everything"])?));
    }
    write(folder, "settings.txt", settings)?;
    write(folder, "info.txt", fields)
}

fn write(folder: &Path, file: &str, lines: impl IntoIterator<Item = String>) -> Result<()> {
    let mut text = String::new();
    lines.into_iter().try_for_each(|line| writeln!(text, "{line}"))?;
    fs::write(folder.join(file), text).with_context(|| format!("{} cannot be written", folder.display()))
}

/// Section and field of each line, without those that are named by commands and errors.
fn info_fields(info: &str) -> Vec<String> {
    let mut section = "";
    let mut fields = Vec::new();
    for line in info.lines() {
        if let Some(name) = line.strip_prefix("# ") {
            section = name;
        } else if let Some((field, _)) = line.split_once(':')
            && !["Commandstats", "Errorstats", "Latencystats"].contains(&section)
        {
            fields.push(format!("{section} {field}"));
        }
    }
    fields
}
