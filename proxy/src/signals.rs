//! Signals: which of them end the process, and that no other does.

use std::io;
use std::process::exit;

pub use signal_hook::iterator::Signals;

use signal_hook::consts::{SIGALRM, SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};

/// Has signals wait for [`heed`] from now on, in place of what the system does at each.
///
/// # Errors
/// The system refuses.
pub fn handle() -> io::Result<Signals> {
    Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2, SIGALRM])
}

/// Heeds signals for as long as the process runs. `stop` is called once; a second signal to end exits with 1.
pub fn heed(mut signals: Signals, stop: impl FnOnce()) {
    let mut stop = Some(stop);
    for signal in signals.forever() {
        match (signal, stop.take()) {
            (SIGTERM | SIGINT, Some(stop)) => {
                tracing::info!(signal, "told to end: answering what was received");
                stop();
            }
            (SIGTERM | SIGINT, None) => {
                tracing::warn!(signal, "told to end a second time: ending at once");
                exit(1);
            }
            (SIGHUP, later) => {
                stop = later;
                tracing::info!(
                    "SIGHUP: settings are not read again, since Portico does not do this yet; the log file is opened \
                     anew for each line, so that it can be moved away at any time"
                );
            }
            (_, later) => {
                stop = later;
                tracing::info!(signal, "a signal without a meaning here is ignored");
            }
        }
    }
}
