//! What a request costs, against the record of it in `tests/cost/`.
//!
//! A cost that differs from its record fails in both directions: a record that is left behind by an improvement would
//! hide the next loss of the same size. `make record-costs` renews the records.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// Costs that were measured.
#[derive(Debug)]
pub struct Costs {
    /// The file's name in `tests/cost/`.
    pub file: &'static str,
    /// What is counted, for the file's first line.
    pub what: &'static str,
    /// What the figures depend on but for the sources: told in the file's second line.
    pub made_with: String,
    /// The figures' names. The first one is compared; the others say what it is made of.
    pub columns: Vec<&'static str>,
    /// Each shape of load with its figures, a request.
    pub rows: Vec<(String, Vec<f64>)>,
}

impl Costs {
    /// Renews the record if `RECORD_COSTS` is set; otherwise compares with it. `margin` is told what the record was
    /// made with and returns which part of it a figure may differ by, or `None` where they cannot be compared.
    ///
    /// # Errors
    /// A figure differs by more; the error has them all, and says how to record anew.
    pub fn settle(&self, margin: impl FnOnce(&str) -> Option<f64>) -> Result<()> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("cost").join(self.file);
        println!("{}", self.text());
        if std::env::var_os("RECORD_COSTS").is_some() {
            return fs::write(&path, self.text()).with_context(|| path.display().to_string());
        }
        let record = fs::read_to_string(&path);
        let record = record.with_context(|| format!("{}: make record-costs writes it", path.display()))?;
        let made_with = record.lines().nth(1).and_then(|line| line.strip_prefix("# ")).unwrap_or_default();
        let Some(margin) = margin(made_with) else {
            println!("NOT COMPARED: the record was made with {made_with}, this with {}", self.made_with);
            return Ok(());
        };
        if made_with != self.made_with {
            let percent = margin * 100.0;
            println!(
                "The record was made with {made_with}, this with {}: {percent}% apart may be",
                self.made_with
            );
        }
        self.compare(&record, margin)
    }

    fn text(&self) -> String {
        let mut text = format!("# {} Renewed by: make record-costs\n# {}\nshape", self.what, self.made_with);
        self.columns.iter().for_each(|column| text.extend(["\t", column]));
        for (shape, figures) in &self.rows {
            text.extend(["\n", shape]);
            for figure in figures {
                write!(text, "\t{figure:.*}", decimals(*figure)).expect("a string takes everything");
            }
        }
        text.push('\n');
        text
    }

    fn compare(&self, record: &str, margin: f64) -> Result<()> {
        let recorded: Vec<(&str, f64)> = record
            .lines()
            .filter(|line| !line.starts_with('#'))
            .skip(1)
            .map(|line| {
                let mut fields = line.split('\t');
                let (shape, figure) = (fields.next(), fields.next().and_then(|figure| figure.parse().ok()));
                shape.zip(figure).with_context(|| format!("{}: a line without a figure: {line}", self.file))
            })
            .collect::<Result<_>>()?;
        let mut faults = Vec::new();
        for (shape, figures) in &self.rows {
            let Some((_, was)) = recorded.iter().find(|(name, _)| name == shape) else {
                faults.push(format!("{shape}: not recorded"));
                continue;
            };
            let (is, change) = (figures[0], figures[0] / was - 1.0);
            if change.abs() > margin {
                faults.push(format!(
                    "{shape}: {is:.*} {} a request, recorded {was}: {:+.1}%, {}",
                    decimals(is),
                    self.columns[0],
                    change * 100.0,
                    if change > 0.0 { "dearer" } else { "cheaper; the record hides a later loss" },
                ));
            }
        }
        for (shape, _) in recorded {
            if self.rows.iter().all(|(name, _)| name != shape) {
                faults.push(format!("{shape}: recorded, but not measured any more"));
            }
        }
        if !faults.is_empty() {
            bail!(
                "tests/cost/{}: more than {}% from the record. If that is meant, renew it: make record-costs\n{}",
                self.file,
                margin * 100.0,
                faults.join("\n")
            );
        }
        Ok(())
    }
}

/// Whole instructions, thousandths of system calls.
fn decimals(figure: f64) -> usize {
    if figure >= 100.0 { 0 } else { 3 }
}
