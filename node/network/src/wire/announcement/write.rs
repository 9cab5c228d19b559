//! The bytes of announcements that this node makes.

use dirnode_record::{Label, RecordCid};

use super::super::json::put_text;
use super::super::timestamp::Timestamp;
use super::{EXTENSION_VERSION, MAX_LABELS, MAX_PAYLOAD_BYTES, MAX_WRITTEN_BYTES};

/// Why the reference would not announce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotAnnounced {
    /// No CID.
    #[error("cid is missing")]
    NoCid,
    /// No labels.
    #[error("labels are missing")]
    NoLabels,
    /// More labels than one message may have.
    #[error("{count} labels are more than {MAX_LABELS}")]
    TooManyLabels {
        /// How many.
        count: usize,
    },
    /// Larger than a payload may be.
    #[error("payload is {size_bytes} bytes, limit is {MAX_PAYLOAD_BYTES}")]
    TooLarge {
        /// Its size.
        size_bytes: usize,
    },
}

/// The bytes that the reference would write, or why it would not. Labels may hold any bytes.
///
/// # Errors
/// [`NotAnnounced`].
pub fn encode_reference<L: AsRef<[u8]>>(
    cid: &str,
    labels: &[L],
    timestamp: Timestamp,
) -> Result<Vec<u8>, NotAnnounced> {
    if cid.is_empty() {
        return Err(NotAnnounced::NoCid);
    }
    if labels.is_empty() {
        return Err(NotAnnounced::NoLabels);
    }
    if labels.len() > MAX_LABELS {
        return Err(NotAnnounced::TooManyLabels { count: labels.len() });
    }
    let bytes = encode(cid, labels, timestamp, None);
    if bytes.len() > MAX_PAYLOAD_BYTES {
        return Err(NotAnnounced::TooLarge {
            size_bytes: bytes.len(),
        });
    }
    Ok(bytes)
}

/// The bytes of a withdrawal. `sequence` beyond 2^53-1 is written as that.
#[must_use]
pub fn encode_withdrawal(cid: &RecordCid, timestamp: Timestamp, sequence: u64) -> Vec<u8> {
    let sequence = sequence.min((1 << 53) - 1);
    let extension = format!("{{\"v\":{EXTENSION_VERSION},\"withdraw\":true,\"seq\":{sequence}}}");
    encode::<&str>(&cid.to_string(), &[], timestamp, Some(&extension))
}

/// An announcement in as many messages as it takes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Split {
    /// The messages, in order. One alone is what the reference would write; none when there is no label to announce.
    pub messages: Vec<Vec<u8>>,
    /// Labels that no message can hold, because one alone is larger than a message.
    pub left_out: Vec<Label>,
}

/// The messages that announce `labels` of `cid`: all in one if they fit, else in parts of at most [`MAX_LABELS`] labels
/// and [`MAX_WRITTEN_BYTES`] bytes.
#[must_use]
pub fn split(cid: &RecordCid, labels: &[Label], timestamp: Timestamp) -> Split {
    let cid = cid.to_string();
    // What stands around the labels in the longest of the parts.
    let longest_extension = part_extension(usize::MAX, usize::MAX);
    let around =
        encode::<&str>(&cid, &[], timestamp.later_by(1), Some(&longest_extension)).len() + "123456789".len();
    let room = MAX_WRITTEN_BYTES.saturating_sub(around);

    let mut split = Split::default();
    let mut parts: Vec<Vec<&Label>> = Vec::new();
    let mut used = 0usize;
    for label in labels {
        let mut text = Vec::new();
        put_text(&mut text, label.as_str().as_bytes());
        // A comma goes with all but the first.
        let size = text.len().saturating_add(1);
        if size > room {
            split.left_out.push(label.clone());
            continue;
        }
        match parts.last_mut() {
            Some(part) if part.len() < MAX_LABELS && used.saturating_add(size) <= room => {
                part.push(label);
                used = used.saturating_add(size);
            }
            _ => {
                parts.push(vec![label]);
                used = size;
            }
        }
    }
    let count = parts.len();
    for (index, part) in parts.iter().enumerate() {
        let texts: Vec<&str> = part.iter().map(|label| label.as_str()).collect();
        let extension = (count > 1).then(|| part_extension(index, count));
        let moment = timestamp.later_by(u32::try_from(index).unwrap_or_default());
        split
            .messages
            .push(encode(&cid, &texts, moment, extension.as_deref()));
    }
    split
}

fn part_extension(index: usize, count: usize) -> String {
    format!("{{\"v\":{EXTENSION_VERSION},\"part\":{index},\"parts\":{count}}}")
}

fn encode<L: AsRef<[u8]>>(cid: &str, labels: &[L], timestamp: Timestamp, extension: Option<&str>) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(b"{\"cid\":");
    put_text(&mut out, cid.as_bytes());
    out.extend_from_slice(b",\"labels\":[");
    for (place, label) in labels.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        put_text(&mut out, label.as_ref());
    }
    out.extend_from_slice(format!("],\"timestamp\":\"{timestamp}\"").as_bytes());
    if let Some(extension) = extension {
        out.extend_from_slice(b",\"dirnode\":");
        out.extend_from_slice(extension.as_bytes());
    }
    out.push(b'}');
    out
}

#[cfg(test)]
mod tests {
    use super::super::{AdmitError, Announcement, Dropped, Part, Payload, PayloadError};
    use super::*;
    use dirnode_record::Namespace;
    use proptest::prelude::*;

    fn cid() -> RecordCid {
        RecordCid::of(b"{}")
    }

    fn moment() -> Timestamp {
        Timestamp::parse(b"2026-03-04T05:06:07.123456789Z").unwrap()
    }

    fn claim(labels: &str) -> Vec<u8> {
        format!(
            "{{\"cid\":\"{}\",\"labels\":{labels},\"timestamp\":\"2026-03-04T05:06:07Z\"}}",
            cid()
        )
        .into_bytes()
    }

    #[test]
    fn a_withdrawal_has_these_bytes() {
        let bytes = encode_withdrawal(&cid(), moment(), 7);
        assert_eq!(
            String::from_utf8(bytes.clone()).unwrap(),
            "{\"cid\":\"baeareicecnx2gvntm6fbcrvnc336qze6st5u7qq7457igegamd3bzkx7ri\",\"labels\":[],\
             \"timestamp\":\"2026-03-04T05:06:07.123456789Z\",\"dirnode\":{\"v\":1,\"withdraw\":true,\"seq\":7}}"
        );
        assert_eq!(
            Announcement::admit(&bytes).unwrap().announcement,
            Announcement::Withdrawal {
                cid: cid(),
                timestamp: moment(),
                sequence: 7
            }
        );
        // Nodes that do not know the extension keep nothing of it.
        assert_eq!(
            Payload::read(&bytes).unwrap().check(),
            Err(PayloadError::NoLabels)
        );
    }

    #[test]
    fn other_versions_of_the_extension_are_as_if_absent() {
        let text = String::from_utf8(encode_withdrawal(&cid(), moment(), 7)).unwrap();
        let newer = text.replace("\"v\":1", "\"v\":2");
        assert_eq!(
            Announcement::admit(newer.as_bytes()),
            Err(AdmitError::Payload(PayloadError::NoLabels))
        );
    }

    #[test]
    fn a_malformed_extension_is_refused_by_us_alone() {
        let text = String::from_utf8(claim("[\"/skills/a\"]")).unwrap();
        for extension in [
            "5",
            "{\"v\":1,\"withdraw\":true}",
            "{\"v\":1,\"seq\":1}",
            "{\"v\":1,\"part\":2,\"parts\":2}",
            "{\"v\":1,\"part\":0}",
            "{\"v\":1,\"withdraw\":1,\"seq\":1}",
            "{\"v\":1,\"withdraw\":true,\"seq\":9007199254740992}",
        ] {
            let bytes = text.replace("Z\"}", &format!("Z\",\"dirnode\":{extension}}}"));
            assert!(
                Payload::read(bytes.as_bytes()).unwrap().check().is_ok(),
                "{extension}"
            );
            assert!(Announcement::admit(bytes.as_bytes()).is_err(), "{extension}");
        }
        let withdrawn = text.replace("Z\"}", "Z\",\"dirnode\":{\"v\":1,\"withdraw\":true,\"seq\":1}}");
        assert_eq!(
            Announcement::admit(withdrawn.as_bytes()),
            Err(AdmitError::WithdrawalWithLabels { count: 1 })
        );
    }

    #[test]
    fn labels_are_cleaned_or_left_out() {
        let admitted = Announcement::admit(&claim(
            "[\"/skills/a//b/\",\"/skills/a/b\",\"/other/x\",\"/skills/\",\"/skills/../domains/x\",\"skills/a\",\
             \"/domains/a\\tb\"]",
        ))
        .unwrap();
        let Announcement::Claim { labels, .. } = admitted.announcement else {
            panic!("a claim");
        };
        assert_eq!(labels, [Label::new(Namespace::Skills, "a/b")]);
        assert_eq!(
            admitted.dropped,
            [
                Dropped::Namespace,
                Dropped::NoValue,
                Dropped::PathStep,
                Dropped::Namespace,
                Dropped::Control
            ]
        );
        assert!(matches!(
            Announcement::admit(&claim("[\"/other/x\"]")),
            Err(AdmitError::NothingLeft { count: 1, .. })
        ));
    }

    #[test]
    fn a_null_in_a_second_list_leaves_what_stood_there() {
        let labels = |text: &str| Payload::read(text.as_bytes()).unwrap().labels;
        assert_eq!(labels("{\"labels\":[\"a\",\"b\"],\"Labels\":[null]}"), ["a"]);
        assert_eq!(
            labels("{\"labels\":[\"a\",\"b\"],\"labels\":[\"x\"],\"labels\":[null,null]}"),
            ["x", "b"]
        );
        assert_eq!(
            labels("{\"labels\":[\"a\"],\"labels\":null,\"labels\":[null]}"),
            [""]
        );
        assert_eq!(
            labels("{\"labels\":[\"a\"],\"labels\":[],\"labels\":[null]}"),
            [""]
        );
    }

    #[test]
    fn a_label_that_no_message_holds_is_told() {
        let long = Label::new(Namespace::Skills, &"x".repeat(MAX_WRITTEN_BYTES));
        let done = split(
            &cid(),
            &[long.clone(), Label::new(Namespace::Skills, "a")],
            moment(),
        );
        assert_eq!(done.left_out, [long]);
        assert_eq!(done.messages.len(), 1);
        assert_eq!(split(&cid(), &[], moment()), Split::default());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn a_split_loses_nothing_and_fits(values in proptest::collection::vec("[a-z<\u{2028}]{1,300}", 1..260)) {
            let labels: Vec<Label> = values.iter().map(|value| Label::new(Namespace::Domains, value)).collect();
            let done = split(&cid(), &labels, moment());
            prop_assert!(done.left_out.is_empty());
            let count = u32::try_from(done.messages.len()).unwrap();
            let (mut seen, mut last) = (Vec::new(), None);
            for (index, message) in done.messages.iter().enumerate() {
                prop_assert!(message.len() <= MAX_WRITTEN_BYTES);
                let payload = Payload::read(message).unwrap();
                let at = payload.check().unwrap();
                prop_assert!(last < Some(at));
                last = Some(at);
                seen.extend(payload.labels.clone());
                let Announcement::Claim { part, .. } = Announcement::admit_payload(&payload).unwrap().announcement else {
                    panic!("a claim");
                };
                let index = u32::try_from(index).unwrap();
                prop_assert_eq!(part, (count > 1).then_some(Part { index, count }));
            }
            prop_assert_eq!(&seen, &labels.iter().map(ToString::to_string).collect::<Vec<_>>());
            if count == 1 {
                let reference = encode_reference(&cid().to_string(), &seen, moment());
                prop_assert_eq!(Ok(done.messages[0].clone()), reference);
            }
        }

        #[test]
        fn any_bytes_are_judged_without_panic(bytes: Vec<u8>, text in r#"\{("(cid|labels|timestamp|dirnode)":(null|"x"|\[\]|\{"v":1\}),?){0,6}\}"#) {
            let _ = Announcement::admit(&bytes);
            let _ = Announcement::admit(text.as_bytes());
        }
    }
}
