//! Reads the fields of the three record models out of a parsed record.
//!
//! Field names match by simple case folding, and every spelling of a field is applied in byte order of its keys: a
//! later scalar replaces, maps are merged, a later list is laid over the earlier one element by element. A known
//! field of the wrong type fails the record, also when nothing reads it. Depth is fixed by the models, so nothing
//! here recurses. Holds no state. Follows grpc-api §2.1.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use dirnode_proto::{Struct, Value};

use crate::facts::{Facts, FactsError, Item, Locator, Model, Module};

type Fields = BTreeMap<String, Value>;
type Read = Result<(), FactsError>;

/// Reads `record` with the types of `model`.
pub(crate) fn record(model: Model, record: &Struct) -> Result<Facts<'_>, FactsError> {
    let mut facts = Facts {
        model,
        name: String::new(),
        version: String::new(),
        description: String::new(),
        schema_version: String::new(),
        authors: None,
        created_at: String::new(),
        previous_record_cid: String::new(),
        annotations: BTreeMap::new(),
        skills: Vec::new(),
        domains: Vec::new(),
        modules: Vec::new(),
        locators: Vec::new(),
    };
    let mut signature = Ignored::default();
    for (key, value) in &record.fields {
        match fold(key).as_ref() {
            "name" => text(&mut facts.name, value, "name")?,
            "version" => text(&mut facts.version, value, "version")?,
            "description" => text(&mut facts.description, value, "description")?,
            "schema_version" => text(&mut facts.schema_version, value, "schema_version")?,
            "created_at" => text(&mut facts.created_at, value, "created_at")?,
            "authors" => texts(&mut facts.authors, value, "authors")?,
            "annotations" => map(&mut facts.annotations, value, "annotations")?,
            "previous_record_cid" if model != Model::C => {
                optional_text(&mut facts.previous_record_cid, value, "previous_record_cid")?;
            }
            "signature" if model == Model::A => signature.signature(value)?,
            "skills" => {
                list(&mut facts.skills, value, "skills", |skill, at| {
                    item(model, skill, at, "skills")
                })?;
            }
            "domains" => {
                list(&mut facts.domains, value, "domains", |domain, at| {
                    item(model, domain, at, "domains")
                })?;
            }
            "modules" => list(&mut facts.modules, value, "modules", |at, fields| {
                module(model, at, fields)
            })?,
            "locators" => list(&mut facts.locators, value, "locators", |at, fields| {
                locator(model, at, fields)
            })?,
            _ => {}
        }
    }
    Ok(facts)
}

fn item(model: Model, item: &mut Item, fields: &Fields, list: &str) -> Read {
    for (key, value) in fields {
        match fold(key).as_ref() {
            "name" => text(&mut item.name, value, (list, "name"))?,
            "id" => id(&mut item.id, value, (list, "id"))?,
            "annotations" if model != Model::B => map(&mut item.annotations, value, (list, "annotations"))?,
            _ => {}
        }
    }
    Ok(())
}

fn module<'a>(model: Model, module: &mut Module<'a>, fields: &'a Fields) -> Read {
    for (key, value) in fields {
        match fold(key).as_ref() {
            "name" => text(&mut module.name, value, "modules.name")?,
            "id" => id(&mut module.id, value, "modules.id")?,
            "annotations" => map(&mut module.annotations, value, "modules.annotations")?,
            "data" => {
                module.data = match value {
                    Value::Null => None,
                    Value::Object(data) => Some(data),
                    other => return Err(wrong("modules.data", other, "an object")),
                }
            }
            "artifact" if model == Model::C => match value {
                Value::Null => module.artifact_media_type.clear(),
                Value::Object(fields) => artifact(&mut module.artifact_media_type, fields)?,
                other => return Err(wrong("modules.artifact", other, "an object")),
            },
            _ => {}
        }
    }
    Ok(())
}

fn artifact(media_type: &mut String, fields: &Fields) -> Read {
    let mut ignored = Ignored::default();
    for (key, value) in fields {
        match fold(key).as_ref() {
            "media_type" => text(media_type, value, "modules.artifact.media_type")?,
            "artifact_type" => text(&mut ignored.text, value, "modules.artifact.artifact_type")?,
            "digest" => text(&mut ignored.text, value, "modules.artifact.digest")?,
            "size" => size(value, "modules.artifact.size")?,
            "urls" => texts(&mut ignored.texts, value, "modules.artifact.urls")?,
            "data" => base64(value, "modules.artifact.data")?,
            _ => {}
        }
    }
    Ok(())
}

fn locator(model: Model, locator: &mut Locator, fields: &Fields) -> Read {
    let mut ignored = Ignored::default();
    // Two spellings of `urls` merge, which needs the whole first list; only its first entry outlives this.
    let mut urls: Option<Vec<String>> =
        (model == Model::C && !locator.url.is_empty()).then(|| vec![std::mem::take(&mut locator.url)]);
    for (key, value) in fields {
        match (fold(key).as_ref(), model) {
            ("type", _) => text(&mut locator.kind, value, "locators.type")?,
            ("annotations", _) => map(&mut locator.annotations, value, "locators.annotations")?,
            ("urls", Model::C) => texts(&mut urls, value, "locators.urls")?,
            ("url", Model::A | Model::B) => text(&mut locator.url, value, "locators.url")?,
            ("size", Model::A | Model::B) => size(value, "locators.size")?,
            ("digest", Model::A | Model::B) => text(&mut ignored.text, value, "locators.digest")?,
            _ => {}
        }
    }
    if model == Model::C {
        locator.url = urls.and_then(|urls| urls.into_iter().next()).unwrap_or_default();
    }
    Ok(())
}

/// Places for fields whose type is checked and whose value nobody reads.
#[derive(Default)]
struct Ignored {
    text: String,
    texts: Option<Vec<String>>,
    map: BTreeMap<String, String>,
}

impl Ignored {
    fn signature(&mut self, value: &Value) -> Read {
        let fields = match value {
            Value::Null => return Ok(()),
            Value::Object(fields) => fields,
            other => return Err(wrong("signature", other, "an object")),
        };
        for (key, value) in fields {
            match fold(key).as_ref() {
                "annotations" => map(&mut self.map, value, "signature.annotations")?,
                name @ ("signed_at" | "algorithm" | "signature" | "certificate" | "content_type"
                | "content_bundle") => text(&mut self.text, value, ("signature", name))?,
                _ => {}
            }
        }
        Ok(())
    }
}

/// The path of a field, put together only when there is something to report.
trait Place: Copy {
    fn path(self) -> String;
}

impl Place for &str {
    fn path(self) -> String {
        self.to_owned()
    }
}

impl Place for (&str, &str) {
    fn path(self) -> String {
        format!("{}.{}", self.0, self.1)
    }
}

fn wrong(at: impl Place, found: &Value, expected: &'static str) -> FactsError {
    let found = match found {
        Value::Unset => "a value without a kind",
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::List(_) => "a list",
        Value::Object(_) => "an object",
    };
    FactsError::FieldType {
        field: at.path(),
        found,
        expected,
    }
}

/// Null leaves a plain text as it was.
fn text(to: &mut String, value: &Value, at: impl Place) -> Read {
    match value {
        Value::Null => {}
        Value::String(text) => to.clone_from(text),
        other => return Err(wrong(at, other, "a string")),
    }
    Ok(())
}

/// Null makes an optional text absent again.
fn optional_text(to: &mut String, value: &Value, at: impl Place) -> Read {
    if matches!(value, Value::Null) {
        to.clear();
    }
    text(to, value, at)
}

fn texts(to: &mut Option<Vec<String>>, value: &Value, at: impl Place) -> Read {
    let items = match value {
        Value::Null => {
            *to = None;
            return Ok(());
        }
        Value::List(items) => items,
        other => return Err(wrong(at, other, "a list of strings")),
    };
    let texts = to.get_or_insert_default();
    texts.resize_with(items.len(), String::new);
    for (to, item) in texts.iter_mut().zip(items) {
        text(to, item, at)?;
    }
    Ok(())
}

fn map(to: &mut BTreeMap<String, String>, value: &Value, at: impl Place) -> Read {
    match value {
        Value::Null => to.clear(),
        Value::Object(fields) => {
            for (key, value) in fields {
                let mut entry = String::new();
                text(&mut entry, value, at)?;
                to.insert(key.clone(), entry);
            }
        }
        other => return Err(wrong(at, other, "a map of strings")),
    }
    Ok(())
}

fn list<'a, T: Default>(
    to: &mut Vec<T>,
    value: &'a Value,
    at: &'static str,
    mut read: impl FnMut(&mut T, &'a Fields) -> Read,
) -> Read {
    let items = match value {
        Value::Null => {
            to.clear();
            return Ok(());
        }
        Value::List(items) => items,
        other => return Err(wrong(at, other, "a list of objects")),
    };
    to.resize_with(items.len(), T::default);
    for (to, item) in to.iter_mut().zip(items) {
        match item {
            Value::Null => *to = T::default(),
            Value::Object(fields) => read(to, fields)?,
            other => return Err(wrong(at, other, "an object")),
        }
    }
    Ok(())
}

/// A class id: a number whose canonical text is plain digits of 32 bits. So 5.0 is one and -0 is not.
fn id(to: &mut u32, value: &Value, at: impl Place) -> Read {
    match value {
        Value::Null => Ok(()),
        Value::Number(number) if is_unsigned(*number, f64::from(u32::MAX)) => {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "integral and within 32 bits, as just checked"
            )]
            let number = *number as u32;
            *to = number;
            Ok(())
        }
        other => Err(wrong(at, other, "an unsigned 32 bit integer")),
    }
}

/// The largest double whose canonical text still fits 64 bits: the step below 2^64.
const LAST_U64: f64 = 18_446_744_073_709_549_568.0;

fn size(value: &Value, at: impl Place) -> Read {
    match value {
        Value::Null => Ok(()),
        Value::Number(number) if is_unsigned(*number, LAST_U64) => Ok(()),
        other => Err(wrong(at, other, "an unsigned 64 bit integer")),
    }
}

fn is_unsigned(number: f64, last: f64) -> bool {
    number.is_sign_positive() && number <= last && number.fract() == 0.0
}

/// Padded standard base64; line breaks are skipped and left-over bits are not looked at.
fn base64(value: &Value, at: impl Place) -> Read {
    let text = match value {
        Value::Null => return Ok(()),
        Value::String(text) => text,
        other => return Err(wrong(at, other, "base64 text")),
    };
    let lenient = base64::engine::GeneralPurpose::new(
        &base64::alphabet::STANDARD,
        base64::engine::GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
    );
    let good = if text.contains(['\r', '\n']) {
        lenient.decode(text.replace(['\r', '\n'], "")).is_ok()
    } else {
        STANDARD.decode(text).is_ok() || lenient.decode(text).is_ok()
    };
    if good {
        Ok(())
    } else {
        Err(wrong(at, value, "padded standard base64"))
    }
}

/// No field name is longer, so longer keys need no folding.
const LONGEST_FIELD: usize = 24;

/// A key in the form in which field names are compared. The two letters outside ASCII that fold into it are the
/// long s and the Kelvin sign.
fn fold(key: &str) -> Cow<'_, str> {
    if key.len() > 3 * LONGEST_FIELD {
        return Cow::Borrowed("");
    }
    if key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') {
        return Cow::Borrowed(key);
    }
    Cow::Owned(
        key.chars()
            .map(|c| match c {
                '\u{17f}' => 's',
                '\u{212a}' => 'k',
                other => other.to_ascii_lowercase(),
            })
            .collect(),
    )
}
