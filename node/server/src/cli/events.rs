//! `dirnode events`: what happens on a node, until Ctrl-C.

use anyhow::{anyhow, bail};
use dirnode_proto::events::v1::event_service_client::EventServiceClient;
use dirnode_proto::events::v1::{Event, EventType, ListenRequest};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::client::{Client, describe};
use super::output::{self, Format};
use super::{OutputArgs, ServerArgs};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    dirnode events\n  \
    dirnode events --types RECORD_PUSHED,RECORD_DELETED -o jsonl\n  \
    dirnode events --labels /skills/ --count 1")]
pub(crate) struct Args {
    /// Accepted and ignored: `events listen` is the same as `events`
    #[arg(hide = true, value_parser = ["listen"])]
    listen: Option<String>,
    /// Only these types, such as RECORD_PUSHED
    #[arg(long, value_delimiter = ',', value_name = "TYPE")]
    types: Vec<String>,
    /// Only events with a label that contains one of these
    #[arg(long, value_delimiter = ',', value_name = "TEXT")]
    labels: Vec<String>,
    /// Only events about these CIDs
    #[arg(long, value_delimiter = ',', value_name = "CID")]
    cids: Vec<String>,
    /// End after this many events
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    server: ServerArgs,
}

/// A type by name, with or without its prefix, or by number.
fn event_type(text: &str) -> anyhow::Result<i32> {
    let name = text.trim().to_uppercase();
    let full = if name.starts_with("EVENT_TYPE_") {
        name.clone()
    } else {
        format!("EVENT_TYPE_{name}")
    };
    if let Some(kind) = EventType::from_str_name(&full) {
        return Ok(kind.into());
    }
    match name.parse::<i32>().map(EventType::try_from) {
        Ok(Ok(kind)) => Ok(kind.into()),
        _ => {
            let known: Vec<&str> = (1..)
                .map_while(|number| EventType::try_from(number).ok())
                .map(|kind| kind.as_str_name().trim_start_matches("EVENT_TYPE_"))
                .collect();
            Err(anyhow!(
                "{text:?} is no event type; there are {}",
                known.join(", ")
            ))
        }
    }
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let format = args.output.or(Format::Human);
    let event_types = args
        .types
        .iter()
        .map(|text| event_type(text))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let request = ListenRequest {
        event_types,
        label_filters: args.labels,
        cid_filters: args.cids,
    };
    let client = Client::connect(&args.server).await?;
    let mut service = EventServiceClient::new(client.channel());
    let mut events = client.within(service.listen(request)).await?.into_inner();
    output_remark_listening(format)?;
    let mut left = args.count.unwrap_or(u64::MAX);
    while left > 0 {
        let answer = tokio::select! {
            answer = events.message() => answer.map_err(|status| describe(&status))?,
            _ = tokio::signal::ctrl_c() => return Ok(()),
        };
        let Some(answer) = answer else {
            bail!("the node ended the stream; is it stopping?")
        };
        if let Some(event) = answer.event {
            show(format, &event)?;
            left -= 1;
        }
    }
    Ok(())
}

fn output_remark_listening(format: Format) -> anyhow::Result<()> {
    use std::io::IsTerminal as _;
    if format == Format::Human && std::io::stdout().is_terminal() {
        output::line("Listening, Ctrl-C ends it")?;
    }
    Ok(())
}

fn show(format: Format, event: &Event) -> anyhow::Result<()> {
    let kind = event.r#type().as_str_name();
    let at = event.timestamp.as_ref().and_then(|stamp| {
        let at = OffsetDateTime::from_unix_timestamp(stamp.seconds).ok()?;
        at.replace_nanosecond(u32::try_from(stamp.nanos).ok()?).ok()
    });
    match format {
        Format::Raw => output::line(&event.resource_id),
        Format::Human => {
            let clock = at.map_or_else(String::new, |at| {
                format!("{:02}:{:02}:{:02}", at.hour(), at.minute(), at.second())
            });
            let labels = if event.labels.is_empty() {
                String::new()
            } else {
                format!(" (labels: {})", event.labels.join(", "))
            };
            output::line(&format!(
                "[{clock}] {}: {}{labels}",
                kind.trim_start_matches("EVENT_TYPE_"),
                event.resource_id
            ))
        }
        Format::Json | Format::Jsonl => {
            let value: Value = json!({
                "id": event.id,
                "type": kind,
                "timestamp": at.and_then(|at| at.format(&Rfc3339).ok()),
                "resource_id": event.resource_id,
                "labels": event.labels,
                "metadata": event.metadata,
            });
            if format == Format::Json {
                output::json(&value)
            } else {
                output::json_line(&value)
            }
        }
    }
}
