//! Search conditions as flags, named as operators know them (operations §7.3).
//!
//! Values of one flag are alternatives, flags must all hold, `--exclude-…` takes away. `*` and `?` are wildcards;
//! version, created-at and schema-version also take a comparison such as `>=1.0`.

use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use dirnode_proto::search::v1::{RecordQuery, RecordQueryType as Type};
use dirnode_record::Validator;

/// Names of one taxonomy family, completed level by level.
fn complete(family: &'static str, current: &std::ffi::OsStr) -> Vec<CompletionCandidate> {
    let Some(typed) = current.to_str() else {
        return Vec::new();
    };
    let validator = Validator::builtin();
    let mut names: Vec<&str> = validator
        .versions()
        .flat_map(|version| validator.taxonomy(version))
        .filter(|class| class.family == family && class.name.starts_with(typed))
        .map(|class| class.name)
        .collect();
    names.sort_unstable();
    names.dedup();
    names.into_iter().map(CompletionCandidate::new).collect()
}

fn skills(current: &std::ffi::OsStr) -> Vec<CompletionCandidate> {
    complete("skill", current)
}

fn domains(current: &std::ffi::OsStr) -> Vec<CompletionCandidate> {
    complete("domain", current)
}

fn modules(current: &std::ffi::OsStr) -> Vec<CompletionCandidate> {
    complete("module", current)
}

/// Completion of taxonomy names, for other commands.
pub(crate) fn skill_names() -> ArgValueCompleter {
    ArgValueCompleter::new(skills)
}

/// As [`skill_names`], for domains.
pub(crate) fn domain_names() -> ArgValueCompleter {
    ArgValueCompleter::new(domains)
}

/// As [`skill_names`], for modules.
pub(crate) fn module_names() -> ArgValueCompleter {
    ArgValueCompleter::new(modules)
}

macro_rules! filters {
    ($($field:ident, $exclude:ident, $kind:ident, $value:literal, $help:literal, $completer:expr;)*) => {
        /// The search conditions of a command.
        #[derive(Debug, Clone, clap::Args)]
        pub(crate) struct Filters {
            $(
                #[doc = $help]
                #[arg(long, value_name = $value, help_heading = "Filters", add = $completer)]
                pub(crate) $field: Vec<String>,
                #[doc = concat!("Without: ", $help)]
                #[arg(long, value_name = $value, help_heading = "Exclusions", hide_short_help = true, add = $completer)]
                pub(crate) $exclude: Vec<String>,
            )*
            /// Only records whose name's owner is verified; =false for the others
            #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", help_heading = "Filters")]
            pub(crate) verified: Option<bool>,
            /// Only records with a verified signature; =false for the others
            #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", help_heading = "Filters")]
            pub(crate) trusted: Option<bool>,
            /// Only records that every scan found safe; =false for unsafe ones
            #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", help_heading = "Filters")]
            pub(crate) safe: Option<bool>,
        }

        impl Filters {
            /// The conditions as the API takes them.
            pub(crate) fn queries(&self) -> Vec<RecordQuery> {
                let mut queries = Vec::new();
                let mut add = |kind: Type, values: &[String], negate: bool| {
                    let query = |value: &String| RecordQuery { r#type: kind.into(), value: value.clone(), negate };
                    queries.extend(values.iter().map(query));
                };
                $(
                    add(Type::$kind, &self.$field, false);
                    add(Type::$kind, &self.$exclude, true);
                )*
                for (kind, flag) in [
                    (Type::Verified, self.verified),
                    (Type::Trusted, self.trusted),
                    (Type::ScanSafe, self.safe),
                ] {
                    add(kind, flag.map(|flag| flag.to_string()).as_slice(), false);
                }
                queries
            }
        }
    };
}

/// No completion beyond what the shell does by itself.
fn nothing() -> ArgValueCompleter {
    ArgValueCompleter::new(|_: &std::ffi::OsStr| Vec::new())
}

filters! {
    name, exclude_name, Name, "PATTERN", "Record name", nothing();
    version, exclude_version, Version, "PATTERN", "Record version, or a comparison", nothing();
    description, exclude_description, Description, "PATTERN", "Record description", nothing();
    skill, exclude_skill, SkillName, "PATTERN", "Skill name", skill_names();
    skill_id, exclude_skill_id, SkillId, "ID", "Skill id", nothing();
    domain, exclude_domain, DomainName, "PATTERN", "Domain name", domain_names();
    domain_id, exclude_domain_id, DomainId, "ID", "Domain id", nothing();
    module, exclude_module, ModuleName, "PATTERN", "Module name", module_names();
    module_id, exclude_module_id, ModuleId, "ID", "Module id", nothing();
    locator, exclude_locator, Locator, "TYPE[:URL]", "Locator type, type and URL, or *URL*", nothing();
    author, exclude_author, Author, "TEXT", "Part of an author", nothing();
    created_at, exclude_created_at, CreatedAt, "PATTERN", "Creation time as written in the record, or a comparison", nothing();
    schema_version, exclude_schema_version, SchemaVersion, "PATTERN", "OASF schema version, or a comparison", nothing();
    annotation, exclude_annotation, Annotation, "KEY[:VALUE]", "Annotation key, or key and value", nothing();
    scan_severity, exclude_scan_severity, ScanSeverity, "LEVEL", "A scan found this severity or worse", nothing();
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(clap::Parser)]
    #[command(disable_version_flag = true)]
    struct Probe {
        #[command(flatten)]
        filters: Filters,
    }

    #[test]
    fn flags_become_conditions() {
        let probe = Probe::parse_from([
            "probe",
            "--skill",
            "a/b",
            "--skill",
            "c",
            "--exclude-name",
            "x*",
            "--version",
            ">=1",
            "--verified",
            "--safe=false",
        ]);
        let queries = probe.filters.queries();
        let seen: Vec<_> = queries
            .iter()
            .map(|q| (q.r#type(), q.value.as_str(), q.negate))
            .collect();
        let expected = [
            (Type::Name, "x*", true),
            (Type::Version, ">=1", false),
            (Type::SkillName, "a/b", false),
            (Type::SkillName, "c", false),
            (Type::Verified, "true", false),
            (Type::ScanSafe, "false", false),
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn taxonomy_names_complete() {
        let found = complete("skill", std::ffi::OsStr::new("natural_language_processing/"));
        assert!(found.len() > 5, "{} names", found.len());
    }
}
