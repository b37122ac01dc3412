//! The log: lines for people or JSON, with redis.conf's level names, to standard error or a file.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::OnceLock;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Registry, reload};

use crate::config::{Choice, Config, LogFormat, LogLevel};

/// Starts the log of the process, as `loglevel`, `log-format` and `logfile` say.
///
/// # Errors
/// The file cannot be opened, or the process has a log already.
pub fn init(config: &Config) -> anyhow::Result<()> {
    let output = Output(config.logfile.clone());
    if let Some(path) = &config.logfile {
        output.open().map_err(|error| anyhow::anyhow!("cannot write logfile {}: {error}", path.display()))?;
    }
    let layer = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .event_format(Format(config.log_format))
        .with_writer(output);
    let (levels, handle) = reload::Layer::new(targets(config.loglevel));
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(levels).with(layer))?;
    let _ = LEVELS.set(handle);
    Ok(())
}

/// The levels of the process' log, to be changed.
static LEVELS: OnceLock<reload::Handle<Targets, Registry>> = OnceLock::new();

/// Changes `loglevel` of the process' log.
pub fn set_level(level: LogLevel) {
    let (Some(handle), wanted) = (LEVELS.get(), targets(level)) else { return };
    if handle.with_current(|now| *now != wanted).unwrap_or(false) {
        let _ = handle.reload(wanted); // it fails only when the log has ended
    }
}

/// What libraries have to say interests nobody before it is a warning.
fn targets(level: LogLevel) -> Targets {
    Targets::new().with_default(LevelFilter::WARN).with_target("portico", filter(level))
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Debug => LevelFilter::TRACE,
        LogLevel::Verbose => LevelFilter::DEBUG,
        LogLevel::Notice => LevelFilter::INFO,
        LogLevel::Warning => LevelFilter::WARN,
        LogLevel::Nothing => LevelFilter::OFF,
    }
}

/// Redis has four levels: an error is its warning.
fn level_name(level: &Level) -> &'static str {
    let level = match *level {
        Level::TRACE => LogLevel::Debug,
        Level::DEBUG => LogLevel::Verbose,
        Level::INFO => LogLevel::Notice,
        _ => LogLevel::Warning,
    };
    level.name()
}

/// How an event becomes a line.
struct Format(LogFormat);

impl<S, N> FormatEvent<S, N> for Format
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut line: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let level = level_name(event.metadata().level());
        match self.0 {
            LogFormat::Text => {
                SystemTime.format_time(&mut line)?;
                write!(line, " {level:<7} ")?;
                context.field_format().format_fields(line.by_ref(), event)?;
                writeln!(line)
            }
            LogFormat::Json => {
                let mut time = String::new();
                SystemTime.format_time(&mut Writer::new(&mut time))?;
                let mut object = Map::new();
                object.insert("time".to_owned(), time.into());
                object.insert("level".to_owned(), level.into());
                event.record(&mut Fields(&mut object));
                writeln!(line, "{}", Value::Object(object))
            }
        }
    }
}

/// Collects an event's fields, numbers as numbers.
struct Fields<'a>(&'a mut Map<String, Value>);

impl Fields<'_> {
    fn insert(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.insert(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.insert(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.insert(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.insert(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.insert(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.insert(field, value);
    }
}

/// Where lines go. A file is opened for each, as Redis does, so that it can be rotated at any time.
struct Output(Option<PathBuf>);

impl Output {
    fn open(&self) -> io::Result<Option<File>> {
        self.0.as_ref().map(|path| OpenOptions::new().create(true).append(true).open(path)).transpose()
    }
}

impl MakeWriter<'_> for Output {
    type Writer = Box<dyn Write>;

    fn make_writer(&self) -> Self::Writer {
        match self.open() {
            Ok(Some(file)) => Box::new(file),
            Ok(None) | Err(_) => Box::new(io::stderr()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(format: LogFormat) -> String {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        let layer = tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .event_format(Format(format))
            .with_writer(Output(Some(file.path().to_owned())));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            tracing::info!(port = 6379, node = "a:1", "ready \"now\"");
            tracing::error!("down");
        });
        std::fs::read_to_string(file.path()).expect("the log")
    }

    #[test]
    fn text_has_time_level_message_and_fields() {
        let text = log(LogFormat::Text);
        let lines: Vec<_> = text.lines().map(|line| line.split_once(' ').expect("a time").1).collect();
        assert_eq!(lines, ["notice  ready \"now\" port=6379 node=\"a:1\"", "warning down"]);
    }

    #[test]
    fn json_is_one_object_a_line() {
        let text = log(LogFormat::Json);
        let first: Value = serde_json::from_str(text.lines().next().expect("a line")).expect("JSON");
        assert_eq!((&first["level"], &first["port"]), (&"notice".into(), &6379.into()));
        assert_eq!((&first["message"], &first["node"]), (&"ready \"now\"".into(), &"a:1".into()));
        assert!(first["time"].as_str().is_some_and(|time| time.ends_with('Z')));
    }
}
