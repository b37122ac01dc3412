//! The environment: what is no setting although its name begins like one, and what is to be said about it.

use super::{CONFIG_FILE, SETTINGS, Setting};

/// What the names of Portico's own variables begin with.
const PREFIX: &str = "PORTICO_";

/// Something to be said about the settings once there is a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// Somebody should look at it.
    pub warning: bool,
    /// What is said, without secrets.
    pub text: String,
}

/// Whether a variable is one of those that Kubernetes sets for each Service: for one called portico, PORTICO_PORT is
/// tcp://10.0.0.1:6379, and there are PORTICO_SERVICE_HOST, PORTICO_SERVICE_PORT_REDIS, PORTICO_PORT_6379_TCP_ADDR ...
pub(super) fn is_service_link(name: &str, value: &str) -> bool {
    let url = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    if name.ends_with("_PORT") && url || name.ends_with("_SERVICE_HOST") {
        return true;
    }
    if let Some((_, rest)) = name.split_once("_SERVICE_PORT") {
        return rest.is_empty() || rest.starts_with('_');
    }
    let Some((_, port)) = name.split_once("_PORT_") else { return false };
    let mut words = port.split('_');
    let number = words.next().is_some_and(|word| word.parse::<u16>().is_ok());
    number
        && matches!(words.next(), Some("TCP" | "UDP" | "SCTP"))
        && matches!((words.next(), words.next()), (None | Some("PROTO" | "PORT" | "ADDR"), None))
}

/// What is to be said about these variables.
pub fn remarks<'a>(variables: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<Remark> {
    let known: Vec<String> = SETTINGS.iter().flat_map(Setting::environment).collect();
    let (mut links, mut remarks) = (Vec::new(), Vec::new());
    for (name, value) in variables {
        if !name.starts_with(PREFIX) || value.is_empty() {
            continue;
        }
        if is_service_link(name, value) {
            links.push(name);
        } else if name != CONFIG_FILE.1 && !known.iter().any(|known| known == name) {
            let meant =
                nearest(&name[PREFIX.len()..]).map(|setting| setting.to_uppercase().replace('-', "_"));
            let meant = meant.map(|meant| format!("; did you mean {PREFIX}{meant}?")).unwrap_or_default();
            let text = format!("environment variable {name}: there is no such setting{meant}");
            remarks.push(Remark { warning: true, text });
        }
    }
    if !links.is_empty() {
        links.sort_unstable();
        let text = format!(
            "{}: links to Kubernetes Services and no settings, ignored (enableServiceLinks: false leaves them out)",
            links.join(", ")
        );
        remarks.push(Remark { warning: false, text });
    }
    remarks
}

/// The setting that was probably meant: the least edits away, and not more than a third of the name.
pub(super) fn nearest(key: &str) -> Option<&'static str> {
    let key = key.to_ascii_lowercase().replace('_', "-");
    let distances = SETTINGS.iter().map(|setting| (edits(&key, setting.name), setting.name));
    distances.min().filter(|(edits, name)| *edits <= name.len().div_ceil(3)).map(|(_, name)| name)
}

/// Levenshtein's distance.
fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_links_are_no_settings() {
        for (name, value) in [
            ("PORTICO_PORT", "tcp://10.0.0.1:6379"),
            ("PORTICO_PORT_6379_TCP", "tcp://10.0.0.1:6379"),
            ("PORTICO_PORT_6379_TCP_PROTO", "tcp"),
            ("PORTICO_PORT_6379_TCP_PORT", "6379"),
            ("PORTICO_PORT_6379_UDP_ADDR", "10.0.0.1"),
            ("PORTICO_SERVICE_HOST", "10.0.0.1"),
            ("PORTICO_SERVICE_PORT", "6379"),
            ("PORTICO_SERVICE_PORT_REDIS", "6379"),
            ("PORTICO_ADMIN_PORT", "tcp://10.0.0.2:9090"),
            ("PORTICO_ADMIN_SERVICE_HOST", "10.0.0.2"),
        ] {
            assert!(is_service_link(name, value), "{name}");
        }
        for (name, value) in [
            ("PORTICO_PORT", "6379"),
            ("PORTICO_PORT", "redis://10.0.0.1:6379"),
            ("PORTICO_PORTS", "tcp://10.0.0.1:6379"),
            ("PORTICO_PORT_6379", "x"),
            ("PORTICO_PORT_6379_TCP_NAME", "x"),
            ("PORTICO_NODES", "tcp://10.0.0.1:6379"),
        ] {
            assert!(!is_service_link(name, value), "{name}");
        }
    }

    #[test]
    fn unknown_variables_are_told_with_what_was_meant() {
        let told = remarks([
            ("PORTICO_REQUIREPAS", "hunter2"),
            ("PORTICO_SOMETHING_ELSE_ALTOGETHER", "1"),
            ("PORTICO_MAXCLIENTS", "10"),
            ("PORTICO_CONFIG", "a.toml"),
            ("PORTICO_EMPTY", ""),
            ("REDIS_ANYTHING", "1"),
            ("PORTICO_SERVICE_HOST", "10.0.0.1"),
            ("PORTICO_PORT", "tcp://10.0.0.1:6379"),
        ]);
        let warnings: Vec<_> = told.iter().filter(|remark| remark.warning).map(|r| r.text.as_str()).collect();
        assert_eq!(
            warnings,
            [
                "environment variable PORTICO_REQUIREPAS: there is no such setting; did you mean PORTICO_REQUIREPASS?",
                "environment variable PORTICO_SOMETHING_ELSE_ALTOGETHER: there is no such setting",
            ]
        );
        let rest: Vec<_> = told.iter().filter(|remark| !remark.warning).map(|r| r.text.as_str()).collect();
        assert_eq!(rest.len(), 1);
        assert!(rest[0].starts_with("PORTICO_PORT, PORTICO_SERVICE_HOST: "), "{rest:?}");
    }
}
