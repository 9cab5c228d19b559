//! Holds an outcome against what a case expects (`vectors/README.md`).

use std::collections::BTreeMap;

use serde_json::Value as Json;

/// What a call came to, in the words of the vectors.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// Name of the code.
    pub code: String,
    /// The final text.
    pub message: String,
    /// Answers as JSON.
    pub responses: Vec<Json>,
}

/// Values that later cases refer to.
pub type Captured = BTreeMap<String, String>;

const VOLATILE: &str = "<volatile>";

/// Puts captured values in the place of `${name}`, in every text.
#[must_use]
pub fn fill_in(value: &Json, captured: &Captured) -> Json {
    match value {
        Json::String(text) => Json::String(fill_text(text, captured)),
        Json::Array(items) => items.iter().map(|item| fill_in(item, captured)).collect(),
        Json::Object(members) => members
            .iter()
            .map(|(key, value)| (fill_text(key, captured), fill_in(value, captured)))
            .collect(),
        other => other.clone(),
    }
}

fn fill_text(text: &str, captured: &Captured) -> String {
    captured.iter().fold(text.to_owned(), |text, (name, value)| {
        text.replace(&format!("${{{name}}}"), value)
    })
}

/// Takes what a case says shall be remembered out of the answer.
pub fn capture(case: &Json, seen: &Seen, captured: &mut Captured) {
    let Some(wanted) = case["capture"].as_object() else {
        return;
    };
    let whole = serde_json::json!({"responses": seen.responses, "code": seen.code, "message": seen.message});
    for (name, path) in wanted {
        let steps = path.as_array().map(Vec::as_slice).unwrap_or_default();
        let found = steps.iter().try_fold(&whole, |value, step| match step {
            Json::String(key) => value.get(key),
            Json::Number(index) => value.get(usize::try_from(index.as_u64()?).ok()?),
            _ => None,
        });
        match found {
            Some(Json::String(text)) => drop(captured.insert(name.clone(), text.clone())),
            Some(other) => drop(captured.insert(name.clone(), other.to_string())),
            None => {}
        }
    }
}

/// What differs between a case's expectation (or an alternative of the same form) and what was seen.
#[must_use]
pub fn difference(expect: &Json, seen: &Seen, how: &How<'_>, captured: &Captured) -> Option<String> {
    let expect = fill_in(expect, captured);
    let (code, message) = (
        expect["code"].as_str().unwrap_or_default(),
        expect["message"].as_str().unwrap_or_default(),
    );
    if code != seen.code {
        return Some(format!(
            "code is {} ({:?}), expected {code} ({message:?})",
            seen.code, seen.message
        ));
    }
    let fits = match how.message {
        "any" => true,
        "prefix" => seen.message.starts_with(message),
        "contains" => seen.message.contains(message),
        _ => fits_registry(message, &seen.message),
    };
    if !fits {
        return Some(format!(
            "message is {:?}, expected {message:?} ({})",
            seen.message, how.message
        ));
    }
    let nothing = Vec::new();
    let want = expect["responses"].as_array().unwrap_or(&nothing);
    let equal: fn(&Json, &Json) -> bool = if how.responses == "subset" { holds } else { same };
    let fits = match how.responses {
        "ignore" => true,
        "count" => want.len() == seen.responses.len(),
        _ if how.any_order => leftovers(want, &seen.responses, equal).is_some_and(|rest| rest.is_empty()),
        _ => {
            want.len() == seen.responses.len()
                && want
                    .iter()
                    .zip(&seen.responses)
                    .all(|(want, got)| equal(want, got))
        }
    };
    (!fits).then(|| {
        format!(
            "responses are {}, expected {}",
            short(&seen.responses),
            short(want)
        )
    })
}

/// `<registry>` stands for a host name in a message.
fn fits_registry(want: &str, got: &str) -> bool {
    match want.split_once("<registry>") {
        None => want == got,
        Some((before, after)) => got.strip_prefix(before).is_some_and(|rest| rest.ends_with(after)),
    }
}

/// How a case compares.
#[derive(Debug, Clone, Copy)]
pub struct How<'a> {
    /// `message_match`.
    pub message: &'a str,
    /// `responses_match`.
    pub responses: &'a str,
    /// Whether the order of answers is free.
    pub any_order: bool,
}

impl<'a> How<'a> {
    /// As a case says; `message` where it says nothing.
    #[must_use]
    pub fn of(case: &'a Json, message: &'a str) -> Self {
        Self {
            message: case["message_match"].as_str().unwrap_or(message),
            responses: case["responses_match"].as_str().unwrap_or("exact"),
            any_order: case["order"] == "any",
        }
    }
}

/// Equal, volatile values aside; numbers are compared as numbers.
#[must_use]
pub fn same(want: &Json, got: &Json) -> bool {
    match (want, got) {
        (Json::String(text), got) if text == VOLATILE => !got.is_null(),
        (Json::Object(want), Json::Object(got)) => {
            want.len() == got.len()
                && want
                    .iter()
                    .all(|(key, value)| got.get(key).is_some_and(|got| same(value, got)))
        }
        (Json::Array(want), Json::Array(got)) => {
            want.len() == got.len() && want.iter().zip(got).all(|(want, got)| same(want, got))
        }
        (Json::Number(want), Json::Number(got)) => want.as_f64() == got.as_f64(),
        (want, got) => want == got,
    }
}

/// Whether `got` has every key of `want`, with the same value.
#[must_use]
pub fn holds(want: &Json, got: &Json) -> bool {
    match (want, got) {
        (Json::Object(want), Json::Object(got)) => want
            .iter()
            .all(|(key, value)| got.get(key).is_some_and(|got| holds(value, got))),
        (Json::Array(want), Json::Array(got)) => {
            want.len() == got.len() && want.iter().zip(got).all(|(want, got)| holds(want, got))
        }
        (want, got) => same(want, got),
    }
}

/// What `got` has beyond `want`, in any order; `None` when something of `want` is missing.
#[must_use]
pub fn leftovers(want: &[Json], got: &[Json], equal: fn(&Json, &Json) -> bool) -> Option<Vec<Json>> {
    let mut rest = got.to_vec();
    for want in want {
        let at = rest.iter().position(|got| equal(want, got))?;
        rest.remove(at);
    }
    Some(rest)
}

/// A value for a message, not too long.
#[must_use]
pub fn short(values: &[Json]) -> String {
    let text = Json::from(values).to_string();
    if text.chars().count() <= 600 {
        text
    } else {
        text.chars().take(600).chain("...".chars()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn seen(code: &str, message: &str, responses: &[Json]) -> Seen {
        Seen {
            code: code.to_owned(),
            message: message.to_owned(),
            responses: responses.to_vec(),
        }
    }

    fn differs(expect: Json, case: Json, seen: &Seen) -> bool {
        difference(&expect, seen, &How::of(&case, "exact"), &Captured::new()).is_some()
    }

    #[test]
    fn a_wrong_code_message_or_answer_is_a_difference() {
        let got = seen("OK", "text", &[json!({"a": 1.0, "b": []})]);
        let right = json!({"code": "OK", "message": "text", "responses": [{"a": 1, "b": []}]});
        assert!(!differs(right.clone(), json!({}), &got));
        for (key, value) in [
            ("code", json!("INTERNAL")),
            ("message", json!("tex")),
            ("responses", json!([])),
            ("responses", json!([{"a": 1}])),
            ("responses", json!([{"a": 2, "b": []}])),
        ] {
            let mut wrong = right.clone();
            wrong[key] = value;
            assert!(differs(wrong.clone(), json!({}), &got), "{wrong}");
        }
    }

    #[test]
    fn the_ways_to_compare_allow_what_they_say_and_no_more() {
        let got = seen("OK", "one two", &[json!({"a": 1, "b": 2}), json!({"c": "x"})]);
        let expect = |message: &str, responses: Json| json!({"code": "OK", "message": message, "responses": responses});
        let all = json!([{"a": 1, "b": 2}, {"c": "<volatile>"}]);
        for (case, message, responses, right) in [
            (json!({"message_match": "prefix"}), "one", all.clone(), true),
            (json!({"message_match": "prefix"}), "two", all.clone(), false),
            (json!({"message_match": "contains"}), "two", all.clone(), true),
            (json!({"message_match": "any"}), "three", all.clone(), true),
            (json!({}), "one two", json!([{"c": "x"}, {"a": 1, "b": 2}]), false),
            (
                json!({"order": "any"}),
                "one two",
                json!([{"c": "x"}, {"a": 1, "b": 2}]),
                true,
            ),
            (
                json!({"responses_match": "subset"}),
                "one two",
                json!([{"a": 1}, {}]),
                true,
            ),
            (
                json!({"responses_match": "subset"}),
                "one two",
                json!([{"d": 1}, {}]),
                false,
            ),
            (
                json!({"responses_match": "count"}),
                "one two",
                json!([1, 2]),
                true,
            ),
            (json!({"responses_match": "count"}), "one two", json!([1]), false),
            (json!({"responses_match": "ignore"}), "one two", json!([]), true),
        ] {
            assert_eq!(
                !differs(expect(message, responses), case.clone(), &got),
                right,
                "{case} {message}"
            );
        }
    }

    #[test]
    fn captured_values_and_hosts_are_filled_in() {
        let mut captured = Captured::new();
        let got = seen("OK", "at 127.0.0.1:5000/dir:x: gone", &[json!({"id": "seven"})]);
        capture(
            &json!({"capture": {"n": ["responses", 0, "id"]}}),
            &got,
            &mut captured,
        );
        assert_eq!(
            fill_in(&json!({"${n}": ["<${n}>"]}), &captured),
            json!({"seven": ["<seven>"]})
        );
        let expect =
            json!({"code": "OK", "message": "at <registry>/dir:x: gone", "responses": [{"id": "${n}"}]});
        assert_eq!(
            difference(&expect, &got, &How::of(&json!({}), "exact"), &captured),
            None
        );
    }

    #[test]
    fn events_beyond_the_wanted_are_left_over_and_missing_ones_are_told() {
        let (a, b) = (json!({"type": "A"}), json!({"type": "B"}));
        assert_eq!(
            leftovers(std::slice::from_ref(&a), &[b.clone(), a.clone()], same),
            Some(vec![b.clone()])
        );
        assert_eq!(leftovers(&[a.clone(), a.clone()], &[a, b], same), None);
    }
}
