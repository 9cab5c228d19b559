//! Logs: one event per fact, `time level msg component` and the facts as fields; text or JSON (operations §5.2).
//!
//! Switches: `DIRECTORY_LOGGER_LOG_LEVEL`, `_LOG_FORMAT` (`text`, `json`), `_LOG_FILE`, and the flags of `dirnode run`.
//! JSON also carries `timestamp` and `message`, the names that some collectors look for.

use std::fmt;
use std::fs::OpenOptions;
use std::io::IsTerminal as _;
use std::sync::Mutex;

use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::runtime;

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// `time=… level=… msg=…`
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What to log, how and where.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// `debug`, `info`, `warn`, `error`, or a filter such as `info,dirnode_store=debug`.
    pub level: Option<String>,
    /// Look of the lines.
    pub format: Option<String>,
    /// Append to this file rather than standard output.
    pub file: Option<String>,
}

/// Starts logging. Bad values fall back to the default and are told in the first lines.
pub fn start(settings: &Settings) {
    let mut remarks = Vec::new();
    let format = match settings.format.as_deref().map(str::to_lowercase).as_deref() {
        None | Some("" | "text") => Format::Text,
        Some("json") => Format::Json,
        Some(other) => {
            remarks.push(format!(
                "log format {other:?} is not known, text is used; write text or json"
            ));
            Format::Text
        }
    };
    let level = settings
        .level
        .as_deref()
        .map(str::to_lowercase)
        .unwrap_or_default();
    let level = if level == "warning" {
        "warn".to_owned()
    } else {
        level
    };
    // Libraries stay quiet below warning unless they are named.
    let known = ["trace", "debug", "info", "warn", "error", "off"].contains(&level.as_str());
    let directives = match level.as_str() {
        "" => "warn,dirnode=info,dirnode_server=info,dirnode_store=info,dirnode_record=info".to_owned(),
        level if known => {
            format!(
                "warn,dirnode={level},dirnode_server={level},dirnode_store={level},dirnode_record={level}"
            )
        }
        other => other.to_owned(),
    };
    let filter = EnvFilter::builder().parse(&directives).unwrap_or_else(|error| {
        remarks.push(format!(
            "log level {level:?} is not known ({error}), info is used"
        ));
        EnvFilter::new("warn,dirnode=info,dirnode_server=info,dirnode_store=info,dirnode_record=info")
    });

    let file = settings
        .file
        .as_deref()
        .filter(|path| !path.is_empty())
        .and_then(|path| {
            OpenOptions::new()
                .create(true)
                .append(true)
                .open(path)
                .map_err(|error| {
                    remarks.push(format!(
                        "log file {path:?} does not open ({error}), standard output is used"
                    ))
                })
                .ok()
        });
    let lines = Lines {
        format,
        colour: file.is_none() && format == Format::Text && std::io::stdout().is_terminal(),
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .event_format(lines);
    // A second start in one process, as tests do, keeps the first.
    let _ = match file {
        Some(file) => builder.with_writer(Mutex::new(file)).try_init(),
        None => builder.try_init(),
    };
    for remark in remarks {
        tracing::warn!(component = "logger", "{remark}");
    }
}

struct Lines {
    format: Format,
    colour: bool,
}

/// The facts of one event.
#[derive(Default)]
struct Facts {
    message: String,
    component: Option<String>,
    fields: Map<String, Value>,
}

impl Facts {
    fn put(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            ("component", Value::String(text)) => self.component = Some(text),
            (name, value) => {
                self.fields.insert(name.to_owned(), value);
            }
        }
    }
}

impl Visit for Facts {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, Value::String(format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, Value::String(value.to_owned()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut facts = Facts::default();
        event.record(&mut facts);
        let now = OffsetDateTime::UNIX_EPOCH + runtime::since_epoch();
        let time = now.format(&Rfc3339).unwrap_or_default();
        let level = event.metadata().level().as_str();
        let component = facts.component.unwrap_or_else(|| {
            let target = event.metadata().target();
            target
                .strip_prefix("dirnode_")
                .unwrap_or(target)
                .split("::")
                .next()
                .unwrap_or(target)
                .to_owned()
        });
        match self.format {
            Format::Json => {
                let mut line = Map::new();
                line.insert("time".into(), time.clone().into());
                line.insert("level".into(), level.into());
                line.insert("msg".into(), facts.message.clone().into());
                line.insert("component".into(), component.into());
                line.insert("timestamp".into(), time.into());
                line.insert("message".into(), facts.message.into());
                line.extend(facts.fields);
                writeln!(out, "{}", Value::Object(line))
            }
            Format::Text => {
                let (on, off) = match (self.colour, level) {
                    (false, _) => ("", ""),
                    (_, "ERROR") => ("\x1b[31m", "\x1b[0m"),
                    (_, "WARN") => ("\x1b[33m", "\x1b[0m"),
                    _ => ("\x1b[2m", "\x1b[0m"),
                };
                write!(
                    out,
                    "time={time} level={on}{level}{off} msg={}",
                    quoted(&facts.message)
                )?;
                write!(out, " component={}", quoted(&component))?;
                for (name, value) in facts.fields {
                    match value {
                        Value::String(text) => write!(out, " {name}={}", quoted(&text))?,
                        other => write!(out, " {name}={other}")?,
                    }
                }
                writeln!(out)
            }
        }
    }
}

/// Text that needs quotes gets them; control characters never reach the terminal.
fn quoted(text: &str) -> String {
    let plain = !text.is_empty()
        && text
            .chars()
            .all(|c| !c.is_whitespace() && !c.is_control() && c != '"' && c != '=');
    if plain {
        text.to_owned()
    } else {
        format!("{text:?}")
    }
}
