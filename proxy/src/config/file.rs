//! The configuration file: TOML with the settings' names at top level.

use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::environment::nearest;
use super::{ConfigError, Origin, Setting, find};

/// What the file says, value by value as text.
#[derive(Debug, Default)]
pub(super) struct File {
    values: Vec<(&'static str, String, Origin)>,
}

impl File {
    pub(super) fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        Self::parse(path, &text)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let origin = |offset: usize| Origin::File { path: PathBuf::from(path), line: line(text, offset) };
        // Only the error's message: its full text quotes the line, which may hold a password.
        let table = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
            origin: origin(error.span().map_or(0, |span| span.start)),
            message: error.message().to_owned(),
        })?;
        let values = table.get_ref().iter().map(|(key, value)| {
            let origin = origin(key.span().start);
            let Some(setting) = find(key.get_ref()) else {
                let key = key.get_ref().to_string();
                return Err(ConfigError::Unknown { origin, nearest: nearest(&key), key });
            };
            match as_text(value.get_ref()) {
                Some(text) => Ok((setting.name, text, origin)),
                None => Err(ConfigError::Invalid {
                    origin,
                    name: setting.name,
                    value: format!("a {}", value.get_ref().type_str()),
                    allowed: "a string, a whole number or a list of them".to_owned(),
                }),
            }
        });
        Ok(File { values: values.collect::<Result<_, _>>()? })
    }

    pub(super) fn get(&self, setting: &Setting) -> Option<(String, Origin)> {
        let (_, value, origin) = self.values.iter().find(|(name, ..)| *name == setting.name)?;
        Some((value.clone(), origin.clone()))
    }
}

/// A value as it would stand in a flag.
fn as_text(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) if number.radix() == 10 => Some(number.as_str().to_owned()),
        DeValue::Array(items) => {
            let items: Option<Vec<_>> = items.iter().map(|item| as_text(item.get_ref())).collect();
            Some(items?.join(" "))
        }
        _ => None,
    }
}

fn line(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}
