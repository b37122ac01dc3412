//! Every command that servers other than the installed one list is decided about: what `tests/servers/` records.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use portico::command::{Handling, KeySpec, Keys, Learned, Table};

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

/// What the table of commands does not have itself is told as `name handling`, as `tests/servers/decisions.txt` has it.
#[test]
fn every_command_of_other_servers_is_decided_about() -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("servers");
    let builtin = Table::builtin();
    let mut decided = BTreeMap::new();
    for file in fs::read_dir(&folder)? {
        let path = file?.path();
        if path.extension().is_none_or(|end| end != "tsv") {
            continue;
        }
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
    let known = fs::read_to_string(folder.join("decisions.txt"))?;
    let known: Vec<&str> = known.lines().filter(|line| !line.starts_with('#')).collect();
    let missing: Vec<_> = decided.iter().filter(|line| !known.contains(&line.as_str())).collect();
    ensure!(missing.is_empty(), "not in tests/servers/decisions.txt: {missing:#?}");
    let gone: Vec<_> = known.iter().filter(|line| !decided.iter().any(|told| told == *line)).collect();
    ensure!(gone.is_empty(), "in tests/servers/decisions.txt and of no server: {gone:#?}");
    Ok(())
}
