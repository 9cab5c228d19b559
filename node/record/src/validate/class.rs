//! The rules for skills, domains and modules: an item is found by id or name in its family and then checked by what
//! its class defines. Follows validation §5.

use std::collections::BTreeMap;

use super::check::{Check, Owner, Verdict, no_verdict, required_missing};
use super::path::Path;
use super::report::{Finding, Severity, ValidateError};
use super::schema::Family;
use super::view::{Tree, View, scalar_text};

/// Longest last segment of a name, in characters, that the schema server takes.
const MAX_SEGMENT_CHARS: usize = 255;

impl<'s> Check<'s> {
    pub(super) fn class<T: Tree>(&mut self, place: usize, value: &T, at: &Path<'_>) -> Verdict {
        let schema = self.schema;
        let Some(family) = schema.families.get(place) else {
            return Ok(());
        };
        let View::Object(fields) = value.view() else {
            return no_verdict(at, "not an object, where a class is due");
        };
        self.profiles(fields);
        let Some(found) = self.resolve(family, fields, at)? else {
            return Ok(());
        };
        let Some(class) = family.classes.get(found) else {
            return Ok(());
        };
        if class.key == family.base {
            let base = &family.base;
            self.error("base_class_used", at, |path| {
                format!(
                    "\"{base}\" is used at \"{path}\". \"{base}\" is not valid option for this attribute; please \
                     specify a concrete {}.",
                    family.name
                )
            });
        }
        if class.category && schema.categories_out_of_scope {
            self.error("class_out_of_scope", at, |path| {
                format!(
                    "\"{}\" is not a valid option at \"{path}\"; please specify a concrete {} within the \"{}\" \
                     taxonomy.",
                    class.key, family.name, family.base
                )
            });
        }
        if let Some(text) = &class.deprecated
            && self.report.count(Severity::Warning)
        {
            let message = format!("Class \"{}\" id {} is deprecated. {text}", class.key, class.id);
            self.report.keep(Finding {
                severity: Severity::Warning,
                kind: "class_deprecated",
                attribute_path: None,
                message,
                constraint: None,
            });
        }
        let attributes = class.attributes.as_deref().unwrap_or(&family.attributes);
        self.attributes(attributes, &family.rules, Owner::Class(class), fields, at)?;
        self.version(fields);
        self.rules(&family.rules, &class.key, fields, at);
        Ok(())
    }

    /// The place of the item's class; `None` when a finding has said why there is none.
    fn resolve<T: Tree>(
        &mut self,
        family: &'s Family,
        fields: &BTreeMap<String, T>,
        at: &Path<'_>,
    ) -> Result<Option<usize>, ValidateError> {
        let by_id = fields.get("id").map(|id| self.resolve_id(family, id, at));
        let by_name = match fields.get("name") {
            Some(name) => Some(self.resolve_name(family, name, at)?),
            None => None,
        };
        match (by_id, by_name) {
            (None, None) => {
                self.error("attribute_required_missing", at, required_missing);
                Ok(None)
            }
            (Some(found), None) | (None, Some(found)) => Ok(found),
            (Some(Some(id)), Some(Some(name))) if id != name => {
                if let (Some(by_id), Some(by_name)) = (family.classes.get(id), family.classes.get(name)) {
                    let text = fields
                        .get("name")
                        .and_then(|name| scalar_text(&name.view()))
                        .unwrap_or_default();
                    self.error("id_name_mismatch", at, |_| {
                        format!(
                            "ID and name refer to different classes. ID {} points to class {}, name '{text}' points \
                             to class {}.",
                            by_id.id, by_id.key, by_name.key
                        )
                    });
                }
                Ok(None)
            }
            (Some(id), Some(name)) => Ok(id.and(name)),
        }
    }

    fn resolve_id<T: Tree>(&mut self, family: &Family, id: &T, at: &Path<'_>) -> Option<usize> {
        let number = match id.view() {
            View::Int(whole) => i64::try_from(whole).ok(),
            _ => None,
        };
        let Some(number) = number else {
            self.wrong_type(at, "integer_t", id);
            return None;
        };
        let found = family.by_id.get(&number).copied();
        if found.is_none() {
            self.error("id_unknown", at, |_| {
                format!("Unknown \"id\" value; no class is defined for {number}.")
            });
        }
        found
    }

    fn resolve_name<T: Tree>(
        &mut self,
        family: &Family,
        name: &T,
        at: &Path<'_>,
    ) -> Result<Option<usize>, ValidateError> {
        let segment = match name.view() {
            View::Text(name) => last_segment(name),
            View::Null => "nil",
            View::Bool(true) => "true",
            View::Bool(false) => "false",
            _ => return no_verdict(at, "class name that is not text"),
        };
        if segment.len() > MAX_SEGMENT_CHARS && segment.chars().nth(MAX_SEGMENT_CHARS).is_some() {
            return no_verdict(at, "class name above 255 characters");
        }
        let found = family.by_key.get(segment).copied();
        if found.is_none() {
            self.error("name_unknown", at, |_| {
                format!("Unknown \"name\" value; no class is defined for {segment}.")
            });
        }
        Ok(found)
    }
}

/// What follows the last slash, slashes at the end aside.
fn last_segment(name: &str) -> &str {
    let name = name.trim_end_matches('/');
    name.rsplit('/').next().unwrap_or(name)
}

/// The class an item of a list stands for when duplicates are looked for: found by id, else by name.
pub(super) fn duplicate_class<T: Tree>(family: &Family, item: &T) -> Option<usize> {
    let View::Object(fields) = item.view() else {
        return None;
    };
    let by_id = fields.get("id").and_then(|id| match id.view() {
        View::Int(whole) => i64::try_from(whole)
            .ok()
            .and_then(|id| family.by_id.get(&id).copied()),
        _ => None,
    });
    by_id.or_else(|| {
        fields.get("name").and_then(|name| match name.view() {
            View::Text(name) => family.by_key.get(last_segment(name)).copied(),
            _ => None,
        })
    })
}
