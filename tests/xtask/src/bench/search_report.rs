//! What `bench search` found, as text.

use std::fmt::Write as _;

use super::claim::{self, Claim, ratio};
use super::load::Rate;
use crate::clock;

/// Largest p99 of a search with a limit of 20, in microseconds, at the middle and at the last level.
const WANTED_P99_US: [u32; 2] = [2000, 5000];
const WANTED_GROWTH: f64 = 1.5;
const WANTED_BYTES: f64 = 600.0;
const WANTED_REBUILD_SECONDS: f64 = 20.0;
const WANTED_PUSHES: f64 = 0.5;
/// The kinds that have no limit, so that their p99 is bounded by nothing but the budget.
const COUNTS: &str = "count";
const ECHO: &str = "empty echo";

/// How questions of one kind were answered.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asked {
    pub rate: Rate,
    /// Answers of one question, on average.
    pub answers: u64,
}

/// The index made by the command for that.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rebuilt {
    pub seconds: f64,
    pub bytes_per_record: f64,
}

/// Pushes beside searches.
#[derive(Debug, Clone, Copy, Default)]
pub struct Beside {
    /// Pushes without searches.
    pub alone: Rate,
    /// Pushes with them.
    pub together: Rate,
    /// Searches meanwhile.
    pub searches: Rate,
}

impl Beside {
    fn share(&self) -> f64 {
        ratio(self.together.per_second, self.alone.per_second)
    }

    /// For the terminal.
    pub fn line(&self) -> String {
        format!(
            "16 pushing: {:.0}/s alone, {:.0}/s beside 64 searching at {:.0}/s ({:.2})",
            self.alone.per_second,
            self.together.per_second,
            self.searches.per_second,
            self.share()
        )
    }
}

/// One size of the store.
#[derive(Debug)]
pub struct Level {
    pub stored: u64,
    /// Records a second while it was filled, with the work that follows a push.
    pub filled: f64,
    pub rebuilt: Rebuilt,
    pub resident_bytes: u64,
    /// By kind: one caller, many callers. The echo comes first.
    pub questions: Vec<(String, Asked, Asked)>,
    pub beside: Beside,
}

/// All of it.
#[derive(Debug)]
pub struct Report {
    pub machine: String,
    pub load_average: String,
    pub levels: Vec<Level>,
    records: u64,
}

impl Report {
    pub fn new(machine: String, records: u64) -> Self {
        Self {
            machine,
            load_average: String::new(),
            levels: Vec::new(),
            records,
        }
    }

    fn claims(&self) -> Vec<Claim> {
        let [_, middle, last] = self.levels.as_slice() else {
            return Vec::new();
        };
        let mut claims = Vec::new();
        let limited = |level: &Level| -> Vec<(String, Rate)> {
            let kinds = level
                .questions
                .iter()
                .filter(|(name, _, _)| name != ECHO && !name.starts_with(COUNTS));
            kinds.map(|(name, one, _)| (name.clone(), one.rate)).collect()
        };
        for (level, wanted) in [middle, last].into_iter().zip(WANTED_P99_US) {
            if let Some((name, rate)) = limited(level).into_iter().max_by_key(|(_, rate)| rate.p99_us) {
                claims.push(Claim::at_most(
                    format!("slowest p99 of a search, us, {} records ({name})", level.stored),
                    wanted.into(),
                    rate.p99_us.into(),
                ));
            }
        }
        let growth = limited(middle)
            .into_iter()
            .zip(limited(last))
            .map(|((name, small), (_, large))| (name, ratio(large.p50_us.into(), small.p50_us.into())))
            .max_by(|one, other| one.1.total_cmp(&other.1));
        if let Some((name, growth)) = growth {
            claims.push(Claim::at_most(
                format!(
                    "largest growth of a p50, {} to {} records ({name})",
                    middle.stored, last.stored
                ),
                WANTED_GROWTH,
                growth,
            ));
        }
        claims.push(Claim::at_most(
            format!("bytes of index a record, {} records", last.stored),
            WANTED_BYTES,
            last.rebuilt.bytes_per_record,
        ));
        claims.push(Claim::at_most(
            format!("seconds to make the index, {} records", last.stored),
            WANTED_REBUILD_SECONDS,
            last.rebuilt.seconds,
        ));
        for level in [middle, last] {
            claims.push(Claim::at_least(
                format!("16 pushing beside 64 searching / alone, {} records", level.stored),
                WANTED_PUSHES,
                level.beside.share(),
            ));
        }
        claims
    }

    /// Fails when a wanted figure is missed.
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
            "\n| records | index, bytes a record | made in s | resident MB | filled at /s | 16 pushing /s | \
             beside 64 searching /s | share | searches meanwhile /s |\n|---|---|---|---|---|---|---|---|---|"
        )?;
        for level in &self.levels {
            writeln!(
                out,
                "| {} | {:.0} | {:.2} | {} | {:.0} | {:.0} | {:.0} | {:.2} | {:.0} |",
                level.stored,
                level.rebuilt.bytes_per_record,
                level.rebuilt.seconds,
                level.resident_bytes / 1_000_000,
                level.filled,
                level.beside.alone.per_second,
                level.beside.together.per_second,
                level.beside.share(),
                level.beside.searches.per_second
            )?;
        }
        for level in &self.levels {
            writeln!(
                out,
                "\n| {} records | answers | 1 caller: p50, p99 us | p50 / echo | 64 callers: /s | p50, p99 us | \
                 rate / echo |\n|---|---|---|---|---|---|---|",
                level.stored
            )?;
            let echo = level
                .questions
                .first()
                .map(|(_, one, many)| (one.rate, many.rate))
                .unwrap_or_default();
            for (name, one, many) in &level.questions {
                writeln!(
                    out,
                    "| {name} | {} | {}, {} | {:.1} | {:.0} | {}, {} | {:.2} |",
                    one.answers,
                    one.rate.p50_us,
                    one.rate.p99_us,
                    ratio(one.rate.p50_us.into(), echo.0.p50_us.into()),
                    many.rate.per_second,
                    many.rate.p50_us,
                    many.rate.p99_us,
                    ratio(many.rate.per_second, echo.1.per_second)
                )?;
            }
        }
        Ok(())
    }

    /// The section of the page that keeps the tables.
    pub fn section(&self, tables: &str) -> String {
        format!(
            "## Search\n\n\
             `cargo xtask bench search --records {} --write-doc`, {}.\n\n\
             The node is filled over gRPC, its index is made again by `dirnode index rebuild`, and it is started anew; then \
             random questions of each kind are asked, a call each, for twenty results after the offset: by one caller, which \
             shows what a question takes, and by 64, which shows what two cores give to node and callers together. *Empty \
             echo*: a tonic server that answers an empty message with one, asked in the same way. *Share*: pushes beside \
             searches of all kinds, divided by those without.\n\n{tables}",
            self.records,
            clock::today()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(stored: u64, p50_us: u32, p99_us: u32) -> Level {
        let asked = |p50_us, p99_us| Asked {
            rate: Rate {
                per_second: 1000.0,
                p50_us,
                p99_us,
            },
            answers: 20,
        };
        let question = |name: &str, asked: Asked| (name.to_owned(), asked, asked);
        Level {
            stored,
            filled: 1.0,
            rebuilt: Rebuilt {
                seconds: 3.0,
                bytes_per_record: 500.0,
            },
            resident_bytes: 0,
            questions: vec![
                question(ECHO, asked(100, 200_000)),
                question("exact name", asked(p50_us, p99_us)),
                question("count, ancestor", asked(9000, 90_000)),
            ],
            beside: Beside {
                alone: asked(1, 1).rate,
                together: asked(1, 1).rate,
                searches: asked(1, 1).rate,
            },
        }
    }

    #[test]
    fn figures_are_held_against_their_bounds() {
        let mut report = Report::new("a machine".to_owned(), 1000);
        report.levels = vec![level(10, 1, 1), level(100, 200, 2000), level(1000, 300, 5000)];
        assert!(report.check().is_ok(), "{:?}", report.check());
        let text = report.markdown();
        assert!(
            text.contains("| exact name | 20 | 300, 5000 | 3.0 | 1000 | 300, 5000 | 1.00 |"),
            "{text}"
        );
        report.levels[2] = level(1000, 301, 5001);
        report.levels[1].beside.together.per_second = 499.0;
        let missed = report.check().unwrap_err().to_string();
        for part in [
            "5001.00, wanted 5000.00",
            "(exact name): 1.50, wanted 1.50",
            "0.50, wanted 0.50",
        ] {
            assert!(missed.contains(part), "{missed}");
        }
        assert!(report.section("TABLES").ends_with("TABLES"));
    }
}
