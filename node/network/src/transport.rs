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
    let named = match dns::tokio::Transport::system(direct(keypair, &security)) {
        Ok(named) => named.boxed(),
        Err(error) => {
            tracing::warn!(%error, "system DNS configuration unreadable, going on without names");
            // The first pair went into the name resolver that could not be made.
            direct(keypair, &security)
        }
    };
    let (relayed, relay_client) = relay::client::new(keypair.public().to_peer_id());
    let mut all = either(secured(relayed, &security), named);
    if memory {
        all = either(secured(MemoryTransport::default(), &security), all);
    }
    let wrapped = Transport::map(all, move |(peer, muxer), _| (peer, wrap(peer, muxer)));
    Ok((wrapped.boxed(), relay_client))
}

/// TCP and QUIC, by address alone.
fn direct(keypair: &Keypair, security: &Security) -> Boxed<Connection> {
    let tcp = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true));
    let quic = quic::tokio::Transport::new(quic_config(keypair))
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
        .boxed();
    either(quic, secured(tcp, security))
}

/// Security and yamux on top of a transport of plain connections.
fn secured<T>(plain: T, security: &Security) -> Boxed<Connection>
where
    T: Transport + Send + Unpin + 'static,
    T::Output: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    T::Error: Send + Sync + 'static,
    T::Dial: Send + 'static,
    T::ListenerUpgrade: Send + 'static,
{
    plain
        .upgrade(Version::V1)
        .authenticate(security.clone())
        .multiplex(yamux::Config::default())
        .timeout(HANDSHAKE_TIMEOUT)
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
        .boxed()
}

/// Whichever of the two takes an address.
fn either(first: Boxed<Connection>, second: Boxed<Connection>) -> Boxed<Connection> {
    first
        .or_transport(second)
        .map(|either, _| match either {
            Either::Left(connection) | Either::Right(connection) => connection,
        })
        .boxed()
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

/// One handshake, its result as that of either.
fn handshake<C, S, E>(
    upgrade: impl Future<Output = Result<(PeerId, S), E>> + Send + 'static,
    side: fn(S) -> Secured<C>,
) -> Handshake<C>
where
    C: 'static,
    S: 'static,
    E: std::error::Error + Send + Sync + 'static,
{
    upgrade
        .map_ok(move |(peer, stream)| (peer, side(stream)))
        .map_err(io::Error::other)
        .boxed()
}

impl<C> InboundConnectionUpgrade<C> for Security
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Output = (PeerId, Secured<C>);
    type Error = io::Error;
    type Future = Handshake<C>;

    fn upgrade_inbound(self, socket: C, info: &'static str) -> Self::Future {
        if info == TLS {
            handshake(self.tls.upgrade_inbound(socket, info), Either::Left)
        } else {
            handshake(self.noise.upgrade_inbound(socket, info), Either::Right)
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
            handshake(self.tls.upgrade_outbound(socket, info), Either::Left)
        } else {
            handshake(self.noise.upgrade_outbound(socket, info), Either::Right)
        }
    }
}
