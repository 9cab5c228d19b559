//! The rules for the attributes of one object: presence, types, unknown keys, constraints.
//!
//! Nothing stops at the first finding; only input on which the schema server breaks off has no verdict. Recursion
//! follows the record and looks after its stack. Follows validation §4, §6 and §8.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::path::Path;
use super::report::{Constraint, Finding, Report, Severity, ValidateError};
use super::schema::{AT_LEAST_ONE, Attr, AttrKind, Class, JUST_ONE, Object, Requirement, Rule, Schema};
use super::view::{Tree, View, grown};

/// `Err` ends the validation without a verdict.
pub(super) type Verdict = Result<(), ValidateError>;

/// Longest text, in characters, that the schema server takes as a name.
pub(super) const MAX_NAME_CHARS: usize = 255;

/// Whose attributes are checked.
#[derive(Clone, Copy)]
pub(super) enum Owner<'s> {
    Object(&'s Object),
    Class(&'s Class),
}

pub(super) struct Check<'s> {
    pub(super) schema: &'s Schema,
    pub(super) report: Report,
}

impl<'s> Check<'s> {
    pub(super) fn error(
        &mut self,
        kind: &'static str,
        path: &Path<'_>,
        message: impl FnOnce(&str) -> String,
    ) {
        self.finding(Severity::Error, kind, path, message);
    }

    pub(super) fn warning(
        &mut self,
        kind: &'static str,
        path: &Path<'_>,
        message: impl FnOnce(&str) -> String,
    ) {
        self.finding(Severity::Warning, kind, path, message);
    }

    fn finding(
        &mut self,
        severity: Severity,
        kind: &'static str,
        path: &Path<'_>,
        message: impl FnOnce(&str) -> String,
    ) {
        if self.report.count(severity) {
            let path = path.render();
            let message = message(&path);
            self.report.keep(Finding {
                severity,
                kind,
                attribute_path: Some(path),
                message,
                constraint: None,
            });
        }
    }

    /// Steps 2 and 4 for an object, and its own deprecation.
    pub(super) fn object<T: Tree>(
        &mut self,
        place: usize,
        fields: &BTreeMap<String, T>,
        path: &Path<'_>,
    ) -> Verdict {
        let schema = self.schema;
        let Some(object) = schema.objects.get(place) else {
            return Ok(());
        };
        self.object_deprecated(object, path);
        self.members(object, fields, path)
    }

    pub(super) fn object_deprecated(&mut self, object: &Object, path: &Path<'_>) {
        if let Some(text) = &object.deprecated {
            self.warning("object_deprecated", path, |_| {
                format!("Object \"{}\" is deprecated. {text}", object.name)
            });
        }
    }

    pub(super) fn members<T: Tree>(
        &mut self,
        object: &'s Object,
        fields: &BTreeMap<String, T>,
        path: &Path<'_>,
    ) -> Verdict {
        // An object that defines nothing takes anything.
        if !object.attributes.is_empty() {
            self.attributes(
                &object.attributes,
                &object.rules,
                Owner::Object(object),
                fields,
                path,
            )?;
        }
        self.rules(&object.rules, &object.name, fields, path);
        Ok(())
    }

    /// Defined attributes and unknown keys in one walk: both are in byte order.
    pub(super) fn attributes<T: Tree>(
        &mut self,
        attributes: &'s [Attr],
        rules: &[Rule],
        owner: Owner<'s>,
        fields: &BTreeMap<String, T>,
        path: &Path<'_>,
    ) -> Verdict {
        let mut present = fields.iter().peekable();
        for attr in attributes {
            let mut value = None;
            while let Some((key, found)) = present.peek() {
                match key.as_str().cmp(&attr.name) {
                    Ordering::Less => self.unknown(owner, key, path)?,
                    Ordering::Equal => value = Some(*found),
                    Ordering::Greater => break,
                }
                present.next();
            }
            let at = path.key(&attr.name);
            match value {
                None => {
                    if !stands_in(rules, &attr.name, fields) {
                        self.missing(attr, &at);
                    }
                }
                Some(value) => self.present(attr, owner, value, &at)?,
            }
        }
        for (key, _) in present {
            self.unknown(owner, key, path)?;
        }
        Ok(())
    }

    fn missing(&mut self, attr: &Attr, at: &Path<'_>) {
        match attr.requirement {
            Requirement::Required => self.error("attribute_required_missing", at, required_missing),
            Requirement::Recommended => self.warning("attribute_recommended_missing", at, |path| {
                format!("Recommended attribute \"{path}\" is missing.")
            }),
            Requirement::Optional => {}
        }
    }

    fn unknown(&mut self, owner: Owner<'_>, key: &str, path: &Path<'_>) -> Verdict {
        if key.chars().nth(MAX_NAME_CHARS).is_some() {
            return no_verdict(path, "unknown attribute with a name above 255 characters");
        }
        self.error("attribute_unknown", &path.key(key), |path| {
            let whose = match owner {
                Owner::Object(object) => format!("object \"{}\"", object.name),
                Owner::Class(class) => format!("class \"{}\" id {}", class.key, class.id),
            };
            format!("Unknown attribute at \"{path}\"; attribute \"{key}\" is not defined in {whose}.")
        });
        Ok(())
    }

    fn present<T: Tree>(&mut self, attr: &'s Attr, owner: Owner<'_>, value: &T, at: &Path<'_>) -> Verdict {
        let view = value.view();
        if matches!(view, View::Null) {
            self.missing(attr, at);
        } else {
            if let Some(text) = &attr.deprecated {
                self.warning("attribute_deprecated", at, |_| {
                    format!("Attribute \"{}\" is deprecated. {text}", attr.name)
                });
            }
            match view {
                View::List(items) if attr.is_array => self.list(attr, items, at)?,
                _ if attr.is_array => {
                    let expected = match attr.kind {
                        AttrKind::Scalar(place) => {
                            self.schema.types.get(place).map_or("", |ty| ty.name.as_str())
                        }
                        AttrKind::Object(_) | AttrKind::Union(_) => "object_t",
                        AttrKind::Class(_) => "class_t",
                    };
                    self.wrong_type(at, &format!("array of {expected}"), value);
                }
                _ => self.value(attr, value, at)?,
            }
        }
        self.closed(attr, owner, value, at)
    }

    fn list<T: Tree>(&mut self, attr: &'s Attr, items: &[T], at: &Path<'_>) -> Verdict {
        if items.is_empty() && attr.requirement == Requirement::Required {
            self.error("attribute_required_empty", at, |path| {
                format!("Required array attribute \"{path}\" is empty.")
            });
        }
        self.duplicates(attr, items, at);
        if attr.name == "locators" && self.schema.unique_locator_types {
            self.locator_types(items, at)?;
        }
        items
            .iter()
            .enumerate()
            .try_for_each(|(index, item)| self.value(attr, item, &at.index(index)))
    }

    /// One value, or one item of a list.
    fn value<T: Tree>(&mut self, attr: &'s Attr, value: &T, at: &Path<'_>) -> Verdict {
        match attr.kind {
            AttrKind::Scalar(place) => {
                self.scalar(place, attr.value_type, value, at);
                Ok(())
            }
            AttrKind::Class(place) => grown(|| self.class(place, value, at)),
            AttrKind::Object(place) | AttrKind::Union(place) => match value.view() {
                View::Object(fields) if matches!(attr.kind, AttrKind::Union(_)) => {
                    grown(|| self.union(place, fields, at))
                }
                View::Object(fields) => grown(|| self.object(place, fields, at)),
                _ => {
                    self.wrong_type(at, "object", value);
                    if self
                        .schema
                        .objects
                        .get(place)
                        .is_some_and(|object| !object.rules.is_empty())
                    {
                        return no_verdict(at, "not an object, where an object with constraints is due");
                    }
                    Ok(())
                }
            },
        }
    }

    pub(super) fn wrong_type<T: Tree>(&mut self, at: &Path<'_>, expected: &str, value: &T) {
        self.error("attribute_wrong_type", at, |path| {
            let got = match value.view() {
                View::Null => "null",
                View::Bool(_) => "boolean_t",
                View::Int(whole) if i64::try_from(whole).is_ok() => {
                    "integer_t (integer in range of -2^63 to 2^63 - 1)"
                }
                View::Int(_) => "long_t (integer in range of -2^127 to 2^127 - 1)",
                View::Big(_) => "big integer (outside of long_t range of -2^127 to 2^127 - 1)",
                View::Float(_) => "float_t",
                View::Text(_) => "string_t",
                View::List(_) => "array",
                View::Object(_) => "object",
            };
            format!("Attribute \"{path}\" value has wrong type; expected {expected}, got {got}.")
        });
    }

    /// Constraints count the keys that are there, null included.
    pub(super) fn rules<T>(
        &mut self,
        rules: &[Rule],
        owner: &str,
        fields: &BTreeMap<String, T>,
        path: &Path<'_>,
    ) {
        for rule in rules {
            let count = rule
                .attributes
                .iter()
                .filter(|name| fields.contains_key(*name))
                .count();
            let failed = if rule.name == AT_LEAST_ONE {
                count == 0
            } else {
                count != 1
            };
            if !failed || !self.report.count(Severity::Error) {
                continue;
            }
            let path = path.render();
            let rest = if rule.name == AT_LEAST_ONE {
                "expected at least one constraint attribute, but got none.".to_owned()
            } else {
                format!("expected exactly 1 constraint attribute, got {count}.")
            };
            self.report.keep(Finding {
                severity: Severity::Error,
                kind: "constraint_failed",
                message: format!(
                    "Constraint failed: \"{}\" from object \"{owner}\" at \"{path}\"; {rest}",
                    rule.name
                ),
                attribute_path: Some(path),
                constraint: Some(Constraint {
                    rule: rule.name,
                    attributes: rule.attributes.clone(),
                }),
            });
        }
    }
}

pub(super) fn required_missing(path: &str) -> String {
    format!("Required attribute \"{path}\" is missing.")
}

pub(super) fn no_verdict<R>(at: &Path<'_>, reason: &'static str) -> Result<R, ValidateError> {
    Err(ValidateError::NoVerdict {
        path: crate::shorten(&at.render()),
        reason,
    })
}

/// Whether another attribute of a `just_one` rule stands in for the absent `name`: then it is not missed.
fn stands_in<T>(rules: &[Rule], name: &str, fields: &BTreeMap<String, T>) -> bool {
    rules.iter().any(|rule| {
        rule.name == JUST_ONE
            && rule.attributes.iter().any(|one| one == name)
            && rule
                .attributes
                .iter()
                .filter(|one| fields.contains_key(*one))
                .count()
                == 1
    })
}
