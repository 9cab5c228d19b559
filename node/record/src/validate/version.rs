//! The rules for `schema_version` and `metadata.profiles`. Follows validation §3 and §7.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::check::Check;
use super::path::Path;
use super::view::{Tree, View};

impl Check<'_> {
    /// Judges the `schema_version` of a record or class item, if it is text. Always at the path `schema_version`.
    pub(super) fn version<T: Tree>(&mut self, fields: &BTreeMap<String, T>) {
        let Some(View::Text(version)) = fields.get("schema_version").map(Tree::view) else {
            return;
        };
        let server = &self.schema.version;
        if version == server {
            return;
        }
        let root = Path::Root;
        let at = root.key("schema_version");
        let Some(parsed) = parse(version) else {
            self.error("version_invalid_format", &at, |_| {
                format!(
                    "Schema version {version:?} at \"schema_version\" has invalid format: malformed. Version must be in \
                     semantic versioning format (see https://semver.org/)."
                )
            });
            return;
        };
        let order = compare(&parsed, self.schema.numbers);
        let said = format!("Schema version \"{version}\" at \"schema_version\" is");
        match order {
            Ordering::Equal => {}
            Ordering::Less if parsed.major == "0" => {
                self.error("version_incompatible_initial_development", &at, |_| {
                    format!(
                        "{said} an initial development version and is incompatible with the current schema version \
                         \"{server}\". Initial development versions do not have compatibility guarantees (see \
                         https://semver.org/). This can result in incorrect validation messages."
                    )
                });
            }
            Ordering::Less if parsed.prerelease => {
                self.error("version_incompatible_prerelease", &at, |_| {
                    format!(
                        "{said} a prerelease version and is incompatible with the current schema version \
                         \"{server}\". Prerelease versions are generally incompatible with released versions and \
                         future prerelease versions (see https://semver.org/). This can result in incorrect \
                         validation messages."
                    )
                });
            }
            Ordering::Less => self.warning("version_earlier", &at, |_| {
                format!(
                    "{said} earlier than the current schema version \"{server}\". Validating against later schema \
                     versions can yield deprecation warnings and other (minor) validation messages that would not \
                     occur when validating against the same version."
                )
            }),
            Ordering::Greater => self.error("version_incompatible_later", &at, |_| {
                format!(
                    "{said} incompatible with the current schema version \"{server}\" because it is a later version. \
                     This can result in missing validation messages (false negatives) and incorrect validation \
                     messages."
                )
            }),
        }
    }

    /// No profile is defined in any version, so each one named is unknown. The place is always told from the top,
    /// also for the profiles of a class item.
    pub(super) fn profiles<T: Tree>(&mut self, fields: &BTreeMap<String, T>) {
        let Some(View::Object(metadata)) = fields.get("metadata").map(Tree::view) else {
            return;
        };
        let Some(View::List(profiles)) = metadata.get("profiles").map(Tree::view) else {
            return;
        };
        let root = Path::Root;
        let metadata = root.key("metadata");
        let list = metadata.key("profile");
        for (index, profile) in profiles.iter().enumerate() {
            if let View::Text(profile) = profile.view() {
                self.error("profile_unknown", &list.index(index), |path| {
                    format!("Unknown profile at \"{path}\"; no profile is defined for \"{profile}\".")
                });
            }
        }
    }
}

struct Version<'a> {
    major: &'a str,
    minor: &'a str,
    patch: &'a str,
    prerelease: bool,
}

/// Three numbers without leading zeros and, after a hyphen, anything; one line feed at the end is let through.
fn parse(version: &str) -> Option<Version<'_>> {
    let version = version.strip_suffix('\n').unwrap_or(version);
    let (major, rest) = number(version)?;
    let (minor, rest) = number(rest.strip_prefix('.')?)?;
    let (patch, rest) = number(rest.strip_prefix('.')?)?;
    let prerelease = match rest.strip_prefix('-') {
        Some(suffix) if !suffix.is_empty() && !suffix.contains('\n') => true,
        None if rest.is_empty() => false,
        _ => return None,
    };
    Some(Version {
        major,
        minor,
        patch,
        prerelease,
    })
}

fn number(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at_checked(end)?;
    let good = digits == "0" || (!digits.is_empty() && !digits.starts_with('0'));
    good.then_some((digits, rest))
}

/// Digits without leading zeros compare by length and then as text, so no length of them is too much.
fn compare(version: &Version<'_>, server: (u64, u64, u64)) -> Ordering {
    let digits = |digits: &str, number: u64| {
        let number = number.to_string();
        digits.len().cmp(&number.len()).then_with(|| digits.cmp(&number))
    };
    digits(version.major, server.0)
        .then_with(|| digits(version.minor, server.1))
        .then_with(|| digits(version.patch, server.2))
        .then(if version.prerelease {
            Ordering::Less
        } else {
            Ordering::Equal
        })
}
