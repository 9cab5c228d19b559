//! The bytes on disk are read by later versions: these tests pin them.

use bytes::Bytes;
use proptest::prelude::*;

use super::entry::{Change, FRAME_BYTES, encode, frame};
use super::*;
use crate::rows::{StoredRecord, StoredReferrer};
use crate::types::UsageRow;
use crate::{RecordCid, Summary};

fn decode(bytes: &[u8]) -> Option<(u64, Change)> {
    let head = frame(bytes.first_chunk()?)?;
    let payload = bytes.get(FRAME_BYTES..FRAME_BYTES + head.payload_len)?;
    if !head.holds(payload) {
        return None;
    }
    Some((head.seq, head.change(Bytes::copy_from_slice(payload)).ok()?))
}

fn all_kinds() -> Vec<Change> {
    let cid = RecordCid::of(b"record");
    let other = RecordCid::of(b"referrer");
    let summary = Summary {
        name: "a/b".into(),
        version: "v1".into(),
        ..Summary::default()
    };
    let row = StoredRecord {
        inserted_at_ns: 7,
        size_bytes: 6,
        summary: Some(Box::new(summary)),
    };
    let referrer = StoredReferrer {
        cid: other,
        kind: "x.Y".into(),
        size_bytes: 8,
    };
    let usage = UsageRow {
        pull_count: 1,
        lookup_count: 2,
        last_used_ns: 3,
    };
    vec![
        Change::Record {
            cid,
            row: row.clone(),
            body: Some(Bytes::from_static(b"record")),
        },
        Change::Record { cid, row, body: None },
        Change::DropRecord {
            cid,
            referrers: Vec::new(),
        },
        Change::Referrer {
            record: cid,
            position: 9,
            row: referrer.clone(),
            body: Some(Bytes::from_static(b"referrer")),
        },
        Change::Referrer {
            record: cid,
            position: 9,
            row: referrer,
            body: None,
        },
        Change::DropReferrers {
            record: cid,
            cids: vec![other],
        },
        Change::Publish {
            cid,
            at_ns: -1,
            labels: Vec::new(),
        },
        Change::Unpublish { cid },
        Change::Usage(vec![(cid, usage)]),
        Change::Job {
            id: "sync/1".into(),
            value: Bytes::from_static(b"job"),
        },
        Change::DropJob { id: "sync/1".into() },
    ]
}

/// Set `WRITE_GOLDEN=1` to write the file anew after a deliberate change of the format.
#[test]
fn every_kind_has_the_bytes_of_the_golden_file() {
    let mut bytes = header(FileKind::Log, 1);
    for (seq, change) in (1..).zip(all_kinds()) {
        encode(seq, &change, &mut bytes).unwrap();
    }
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/journal-v1.log");
    if std::env::var_os("WRITE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &bytes).unwrap();
    }
    let golden = std::fs::read(&path).unwrap();
    assert_eq!(
        golden, bytes,
        "journal bytes changed: old nodes could not read them"
    );
    let mut seen = Vec::new();
    let end = reader::read_file(&crate::disk::RealDisk, &path, FileKind::Log, &mut |read, _| {
        seen.push(read.change);
        Ok(())
    })
    .unwrap();
    assert_eq!(seen, all_kinds());
    assert_eq!(
        (end.last_seq, end.good_len, end.torn_bytes),
        (11, golden.len() as u64, 0)
    );
}

#[test]
fn names_read_back_and_others_do_not() {
    assert_eq!(
        parse_name(&file_name(12, FileKind::Snap)),
        Some((12, FileKind::Snap))
    );
    for other in [
        "12.log",
        "0000000012.log.tmp",
        "0000000012",
        "+000000012.log",
        "checkpoint",
    ] {
        assert_eq!(parse_name(other), None, "{other}");
    }
}

#[test]
fn checkpoint_reads_back_and_damage_does_not() {
    let written = checkpoint::encode(checkpoint::Checkpoint {
        seq: 5,
        generation: 6,
    });
    assert_eq!(
        checkpoint::decode(&written),
        Some(checkpoint::Checkpoint {
            seq: 5,
            generation: 6
        })
    );
    for at in 0..written.len() {
        let mut damaged = written.clone();
        damaged[at] ^= 1;
        assert_eq!(checkpoint::decode(&damaged), None, "byte {at}");
    }
}

proptest! {
    #[test]
    fn any_change_reads_back(seq: u64, which in 0usize..11, body in prop::collection::vec(any::<u8>(), 0..300)) {
        let change = match all_kinds().swap_remove(which) {
            Change::Record { cid, row, body: Some(_) } => Change::Record { cid, row, body: Some(body.into()) },
            Change::Job { id, .. } => Change::Job { id, value: body.into() },
            other => other,
        };
        let mut bytes = Vec::new();
        encode(seq, &change, &mut bytes).unwrap();
        prop_assert_eq!(decode(&bytes), Some((seq, change)));
    }

    #[test]
    fn a_flipped_bit_is_seen(which in 0usize..11, place: prop::sample::Index, bit in 0u8..8) {
        let mut bytes = Vec::new();
        encode(1, &all_kinds()[which], &mut bytes).unwrap();
        let at = place.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert_eq!(decode(&bytes), None);
    }

    #[test]
    fn any_bytes_are_safe_to_read(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0u8..13) {
        let mut framed = vec![0; 4];
        framed[..4].copy_from_slice(&u32::try_from(bytes.len()).unwrap().to_be_bytes());
        framed.extend([kind, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]);
        if let Some(head) = frame(framed.first_chunk().unwrap()) {
            let _ = head.change(Bytes::from(bytes));
        }
    }
}
