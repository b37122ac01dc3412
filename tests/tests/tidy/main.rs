//! The tree keeps its own rules: module docs, small files, layers, and an ARCHITECTURE.md that is up to date.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

const MOST_LINES: usize = 600;

/// The proxy's modules from the bottom up: each imports from those before it.
const LAYERS: &[&str] = &[
    "config",
    "sandbox",
    "logging",
    "descriptors",
    "memory",
    "signals",
    "command",
    "scripts",
    "plan",
    "backend",
    "pubsub",
    "session",
    "stats",
    "topology",
    "local",
    "engine",
    "worker",
    "serve",
    "cli",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| path.display().to_string())
}

/// All files below a folder that end so, but for what is built or installed.
fn files(folder: &Path, end: &str, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && !name.starts_with('.') && name != "target" && name != "node_modules" {
            files(&path, end, found)?;
        } else if path.is_file() && name.ends_with(end) {
            found.push(path);
        }
    }
    Ok(())
}

fn sources() -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for folder in ["resp", "slots", "proxy", "tests", "fuzz"] {
        files(&root().join(folder), ".rs", &mut found)?;
    }
    ensure!(found.len() > 50, "only {} sources: is this the right folder?", found.len());
    Ok(found)
}

/// What a source names as `crate::module::Item`: pairs of module and item, with `*` where the module itself is meant.
fn imports(text: &str) -> Vec<(String, String)> {
    let code: String =
        text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let mut imports = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        for (module, rest) in group(&code[at + "crate::".len()..]) {
            match rest.strip_prefix("::") {
                Some(items) => {
                    imports.extend(group(items).into_iter().map(|(item, _)| (module.clone(), item)));
                }
                None => imports.push((module, "*".to_owned())),
            }
        }
    }
    imports
}

/// The names at the beginning of a path, one or several in braces, each with what follows it.
fn group(path: &str) -> Vec<(String, String)> {
    let Some(inner) = path.strip_prefix('{') else {
        let end = path.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(path.len());
        return vec![(path[..end].to_owned(), path[end..].to_owned())];
    };
    let (mut depth, mut parts) = (1, vec![String::new()]);
    for c in inner.chars() {
        depth += i32::from(c == '{') - i32::from(c == '}');
        match c {
            _ if depth == 0 => break,
            ',' if depth == 1 => parts.push(String::new()),
            c => parts.last_mut().expect("never empty").push(c),
        }
    }
    parts.iter().map(|part| part.trim()).filter(|part| !part.is_empty()).flat_map(group).collect()
}

#[test]
fn every_source_says_what_it_is_and_is_not_too_long() -> Result<()> {
    let mut faults = Vec::new();
    for path in sources()? {
        let text = read(&path)?;
        let (path, lines) = (path.display(), text.lines().count());
        if !text.starts_with("//! ") {
            faults.push(format!("{path} does not begin with //! and what it is"));
        }
        if lines > MOST_LINES {
            faults.push(format!("{path} has {lines} lines, more than {MOST_LINES}"));
        }
    }
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    Ok(())
}

#[test]
fn the_proxys_layers_are_kept() -> Result<()> {
    let folder = root().join("proxy/src");
    let place = |module: &str| {
        let place = LAYERS.iter().position(|layer| *layer == module);
        place.with_context(|| format!("{module} is not in the list of layers in tests/tests/tidy/main.rs"))
    };
    let mut found = Vec::new();
    files(&folder, ".rs", &mut found)?;
    let mut faults = Vec::new();
    for path in found {
        let inside = path.strip_prefix(&folder)?;
        let first = inside.components().next().context("a file")?.as_os_str().to_string_lossy().into_owned();
        let module = first.trim_end_matches(".rs");
        if ["lib", "main"].contains(&module) {
            continue;
        }
        for (other, item) in imports(&read(&path)?) {
            if place(&other)? > place(module)? {
                faults.push(format!(
                    "{}: crate::{other}::{item}, but {other} is above {module}",
                    inside.display()
                ));
            }
        }
    }
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    Ok(())
}

#[test]
fn imports_are_found_in_every_form() {
    let text = "//! crate::no\nuse crate::a::{B, c::D};\nuse crate::{e, f::G};\nfn h() -> crate::i::J { $crate::k::L }";
    let found = imports(text);
    let found: Vec<_> = found.iter().map(|(module, item)| format!("{module}:{item}")).collect();
    assert_eq!(found, ["a:B", "a:c", "e:*", "f:G", "i:J"]);
}

#[test]
fn the_architecture_names_every_folder_and_no_file_that_is_not_there() -> Result<()> {
    let text = read(&root().join("ARCHITECTURE.md"))?;
    let mut faults = Vec::new();
    for entry in fs::read_dir(root().join("proxy/src"))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().is_dir() && !text.contains(&format!("`{name}/`")) {
            faults.push(format!("it does not name proxy/src/{name}/"));
        }
    }
    for name in
        text.split('`').skip(1).step_by(2).filter(|word| word.ends_with(".rs") || word.ends_with(".tsv"))
    {
        let named = |path: &PathBuf| path.ends_with(name);
        if !sources()?.iter().any(named) && !root().join("proxy/src/command").join(name).exists() {
            faults.push(format!("it names {name}, which is not there"));
        }
    }
    ensure!(faults.is_empty(), "ARCHITECTURE.md: {}", faults.join("\n"));
    Ok(())
}
