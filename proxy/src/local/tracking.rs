//! CLIENT TRACKING's options and what is wrong with them; CLIENT CACHING, GETREDIR and TRACKINGINFO.

use std::collections::BTreeSet;

use portico_resp::encode;

use super::Context;
use crate::command::Args;
use crate::plan::RequestArgs;
use crate::session::{Caching, TrackingMode};

const SYNTAX: &[u8] = b"ERR syntax error";

/// CLIENT TRACKING as it was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrackingRequest {
    /// ON or OFF; neither is found out last.
    on: Option<bool>,
    mode: TrackingMode,
    prefixes: Vec<Vec<u8>>,
    /// The client that is to be told: it has to be there.
    pub redirect: Option<i64>,
    /// What is wrong behind that.
    fault: Option<&'static [u8]>,
}

/// What CLIENT TRACKING says of a client that is not there.
pub const NO_SUCH_CLIENT: &[u8] = b"ERR The client ID you want redirect to does not exist";

impl TrackingRequest {
    /// Reads `CLIENT TRACKING ON|OFF [REDIRECT id] [BCAST] [PREFIX prefix ...] [OPTIN] [OPTOUT] [NOLOOP]`.
    #[must_use]
    pub fn read(args: &RequestArgs<'_>) -> Self {
        let on = match () {
            () if args.is(2, "on") => Some(true),
            () if args.is(2, "off") => Some(false),
            () => None,
        };
        let mut request = Self { on, ..Self::default() };
        let mut at = 3;
        while at < args.count() && request.fault.is_none() {
            let more = at + 1 < args.count();
            if args.is(at, "redirect") && more {
                at += 1;
                request.fault = match (request.redirect, args.integer(at)) {
                    (Some(_), _) => Some(b"ERR A client can only redirect to a single other client"),
                    (None, None) => Some(b"ERR value is not an integer or out of range"),
                    (None, id) => {
                        request.redirect = id;
                        None
                    }
                };
            } else if args.is(at, "bcast") {
                request.mode.bcast = true;
            } else if args.is(at, "optin") {
                request.mode.optin = true;
            } else if args.is(at, "optout") {
                request.mode.optout = true;
            } else if args.is(at, "noloop") {
                request.mode.noloop = true;
            } else if args.is(at, "prefix") && more {
                at += 1;
                request.prefixes.push(args.word(at).to_vec());
            } else {
                request.fault = Some(SYNTAX);
            }
            at += 1;
        }
        request.mode.redirect = request.redirect.and_then(|id| u64::try_from(id).ok()).unwrap_or(0);
        request
    }

    /// What is to be in force, of a client whose tracking is `current`; none: nothing.
    ///
    /// # Errors
    /// The error line that Redis would answer with.
    pub fn check(&self, current: Option<&TrackingMode>) -> Result<Option<TrackingMode>, Vec<u8>> {
        let refuse = |text: &[u8]| Err(text.to_vec());
        if let Some(fault) = self.fault {
            return refuse(fault);
        }
        let mode = &self.mode;
        match self.on {
            Some(true) => {}
            Some(false) => return Ok(None),
            None => return refuse(SYNTAX),
        }
        if !mode.bcast && !self.prefixes.is_empty() {
            return refuse(b"ERR PREFIX option requires BCAST mode to be enabled");
        }
        if current.is_some_and(|current| current.bcast != mode.bcast) {
            return refuse(
                b"ERR You can't switch BCAST mode on/off before disabling tracking for this client, and then \
                  re-enabling it with a different mode.",
            );
        }
        if mode.bcast && (mode.optin || mode.optout) {
            return refuse(b"ERR OPTIN and OPTOUT are not compatible with BCAST");
        }
        if mode.optin && mode.optout {
            return refuse(b"ERR You can't specify both OPTIN mode and OPTOUT mode");
        }
        if current.is_some_and(|current| mode.optin && current.optout || mode.optout && current.optin) {
            return refuse(
                b"ERR You can't switch OPTIN/OPTOUT mode before disabling tracking for this client, and then \
                  re-enabling it with a different mode.",
            );
        }
        let mut mode = mode.clone();
        if mode.bcast {
            let none = BTreeSet::new();
            self.check_prefixes(current.map_or(&none, |current| &current.prefixes))?;
            mode.prefixes = if self.prefixes.is_empty() {
                BTreeSet::from([Vec::new()])
            } else {
                self.prefixes.iter().cloned().collect()
            };
        }
        Ok(Some(mode))
    }

    fn check_prefixes(&self, current: &BTreeSet<Vec<u8>>) -> Result<(), Vec<u8>> {
        let overlap = |a: &[u8], b: &[u8]| a.starts_with(b) || b.starts_with(a);
        // Redis prints C strings.
        let shown = |prefix: &[u8]| prefix.split(|&byte| byte == 0).next().unwrap_or_default().to_vec();
        let refuse = |prefix: &[u8], kind: &[u8], other: &[u8]| {
            let (prefix, other) = (shown(prefix), shown(other));
            let rest = b"'. Prefixes for a single client must not overlap.";
            Err([b"ERR Prefix '", &prefix[..], b"' overlaps with ", kind, b" '", &other, rest].concat())
        };
        for (at, prefix) in self.prefixes.iter().enumerate() {
            if let Some(other) = current.iter().find(|other| overlap(prefix, other)) {
                return refuse(prefix, b"an existing prefix", other);
            }
            if let Some(other) = self.prefixes[at + 1..].iter().find(|other| overlap(prefix, other)) {
                return refuse(prefix, b"another provided prefix", other);
            }
        }
        Ok(())
    }
}

/// CLIENT CACHING YES|NO: what is meant is noted, and told to the node with the next command.
pub fn caching(context: &mut Context<'_>, args: &RequestArgs<'_>) {
    let Some(tracking) = context.client.tracking() else {
        return encode::error(
            context.out,
            "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode enabled",
        );
    };
    let (optin, optout) = (tracking.mode.optin, tracking.mode.optout);
    let said = match () {
        () if args.is(2, "yes") && optin => Caching::Yes,
        () if args.is(2, "no") && optout => Caching::No,
        () if args.is(2, "yes") => {
            let text = "ERR CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode.";
            return encode::error(context.out, text);
        }
        () if args.is(2, "no") => {
            let text = "ERR CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode.";
            return encode::error(context.out, text);
        }
        () => return encode::error(context.out, SYNTAX),
    };
    context.client.standing().caching = Some(said);
    encode::simple(context.out, "OK");
}

/// CLIENT GETREDIR
pub fn redirection(context: &mut Context<'_>) {
    encode::integer(context.out, context.client.redirection());
}

/// CLIENT TRACKINGINFO
pub fn tracking_info(context: &mut Context<'_>) {
    let client = &*context.client;
    let protocol = client.protocol();
    let said = client.standing.as_deref().and_then(|standing| standing.caching);
    let (mut flags, mut prefixes) = (vec!["off"], &BTreeSet::new());
    if let Some(tracking) = client.tracking() {
        let mode = &tracking.mode;
        let told = [
            (true, "on"),
            (mode.bcast, "bcast"),
            (mode.optin, "optin"),
            (mode.optin && said.is_some(), "caching-yes"),
            (mode.optout, "optout"),
            (mode.optout && said.is_some(), "caching-no"),
            (mode.noloop, "noloop"),
            (tracking.broken, "broken_redirect"),
        ];
        flags = told.iter().filter(|(set, _)| *set).map(|(_, flag)| *flag).collect();
        prefixes = &mode.prefixes;
    }
    let out = &mut *context.out;
    encode::map_header(out, 3, protocol);
    encode::bulk(out, b"flags");
    encode::set_header(out, flags.len(), protocol);
    flags.iter().for_each(|flag| encode::bulk(out, flag.as_bytes()));
    encode::bulk(out, b"redirect");
    encode::integer(out, client.redirection());
    encode::bulk(out, b"prefixes");
    encode::array_header(out, prefixes.len());
    prefixes.iter().for_each(|prefix| encode::bulk(out, prefix));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::with_queued;

    fn read(line: &str) -> TrackingRequest {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        let mut request = Vec::new();
        encode::command(&mut request, &words);
        with_queued(&request, TrackingRequest::read).expect("a request")
    }

    /// The commands one after another; the last one's error, or what is in force.
    fn after(lines: &[&str]) -> Result<Option<TrackingMode>, String> {
        let mut current: Option<TrackingMode> = None;
        for line in lines {
            let mode = read(&format!("CLIENT TRACKING {line}")).check(current.as_ref());
            let mode = mode.map_err(|text| String::from_utf8(text).expect("text"))?;
            current = mode.map(|mut mode| {
                mode.prefixes.extend(current.iter().flat_map(|current| current.prefixes.clone()));
                mode
            });
        }
        Ok(current)
    }

    fn error(lines: &[&str]) -> String {
        after(lines).expect_err("an error")
    }

    #[test]
    fn what_redis_refuses_is_refused_in_its_words() {
        let overlaps = "Prefixes for a single client must not overlap.";
        for (lines, text) in [
            (&["ON FOO"][..], "ERR syntax error".to_owned()),
            (&["FOO BCAST"], "ERR syntax error".to_owned()),
            (&["ON PREFIX"], "ERR syntax error".to_owned()),
            (&["ON REDIRECT"], "ERR syntax error".to_owned()),
            (&["ON REDIRECT x"], "ERR value is not an integer or out of range".to_owned()),
            (
                &["ON REDIRECT 1 REDIRECT 1"],
                "ERR A client can only redirect to a single other client".to_owned(),
            ),
            (&["ON PREFIX a"], "ERR PREFIX option requires BCAST mode to be enabled".to_owned()),
            (&["ON BCAST OPTIN"], "ERR OPTIN and OPTOUT are not compatible with BCAST".to_owned()),
            (&["ON OPTIN OPTOUT"], "ERR You can't specify both OPTIN mode and OPTOUT mode".to_owned()),
            (
                &["ON BCAST PREFIX b PREFIX a PREFIX ab"],
                format!("ERR Prefix 'a' overlaps with another provided prefix 'ab'. {overlaps}"),
            ),
            (
                &["ON BCAST PREFIX a", "ON BCAST PREFIX ab"],
                format!("ERR Prefix 'ab' overlaps with an existing prefix 'a'. {overlaps}"),
            ),
        ] {
            assert_eq!(error(lines), text, "{lines:?}");
        }
        assert!(error(&["ON", "ON BCAST"]).starts_with("ERR You can't switch BCAST mode on/off before"));
        assert!(
            error(&["ON OPTIN", "ON OPTOUT"]).starts_with("ERR You can't switch OPTIN/OPTOUT mode before")
        );
    }

    #[test]
    fn what_is_asked_for_comes_into_force() {
        assert_eq!(after(&["ON BCAST", "OFF"]), Ok(None));
        let modes = after(&["ON OPTIN NOLOOP", "ON REDIRECT 7"]).expect("fine").expect("on");
        assert_eq!(modes, TrackingMode { redirect: 7, ..TrackingMode::default() });
        let modes = after(&["ON BCAST PREFIX b", "ON BCAST PREFIX a NOLOOP"]).expect("fine").expect("on");
        assert_eq!(modes.prefixes.iter().collect::<Vec<_>>(), [b"a", b"b"]);
        let mut command = Vec::new();
        modes.command(Some(9), &mut command);
        let words = with_queued(&command, |args| {
            (0..args.count()).map(|at| args.text(at).into_owned()).collect::<Vec<_>>().join(" ")
        });
        assert_eq!(words.as_deref(), Some("CLIENT TRACKING ON REDIRECT 9 BCAST NOLOOP PREFIX a PREFIX b"));
        let all = after(&["ON BCAST"]).expect("fine").expect("on");
        assert_eq!(all.prefixes, BTreeSet::from([Vec::new()]));
    }
}
