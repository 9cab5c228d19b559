//! The rules about closed sets: attributes that take only listed values, and unions that take only listed objects.
//!
//! Follows validation §4 (enum check), §6 (unions) and §8.

use std::collections::BTreeMap;

use super::check::{Check, MAX_NAME_CHARS, Owner, Verdict, no_verdict};
use super::path::Path;
use super::report::ValidateError;
use super::schema::{Attr, Closed, Object, Requirement};
use super::view::{Tree, View, scalar_text};

impl Check<'_> {
    /// The first member that fits is the one to check; when none does, nothing else is said about the object. Of
    /// deprecations only the union's own is reported, whether a member fits or not.
    pub(super) fn union<T: Tree>(
        &mut self,
        place: usize,
        fields: &BTreeMap<String, T>,
        at: &Path<'_>,
    ) -> Verdict {
        let schema = self.schema;
        let Some(union) = schema.objects.get(place) else {
            return Ok(());
        };
        self.object_deprecated(union, at);
        for member in &union.members {
            if let Some(object) = schema.objects.get(*member)
                && fits(object, fields, at)?
            {
                return self.members(object, fields, at);
            }
        }
        self.error("enum_object_not_matched", &at.key(&union.name), |path| {
            format!("The object provided for attribute \"{path}\" does not match any of allowed objects.")
        });
        Ok(())
    }

    /// The pass over closed values, which runs whenever the key is there and beside the check of the type.
    pub(super) fn closed<T: Tree>(
        &mut self,
        attr: &Attr,
        owner: Owner<'_>,
        value: &T,
        at: &Path<'_>,
    ) -> Verdict {
        if matches!(attr.closed, Closed::Open) {
            return Ok(());
        }
        if !attr.is_array {
            if !is_closed_value(attr, owner, value, at)? {
                self.error("attribute_enum_value_unknown", at, |path| {
                    let shown = shown(value);
                    let name = &attr.name;
                    format!(
                        "Unknown enum value at \"{path}\"; value {shown} is not defined for enum \"{name}\"."
                    )
                });
            }
            return Ok(());
        }
        match value.view() {
            View::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    if !is_closed_value(attr, owner, item, at)? {
                        self.unknown_element(attr, &shown(item), &at.index(index));
                    }
                }
            }
            // An object is walked as a list of pairs, and no pair is a closed value.
            View::Object(fields) => {
                for (index, (key, item)) in fields.iter().enumerate() {
                    self.unknown_element(attr, &format!("{{\"{key}\", {}}}", shown(item)), &at.index(index));
                }
            }
            _ => return no_verdict(at, "not a list, where a list of closed values is due"),
        }
        Ok(())
    }

    fn unknown_element(&mut self, attr: &Attr, shown: &str, at: &Path<'_>) {
        self.error("attribute_enum_array_value_unknown", at, |path| {
            let name = &attr.name;
            format!(
                "Unknown enum array value at \"{path}\"; value {shown} is not defined for enum \"{name}\"."
            )
        });
    }
}

/// Whether the object has all the keys that `member` requires, no others, and the closed values of `member`.
fn fits<T: Tree>(
    member: &Object,
    fields: &BTreeMap<String, T>,
    at: &Path<'_>,
) -> Result<bool, ValidateError> {
    let required = member
        .attributes
        .iter()
        .filter(|attr| attr.requirement == Requirement::Required);
    let complete = required.into_iter().all(|attr| fields.contains_key(&attr.name));
    let defined = |key: &String| {
        member
            .attributes
            .binary_search_by(|attr| attr.name.cmp(key))
            .is_ok()
    };
    if !complete || !fields.keys().all(defined) {
        return Ok(false);
    }
    for attr in &member.attributes {
        let Closed::Values(values) = &attr.closed else {
            continue;
        };
        let Some(value) = fields.get(&attr.name) else {
            continue;
        };
        match scalar_text(&value.view()) {
            None => {
                return no_verdict(
                    &at.key(&attr.name),
                    "a list or object as the closed value of a union member",
                );
            }
            Some(text) if !values.contains(&text) => return Ok(false),
            Some(_) => {}
        }
    }
    Ok(true)
}

fn is_closed_value<T: Tree>(
    attr: &Attr,
    owner: Owner<'_>,
    value: &T,
    at: &Path<'_>,
) -> Result<bool, ValidateError> {
    let view = value.view();
    if matches!(view, View::Null) {
        return Ok(false);
    }
    if let View::Text(text) = view {
        return is_closed_text(attr, owner, text, at);
    }
    match scalar_text(&view) {
        Some(text) => is_closed_text(attr, owner, &text, at),
        None => Ok(false),
    }
}

fn is_closed_text(attr: &Attr, owner: Owner<'_>, text: &str, at: &Path<'_>) -> Result<bool, ValidateError> {
    if text.len() > MAX_NAME_CHARS && text.chars().nth(MAX_NAME_CHARS).is_some() {
        return no_verdict(at, "closed value above 255 characters");
    }
    Ok(match (&attr.closed, owner) {
        (Closed::Values(values), _) => values.iter().any(|value| value == text),
        (Closed::ClassId, Owner::Class(class)) => text.parse() == Ok(class.id),
        (Closed::ClassName, Owner::Class(class)) => text == class.name,
        _ => true,
    })
}

/// A value as messages about closed values quote it.
fn shown<T: Tree>(value: &T) -> String {
    match value.view() {
        View::Text(text) => format!("\"{text}\""),
        View::List(_) => "a list".to_owned(),
        View::Object(_) => "an object".to_owned(),
        other => scalar_text(&other).unwrap_or_default(),
    }
}
