//! `dirnode routing info`: what the node announces, counted by label.

use std::collections::BTreeMap;

use dirnode_proto::routing::v1::ListResponse;
use serde_json::{Value, json};

use super::super::client::Client;
use super::super::output::{self, Format};
use super::super::{OutputArgs, ServerArgs};
use super::listed;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    dirnode routing info\n  \
    dirnode routing info -o json | jq .skills")]
pub(crate) struct Args {
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    server: ServerArgs,
}

/// Records by label.
#[derive(Debug, Default, PartialEq, Eq)]
struct Totals {
    records: usize,
    skills: BTreeMap<String, u64>,
    locators: BTreeMap<String, u64>,
    others: BTreeMap<String, u64>,
}

fn totals(found: &[ListResponse]) -> Totals {
    let mut totals = Totals {
        records: found.len(),
        ..Totals::default()
    };
    for label in found.iter().flat_map(|item| &item.labels) {
        let (group, name) = if let Some(name) = label.strip_prefix("/skills/") {
            (&mut totals.skills, name)
        } else if let Some(name) = label.strip_prefix("/locators/") {
            (&mut totals.locators, name)
        } else {
            (&mut totals.others, label.as_str())
        };
        *group.entry(name.to_owned()).or_default() += 1;
    }
    totals
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let client = Client::connect(&args.server).await?;
    let totals = totals(&listed(&client).await?);
    let value: Value = json!({
        "totalRecords": totals.records,
        "skills": totals.skills,
        "locators": totals.locators,
        "otherLabels": totals.others,
    });
    match args.output.or(Format::Human) {
        Format::Json => output::json(&value),
        Format::Jsonl => output::json_line(&value),
        Format::Raw => output::raw(totals.records.to_string().as_bytes()),
        Format::Human => {
            output::line(&format!("Published records: {}", totals.records))?;
            for (name, group) in [
                ("Skills", &totals.skills),
                ("Locators", &totals.locators),
                ("Other labels", &totals.others),
            ] {
                if !group.is_empty() {
                    output::line(&format!("{name}:"))?;
                }
                group
                    .iter()
                    .try_for_each(|(label, count)| output::line(&format!("  {label}: {count}")))?;
            }
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_counted_by_their_namespace() {
        let item = |labels: &[&str]| ListResponse {
            record_ref: None,
            labels: labels.iter().map(|label| (*label).to_owned()).collect(),
        };
        let totals = totals(&[
            item(&["/skills/a/b", "/domains/c"]),
            item(&["/skills/a/b", "/locators/docker_image"]),
        ]);
        assert_eq!(totals.records, 2);
        assert_eq!(totals.skills, BTreeMap::from([("a/b".to_owned(), 2)]));
        assert_eq!(totals.locators, BTreeMap::from([("docker_image".to_owned(), 1)]));
        assert_eq!(totals.others, BTreeMap::from([("/domains/c".to_owned(), 1)]));
    }
}
