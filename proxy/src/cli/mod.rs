//! The command line: which commands there are, and what each one's exit code says.

mod check;
mod sandbox;
mod say;
mod slot;

use std::collections::BTreeMap;
use std::io;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{ArgMatches, Command};

use crate::config::{self, Config, Remark, SETTINGS, Setting};
use crate::signals::{self, Signals};
use crate::{logging, serve};

const AFTER_HELP: &str = "\
Without a command it serves: portico --nodes 127.0.0.1:7000 is portico serve --nodes 127.0.0.1:7000.
All settings, also as environment variables and in a file: portico serve --help.
No cluster at hand? portico sandbox starts one.";

const SERVE_AFTER_HELP: &str = "\
A flag wins over the environment, that over the file, that over the default.
The file is TOML: port = 7000, nodes = [\"10.0.0.1:7000\", \"10.0.0.2:7000\"].
Sizes are bytes, or in redis.conf's units: 1k is 1000 bytes, 1kb is 1024, and so on to gb.";

/// Runs the program with its own arguments. 0: done; 1: it failed, and standard error says why.
#[must_use]
pub fn run() -> ExitCode {
    let command = command();
    // Before anything else: a signal that comes while the settings are read ends it as any other does.
    let serves = !std::env::args().nth(1).is_some_and(|first| {
        let other = command.get_subcommands().map(Command::get_name).find(|name| *name == first);
        other.is_some_and(|name| name != "serve")
    });
    let signals = serves.then(signals::handle);
    let matches = match command.try_get_matches() {
        Ok(matches) => matches,
        Err(error) => {
            let failed = error.use_stderr();
            // Nobody is left to tell if it cannot be printed.
            let _ = error.print();
            return if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    let result = match matches.subcommand() {
        None => serve(&matches, signals),
        Some(("check", matches)) => load(matches).and_then(|config| check::run(&config)),
        Some(("slot", matches)) => slot::run(matches),
        Some(("sandbox", matches)) => sandbox::run(matches),
        Some((_serve, matches)) => serve(matches, signals),
    };
    result.unwrap_or_else(|error| {
        if !say::nobody_reads(&error) {
            say::complain(format_args!("{error:#}"));
        }
        ExitCode::FAILURE
    })
}

fn command() -> Command {
    let settings = || config::arguments();
    Command::new("portico")
        .about("One Redis endpoint in front of a Redis Cluster")
        .version(env!("CARGO_PKG_VERSION"))
        .override_usage("portico [serve] --nodes HOST:PORT... [SETTINGS]\n       portico COMMAND")
        .after_help(AFTER_HELP)
        .disable_help_subcommand(true)
        .args_conflicts_with_subcommands(true)
        .args(settings().map(|setting| setting.hide(true)))
        .subcommand(
            Command::new("serve")
                .about("Serve clients (also without a command)")
                .after_help(SERVE_AFTER_HELP)
                .args(settings()),
        )
        .subcommand(
            Command::new("check")
                .about("Show the cluster as it would be served, and what is wrong with it")
                .after_help("Exits with 1 if there is an error; warnings alone exit with 0.")
                .args(settings()),
        )
        .subcommand(slot::command())
        .subcommand(sandbox::command())
}

fn load(matches: &ArgMatches) -> anyhow::Result<Config> {
    let mut variables = BTreeMap::new();
    for (name, value) in std::env::vars_os() {
        let Ok(name) = name.into_string() else { continue };
        let known = || SETTINGS.iter().flat_map(Setting::environment).any(|known| known == name);
        match value.into_string() {
            Ok(value) => {
                variables.insert(name, value);
            }
            Err(_) if known() => anyhow::bail!("environment variable {name}: its value is not UTF-8"),
            Err(_) => {}
        }
    }
    let mut config = Config::load(matches, |name| variables.get(name).cloned())?;
    config.remarks.extend(config::remarks(variables.iter().map(|(name, value)| (&**name, &**value))));
    Ok(config)
}

fn serve(matches: &ArgMatches, signals: Option<io::Result<Signals>>) -> anyhow::Result<ExitCode> {
    let signals = signals.unwrap_or_else(signals::handle).context("cannot handle signals")?;
    let config = load(matches)?;
    logging::init(&config)?;
    for Remark { warning, text } in &config.remarks {
        if *warning {
            tracing::warn!("{text}");
        } else {
            tracing::info!("{text}");
        }
    }
    serve::run(config, signals)?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serving_needs_no_command() {
        command().debug_assert();
        let matches = command().get_matches_from(["portico", "--port", "7000", "--nodes", "a:1"]);
        assert_eq!(Config::load(&matches, |_| None).expect("valid").port, 7000);
        let matches = command().get_matches_from(["portico", "serve", "--port", "7000", "--nodes", "a:1"]);
        let (name, matches) = matches.subcommand().expect("a command");
        assert_eq!((name, Config::load(matches, |_| None).expect("valid").port), ("serve", 7000));
        command().try_get_matches_from(["portico", "--port", "7000", "serve"]).expect_err("a lost flag");
    }
}
