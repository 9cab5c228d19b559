//! The tables of one schema version, in the form the rules walk: names resolved to places, regexes compiled, classes
//! found by hash.
//!
//! Built once from the embedded files and never changed. Follows validation §2.

use std::collections::{BTreeMap, HashMap};

use regex::Regex;

use super::load;

/// Everything one version says.
pub(super) struct Schema {
    /// Always `X.Y.0`.
    pub(super) version: String,
    /// The same as numbers.
    pub(super) numbers: (u64, u64, u64),
    pub(super) types: Vec<Type>,
    pub(super) objects: Vec<Object>,
    pub(super) families: Vec<Family>,
    /// Where `record` stands in `objects`.
    pub(super) record: usize,
    /// 0.7 lets two locators have the same type.
    pub(super) unique_locator_types: bool,
    /// From 1.1 a category is not a class to choose.
    pub(super) categories_out_of_scope: bool,
}

pub(super) enum TypeKind {
    Text,
    Bool,
    Integer,
    Long,
    Float,
    Json,
    Map,
    TextMap,
}

pub(super) struct Type {
    pub(super) name: String,
    pub(super) kind: TypeKind,
    /// As findings name it: `datetime_t (string_t)`.
    pub(super) expected: String,
    /// In grapheme clusters, with the super type when the limit is the super type's.
    pub(super) max_len: Option<(usize, Option<String>)>,
    pub(super) regex: Option<Regex>,
    pub(super) range: Option<(f64, f64)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Requirement {
    Required,
    Recommended,
    Optional,
}

#[derive(Clone, Copy)]
pub(super) enum AttrKind {
    /// Place in `types`.
    Scalar(usize),
    /// Place in `objects`.
    Object(usize),
    /// Place in `objects` of the union.
    Union(usize),
    /// Place in `families`.
    Class(usize),
}

pub(super) enum Closed {
    Open,
    Values(Vec<String>),
    /// The id of the class at hand.
    ClassId,
    /// The name of the class at hand.
    ClassName,
}

pub(super) struct Attr {
    pub(super) name: String,
    pub(super) requirement: Requirement,
    pub(super) kind: AttrKind,
    pub(super) is_array: bool,
    pub(super) closed: Closed,
    /// Place in `types` of what a map holds.
    pub(super) value_type: Option<usize>,
    pub(super) deprecated: Option<String>,
}

#[derive(Clone)]
pub(super) struct Rule {
    /// `at_least_one` or `just_one`.
    pub(super) name: &'static str,
    pub(super) attributes: Vec<String>,
}

pub(super) const AT_LEAST_ONE: &str = "at_least_one";
pub(super) const JUST_ONE: &str = "just_one";

pub(super) struct Object {
    pub(super) name: String,
    /// In byte order of their names.
    pub(super) attributes: Vec<Attr>,
    pub(super) rules: Vec<Rule>,
    pub(super) deprecated: Option<String>,
    /// Places of the members, when this is a union.
    pub(super) members: Vec<usize>,
}

pub(super) struct Family {
    /// `skill`, `domain` or `module`.
    pub(super) name: String,
    /// Key of the class that is none.
    pub(super) base: String,
    /// In byte order of their names.
    pub(super) attributes: Vec<Attr>,
    pub(super) rules: Vec<Rule>,
    pub(super) classes: Vec<Class>,
    pub(super) by_id: HashMap<i64, usize>,
    /// Without the categories, which have no name to be found by.
    pub(super) by_key: HashMap<String, usize>,
}

pub(super) struct Class {
    pub(super) id: i64,
    /// Last segment of the name.
    pub(super) key: String,
    /// Full name with its `/` hierarchy.
    pub(super) name: String,
    pub(super) category: bool,
    pub(super) deprecated: Option<String>,
    /// In place of the family's, when the class has some of its own.
    pub(super) attributes: Option<Vec<Attr>>,
}

impl Schema {
    /// Puts the tables together.
    pub(super) fn build(raw: &load::Schema) -> Result<Self, String> {
        let builder = Builder {
            types: raw
                .types
                .keys()
                .enumerate()
                .map(|(place, name)| (name.as_str(), place))
                .collect(),
            objects: raw
                .objects
                .keys()
                .enumerate()
                .map(|(place, name)| (name.as_str(), place))
                .collect(),
            families: raw
                .families
                .keys()
                .enumerate()
                .map(|(place, name)| (name.as_str(), place))
                .collect(),
        };
        let numbers = numbers(&raw.schema_version).ok_or("schema version is not three numbers")?;
        Ok(Self {
            numbers,
            version: raw.schema_version.clone(),
            types: raw
                .types
                .iter()
                .map(|(name, ty)| build_type(name, ty, &raw.types))
                .collect::<Result<_, _>>()?,
            objects: raw
                .objects
                .iter()
                .map(|(name, object)| builder.object(name, object))
                .collect::<Result<_, _>>()?,
            families: raw
                .families
                .iter()
                .map(|(name, family)| builder.family(name, family))
                .collect::<Result<_, _>>()?,
            record: *builder.objects.get("record").ok_or("no object record")?,
            unique_locator_types: numbers >= (0, 8, 0),
            categories_out_of_scope: numbers >= (1, 1, 0),
        })
    }
}

/// The three numbers of `X.Y.Z`.
fn numbers(version: &str) -> Option<(u64, u64, u64)> {
    let mut parts = version.split('.').map(|part| part.parse().ok());
    Some((parts.next()??, parts.next()??, parts.next()??))
}

struct Builder<'a> {
    types: HashMap<&'a str, usize>,
    objects: HashMap<&'a str, usize>,
    families: HashMap<&'a str, usize>,
}

impl Builder<'_> {
    fn object(&self, name: &str, raw: &load::Object) -> Result<Object, String> {
        Ok(Object {
            name: name.to_owned(),
            attributes: self.attributes(&raw.attributes, false)?,
            rules: rules(raw.constraints.as_ref()),
            deprecated: raw.deprecated.as_ref().map(|d| d.message.clone()),
            members: raw
                .enum_of
                .iter()
                .map(|name| place(&self.objects, name))
                .collect::<Result<_, _>>()?,
        })
    }

    fn family(&self, name: &str, raw: &load::Family) -> Result<Family, String> {
        let class = |raw_class: &load::Class| -> Result<Class, String> {
            let attributes = if raw_class.attributes.is_empty() {
                None
            } else {
                let mut merged = raw.attributes.clone();
                merged.extend(raw_class.attributes.clone());
                Some(self.attributes(&merged, true)?)
            };
            Ok(Class {
                id: raw_class.id,
                key: raw_class.key.clone(),
                name: raw_class.name.clone(),
                category: raw_class.category,
                deprecated: raw_class.deprecated.as_ref().map(|d| d.message.clone()),
                attributes,
            })
        };
        let classes: Vec<Class> = raw.classes.iter().map(class).collect::<Result<_, _>>()?;
        Ok(Family {
            name: name.to_owned(),
            base: raw.base.clone(),
            attributes: self.attributes(&raw.attributes, true)?,
            rules: rules(raw.constraints.as_ref()),
            by_id: classes
                .iter()
                .enumerate()
                .map(|(place, class)| (class.id, place))
                .collect(),
            by_key: classes
                .iter()
                .enumerate()
                .filter(|(_, class)| !class.category)
                .map(|(place, class)| (class.key.clone(), place))
                .collect(),
            classes,
        })
    }

    fn attributes(&self, raw: &BTreeMap<String, load::Attr>, of_class: bool) -> Result<Vec<Attr>, String> {
        raw.iter()
            .map(|(name, attr)| {
                let closed = match (&attr.closed, name.as_str()) {
                    (Some(values), _) => Closed::Values(values.clone()),
                    (None, "id") if of_class => Closed::ClassId,
                    (None, "name") if of_class => Closed::ClassName,
                    _ => Closed::Open,
                };
                Ok(Attr {
                    name: name.clone(),
                    requirement: match attr.requirement.as_str() {
                        "required" => Requirement::Required,
                        "recommended" => Requirement::Recommended,
                        "optional" => Requirement::Optional,
                        other => return Err(format!("unknown requirement {other}")),
                    },
                    kind: self.kind(attr)?,
                    is_array: attr.is_array,
                    closed,
                    value_type: attr
                        .value_type
                        .as_ref()
                        .map(|name| place(&self.types, name))
                        .transpose()?,
                    deprecated: attr.deprecated.as_ref().map(|d| d.message.clone()),
                })
            })
            .collect()
    }

    fn kind(&self, attr: &load::Attr) -> Result<AttrKind, String> {
        Ok(match (&attr.object, &attr.family) {
            (Some(object), _) if attr.is_enum => AttrKind::Union(place(&self.objects, object)?),
            (Some(object), _) => AttrKind::Object(place(&self.objects, object)?),
            (None, Some(family)) => AttrKind::Class(place(&self.families, family)?),
            (None, None) => AttrKind::Scalar(place(&self.types, &attr.ty)?),
        })
    }
}

fn place(places: &HashMap<&str, usize>, name: &str) -> Result<usize, String> {
    places
        .get(name)
        .copied()
        .ok_or_else(|| format!("unknown name {name}"))
}

fn rules(raw: Option<&load::Constraints>) -> Vec<Rule> {
    let rule = |name, attributes: &Vec<String>| {
        (!attributes.is_empty()).then(|| Rule {
            name,
            attributes: attributes.clone(),
        })
    };
    raw.map(|raw| {
        [
            rule(AT_LEAST_ONE, &raw.at_least_one),
            rule(JUST_ONE, &raw.just_one),
        ]
    })
    .into_iter()
    .flatten()
    .flatten()
    .collect()
}

fn build_type(name: &str, raw: &load::Type, all: &BTreeMap<String, load::Type>) -> Result<Type, String> {
    let kind = match raw.kind.as_str() {
        "string" => TypeKind::Text,
        "boolean" => TypeKind::Bool,
        "integer" => TypeKind::Integer,
        "long" => TypeKind::Long,
        "float" => TypeKind::Float,
        "json" => TypeKind::Json,
        "map" => TypeKind::Map,
        "string_map" => TypeKind::TextMap,
        other => return Err(format!("unknown kind {other}")),
    };
    let inherited = raw.super_type.as_ref().and_then(|name| {
        all.get(name)
            .and_then(|ty| ty.max_len)
            .map(|max| (max, Some(name.clone())))
    });
    Ok(Type {
        name: name.to_owned(),
        kind,
        expected: match &raw.super_type {
            Some(parent) => format!("{name} ({parent})"),
            None => name.to_owned(),
        },
        max_len: raw.max_len.map(|max| (max, None)).or(inherited),
        regex: raw.regex.as_deref().map(compile).transpose()?,
        range: raw.range,
    })
}

/// Gives the schema's regex the meaning it has at the schema server: classes are ASCII, and a final `$` also matches
/// before one line feed at the very end.
fn compile(regex: &str) -> Result<Regex, String> {
    let source = match regex.strip_suffix('$') {
        Some(rest) => format!(r"{rest}\n?\z"),
        None => regex.to_owned(),
    };
    // `\d` is the one class the tables use that is wider than ASCII in Unicode.
    Regex::new(&source.replace(r"\d", "[0-9]")).map_err(|error| error.to_string())
}
