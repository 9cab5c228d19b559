//! Layers of settings: flags over environment over file, weakly typed as in the reference, every fault kept.
//!
//! Keys are paths joined by dots, without regard to case. A variable that is set but empty counts as set. Follows
//! operations §1.1. Never reads a file or the environment itself: both are handed in.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use serde_json::Value;

/// Prefix of the environment variables that set a key.
pub const ENV_PREFIX: &str = "DIRECTORY_SERVER_";

/// Largest configuration file that is read, in bytes.
pub const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// What is wrong with one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The key's path.
    pub path: String,
    /// Where the value came from: a flag, a variable, a file or the default.
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
    flags: BTreeMap<String, Value>,
}

impl Layers {
    /// Adds a YAML file's text.
    ///
    /// # Errors
    /// A sentence with the place, if the text is not a YAML mapping.
    pub fn file(mut self, name: &str, text: &str) -> Result<Self, String> {
        name.clone_into(&mut self.file_name);
        if text.trim().is_empty() {
            return Ok(self);
        }
        let tree: Value =
            serde_saphyr::from_str(text).map_err(|error| format!("{name} does not parse: {error}"))?;
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

    /// Adds a flag of one value, if it was given.
    #[must_use]
    pub fn flag(mut self, path: &str, value: Option<String>) -> Self {
        if let Some(value) = value {
            self.flags.insert(path.to_owned(), Value::String(value));
        }
        self
    }

    /// Adds a flag that may be given several times, if it was given at all.
    #[must_use]
    pub fn flags(mut self, path: &str, values: Vec<String>) -> Self {
        if !values.is_empty() {
            let values = values.into_iter().map(Value::String).collect();
            self.flags.insert(path.to_owned(), Value::Array(values));
        }
        self
    }
}

fn flatten(prefix: &str, tree: &Value, into: &mut BTreeMap<String, Value>) {
    match tree {
        Value::Object(members) if !members.is_empty() => {
            for (key, value) in members {
                let key = key.to_lowercase();
                let path = if prefix.is_empty() {
                    key
                } else {
                    format!("{prefix}.{key}")
                };
                flatten(&path, value, into);
            }
        }
        _ => {
            into.insert(prefix.to_owned(), tree.clone());
        }
    }
}

/// One value and where it came from.
#[derive(Debug, Clone)]
pub struct Found {
    /// The value, still weakly typed.
    pub value: Value,
    /// The flag, variable or file.
    pub source: String,
}

/// Reads keys, keeps faults, remembers which keys were asked for.
#[derive(Debug)]
pub struct Reader<'a> {
    layers: &'a Layers,
    asked: BTreeSet<String>,
    faults: Vec<Fault>,
}

impl<'a> Reader<'a> {
    /// A reader that has asked for nothing yet.
    #[must_use]
    pub fn new(layers: &'a Layers) -> Self {
        Self {
            layers,
            asked: BTreeSet::new(),
            faults: Vec::new(),
        }
    }

    /// The value of a key in the uppermost layer that has it. `null` counts as absent.
    pub fn find(&mut self, path: &str) -> Option<Found> {
        self.asked.insert(path.to_owned());
        if let Some(value) = self.layers.flags.get(path) {
            return Some(Found {
                value: value.clone(),
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

    /// Files a fault of `path`, whose value came from where it was found.
    pub fn fault(&mut self, path: &str, problem: String) {
        let source = self
            .find(path)
            .map_or_else(|| "the default".to_owned(), |found| found.source);
        self.faults.push(Fault {
            path: path.to_owned(),
            source,
            problem,
        });
    }

    /// The value as `parse` understands it; the default when it is absent or faulty.
    pub fn read<T>(&mut self, path: &str, default: T, parse: impl FnOnce(&Value) -> Result<T, String>) -> T {
        let Some(found) = self.find(path) else {
            return default;
        };
        match parse(&found.value) {
            Ok(value) => value,
            Err(problem) => {
                self.fault(path, problem);
                default
            }
        }
    }

    /// A text; numbers and truth values count as their text.
    pub fn text(&mut self, path: &str, default: &str) -> String {
        self.read(path, default.to_owned(), |value| {
            scalar(value).ok_or_else(|| format!("{value} is not a text"))
        })
    }

    /// A truth value, in the spellings that Go takes. An empty text is false.
    pub fn flag(&mut self, path: &str, default: bool) -> bool {
        self.read(path, default, |value| {
            match scalar(value).unwrap_or_else(|| value.to_string()).as_str() {
                "true" | "True" | "TRUE" | "t" | "T" | "1" => Ok(true),
                "false" | "False" | "FALSE" | "f" | "F" | "0" | "" => Ok(false),
                _ => Err(format!("{value} is neither true nor false")),
            }
        })
    }

    /// A whole number.
    pub fn number<T: std::str::FromStr>(&mut self, path: &str, default: T) -> T {
        self.read(path, default, |value| {
            scalar(value)
                .and_then(|text| text.trim().parse().ok())
                .ok_or_else(|| format!("{value} is not a number that fits here"))
        })
    }

    /// A duration as Go writes it; zero means the default.
    pub fn duration(&mut self, path: &str, default: Duration) -> Duration {
        let found = self.read(path, Duration::ZERO, |value| {
            duration(&scalar(value).unwrap_or_default())
        });
        if found.is_zero() { default } else { found }
    }

    /// A list; a text is split at commas. Each entry is parsed, each faulty one is named.
    pub fn list<T>(
        &mut self,
        path: &str,
        default: Vec<T>,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        let Some(found) = self.find(path) else {
            return default;
        };
        let texts: Vec<String> = match &found.value {
            Value::Array(entries) => entries
                .iter()
                .map(|entry| scalar(entry).unwrap_or_else(|| entry.to_string()))
                .collect(),
            value => scalar(value)
                .unwrap_or_else(|| value.to_string())
                .split(',')
                .map(|entry| entry.trim().to_owned())
                .collect(),
        };
        let mut list = Vec::new();
        for (index, text) in texts.iter().enumerate().filter(|(_, text)| !text.is_empty()) {
            match parse(text) {
                Ok(entry) => list.push(entry),
                Err(problem) => self.fault(path, format!("entry {index}, {text:?}: {problem}")),
            }
        }
        list
    }

    /// Ends the reading: what was set and not asked for, or every fault. `accepted` are keys, or parents of keys, that
    /// are known elsewhere and have no effect here.
    ///
    /// # Errors
    /// Every fault, together.
    pub fn finish(self, accepted: &[&str]) -> Result<Remarks, Faults> {
        if !self.faults.is_empty() {
            return Err(Faults(self.faults));
        }
        let below = |path: &str, key: &str, mark: char| {
            path.strip_prefix(key)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(mark))
        };
        let mut remarks = Remarks::default();
        for path in self.layers.file.keys().filter(|path| !self.asked.contains(*path)) {
            let known = accepted.iter().any(|key| below(path, key, '.'));
            remarks.file(known, path.clone());
        }
        let asked: BTreeSet<String> = self.asked.iter().map(|path| env_name(path)).collect();
        for name in self.layers.env.keys().filter(|name| !asked.contains(*name)) {
            let known = accepted.iter().any(|key| below(name, &env_name(key), '_'));
            remarks.file(known, format!("{ENV_PREFIX}{name}"));
        }
        Ok(remarks)
    }
}

/// Keys that were set and change nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Remarks {
    /// Nobody knows them; a slip of the pen, most likely.
    pub unknown: Vec<String>,
    /// A full node knows them; this program has no use for them.
    pub without_effect: Vec<String>,
}

impl Remarks {
    fn file(&mut self, known: bool, name: String) {
        if known {
            self.without_effect.push(name);
        } else {
            self.unknown.push(name);
        }
    }
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

/// Reads `1h30m`, `250ms`, `1.5s`; a bare integer is nanoseconds, as in Go.
fn duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let problem = || format!("{text:?} is no duration; write it like 30s, 5m or 1h30m");
    if let Ok(nanos) = text.parse::<u64>() {
        return Ok(Duration::from_nanos(nanos));
    }
    let mut rest = text;
    let mut total = 0.0_f64;
    while !rest.is_empty() {
        let is_number = |c: char| c.is_ascii_digit() || c == '.';
        let (number, tail) = rest.split_at(rest.find(|c| !is_number(c)).ok_or_else(problem)?);
        let (unit, next) = tail.split_at(tail.find(is_number).unwrap_or(tail.len()));
        let scale = match unit {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(problem()),
        };
        total += number.parse::<f64>().map_err(|_| problem())? * scale;
        rest = next;
    }
    // An empty text is a variable that was blanked; it means the default, like zero.
    Duration::try_from_secs_f64(total).map_err(|_| problem())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layers(yaml: &str, env: &[(&str, &str)]) -> Layers {
        let env = env
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Layers::default().file("test.yml", yaml).unwrap().env(env)
    }

    #[test]
    fn flags_win_over_variables_and_these_over_the_file() {
        let layers = layers(
            "A: {b: file, c: file, d: file}",
            &[
                ("DIRECTORY_SERVER_A_B", "variable"),
                ("DIRECTORY_SERVER_A_C", "variable"),
            ],
        )
        .flag("a.b", Some("flag".to_owned()));
        let mut reader = Reader::new(&layers);
        let texts = ["a.b", "a.c", "a.d", "a.e"].map(|path| reader.text(path, "default"));
        assert_eq!(texts, ["flag", "variable", "file", "default"]);
    }

    #[test]
    fn durations_are_read_as_go_writes_them() {
        for (text, millis) in [
            ("1h30m", 5_400_000),
            ("250ms", 250),
            ("1.5s", 1500),
            ("1000000", 1),
            ("", 0),
        ] {
            assert_eq!(
                duration(text).map(|found| found.as_millis()),
                Ok(millis),
                "{text}"
            );
        }
        for text in ["x", "5 minutes", "-3s", "s", "1d", "1e400h"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn lists_come_as_lists_or_with_commas() {
        let layers = layers(
            "a: [one, two]\nb: 'one, two'",
            &[("DIRECTORY_SERVER_C", "one,two"), ("DIRECTORY_SERVER_D", "")],
        );
        let mut reader = Reader::new(&layers);
        for path in ["a", "b", "c"] {
            let list = reader.list(path, Vec::new(), |text| Ok(text.to_owned()));
            assert_eq!(list, ["one", "two"], "{path}");
        }
        let blanked = reader.list("d", vec!["default".to_owned()], |text| Ok(text.to_owned()));
        assert!(blanked.is_empty(), "an empty variable blanks the value");
    }

    #[test]
    fn keys_that_nobody_asked_for_are_sorted_by_who_knows_them() {
        let layers = layers(
            "authn: {mode: x509}\nlisten_adress: x",
            &[("DIRECTORY_SERVER_AUTHZ_ENABLED", "true")],
        );
        let remarks = Reader::new(&layers).finish(&["authn", "authz"]).unwrap();
        assert_eq!(remarks.unknown, ["listen_adress"]);
        assert_eq!(
            remarks.without_effect,
            ["authn.mode", "DIRECTORY_SERVER_AUTHZ_ENABLED"]
        );
    }
}
