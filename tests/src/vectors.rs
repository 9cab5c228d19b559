//! The golden vectors: where they are, the exceptions, and the tally of a family.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dirnode_record::RecordCid;
use serde_json::Value as Json;

/// The folder of the vectors: the project's own, or the one that `DIRNODE_VECTORS` names.
#[must_use]
pub fn folder() -> PathBuf {
    std::env::var_os("DIRNODE_VECTORS").map_or_else(own_folder, PathBuf::from)
}

fn own_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors")
}

/// The cases of one file; `None`, said aloud, when the folder has no such file.
#[must_use]
pub fn cases(name: &str) -> Option<Vec<Json>> {
    let path = folder().join(name);
    match std::fs::read_to_string(&path) {
        Ok(text) => {
            let lines = text.lines().filter(|line| !line.trim().is_empty());
            Some(
                lines
                    .map(|line| serde_json::from_str(line).expect("a case is JSON"))
                    .collect(),
            )
        }
        Err(error) => {
            println!(
                "vectors/{name}: skipped, {} cannot be read: {error}",
                path.display()
            );
            None
        }
    }
}

/// The better answer that is given where the reference slips.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exception {
    /// Why.
    pub reason: String,
    /// The code that is right here, as the vectors write it.
    pub code: String,
    /// Of a search: the ids of the records that are right here, in order.
    pub results: Vec<String>,
}

/// The exceptions by case id. `id/push` and `id/delete` mean that facet of a case alone.
#[must_use]
pub fn exceptions() -> BTreeMap<String, Exception> {
    let path = [folder(), own_folder()]
        .into_iter()
        .map(|folder| folder.join("exceptions.txt"))
        .find(|path| path.exists());
    let text =
        std::fs::read_to_string(path.expect("the exceptions are there")).expect("the exceptions are text");
    let mut found = BTreeMap::new();
    for line in text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.trim().is_empty())
    {
        let mut columns = line.split('\t').map(str::to_owned);
        let (id, reason) = (
            columns.next().unwrap_or_default(),
            columns.next().unwrap_or_default(),
        );
        assert!(
            !id.is_empty() && !reason.is_empty(),
            "an exception needs id and reason: {line}"
        );
        let code = columns.next().unwrap_or_default();
        let results = columns.next().unwrap_or_default();
        let results = results.split_whitespace().map(str::to_owned).collect();
        let exception = Exception {
            reason,
            code,
            results,
        };
        assert!(
            found.insert(id, exception).is_none(),
            "two exceptions for one case: {line}"
        );
    }
    found
}

/// The input of a case, in whichever of the three forms it is given.
#[must_use]
pub fn input(case: &Json) -> Vec<u8> {
    if let Some(input) = case["input"].as_str() {
        return input.as_bytes().to_vec();
    }
    if let Some(input) = case["input_b64"].as_str() {
        return STANDARD.decode(input).expect("base64 decodes");
    }
    let mut text = String::new();
    for part in case["input_recipe"].as_array().expect("a case has an input") {
        if let Some(literal) = part.as_str() {
            text.push_str(literal);
        } else if let Some(repeat) = part.get("repeat") {
            text.push_str(
                &repeat[0]
                    .as_str()
                    .expect("a text to repeat")
                    .repeat(number(&repeat[1])),
            );
        } else {
            let seq = &part["seq"];
            let format = seq["format"].as_str().expect("a sequence has a format");
            let items =
                (number(&seq["from"])..number(&seq["to"])).map(|i| format.replace("{i}", &i.to_string()));
            text.push_str(
                &items
                    .collect::<Vec<_>>()
                    .join(seq["sep"].as_str().expect("a sequence has a separator")),
            );
        }
    }
    assert_eq!(text.len(), number(&case["input_size"]), "{}", case["id"]);
    let digest = case["input_sha256"].as_str().expect("a recipe has a digest");
    assert_eq!(
        RecordCid::of(text.as_bytes()).digest_hex(),
        digest.trim_start_matches("sha256:"),
        "{}",
        case["id"]
    );
    text.into_bytes()
}

fn number(value: &Json) -> usize {
    value
        .as_u64()
        .and_then(|number| usize::try_from(number).ok())
        .expect("a count")
}

/// Counts the cases of one family.
#[derive(Debug, Default)]
pub struct Tally {
    right: usize,
    wrong: Vec<String>,
    excepted: usize,
    not_served: BTreeMap<String, usize>,
}

impl Tally {
    /// One case that ran; `fault` is what differs.
    pub fn ran(&mut self, id: &str, excepted: bool, fault: Option<String>) {
        match fault {
            Some(fault) => self.wrong.push(format!("{id}: {fault}")),
            None if excepted => self.excepted += 1,
            None => self.right += 1,
        }
    }

    /// One case of something that this release does not serve.
    pub fn not_served(&mut self, what: &str) {
        *self.not_served.entry(what.to_owned()).or_default() += 1;
    }

    /// Says the figures, and fails when a case was wrong or an exception was needed by none.
    pub fn finish(self, family: &str) {
        for (what, count) in &self.not_served {
            println!("vectors/{family}: not served yet: {what}: {count}");
        }
        let not_served: usize = self.not_served.values().sum();
        println!(
            "vectors/{family}: right {}, wrong {}, excepted {}, not served {not_served}",
            self.right,
            self.wrong.len(),
            self.excepted
        );
        assert!(
            self.wrong.is_empty(),
            "vectors/{family}: {} wrong\n{}",
            self.wrong.len(),
            self.wrong.join("\n")
        );
        assert!(self.right > 0, "vectors/{family}: no case ran");
    }
}
