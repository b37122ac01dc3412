//! What is wrong with the settings is said at the start, by name, and without a secret.

use std::io::Write;
use std::net::TcpListener;
use std::process::{Output, Stdio};

use anyhow::{Result, ensure};
use portico_tests::Binary;

fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Output> {
    let mut command = Binary::command()?;
    Ok(command.args(arguments).envs(environment.iter().copied()).output()?)
}

/// Ends with 1, says all of `texts` on standard error and nothing on standard output.
fn fails(arguments: &[&str], environment: &[(&str, &str)], texts: &[&str]) -> Result<()> {
    let output = run(arguments, environment)?;
    let error = String::from_utf8(output.stderr)?;
    ensure!(output.status.code() == Some(1), "{arguments:?}: {}: {error}", output.status);
    for text in texts {
        ensure!(error.contains(text), "{arguments:?}: no {text:?} in {error}");
    }
    ensure!(output.stdout.is_empty(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
    ensure!(!error.contains("hush-hush"), "{arguments:?}: a secret in {error}");
    ensure!(!error.contains("panicked"), "{arguments:?}: {error}");
    Ok(())
}

const NODES: [&str; 2] = ["--nodes", "127.0.0.1:1"];

#[test]
fn bad_flags_are_named() -> Result<()> {
    fails(&["--no-such-flag"], &[], &["--no-such-flag"])?;
    fails(&[], &[], &["--nodes"])?;
    for (flag, value) in [
        ("--port", "abc"),
        ("--port", "70000"),
        ("--nodes", "a"),
        ("--maxclients", "0"),
        ("--workers", "0"),
        ("--timeout", "-1"),
        ("--cross-slot", "sometimes"),
        ("--pipeline-order", "sometimes"),
        ("--loglevel", "loud"),
        ("--proto-max-bulk-len", "1"),
        ("--client-output-buffer-limit", "many"),
        ("--bind", "nowhere"),
        ("--requirepass-file", "/absent/file"),
        ("--node-password-file", "/absent/file"),
    ] {
        let mut arguments = vec![];
        if flag != "--nodes" {
            arguments.extend(NODES);
        }
        let argument = format!("{flag}={value}");
        arguments.push(&argument);
        fails(&arguments, &[], &[flag, value])?;
    }
    fails(&["--nodes", "127.0.0.1:1", "--config", "/absent/portico.toml"], &[], &["/absent/portico.toml"])
}

#[test]
fn bad_variables_are_named() -> Result<()> {
    fails(&NODES, &[("PORTICO_PORT", "abc")], &["PORTICO_PORT", "abc"])?;
    fails(
        &NODES,
        &[("PORTICO_REQUIREPASS_FILE", "/absent/file")],
        &["PORTICO_REQUIREPASS_FILE", "/absent/file"],
    )
}

#[test]
fn bad_lines_of_the_file_are_named() -> Result<()> {
    for (text, texts) in [
        ("port = 1\nports = 2\n", &["portico.toml:2", "ports", "port"][..]),
        ("# one\n\nport = \"abc\"\n", &["portico.toml:3", "port", "abc"]),
        ("port = 1\nrequirepass = \"hush-hush\n", &["portico.toml:2"]),
        ("port = 1.5\n", &["portico.toml:1", "port"]),
        ("[section]\nport = 1\n", &["portico.toml:1", "section"]),
        ("requirepass = [1, {}]\n", &["portico.toml:1", "requirepass"]),
    ] {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("portico.toml");
        std::fs::File::create(&path)?.write_all(text.as_bytes())?;
        let path = path.display().to_string();
        fails(&["--nodes", "127.0.0.1:1", "--config", &path], &[], texts)?;
    }
    Ok(())
}

/// What `portico check` says of the settings, in front of nothing.
fn checked(arguments: &[&str], environment: &[(&str, &str)]) -> Result<String> {
    let output = run(&[&["check"], arguments].concat(), environment)?;
    ensure!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

#[test]
fn what_is_no_setting_is_told_and_ignored() -> Result<()> {
    let said = checked(
        &["--nodes", "redis://127.0.0.1:1/3"],
        &[
            ("PORTICO_PORT", "tcp://10.0.0.1:6379"),
            ("PORTICO_SERVICE_HOST", "10.0.0.1"),
            ("PORTICO_MAX_CLIENTS", "10"),
            ("REDIS_CLUSTER_SLOTS_REFRESH_INTERVAL", "10"),
        ],
    )?;
    for line in [
        "PORTICO_PORT, PORTICO_SERVICE_HOST: links to Kubernetes Services",
        "warning: environment variable PORTICO_MAX_CLIENTS: there is no such setting; did you mean PORTICO_MAXCLIENTS?",
        "warning: nodes: /3 behind 127.0.0.1:1 is ignored",
        "REDIS_CLUSTER_SLOTS_REFRESH_INTERVAL: 10 is too little for milliseconds, taken for seconds",
    ] {
        ensure!(said.lines().any(|said| said.contains(line)), "no {line:?} in {said}");
    }
    Ok(())
}

#[test]
fn output_that_nobody_takes_ends_it_quietly() -> Result<()> {
    let full = || std::fs::File::options().write(true).open("/dev/full");
    for arguments in [&["check", "--nodes", "127.0.0.1:1"][..], &["slot", "a"]] {
        let (reader, writer) = std::io::pipe()?;
        drop(reader);
        let output = Binary::command()?.args(arguments).stdout(writer).stderr(Stdio::piped()).output()?;
        ensure!(output.status.code() == Some(1), "{arguments:?}: {}", output.status);
        ensure!(output.stderr.is_empty(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));

        let output = Binary::command()?.args(arguments).stdout(full()?).stderr(Stdio::piped()).output()?;
        let said = String::from_utf8(output.stderr)?;
        ensure!(output.status.code() == Some(1), "{arguments:?}: {}", output.status);
        ensure!(said.lines().count() == 1 && said.contains("No space left"), "{arguments:?}: {said}");

        let status = Binary::command()?.args(arguments).stdout(full()?).stderr(full()?).status()?;
        ensure!(status.code() == Some(1), "{arguments:?}: {status}");
    }
    Ok(())
}

#[test]
fn a_port_in_use_is_named() -> Result<()> {
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let port = taken.local_addr()?.port().to_string();
    fails(&["--nodes", "127.0.0.1:1", "--port", &port], &[], &[&port, "in use"])
}

#[test]
fn help_and_version_succeed() -> Result<()> {
    for arguments in [&["--help"][..], &["--version"], &["serve", "--help"], &["check", "--help"]] {
        let output = run(arguments, &[])?;
        ensure!(output.status.success(), "{arguments:?}: {}", output.status);
        ensure!(!output.stdout.is_empty() && output.stderr.is_empty(), "{arguments:?}");
    }
    Ok(())
}
