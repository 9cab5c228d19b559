//! What a remembered row of another node costs: bytes of memory, and microseconds to take it in.
//!
//! `cargo run --release -p dirnode-routing --example claims`

use std::time::Duration;

use dirnode_record::{Label, Namespace, RecordCid};
use dirnode_routing::{Announcement, Brain, Config, Input, PeerId, Restored, Timestamp, Token};
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

const AUTHORS: u32 = 1_000;
const ROWS: u32 = 300_000;

/// Resident memory of this process, in bytes; zero where the system does not say.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * 4_096
}

fn main() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut now = Timestamp::from_nanos(1_767_225_600_000_000_000);
    let peer = |number: u32| {
        let mut bytes = vec![0_u8; 34];
        bytes.extend_from_slice(&number.to_be_bytes());
        PeerId::from_bytes(&bytes)
    };
    let Some(me) = peer(u32::MAX) else { return };
    let config = Config {
        verify: false,
        ..Config::default()
    };
    let mut brain = Brain::restore(config, me, Restored::default(), now, &mut rng);
    let before = resident();
    #[expect(clippy::disallowed_methods, reason = "an example that measures")]
    let began = std::time::Instant::now();
    for number in 0..ROWS {
        now = now + Duration::from_micros(10);
        let Some(publisher) = peer(number % AUTHORS) else {
            return;
        };
        let labels =
            (0..6).map(|n| Label::new(Namespace::Skills, &format!("field{}/skill{}", n, number % 97)));
        let announcement = Announcement {
            cid: RecordCid::of(&number.to_be_bytes()),
            labels: labels.collect(),
            timestamp: now,
            withdrawn: false,
        };
        brain.on(
            Input::Announced {
                token: Token(0),
                publisher,
                permitted: true,
                announcement,
            },
            now,
            &mut rng,
        );
    }
    let took = began.elapsed();
    let bytes = resident().saturating_sub(before) / u64::from(ROWS);
    let kept = brain.status().claimed;
    println!(
        "{kept} rows of {AUTHORS} authors with 6 labels each: {bytes} bytes a row, {:.1} us an announcement",
        took.as_secs_f64() * 1e6 / f64::from(ROWS)
    );
}
