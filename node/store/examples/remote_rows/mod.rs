//! Rows of other peers as the examples of the remote label index put them: the same in each run, whatever was asked before.
//!
//! About three labels a row, drawn unevenly from two levels of classes, one that a tenth of the rows have, and a locator;
//! rows are of 1,000 authors, every tenth record has two.

use dirnode_generator::Random;
use dirnode_record::{Label, Namespace};
use dirnode_store::RecordCid;
use dirnode_store::remote::{PeerId, Row, Standing};

/// Authors that the rows are of.
pub const AUTHORS: u64 = 1_000;
/// One second, in nanoseconds.
pub const SECOND: i64 = 1_000_000_000;
/// One hour, in nanoseconds.
pub const HOUR: i64 = 3_600 * SECOND;

/// Author `number`: a peer id of the form that every ed25519 key has.
pub fn author(number: u64) -> PeerId {
    // The identity multihash of a protobuf that holds key type 1 and 32 bytes.
    let mut bytes = vec![0x00, 0x24, 0x08, 0x01, 0x12, 0x20];
    let mut random = Random::of(6, number);
    for _ in 0..4 {
        bytes.extend_from_slice(&random.next().to_be_bytes());
    }
    PeerId::from_bytes(&bytes).unwrap()
}

/// A class, the lower numbers more often: the smaller of two draws.
pub fn class(random: &mut Random) -> String {
    let (top, leaf) = (
        random.below(15).min(random.below(15)),
        random.below(30).min(random.below(30)),
    );
    format!("category_{top}/class_{top}_{leaf}")
}

/// Row `number`, heard of in the hour before `now_ns`. With `distinct` it has a label more that no other row has.
pub fn row(number: u64, distinct: bool, now_ns: i64) -> Row {
    let mut random = Random::of(7, number);
    let mut digest = [0; 32];
    // Every eleventh row is of the record in front of it.
    let mut of_record = Random::of(8, if number % 11 == 10 { number - 1 } else { number });
    for part in digest.chunks_mut(8) {
        part.copy_from_slice(&of_record.next().to_be_bytes());
    }
    let mut labels = vec![Label::new(Namespace::Skills, &class(&mut random))];
    if random.below(10) == 0 {
        labels.push(Label::new(Namespace::Skills, "very/common"));
    }
    if random.below(2) == 0 {
        labels.push(Label::new(Namespace::Domains, &class(&mut random)));
    }
    if random.below(10) < 4 {
        labels.push(Label::new(
            Namespace::Modules,
            &format!("module_{}", random.below(12)),
        ));
    }
    labels.push(Label::new(
        Namespace::Locators,
        ["docker_image", "helm_chart", "source_code"][random.place(3)],
    ));
    if distinct {
        labels.push(Label::new(
            Namespace::Skills,
            &format!("own/{number}/{:x}", random.next()),
        ));
    }
    let heard = now_ns - i64::try_from(random.below(HOUR as u64)).unwrap();
    Row {
        cid: RecordCid::from_digest(digest),
        peer: author(random.below(AUTHORS)),
        labels,
        timestamp_ns: heard - SECOND,
        last_seen_ns: heard,
        expires_at_ns: heard + 48 * HOUR,
        standing: Standing::BEST_FIRST[[0, 1, 1, 1, 2][random.place(5)]],
    }
}
