//! Scripts that must not run, by what their texts call; and where one runs that declares no keys.

use std::sync::Arc;

use portico_slots::Slot;

use super::Engine;
use super::scripts::fingerprint;
use super::send::Flow;
use crate::backend::ClientKey;
use crate::command::{Args, Command, Handling, Scripts};
use crate::config::ScriptCommands;
use crate::local::at_least;
use crate::plan::{Given, Home, Objection, RequestArgs, ScriptCall, home, objection, script_call};
use crate::scripts::{Function, Reading, Script, Sha};
use crate::session::Stall;
use crate::topology::Cluster;

/// What a request runs, as far as its text is known.
enum Known {
    Script(Arc<Script>),
    Function(Function),
    Nothing,
}

impl Known {
    fn reading(&self) -> Option<&Reading> {
        match self {
            Self::Script(script) => Some(&script.reading),
            Self::Function(function) => Some(&function.library),
            Self::Nothing => None,
        }
    }
}

/// How a server tells that a call of a script or function failed.
fn failed(cluster: &Cluster, text: &str, name: &str, place: &str, line: u32) -> String {
    if !at_least(&cluster.version, (7, 0)) {
        return format!("ERR Error running script (call to f_{name}): @{place}:{line}: {text}");
    }
    // Valkey 9 does not name a script, and names itself.
    if cluster.identity.is_valkey((9, 0)) {
        let text = text.replace("This Redis", "This Valkey");
        return format!("{text} script: on @{place}:{line}.");
    }
    format!("{text} script: {name}, on @{place}:{line}.")
}

/// What is refused, or has to wait, in place of a request.
pub(super) enum Objected {
    /// The functions have to be listed first.
    Wait(Stall),
    /// This error is the answer.
    Refuse(Vec<u8>),
}

impl Engine {
    /// What speaks against a request that runs or loads a script, a function or a library.
    pub(super) fn object_to_script(
        &mut self,
        key: ClientKey,
        cluster: &Cluster,
        command: &Command,
        words: &RequestArgs<'_>,
    ) -> Option<Objected> {
        if command.is_script() {
            let known = match self.known_script(key, words) {
                Ok(known) => known,
                Err(stall) => return Some(Objected::Wait(stall)),
            };
            let (what, caller) = match &known {
                Known::Nothing => return None,
                Known::Script(script) => ("this script", Ok(script)),
                Known::Function(_) => ("the function's library", Err(words.text(1))),
            };
            let failed = |line, text: &str| match &caller {
                Ok(script) => failed(cluster, text, &Sha::of(&script.text).to_string(), "user_script", line),
                Err(name) => failed(cluster, text, name, "user_function", line),
            };
            return self.judge(cluster, known.reading()?, &Given::of(*words), what, failed);
        }
        let reading;
        let (what, library) = match command.handling {
            Handling::Scripts(Scripts::Load) => ("this script", false),
            Handling::Scripts(Scripts::Functions) if command.name == "function|load" => {
                ("this library", true)
            }
            _ => return None,
        };
        let text = words.word(words.count() - 1);
        let script;
        let reading = if library {
            reading = Reading::of(text, true);
            &reading
        } else {
            script = self.read_script(text);
            &script.reading
        };
        self.judge(cluster, reading, &Given::later(), what, |_, text| text.to_owned())
    }

    fn judge(
        &self,
        cluster: &Cluster,
        reading: &Reading,
        given: &Given<'_>,
        what: &str,
        failed: impl FnOnce(u32, &str) -> String,
    ) -> Option<Objected> {
        let masters = cluster.topology.masters().len();
        let trusted = self.config.script_commands == ScriptCommands::Any;
        let found = match objection(reading, &cluster.table, given, masters, trusted)? {
            // Before 7.0 a subcommand had no flags of its own.
            Objection::Forbidden(line) if !at_least(&cluster.version, (7, 0)) => Objection::Cluster(line),
            found => found,
        };
        Some(Objected::Refuse(found.text(what, failed, masters).into_bytes()))
    }

    /// The script or function that a request runs. An error: the nodes' functions have to be listed first.
    fn known_script(&mut self, key: ClientKey, words: &RequestArgs<'_>) -> Result<Known, Stall> {
        Ok(match script_call(words) {
            Some(ScriptCall::Text(text)) => Known::Script(self.read_script(text)),
            Some(ScriptCall::Sha(hex)) => {
                let script = Sha::parse(hex).and_then(|sha| self.script_by_sha(sha));
                script.map_or(Known::Nothing, Known::Script)
            }
            None => self.known_function(key, words.word(1))?.map_or(Known::Nothing, Known::Function),
        })
    }

    /// The function of this name. An error: the nodes' functions have to be listed first.
    pub(super) fn known_function(&mut self, key: ClientKey, name: &[u8]) -> Result<Option<Function>, Stall> {
        let functions = &self.shared.scripts.functions;
        let waiting = self.clients.get(key).and_then(|client| client.stall);
        let since = waiting.filter(|(stall, _)| *stall == Stall::Unreachable).map(|(_, since)| since);
        if functions.doubts().is_none() {
            let found = functions.find(name);
            if found.is_some() || since.is_some() {
                return Ok(found); // one that was not listed meanwhile is none
            }
            functions.doubt();
        }
        if since
            .is_some_and(|since| self.now.saturating_duration_since(since) >= self.config.failover_timeout)
        {
            return Ok(None);
        }
        self.refresh_wanted = true;
        Err(Stall::Unreachable)
    }

    /// Whether a script's request has to be known in full to be judged.
    pub(super) fn is_judged_whole(&mut self, key: ClientKey, words: &RequestArgs<'_>) -> bool {
        let known = self.known_script(key, words).unwrap_or(Known::Nothing);
        known.reading().is_some_and(Reading::calls_what_it_is_given)
    }

    /// The slot that a script runs in that declares no keys: that of those which it names. One that names none runs
    /// with the same master whoever calls it.
    pub(super) fn home_of_script(
        &mut self,
        key: ClientKey,
        cluster: &Cluster,
        words: &RequestArgs<'_>,
    ) -> Result<Slot, Vec<u8>> {
        const NOWHERE: &[u8] =
            b"CROSSSLOT this script names keys of several masters without declaring them: give the \
            keys one {hash tag}, and pass them as KEYS";
        let known = self.known_script(key, words).unwrap_or(Known::Nothing);
        let topology = &cluster.topology;
        let found = known.reading().map_or(Home::Anywhere, |reading| {
            let same = |one, other| topology.owner(one) == topology.owner(other);
            home(reading, &cluster.table, &Given::of(*words), matches!(known, Known::Script(_)), same)
        });
        match found {
            Home::Slot(slot) => Ok(slot),
            Home::Nowhere => Err(NOWHERE.to_vec()),
            Home::Anywhere => Ok(self.numbered_slot(key, cluster, fingerprint(words.word(1)))),
        }
    }

    /// The answer to what was objected to.
    pub(super) fn objected(&mut self, key: ClientKey, objected: Objected) -> Flow {
        match objected {
            Objected::Wait(stall) => Flow::Wait(stall),
            Objected::Refuse(text) => self.turn_away(key, &text),
        }
    }
}
