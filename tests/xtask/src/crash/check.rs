//! Looks for what a restarted node lost, kept against orders, or has by half.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use dirnode_generator::Generator;
use dirnode_proto::core::v1::{Record, RecordRef};
use dirnode_proto::naming::v1::ResolveRequest;
use dirnode_proto::naming::v1::naming_service_client::NamingServiceClient;
use dirnode_proto::store::v1::PullReferrerRequest;
use dirnode_proto::store::v1::store_service_client::StoreServiceClient;
use dirnode_record::{RecordCid, Referrer, to_canonical};
use tokio::task::JoinSet;
use tonic::transport::Channel;
use tonic::{Code, Streaming};

use super::ledger::{Held, Ledger, State};
use crate::process::Node;

/// Records that one stream of the check asks for.
const CHUNK: usize = 256;
/// Chunks under way at once.
const AT_ONCE: usize = 6;

/// What was found.
#[derive(Debug, Default)]
pub struct Findings {
    /// Acknowledged records and deletes that were looked at.
    pub checked: u64,
    /// Acknowledged pushes that are not there or not as they were sent.
    pub lost: u64,
    /// A sentence for each fault.
    pub faults: Vec<String>,
}

impl Findings {
    /// Adds what another check found.
    pub fn add(&mut self, other: Self) {
        self.checked += other.checked;
        self.lost += other.lost;
        self.faults.extend(other.faults);
    }

    /// An error that names the first faults, unless there are none.
    pub fn verdict(&self) -> anyhow::Result<()> {
        if self.faults.is_empty() {
            return Ok(());
        }
        let shown: Vec<String> = self
            .faults
            .iter()
            .take(20)
            .map(|fault| format!("  {fault}"))
            .collect();
        Err(anyhow!(
            "{} faults, {} acknowledged pushes lost:\n{}",
            self.faults.len(),
            self.lost,
            shown.join("\n")
        ))
    }
}

/// One record to look at.
struct Item {
    lane: usize,
    place: usize,
    number: u64,
    held: Held,
}

/// What a record turned out to be.
struct Settled {
    lane: usize,
    place: usize,
    held: Held,
}

/// Checks the chosen records and notes in the ledgers what became of unanswered requests.
pub async fn check(
    node: &Node,
    generator: &Arc<Generator>,
    ledgers: &mut [Ledger],
    chosen: impl Fn(&Held) -> bool,
) -> anyhow::Result<Findings> {
    let items: Vec<Item> = ledgers
        .iter()
        .enumerate()
        .flat_map(|(lane, ledger)| {
            ledger
                .records
                .iter()
                .enumerate()
                .map(move |(place, held)| (lane, place, ledger.number(place), held))
        })
        .filter(|(_, _, _, held)| chosen(held))
        .map(|(lane, place, number, held)| Item {
            lane,
            place,
            number,
            held: held.clone(),
        })
        .collect();
    let (plain, special): (Vec<Item>, Vec<Item>) = items
        .into_iter()
        .partition(|item| item.held.state == State::Stored);
    let channel = node.connect().await?;
    let mut findings = Findings::default();
    let mut running = JoinSet::new();
    let mut waiting = chunks(plain).into_iter().map(|chunk| (chunk, true));
    let mut special = chunks(special).into_iter().map(|chunk| (chunk, false));
    loop {
        while running.len() < AT_ONCE {
            let Some((chunk, stored)) = waiting.next().or_else(|| special.next()) else {
                break;
            };
            let checker = Checker {
                channel: channel.clone(),
                generator: Arc::clone(generator),
                findings: Findings::default(),
            };
            running.spawn(async move {
                if stored {
                    checker.stored(chunk).await
                } else {
                    checker.uncertain(chunk).await
                }
            });
        }
        let Some(done) = running.join_next().await else {
            break;
        };
        let (found, settled) = done.context("a check panicked")??;
        findings.add(found);
        for Settled { lane, place, held } in settled {
            if let Some(entry) = ledgers
                .get_mut(lane)
                .and_then(|ledger| ledger.records.get_mut(place))
            {
                *entry = held;
            }
        }
    }
    Ok(findings)
}

fn chunks(items: Vec<Item>) -> Vec<Vec<Item>> {
    let mut chunks: Vec<Vec<Item>> = Vec::new();
    for item in items {
        match chunks.last_mut() {
            Some(chunk) if chunk.len() < CHUNK => chunk.push(item),
            _ => chunks.push(vec![item]),
        }
    }
    chunks
}

struct Checker {
    channel: Channel,
    generator: Arc<Generator>,
    findings: Findings,
}

type Outcome = anyhow::Result<(Findings, Vec<Settled>)>;

impl Checker {
    fn store(&self) -> StoreServiceClient<Channel> {
        StoreServiceClient::new(self.channel.clone())
    }

    fn fault(&mut self, text: String) {
        self.findings.faults.push(text);
    }

    /// Acknowledged pushes: every one must be there, byte for byte.
    async fn stored(mut self, items: Vec<Item>) -> Outcome {
        let mut rest = items.as_slice();
        while !rest.is_empty() {
            let references: Vec<RecordRef> = rest
                .iter()
                .map(|item| RecordRef {
                    cid: item.held.cid.to_string(),
                })
                .collect();
            let mut answers = self
                .store()
                .pull(tokio_stream::iter(references))
                .await?
                .into_inner();
            while let Some((item, tail)) = rest.split_first() {
                rest = tail;
                self.findings.checked += 1;
                let answer = answers.message().await;
                if rest.is_empty() && answer.is_ok() {
                    to_the_end(&mut answers).await?;
                }
                match answer {
                    Ok(Some(record)) => {
                        if let Err(error) = self.same(item, &record) {
                            self.findings.lost += 1;
                            self.fault(format!("{error:#}"));
                        }
                    }
                    Ok(None) => return Err(anyhow!("the node ended a Pull stream before all was answered")),
                    // The first failing item ends the stream; the others are asked for again.
                    Err(status) => {
                        self.findings.lost += 1;
                        self.fault(format!(
                            "record {} ({}) was acknowledged in round {} and is lost: {:?} {}",
                            item.number,
                            item.held.cid,
                            item.held.round,
                            status.code(),
                            status.message()
                        ));
                        break;
                    }
                }
            }
        }
        let settled = self.referrers(items).await?;
        Ok((self.findings, settled))
    }

    /// Deletes, and what was under way when the node went: there in full or not at all.
    async fn uncertain(mut self, items: Vec<Item>) -> Outcome {
        let mut present = Vec::new();
        let mut settled = Vec::new();
        for mut item in items {
            let there = self.is_there(&item).await?;
            match (item.held.state, there) {
                (State::Deleted, true) => {
                    self.fault(format!(
                        "record {} ({}) was deleted and is back",
                        item.number, item.held.cid
                    ));
                }
                (_, true) => {
                    item.held.state = State::Stored;
                    present.push(item);
                    continue;
                }
                (_, false) => {
                    item.held.state = State::Deleted;
                    item.held.referrers.clear();
                }
            }
            self.findings.checked += 1;
            let Item {
                lane, place, held, ..
            } = item;
            settled.push(Settled { lane, place, held });
        }
        settled.extend(self.referrers(present).await?);
        Ok((self.findings, settled))
    }

    /// Asks in every way there is; the answers must agree.
    async fn is_there(&mut self, item: &Item) -> anyhow::Result<bool> {
        let cid = item.held.cid.to_string();
        let reference = || tokio_stream::once(RecordRef { cid: cid.clone() });
        let pulled = async { the_one(self.store().pull(reference()).await?.into_inner()).await };
        let pulled = absent_or(pulled.await)?;
        let looked_up = async { the_one(self.store().lookup(reference()).await?.into_inner()).await };
        let looked_up = absent_or(looked_up.await)?.is_some();
        let name = self.generator.name(item.number);
        let request = ResolveRequest { name, version: None };
        let resolved = absent_or(
            NamingServiceClient::new(self.channel.clone())
                .resolve(request)
                .await
                .map(Some),
        )?;
        let resolved =
            resolved.is_some_and(|found| found.into_inner().records.iter().any(|found| found.cid == cid));
        let there = pulled.is_some();
        if there != looked_up || there != resolved {
            self.fault(format!(
                "record {} ({cid}) is half there: pull {there}, lookup {looked_up}, resolve {resolved}",
                item.number
            ));
        }
        if let Some(record) = pulled {
            if let Err(error) = self.same(item, &record) {
                self.fault(format!("{error:#}"));
            }
        } else {
            let request = tokio_stream::once(referrers_of(item.held.cid));
            let left = async { the_one(self.store().pull_referrer(request).await?.into_inner()).await };
            if absent_or(left.await)?.is_some_and(|answer| answer.referrer.is_some()) {
                self.fault(format!(
                    "record {} ({cid}) is gone and has referrers still",
                    item.number
                ));
            }
        }
        Ok(there)
    }

    fn same(&self, item: &Item, record: &Record) -> anyhow::Result<()> {
        let expected = self.generator.make(item.number).canonical;
        let actual = record
            .data
            .as_ref()
            .map(to_canonical)
            .transpose()?
            .unwrap_or_default();
        if actual == expected {
            return Ok(());
        }
        Err(anyhow!(
            "record {} ({}) came back with {} bytes that are not the {} bytes sent",
            item.number,
            item.held.cid,
            actual.len(),
            expected.len()
        ))
    }

    /// The referrers of records that are there: all that were acknowledged, none that was never sent.
    async fn referrers(&mut self, mut items: Vec<Item>) -> anyhow::Result<Vec<Settled>> {
        // Those without any are asked about as well: what hung on a record before it was deleted must not be back when
        // the record is pushed again.
        let requests: Vec<PullReferrerRequest> =
            items.iter().map(|item| referrers_of(item.held.cid)).collect();
        let mut found: BTreeMap<String, BTreeSet<RecordCid>> = BTreeMap::new();
        let mut answers = self
            .store()
            .pull_referrer(tokio_stream::iter(requests))
            .await?
            .into_inner();
        while let Some(answer) = answers.message().await? {
            let Some(referrer) = answer.referrer else { continue };
            let record_cid = referrer.record_ref.map(|reference| reference.cid);
            let document = Referrer {
                kind: referrer.r#type,
                record_cid: record_cid.clone(),
                annotations: referrer.annotations.into_iter().collect(),
                created_at: referrer.created_at,
                data: referrer.data,
                referrer_ref: None,
            };
            let (said, actual) = (
                referrer.referrer_ref.map(|found| found.cid).unwrap_or_default(),
                document.cid()?,
            );
            if said != actual.to_string() {
                self.fault(format!(
                    "referrer {said} came back with other content, which hashes to {actual}"
                ));
            }
            found
                .entry(record_cid.unwrap_or_default())
                .or_default()
                .insert(actual);
        }
        for item in &mut items {
            let there = found.remove(&item.held.cid.to_string()).unwrap_or_default();
            for referrer in item
                .held
                .referrers
                .iter()
                .filter(|referrer| referrer.acknowledged)
            {
                if !there.contains(&referrer.cid) {
                    self.findings.faults.push(format!(
                        "referrer {} of record {} ({}) was acknowledged and is lost",
                        referrer.cid, item.number, item.held.cid
                    ));
                }
            }
            let known: BTreeSet<RecordCid> =
                item.held.referrers.iter().map(|referrer| referrer.cid).collect();
            if let Some(odd) = there.iter().find(|cid| !known.contains(cid)) {
                self.findings.faults.push(format!(
                    "record {} ({}) has a referrer {odd} that was deleted with it or never sent",
                    item.number, item.held.cid
                ));
            }
            for referrer in &mut item.held.referrers {
                referrer.acknowledged |= there.contains(&referrer.cid);
            }
        }
        Ok(items
            .into_iter()
            .map(
                |Item {
                     lane, place, held, ..
                 }| Settled { lane, place, held },
            )
            .collect())
    }
}

fn referrers_of(record: RecordCid) -> PullReferrerRequest {
    PullReferrerRequest {
        record_ref: Some(RecordRef {
            cid: record.to_string(),
        }),
        referrer_type: None,
        referrer_ref: None,
    }
}

/// The first answer of a stream, which is read to its end.
async fn the_one<T>(mut answers: Streaming<T>) -> Result<Option<T>, tonic::Status> {
    let first = answers.message().await?;
    to_the_end(&mut answers).await?;
    Ok(first)
}

/// Reads what is left of a stream. One that is dropped before its end is reset, and after a thousand resets the HTTP/2
/// library of this client closes the connection.
async fn to_the_end<T>(answers: &mut Streaming<T>) -> Result<(), tonic::Status> {
    while answers.message().await?.is_some() {}
    Ok(())
}

/// Not found is an answer here; everything else is a failure.
fn absent_or<T>(answer: Result<Option<T>, tonic::Status>) -> anyhow::Result<Option<T>> {
    match answer {
        Ok(found) => Ok(found),
        Err(status) if status.code() == Code::NotFound => Ok(None),
        Err(status) => Err(anyhow!(
            "the node answered {:?}: {}",
            status.code(),
            status.message()
        )),
    }
}
