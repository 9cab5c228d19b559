//! `cargo xtask bench network`: what one node of the network room takes and gives over loopback, beside plain streams of
//! the same transport. The measurements are made by an example of that room, which prints them; here they are repeated,
//! set beside each other and written down.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail};

use super::claim::{self, median, ratio};
use super::{machine, routing};
use crate::{clock, shell};

/// What a record of another peer is made of: the key's digest, who, and until when.
const RECORD_FLOOR_BYTES: f64 = 32.0 + 4.0 + 4.0;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Runs of everything; the median of each figure counts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    runs: u64,
    /// Provider records of one peer
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1000..=200_000))]
    records: u32,
    /// Announcements
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1000..))]
    messages: u32,
    /// Connections, each of a peer of its own
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(10..=300))]
    connections: u32,
    /// Write the section of docs/benchmarks.md
    #[arg(long)]
    pub write_doc: bool,
}

/// The median of each figure over the runs, by name.
#[derive(Debug)]
pub struct Report {
    machine: String,
    load_average: String,
    command: String,
    runs: u64,
    figures: BTreeMap<String, f64>,
}

/// Builds and runs the example.
///
/// # Errors
/// When it does not build, or a run fails: it fails when anything it sent did not arrive.
pub fn measure(args: &Args) -> anyhow::Result<Report> {
    // Together with all that the benches need, so that cargo settles on one set of features for them.
    let node = routing::build()?;
    let program = node.with_file_name("examples").join("network_bench");
    let mut runs: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for run in 1..=args.runs {
        println!("run {run} of {}", args.runs);
        for (name, figure) in one_run(&program, args)? {
            println!("  {name}: {figure:.1}");
            runs.entry(name).or_default().push(figure);
        }
    }
    Ok(Report {
        machine: machine::describe(Path::new("/")),
        load_average: machine::load_average(),
        command: format!(
            "cargo xtask bench network --records {} --messages {} --connections {} --write-doc",
            args.records, args.messages, args.connections
        ),
        runs: args.runs,
        figures: runs
            .into_iter()
            .map(|(name, figures)| (name, median(figures)))
            .collect(),
    })
}

fn one_run(program: &Path, args: &Args) -> anyhow::Result<BTreeMap<String, f64>> {
    let mut command = Command::new(program);
    for (name, value) in [
        ("--records", args.records),
        ("--messages", args.messages),
        ("--connections", args.connections),
    ] {
        command.arg(name).arg(value.to_string());
    }
    let text = shell::output(&mut command)?;
    let figures: BTreeMap<String, f64> =
        serde_json::from_str(text.trim()).with_context(|| format!("the example says {text:?}"))?;
    if figures.is_empty() {
        bail!("the example measured nothing");
    }
    Ok(figures)
}

impl Report {
    fn figure(&self, name: &str) -> f64 {
        self.figures.get(name).copied().unwrap_or_default()
    }

    /// The tables.
    pub fn markdown(&self) -> String {
        claim::text_of(|out| self.write(out))
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        claim::machine_line(out, &self.machine, &self.load_average)?;
        writeln!(
            out,
            "| what | /s | beside it | /s | ratio |\n|---|---|---|---|---|"
        )?;
        let frames = "frames of the same size, 256 at once, down a plain stream";
        for (what, figure, beside, floor) in [
            (
                "provider records taken in, many down one stream",
                "provider_records_taken",
                frames,
                "floor_record_frames",
            ),
            (
                "provides sent, many down one stream",
                "provides_sent",
                frames,
                "floor_record_frames",
            ),
            (
                "provides sent, each with a lookup, 16 in flight",
                "provides_with_lookup",
                "echoes of the same size, a stream each, 16 in flight",
                "floor_echoes_16",
            ),
            (
                "announcements validated, one after the other",
                "gossip_validated",
                "frames of the same size down a plain stream",
                "floor_gossip_frames",
            ),
            (
                "pulls of 6,000 bytes, one in flight",
                "pulls_1",
                "echoes of the same size, a stream each",
                "floor_echoes_1",
            ),
            (
                "pulls of 6,000 bytes, 8 in flight",
                "pulls_8",
                "echoes of the same size, a stream each, 8 in flight",
                "floor_echoes_8",
            ),
        ] {
            let (figure, floor) = (self.figure(figure), self.figure(floor));
            writeln!(
                out,
                "| {what} | {figure:.0} | {beside} | {floor:.0} | {:.2} |",
                ratio(figure, floor)
            )?;
        }
        writeln!(
            out,
            "\n| memory | bytes | beside it | bytes | ratio |\n|---|---|---|---|---|"
        )?;
        let (connection, plain) = (
            self.figure("bytes_per_connection"),
            self.figure("floor_bytes_per_connection"),
        );
        writeln!(
            out,
            "| a connection, {:.0} open | {connection:.0} | one of a swarm with TCP, TLS and yamux alone | {plain:.0} | {:.1} |",
            self.figure("connections"),
            ratio(connection, plain)
        )?;
        let record = self.figure("bytes_per_record");
        writeln!(
            out,
            "| 100,000 provider records of another peer | {:.0} | digest, provider and time alone | {:.0} | {:.1} |",
            record * 1e5,
            RECORD_FLOOR_BYTES * 1e5,
            ratio(record, RECORD_FLOOR_BYTES)
        )?;
        writeln!(
            out,
            "\nOne announcement alone, from the call to the event at the other node: p50 {:.0} us, p99 {:.0} us. An \
             ADD_PROVIDER message has {:.0} bytes.",
            self.figure("hop_p50_us"),
            self.figure("hop_p99_us"),
            self.figure("record_frame_bytes")
        )
    }

    /// The section of the page that keeps the tables.
    pub fn section(&self, tables: &str) -> String {
        format!(
            "## Network\n\n\
             `{}`, {}; each figure is the median of {} runs.\n\n\
             The node under test, the plain swarm beside it and the load are three processes of one machine over loopback TCP \
             with TLS and yamux; the plain swarm opens its streams one after the other. What is counted is what arrived and was \
             taken: provider records in the store, announcements with their signature checked and a verdict given, records \
             whose bytes hash to their CID. A run in which anything is missing fails. Memory is anonymous memory of the process, \
             before and after; connections are counted in processes that have done nothing before, and their peers are nodes of \
             ours with every behaviour on, one connection each.\n\n{tables}",
            self.command,
            clock::today(),
            self.runs
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_stand_beside_their_floors() {
        let figures = [
            ("pulls_8", 500.0),
            ("floor_echoes_8", 1000.0),
            ("bytes_per_record", 80.0),
        ];
        let report = Report {
            machine: "a machine".to_owned(),
            load_average: "0".to_owned(),
            command: String::new(),
            runs: 1,
            figures: figures
                .into_iter()
                .map(|(name, figure)| (name.to_owned(), figure))
                .collect(),
        };
        let text = report.markdown();
        assert!(text.contains("8 in flight | 1000 | 0.50 |"), "{text}");
        assert!(text.contains("| 8000000 |") && text.contains("| 2.0 |"), "{text}");
        assert!(report.section("TABLES").ends_with("TABLES"));
    }
}
