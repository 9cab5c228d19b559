//! What the vector tests share: where the files are, how an input is put together, and how a family is counted.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base64::Engine;
use dirnode_record::RecordCid;
use serde_json::Value as Json;

/// The folder of the vectors: the project's own, or another of the same layout.
pub fn folder() -> PathBuf {
    match std::env::var_os("DIRNODE_VECTORS") {
        Some(folder) => folder.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors"),
    }
}

/// The lines of one file, or nothing, said aloud, when the folder has no such file.
pub fn lines(name: &str) -> Vec<String> {
    let path = folder().join(name);
    match std::fs::read_to_string(&path) {
        Ok(text) => text
            .lines()
            .filter(|line| !line.trim().is_empty())
            .map(str::to_owned)
            .collect(),
        Err(error) => {
            println!("vectors: {} skipped: {error}", path.display());
            Vec::new()
        }
    }
}

/// Case ids where this project means to differ, with the reason.
fn exceptions() -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(folder().join("exceptions.txt")).unwrap_or_default();
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('\t'))
        .map(|(id, reason)| (id.to_owned(), reason.to_owned()))
        .collect()
}

/// Counts the cases of one family and fails the test when one was wrong.
pub struct Family {
    name: &'static str,
    exceptions: BTreeMap<String, String>,
    right: usize,
    wrong: Vec<String>,
    excepted: usize,
}

impl Family {
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            exceptions: exceptions(),
            right: 0,
            wrong: Vec::new(),
            excepted: 0,
        }
    }

    pub fn case(&mut self, id: &str, faults: &[String]) {
        if self.exceptions.contains_key(id) {
            self.excepted += 1;
        } else if faults.is_empty() {
            self.right += 1;
        } else {
            self.wrong.push(format!("{id}: {}", faults.join("; ")));
        }
    }

    pub fn finish(self) {
        println!(
            "vectors/{}: right {}, wrong {}, excepted {}",
            self.name,
            self.right,
            self.wrong.len(),
            self.excepted
        );
        assert!(self.wrong.is_empty(), "{}", self.wrong.join("\n"));
    }
}

/// Collects what differs in one case.
#[derive(Default)]
pub struct Faults(pub Vec<String>);

impl Faults {
    pub fn same<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, got: &T, expected: &T) {
        if got != expected {
            let (got, expected) = (cut(&format!("{got:?}")), cut(&format!("{expected:?}")));
            self.0.push(format!("{what} is {got}, expected {expected}"));
        }
    }
}

fn cut(text: &str) -> String {
    text.chars().take(600).collect()
}

pub fn text<'a>(case: &'a Json, key: &str) -> Option<&'a str> {
    case.get(key).and_then(Json::as_str)
}

/// The input of a case, in whichever of the three forms it is given.
pub fn input(case: &Json) -> Vec<u8> {
    if let Some(input) = text(case, "input") {
        return input.as_bytes().to_vec();
    }
    if let Some(input) = text(case, "input_b64") {
        return base64::engine::general_purpose::STANDARD.decode(input).unwrap();
    }
    let mut bytes = String::new();
    for part in case["input_recipe"].as_array().unwrap() {
        if let Some(literal) = part.as_str() {
            bytes.push_str(literal);
        } else if let Some(repeat) = part.get("repeat") {
            bytes.push_str(&repeat[0].as_str().unwrap().repeat(number(&repeat[1])));
        } else {
            let seq = &part["seq"];
            let items = (number(&seq["from"])..number(&seq["to"]))
                .map(|i| seq["format"].as_str().unwrap().replace("{i}", &i.to_string()));
            bytes.push_str(&items.collect::<Vec<_>>().join(seq["sep"].as_str().unwrap()));
        }
    }
    assert_eq!(bytes.len(), number(&case["input_size"]));
    let digest = RecordCid::of(bytes.as_bytes()).digest_hex();
    assert_eq!(
        digest,
        case["input_sha256"]
            .as_str()
            .unwrap()
            .trim_start_matches("sha256:")
    );
    bytes.into_bytes()
}

pub fn number(value: &Json) -> usize {
    usize::try_from(value.as_u64().unwrap()).unwrap()
}

/// Compares canonical bytes and everything that follows from them.
pub fn compare_identity(faults: &mut Faults, case: &Json, canonical: &[u8]) {
    let cid = RecordCid::of(canonical);
    if let Some(expected) = text(case, "canonical") {
        faults.same(
            "canonical",
            &String::from_utf8_lossy(canonical).as_ref(),
            &expected,
        );
    }
    if let Some(size) = case.get("canonical_size") {
        faults.same("canonical_size", &canonical.len(), &number(size));
    }
    for (key, got) in [
        ("sha256", cid.digest_hex()),
        ("digest", cid.oci_digest()),
        ("cid", cid.to_string()),
    ] {
        if let Some(expected) = text(case, key) {
            faults.same(key, &got.as_str(), &expected);
        }
    }
    if let Some(expected) = text(case, "cid") {
        faults.same("parsed cid", &RecordCid::parse(expected), &Some(cid));
    }
}
