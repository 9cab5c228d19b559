//! Times the hot paths of this crate over one record: `cargo run --release -p dirnode-record --example measure FILE`.

use std::hint::black_box;
use std::time::Instant;

use dirnode_record::{Facts, RecordCid, Summary, Validator, read_struct, to_canonical};

fn time<R>(what: &str, mut work: impl FnMut() -> R) {
    const ROUNDS: u32 = 20_000;
    for _ in 0..ROUNDS / 10 {
        black_box(work());
    }
    #[expect(clippy::disallowed_methods, reason = "a measurement is about real time")]
    let start = Instant::now();
    for _ in 0..ROUNDS {
        black_box(work());
    }
    println!(
        "{what:<24} {:>9.2} us",
        start.elapsed().as_secs_f64() * 1e6 / f64::from(ROUNDS)
    );
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: measure FILE")?;
    let text = std::fs::read(path)?;
    let record = read_struct(&text)?.ok_or("the file holds null")?;
    let canonical = to_canonical(&record)?;
    let facts = Facts::read(&record)?;
    let validator = Validator::builtin();
    let report = validator.validate_own(&record)?;
    println!(
        "{} bytes of text, {} canonical, {} findings",
        text.len(),
        canonical.len(),
        report.findings.len()
    );
    time("read text", || read_struct(&text));
    time("read canonical", || read_struct(&canonical));
    time("write canonical", || to_canonical(&record));
    time("hash", || RecordCid::of(&canonical));
    time("cid text", || RecordCid::of(b"").to_string());
    time("facts", || Facts::read(&record).map(|facts| facts.labels()));
    time("summary", || Summary::from(&facts));
    time("validate", || validator.validate_own(&record));
    time("validate text", || validator.validate_text(&text, None));
    Ok(())
}
