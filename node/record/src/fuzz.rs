//! The readers of this room as plain functions of bytes, for the fuzzer and for the test that replays its seeds.
//!
//! Each asserts what must hold for any input; none is used by the node.

use crate::{Facts, RecordCid, Referrer, Validator, decode_any, read_struct, to_canonical};

/// CID texts: the two readers agree on what a record's CID is.
pub fn cid_text(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let any = decode_any(text);
    if let Some(cid) = RecordCid::parse(text) {
        assert!(cid.to_string() == text, "a parsed cid has one spelling");
        assert!(
            any.is_ok_and(|any| any.to_record_cid() == Ok(cid)),
            "the lenient reader knows every canonical cid"
        );
    }
}

/// Record texts: canonical bytes read back to themselves, and the typed view exists or says why not.
pub fn record_text(data: &[u8]) {
    let Ok(Some(record)) = read_struct(data) else {
        return;
    };
    let canonical = to_canonical(&record);
    assert!(
        canonical.is_ok(),
        "whatever was read from text has canonical bytes"
    );
    let Ok(canonical) = canonical else { return };
    let again = read_struct(&canonical)
        .ok()
        .flatten()
        .and_then(|again| to_canonical(&again).ok());
    assert!(
        again.as_ref() == Some(&canonical),
        "canonical bytes are their own canonical form"
    );
    if let Ok(facts) = Facts::read(&record) {
        let labels = facts.labels();
        for label in crate::labels::list_labels(&labels) {
            assert!(
                label.cleaned().as_ref() == Some(&label),
                "a listed label is clean"
            );
        }
    }
}

/// Referrer documents: what parses has canonical bytes that parse to the same.
pub fn referrer(data: &[u8]) {
    let Ok(referrer) = Referrer::parse(data) else {
        return;
    };
    let canonical = referrer.to_canonical();
    assert!(
        canonical.is_ok(),
        "whatever was read from text has canonical bytes"
    );
    let Ok(canonical) = canonical else { return };
    let again = Referrer::parse(&canonical)
        .ok()
        .and_then(|again| again.to_canonical().ok());
    assert!(again == Some(canonical), "a referrer is stored as it is read");
}

/// The validator: any text gets an answer, and an invalid one has a reason.
pub fn validate_text(data: &[u8]) {
    for version in [None, Some("0.7.0"), Some("0.8.0"), Some("1.0.0"), Some("1.1.0")] {
        if let Ok(report) = Validator::builtin().validate_text(data, version) {
            assert!(
                report.is_valid() || !report.entries().is_empty(),
                "an invalid record comes with a reason"
            );
        }
    }
    if let Ok(Some(record)) = read_struct(data) {
        // No text holds a number or value that could not be sent on.
        assert!(
            !matches!(
                Validator::builtin().validate_own(&record),
                Err(crate::ValidateError::NotJson(_))
            ),
            "a record from text has a json form"
        );
    }
}
