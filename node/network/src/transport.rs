//! How bytes reach peers: TCP with TLS (noise second) and yamux, QUIC v1, names through DNS, relays.
//!
//! Composed by hand so that the protocol-name adaptor of p2p-wire §3 can wrap every connection as the last step,
//! relayed ones included; a connection that misses it would silently have no DHT. Negotiation is V1 throughout,
//! because the lazy form loses messages that expect no answer.

use std::io;
use std::time::Duration;

use futures_util::future::{BoxFuture, Either, FutureExt as _};
use futures_util::{AsyncRead, AsyncWrite, TryFutureExt as _};
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{Boxed, MemoryTransport};
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo, Version};
use libp2p::identity::Keypair;
use libp2p::{PeerId, Transport, dns, noise, quic, relay, tcp, tls, yamux};

use crate::error::NetworkError;

/// Connecting and both handshakes.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);

/// Receive windows of QUIC, smaller than the library's: a directory node holds hundreds of connections and its
/// largest message has 8 MiB.
const QUIC_STREAM_WINDOW: u32 = 2 * 1024 * 1024;
const QUIC_CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// A connection ready for use.
pub(crate) type Connection = (PeerId, StreamMuxerBox);

/// Builds the transport; `wrap` sees every connection before anybody else does.
pub(crate) fn build(
    keypair: &Keypair,
    memory: bool,
    wrap: impl Fn(PeerId, StreamMuxerBox) -> StreamMuxerBox + Clone + Send + Sync + Unpin + 'static,
) -> Result<(Boxed<Connection>, relay::client::Behaviour), NetworkError> {
    let security = Security::new(keypair)?;
    let tcp = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
        .upgrade(Version::V1)
        .authenticate(security.clone())
        .multiplex(yamux::Config::default())
        .timeout(HANDSHAKE_TIMEOUT)
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
    let quic = quic::tokio::Transport::new(quic_config(keypair))
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
    let direct = quic
        .or_transport(tcp)
        .map(|either, _| match either {
            Either::Left(connection) | Either::Right(connection) => connection,
        })
        .boxed();
    let named = match dns::tokio::Transport::system(direct) {
        Ok(named) => named.boxed(),
        Err(error) => {
            tracing::warn!(%error, "system DNS configuration unreadable, going on without names");
            without_names(keypair, &security)?
        }
    };
    let (relayed, relay_client) = relay::client::new(keypair.public().to_peer_id());
    let relayed = relayed
        .upgrade(Version::V1)
        .authenticate(security.clone())
        .multiplex(yamux::Config::default())
        .timeout(HANDSHAKE_TIMEOUT)
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
    let mut all = relayed
        .or_transport(named)
        .map(|either, _| match either {
            Either::Left(connection) | Either::Right(connection) => connection,
        })
        .boxed();
    if memory {
        let memory = MemoryTransport::default()
            .upgrade(Version::V1)
            .authenticate(security)
            .multiplex(yamux::Config::default())
            .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
        all = memory
            .or_transport(all)
            .map(|either, _| match either {
                Either::Left(connection) | Either::Right(connection) => connection,
            })
            .boxed();
    }
    let wrapped = Transport::map(all, move |(peer, muxer), _| (peer, wrap(peer, muxer)));
    Ok((wrapped.boxed(), relay_client))
}

/// TCP and QUIC alone. The first pair went into the name resolver that could not be made, so it is built again.
fn without_names(keypair: &Keypair, security: &Security) -> Result<Boxed<Connection>, NetworkError> {
    let tcp = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
        .upgrade(Version::V1)
        .authenticate(security.clone())
        .multiplex(yamux::Config::default())
        .timeout(HANDSHAKE_TIMEOUT)
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
    Ok(quic::tokio::Transport::new(quic_config(keypair))
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
        .or_transport(tcp)
        .map(|either, _| match either {
            Either::Left(connection) | Either::Right(connection) => connection,
        })
        .boxed())
}

fn quic_config(keypair: &Keypair) -> quic::Config {
    let mut config = quic::Config::new(keypair);
    config.max_stream_data = QUIC_STREAM_WINDOW;
    config.max_connection_data = QUIC_CONNECTION_WINDOW;
    config
}

/// Offers `/tls/1.0.0`, then `/noise`: peers of the reference speak only the first over TCP (p2p-wire §1.2).
#[derive(Clone)]
struct Security {
    tls: tls::Config,
    noise: noise::Config,
}

const TLS: &str = "/tls/1.0.0";
const NOISE: &str = "/noise";

impl Security {
    fn new(keypair: &Keypair) -> Result<Self, NetworkError> {
        let internal = |reason: String| NetworkError::Internal { reason };
        Ok(Self {
            tls: tls::Config::new(keypair).map_err(|error| internal(format!("tls identity: {error}")))?,
            noise: noise::Config::new(keypair)
                .map_err(|error| internal(format!("noise identity: {error}")))?,
        })
    }
}

impl UpgradeInfo for Security {
    type Info = &'static str;
    type InfoIter = std::array::IntoIter<&'static str, 2>;

    fn protocol_info(&self) -> Self::InfoIter {
        [TLS, NOISE].into_iter()
    }
}

type Secured<C> = Either<tls::TlsStream<C>, noise::Output<C>>;
type Handshake<C> = BoxFuture<'static, io::Result<(PeerId, Secured<C>)>>;

impl<C> InboundConnectionUpgrade<C> for Security
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Output = (PeerId, Secured<C>);
    type Error = io::Error;
    type Future = Handshake<C>;

    fn upgrade_inbound(self, socket: C, info: &'static str) -> Self::Future {
        if info == TLS {
            self.tls
                .upgrade_inbound(socket, info)
                .map_ok(|(peer, stream)| (peer, Either::Left(stream)))
                .map_err(io::Error::other)
                .boxed()
        } else {
            self.noise
                .upgrade_inbound(socket, info)
                .map_ok(|(peer, stream)| (peer, Either::Right(stream)))
                .map_err(io::Error::other)
                .boxed()
        }
    }
}

impl<C> OutboundConnectionUpgrade<C> for Security
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Output = (PeerId, Secured<C>);
    type Error = io::Error;
    type Future = Handshake<C>;

    fn upgrade_outbound(self, socket: C, info: &'static str) -> Self::Future {
        if info == TLS {
            self.tls
                .upgrade_outbound(socket, info)
                .map_ok(|(peer, stream)| (peer, Either::Left(stream)))
                .map_err(io::Error::other)
                .boxed()
        } else {
            self.noise
                .upgrade_outbound(socket, info)
                .map_ok(|(peer, stream)| (peer, Either::Right(stream)))
                .map_err(io::Error::other)
                .boxed()
        }
    }
}
