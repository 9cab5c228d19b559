//! Cutting a record's labels into announcements that every node of the network takes (p2p-wire §4.1, §4.2).
//!
//! Computes sizes as the JSON of the wire has them, without writing it: the codec lives with the network. Holds no
//! state and drops nothing: a label that fits into no announcement is handed back.

use std::collections::BTreeSet;

use dirnode_record::Label;

/// Most labels of one announcement; readers refuse more.
pub const MAX_LABELS: usize = 100;
/// Largest JSON we send, in bytes. Frames of 10,240 bytes pass and a frame adds up to 137.
pub const MAX_JSON_BYTES: usize = 10_000;
/// Most labels of one record that are announced; what is above is said to be left out.
pub const MAX_RECORD_LABELS: usize = 3_200;

/// `{"cid":"` + 59 + `","labels":[` + `],"timestamp":"` + 35 + `"}`, and 96 bytes for fields of ours.
const OVERHEAD_BYTES: usize = 8 + 59 + 12 + 15 + 35 + 2 + 96;

/// Labels, cut to size.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Chunks {
    /// One list for each announcement, in record order, without repetitions.
    pub chunks: Vec<Vec<Label>>,
    /// Labels that fit into no announcement, or are above [`MAX_RECORD_LABELS`].
    pub left_out: Vec<Label>,
}

/// Bytes of `text` as a JSON string with its quotes, with the escapes that the network's encoder writes.
#[must_use]
pub fn json_bytes(text: &str) -> usize {
    let inner: usize = text
        .chars()
        .map(|c| match c {
            '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' | '\u{7f}' => 6,
            other => other.len_utf8(),
        })
        .sum();
    inner.saturating_add(2)
}

/// Cuts `labels` into announcements.
#[must_use]
pub fn chunks(labels: &[Label]) -> Chunks {
    let mut cut = Chunks::default();
    let mut seen = BTreeSet::new();
    let mut current: Vec<Label> = Vec::new();
    let mut size = OVERHEAD_BYTES;
    for label in labels {
        if !seen.insert(label.as_str()) {
            continue;
        }
        let bytes = json_bytes(label.as_str()) + 1;
        if seen.len() > MAX_RECORD_LABELS || OVERHEAD_BYTES + bytes > MAX_JSON_BYTES {
            cut.left_out.push(label.clone());
            continue;
        }
        if current.len() == MAX_LABELS || size + bytes > MAX_JSON_BYTES {
            cut.chunks.push(std::mem::take(&mut current));
            size = OVERHEAD_BYTES;
        }
        size += bytes;
        current.push(label.clone());
    }
    if !current.is_empty() {
        cut.chunks.push(current);
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;
    use dirnode_record::labels::announcement;
    use dirnode_record::{Namespace, RecordCid};
    use proptest::prelude::*;

    #[test]
    fn more_than_a_hundred_are_split_and_none_is_lost() {
        let labels: Vec<Label> = (0..250)
            .map(|n| Label::new(Namespace::Skills, &n.to_string()))
            .collect();
        let cut = chunks(&labels);
        assert_eq!(
            cut.chunks.iter().map(Vec::len).collect::<Vec<_>>(),
            [100, 100, 50]
        );
        assert_eq!(cut.chunks.concat(), labels);
    }

    #[test]
    fn a_label_too_long_for_any_announcement_is_handed_back() {
        let long = Label::new(Namespace::Skills, &"a".repeat(10_000));
        let short = Label::new(Namespace::Skills, "a");
        let cut = chunks(&[long.clone(), short.clone(), short.clone()]);
        assert_eq!(cut.left_out, [long]);
        assert_eq!(cut.chunks, [vec![short]]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn every_chunk_fits_and_nothing_is_dropped(values in proptest::collection::vec(".{0,400}", 0..300)) {
            let labels: Vec<Label> = values.iter().map(|value| Label::new(Namespace::Domains, value)).collect();
            let cut = chunks(&labels);
            let cid = RecordCid::of(b"{}");
            for chunk in &cut.chunks {
                prop_assert!(!chunk.is_empty() && chunk.len() <= MAX_LABELS);
                // The record room's writer escapes less than the wire's, so it gives a lower bound.
                prop_assert!(announcement(chunk, &cid, "2026-08-21T14:39:57.123456789+02:00").len() <= MAX_JSON_BYTES);
            }
            let told: BTreeSet<&Label> = cut.chunks.iter().flatten().chain(&cut.left_out).collect();
            prop_assert_eq!(told, labels.iter().collect::<BTreeSet<_>>());
        }
    }
}
