//! `dirnode push`: records from files, folders and standard input into a node.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail};
use dirnode_proto::core::v1::{Record, RecordRef};
use dirnode_record::{RecordCid, read_struct, to_canonical};
use futures_util::StreamExt as _;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::{Mutex, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::client::Client;
use super::inputs::{self, Document};
use super::output::{self, Format};
use super::{OutputArgs, ServerArgs};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    dirnode push agent.json\n  \
    CID=$(dirnode push agent.json -o raw)\n  \
    dirnode push records/ more.json -o jsonl\n  \
    cat records.jsonl | dirnode push -")]
pub(crate) struct Args {
    /// Files, folders (every .json file below), or - for standard input (one document, or one a line)
    #[arg(value_name = "PATH", required_unless_present = "stdin")]
    paths: Vec<PathBuf>,
    /// Read standard input
    #[arg(long)]
    stdin: bool,
    /// Records on their way at once
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u8).range(1..=128), value_name = "N")]
    parallel: u8,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    server: ServerArgs,
}

/// A Push stream that is free for the next record.
struct Lane {
    requests: mpsc::Sender<Record>,
    answers: Streaming<RecordRef>,
}

struct Pusher {
    client: Client,
    lanes: Mutex<Vec<Lane>>,
}

impl Pusher {
    async fn lane(&self) -> anyhow::Result<Lane> {
        if let Some(lane) = self.lanes.lock().await.pop() {
            return Ok(lane);
        }
        let (requests, queue) = mpsc::channel(1);
        let mut store = self.client.store();
        let answers = self
            .client
            .within(store.push(ReceiverStream::new(queue)))
            .await?
            .into_inner();
        Ok(Lane { requests, answers })
    }

    async fn push(&self, document: Document) -> anyhow::Result<String> {
        let text = document.read()?;
        let data = read_struct(&text)?.ok_or_else(|| anyhow!("the document is null, expected an object"))?;
        let expected = RecordCid::of(&to_canonical(&data)?);
        let mut lane = self.lane().await?;
        let sent = lane.requests.send(Record::from(data)).await;
        // A lane that took nothing more has the reason in its answers.
        let answer = self.client.within(lane.answers.message()).await?;
        let cid = match (sent, answer) {
            (Ok(()), Some(reference)) => reference.cid,
            _ => bail!("the node ended the stream without an answer"),
        };
        if cid != expected.to_string() {
            bail!("the node calls the record {cid}, its content hashes to {expected}");
        }
        self.lanes.lock().await.push(lane);
        Ok(cid)
    }

    /// Ends every stream in order, so that the node does not take it for a broken one.
    async fn hang_up(&self) {
        for Lane {
            requests,
            mut answers,
        } in self.lanes.lock().await.drain(..)
        {
            drop(requests);
            let _ = self.client.within(answers.message()).await;
        }
    }
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let format = args.output.or(Format::Human);
    let documents = inputs::collect(&args.paths, args.stdin)?;
    let total = documents.len();
    let pusher = Arc::new(Pusher {
        client: Client::connect(&args.server).await?,
        lanes: Mutex::default(),
    });
    let progress = progress_bar(total)?;

    let mut pushed = Vec::new();
    let mut failed = 0_usize;
    let mut results = futures_util::stream::iter(documents)
        .map(|document| {
            let pusher = Arc::clone(&pusher);
            let name = document.name();
            async move { (name, pusher.push(document).await) }
        })
        .buffered(usize::from(args.parallel));
    while let Some((name, result)) = results.next().await {
        progress.inc(1);
        match result {
            Ok(cid) => {
                if format == Format::Json || total == 1 {
                    pushed.push(cid);
                } else {
                    progress.suspend(|| match format {
                        Format::Human => output::line(&format!("Pushed record with CID: {cid} ({name})")),
                        Format::Jsonl => output::json_line(&serde_json::Value::from(cid.as_str())),
                        _ => output::line(&cid),
                    })?;
                }
            }
            Err(error) => {
                failed += 1;
                progress.suspend(|| writeln!(std::io::stderr(), "Error: {name}: {error:#}"))?;
            }
        }
    }
    progress.finish_and_clear();
    pusher.hang_up().await;
    let anything_to_say = failed == 0 || !pushed.is_empty();
    if (total == 1 || format == Format::Json) && anything_to_say {
        output::texts(
            format,
            "Pushed record with CID",
            "Pushed records with CIDs",
            &pushed,
        )?;
    }
    if failed > 0 {
        bail!("{failed} of {total} records were not stored");
    }
    if total > 1 {
        output::remark(format, &format!("{total} records stored"))?;
    }
    Ok(())
}

fn progress_bar(total: usize) -> anyhow::Result<ProgressBar> {
    if total < 2 || !std::io::stderr().is_terminal() {
        return Ok(ProgressBar::hidden());
    }
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} records, {per_sec}, {eta} left")
        .context("progress bar template")?;
    Ok(ProgressBar::new(total as u64).with_style(style))
}
