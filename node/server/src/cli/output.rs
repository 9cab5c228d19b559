//! The four forms of output: for people, JSON, JSON lines, and bare values for scripts (operations §7.2).

use std::io::{IsTerminal as _, Write as _};

use serde_json::Value;

/// Form of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Labelled lines
    Human,
    /// One indented JSON value
    Json,
    /// One JSON value a line
    Jsonl,
    /// Bare values
    Raw,
}

/// Writes a line to standard output.
pub(crate) fn line(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.write_all(b"\n")?;
    Ok(())
}

/// Writes bytes as they are to standard output, with a closing newline only for a terminal.
pub(crate) fn raw(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes)?;
    if out.is_terminal() {
        out.write_all(b"\n")?;
    }
    out.flush()?;
    Ok(())
}

/// Writes one JSON value, indented.
pub(crate) fn json(value: &Value) -> anyhow::Result<()> {
    line(&serde_json::to_string_pretty(value)?)
}

/// Writes one JSON value on a line of its own.
pub(crate) fn json_line(value: &Value) -> anyhow::Result<()> {
    line(&value.to_string())
}

/// A remark beside the answer: with the answer for people, out of its way otherwise.
pub(crate) fn remark(format: Format, text: &str) -> anyhow::Result<()> {
    if format == Format::Human {
        line(text)
    } else {
        writeln!(std::io::stderr(), "{text}")?;
        Ok(())
    }
}

/// One value or several, as text.
pub(crate) fn texts(format: Format, singular: &str, plural: &str, values: &[String]) -> anyhow::Result<()> {
    match (format, values) {
        (Format::Human, []) => line(&format!("No {plural} found")),
        (Format::Human, [one]) => line(&format!("{singular}: {one}")),
        (Format::Human, many) => {
            line(&format!("{plural}:"))?;
            many.iter().try_for_each(|value| line(&format!("  {value}")))
        }
        (Format::Json, [one]) => json(&Value::from(one.as_str())),
        (Format::Json, many) => json(&Value::from(many)),
        (Format::Jsonl, many) => many
            .iter()
            .try_for_each(|value| json_line(&Value::from(value.as_str()))),
        (Format::Raw, [one]) => raw(one.as_bytes()),
        (Format::Raw, many) => many.iter().try_for_each(|value| line(value)),
    }
}
