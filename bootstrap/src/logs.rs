//! Logs: one event per fact, `time level msg component` and the facts as fields; text or JSON (operations §5.2).
//!
//! Lines look as those of a full node, so that one collector reads both; JSON carries `timestamp` and `message` too.

use std::fmt;

use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::macros::format_description;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::clock;

/// Libraries stay quiet below warning unless they are named.
const QUIET: &str = "warn,libp2p_kad=error,libp2p_gossipsub=error";

/// Look of the lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// `time=… level=… msg=…`
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging to standard output. A level that is no level or filter is told and `info` used.
pub fn start(level: &str, format: Format) {
    let level = match level.to_lowercase().as_str() {
        "" => "info".to_owned(),
        "warning" => "warn".to_owned(),
        other => other.to_owned(),
    };
    let own = |level: &str| format!("{QUIET},dirnode={level}");
    let known = ["trace", "debug", "info", "warn", "error", "off"].contains(&level.as_str());
    let directives = if known { own(&level) } else { level.clone() };
    let parsed = EnvFilter::builder().parse(&directives);
    let fault = parsed.as_ref().err().map(ToString::to_string);
    let filter = parsed.unwrap_or_else(|_| EnvFilter::new(own("info")));
    // A second start in one process, as tests do, keeps the first.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .event_format(Lines(format))
        .with_writer(std::io::stdout)
        .try_init();
    if let Some(error) = fault {
        tracing::warn!(component = "logger", %level, %error, "log level not known, info is used");
    }
}

struct Lines(Format);

/// The facts of one event in the order of their naming.
#[derive(Default)]
struct Facts {
    message: String,
    component: Option<String>,
    rest: Map<String, Value>,
}

impl Facts {
    fn put(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            ("component", Value::String(text)) => self.component = Some(text),
            (name, value) => {
                self.rest.insert(name.to_owned(), value);
            }
        }
    }
}

impl Visit for Facts {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
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
        let time = timestamp();
        let level = event.metadata().level().as_str();
        let component = facts.component.unwrap_or_else(|| {
            let target = event.metadata().target();
            let room = target.strip_prefix("dirnode_").unwrap_or(target);
            room.split("::").next().unwrap_or(room).to_owned()
        });
        match self.0 {
            Format::Json => {
                let mut line = Map::new();
                line.insert("time".to_owned(), time.clone().into());
                line.insert("level".to_owned(), level.into());
                line.insert("msg".to_owned(), facts.message.clone().into());
                line.insert("component".to_owned(), component.into());
                line.insert("timestamp".to_owned(), time.into());
                line.insert("message".to_owned(), facts.message.into());
                line.extend(facts.rest);
                writeln!(out, "{}", Value::Object(line))
            }
            Format::Text => {
                write!(out, "time={time} level={level} msg=")?;
                quoted(&mut out, &facts.message)?;
                out.write_str(" component=")?;
                quoted(&mut out, &component)?;
                for (name, value) in &facts.rest {
                    write!(out, " {name}=")?;
                    match value {
                        Value::String(text) => quoted(&mut out, text)?,
                        other => write!(out, "{other}")?,
                    }
                }
                writeln!(out)
            }
        }
    }
}

/// Now, in RFC 3339 with microseconds.
fn timestamp() -> String {
    let now = OffsetDateTime::UNIX_EPOCH + clock::since_epoch();
    let form = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");
    now.format(form).unwrap_or_default()
}

/// Text that needs quotes gets them; control characters never reach the terminal.
fn quoted(out: &mut Writer<'_>, text: &str) -> fmt::Result {
    let is_plain = |c: char| !c.is_whitespace() && !c.is_control() && c != '"' && c != '=';
    if !text.is_empty() && text.chars().all(is_plain) {
        out.write_str(text)
    } else {
        write!(out, "{text:?}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn line(format: Format) -> String {
        let memory = Memory::default();
        let written = memory.clone();
        let logger = tracing_subscriber::fmt()
            .event_format(Lines(format))
            .with_writer(move || memory.clone())
            .finish();
        tracing::subscriber::with_default(logger, || {
            tracing::info!(
                component = "network",
                n = -3,
                odd = "a \"b\"\n\u{1b}",
                "peer connected"
            );
        });
        let bytes = written.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn json_lines_hold_both_names_and_every_fact() {
        let line = line(Format::Json);
        let value: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(
            (&value["msg"], &value["message"]),
            (&"peer connected".into(), &"peer connected".into())
        );
        assert_eq!(value["time"], value["timestamp"]);
        assert_eq!(value["component"], "network");
        assert_eq!(value["odd"], "a \"b\"\n\u{1b}");
        assert_eq!(value["n"], -3);
    }

    #[test]
    fn text_lines_quote_what_needs_it() {
        let line = line(Format::Text);
        let expected =
            " level=INFO msg=\"peer connected\" component=network n=-3 odd=\"a \\\"b\\\"\\n\\u{1b}\"\n";
        assert!(line.starts_with("time=2") && line.ends_with(expected), "{line}");
    }
}
