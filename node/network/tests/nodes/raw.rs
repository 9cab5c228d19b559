//! Peers of stock parts that do what a test tells them: one opens streams and writes any bytes, the other does not even
//! agree on a protocol first.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use dirnode_network::shim::{OwnEndpoints, Renames, Shim, ShimConfig};
use dirnode_network::{Keypair, Multiaddr, PeerId};
use futures_util::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _};
use libp2p::core::Endpoint;
use libp2p::core::muxing::{StreamMuxer as _, StreamMuxerBox, SubstreamBox};
use libp2p::core::transport::{Boxed, DialOpts, PortUse};
use libp2p::core::upgrade::Version;
use libp2p::swarm::{Stream, Swarm, SwarmEvent};
use libp2p::{StreamProtocol, Transport, noise, tcp, tls, yamux};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::common::wait;

/// How it secures its connections.
#[derive(Clone, Copy)]
pub enum Security {
    Tls,
    Noise,
}

/// A gossip protocol that the peer takes streams of, and never says anything on: without one it would count as a peer
/// that does not speak gossip.
const GOSSIP: &str = "/meshsub/1.1.0";
const IDENTIFY: &str = "/ipfs/id/1.0.0";

/// The peer; its swarm runs until it is dropped.
pub struct RawPeer {
    pub id: PeerId,
    pub keypair: Keypair,
    control: libp2p_stream::Control,
    _tasks: JoinSet<()>,
}

fn transport(keypair: &Keypair, security: Security) -> Boxed<(PeerId, StreamMuxerBox)> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let tcp = tcp::tokio::Transport::new(tcp::Config::default()).upgrade(Version::V1);
    match security {
        Security::Tls => tcp
            .authenticate(tls::Config::new(keypair).unwrap())
            .multiplex(yamux::Config::default())
            .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
            .boxed(),
        Security::Noise => tcp
            .authenticate(noise::Config::new(keypair).unwrap())
            .multiplex(yamux::Config::default())
            .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
            .boxed(),
    }
}

impl RawPeer {
    /// Connects to a node.
    pub async fn dial(addr: &Multiaddr, security: Security) -> Self {
        Self::dial_as(&Keypair::generate_ed25519(), addr, security, None).await
    }

    /// Connects to a node, and answers every identify request with these bytes.
    pub async fn dial_as(
        keypair: &Keypair,
        addr: &Multiaddr,
        security: Security,
        identify: Option<Vec<u8>>,
    ) -> Self {
        let id = keypair.public().to_peer_id();
        let (shim, _taps) = Shim::new(ShimConfig {
            local_peer: id,
            renames: Renames::network(),
            own: OwnEndpoints::default(),
            book: None,
            clock: Arc::new(|| 0),
            deadlines: None,
        });
        let transport = Transport::map(transport(keypair, security), move |(peer, muxer), _| {
            (peer, shim.wrap(peer, muxer))
        })
        .boxed();
        let behaviour = libp2p_stream::Behaviour::new();
        let mut control = behaviour.new_control();
        let mut tasks = JoinSet::new();
        let mut gossip = control.accept(StreamProtocol::new(GOSSIP)).unwrap();
        tasks.spawn(async move {
            let mut kept = Vec::new();
            while let Some(stream) = gossip.next().await {
                kept.push(stream);
            }
        });
        if let Some(bytes) = identify {
            let mut asked = control.accept(StreamProtocol::new(IDENTIFY)).unwrap();
            tasks.spawn(async move {
                while let Some((_, mut stream)) = asked.next().await {
                    let _ = stream.write_all(&bytes).await;
                    let _ = stream.close().await;
                }
            });
        }
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
        tasks.spawn(async move {
            loop {
                swarm.select_next_some().await;
            }
        });
        Self {
            id,
            keypair: keypair.clone(),
            control,
            _tasks: tasks,
        }
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

/// A connection on which streams are opened and nothing is negotiated.
pub struct BarePeer {
    wanted: mpsc::Sender<oneshot::Sender<SubstreamBox>>,
    _tasks: JoinSet<()>,
}

impl BarePeer {
    /// Connects to a node; the error of a node that does not want us.
    pub async fn dial(addr: &Multiaddr) -> Result<Self, String> {
        let mut transport = transport(&Keypair::generate_ed25519(), Security::Tls);
        let options = DialOpts {
            role: Endpoint::Dialer,
            port_use: PortUse::New,
        };
        let dialling = transport
            .dial(addr.clone(), options)
            .map_err(|error| error.to_string())?;
        let (_, mut muxer) = dialling.await.map_err(|error| error.to_string())?;
        let (wanted, mut asked) = mpsc::channel::<oneshot::Sender<SubstreamBox>>(16);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut waiting: Option<oneshot::Sender<SubstreamBox>> = None;
            // Ends with the connection; whoever waits for a stream learns it by that.
            poll_fn(|cx| {
                loop {
                    if waiting.is_none() {
                        match asked.poll_recv(cx) {
                            Poll::Ready(Some(reply)) => waiting = Some(reply),
                            Poll::Ready(None) => return Poll::Ready(()),
                            Poll::Pending => {}
                        }
                    }
                    if waiting.is_some() {
                        match Pin::new(&mut muxer).poll_outbound(cx) {
                            Poll::Ready(Ok(stream)) => {
                                let _ = waiting.take().unwrap().send(stream);
                                continue;
                            }
                            Poll::Ready(Err(_)) => return Poll::Ready(()),
                            Poll::Pending => {}
                        }
                    }
                    match Pin::new(&mut muxer).poll_inbound(cx) {
                        // The node's own questions are refused.
                        Poll::Ready(Ok(_)) => continue,
                        Poll::Ready(Err(_)) => return Poll::Ready(()),
                        Poll::Pending => {}
                    }
                    match Pin::new(&mut muxer).poll(cx) {
                        Poll::Ready(Ok(_)) => {}
                        Poll::Ready(Err(_)) => return Poll::Ready(()),
                        Poll::Pending => return Poll::Pending,
                    }
                }
            })
            .await;
        });
        Ok(Self {
            wanted,
            _tasks: tasks,
        })
    }

    /// A fresh stream; none once the connection is over.
    pub async fn open(&self) -> Option<SubstreamBox> {
        let (reply, answer) = oneshot::channel();
        self.wanted.send(reply).await.ok()?;
        wait("a bare stream", answer).await.ok()
    }

    /// A fresh stream on which a protocol is agreed on by hand, under its wire name; nothing of ours stands between the
    /// test and the wire then, which would hold half a message back.
    pub async fn open_on(&self, protocol: &str) -> SubstreamBox {
        let mut stream = self.open().await.unwrap();
        let mut words = b"\x13/multistream/1.0.0\n".to_vec();
        words.push(u8::try_from(protocol.len() + 1).unwrap());
        words.extend_from_slice(protocol.as_bytes());
        words.push(b'\n');
        stream.write_all(&words).await.unwrap();
        stream.flush().await.unwrap();
        let mut echo = vec![0; words.len()];
        wait("the agreement", stream.read_exact(&mut echo)).await.unwrap();
        assert_eq!(echo, words);
        stream
    }
}
