//! OASF schema validation without the schema server.

mod report;

pub use report::{Constraint, Finding, MAX_FINDINGS, MAX_REPORT_BYTES, Report, Severity, ValidateError};
