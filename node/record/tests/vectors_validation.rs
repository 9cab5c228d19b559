//! The golden cases of schema validation, judged both by number literals and as pushed records.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failing test may panic"
)]

mod common;

use common::{Family, Faults, lines, text};
use dirnode_record::validate::{Finding, Report, Severity, ValidateError};
use dirnode_record::{Validator, read_struct};
use serde::Deserialize;
use serde_json::Value as Json;
use serde_json::value::RawValue;

#[derive(Deserialize)]
struct Case<'a> {
    id: String,
    schema_version: String,
    #[serde(borrow)]
    record: &'a RawValue,
    expect: Json,
    expect_via_doubles: Option<Json>,
    message_match: Option<String>,
}

#[test]
fn vectors_validation_literals() {
    let mut family = Family::new("validation literals");
    for line in lines("validation/cases.jsonl") {
        let case: Case<'_> = serde_json::from_str(&line).unwrap();
        let got =
            Validator::builtin().validate_text(case.record.get().as_bytes(), Some(&case.schema_version));
        family.case(&case.id, &faults(&case, &case.expect, got));
    }
    family.finish();
}

#[test]
fn vectors_validation_pushed() {
    let mut family = Family::new("validation pushed");
    for line in lines("validation/cases.jsonl") {
        let case: Case<'_> = serde_json::from_str(&line).unwrap();
        let expect = case.expect_via_doubles.as_ref().unwrap_or(&case.expect);
        let faults = match read_struct(case.record.get().as_bytes()) {
            Ok(Some(record)) => faults(
                &case,
                expect,
                Validator::builtin().validate(&record, &case.schema_version),
            ),
            // What is no record cannot be pushed; the outcome must say so too.
            _ if expect["outcome"] == "bad_request" => Vec::new(),
            other => vec![format!("not read: {other:?}")],
        };
        family.case(&case.id, &faults);
    }
    family.finish();
}

fn faults(case: &Case<'_>, expect: &Json, got: Result<Report, ValidateError>) -> Vec<String> {
    let mut faults = Faults::default();
    let outcome = text(expect, "outcome").unwrap();
    let report = match (got, outcome) {
        (Ok(report), "valid" | "invalid") => report,
        (Err(ValidateError::NotAnObject), "bad_request")
        | (Err(ValidateError::NoVerdict { .. }), "server_error") => {
            return Vec::new();
        }
        (got, outcome) => return vec![format!("outcome {got:?}, expected {outcome}")],
    };
    faults.same("valid", &report.is_valid(), &(outcome == "valid"));
    for (severity, list, key) in [
        (Severity::Error, "errors", "error"),
        (Severity::Warning, "warnings", "warning"),
    ] {
        let with_message = case.message_match.as_deref() != Some("any");
        let mut got: Vec<String> = report
            .findings
            .iter()
            .filter(|finding| finding.severity == severity)
            .map(|finding| line_of(finding, with_message))
            .collect();
        let mut expected: Vec<String> = expect[list]
            .as_array()
            .unwrap()
            .iter()
            .map(|finding| {
                let message = if with_message {
                    text(finding, "message").unwrap()
                } else {
                    ""
                };
                let constraint = finding
                    .get("constraint")
                    .map(ToString::to_string)
                    .unwrap_or_default();
                let path = text(finding, "attribute_path");
                format!(
                    "{} | {path:?} | {message} | {constraint}",
                    text(finding, key).unwrap()
                )
            })
            .collect();
        got.sort();
        expected.sort();
        for line in &got {
            if !expected.contains(line) {
                faults.0.push(format!("\n    got      {line}"));
            }
        }
        for line in &expected {
            if !got.contains(line) {
                faults.0.push(format!("\n    expected {line}"));
            }
        }
        faults.same(list, &got.len(), &expected.len());
    }
    faults.0
}

fn line_of(finding: &Finding, with_message: bool) -> String {
    let message = if with_message {
        finding.message.as_str()
    } else {
        ""
    };
    let constraint = finding
        .constraint
        .as_ref()
        .map(ToString::to_string)
        .unwrap_or_default();
    format!(
        "{} | {:?} | {message} | {constraint}",
        finding.kind,
        finding.attribute_path.as_deref()
    )
}
