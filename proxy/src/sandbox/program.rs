//! Which program runs as a server, and how old it is.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Names the program in place of `redis-server`, for tests with other servers.
const VARIABLE: &str = "SANDBOX_REDIS_SERVER";

/// What runs as a server unless something else is said.
pub(super) fn default_program() -> PathBuf {
    std::env::var_os(VARIABLE).map_or_else(|| "redis-server".into(), PathBuf::from)
}

/// Whether it is older than 7.0, which has neither `cluster-port` nor `enable-debug-command`.
pub(super) fn is_old(program: &Path) -> bool {
    let told = Command::new(program).arg("--version").output();
    let told = told.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    told.contains(" v=6.")
}
