//! `dirnode publish`: records announced to the network, and the announcement followed to its end.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use anyhow::bail;
use dirnode_proto::node::v1::node_service_client::NodeServiceClient;
use dirnode_proto::node::v1::{
    GetPublicationProgressRequest, PublicationProgress, PublicationState as State,
};
use dirnode_proto::routing::v1::publication_service_client::PublicationServiceClient;
use dirnode_proto::routing::v1::publish_request::Request;
use dirnode_proto::routing::v1::{GetPublicationRequest, PublishRequest};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use tonic::Code;
use tonic::transport::Channel;

use super::super::client::Client;
use super::super::output::{self, Format};
use super::super::{OutputArgs, ServerArgs};
use super::{counted, held, outcome, refs};
use crate::runtime::moment;

/// Pause between looks at the publication.
const PAUSE: Duration = Duration::from_millis(100);
/// How long is waited for the records to be in the published set, so that the next command finds them there.
const RECORDED_WITHIN: Duration = Duration::from_secs(2);

#[derive(Debug, clap::Args)]
#[command(
    after_help = "The node announces what is published as soon as it has peers, and again before others forget it.\n\
    Without --wait the command ends when the records are in the published set and their news is in the outbox, both on \
    disk.\n\n\
    Examples:\n  \
    dirnode publish baearei…\n  \
    dirnode publish example.org/agent --wait\n  \
    dirnode search --author Orchard -o raw | dirnode publish --stdin\n  \
    dirnode publish --all --yes --wait --wait-limit 600"
)]
pub(crate) struct Args {
    #[arg(value_name = "REF", help = "CIDs, or name[:version][@cid]", required_unless_present_any = ["stdin", "all"])]
    references: Vec<String>,
    /// Read CIDs or names from standard input, one a line or in a JSON array
    #[arg(long)]
    stdin: bool,
    /// Every stored record
    #[arg(long, conflicts_with_all = ["references", "stdin"])]
    all: bool,
    /// Do not ask before everything is published
    #[arg(short, long)]
    yes: bool,
    /// Wait until the news of every record is out; fail if it does not get out
    #[arg(long)]
    wait: bool,
    /// With --wait: give up after so many seconds; 0 for never
    #[arg(long, default_value_t = 300, value_name = "SECONDS", requires = "wait")]
    wait_limit: u64,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    server: ServerArgs,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let format = args.output.or(Format::Human);
    let client = Client::connect(&args.server).await?;
    let (cids, request) = if args.all {
        confirm(&args)?;
        (Vec::new(), Request::AllRecords(true))
    } else {
        let cids = held(&client, args.references.clone(), args.stdin).await?;
        let request = Request::RecordRefs(refs(&cids));
        (cids, request)
    };
    let mut publications = PublicationServiceClient::new(client.channel());
    let request = PublishRequest {
        request: Some(request),
    };
    let filed = client.within(publications.create_publication(request)).await?;
    let id = filed.into_inner().publication_id;
    let mut watch = Watch {
        node: NodeServiceClient::new(client.channel()),
        publications,
        client: &client,
    };
    let seen = follow(&mut watch, &id, &args).await?;
    let cids_counted = u64::try_from(cids.len()).unwrap_or(u64::MAX);
    let message = message(&seen, seen.records.max(cids_counted));
    let mut value = outcome(
        &cids,
        seen.records.max(cids_counted),
        word(seen.state()),
        &message,
    );
    if let Some(object) = value.as_object_mut() {
        object.insert("publication_id".to_owned(), Value::from(id.as_str()));
        object.insert("told".to_owned(), Value::from(seen.told));
    }
    match format {
        Format::Json => output::json(&value)?,
        Format::Jsonl => output::json_line(&value)?,
        Format::Raw => output::raw(id.as_bytes())?,
        Format::Human => output::line(&format!("Publication {id}: {message}"))?,
    }
    match seen.state() {
        State::Completed => Ok(()),
        State::Failed => bail!("publication {id} failed: {}", seen.reason),
        _ if args.wait => bail!(
            "publication {id} has not ended after {} s; the node goes on with it",
            args.wait_limit
        ),
        _ => Ok(()),
    }
}

fn confirm(args: &Args) -> anyhow::Result<()> {
    if args.yes {
        return Ok(());
    }
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        bail!("--all publishes every stored record; add --yes where nobody can be asked");
    }
    let mut err = std::io::stderr();
    write!(err, "Publish every record of {}? [y/N] ", args.server.server_addr)?;
    err.flush()?;
    let mut answer = String::new();
    stdin.read_line(&mut answer)?;
    if ["y", "yes"].contains(&answer.trim().to_lowercase().as_str()) {
        Ok(())
    } else {
        bail!("nothing was published")
    }
}

fn word(state: State) -> &'static str {
    match state {
        State::Pending => "pending",
        State::InProgress => "in_progress",
        State::Completed => "completed",
        State::Failed => "failed",
        State::Unspecified => "unknown",
    }
}

fn message(seen: &PublicationProgress, records: u64) -> String {
    match seen.state() {
        State::Completed => format!("completed, {} announced", counted(records)),
        State::Failed => format!("failed: {}", seen.reason),
        State::Pending | State::Unspecified => "pending".to_owned(),
        State::InProgress if seen.waiting_for_peers => {
            format!(
                "in progress, {} of {} announced: no peers yet",
                seen.told,
                counted(records)
            )
        }
        State::InProgress => format!("in progress, {} of {} announced", seen.told, counted(records)),
    }
}

/// Where a publication stands, by the node's own service, or by the network's where a node has no other.
struct Watch<'a> {
    node: NodeServiceClient<Channel>,
    publications: PublicationServiceClient<Channel>,
    client: &'a Client,
}

impl Watch<'_> {
    async fn look(&mut self, id: &str) -> anyhow::Result<PublicationProgress> {
        let request = GetPublicationProgressRequest {
            publication_id: id.to_owned(),
        };
        let answer = async {
            match self.node.get_publication_progress(request).await {
                Ok(answer) => Ok(Some(answer.into_inner())),
                Err(status) if status.code() == Code::Unimplemented => Ok(None),
                Err(status) => Err(status),
            }
        };
        if let Some(seen) = self.client.within(answer).await? {
            return Ok(seen);
        }
        let request = GetPublicationRequest {
            publication_id: id.to_owned(),
        };
        let answer = self
            .client
            .within(self.publications.get_publication(request))
            .await?;
        let status = answer.into_inner().status;
        Ok(PublicationProgress {
            publication_id: id.to_owned(),
            // The numbers are the same in both services.
            state: status,
            recorded: status > i32::from(State::Pending),
            ..PublicationProgress::default()
        })
    }
}

async fn follow(watch: &mut Watch<'_>, id: &str, args: &Args) -> anyhow::Result<PublicationProgress> {
    let begun = moment();
    let bar = bar(args.wait)?;
    let mut said = false;
    loop {
        let seen = watch.look(id).await?;
        let over = matches!(seen.state(), State::Completed | State::Failed);
        let enough = if args.wait {
            args.wait_limit > 0 && begun.elapsed() >= Duration::from_secs(args.wait_limit)
        } else {
            seen.recorded || begun.elapsed() >= RECORDED_WITHIN
        };
        bar.set_length(seen.records);
        bar.set_position(seen.told);
        bar.set_message(if seen.waiting_for_peers {
            "no peers yet"
        } else {
            ""
        });
        if over || enough {
            bar.finish_and_clear();
            return Ok(seen);
        }
        if args.wait && seen.waiting_for_peers && bar.is_hidden() && !said {
            said = true;
            // Out of the way of the answer in every form: it is no answer.
            writeln!(
                std::io::stderr(),
                "no peers yet: the news of this publication waits for them"
            )?;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn bar(wanted: bool) -> anyhow::Result<ProgressBar> {
    if !wanted || !std::io::stderr().is_terminal() {
        return Ok(ProgressBar::hidden());
    }
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} records announced {msg}")?;
    Ok(ProgressBar::new(0).with_style(style))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publication_without_peers_says_so() {
        let mut seen = PublicationProgress {
            state: State::InProgress.into(),
            records: 2,
            told: 0,
            waiting_for_peers: true,
            ..PublicationProgress::default()
        };
        assert_eq!(
            message(&seen, 2),
            "in progress, 0 of 2 records announced: no peers yet"
        );
        seen.state = State::Completed.into();
        assert_eq!(message(&seen, 1), "completed, 1 record announced");
    }
}
