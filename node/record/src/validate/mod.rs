//! OASF schema validation without the schema server.
//!
//! Answers what the network's schema server would: the same findings, and so the same verdict. The tables of the
//! supported versions are part of the program; nothing is fetched. A record on which the server would break off has
//! no verdict here and is not to be accepted. Holds the tables, which never change. Follows the validation contract.

mod check;
mod class;
mod closed;
mod lists;
mod load;
mod path;
mod report;
mod scalar;
mod schema;
mod version;
mod view;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use dirnode_proto::{Struct, Value};

pub use report::{Constraint, Finding, MAX_FINDINGS, MAX_REPORT_BYTES, Report, Severity, ValidateError};

use self::check::Check;
use self::path::Path;
use self::schema::Schema;
use self::view::{Doc, Owned, Tree};
use crate::CanonicalError;
use crate::scan::Fault;
use crate::tree;

/// Judges records by the schema of a version.
pub struct Validator {
    schemas: Vec<Schema>,
}

/// One class of a taxonomy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClassName<'a> {
    /// `skill`, `domain` or `module`.
    pub family: &'a str,
    /// Class id.
    pub id: i64,
    /// Full name with its `/` hierarchy.
    pub name: &'a str,
    /// A category groups classes; from 1.1 on it is not one to choose.
    pub category: bool,
}

static BUILTIN: LazyLock<Validator> = LazyLock::new(|| {
    let schemas = load::TABLES.iter().map(|table| {
        let raw: load::Schema = serde_json::from_str(table).map_err(|error| error.to_string())?;
        Schema::build(&raw)
    });
    match schemas.collect::<Result<Vec<_>, String>>() {
        Ok(schemas) => Validator { schemas },
        Err(error) => unreachable!("the embedded schema tables are broken: {error}"),
    }
});

impl Validator {
    /// The validator with the embedded tables, which are read on first use.
    #[must_use]
    pub fn builtin() -> &'static Self {
        &BUILTIN
    }

    /// The supported schema versions, oldest first.
    pub fn versions(&self) -> impl Iterator<Item = &str> {
        self.schemas.iter().map(|schema| schema.version.as_str())
    }

    /// The classes of a version, the base class of each family left out; nothing when the version is not supported.
    pub fn taxonomy(&self, version: &str) -> impl Iterator<Item = ClassName<'_>> {
        let schema = self.schemas.iter().find(|schema| schema.version == version);
        schema
            .into_iter()
            .flat_map(|schema| &schema.families)
            .flat_map(|family| {
                family
                    .classes
                    .iter()
                    .filter(|class| class.key != family.base)
                    .map(|class| ClassName {
                        family: &family.name,
                        id: class.id,
                        name: &class.name,
                        category: class.category,
                    })
            })
    }

    /// Judges a record by `version`, as it would reach the schema server from a push: numbers by their canonical
    /// text.
    ///
    /// # Errors
    /// [`ValidateError`] when there is no verdict; the record is then not to be accepted.
    pub fn validate(&self, record: &Struct, version: &str) -> Result<Report, ValidateError> {
        let schema = self.schema(version)?;
        sayable(record)?;
        judge(schema, &record.fields)
    }

    /// Judges a record by the version it names itself.
    ///
    /// # Errors
    /// As [`Validator::validate`], and [`ValidateError::MissingVersion`].
    pub fn validate_own(&self, record: &Struct) -> Result<Report, ValidateError> {
        match record.fields.get("schema_version") {
            None => Err(ValidateError::MissingVersion),
            Some(Value::String(version)) => self.validate(record, version),
            Some(_) => self.validate(record, ""),
        }
    }

    /// Judges JSON text by its number literals, and by the version it names itself unless `version` is given. Of two
    /// equal keys the first counts.
    ///
    /// # Errors
    /// [`ValidateError`] when there is no verdict; the text is then not to be accepted.
    pub fn validate_text(&self, text: &[u8], version: Option<&str>) -> Result<Report, ValidateError> {
        let (top, fault) = tree::read::<Doc>(text).map_err(|_| ValidateError::NotAnObject)?;
        let top = Owned(top);
        if fault.is_some_and(|(fault, _)| !matches!(fault, Fault::DuplicateKey(_))) {
            return Err(ValidateError::NotAnObject);
        }
        let Doc::Object(fields) = &top.0 else {
            return Err(ValidateError::NotAnObject);
        };
        let version = match (version, fields.get("schema_version")) {
            (Some(version), _) => version,
            (None, Some(Doc::Text(version))) => version,
            (None, Some(_)) => "",
            (None, None) => return Err(ValidateError::MissingVersion),
        };
        judge(self.schema(version)?, fields)
    }

    fn schema(&self, version: &str) -> Result<&Schema, ValidateError> {
        self.schemas
            .iter()
            .find(|schema| schema.version == version)
            .ok_or_else(|| ValidateError::UnknownVersion {
                version: crate::shorten(version),
                supported: self.versions().collect::<Vec<_>>().join(", "),
            })
    }
}

fn judge<T: Tree>(schema: &Schema, fields: &BTreeMap<String, T>) -> Result<Report, ValidateError> {
    let mut check = Check {
        schema,
        report: Report::default(),
    };
    check.profiles(fields);
    check.object(schema.record, fields, &Path::Root)?;
    check.version(fields);
    Ok(check.report)
}

/// Looks for values that could not be sent to a schema server as JSON. Walks with a work list.
fn sayable(record: &Struct) -> Result<(), ValidateError> {
    let mut rest: Vec<&Value> = record.fields.values().collect();
    while let Some(value) = rest.pop() {
        match value {
            Value::Unset => return Err(ValidateError::NotJson(CanonicalError::ValueWithoutKind)),
            Value::Number(number) if !number.is_finite() => {
                return Err(ValidateError::NotJson(CanonicalError::NonFinite {
                    number: *number,
                }));
            }
            Value::List(items) => rest.extend(items),
            Value::Object(fields) => rest.extend(fields.values()),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_tables_are_whole() {
        let validator = Validator::builtin();
        assert_eq!(
            validator.versions().collect::<Vec<_>>(),
            ["0.7.0", "0.8.0", "1.0.0", "1.1.0"]
        );
        for version in validator.versions() {
            for family in ["skill", "domain", "module"] {
                assert!(
                    validator.taxonomy(version).any(|class| class.family == family),
                    "{version} {family}"
                );
            }
        }
        let mcp = validator
            .taxonomy("1.1.0")
            .find(|class| class.name == "integration/mcp")
            .unwrap();
        assert_eq!((mcp.family, mcp.id), ("module", 202));
        assert_eq!(validator.taxonomy("9.9.9").count(), 0);
    }

    #[test]
    fn records_without_a_verdict_are_errors() {
        let validator = Validator::builtin();
        let record = |text: &str| crate::read_struct(text.as_bytes()).unwrap().unwrap();
        assert_eq!(
            validator.validate_own(&record("{}")),
            Err(ValidateError::MissingVersion)
        );
        let unknown = validator
            .validate_own(&record(r#"{"schema_version":"1.2.0"}"#))
            .unwrap_err();
        assert_eq!(
            unknown.to_string(),
            "no schema for version \"1.2.0\", supported are 0.7.0, 0.8.0, 1.0.0, 1.1.0"
        );
        assert_eq!(unknown.kind(), crate::ErrorKind::Unavailable);
        let crash = validator
            .validate(&record(r#"{"skills":["x"]}"#), "1.0.0")
            .unwrap_err();
        assert!(matches!(crash, ValidateError::NoVerdict { .. }), "{crash}");
    }

    #[test]
    fn a_flood_of_findings_is_counted_and_cut() {
        let keys: Vec<String> = (0..10_000).map(|i| format!("\"x{i}\":1")).collect();
        let text = format!("{{{}}}", keys.join(","));
        let report = Validator::builtin()
            .validate_text(text.as_bytes(), Some("1.1.0"))
            .unwrap();
        assert!(report.errors > 10_000);
        assert!(report.findings.len() <= MAX_FINDINGS);
        assert!(!report.is_valid());
    }
}
