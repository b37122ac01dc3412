//! Putting the layers together: flags over environment over file over default.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches};

use super::environment::is_service_link;
use super::file::File;
use super::{Config, ConfigError, Origin, Remark, SETTINGS, Setting};

/// The flag that names the configuration file, and the environment variable that does.
pub const CONFIG_FILE: (&str, &str) = ("config", "PORTICO_CONFIG");

/// A setting that was given: the value that counts and where it is from.
struct Given {
    setting: &'static Setting,
    value: String,
    origin: Origin,
}

impl Config {
    /// Reads the layers; an empty environment variable counts as not set.
    ///
    /// # Errors
    /// The first thing that is wrong, in one line without secrets.
    pub fn load(args: &ArgMatches, env: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let env = |name: &str| env(name).filter(|value| !value.is_empty() && !is_service_link(name, value));
        let path = args.get_one::<String>(CONFIG_FILE.0).cloned().or_else(|| env(CONFIG_FILE.1));
        let file = path.map(|path| File::read(&PathBuf::from(path))).transpose()?.unwrap_or_default();

        let given: Vec<Given> = SETTINGS
            .iter()
            .filter_map(|setting| {
                let (value, origin) = from_flags(setting, args)
                    .or_else(|| from_environment(setting, env))
                    .or_else(|| file.get(setting))?;
                Some(Given { setting, value, origin })
            })
            .collect();

        let mut config = Config::default();
        for item in &given {
            if item.is_overruled(&given)? {
                continue;
            }
            let set = item.setting.set(&mut config, &item.value);
            set.or_else(|invalid| item.take_for_seconds(&mut config).ok_or(invalid)).map_err(|invalid| {
                ConfigError::Invalid {
                    origin: item.origin.clone(),
                    name: item.setting.name,
                    value: item.setting.quote(&item.value),
                    allowed: invalid.allowed,
                }
            })?;
        }
        config.check()
    }

    /// What no single setting can tell.
    fn check(self) -> Result<Self, ConfigError> {
        if self.nodes.is_empty() {
            return Err(ConfigError::NoNodes);
        }
        if self.unixsocket.is_none() && (self.port == 0 || self.bind.is_empty()) {
            return Err(ConfigError::NoListener);
        }
        Ok(self)
    }
}

impl Given {
    /// What other programs call by one of their own names they count in seconds now and then. A value that makes no sense
    /// in milliseconds and does in seconds is taken so, with a remark.
    fn take_for_seconds(&self, config: &mut Config) -> Option<()> {
        let Origin::Environment(name) = &self.origin else { return None };
        let alias = self.setting.aliases.contains(&name.as_str());
        let milliseconds = self.value.trim().parse::<u64>().ok()?.checked_mul(1000)?.to_string();
        if !alias || self.setting.unit != "milliseconds" {
            return None;
        }
        self.setting.set(config, &milliseconds).ok()?;
        let text = format!(
            "{}: {} is too little for milliseconds, taken for seconds: {} is {milliseconds}",
            self.origin, self.value, self.setting.name
        );
        config.remarks.push(Remark { warning: false, text });
        Some(())
    }

    /// Whether the setting that this one stands in for was given on a level above.
    fn is_overruled(&self, all: &[Given]) -> Result<bool, ConfigError> {
        let other =
            self.setting.instead_of.and_then(|name| all.iter().find(|given| given.setting.name == name));
        match other {
            Some(other) if other.origin.rank() == self.origin.rank() => Err(ConfigError::Conflict {
                origin: self.origin.clone(),
                name: self.setting.name,
                other: other.setting.name,
                other_origin: other.origin.clone(),
            }),
            Some(other) => Ok(other.origin.rank() > self.origin.rank()),
            None => Ok(false),
        }
    }
}

fn from_flags(setting: &'static Setting, args: &ArgMatches) -> Option<(String, Origin)> {
    let values: Vec<&str> = args.get_many::<String>(setting.name)?.map(String::as_str).collect();
    Some((values.join(" "), Origin::Flag(setting.name)))
}

fn from_environment(setting: &Setting, env: impl Fn(&str) -> Option<String>) -> Option<(String, Origin)> {
    setting.environment().find_map(|name| Some((env(&name)?, Origin::Environment(name))))
}

/// The flags, for a `clap::Command`: each takes text, which [`Config::load`] reads.
pub fn arguments() -> impl Iterator<Item = Arg> {
    let defaults = Config::default();
    let file = Arg::new(CONFIG_FILE.0)
        .long(CONFIG_FILE.0)
        .value_name("PATH")
        .help("TOML file with the settings below, by the same names\n[env: PORTICO_CONFIG]");
    std::iter::once(file).chain(SETTINGS.iter().map(move |setting| argument(setting, &defaults)))
}

fn argument(setting: &'static Setting, defaults: &Config) -> Arg {
    let default = setting.show(defaults);
    let default = if default.is_empty() { String::new() } else { format!("[default: {default}] ") };
    let env = setting.environment().collect::<Vec<_>>().join(", ");
    // Names that stand for themselves stay as they are.
    let unit = if setting.unit.contains('|') { setting.unit.to_owned() } else { setting.unit.to_uppercase() };
    let argument = Arg::new(setting.name)
        .long(setting.name)
        .value_name(unit)
        .help_heading(setting.heading)
        .help(format!("{}\n{default}[env: {env}]", setting.help))
        // -1 shall be told what is allowed, and a password may start with a dash.
        .allow_negative_numbers(!setting.secret)
        .allow_hyphen_values(setting.secret);
    if setting.list {
        argument.action(ArgAction::Append).num_args(1..)
    } else {
        argument.overrides_with(setting.name)
    }
}
