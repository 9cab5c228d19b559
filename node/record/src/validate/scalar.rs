//! The rules for single values: types, lengths, ranges and regexes. Follows validation §4.

use unicode_segmentation::UnicodeSegmentation;

use super::check::Check;
use super::path::Path;
use super::schema::{Type, TypeKind};
use super::view::{Tree, View};

impl Check<'_> {
    /// `place` is that of the type, `value_type` that of what a map holds.
    pub(super) fn scalar<T: Tree>(
        &mut self,
        place: usize,
        value_type: Option<usize>,
        value: &T,
        at: &Path<'_>,
    ) {
        let schema = self.schema;
        let Some(ty) = schema.types.get(place) else { return };
        match (&ty.kind, value.view()) {
            (TypeKind::Text, View::Text(text)) => self.text(ty, text, at),
            (TypeKind::Float, View::Float(number)) => self.float(ty, number, at),
            (TypeKind::Integer, View::Int(whole)) if i64::try_from(whole).is_ok() => {}
            (TypeKind::Bool, View::Bool(_)) | (TypeKind::Long, View::Int(_)) | (TypeKind::Json, _) => {}
            (TypeKind::Map, View::Object(fields)) => {
                if let Some(value_type) = value_type {
                    for (key, value) in fields {
                        // A map of maps does not occur in the tables, so this goes one level down at most.
                        self.scalar(value_type, None, value, &at.key(key));
                    }
                }
            }
            (TypeKind::TextMap, View::Object(fields)) => {
                if !fields.values().all(|value| matches!(value.view(), View::Text(_))) {
                    self.error("non_string_key_or_value", at, |path| {
                        format!("Attribute \"{path}\" contains non-string keys or values.")
                    });
                }
            }
            _ => self.wrong_type(at, &ty.expected, value),
        }
    }

    fn text(&mut self, ty: &Type, text: &str, at: &Path<'_>) {
        if let Some((max, parent)) = &ty.max_len
            // Every grapheme cluster has a byte, so most texts need no counting.
            && text.len() > *max
        {
            let length = text.graphemes(true).count();
            if length > *max {
                match parent {
                    None => self.error("attribute_value_exceeds_max_len", at, |path| {
                        format!(
                            "Attribute \"{path}\" value length of {length} exceeds type \"{}\" max length {max}.",
                            ty.name
                        )
                    }),
                    Some(parent) => self.error("attribute_value_exceeds_super_type_max_len", at, |path| {
                        format!(
                            "Attribute \"{path}\", type \"{}\", value length {length} exceeds super type \
                             \"{parent}\" max length {max}.",
                            ty.name
                        )
                    }),
                }
            }
        }
        if let Some(regex) = &ty.regex
            && !regex.is_match(text)
        {
            self.warning("attribute_value_regex_not_matched", at, |path| {
                format!(
                    "Attribute \"{path}\" value does not match regex of type \"{}\".",
                    ty.name
                )
            });
        }
    }

    fn float(&mut self, ty: &Type, number: f64, at: &Path<'_>) {
        if let Some((low, high)) = ty.range
            && !(low..=high).contains(&number)
        {
            self.error("attribute_value_exceeds_range", at, |path| {
                format!(
                    "Attribute \"{path}\" value is outside type \"{}\" range of {low} to {high}.",
                    ty.name
                )
            });
        }
    }
}
