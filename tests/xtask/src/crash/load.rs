//! The load of a crash run: streams that push, push again, attach referrers and delete, until the node is gone.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use dirnode_generator::{Generator, Random};
use dirnode_proto::core::v1::{RecordRef, ReferrerRef};
use dirnode_proto::store::v1::store_service_client::StoreServiceClient;
use dirnode_proto::store::v1::{PushReferrerRequest, PushReferrerResponse};
use dirnode_record::RecordCid;
use prost::Message as _;
use tokio::task::JoinSet;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::ledger::{HeldReferrer, Ledger, State, make_referrer};
use crate::grpc::Lane;
use crate::process::Node;

const PUSH: &str = "/agntcy.dir.store.v1.StoreService/Push";
const PUSH_REFERRER: &str = "/agntcy.dir.store.v1.StoreService/PushReferrer";
/// Streams that share one connection.
const LANES_PER_CONNECTION: usize = 4;

/// How a stream came to its end.
enum Ended {
    /// The node went away, as it was meant to.
    Cut,
    /// The node said something it must not say.
    Wrong(anyhow::Error),
}

impl From<Status> for Ended {
    fn from(status: Status) -> Self {
        // A broken connection shows as one of these; a living node answers this load with none of them.
        if matches!(
            status.code(),
            Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal
        ) && !status.message().starts_with("failed to")
        {
            Self::Cut
        } else {
            Self::Wrong(anyhow::anyhow!(
                "the node answered {:?}: {}",
                status.code(),
                status.message()
            ))
        }
    }
}

/// Streams under way.
pub struct Load {
    lanes: JoinSet<(Ledger, Ended)>,
}

impl Load {
    /// Starts one stream per ledger.
    pub async fn start(
        node: &Node,
        generator: &Arc<Generator>,
        ledgers: Vec<Ledger>,
        seed: u64,
        round: u32,
    ) -> anyhow::Result<Self> {
        let mut lanes = JoinSet::new();
        let mut channel = node.connect().await?;
        for (place, ledger) in ledgers.into_iter().enumerate() {
            if place > 0 && place % LANES_PER_CONNECTION == 0 {
                channel = node.connect().await?;
            }
            let random = Random::of(seed ^ (u64::from(round) << 32), place as u64);
            let mut lane = Driver {
                channel: channel.clone(),
                generator: Arc::clone(generator),
                ledger,
                random,
                round,
            };
            lanes.spawn(async move {
                let ended = match lane.drive().await {
                    Ok(never) => never,
                    Err(ended) => ended,
                };
                (lane.ledger, ended)
            });
        }
        Ok(Self { lanes })
    }

    /// Waits until every stream has ended, which they do when the node is gone, and gives the ledgers back.
    pub async fn end(mut self) -> anyhow::Result<Vec<Ledger>> {
        let mut ledgers = Vec::new();
        let mut wrong = None;
        while let Some(ended) = self.lanes.join_next().await {
            let (ledger, ended) = ended.context("a stream of the load panicked")?;
            ledgers.push(ledger);
            if let Ended::Wrong(error) = ended {
                wrong = Some(error);
            }
        }
        ledgers.sort_by_key(|ledger| ledger.number(0));
        match wrong {
            Some(error) => Err(error),
            None => Ok(ledgers),
        }
    }
}

/// One stream.
struct Driver {
    channel: Channel,
    generator: Arc<Generator>,
    ledger: Ledger,
    random: Random,
    round: u32,
}

impl Driver {
    async fn drive(&mut self) -> Result<Ended, Ended> {
        let mut pushes = Lane::open(self.channel.clone(), PUSH).await?;
        let mut referrers = Lane::open(self.channel.clone(), PUSH_REFERRER).await?;
        loop {
            match self.random.below(100) {
                0..=4 => match self.ledger.find(State::Stored, &mut self.random) {
                    Some(place) => self.push_again(&mut pushes, place).await?,
                    None => self.push_new(&mut pushes).await?,
                },
                5..=6 => match self.ledger.find(State::Deleted, &mut self.random) {
                    Some(place) => self.push_again(&mut pushes, place).await?,
                    None => self.push_new(&mut pushes).await?,
                },
                7..=14 => match self.ledger.find(State::Stored, &mut self.random) {
                    Some(place) => self.attach(&mut referrers, place).await?,
                    None => self.push_new(&mut pushes).await?,
                },
                15..=18 => match self.ledger.find(State::Stored, &mut self.random) {
                    Some(place) => self.delete(place).await?,
                    None => self.push_new(&mut pushes).await?,
                },
                _ => self.push_new(&mut pushes).await?,
            }
        }
    }

    async fn push_new(&mut self, pushes: &mut Lane) -> Result<(), Ended> {
        let (place, made) = self.ledger.fresh(&self.generator, self.round);
        self.push(pushes, place, made.message).await
    }

    async fn push_again(&mut self, pushes: &mut Lane, place: usize) -> Result<(), Ended> {
        let made = self.generator.make(self.ledger.number(place));
        if let Some(held) = self.ledger.records.get_mut(place) {
            held.round = self.round;
            if held.state == State::Deleted {
                held.state = State::Pushing;
            }
        }
        self.push(pushes, place, made.message).await
    }

    async fn push(&mut self, pushes: &mut Lane, place: usize, message: Vec<u8>) -> Result<(), Ended> {
        let answer = pushes.ask(Bytes::from(message)).await?;
        let Some(held) = self.ledger.records.get_mut(place) else {
            return Ok(());
        };
        check_cid(
            held.cid,
            RecordRef::decode(answer)
                .map(|answer| answer.cid)
                .unwrap_or_default(),
        )?;
        held.state = State::Stored;
        self.ledger.pushes += 1;
        Ok(())
    }

    async fn attach(&mut self, referrers: &mut Lane, place: usize) -> Result<(), Ended> {
        let Some(held) = self.ledger.records.get_mut(place) else {
            return Ok(());
        };
        let referrer = make_referrer(held.cid, held.referrers.len());
        let cid = referrer.cid().map_err(|error| Ended::Wrong(error.into()))?;
        held.round = self.round;
        held.referrers.push(HeldReferrer {
            cid,
            acknowledged: false,
        });
        let request = PushReferrerRequest {
            record_ref: Some(RecordRef {
                cid: held.cid.to_string(),
            }),
            r#type: referrer.kind.clone(),
            annotations: referrer.annotations.clone().into_iter().collect(),
            created_at: referrer.created_at.clone(),
            data: referrer.data,
        };
        let answer = referrers.ask(Bytes::from(request.encode_to_vec())).await?;
        let answer = PushReferrerResponse::decode(answer).map_err(|error| Ended::Wrong(error.into()))?;
        if !answer.success {
            return Err(Ended::Wrong(anyhow::anyhow!(
                "a referrer was refused: {}",
                answer.error_message()
            )));
        }
        let said = answer
            .referrer_ref
            .map(|ReferrerRef { cid }| cid)
            .unwrap_or_default();
        check_cid(cid, said)?;
        if let Some(referrer) = held.referrers.last_mut() {
            referrer.acknowledged = true;
        }
        self.ledger.referrers += 1;
        Ok(())
    }

    async fn delete(&mut self, place: usize) -> Result<(), Ended> {
        let Some(held) = self.ledger.records.get_mut(place) else {
            return Ok(());
        };
        held.round = self.round;
        held.state = State::Deleting;
        let request = tokio_stream::once(RecordRef {
            cid: held.cid.to_string(),
        });
        StoreServiceClient::new(self.channel.clone())
            .delete(request)
            .await?;
        held.state = State::Deleted;
        held.referrers.clear();
        self.ledger.deletes += 1;
        Ok(())
    }
}

fn check_cid(expected: RecordCid, said: String) -> Result<(), Ended> {
    let check = || {
        if said != expected.to_string() {
            bail!("the node calls {expected} {said:?}");
        }
        Ok(())
    };
    check().map_err(Ended::Wrong)
}
