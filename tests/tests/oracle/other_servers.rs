//! Every command, setting and field of INFO that servers other than the installed one list is decided about: what
//! `tests/servers/` records.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use portico::command::{Handling, KeySpec, Keys, Learned, Table};
use portico::local::{info_rule, names};

/// A recorded line: the columns that a server's replies make.
fn learned(line: &str) -> Result<Learned> {
    let columns: Vec<&str> = line.split('\t').collect();
    let [name, _since, arity, flags, legacy, specs, tips] = columns[..] else { anyhow::bail!("{line}") };
    let list = |column: &str, separator| -> Vec<String> {
        column.split(separator).filter(|word| *word != "-").map(str::to_owned).collect()
    };
    let legacy: Vec<i32> = legacy.split(':').map(str::parse).collect::<Result<_, _>>()?;
    let &[first, last, step] = legacy.as_slice() else { anyhow::bail!("{line}") };
    let specs: Option<Vec<KeySpec>> = list(specs, ' ').iter().map(|spec| KeySpec::parse(spec)).collect();
    Ok(Learned {
        name: name.to_owned(),
        arity: arity.parse()?,
        flags: list(flags, ','),
        first,
        last,
        step,
        key_specs: specs.with_context(|| line.to_owned())?,
        tips: list(tips, ','),
        subcommands: Vec::new(),
    })
}

/// What a server lists, subcommands in their containers.
fn listed(text: &str) -> Result<Vec<Learned>> {
    let mut commands: BTreeMap<String, Learned> = BTreeMap::new();
    for line in text.lines() {
        let command = learned(line)?;
        match command.name.split_once('|') {
            None => drop(commands.insert(command.name.clone(), command)),
            Some((container, _)) => {
                let container = commands.get_mut(container).with_context(|| command.name.clone())?;
                container.subcommands.push(command);
            }
        }
    }
    Ok(commands.into_values().collect())
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("servers")
}

/// Where a list of each server is, by the server's name.
fn recorded(list: &str) -> Result<BTreeMap<String, PathBuf>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder())? {
        let entry = entry?;
        let path = entry.path().join(list);
        if path.exists() {
            found.insert(entry.file_name().to_string_lossy().into_owned(), path);
        }
    }
    ensure!(found.len() > 4, "{found:?}");
    Ok(found)
}

/// `redis-8.2.3` as the table of settings calls it.
fn series(server: &str) -> Result<String> {
    let (name, version) = server.split_once('-').context("a name and a version")?;
    let (series, _) = version.rsplit_once('.').context("three numbers")?;
    Ok(if name == "redis" { series.to_owned() } else { format!("{name}{series}") })
}

#[test]
fn every_setting_of_other_servers_is_decided_about() -> Result<()> {
    for (server, path) in recorded("settings.txt")? {
        let text = fs::read_to_string(path)?;
        let listed: BTreeSet<&str> = text.lines().collect();
        let series = series(&server)?;
        let rows = names().iter().filter(|row| row.is_listed_by(&series));
        // A server that was built without TLS has no such settings.
        let rows = rows.filter(|row| !row.name.starts_with("tls-") || listed.contains("tls-port"));
        let known: BTreeSet<&str> = rows.map(|row| row.name).collect();
        ensure!(
            listed == known,
            "{server}: names.tsv does not decide {:?}, and has {:?} which it does not list",
            listed.difference(&known).collect::<Vec<_>>(),
            known.difference(&listed).collect::<Vec<_>>()
        );
    }
    Ok(())
}

#[test]
fn every_field_of_other_servers_is_decided_about() -> Result<()> {
    for (server, path) in recorded("info.txt")? {
        let text = fs::read_to_string(path)?;
        let fields: Vec<(&str, &str)> = text.lines().filter_map(|line| line.rsplit_once(' ')).collect();
        ensure!(fields.len() > 100, "{server} tells {fields:?}");
        // A module's are told as the first master tells them.
        let own = fields.iter().filter(|(section, _)| !section.starts_with("search_"));
        let undecided: Vec<_> = own.filter(|(section, field)| info_rule(section, field).is_none()).collect();
        ensure!(undecided.is_empty(), "local/info/fields.rs has no rule for {server}'s {undecided:?}");
    }
    Ok(())
}

/// What the table of commands does not have itself is told as `name handling`, as `tests/servers/decisions.txt` has it.
#[test]
fn every_command_of_other_servers_is_decided_about() -> Result<()> {
    let builtin = Table::builtin();
    let mut decided = BTreeMap::new();
    let modules = folder().join("modules.tsv");
    for path in recorded("commands.tsv")?.into_values().chain([modules]) {
        let commands = listed(&fs::read_to_string(&path)?).with_context(|| path.display().to_string())?;
        ensure!(commands.len() > 200, "{} lists {} commands", path.display(), commands.len());
        let mut table = builtin.clone();
        table.learn(&commands);
        let all = commands.iter().flat_map(|command| std::iter::once(command).chain(&command.subcommands));
        for command in all.filter(|it| {
            builtin.find(it.name.as_bytes()).is_none() && !["post", "host:"].contains(&it.name.as_str())
        }) {
            let found = table.find(command.name.as_bytes()).with_context(|| command.name.clone())?;
            // One that has keys is known to run where they are.
            let plain = found.handling == Handling::Key || found.handling == Handling::Block;
            if matches!(found.keys, Keys::None | Keys::Unknown) || !plain {
                decided.insert(command.name.clone(), format!("{:?}", found.handling));
            }
        }
    }
    let decided: Vec<String> =
        decided.into_iter().map(|(name, handling)| format!("{name} {handling}")).collect();
    let known = fs::read_to_string(folder().join("decisions.txt"))?;
    let known: Vec<&str> = known.lines().filter(|line| !line.starts_with('#')).collect();
    let missing: Vec<_> = decided.iter().filter(|line| !known.contains(&line.as_str())).collect();
    ensure!(missing.is_empty(), "not in tests/servers/decisions.txt: {missing:#?}");
    let gone: Vec<_> = known.iter().filter(|line| !decided.iter().any(|told| told == *line)).collect();
    ensure!(gone.is_empty(), "in tests/servers/decisions.txt and of no server: {gone:#?}");
    Ok(())
}
