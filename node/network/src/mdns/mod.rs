//! Finding nodes of this network on the same link, by multicast DNS.
//!
//! One small task: it asks now and then, more seldom as time goes by; answers others who ask; and tells of the peers
//! that answer, a few new ones a minute. The service's name has a form of its own, which the library's discovery cannot
//! be taught. Never dials, never judges, never leaves the link. Soft state. Follows p2p-wire §1.5, RFC 6762 and
//! RFC 6763; answers go to the group only, never to a single address.
//!
//! Unrelated nodes on one link merge into one network this way, so it is off unless asked for.

mod neighbours;
mod packet;
mod socket;

use std::time::Duration;

use libp2p::{Multiaddr, PeerId};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use rand::Rng;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use neighbours::Neighbours;
use packet::Names;
pub use packet::{MAX_ADDRESSES, MAX_PACKET_BYTES};
use socket::{Sockets, links};

/// The name nodes of this network ask for.
pub const SERVICE: &str = "agntcy-dir-local-discovery";
/// Port of multicast DNS.
const PORT: u16 = 5353;
/// Neighbours found and not taken. A minute's worth of them.
const QUEUE: usize = 64;
/// First pause between questions; each is twice the one before.
const FIRST_PAUSE: Duration = Duration::from_secs(4);
/// Longest pause between questions.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// An answer waits for others who may ask the same, and follows the one before by a second at the least
/// (RFC 6762 §6).
const ANSWER_DELAY: Duration = Duration::from_millis(70);
const ANSWER_PAUSE: Duration = Duration::from_secs(1);
const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";

/// Why discovery cannot begin.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MdnsError {
    /// A name or a packet cannot be put in the form DNS has.
    #[error("not expressible in dns")]
    Dns(#[from] simple_dns::SimpleDnsError),
    /// The machine does not tell its interfaces.
    #[error("interfaces cannot be listed")]
    Interfaces(#[source] std::io::Error),
}

/// What discovery is given.
#[derive(Debug, Clone)]
pub struct MdnsConfig {
    /// Ourselves; our own answers are not news.
    pub local_peer: PeerId,
    /// New or changed neighbours told of in a minute.
    pub max_new_per_minute: usize,
    /// For tests: speak on the loopback interface, and nowhere else, on this port.
    #[doc(hidden)]
    pub loopback_port: Option<u16>,
}

impl MdnsConfig {
    /// The usual settings.
    #[must_use]
    pub fn new(local_peer: PeerId) -> Self {
        Self {
            local_peer,
            max_new_per_minute: 30,
            loopback_port: None,
        }
    }
}

/// A peer on the link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    /// Who it says it is; the handshake will show.
    pub peer: PeerId,
    /// Its full addresses, each ending in its peer id: 1 to [`MAX_ADDRESSES`].
    pub addresses: Vec<Multiaddr>,
}

/// Counters of discovery. Clones count together.
#[derive(Debug, Clone, Default)]
pub struct MdnsMetrics {
    /// Packets read.
    pub packets: Counter,
    /// Neighbours told of.
    pub found: Counter,
    /// Neighbours not told of because nobody took the ones before.
    pub dropped: Counter,
    /// Answers sent.
    pub answers: Counter,
}

impl MdnsMetrics {
    /// Makes the counters known under `mdns_*`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("mdns");
        registry.register("packets", "Packets read", self.packets.clone());
        registry.register("found", "Neighbours told of", self.found.clone());
        registry.register(
            "dropped",
            "Neighbours the queue had no room for",
            self.dropped.clone(),
        );
        registry.register("answers", "Answers sent", self.answers.clone());
    }
}

/// The task. Made by [`Mdns::new`], does nothing before [`Mdns::run`] is spawned.
#[derive(Debug)]
pub struct Mdns {
    config: MdnsConfig,
    names: Names,
    listening: watch::Receiver<Vec<Multiaddr>>,
    found: mpsc::Sender<Neighbour>,
    metrics: MdnsMetrics,
}

impl Mdns {
    /// A task that tells others of the addresses in `listening`, as they are at each moment, and tells the receiver of
    /// others. `rng` makes the instance's name, which says nothing about us.
    ///
    /// # Errors
    /// [`MdnsError::Dns`] if the names cannot be expressed, which the constants here can.
    pub fn new(
        config: MdnsConfig,
        listening: watch::Receiver<Vec<Multiaddr>>,
        rng: &mut impl Rng,
    ) -> Result<(Self, mpsc::Receiver<Neighbour>), MdnsError> {
        let names = Names::new(SERVICE, &instance_name(rng))?;
        let (found, receiver) = mpsc::channel(QUEUE);
        let task = Self {
            config,
            names,
            listening,
            found,
            metrics: MdnsMetrics::default(),
        };
        Ok((task, receiver))
    }

    /// The counters; clones count together.
    #[must_use]
    pub fn metrics(&self) -> &MdnsMetrics {
        &self.metrics
    }

    /// Asks and answers until `stop`, then says goodbye.
    ///
    /// # Errors
    /// [`MdnsError::Interfaces`] at the start. A machine without a suitable interface is no error: one may come.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), MdnsError> {
        let port = self.config.loopback_port.unwrap_or(PORT);
        let loopback = self.config.loopback_port.is_some();
        let mut sockets = Sockets::open(links(loopback).map_err(MdnsError::Interfaces)?, port);
        if sockets.is_empty() {
            tracing::warn!(component = "mdns", "no supported interface for local discovery");
        }
        let question = self.names.question()?;
        let mut neighbours = Neighbours::new(self.config.max_new_per_minute);
        let mut buffer = vec![0; MAX_PACKET_BYTES];
        let began = Instant::now();
        let mut ask_at = began;
        let mut pause = FIRST_PAUSE;
        // Nobody asked, but those who listen need not wait for their next question.
        let mut answer_at = Some(began + ANSWER_DELAY);
        let mut answered_at = None::<Instant>;
        loop {
            let answer_due = answer_at.unwrap_or(ask_at);
            tokio::select! {
                () = stop.cancelled() => break,
                length = sockets.receive(&mut buffer) => {
                    self.metrics.packets.inc();
                    let heard = self.names.hear(buffer.get(..length).unwrap_or_default(), self.config.local_peer);
                    if heard.asked && answer_at.is_none() {
                        let soon = Instant::now() + ANSWER_DELAY;
                        answer_at = Some(answered_at.map_or(soon, |before| soon.max(before + ANSWER_PAUSE)));
                    }
                    for (peer, addresses) in heard.peers {
                        self.tell(peer, addresses, &mut neighbours, began.elapsed());
                    }
                }
                () = sleep_until(answer_due), if answer_at.is_some() => {
                    self.answer(&sockets, false).await;
                    answer_at = None;
                    answered_at = Some(Instant::now());
                }
                changed = self.listening.changed() => {
                    if changed.is_err() {
                        // Whoever knows our addresses is gone, and so are we.
                        break;
                    }
                    answer_at.get_or_insert(Instant::now() + ANSWER_PAUSE);
                }
                () = sleep_until(ask_at) => {
                    match links(loopback) {
                        Ok(links) if links != sockets.links() => sockets = Sockets::open(links, port),
                        Ok(_) => {}
                        Err(error) => tracing::debug!(component = "mdns", %error, "interfaces cannot be listed"),
                    }
                    sockets.send(&question).await;
                    ask_at = Instant::now() + pause;
                    pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
                }
            }
        }
        self.answer(&sockets, true).await;
        Ok(())
    }

    async fn answer(&self, sockets: &Sockets, leaving: bool) {
        let addresses: Vec<Multiaddr> = self.listening.borrow().clone();
        match self.names.answer(&addresses, self.config.local_peer, leaving) {
            Ok(Some(packet)) => {
                sockets.send(&packet).await;
                self.metrics.answers.inc();
            }
            Ok(None) => {}
            Err(error) => tracing::debug!(component = "mdns", %error, "answer cannot be expressed"),
        }
    }

    fn tell(&self, peer: PeerId, addresses: Vec<Multiaddr>, neighbours: &mut Neighbours, now: Duration) {
        if !neighbours.is_news(peer, &addresses, now) {
            return;
        }
        if self.found.try_send(Neighbour { peer, addresses }).is_ok() {
            self.metrics.found.inc();
        } else {
            neighbours.forget(&peer);
            self.metrics.dropped.inc();
        }
    }
}

/// 32 to 63 random letters and digits.
fn instance_name(rng: &mut impl Rng) -> String {
    let length = 32 + rng.next_u32() % 32;
    (0..length)
        .filter_map(|_| {
            let at = usize::try_from(rng.next_u32() % 36).ok()?;
            ALPHABET.get(at).copied().map(char::from)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng as _;

    use super::*;

    #[test]
    fn instances_have_names_of_the_network_s_form() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let names: Vec<String> = (0..1000).map(|_| instance_name(&mut rng)).collect();
        assert!(names.iter().all(|name| (32..=63).contains(&name.len())));
        assert!(names.iter().any(|name| name.len() == 32) && names.iter().any(|name| name.len() == 63));
        assert!(
            names
                .iter()
                .flat_map(|name| name.bytes())
                .all(|byte| ALPHABET.contains(&byte))
        );
    }

    /// Two tasks on the loopback interface find each other, where the machine lets them.
    #[tokio::test]
    async fn two_instances_find_each_other() {
        let port = 20_000 + rand::random::<u16>() % 20_000;
        let node = |seed: u64, at: &str| {
            let peer = PeerId::random();
            let config = MdnsConfig {
                loopback_port: Some(port),
                ..MdnsConfig::new(peer)
            };
            let address: Multiaddr = at.parse().unwrap();
            let (listening, receiver) = watch::channel(vec![address.clone()]);
            let (task, found) = Mdns::new(config, receiver, &mut ChaCha8Rng::seed_from_u64(seed)).unwrap();
            (peer, address.with_p2p(peer).unwrap(), listening, task, found)
        };
        let (one_peer, one_address, _one_listens, one, mut one_found) = node(1, "/ip4/10.0.0.1/tcp/1");
        let (two_peer, two_address, _two_listens, two, mut two_found) =
            node(2, "/ip4/10.0.0.2/udp/2/quic-v1");
        if Sockets::open(links(true).unwrap(), port).is_empty() {
            println!("SKIPPED: no multicast on the loopback interface of this machine");
            return;
        }
        let stop = CancellationToken::new();
        let (heard_one, heard_two) = (two.metrics().clone(), one.metrics().clone());
        let talk = async {
            let both = async { tokio::join!(one_found.recv(), two_found.recv()) };
            let met = tokio::time::timeout(Duration::from_secs(15), both).await;
            stop.cancel();
            met
        };
        let (met, ended_one, ended_two) = tokio::join!(talk, one.run(stop.clone()), two.run(stop.clone()));
        ended_one.unwrap();
        ended_two.unwrap();
        if heard_one.packets.get() + heard_two.packets.get() == 0 {
            println!("SKIPPED: multicast on the loopback interface of this machine reaches nobody");
            return;
        }
        let (by_one, by_two) = met.unwrap();
        let neighbour = |peer, address| {
            Some(Neighbour {
                peer,
                addresses: vec![address],
            })
        };
        assert_eq!(by_one, neighbour(two_peer, two_address));
        assert_eq!(by_two, neighbour(one_peer, one_address));
    }
}
