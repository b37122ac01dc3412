//! Ends a child process and removes its folder when this process dies without doing so itself.

use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Waits for the end of its standard input, which is the end of this process; Ctrl-C is not meant for it.
const SCRIPT: &str = r#"trap '' INT TERM HUP; read -r _; kill -9 "$1"; test -z "$2" || rm -rf "$2""#;

/// A shell that looks after one process. Dropping this calls it off: after ending the process, or letting it go.
#[derive(Debug)]
pub struct Watchdog(Child);

impl Watchdog {
    /// Watches over a child, and over a folder that is of no use without it.
    ///
    /// # Errors
    /// There is no `sh`.
    pub fn over(pid: u32, folder: Option<&Path>) -> io::Result<Self> {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(SCRIPT).arg("watchdog").arg(pid.to_string()).arg(folder.unwrap_or(Path::new("")));
        shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().map(Watchdog)
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        // Killing before the pipe closes: it must not act any more. Neither fails on a child of ours.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
