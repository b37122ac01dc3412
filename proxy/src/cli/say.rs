//! Saying something to whoever called: standard output and standard error may be a pipe that nobody reads or a full disk.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};

/// Writes to standard output.
///
/// # Errors
/// It takes nothing more.
pub(super) fn say(text: impl Display) -> io::Result<()> {
    let mut out = io::stdout().lock();
    write!(out, "{text}")?;
    out.flush()
}

/// Writes a line to standard error, if that takes it: there is nobody else to be told.
pub(super) fn complain(text: impl Display) {
    let _ = writeln!(io::stderr(), "portico: {text}");
}

/// Whether what failed is that nobody reads standard output any more: `portico check | head -1` has what it wanted.
pub(super) fn nobody_reads(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}
