//! CONFIG GET and SET of Portico's own settings: `portico-` and the name of the flag.

use portico_resp::encode;

use super::Context;
use crate::command::Args;
use crate::config::SETTINGS;
use crate::plan::RequestArgs;

const PREFIX: &str = "portico-";

/// Whether a CONFIG GET or SET is about Portico's own settings.
#[must_use]
pub fn names_own_setting(args: &RequestArgs<'_>) -> bool {
    let name = args.word(2);
    name.len() >= PREFIX.len() && name[..PREFIX.len()].eq_ignore_ascii_case(PREFIX.as_bytes())
}

/// CONFIG GET portico-name..., each with a `*` at its end or none.
pub fn config_get(context: &mut Context<'_>, args: &RequestArgs<'_>) {
    let wanted: Vec<String> = (2..args.count()).map(|at| args.text(at).to_ascii_lowercase()).collect();
    let matches = |name: &str| {
        let full = format!("{PREFIX}{name}");
        wanted.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(prefix) => full.starts_with(prefix),
            None => full == *pattern,
        })
    };
    let told: Vec<_> = SETTINGS.iter().filter(|setting| matches(setting.name)).collect();
    encode::map_header(context.out, told.len(), context.client.protocol());
    for setting in told {
        encode::bulk(context.out, format!("{PREFIX}{}", setting.name).as_bytes());
        encode::bulk(context.out, setting.show(context.config).as_bytes());
    }
}

/// CONFIG SET portico-name value: none of them can be changed while Portico runs, in Redis' words for that.
pub fn config_set(context: &mut Context<'_>, args: &RequestArgs<'_>) {
    let name = args.text(2);
    let known =
        SETTINGS.iter().any(|setting| name.to_ascii_lowercase().strip_prefix(PREFIX) == Some(setting.name));
    let text = if known {
        format!("ERR CONFIG SET failed (possibly related to argument '{name}') - can't set immutable config")
    } else {
        format!("ERR Unknown option or number of arguments for CONFIG SET - '{name}'")
    };
    encode::error(context.out, text);
}
