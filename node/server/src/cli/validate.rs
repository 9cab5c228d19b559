//! `dirnode validate`: the verdict of the built-in OASF schemas, without a node and without a network.

use std::path::PathBuf;

use anyhow::bail;
use dirnode_record::validate::Severity;
use dirnode_record::{ValidateError, Validator};
use serde_json::{Value, json};

use super::OutputArgs;
use super::inputs;
use super::output::{self, Format};

#[derive(Debug, clap::Args)]
#[command(after_help = "Exit code 1 when a record is not valid.\n\n\
    Examples:\n  \
    dirnode validate agent.json\n  \
    dirnode validate agent.json --schema-version 1.1.0 -o json\n  \
    dirnode validate records/ -o jsonl\n  \
    curl -s https://example.org/agent.json | dirnode validate")]
pub(crate) struct Args {
    /// Files, folders (every .json file below), or - for standard input, which is also the default
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Check against this version rather than the one the record names
    #[arg(long, value_name = "VERSION")]
    schema_version: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
}

/// What is said about one document.
struct Verdict {
    name: String,
    valid: bool,
    findings: Vec<Value>,
    lines: Vec<String>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let format = args.output.or(Format::Human);
    let documents = inputs::collect(&args.paths, args.paths.is_empty())?;
    let single = documents.len() == 1;
    let mut verdicts = Vec::new();
    for document in documents {
        let name = document.name();
        verdicts.push(judge(name, &document.read()?, args.schema_version.as_deref()));
    }
    let invalid = verdicts.iter().filter(|verdict| !verdict.valid).count();
    let object = |verdict: &Verdict| {
        let mut object = json!({ "valid": verdict.valid, "findings": verdict.findings });
        if let (false, Some(members)) = (single, object.as_object_mut()) {
            members.insert("file".into(), Value::from(verdict.name.as_str()));
        }
        object
    };
    match (format, verdicts.as_slice()) {
        (Format::Json, [one]) => output::json(&object(one))?,
        (Format::Json, many) => output::json(&many.iter().map(object).collect())?,
        (Format::Jsonl, many) => many
            .iter()
            .map(object)
            .try_for_each(|value| output::json_line(&value))?,
        (Format::Raw, many) => {
            many.iter()
                .try_for_each(|verdict| output::line(if verdict.valid { "valid" } else { "invalid" }))?;
        }
        (Format::Human, many) => {
            for verdict in many {
                output::line(&format!(
                    "{}: {}",
                    verdict.name,
                    if verdict.valid { "valid" } else { "not valid" }
                ))?;
                verdict
                    .lines
                    .iter()
                    .try_for_each(|line| output::line(&format!("  {line}")))?;
            }
        }
    }
    match (invalid, verdicts.len()) {
        (0, _) => Ok(()),
        (_, 1) => bail!("the record is not valid"),
        (invalid, total) => bail!("{invalid} of {total} records are not valid"),
    }
}

fn judge(name: String, text: &[u8], version: Option<&str>) -> Verdict {
    match Validator::builtin().validate_text(text, version) {
        Ok(report) => Verdict {
            name,
            valid: report.is_valid(),
            findings: report
                .findings
                .iter()
                .map(|finding| {
                    json!({
                        "severity": if finding.severity == Severity::Error { "error" } else { "warning" },
                        "kind": finding.kind,
                        "attribute_path": finding.attribute_path,
                        "message": finding.message,
                    })
                })
                .collect(),
            lines: report.entries(),
        },
        // What cannot be judged is not valid; the reason takes the form of a finding.
        Err(error) => Verdict {
            name,
            valid: false,
            findings: vec![json!({
                "severity": "error",
                "kind": kind_of(&error),
                "attribute_path": null,
                "message": error.to_string(),
            })],
            lines: vec![format!("ERROR: {error}")],
        },
    }
}

/// The kind under which the lack of a verdict is reported.
fn kind_of(error: &ValidateError) -> &'static str {
    match error {
        ValidateError::UnknownVersion { .. } => "version_without_schema",
        ValidateError::MissingVersion => "version_missing",
        ValidateError::NotAnObject => "not_an_object",
        ValidateError::NotJson(_) => "not_json",
        _ => "no_verdict",
    }
}
