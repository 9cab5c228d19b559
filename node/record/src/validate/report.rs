//! What a validation found: findings, their texts, and the verdict.
//!
//! Follows grpc-api §2.4 and validation §9.

use std::fmt;

/// How much a finding weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Makes the record invalid.
    Error,
    /// Is reported beside errors and never fails a record.
    Warning,
}

/// A constraint that an object failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Constraint {
    /// `at_least_one` or `just_one`.
    pub rule: &'static str,
    /// The attributes it counts.
    pub attributes: Vec<String>,
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{\"{}\":[", self.rule)?;
        for (place, attribute) in self.attributes.iter().enumerate() {
            write!(f, "{}\"{attribute}\"", if place == 0 { "" } else { "," })?;
        }
        f.write_str("]}")
    }
}

/// One thing to say about a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Error or warning.
    pub severity: Severity,
    /// The schema server's name for this kind of finding, such as `attribute_unknown`.
    pub kind: &'static str,
    /// Where, as `a.b[0].c`; some findings have no place.
    pub attribute_path: Option<String>,
    /// The schema server's sentence.
    pub message: String,
    /// Set when the kind is `constraint_failed`.
    pub constraint: Option<Constraint>,
}

impl fmt::Display for Finding {
    /// The text that clients see, without the `ERROR: ` or `WARNING: ` in front.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.attribute_path, self.severity) {
            (Some(path), _) if !path.is_empty() => write!(f, "{} Attribute path: {path}.", self.message)?,
            (_, Severity::Error) => write!(f, "Validation Error: {}", self.message)?,
            (_, Severity::Warning) => f.write_str(&self.message)?,
        }
        match &self.constraint {
            Some(constraint) => write!(f, " Constraint: {constraint}"),
            None => Ok(()),
        }
    }
}

/// Most findings a report keeps; a record of four mebibytes could otherwise earn millions.
pub const MAX_FINDINGS: usize = 2000;
/// Most bytes of paths and messages a report keeps.
pub const MAX_REPORT_BYTES: usize = 1024 * 1024;

/// The findings about one record. Their order means nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// At most [`MAX_FINDINGS`] findings with [`MAX_REPORT_BYTES`] of text.
    pub findings: Vec<Finding>,
    /// How many errors there were, those that are not kept included.
    pub errors: usize,
    /// How many warnings there were, those that are not kept included.
    pub warnings: usize,
    bytes: usize,
}

impl Report {
    /// No errors; warnings do not count.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.errors == 0
    }

    /// The findings as clients see them: errors first, then warnings, each with its prefix.
    #[must_use]
    pub fn entries(&self) -> Vec<String> {
        let of = |severity, prefix: &'static str| {
            self.findings
                .iter()
                .filter(move |finding| finding.severity == severity)
                .map(move |finding| format!("{prefix}{finding}"))
        };
        of(Severity::Error, "ERROR: ")
            .chain(of(Severity::Warning, "WARNING: "))
            .collect()
    }

    /// Counts a finding and says whether there is room to keep it.
    pub(super) fn count(&mut self, severity: Severity) -> bool {
        match severity {
            Severity::Error => self.errors += 1,
            Severity::Warning => self.warnings += 1,
        }
        // The first error is always kept, so that an invalid record never comes without a reason.
        (self.findings.len() < MAX_FINDINGS && self.bytes < MAX_REPORT_BYTES)
            || (severity == Severity::Error && self.errors == 1)
    }

    pub(super) fn keep(&mut self, finding: Finding) {
        self.bytes += finding.message.len() + finding.attribute_path.as_ref().map_or(0, String::len);
        self.findings.push(finding);
    }
}

/// Why a record could not be validated. It must not be accepted then.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ValidateError {
    /// No table for this version.
    #[error("no schema for version {version:?}, supported are {supported}")]
    UnknownVersion {
        /// The version asked for, shortened.
        version: String,
        /// The versions we have, with commas.
        supported: String,
    },
    /// The record has no `schema_version`, or not as text.
    #[error("schema_version is missing")]
    MissingVersion,
    /// The text is not JSON, or not an object.
    #[error("unexpected body, expected a json object")]
    NotAnObject,
    /// The record holds a number or value that JSON cannot say.
    #[error("record has no json form: {0}")]
    NotJson(crate::CanonicalError),
    /// Input on which the schema's rules have no answer: the network's validator breaks off there too.
    #[error("record cannot be judged at {path:?}: {reason}")]
    NoVerdict {
        /// Where, as in a finding, shortened.
        path: String,
        /// What the rules do not cover.
        reason: &'static str,
    },
}

impl ValidateError {
    /// Sorts the error.
    #[must_use]
    pub fn kind(&self) -> crate::ErrorKind {
        match self {
            Self::UnknownVersion { .. } => crate::ErrorKind::Unavailable,
            _ => crate::ErrorKind::Invalid,
        }
    }
}
