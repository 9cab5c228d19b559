//! The door to the swarm task: cheap to clone, each method asks one question.
//!
//! Every method ends: with an answer, an error of the question, or [`NetworkError::Closed`] when the task is gone.
//! Work that moves bytes (fetching, sending a sweep) runs in the caller's task on a stream that the swarm opened.

#[cfg(feature = "records")]
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
#[cfg(feature = "records")]
use dirnode_record::{RecordCid, Referrer};
use libp2p::swarm::Stream;
use libp2p::{Multiaddr, PeerId, StreamProtocol};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::command::{Command, Query, Reply};
use crate::config::{
    self, CATCH_UP_PROTOCOL, MAX_ANNOUNCEMENT, MAX_CATCH_UP, MAX_KAD_KEY, QUERY_TIMEOUT, RPC_PROTOCOL, Role,
};
use crate::error::NetworkError;
use crate::event::{AnnouncementToken, NetworkEvent, Verdict};
#[cfg(feature = "records")]
use crate::library::{Pulled, ReferrerDescriptor, ReferrerList};
use crate::metrics::Metrics;
use crate::rpc::client;
use crate::status::{PeerAddrs, PeerView, Status};
use crate::sweep;

/// A question the swarm task answers from what it knows. It never waits for peers, only for its turn.
const ASK_TIMEOUT: Duration = Duration::from_secs(30);

/// Dialling, handshake included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// A query may wait in line before it runs.
const QUERY_WAIT: Duration = Duration::from_secs(4 * QUERY_TIMEOUT.as_secs());

/// The swarm task looks at deadlines four times a second; a query that is cut short is answered within this time.
const QUERY_CUT: Duration = Duration::from_millis(500);

/// One ping, opening its stream included.
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Streams tried for one ping.
const PING_ATTEMPTS: u32 = 3;

/// What became of an announcement of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnnounceOutcome {
    /// Handed to the connections of at least one peer.
    Sent,
    /// Nobody we are connected to is on the topic; nothing was sent, ask again later.
    NoPeersYet,
    /// The send queues of all peers on the topic are full; nothing was sent, ask again later.
    QueuesFull,
}

/// Asks the swarm task. Cheap to clone.
#[derive(Clone)]
pub struct NetworkHandle {
    pub(crate) id: PeerId,
    pub(crate) role: Role,
    pub(crate) bootstrap: Arc<[Multiaddr]>,
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) events: broadcast::Sender<NetworkEvent>,
    pub(crate) stop: CancellationToken,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) call_timeout: Duration,
}

impl std::fmt::Debug for NetworkHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NetworkHandle")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl NetworkHandle {
    /// Our peer id.
    #[must_use]
    pub fn id(&self) -> PeerId {
        self.id
    }

    /// What this node is to the network.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// The configured bootstrap peers, in their order, without those that are this node.
    #[must_use]
    pub fn bootstrap_peers(&self) -> &[Multiaddr] {
        &self.bootstrap
    }

    /// The state of the network now.
    ///
    /// # Errors
    /// [`NetworkError::Closed`].
    pub async fn status(&self) -> Result<Status, NetworkError> {
        self.ask("status", ASK_TIMEOUT, |reply| Command::Status { reply })
            .await
    }

    /// Every connected peer, in the order of their ids.
    ///
    /// # Errors
    /// [`NetworkError::Closed`].
    pub async fn peers(&self) -> Result<Vec<PeerView>, NetworkError> {
        self.ask("peers", ASK_TIMEOUT, |reply| Command::Peers { reply })
            .await
    }

    /// Connects to an address and tells who is there. Answers at once when that peer is connected already.
    ///
    /// # Errors
    /// [`NetworkError::Dial`] with what every tried address said; [`NetworkError::Timeout`].
    pub async fn connect(&self, addr: Multiaddr) -> Result<PeerId, NetworkError> {
        self.ask("connect", CONNECT_TIMEOUT, |reply| Command::Connect {
            addr,
            reply,
        })
        .await
    }

    /// Closes all connections with a peer; whether there was one.
    ///
    /// # Errors
    /// [`NetworkError::Closed`].
    pub async fn disconnect(&self, peer: PeerId) -> Result<bool, NetworkError> {
        self.ask("disconnect", ASK_TIMEOUT, |reply| Command::Disconnect {
            peer,
            reply,
        })
        .await
    }

    /// Round trip time to a peer, dialling it first when needed.
    ///
    /// # Errors
    /// [`NetworkError::Unreachable`], [`NetworkError::PeerGone`], [`NetworkError::Timeout`].
    pub async fn ping(&self, peer: PeerId) -> Result<Duration, NetworkError> {
        within("ping", PING_TIMEOUT, async {
            let mut attempt = 1;
            loop {
                let stream = self.open(peer, libp2p::ping::PROTOCOL_NAME).await?;
                match client::ping(peer, stream).await {
                    // Peers answer on one ping stream at a time, the newest: the one that every connection opens by
                    // itself now and then may have taken the place of ours.
                    Err(NetworkError::PeerGone { .. }) if attempt < PING_ATTEMPTS => attempt += 1,
                    answer => return answer,
                }
            }
        })
        .await
    }

    /// Where a peer can be dialled: what we know, else what the DHT knows.
    ///
    /// # Errors
    /// [`NetworkError::Unreachable`] when nobody knows; [`NetworkError::NoPeers`]; [`NetworkError::Timeout`].
    pub async fn find_peer(&self, peer: PeerId) -> Result<Vec<Multiaddr>, NetworkError> {
        self.query("find peer", |reply| Query::FindPeer { peer, reply })
            .await
    }

    /// Runs a call to a peer. When nobody has told us where that peer is, the DHT is asked, and the call runs once more.
    ///
    /// # Errors
    /// Those of the call; [`NetworkError::Unreachable`] when the DHT does not know the peer either.
    pub async fn seeking<T, F>(&self, peer: PeerId, call: impl Fn() -> F) -> Result<T, NetworkError>
    where
        F: Future<Output = Result<T, NetworkError>>,
    {
        let first = match call().await {
            Err(error) if error.is_unknown_address() => error,
            answer => return answer,
        };
        match self.find_peer(peer).await {
            Ok(_) => call().await,
            Err(nowhere @ NetworkError::Unreachable { .. }) => Err(nowhere),
            // Whatever kept us from asking is not what the call was about.
            Err(_) => Err(first),
        }
    }

    /// The peers closest to a key, nearest first, at most 20, with addresses.
    ///
    /// # Errors
    /// [`NetworkError::TooLarge`] for a key above 80 bytes; [`NetworkError::NoPeers`]; [`NetworkError::Timeout`].
    pub async fn closest(&self, key: Vec<u8>) -> Result<Vec<PeerAddrs>, NetworkError> {
        check_key(&key)?;
        self.query("closest peers", |reply| Query::Closest { key, reply })
            .await
    }

    /// Tells the 20 peers closest to a key that we provide it.
    ///
    /// `Ok` says that the messages were handed to the connections, not that they were kept: receivers do not answer.
    ///
    /// # Errors
    /// [`NetworkError::NoExternalAddress`], [`NetworkError::NoPeers`], [`NetworkError::Busy`],
    /// [`NetworkError::Timeout`].
    pub async fn provide(&self, key: Vec<u8>) -> Result<(), NetworkError> {
        check_key(&key)?;
        self.query("provide", |reply| Query::Provide { key, reply }).await
    }

    /// Forgets that we provide a key. What others keep about it lapses by itself.
    ///
    /// # Errors
    /// [`NetworkError::Closed`].
    pub async fn stop_providing(&self, key: Vec<u8>) -> Result<(), NetworkError> {
        self.ask("stop providing", ASK_TIMEOUT, |reply| Command::StopProviding {
            key,
            reply,
        })
        .await
    }

    /// Tells one peer that we provide many keys, down one stream; how many were written.
    ///
    /// For a sweep over the key space: the caller knows which keys belong to which peer.
    ///
    /// # Errors
    /// [`NetworkError::NoExternalAddress`]; [`NetworkError::Unreachable`], [`NetworkError::PeerGone`] or
    /// [`NetworkError::Timeout`] when nothing was written for ten seconds.
    pub async fn provide_to(&self, peer: PeerId, keys: &[Vec<u8>]) -> Result<usize, NetworkError> {
        for key in keys {
            check_key(key)?;
        }
        let addrs = self
            .ask("external addresses", ASK_TIMEOUT, |reply| Command::External {
                reply,
            })
            .await?;
        if addrs.is_empty() {
            return Err(NetworkError::NoExternalAddress);
        }
        let stream = within(
            "opening a stream",
            CONNECT_TIMEOUT,
            self.open(peer, config::KAD_PROTOCOL),
        )
        .await?;
        let sent = sweep::send(self.id, peer, stream, &addrs, keys).await;
        self.metrics
            .swept(sent.as_ref().map_or(0, |count| *count), sent.is_err());
        sent
    }

    /// Peers that provide a key, with the addresses they can be dialled at, until `enough` are known.
    ///
    /// # Errors
    /// [`NetworkError::TooLarge`], [`NetworkError::NoPeers`], [`NetworkError::Busy`], [`NetworkError::Timeout`].
    pub async fn find_providers(&self, key: Vec<u8>, enough: usize) -> Result<Vec<PeerAddrs>, NetworkError> {
        check_key(&key)?;
        self.query("find providers", |reply| Query::Providers {
            key,
            enough,
            until: None,
            reply,
        })
        .await
    }

    /// As [`NetworkHandle::find_providers`], for a caller that waits no longer than `patience`: by then the query is
    /// ended and who is known is told. The answer comes half a second later at the latest.
    ///
    /// # Errors
    /// As [`NetworkHandle::find_providers`]; [`NetworkError::Timeout`] when nobody is known by then, which does not say
    /// that there is nobody.
    pub async fn find_providers_within(
        &self,
        key: Vec<u8>,
        enough: usize,
        patience: Duration,
    ) -> Result<Vec<PeerAddrs>, NetworkError> {
        check_key(&key)?;
        let patience = patience.min(QUERY_WAIT);
        let until = Some(Instant::now() + patience);
        let answer = self
            .ask("find providers", patience + QUERY_CUT, |reply| Command::Query {
                query: Query::Providers {
                    key,
                    enough,
                    until,
                    reply,
                },
            })
            .await;
        answer.map_err(|error| match error {
            NetworkError::Timeout { .. } => NetworkError::Timeout {
                what: "find providers",
                after: patience,
            },
            other => other,
        })
    }

    /// Publishes a payload on the labels topic, signed with our key.
    ///
    /// # Errors
    /// [`NetworkError::TooLarge`] above [`MAX_ANNOUNCEMENT`]; [`NetworkError::GossipDisabled`].
    pub async fn announce(&self, data: Bytes) -> Result<AnnounceOutcome, NetworkError> {
        if data.len() > MAX_ANNOUNCEMENT {
            return Err(NetworkError::TooLarge {
                what: "announcement",
                size_bytes: data.len(),
                limit_bytes: MAX_ANNOUNCEMENT,
            });
        }
        self.ask("announce", ASK_TIMEOUT, |reply| Command::Announce { data, reply })
            .await
    }

    /// Gives the verdict on an announcement. A token that is unknown or too old is counted and otherwise ignored.
    ///
    /// # Errors
    /// [`NetworkError::Closed`].
    pub async fn report(&self, token: AnnouncementToken, verdict: Verdict) -> Result<(), NetworkError> {
        self.tell(Command::Report { token, verdict }).await
    }

    /// Adds to the application's part of a peer's gossip score. The sum is kept within -100 and 10 and fades by half
    /// every ten minutes.
    ///
    /// # Errors
    /// [`NetworkError::Closed`].
    pub async fn score(&self, peer: PeerId, delta: f64) -> Result<(), NetworkError> {
        self.tell(Command::Score { peer, delta }).await
    }

    /// Remembers where a peer can be dialled, for calls that name it by id only.
    ///
    /// # Errors
    /// [`NetworkError::Closed`].
    pub async fn remember(&self, peer: PeerId, addrs: Vec<Multiaddr>) -> Result<(), NetworkError> {
        self.tell(Command::Remember { peer, addrs }).await
    }

    /// Annotations of a record at a peer, if the peer holds it.
    ///
    /// # Errors
    /// [`NetworkError::Remote`] with the peer's own status; [`NetworkError::BadReply`] when it answers for another CID;
    /// the errors of connecting; [`NetworkError::Timeout`].
    #[cfg(feature = "records")]
    pub async fn lookup(
        &self,
        peer: PeerId,
        cid: RecordCid,
    ) -> Result<BTreeMap<String, String>, NetworkError> {
        self.call("Lookup", peer, |stream| client::lookup(peer, stream, cid))
            .await
    }

    /// A record from a peer. Its bytes hash to `cid`: anything else is [`NetworkError::BadReply`].
    ///
    /// # Errors
    /// As [`NetworkHandle::lookup`].
    #[cfg(feature = "records")]
    pub async fn pull(&self, peer: PeerId, cid: RecordCid) -> Result<Pulled, NetworkError> {
        self.call("Pull", peer, |stream| client::pull(peer, stream, cid))
            .await
    }

    /// What refers to a record at a peer.
    ///
    /// # Errors
    /// As [`NetworkHandle::lookup`].
    #[cfg(feature = "records")]
    pub async fn list_referrers(&self, peer: PeerId, cid: RecordCid) -> Result<ReferrerList, NetworkError> {
        self.call("ListReferrers", peer, |stream| {
            client::list_referrers(peer, stream, cid)
        })
        .await
    }

    /// One referrer from a peer; its content is unverified.
    ///
    /// # Errors
    /// As [`NetworkHandle::lookup`].
    #[cfg(feature = "records")]
    pub async fn pull_referrer(
        &self,
        peer: PeerId,
        cid: RecordCid,
        referrer: ReferrerDescriptor,
    ) -> Result<Referrer, NetworkError> {
        self.call("PullReferrer", peer, |stream| {
            client::pull_referrer(peer, stream, cid, referrer)
        })
        .await
    }

    /// One request of the catch-up exchange; [`NetworkError::NotSupported`] at peers of another kind.
    ///
    /// # Errors
    /// The errors of connecting; [`NetworkError::TooLarge`]; [`NetworkError::BadReply`]; [`NetworkError::Timeout`].
    pub async fn catch_up(&self, peer: PeerId, request: Bytes) -> Result<Bytes, NetworkError> {
        if request.len() > MAX_CATCH_UP {
            return Err(NetworkError::TooLarge {
                what: "catch-up request",
                size_bytes: request.len(),
                limit_bytes: MAX_CATCH_UP,
            });
        }
        within("catch-up", self.call_timeout, async {
            let stream = self.open(peer, CATCH_UP_PROTOCOL).await?;
            client::catch_up(peer, stream, request).await
        })
        .await
    }

    /// Events about peers, addresses and the table, for anyone who wants to watch. Announcements and provider notices
    /// are not among them: these have one reader. A slow watcher loses the oldest.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<NetworkEvent> {
        self.events.subscribe()
    }

    /// States that peers can reach us here.
    ///
    /// # Errors
    /// [`NetworkError::Closed`].
    pub async fn add_external_address(&self, addr: Multiaddr) -> Result<(), NetworkError> {
        self.ask("add external address", ASK_TIMEOUT, |reply| {
            Command::AddExternal { addr, reply }
        })
        .await
    }

    /// Takes an external address back.
    ///
    /// # Errors
    /// [`NetworkError::Closed`].
    pub async fn remove_external_address(&self, addr: Multiaddr) -> Result<(), NetworkError> {
        self.ask("remove external address", ASK_TIMEOUT, |reply| {
            Command::RemoveExternal { addr, reply }
        })
        .await
    }

    /// Refuses (or no longer refuses) a peer, closing its connections; whether that changed anything.
    ///
    /// # Errors
    /// [`NetworkError::Closed`].
    pub async fn block(&self, peer: PeerId, blocked: bool) -> Result<bool, NetworkError> {
        self.ask("block", ASK_TIMEOUT, |reply| Command::Block {
            peer,
            blocked,
            reply,
        })
        .await
    }

    /// Stops the network. The task ends soon after; whoever waits for an answer gets [`NetworkError::Closed`].
    pub fn shutdown(&self) {
        self.stop.cancel();
    }

    /// Opens a substream to a peer, dialling it first when needed.
    async fn open(&self, peer: PeerId, protocol: StreamProtocol) -> Result<Stream, NetworkError> {
        self.ask("opening a stream", CONNECT_TIMEOUT, |reply| Command::OpenStream {
            peer,
            protocol,
            reply,
        })
        .await
    }

    /// One RPC call under its deadline, counted.
    #[cfg(feature = "records")]
    async fn call<T, F>(
        &self,
        method: &'static str,
        peer: PeerId,
        run: impl FnOnce(Stream) -> F,
    ) -> Result<T, NetworkError>
    where
        F: Future<Output = Result<T, NetworkError>>,
    {
        let answer = within(method, self.call_timeout, async {
            let stream = self.open(peer, RPC_PROTOCOL).await?;
            run(stream).await
        })
        .await;
        self.metrics.rpc_called(method, answer.as_ref().map(|_| ()));
        answer
    }

    async fn query<T>(
        &self,
        what: &'static str,
        make: impl FnOnce(Reply<T>) -> Query,
    ) -> Result<T, NetworkError> {
        self.ask(what, QUERY_WAIT, |reply| Command::Query { query: make(reply) })
            .await
    }

    async fn tell(&self, command: Command) -> Result<(), NetworkError> {
        self.commands
            .send(command)
            .await
            .map_err(|_| NetworkError::Closed)
    }

    async fn ask<T>(
        &self,
        what: &'static str,
        deadline: Duration,
        make: impl FnOnce(Reply<T>) -> Command,
    ) -> Result<T, NetworkError> {
        within(what, deadline, async {
            let (reply, answer) = oneshot::channel();
            self.tell(make(reply)).await?;
            // A reply dropped unanswered means that the task ended with it.
            answer.await.unwrap_or(Err(NetworkError::Closed))
        })
        .await
    }
}

/// Runs a future under a deadline.
async fn within<T>(
    what: &'static str,
    deadline: Duration,
    work: impl Future<Output = Result<T, NetworkError>>,
) -> Result<T, NetworkError> {
    tokio::time::timeout(deadline, work)
        .await
        .unwrap_or(Err(NetworkError::Timeout {
            what,
            after: deadline,
        }))
}

/// Keys outside these bounds are refused by every receiver.
fn check_key(key: &[u8]) -> Result<(), NetworkError> {
    if key.is_empty() || key.len() > MAX_KAD_KEY {
        return Err(NetworkError::TooLarge {
            what: "key",
            size_bytes: key.len(),
            limit_bytes: MAX_KAD_KEY,
        });
    }
    Ok(())
}
