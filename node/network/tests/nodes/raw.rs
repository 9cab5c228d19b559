//! A peer of stock parts that does what a test tells it: opens streams and writes any bytes.

use std::sync::Arc;
use std::time::Duration;

use dirnode_network::shim::{OwnEndpoints, Renames, Shim, ShimConfig};
use dirnode_network::{Keypair, Multiaddr, PeerId};
use futures_util::StreamExt as _;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::upgrade::Version;
use libp2p::swarm::{Stream, Swarm, SwarmEvent};
use libp2p::{StreamProtocol, Transport, noise, tcp, tls, yamux};

use super::common::wait;

/// How it secures its connections.
#[derive(Clone, Copy)]
pub enum Security {
    Tls,
    Noise,
}

/// The peer; its swarm runs until it is dropped.
pub struct RawPeer {
    pub id: PeerId,
    control: libp2p_stream::Control,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for RawPeer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl RawPeer {
    /// Connects to a node.
    pub async fn dial(addr: &Multiaddr, security: Security) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let keypair = Keypair::generate_ed25519();
        let id = keypair.public().to_peer_id();
        let tcp = tcp::tokio::Transport::new(tcp::Config::default()).upgrade(Version::V1);
        let transport = match security {
            Security::Tls => tcp
                .authenticate(tls::Config::new(&keypair).unwrap())
                .multiplex(yamux::Config::default())
                .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
                .boxed(),
            Security::Noise => tcp
                .authenticate(noise::Config::new(&keypair).unwrap())
                .multiplex(yamux::Config::default())
                .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
                .boxed(),
        };
        let (shim, _taps) = Shim::new(ShimConfig {
            local_peer: id,
            renames: Renames::network(),
            own: OwnEndpoints::default(),
            book: None,
            clock: Arc::new(|| 0),
            deadlines: None,
        });
        let transport =
            Transport::map(transport, move |(peer, muxer), _| (peer, shim.wrap(peer, muxer))).boxed();
        let behaviour = libp2p_stream::Behaviour::new();
        let control = behaviour.new_control();
        let config = libp2p::swarm::Config::with_tokio_executor()
            .with_idle_connection_timeout(Duration::from_secs(600));
        let mut swarm = Swarm::new(transport, behaviour, id, config);
        swarm.dial(addr.clone()).unwrap();
        wait("the raw connection", async {
            loop {
                match swarm.select_next_some().await {
                    SwarmEvent::ConnectionEstablished { .. } => return,
                    SwarmEvent::OutgoingConnectionError { error, .. } => panic!("{error}"),
                    _ => {}
                }
            }
        })
        .await;
        let task = tokio::spawn(async move {
            loop {
                swarm.select_next_some().await;
            }
        });
        Self { id, control, task }
    }

    /// Opens a stream; `/dir/kad/1.0.0` goes out under its wire name.
    pub async fn open(&self, node: PeerId, protocol: &'static str) -> Stream {
        self.try_open(node, protocol).await.unwrap()
    }

    /// As [`RawPeer::open`], where the node may no longer want to hear from us.
    pub async fn try_open(
        &self,
        node: PeerId,
        protocol: &'static str,
    ) -> Result<Stream, libp2p_stream::OpenStreamError> {
        let mut control = self.control.clone();
        wait(
            "the raw stream",
            control.open_stream(node, StreamProtocol::new(protocol)),
        )
        .await
    }
}
