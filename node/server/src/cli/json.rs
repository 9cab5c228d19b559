//! A record as JSON for people: indented, numbers as canonical JSON writes them, everything readable left as it is.

use dirnode_proto::{Struct, Value};
use dirnode_record::canonical::write_number;

/// Room that one level of printing needs at most, and what the stack grows by when there is less.
const RED_ZONE: usize = 64 * 1024;
const STACK_STEP: usize = 1024 * 1024;

/// The record as text.
pub(crate) fn pretty(record: &Struct) -> String {
    let mut out = String::new();
    object(&mut out, &record.fields, 0);
    out
}

/// The record on one line.
pub(crate) fn compact(record: &Struct) -> String {
    // A line break in canonical JSON is always escaped.
    dirnode_record::to_canonical(record)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .unwrap_or_else(|| pretty(record).replace('\n', " "))
}

fn object(out: &mut String, fields: &std::collections::BTreeMap<String, Value>, depth: usize) {
    let items = fields.iter().map(|(key, value)| (Some(key.as_str()), value));
    block(out, items, ['{', '}'], depth);
}

fn value(out: &mut String, value: &Value, depth: usize) {
    match value {
        Value::Unset | Value::Null => out.push_str("null"),
        Value::Bool(flag) => out.push_str(if *flag { "true" } else { "false" }),
        Value::Number(number) => {
            let mut bytes = Vec::new();
            match write_number(&mut bytes, *number) {
                Ok(()) => out.push_str(&String::from_utf8_lossy(&bytes)),
                Err(_) => out.push_str("null"),
            }
        }
        Value::String(text) => string(out, text),
        Value::List(items) => stacker::maybe_grow(RED_ZONE, STACK_STEP, || {
            block(out, items.iter().map(|item| (None, item)), ['[', ']'], depth);
        }),
        Value::Object(fields) => stacker::maybe_grow(RED_ZONE, STACK_STEP, || object(out, fields, depth)),
    }
}

fn block<'a>(
    out: &mut String,
    items: impl Iterator<Item = (Option<&'a str>, &'a Value)>,
    [open, close]: [char; 2],
    depth: usize,
) {
    out.push(open);
    let mut any = false;
    for (key, item) in items {
        if any {
            out.push(',');
        }
        any = true;
        indent(out, depth + 1);
        if let Some(key) = key {
            string(out, key);
            out.push_str(": ");
        }
        value(out, item, depth + 1);
    }
    if any {
        indent(out, depth);
    }
    out.push(close);
}

/// Deep levels are not indented further: nobody reads them, and the spaces would be most of the text.
fn indent(out: &mut String, depth: usize) {
    out.push('\n');
    out.extend(std::iter::repeat_n("  ", depth.min(40)));
}

fn string(out: &mut String, text: &str) {
    out.push_str(&serde_json::Value::from(text).to_string());
}

#[cfg(test)]
mod tests {
    use super::*;
    use dirnode_record::read_struct;

    #[test]
    fn what_is_printed_reads_back_the_same() {
        let text = r#"{"a":[],"b":{},"c":[1,2.5,1e21,-0,null,true],"d":{"<&>":"line\nbreak \u0001 é"}}"#;
        let record = read_struct(text.as_bytes()).unwrap().unwrap();
        for printed in [pretty(&record), compact(&record)] {
            assert_eq!(
                read_struct(printed.as_bytes()).unwrap().unwrap(),
                record,
                "{printed}"
            );
        }
        assert!(pretty(&record).starts_with("{\n  \"a\": [],\n  \"b\": {},\n  \"c\": [\n    1,\n    2.5,"));
    }
}
