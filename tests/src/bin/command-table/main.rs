//! Prints the command table (`proxy/src/command/table.tsv`) as a server's own replies make it.
//!
//! `cargo run -p portico-tests --bin command-table -- --redis-server PATH > table.tsv`: the columns `marks` and
//! `handling` are kept from the table as it was when this was built. A command that it did not have gets `?`, which
//! does not parse: somebody has to decide. Rows of commands that came after the server are kept as they are. With
//! `--record FOLDER` it writes there what the server lists, as `tests/servers/` has it, and prints nothing.

mod record;
mod server;

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, Result, bail};
use portico::command::{Learned, Row, SOURCE, parse_command_reply};
use redis_protocol::resp2::types::{BytesFrame, Resp2Frame};
use server::Server;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (folder, args) = match args.as_slice() {
        [rest @ .., flag, folder] if flag == "--record" => (Some(folder), rest),
        rest => (None, rest),
    };
    let program = match args {
        [] => "redis-server",
        [flag, path] if flag == "--redis-server" => path,
        _ => bail!("usage: command-table [--redis-server PATH] [--record FOLDER]"),
    };
    let mut server = Server::start(program)?;
    let mut commands = Vec::new();
    for mut command in parse_command_reply(&server.call(&["COMMAND"])?) {
        let subcommands = std::mem::take(&mut command.subcommands);
        commands.push(command);
        commands.extend(subcommands);
    }
    if let Some(folder) = folder {
        return record::record(program, &mut commands, folder.as_ref());
    }
    let mut since = HashMap::new();
    versions(&server.call(&["COMMAND", "DOCS"])?, &mut since);
    print!("{}", table(&commands, &since)?);
    Ok(())
}

/// The table's text; what people wrote into it is kept.
fn table(commands: &[Learned], since: &HashMap<String, String>) -> Result<String> {
    let rows: HashMap<&str, Row<'_>> =
        Row::all(SOURCE).map(|row| row.map(|row| (row.name, row))).collect::<Result<_, _>>()?;
    let mut table = String::new();
    for line in SOURCE.lines().take_while(|line| line.starts_with('#')) {
        table.push_str(line);
        table.push('\n');
    }
    let mut generated = BTreeMap::new();
    for command in commands {
        let since = since.get(&command.name).with_context(|| format!("{} has no docs", command.name))?;
        generated.insert(command.name.as_str(), command.columns(since));
    }
    // What came after this server it cannot know.
    let newest = since.values().map(|since| version(since)).max();
    for row in rows.values().filter(|row| row.generated.split('\t').nth(1).map(version) > newest) {
        generated.entry(row.name).or_insert_with(|| row.generated.to_owned());
    }
    for (name, columns) in generated {
        let (marks, handling) = rows.get(name).map_or(("-", "?"), |row| (row.marks, row.handling));
        table.push_str(&format!("{columns}\t{marks}\t{handling}\n"));
    }
    Ok(table)
}

/// From each command to the version that brought it, out of a `COMMAND DOCS` reply.
fn versions(docs: &BytesFrame, since: &mut HashMap<String, String>) {
    for (name, about) in pairs(docs) {
        for (field, value) in pairs(about) {
            match (field, value) {
                ("since", BytesFrame::BulkString(version)) => {
                    since.insert(name.to_owned(), String::from_utf8_lossy(version).into_owned());
                }
                ("subcommands", subcommands) => versions(subcommands, since),
                _ => {}
            }
        }
    }
}

fn version(text: &str) -> Vec<u32> {
    text.split('.').map(|part| part.parse().unwrap_or(0)).collect()
}

fn pairs(map: &BytesFrame) -> impl Iterator<Item = (&str, &BytesFrame)> {
    let items: &[BytesFrame] = if let BytesFrame::Array(items) = map { items } else { &[] };
    items.chunks_exact(2).filter_map(|pair| Some((pair[0].as_str()?, &pair[1])))
}
