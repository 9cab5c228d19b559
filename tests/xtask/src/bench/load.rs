//! The load generator: streams that ask one thing at a time, with messages encoded beforehand and answers left encoded.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use dirnode_generator::Random;
use tokio::task::JoinSet;
use tonic::Status;
use tonic::transport::Channel;

use crate::clock;
use crate::grpc::{Lane, connect};

/// Streams that share one connection.
const LANES_PER_CONNECTION: usize = 16;

/// How fast something went.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rate {
    /// Answers a second.
    pub per_second: f64,
    /// Time of the median answer, in microseconds.
    pub p50_us: u32,
    /// Time that one answer in a hundred exceeds, in microseconds.
    pub p99_us: u32,
}

impl Rate {
    /// Of single times, taken within `elapsed`.
    #[expect(clippy::cast_precision_loss, reason = "counts are small")]
    pub fn new(mut times_us: Vec<u32>, elapsed: Duration) -> Self {
        times_us.sort_unstable();
        let at = |part: usize| {
            times_us
                .get(times_us.len() * part / 100)
                .copied()
                .unwrap_or_default()
        };
        Self {
            per_second: times_us.len() as f64 / elapsed.as_secs_f64(),
            p50_us: at(50),
            p99_us: at(99),
        }
    }

    /// The one of the middle by rate.
    pub fn median(mut rates: Vec<Self>) -> Self {
        rates.sort_by(|a, b| a.per_second.total_cmp(&b.per_second));
        rates.get(rates.len() / 2).copied().unwrap_or_default()
    }
}

/// A channel for each of so many streams; neighbours share a connection.
pub async fn channels(address: SocketAddr, streams: usize) -> anyhow::Result<Vec<Channel>> {
    let mut channels = Vec::with_capacity(streams);
    while channels.len() < streams {
        let channel = connect(address).await?;
        let share = LANES_PER_CONNECTION.min(streams - channels.len());
        channels.extend(std::iter::repeat_n(channel, share));
    }
    Ok(channels)
}

fn refused(method: &str, status: &Status) -> anyhow::Error {
    anyhow!("{method}: {:?}: {}", status.code(), status.message())
}

fn micros(begun: Instant) -> u32 {
    u32::try_from(begun.elapsed().as_micros()).unwrap_or(u32::MAX)
}

type Tasks = JoinSet<anyhow::Result<(Lane, Vec<u32>)>>;

async fn timed(tasks: Tasks, method: &'static str, begun: Instant) -> anyhow::Result<Rate> {
    let (mut times, mut lanes) = (Vec::new(), Vec::new());
    for part in tasks.join_all().await {
        let (lane, part) = part?;
        times.extend(part);
        lanes.push(lane);
    }
    let rate = Rate::new(times, begun.elapsed());
    for lane in lanes {
        lane.close().await.map_err(|status| refused(method, &status))?;
    }
    Ok(rate)
}

/// Sends every message once, over so many streams.
pub async fn send_all(
    address: SocketAddr,
    method: &'static str,
    streams: usize,
    messages: Vec<Bytes>,
) -> anyhow::Result<Rate> {
    let (messages, next) = (Arc::new(messages), Arc::new(AtomicUsize::new(0)));
    let mut tasks = Tasks::new();
    let mut lanes = Vec::new();
    for channel in channels(address, streams).await? {
        lanes.push(
            Lane::open(channel, method)
                .await
                .map_err(|status| refused(method, &status))?,
        );
    }
    let begun = clock::moment();
    for mut lane in lanes {
        let (messages, next) = (Arc::clone(&messages), Arc::clone(&next));
        tasks.spawn(async move {
            let mut times = Vec::new();
            while let Some(message) = messages.get(next.fetch_add(1, Ordering::Relaxed)) {
                let begun = clock::moment();
                lane.ask(message.clone())
                    .await
                    .map_err(|status| refused(method, &status))?;
                times.push(micros(begun));
            }
            Ok((lane, times))
        });
    }
    timed(tasks, method, begun).await
}

/// How the calls of a reading run are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Calls {
    /// One call a stream, which asks one thing after the other.
    Long,
    /// A call for each question, as a client makes that wants one record.
    Fresh,
}

/// Asks for random ones of `messages` for a while, over so many streams.
pub async fn ask_for(
    address: SocketAddr,
    method: &'static str,
    calls: Calls,
    streams: usize,
    messages: &Arc<Vec<Bytes>>,
    duration: Duration,
) -> anyhow::Result<Rate> {
    let mut tasks = Tasks::new();
    let channels = channels(address, streams).await?;
    let mut lanes = Vec::new();
    for channel in channels {
        let lane = Lane::open(channel.clone(), method)
            .await
            .map_err(|status| refused(method, &status))?;
        lanes.push((channel, lane));
    }
    let begun = clock::moment();
    for (place, (channel, mut lane)) in lanes.into_iter().enumerate() {
        let messages = Arc::clone(messages);
        tasks.spawn(async move {
            let mut random = Random::of(begun.elapsed().subsec_nanos().into(), place as u64);
            let mut times = Vec::new();
            while begun.elapsed() < duration {
                let message = random.pick(&messages).context("nothing to ask for")?.clone();
                let asked = clock::moment();
                let answer = match calls {
                    Calls::Long => lane.ask(message).await.map(drop),
                    Calls::Fresh => ask_once(channel.clone(), method, message).await,
                };
                answer.map_err(|status| refused(method, &status))?;
                times.push(micros(asked));
            }
            Ok((lane, times))
        });
    }
    timed(tasks, method, begun).await
}

async fn ask_once(channel: Channel, method: &'static str, message: Bytes) -> Result<(), Status> {
    let mut lane = Lane::open(channel, method).await?;
    lane.ask(message).await?;
    lane.close().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_medians_are_taken_in_order() {
        let rate = Rate::new((1..=100).rev().collect(), Duration::from_secs(2));
        assert_eq!((rate.per_second, rate.p50_us, rate.p99_us), (50.0, 51, 100));
        let of = |per_second| Rate {
            per_second,
            ..Rate::default()
        };
        assert_eq!(Rate::median(vec![of(3.0), of(1.0), of(2.0)]).per_second, 2.0);
        assert_eq!(Rate::median(Vec::new()).per_second, 0.0);
    }
}
