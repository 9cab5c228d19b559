//! What `bench store` found, as text.

use std::fmt::Write as _;
use std::time::Duration;

use super::claim::{self, Claim, number, ratio};
use super::load::Rate;
use crate::clock;

/// Pushes beside the floor at one size of the store.
#[derive(Debug)]
pub struct Level {
    /// Records stored when it began.
    pub stored: u64,
    /// Pushes a second while the store was filled up to here, with the work that follows a push.
    pub filled: Option<f64>,
    /// New files with fdatasync, one thread.
    pub floor: Rate,
    /// Pushes on one stream.
    pub one: Rate,
    /// Pushes on 64 streams.
    pub many: Rate,
}

/// Reads beside an echo, all with 64 calls in flight.
#[derive(Debug, Default)]
pub struct Reads {
    /// Empty messages both ways.
    pub empty: Rate,
    /// Records out of memory, encoded beforehand.
    pub record: Rate,
    /// Whole records.
    pub pull: Rate,
    /// Metadata.
    pub lookup: Rate,
}

/// All of it.
#[derive(Debug)]
pub struct Report {
    pub machine: String,
    pub load_average: String,
    records: u64,
    runs: u64,
    pub levels: Vec<Level>,
    pub builtin: Option<Level>,
    /// Reads on streams that stay open.
    pub reads: Reads,
    /// Reads by a call each.
    pub fresh_reads: Reads,
    pub stored: u64,
    pub stored_bytes: u64,
    pub resident_bytes: u64,
    pub disk_bytes: u64,
    pub restart: Duration,
}

fn per_record(bytes: u64, records: u64) -> f64 {
    ratio(number(bytes), number(records))
}

impl Level {
    /// Of runs of floor, one stream, many streams.
    pub fn new(stored: u64, filled: Option<f64>, runs: Vec<[Rate; 3]>) -> Self {
        let median = |pick: fn(&[Rate; 3]) -> Rate| Rate::median(runs.iter().map(pick).collect());
        Self {
            stored,
            filled,
            floor: median(|[floor, _, _]| *floor),
            one: median(|[_, one, _]| *one),
            many: median(|[_, _, many]| *many),
        }
    }

    /// For the terminal.
    pub fn line(&self) -> String {
        format!(
            "floor {:.0}/s, 1 stream {:.0}/s ({:.2} of the floor), 64 streams {:.0}/s ({:.1} x one)",
            self.floor.per_second,
            self.one.per_second,
            ratio(self.one.per_second, self.floor.per_second),
            self.many.per_second,
            ratio(self.many.per_second, self.one.per_second)
        )
    }
}

impl Reads {
    /// For the terminal.
    pub fn line(&self) -> String {
        format!(
            "empty echo {:.0}/s, record echo {:.0}/s, pull {:.0}/s ({:.2} of the empty echo), lookup {:.0}/s ({:.2})",
            self.empty.per_second,
            self.record.per_second,
            self.pull.per_second,
            ratio(self.pull.per_second, self.empty.per_second),
            self.lookup.per_second,
            ratio(self.lookup.per_second, self.empty.per_second)
        )
    }
}

impl Report {
    pub fn new(machine: String, records: u64, runs: u64) -> Self {
        Self {
            machine,
            load_average: String::new(),
            records,
            runs,
            levels: Vec::new(),
            builtin: None,
            reads: Reads::default(),
            fresh_reads: Reads::default(),
            stored: 0,
            stored_bytes: 0,
            resident_bytes: 0,
            disk_bytes: 0,
            restart: Duration::ZERO,
        }
    }

    fn claims(&self) -> Vec<Claim> {
        let (Some(first), Some(last)) = (self.levels.first(), self.levels.last()) else {
            return Vec::new();
        };
        let claim = |text: &str, wanted, part: Rate, whole: Rate| {
            Claim::at_least(text, wanted, ratio(part.per_second, whole.per_second))
        };
        let full = self.records;
        vec![
            claim(
                "durable push, 1 stream / floor, empty store",
                0.4,
                first.one,
                first.floor,
            ),
            claim(
                &format!("durable push, 1 stream / floor, {full} records"),
                0.4,
                last.one,
                last.floor,
            ),
            claim(
                "durable push, 64 streams / 1 stream, empty store",
                3.0,
                first.many,
                first.one,
            ),
            claim(
                &format!("durable push, 64 streams / 1 stream, {full} records"),
                3.0,
                last.many,
                last.one,
            ),
            claim(
                &format!("durable push, 1 stream, {full} records / empty store"),
                0.9,
                last.one,
                first.one,
            ),
            claim(
                &format!("durable push, 64 streams, {full} records / empty store"),
                0.9,
                last.many,
                first.many,
            ),
            claim(
                "pull, 64 calls in flight / empty echo, a call each",
                0.4,
                self.fresh_reads.pull,
                self.fresh_reads.empty,
            ),
            claim(
                "pull, 64 in flight / empty echo, on long streams",
                0.4,
                self.reads.pull,
                self.reads.empty,
            ),
        ]
    }

    /// Fails when a wanted ratio is missed.
    pub fn check(&self) -> anyhow::Result<()> {
        claim::check(&self.claims())
    }

    /// The tables.
    pub fn markdown(&self) -> String {
        claim::text_of(|out| self.write(out))
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        claim::machine_line(out, &self.machine, &self.load_average)?;
        claim::table(out, &self.claims())?;
        writeln!(
            out,
            "\n| records stored | floor /s | push, 1 stream /s | p50, p99 us | / floor | push, 64 streams /s | p50, p99 ms | \
             / 1 stream | filling up to here /s |\n|---|---|---|---|---|---|---|---|---|"
        )?;
        for level in &self.levels {
            row(out, &level.stored.to_string(), level)?;
        }
        if let Some(level) = &self.builtin {
            row(out, "0, with validation", level)?;
        }
        for (how, reads) in [
            ("on long streams", &self.reads),
            ("a call each", &self.fresh_reads),
        ] {
            writeln!(
                out,
                "\n| 64 in flight, {how}, {} records | /s | p50, p99 us | / empty echo | / record echo |\n|---|---|---|---|---|",
                self.stored
            )?;
            let rows = [
                ("empty echo", reads.empty),
                ("record echo", reads.record),
                ("pull", reads.pull),
                ("lookup", reads.lookup),
            ];
            for (name, rate) in rows {
                writeln!(
                    out,
                    "| {name} | {:.0} | {}, {} | {:.2} | {:.2} |",
                    rate.per_second,
                    rate.p50_us,
                    rate.p99_us,
                    ratio(rate.per_second, reads.empty.per_second),
                    ratio(rate.per_second, reads.record.per_second)
                )?;
            }
        }
        writeln!(
            out,
            "\nAt {} records ({:.0} bytes each on average): {:.0} bytes of disk per record, {:.0} MB of resident memory, \
             {:.0} ms from the start of the process until it serves.",
            self.stored,
            per_record(self.stored_bytes, self.stored),
            per_record(self.disk_bytes, self.stored),
            per_record(self.resident_bytes, 1_000_000),
            self.restart.as_secs_f64() * 1000.0
        )
    }

    /// The file that keeps the tables.
    pub fn document(&self, tables: &str) -> String {
        format!(
            "# Benchmarks\n\n\
             Written by the commands named below; run them to see the same on another machine. Rates depend on the machine \
             and on what else it does, so the claims are ratios between rates of one run, measured in turn; each figure is the \
             median of {} runs.\n\n\
             ## Store\n\n\
             `cargo xtask bench store --write-doc`, {}.\n\n\
             The node and the generator of its load share the machine. *Floor*: a new file for each record, one `fdatasync` \
             each, one thread, no network. *Push*: acknowledged, so on disk, one request at a time on each stream; the node is \
             quiet before each run. *Filling*: sustained, until the node has nothing left to do. *Empty echo*: a tonic server \
             that answers empty messages with empty messages by the same kind of call; *record echo*: one that answers with a \
             record it has in memory, encoded; *on long streams*: 64 calls, each asking one thing after the other; *a call each*: \
             64 at a time, each asking one thing. Records are 1 to 20 kB, log-uniform; validation is off unless \
             said.\n\n{tables}",
            self.runs,
            clock::today()
        )
    }
}

fn row(out: &mut String, name: &str, level: &Level) -> std::fmt::Result {
    writeln!(
        out,
        "| {name} | {:.0} | {:.0} | {}, {} | {:.2} | {:.0} | {:.1}, {:.1} | {:.1} | {} |",
        level.floor.per_second,
        level.one.per_second,
        level.one.p50_us,
        level.one.p99_us,
        ratio(level.one.per_second, level.floor.per_second),
        level.many.per_second,
        f64::from(level.many.p50_us) / 1000.0,
        f64::from(level.many.p99_us) / 1000.0,
        ratio(level.many.per_second, level.one.per_second),
        level
            .filled
            .map_or_else(|| "-".to_owned(), |rate| format!("{rate:.0}"))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missed_ratio_is_told_and_fails_the_check() {
        let rate = |per_second| Rate {
            per_second,
            p50_us: 10,
            p99_us: 20,
        };
        let mut report = Report::new("a machine".to_owned(), 100, 3);
        for stored in [0, 100] {
            report.levels.push(Level::new(
                stored,
                None,
                vec![[rate(1000.0), rate(500.0), rate(2000.0)]],
            ));
        }
        let reads = || Reads {
            empty: rate(1000.0),
            record: rate(900.0),
            pull: rate(450.0),
            lookup: rate(700.0),
        };
        (report.reads, report.fresh_reads) = (reads(), reads());
        assert!(report.check().is_ok());
        assert!(
            report
                .markdown()
                .contains("| pull | 450 | 10, 20 | 0.45 | 0.50 |")
        );
        report.reads.pull = rate(390.0);
        assert!(
            report
                .check()
                .unwrap_err()
                .to_string()
                .contains("pull, 64 in flight / empty echo, on long streams: 0.39")
        );
        assert!(report.markdown().contains("**missed**"));
        assert!(report.document("TABLES").ends_with("TABLES"));
    }
}
