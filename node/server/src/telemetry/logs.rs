//! Logs: one event per fact, `time level msg component` and the facts as fields; text or JSON (operations §5.2).
//!
//! Switches: `DIRECTORY_LOGGER_LOG_LEVEL`, `_LOG_FORMAT` (`text`, `json`), `_LOG_FILE`, and the flags of `dirnode run`.
//! JSON also carries `timestamp` and `message`, the names that some collectors look for.

use std::cell::RefCell;
use std::fmt::{self, Write as _};
use std::fs::OpenOptions;
use std::io::{IsTerminal as _, Write};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use time::OffsetDateTime;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::registry::LookupSpan;

use crate::runtime;

/// Libraries stay quiet below warning unless they are named; the DHT and gossip warn at every start that there are no
/// peers yet, which readiness says better. A directive is for all rooms whose crate's name begins with it.
const QUIET: &str = "warn,libp2p_kad=error,libp2p_gossipsub=error";

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
    let own = |level: &str| format!("{QUIET},dirnode={level}");
    let known = ["trace", "debug", "info", "warn", "error", "off"].contains(&level.as_str());
    let directives = match level.as_str() {
        "" => own("info"),
        level if known => own(level),
        other => other.to_owned(),
    };
    let filter = EnvFilter::builder().parse(&directives).unwrap_or_else(|error| {
        remarks.push(format!(
            "log level {level:?} is not known ({error}), info is used"
        ));
        EnvFilter::new(own("info"))
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
    let sink: Box<dyn Write + Send> = match file {
        Some(file) => Box::new(file),
        None => Box::new(std::io::stdout()),
    };
    let gathered = Gathered::new(sink);
    // A second start in one process, as tests do, keeps the first.
    if builder.with_writer(gathered.clone()).try_init().is_ok() {
        gathered.start();
        let _ = STARTED.set(gathered);
    }
    for remark in remarks {
        tracing::warn!(component = "logger", "{remark}");
    }
}

/// Writes what is gathered; for the end of the process.
pub fn flush() {
    if let Some(gathered) = STARTED.get() {
        gathered.flush();
    }
}

static STARTED: OnceLock<Gathered> = OnceLock::new();

/// Lines wait so long at most.
const FLUSH_INTERVAL: Duration = Duration::from_millis(20);
/// So many bytes are written at once.
const FLUSH_BYTES: usize = 32 * 1024;

/// Gathers the lines of many calls into one write. A warning or an error is written at once, with all before it.
#[derive(Clone)]
struct Gathered(Arc<Mutex<Waiting>>);

struct Waiting {
    lines: Vec<u8>,
    sink: Box<dyn Write + Send>,
}

impl Gathered {
    fn new(sink: Box<dyn Write + Send>) -> Self {
        Self(Arc::new(Mutex::new(Waiting {
            lines: Vec::new(),
            sink,
        })))
    }

    /// Writes now and then, for as long as anybody may log.
    fn start(&self) {
        let this = self.clone();
        let flusher = std::thread::Builder::new()
            .name("log-flush".to_owned())
            .spawn(move || {
                loop {
                    std::thread::sleep(FLUSH_INTERVAL);
                    this.flush();
                }
            });
        if flusher.is_err() {
            // Without the thread a line waits for the next warning, the next full buffer or the end.
            self.flush();
        }
    }

    fn flush(&self) {
        self.0.lock().write_out();
    }
}

impl Waiting {
    fn write_out(&mut self) {
        if !self.lines.is_empty() {
            // Nobody is left to tell when the log itself cannot be written.
            let _ = self.sink.write_all(&self.lines).and_then(|()| self.sink.flush());
            self.lines.clear();
        }
    }
}

/// Takes one line.
struct OneLine {
    to: Gathered,
    at_once: bool,
}

impl Write for OneLine {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut waiting = self.to.0.lock();
        waiting.lines.extend_from_slice(bytes);
        if self.at_once || waiting.lines.len() >= FLUSH_BYTES {
            waiting.write_out();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Gathered {
    type Writer = OneLine;

    fn make_writer(&'a self) -> OneLine {
        OneLine {
            to: self.clone(),
            at_once: true,
        }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> OneLine {
        OneLine {
            to: self.clone(),
            at_once: *metadata.level() <= Level::WARN,
        }
    }
}

struct Lines {
    format: Format,
    colour: bool,
}

/// One line in the making: the fixed part is known at the end, so the fields wait in a text of their own.
struct Facts {
    format: Format,
    message: String,
    component: String,
    fields: String,
}

impl Facts {
    fn text(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.message.push_str(value),
            "component" => self.component.push_str(value),
            name => {
                self.name(name);
                match self.format {
                    Format::Json => json_text(&mut self.fields, value),
                    Format::Text => quoted(&mut self.fields, value),
                }
            }
        }
    }

    fn bare(&mut self, field: &Field, value: impl fmt::Display) {
        self.name(field.name());
        let _ = write!(self.fields, "{value}");
    }

    fn name(&mut self, name: &str) {
        match self.format {
            Format::Json => {
                self.fields.push(',');
                json_text(&mut self.fields, name);
                self.fields.push(':');
            }
            Format::Text => {
                self.fields.push(' ');
                self.fields.push_str(name);
                self.fields.push('=');
            }
        }
    }
}

impl Visit for Facts {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.bare(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.bare(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() {
            self.bare(field, value);
        } else {
            self.text(field, &value.to_string());
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.bare(field, value);
    }
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut facts = Facts {
            format: self.format,
            message: String::new(),
            component: String::new(),
            fields: String::with_capacity(512),
        };
        event.record(&mut facts);
        let time = timestamp();
        let level = event.metadata().level().as_str();
        if facts.component.is_empty() {
            let target = event.metadata().target();
            let room = target.strip_prefix("dirnode_").unwrap_or(target);
            facts.component.push_str(room.split("::").next().unwrap_or(room));
        }
        let Facts {
            message,
            component,
            fields,
            ..
        } = facts;
        let mut line = String::with_capacity(fields.len() + 2 * message.len() + 160);
        match self.format {
            Format::Json => {
                write!(line, "{{\"time\":\"{time}\",\"level\":\"{level}\",\"msg\":")?;
                json_text(&mut line, &message);
                line.push_str(",\"component\":");
                json_text(&mut line, &component);
                write!(line, ",\"timestamp\":\"{time}\",\"message\":")?;
                json_text(&mut line, &message);
                line.push_str(&fields);
                line.push('}');
            }
            Format::Text => {
                let (on, off) = match (self.colour, level) {
                    (false, _) => ("", ""),
                    (_, "ERROR") => ("\x1b[31m", "\x1b[0m"),
                    (_, "WARN") => ("\x1b[33m", "\x1b[0m"),
                    _ => ("\x1b[2m", "\x1b[0m"),
                };
                write!(line, "time={time} level={on}{level}{off} msg=")?;
                quoted(&mut line, &message);
                line.push_str(" component=");
                quoted(&mut line, &component);
                line.push_str(&fields);
            }
        }
        line.push('\n');
        out.write_str(&line)
    }
}

/// Now, in RFC 3339 with microseconds.
fn timestamp() -> String {
    thread_local! {
        /// The second that was written last, and its text: most lines share theirs with the line before.
        static SECOND: RefCell<(u64, String)> = const { RefCell::new((u64::MAX, String::new())) };
    }
    let since_epoch = runtime::since_epoch();
    SECOND.with_borrow_mut(|(second, text)| {
        if *second != since_epoch.as_secs() {
            *second = since_epoch.as_secs();
            let now = OffsetDateTime::UNIX_EPOCH + since_epoch;
            text.clear();
            let _ = write!(
                text,
                "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}",
                now.year(),
                u8::from(now.month()),
                now.day(),
                now.hour(),
                now.minute(),
                now.second(),
            );
        }
        format!("{text}.{:06}Z", since_epoch.subsec_micros())
    })
}

/// A JSON string.
fn json_text(out: &mut String, text: &str) {
    out.push('"');
    if text
        .bytes()
        .all(|byte| matches!(byte, 0x20..0x7f) && byte != b'"' && byte != b'\\')
    {
        out.push_str(text);
        out.push('"');
        return;
    }
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Text that needs quotes gets them; control characters never reach the terminal.
fn quoted(out: &mut String, text: &str) {
    let ascii = |byte: u8| matches!(byte, 0x21..0x7f) && byte != b'"' && byte != b'=';
    let other = |c: char| !c.is_whitespace() && !c.is_control() && c != '"' && c != '=';
    let plain = !text.is_empty() && (text.bytes().all(ascii) || text.chars().all(other));
    if plain {
        out.push_str(text);
    } else {
        let _ = write!(out, "{text:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::sync::Mutex;

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
        let lines = Lines {
            format,
            colour: false,
        };
        let logger = tracing_subscriber::fmt()
            .event_format(lines)
            .with_writer(move || memory.clone())
            .finish();
        tracing::subscriber::with_default(logger, || {
            tracing::info!(
                component = "grpc",
                grpc.code = "OK",
                ms = 1.5,
                n = -3,
                odd = "a \"b\"\n\u{1b}",
                "finished call"
            );
        });
        let bytes = written.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn json_lines_hold_both_names_and_every_fact() {
        let line = line(Format::Json);
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        for (key, expected) in [
            ("level", "INFO"),
            ("msg", "finished call"),
            ("message", "finished call"),
            ("component", "grpc"),
            ("grpc.code", "OK"),
            ("odd", "a \"b\"\n\u{1b}"),
        ] {
            assert_eq!(value[key], expected, "{key} in {line}");
        }
        assert_eq!((value["ms"].as_f64(), value["n"].as_i64()), (Some(1.5), Some(-3)));
        assert_eq!(value["time"], value["timestamp"]);
    }

    #[test]
    fn lines_wait_for_company_and_warnings_do_not() {
        let memory = Memory::default();
        let gathered = Gathered::new(Box::new(memory.clone()));
        let lines = Lines {
            format: Format::Text,
            colour: false,
        };
        let logger = tracing_subscriber::fmt()
            .event_format(lines)
            .with_writer(gathered.clone())
            .finish();
        let written = || String::from_utf8(memory.0.lock().unwrap().clone()).unwrap();
        tracing::subscriber::with_default(logger, || {
            tracing::info!("first");
            assert_eq!(written(), "");
            tracing::warn!("second");
            assert_eq!(written().lines().count(), 2);
            tracing::info!("third");
        });
        gathered.flush();
        assert!(
            written().ends_with(
                &written()
                    .lines()
                    .last()
                    .map(|line| format!("{line}\n"))
                    .unwrap_or_default()
            )
        );
        assert_eq!(written().lines().count(), 3);
    }

    #[test]
    fn text_lines_quote_what_needs_it() {
        let line = line(Format::Text);
        let expected = " level=INFO msg=\"finished call\" component=grpc grpc.code=OK ms=1.5 n=-3 odd=\"a \\\"b\\\"\\n\\u{1b}\"\n";
        assert!(line.starts_with("time=2") && line.ends_with(expected), "{line}");
    }
}
