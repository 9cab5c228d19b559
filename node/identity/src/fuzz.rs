//! The readers of this room as plain functions of bytes, for the fuzzer and for tests; none is used by the node.

/// Key files: what is read writes down as a file that reads back to the same key.
pub fn key_file(data: &[u8]) {
    let Ok(key) = crate::from_bytes(data) else {
        return;
    };
    let again = crate::to_pem(&key).map(|text| crate::from_bytes(text.as_bytes()));
    assert!(
        again.is_ok_and(|again| again.is_ok_and(|again| again.public() == key.public())),
        "a key that was read can be written and read again"
    );
}
