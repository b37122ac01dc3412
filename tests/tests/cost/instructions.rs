//! What the engine costs a request, in instructions: they are the same however busy the machine is.
//!
//! `engine-cost` is built as the program is that people run (the release profile): what another profile inlines, or
//! does not, would be guarded instead (without link-time optimisation a GET takes 3% more, and it builds no faster). The
//! same compiler on the same sources gives the same figures but for half a per cent, which is where the heap happens to
//! lie, so that three per cent are a change of the code. Another compiler may inline otherwise: it has a wider margin,
//! with which a gross loss still fails. Another architecture's instructions cannot be compared at all; the test says so
//! and passes.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use portico_tests::Costs;

const MARGIN: f64 = 0.03;
const OTHER_COMPILER: f64 = 0.15;

fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}\n{errors}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}

/// Builds it here, although `make test` has built it before: an old one would guard nothing.
fn engine_cost() -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--release", "--package", "portico-engine-cost", "--bin", "engine-cost"]);
    let messages = run(build.args(["--message-format", "json-render-diagnostics"]))?;
    let path = messages.lines().find_map(|line| {
        let (_, path) = line.split_once(r#""executable":""#)?;
        path.split('"').next().filter(|path| path.ends_with("engine-cost"))
    });
    path.map(PathBuf::from).context("cargo does not say where engine-cost is")
}

/// The compiler's version, and the architecture after the last space.
fn compiler() -> Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = run(Command::new(rustc).arg("-vV"))?;
    let release = version.lines().find_map(|line| line.strip_prefix("release: ")).context("rustc -vV")?;
    Ok(format!("rustc {release} for {}", std::env::consts::ARCH))
}

#[test]
fn a_request_takes_as_many_instructions_as_recorded() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let counts = folder.path().join("counts");
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--quiet", "--combine-dumps=yes"]);
    // Both are patterns for names of functions.
    valgrind.args(["--toggle-collect=*counted_turn*", "--dump-before=*note_count*"]);
    valgrind.arg(format!("--callgrind-out-file={}", counts.display())).arg(engine_cost()?);
    let shapes = run(&mut valgrind)?;

    let counts = std::fs::read_to_string(counts)?;
    let counts: Vec<f64> =
        counts.lines().filter_map(|line| line.strip_prefix("totals: ")?.parse().ok()).collect();
    let shapes: Vec<_> = shapes.lines().filter_map(|line| line.split_once('\t')).collect();
    // For each shape one note after warming up and one after measuring, and one more at the end.
    ensure!(counts.len() == 2 * shapes.len() + 1, "{} counts for {} shapes", counts.len(), shapes.len());
    let row = |(at, (shape, requests)): (usize, &(&str, &str))| {
        let requests: f64 = requests.parse()?;
        ensure!(counts[2 * at + 1] > requests, "{shape}: nothing was counted; was counted_turn inlined?");
        Ok(((*shape).to_owned(), vec![counts[2 * at + 1] / requests]))
    };
    let rows = shapes.iter().enumerate().map(row).collect::<Result<_>>()?;

    let made_with = compiler()?;
    let costs = Costs {
        file: "instructions.tsv",
        what: "The engine's instructions a request, 50 clients at once, 64-byte values.",
        made_with: made_with.clone(),
        columns: vec!["instructions"],
        rows,
    };
    costs.settle(|recorded| {
        let architecture = |text: &str| text.rsplit(' ').next().unwrap_or_default().to_owned();
        (architecture(recorded) == architecture(&made_with))
            .then(|| if recorded == made_with { MARGIN } else { OTHER_COMPILER })
    })
}
