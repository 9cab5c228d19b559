//! Layers of settings: flags over environment over file, weakly typed, every fault kept.
//!
//! Keys are case-insensitive paths joined by dots. An environment variable that is set but empty counts as set.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde_json::Value;

use super::duration;

/// Prefix of the environment variables that set a key.
pub const ENV_PREFIX: &str = "DIRECTORY_SERVER_";

/// Below this key, names are method names: they hold dots and capitals and are taken verbatim.
const VERBATIM: &str = "ratelimit.method_limits";

/// What is wrong with one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The key's path.
    pub path: String,
    /// Where the value came from.
    pub source: String,
    /// What is wrong with it and what would be right.
    pub problem: String,
}

/// All faults of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults(pub Vec<Fault>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration has {} fault(s):", self.0.len())?;
        for fault in &self.0 {
            write!(
                f,
                "\n - {} (from {}): {}",
                fault.path, fault.source, fault.problem
            )?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

/// The layers, before they are read.
#[derive(Debug, Clone, Default)]
pub struct Layers {
    file: BTreeMap<String, Value>,
    file_name: String,
    env: BTreeMap<String, String>,
    flags: BTreeMap<String, String>,
}

impl Layers {
    /// Adds a YAML file's text.
    ///
    /// # Errors
    /// A sentence with the place, if the text is not a YAML mapping.
    pub fn file(mut self, name: &str, text: &str) -> Result<Self, String> {
        let tree: Value = if text.trim().is_empty() {
            Value::Null
        } else {
            serde_saphyr::from_str(text).map_err(|error| format!("{name} does not parse: {error}"))?
        };
        self.file_name = name.to_owned();
        match tree {
            Value::Null => {}
            Value::Object(_) => flatten("", &tree, &mut self.file),
            _ => return Err(format!("{name} is not a mapping of keys to values")),
        }
        Ok(self)
    }

    /// Adds environment variables; those without the prefix are passed over.
    #[must_use]
    pub fn env(mut self, vars: impl IntoIterator<Item = (String, String)>) -> Self {
        self.env = vars
            .into_iter()
            .filter_map(|(name, value)| Some((name.strip_prefix(ENV_PREFIX)?.to_owned(), value)))
            .collect();
        self
    }

    /// Adds one flag.
    #[must_use]
    pub fn flag(mut self, path: &str, value: Option<String>) -> Self {
        if let Some(value) = value {
            self.flags.insert(path.to_owned(), value);
        }
        self
    }
}

fn flatten(prefix: &str, tree: &Value, into: &mut BTreeMap<String, Value>) {
    match tree {
        Value::Object(members) if !members.is_empty() && !prefix.starts_with(VERBATIM) => {
            for (key, value) in members {
                let path = if prefix.is_empty() {
                    key.to_lowercase()
                } else {
                    format!("{prefix}.{}", key.to_lowercase())
                };
                flatten(&path, value, into);
            }
        }
        _ => {
            into.insert(prefix.to_owned(), tree.clone());
        }
    }
}

/// Reads keys, keeps faults, remembers which keys were asked for.
#[derive(Debug)]
pub struct Reader<'a> {
    layers: &'a Layers,
    asked: BTreeSet<String>,
    faults: Vec<Fault>,
    warnings: Vec<String>,
}

/// One value and where it came from.
pub struct Found {
    /// The value, still weakly typed.
    pub value: Value,
    /// The flag, variable or file.
    pub source: String,
}

impl<'a> Reader<'a> {
    pub fn new(layers: &'a Layers) -> Self {
        Self {
            layers,
            asked: BTreeSet::new(),
            faults: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// The value of a key in the uppermost layer that has it. `null` counts as absent.
    pub fn find(&mut self, path: &str) -> Option<Found> {
        self.asked.insert(path.to_owned());
        if let Some(value) = self.layers.flags.get(path) {
            return Some(Found {
                value: Value::String(value.clone()),
                source: "the command line".to_owned(),
            });
        }
        let name = env_name(path);
        if let Some(value) = self.layers.env.get(&name) {
            return Some(Found {
                value: Value::String(value.clone()),
                source: format!("{ENV_PREFIX}{name}"),
            });
        }
        let value = self.layers.file.get(path).filter(|value| !value.is_null())?;
        Some(Found {
            value: value.clone(),
            source: self.layers.file_name.clone(),
        })
    }

    pub fn fault(&mut self, path: &str, source: &str, problem: String) {
        self.faults.push(Fault {
            path: path.to_owned(),
            source: source.to_owned(),
            problem,
        });
    }

    /// Something that is taken, but not as its writer may think.
    pub fn warn(&mut self, text: &str) {
        self.warnings.push(text.to_owned());
    }

    /// Where the value of a key comes from, for a fault that is found later.
    pub fn source_of(&mut self, path: &str) -> String {
        self.find(path)
            .map_or_else(|| "the default".to_owned(), |found| found.source)
    }

    fn read<T>(&mut self, path: &str, default: T, parse: impl FnOnce(&Value) -> Result<T, String>) -> T {
        let Some(found) = self.find(path) else {
            return default;
        };
        match parse(&found.value) {
            Ok(value) => value,
            Err(problem) => {
                self.fault(path, &found.source, problem);
                default
            }
        }
    }

    pub fn text(&mut self, path: &str, default: &str) -> String {
        self.read(path, default.to_owned(), |value| {
            scalar(value).ok_or_else(|| format!("{value} is not a text"))
        })
    }

    pub fn path(&mut self, path: &str) -> Option<PathBuf> {
        let text = self.text(path, "");
        if text.is_empty() {
            None
        } else {
            Some(PathBuf::from(text))
        }
    }

    pub fn flag(&mut self, path: &str, default: bool) -> bool {
        self.read(path, default, |value| {
            match scalar(value).unwrap_or_default().as_str() {
                "true" | "True" | "TRUE" | "t" | "T" | "1" => Ok(true),
                "false" | "False" | "FALSE" | "f" | "F" | "0" | "" => Ok(false),
                _ => Err(format!("{value} is neither true nor false")),
            }
        })
    }

    pub fn number<T: FromStr>(&mut self, path: &str, default: T, what: &str) -> T {
        self.read(path, default, |value| {
            scalar(value)
                .and_then(|text| text.trim().parse().ok())
                .ok_or_else(|| format!("{value} is not {what}"))
        })
    }

    pub fn duration(&mut self, path: &str, default: Duration) -> Duration {
        self.read(path, default, |value| {
            duration::parse(&scalar(value).unwrap_or_default())
        })
    }

    /// Several texts: a YAML list, or one text with commas between them. Empty ones are passed over.
    pub fn list(&mut self, path: &str, default: &str) -> Vec<String> {
        let split = |text: &str| -> Vec<String> {
            text.split(',')
                .map(str::trim)
                .filter(|part| !part.is_empty())
                .map(str::to_owned)
                .collect()
        };
        self.read(path, split(default), |value| match value {
            Value::Array(items) => items
                .iter()
                .map(|item| scalar(item).ok_or_else(|| format!("{item} in it is not a text")))
                .filter(|item| !matches!(item, Ok(text) if text.trim().is_empty()))
                .map(|item| item.map(|text| text.trim().to_owned()))
                .collect(),
            _ => scalar(value)
                .map(|text| split(&text))
                .ok_or_else(|| format!("{value} is not a list of texts")),
        })
    }

    /// Ends the reading: what was set and not asked for, or every fault. `accepted` are keys, or parents of keys, that
    /// are known and have no effect.
    pub fn finish(self, accepted: &[&str]) -> Result<Remarks, Faults> {
        if !self.faults.is_empty() {
            return Err(Faults(self.faults));
        }
        let below = |path: &str, key: &str, dot: char| {
            path.strip_prefix(key)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(dot))
        };
        let mut remarks = Remarks {
            warnings: self.warnings,
            ..Remarks::default()
        };
        for path in self.layers.file.keys().filter(|path| !self.asked.contains(*path)) {
            let known = accepted.iter().any(|key| below(path, key, '.'));
            let list = if known {
                &mut remarks.without_effect
            } else {
                &mut remarks.unknown
            };
            list.push(path.clone());
        }
        let asked: BTreeSet<String> = self.asked.iter().map(|path| env_name(path)).collect();
        for name in self.layers.env.keys().filter(|name| !asked.contains(*name)) {
            let known = accepted.iter().any(|key| below(name, &env_name(key), '_'));
            let list = if known {
                &mut remarks.without_effect
            } else {
                &mut remarks.unknown
            };
            list.push(format!("{ENV_PREFIX}{name}"));
        }
        Ok(remarks)
    }
}

/// What whoever wrote the configuration should hear.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Remarks {
    /// Nobody knows them; a slip of the pen, most likely.
    pub unknown: Vec<String>,
    /// The reference knows them; this release does nothing with them.
    pub without_effect: Vec<String>,
    /// Sentences about settings that contradict each other and are taken all the same.
    pub warnings: Vec<String>,
}

fn env_name(path: &str) -> String {
    path.to_uppercase().replace(['.', '-'], "_")
}

/// Text, number or truth value as text.
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}
