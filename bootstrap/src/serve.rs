//! A running bootstrap node: puts key, network and pages together, judges what passes, and stops in order.
//!
//! Decides nothing but the verdict on announcements, which `judge` gives. Stopping: not ready any more, the network
//! closes, the pages end. A task that dies takes the node down.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use dirnode_identity::Loaded;
use dirnode_network::config::peer_of;
use dirnode_network::{Announced, Multiaddr, Network, NetworkEvent, NetworkHandle, PeerId};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::http::{self, Offer, Pages};
use crate::judge::{Heard, Judge, Reason};
use crate::listing::{self, Listing};
use crate::settings::Settings;

/// After the first open address the others of the same listener follow at once.
const SETTLE: Duration = Duration::from_millis(500);
/// What the network may take to close its connections.
const CLOSE_WITHIN: Duration = Duration::from_secs(10);
/// What a question of the readiness page may take.
const STATUS_WITHIN: Duration = Duration::from_secs(2);

/// Runs a node until SIGTERM or SIGINT. `print` asks for the listing in plain text, with that domain in it.
///
/// # Errors
/// What keeps the node from starting, or that the network ended by itself.
pub async fn run(settings: Settings, key: Loaded, print: Option<Option<String>>) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut registry = Registry::default();
    let announcements = Announcements::register(&mut registry);
    let pages_on = open_pages(&settings).await?;
    let announce = settings.network.announce.clone();
    let mut network = Network::start(settings.network, &key.key, None, &mut registry, clock::runtime())?;
    let peer = network.handle.id();
    tracing::info!(component = "network", %peer, role = network.handle.role().name(), "starting");

    let stop = CancellationToken::new();
    let pages = Arc::new(NodePages {
        registry,
        handle: network.handle.clone(),
        stopping: stop.clone(),
    });
    for (listener, offer) in pages_on {
        let address = listener.local_addr()?;
        let component = if offer == Offer::Everything {
            "metrics"
        } else {
            "health"
        };
        tracing::info!(component, %address, "listening");
        clock::spawn(
            "http",
            http::serve(listener, Arc::clone(&pages), offer, stop.clone()),
        );
    }
    let (ended_tell, mut ended) = oneshot::channel::<()>();
    let task = network.task;
    clock::spawn("network", async move {
        // Dropped on every way out, a panic included.
        let _ended_tell = ended_tell;
        task.await;
    });

    let mut judge = Judge::new();
    let settled = tokio::time::sleep(Duration::MAX);
    tokio::pin!(settled);
    let mut print = print;
    let stopped_by = loop {
        tokio::select! {
            _ = terminate.recv() => break "SIGTERM",
            _ = interrupt.recv() => break "SIGINT",
            _ = &mut ended => bail!("the network ended by itself; the log says why"),
            () = &mut settled, if print.is_some() => {
                let listening = network.handle.status().await.map(|status| status.listening).unwrap_or_default();
                let listing = Listing::new(peer, &announce, &listening, print.take().flatten());
                print!("\n{listing}\n");
            }
            event = network.events.recv() => match event {
                Some(NetworkEvent::Announced(message)) => {
                    pass_on(&mut judge, &network.handle, &announcements, &message).await;
                }
                Some(event) => {
                    if matches!(event, NetworkEvent::Listening { .. }) {
                        settled.as_mut().reset(tokio::time::Instant::now() + SETTLE);
                    }
                    tell(&event, &announce);
                }
                None => bail!("the network ended by itself; the log says why"),
            },
        }
    };
    tracing::info!(component = "node", signal = stopped_by, "stopping");
    stop.cancel();
    network.handle.shutdown();
    if tokio::time::timeout(CLOSE_WITHIN, &mut ended).await.is_err() {
        tracing::warn!(component = "network", "did not close in time");
    }
    tracing::info!(component = "node", "stopped");
    Ok(())
}

async fn pass_on(judge: &mut Judge, handle: &NetworkHandle, counted: &Announcements, message: &Announced) {
    let heard = Heard {
        publisher: message.publisher,
        forwarder: message.forwarder,
        received_at: message.received_at,
        data: &message.data,
    };
    let (verdict, reason) = judge.verdict(&heard);
    counted.count(reason);
    if reason != Reason::Accepted {
        tracing::debug!(
            component = "gossip",
            publisher = %message.publisher,
            forwarder = %message.forwarder,
            reason = reason.name(),
            "announcement not passed on"
        );
    }
    // A network that is closing needs no verdict.
    let _ = handle.report(message.token, verdict).await;
}

/// Logs what an operator looks for.
fn tell(event: &NetworkEvent, announce: &[Multiaddr]) {
    match event {
        NetworkEvent::Listening { addr } => {
            tracing::info!(component = "network", multiaddr = %addr, "listening");
            if announce.is_empty() {
                let record = listing::dns_line(listing::UNNAMED_DOMAIN, addr);
                tracing::info!(component = "network", multiaddr = %addr, dns = %record, "others may join here");
            }
        }
        NetworkEvent::ListenerGone { addr } => {
            tracing::warn!(component = "network", multiaddr = %addr, "no longer listening");
        }
        NetworkEvent::ExternalAddressConfirmed { addr } => {
            tracing::info!(component = "network", multiaddr = %addr, "reachable at");
        }
        NetworkEvent::ExternalAddressExpired { addr } => {
            tracing::info!(component = "network", multiaddr = %addr, "no longer reachable at");
        }
        NetworkEvent::ReachabilityChanged { verdict } => {
            tracing::info!(component = "network", verdict = ?verdict, "reachability changed");
        }
        NetworkEvent::PeerConnected { peer } => {
            tracing::debug!(component = "network", %peer, "peer connected");
        }
        NetworkEvent::PeerDisconnected { peer } => {
            tracing::debug!(component = "network", %peer, "peer disconnected");
        }
        other => tracing::trace!(component = "network", event = ?other, "event"),
    }
}

/// Opens the pages' ports, so that a taken port is told before peers come.
async fn open_pages(settings: &Settings) -> anyhow::Result<Vec<(TcpListener, Offer)>> {
    let mut open = Vec::new();
    for (key, address, offer) in [
        ("metrics.address", &settings.metrics_address, Offer::Everything),
        ("healthcheck_address", &settings.health_address, Offer::Health),
    ] {
        let Some(address) = address else { continue };
        let full = if address.starts_with(':') {
            format!("0.0.0.0{address}")
        } else {
            address.clone()
        };
        let found: Vec<SocketAddr> = tokio::net::lookup_host(full.as_str())
            .await
            .with_context(|| format!("{key}: cannot resolve {address}"))?
            .collect();
        let listener = TcpListener::bind(found.as_slice()).await.with_context(|| {
            format!("{key}: cannot listen on {address}; name another with --metrics-address")
        })?;
        open.push((listener, offer));
    }
    Ok(open)
}

struct NodePages {
    registry: Registry,
    handle: NetworkHandle,
    stopping: CancellationToken,
}

impl Pages for NodePages {
    fn metrics(&self) -> String {
        let mut text = String::new();
        // A String takes everything; the signature of the encoder only asks.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }

    async fn ready(&self) -> (bool, String) {
        if self.stopping.is_cancelled() {
            return (false, "not ready: stopping\n".to_owned());
        }
        let status = match tokio::time::timeout(STATUS_WITHIN, self.handle.status()).await {
            Ok(Ok(status)) => status,
            Ok(Err(error)) => return (false, format!("not ready: {error}\n")),
            Err(_) => return (false, "not ready: the network does not answer\n".to_owned()),
        };
        if status.listening.is_empty() {
            return (false, "not ready: not listening\n".to_owned());
        }
        // Whoever names others is no less there for those who want to join: two that name each other would otherwise wait
        // for each other where nobody is sent to a node that is not ready.
        let there = match tokio::time::timeout(STATUS_WITHIN, self.handle.peers()).await {
            Ok(Ok(views)) => views.into_iter().map(|view| view.peer).collect(),
            _ => HashSet::new(),
        };
        (true, ready_text(self.handle.bootstrap_peers(), &there))
    }
}

/// The page of a node that is ready: which of the bootstrap nodes it names are not connected.
fn ready_text(named: &[Multiaddr], there: &HashSet<PeerId>) -> String {
    let mut text = "ready\n".to_owned();
    for addr in named {
        if peer_of(addr).is_none_or(|peer| !there.contains(&peer)) {
            text.push_str("not connected: ");
            text.push_str(&addr.to_string());
            text.push('\n');
        }
    }
    text
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

/// Verdicts on announcements, counted.
struct Announcements(Family<ReasonLabel, Counter>);

impl Announcements {
    fn register(registry: &mut Registry) -> Self {
        let family = Family::<ReasonLabel, Counter>::default();
        for reason in Reason::ALL {
            // Shown from the start, at zero.
            drop(family.get_or_create(&ReasonLabel {
                reason: reason.name(),
            }));
        }
        registry.register(
            "dirnode_bootstrap_announcements",
            "Announcements heard, by what became of them",
            family.clone(),
        );
        Self(family)
    }

    fn count(&self, reason: Reason) {
        self.0
            .get_or_create(&ReasonLabel {
                reason: reason.name(),
            })
            .inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_names_every_bootstrap_node_that_is_not_connected() {
        let (one, two) = (PeerId::random(), PeerId::random());
        let at =
            |host: &str, peer| -> Multiaddr { format!("/dns/{host}/tcp/8999/p2p/{peer}").parse().unwrap() };
        let named = [at("a.example", one), at("b.example", two)];
        assert_eq!(ready_text(&named, &HashSet::from([one, two])), "ready\n");
        let expected = format!("ready\nnot connected: {}\n", named[1]);
        assert_eq!(ready_text(&named, &HashSet::from([one])), expected);
    }
}
