//! One line of the table's text.

use super::{Command, Flags, Handling, KeySpec, Keys, Kind, Learned, Walk};

/// One row: the columns of one command, as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row<'t> {
    /// The full name.
    pub name: &'t str,
    /// The columns that a server's replies make, the name first, with the tabs between them.
    pub generated: &'t str,
    /// Portico's marks, chosen by hand.
    pub marks: &'t str,
    /// What Portico does, chosen by hand.
    pub handling: &'t str,
}

/// What is wrong with a row.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{column:?} is wrong in the row {row:?}")]
pub struct RowError {
    row: String,
    column: &'static str,
}

impl<'t> Row<'t> {
    /// The columns' names, in their order; the first seven are generated.
    pub const COLUMNS: [&'static str; 9] =
        ["name", "since", "arity", "flags", "first:last:step", "key specs", "tips", "marks", "handling"];

    /// The rows of a table. Lines that start with `#` are for the reader.
    pub fn all(table: &'t str) -> impl Iterator<Item = Result<Self, RowError>> {
        table.lines().filter(|line| !line.starts_with('#')).map(Self::parse)
    }

    fn parse(line: &'t str) -> Result<Self, RowError> {
        let wrong = || RowError { row: line.to_owned(), column: "the number of columns" };
        let (rest, handling) = line.rsplit_once('\t').ok_or_else(wrong)?;
        let (generated, marks) = rest.rsplit_once('\t').ok_or_else(wrong)?;
        let columns = generated.split('\t').count();
        if columns != Self::COLUMNS.len() - 2 {
            return Err(wrong());
        }
        let name = generated.split('\t').next().unwrap_or_default();
        Ok(Self { name, generated, marks, handling })
    }
}

impl Row<'static> {
    /// The command that the row defines.
    ///
    /// # Errors
    /// Names the first column that is not in its notation.
    pub fn command(&self) -> Result<Command, RowError> {
        let wrong = |column| move || RowError { row: self.generated.to_owned(), column };
        let columns: Vec<&'static str> = self.generated.split('\t').collect();
        let [name, since, arity, flags, legacy, specs, tips] = columns[..] else {
            return Err(wrong("the number of columns")());
        };
        let mut flags = list(flags, ',')
            .try_fold(Flags::default(), |flags, word| Some(flags.with(Flags::named(word)?)))
            .ok_or_else(wrong("flags"))?;
        let legacy: Vec<i32> = legacy.split(':').filter_map(|number| number.parse().ok()).collect();
        let &[first, last, step] = legacy.as_slice() else { return Err(wrong("first:last:step")()) };
        let specs: Option<Vec<KeySpec>> = list(specs, ' ').map(KeySpec::parse).collect();
        let mut keys = Keys::new(specs.ok_or_else(wrong("key specs"))?, (first, last, step), flags);
        let mut marked = false;
        for mark in list(self.marks, ',') {
            marked |= mark.starts_with("keys:");
            if let Some(walk) = mark.strip_prefix("keys:") {
                keys = walk
                    .parse()
                    .map(Keys::One)
                    .ok()
                    .or_else(|| Walk::named(walk).map(Keys::Walk))
                    .ok_or_else(wrong("marks"))?;
            } else {
                flags = flags.with(Flags::named(mark).ok_or_else(wrong("marks"))?);
            }
        }
        Ok(Command {
            name,
            since,
            arity: arity.parse().map_err(|_| wrong("arity")())?,
            flags,
            keys,
            handling: Handling::parse(self.handling).ok_or_else(wrong("handling"))?,
            tips: list(tips, ',').map(Into::into).collect(),
            marked,
            kind: Kind::of(name),
        })
    }
}

impl Learned {
    /// The generated columns of its row, as in [`Row::generated`].
    #[must_use]
    pub fn columns(&self, since: &str) -> String {
        let specs: Vec<String> = self.key_specs.iter().map(ToString::to_string).collect();
        let columns = [
            self.name.clone(),
            or_dash(since.to_owned()),
            self.arity.to_string(),
            or_dash(self.flags.join(",")),
            format!("{}:{}:{}", self.first, self.last, self.step),
            or_dash(specs.join(" ")),
            or_dash(self.tips.join(",")),
        ];
        columns.join("\t")
    }
}

/// The members of a column; `-` is none.
fn list(column: &'static str, separator: char) -> impl Iterator<Item = &'static str> {
    column.split(separator).filter(|member| *member != "-")
}

fn or_dash(column: String) -> String {
    if column.is_empty() { "-".to_owned() } else { column }
}
