//! What `bench routing` found, as text.

use std::fmt::Write as _;

use serde::Deserialize;

use super::super::claim::{self, Claim, number, ratio};
use super::super::load::Rate;
use super::Args;
use super::join::Joined;
use super::labels::Level;
use super::spread::{Delayed, Spread};
use crate::clock;

/// Everywhere within a second.
const WANTED_EVERYWHERE_MS: f64 = 1000.0;
const WANTED_JOIN_SECONDS: f64 = 10.0;
const WANTED_P99_US: f64 = 2000.0;
const WANTED_GROWTH: f64 = 1.5;
const WANTED_BYTES: f64 = 150.0;

/// One round of announcing again, as the simulator tells it.
#[derive(Debug, Clone, Deserialize)]
pub struct Round {
    pub sweep: bool,
    pub keys: u64,
    pub provided: u64,
    pub seconds: f64,
    pub lookups: u64,
    pub requests: u64,
    pub sends: u64,
    pub at_nearest: f64,
}

/// All of it.
#[derive(Debug)]
pub struct Report {
    pub machine: String,
    pub load_average: String,
    pub spread: Spread,
    pub delayed: Delayed,
    pub joined: Joined,
    /// From few labels to many.
    pub levels: Vec<Level>,
    pub rounds: Vec<Round>,
    command: String,
}

fn ms(us: u32) -> f64 {
    f64::from(us) / 1000.0
}

impl Report {
    pub fn new(machine: String, args: &Args) -> Self {
        Self {
            machine,
            load_average: String::new(),
            spread: Spread::default(),
            delayed: Delayed::default(),
            joined: Joined::default(),
            levels: Vec::new(),
            rounds: Vec::new(),
            command: format!(
                "cargo xtask bench routing --nodes {} --publishes {} --labels {} --seconds {} --keys {} --write-doc",
                args.nodes, args.publishes, args.labels, args.seconds, args.keys
            ),
        }
    }

    fn claims(&self) -> Vec<Claim> {
        let spread = &self.spread;
        let mut claims = vec![
            Claim::at_least(
                format!(
                    "publishes found on all {} nodes, of {}",
                    spread.nodes, spread.publishes
                ),
                spread.publishes.into(),
                spread.found_by_all.into(),
            ),
            Claim::at_most(
                "p99 from Publish to searchable on the last node, ms",
                WANTED_EVERYWHERE_MS,
                ms(spread.everywhere.p99_us),
            ),
            Claim::at_most(
                format!(
                    "seconds until a late joiner knows {} labels",
                    self.joined.seeded.labels
                ),
                WANTED_JOIN_SECONDS,
                self.joined.seconds,
            ),
        ];
        let [.., middle, last] = self.levels.as_slice() else {
            return claims;
        };
        let labels = last.seeded.labels;
        if let Some((name, one, _)) = last.kinds().max_by_key(|(_, one, _)| one.rate.p99_us) {
            claims.push(Claim::at_most(
                format!("slowest p99 of a search, us, {labels} labels ({name})"),
                WANTED_P99_US,
                one.rate.p99_us.into(),
            ));
        }
        let growth = middle
            .kinds()
            .zip(last.kinds())
            .map(|((name, small, _), (_, large, _))| {
                (name, ratio(large.rate.p50_us.into(), small.rate.p50_us.into()))
            })
            .max_by(|one, other| one.1.total_cmp(&other.1));
        if let Some((name, growth)) = growth {
            claims.push(Claim::at_most(
                format!(
                    "largest growth of a p50, {} to {labels} labels ({name})",
                    middle.seeded.labels
                ),
                WANTED_GROWTH,
                growth,
            ));
        }
        claims.push(Claim::at_most(
            format!("bytes of index a label, {labels} labels"),
            WANTED_BYTES,
            last.bytes_per_label(),
        ));
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
        self.write_spread(out)?;
        self.write_joined(out)?;
        for level in &self.levels {
            write_level(out, level)?;
        }
        writeln!(
            out,
            "\n| announcing again | keys | lookups | a key | requests | messages with records | virtual s | of the 20 nearest \
             that hold a key |\n|---|---|---|---|---|---|---|---|"
        )?;
        for round in &self.rounds {
            writeln!(
                out,
                "| {} | {} of {} | {} | {:.4} | {} | {} | {:.0} | {:.2} |",
                if round.sweep {
                    "near keys together"
                } else {
                    "a lookup for each key"
                },
                round.provided,
                round.keys,
                round.lookups,
                ratio(number(round.lookups), number(round.keys)),
                round.requests,
                round.sends,
                round.seconds,
                round.at_nearest
            )?;
        }
        Ok(())
    }

    fn write_spread(&self, out: &mut String) -> std::fmt::Result {
        let spread = &self.spread;
        writeln!(
            out,
            "\n| {} nodes on loopback, {} publishes | p50 ms | p99 ms | p50 / hop |\n|---|---|---|---|",
            spread.nodes, spread.publishes
        )?;
        let hop_us = spread.hop.p50_us;
        writeln!(
            out,
            "| one hop between two bare swarms | {:.2} | {:.2} | 1.0 |",
            hop_us / 1000.0,
            spread.hop.p99_us / 1000.0
        )?;
        for (name, rate) in [
            ("a search, alone", spread.asking),
            ("Publish acknowledged", spread.acknowledged),
            ("searchable on another node", spread.searchable),
            ("searchable on the last node", spread.everywhere),
        ] {
            let Rate { p50_us, p99_us, .. } = rate;
            writeln!(
                out,
                "| {name} | {:.2} | {:.2} | {:.1} |",
                ms(p50_us),
                ms(p99_us),
                ratio(p50_us.into(), hop_us)
            )?;
        }
        let (found, floor) = (&self.delayed.found, &self.delayed.floor);
        writeln!(
            out,
            "\n| {} simulated nodes, delays of 8 to 184 ms | found | p50 ms | p99 ms | last ms |\n|---|---|---|---|---|",
            self.delayed.nodes
        )?;
        for (name, times) in [("the delays alone", floor), ("searchable on another node", found)] {
            writeln!(
                out,
                "| {name} | {} of {} | {:.0} | {:.0} | {:.0} |",
                times.there,
                times.wanted,
                times.p50 * 1000.0,
                times.p99 * 1000.0,
                times.max * 1000.0
            )?;
        }
        writeln!(
            out,
            "| found / delays | | {:.2} | {:.2} | {:.2} |",
            ratio(found.p50, floor.p50),
            ratio(found.p99, floor.p99),
            ratio(found.max, floor.max)
        )
    }

    fn write_joined(&self, out: &mut String) -> std::fmt::Result {
        let joined = &self.joined;
        writeln!(
            out,
            "\n| late joiner | |\n|---|---|\n\
             | labels, rows, authors | {}, {}, {} |\n\
             | complete after its start, s | {:.2} |\n\
             | bytes on the wire, both ways | {} |\n\
             | bytes of the labels' texts | {} |\n\
             | wire / texts | {:.2} |",
            joined.seeded.labels,
            joined.seeded.rows,
            joined.seeded.authors,
            joined.seconds,
            joined.wire_bytes,
            joined.seeded.label_bytes,
            joined.wire_per_label_byte()
        )
    }

    /// The section of the page that keeps the tables.
    pub fn section(&self, tables: &str) -> String {
        format!(
            "## Routing\n\n\
             `{}`, {}.\n\n\
             Nodes are processes on one machine. *Spread*: records with a label of their own are published one after the \
             other, each on the next node, and every other node is asked by `RoutingService.Search` until it finds the record, \
             a millisecond after each answer; the clock starts with the call of `Publish`. *Bare hop*: an announcement between \
             two swarms of the network room, from the call to the event, nothing above them. *Delays*: the same load in \
             `dirnode-sim`, whose links have delays; *the delays alone* are the quickest way from publisher to node over any \
             links. Of four seeds the one with the largest p99. *Late joiner*: a node whose only peer knows the labels, through \
             a relay that counts bytes. *Search*: random questions of each kind for twenty results, a call each, by one caller \
             and by 64, beside a tonic server that answers an empty message with one; the one search that is slow by itself, \
             for two common labels that no record has both of, is in `decisions/0003-remote-labels.md`. *Announcing again*: \
             one node of a thousand simulated ones provides all of its keys.\n\n{tables}",
            self.command,
            clock::today()
        )
    }
}

fn write_level(out: &mut String, level: &Level) -> std::fmt::Result {
    writeln!(
        out,
        "\n{} labels in {} rows: {:.0} bytes of index a label; the whole node takes {} MB and serves {:.2} s after its start.\n",
        level.seeded.labels,
        level.seeded.rows,
        level.bytes_per_label(),
        level.resident_bytes / 1_000_000,
        level.start_seconds
    )?;
    writeln!(
        out,
        "| {} labels | answers | 1 caller: p50, p99 us | p50 / echo | 64 callers: /s | p50, p99 us | rate / echo \
         |\n|---|---|---|---|---|---|---|",
        level.seeded.labels
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
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::super::search_report::Asked;
    use super::super::join::Seeded;
    use super::super::labels::ECHO;
    use super::super::spread::Times;
    use super::*;

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn level(labels: u64, p50_us: u32, p99_us: u32) -> Level {
        let asked = |p50_us, p99_us| Asked {
            rate: Rate {
                per_second: 1000.0,
                p50_us,
                p99_us,
            },
            answers: 20,
        };
        Level {
            seeded: Seeded {
                labels,
                index_bytes: labels * 100,
                ..Seeded::default()
            },
            start_seconds: 1.0,
            resident_bytes: 0,
            questions: vec![
                (ECHO, asked(100, 90_000), asked(100, 90_000)),
                ("exact", asked(p50_us, p99_us), asked(p50_us, p99_us)),
            ],
        }
    }

    #[test]
    fn figures_are_held_against_their_bounds() {
        let mut report = Report::new("a machine".to_owned(), &Cli::parse_from(["x"]).args);
        report.spread = Spread {
            nodes: 10,
            publishes: 200,
            found_by_all: 200,
            everywhere: Rate {
                p99_us: 1_000_000,
                ..Rate::default()
            },
            ..Spread::default()
        };
        report.joined.seconds = 10.0;
        report.delayed.floor = Times {
            p50: 0.04,
            ..Times::default()
        };
        report.delayed.found = Times {
            p50: 0.06,
            ..Times::default()
        };
        report.levels = vec![level(1, 1, 1), level(10, 200, 1), level(100, 300, 2000)];
        assert!(report.check().is_ok(), "{:?}", report.check());
        let text = report.markdown();
        for part in [
            "| exact | 20 | 300, 2000 | 3.0 | 1000 | 300, 2000 | 1.00 |",
            "| found / delays | | 1.50 |",
        ] {
            assert!(text.contains(part), "{text}");
        }
        report.spread.found_by_all = 199;
        report.levels[2] = level(100, 310, 2001);
        report.levels[2].seeded.index_bytes = 15_100;
        let missed = report.check().unwrap_err().to_string();
        for part in [
            "of 200: 199.00, wanted 200.00",
            "2001.00, wanted 2000.00",
            "(exact): 1.55, wanted 1.50",
            "151.00, wanted 150.00",
        ] {
            assert!(missed.contains(part), "{missed}");
        }
        assert!(report.section("TABLES").ends_with("TABLES"));
    }
}
