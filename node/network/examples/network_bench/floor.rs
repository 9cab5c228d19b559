//! The floor: a swarm with TCP, TLS and yamux, set up as the node's, and streams that carry frames of a given size.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result};
use dirnode_network::{Multiaddr, Runtime};
use futures_util::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _};
use libp2p::identity::Keypair;
use libp2p::swarm::SwarmEvent;
use libp2p::{PeerId, Stream, StreamProtocol, Swarm, SwarmBuilder, tcp, tls, yamux};
use libp2p_stream as stream;
use serde_json::json;
use tokio::sync::oneshot;

use super::child;

/// One question and one answer a stream; the question says how long the answer is to be.
const ECHO: StreamProtocol = StreamProtocol::new("/bench/echo/1");
/// Frames one way, read and counted; the reader closes its side when they end.
const SINK: StreamProtocol = StreamProtocol::new("/bench/sink/1");

/// How often an echo is tried again.
const ECHO_TRIES: u32 = 20;

/// Frames are as long as the first four bytes of each say, these included.
const PREFIX: usize = 4;

fn swarm() -> Result<Swarm<stream::Behaviour>> {
    Ok(SwarmBuilder::with_existing_identity(Keypair::generate_ed25519())
        .with_tokio()
        .with_tcp(
            tcp::Config::default().nodelay(true),
            tls::Config::new,
            yamux::Config::default,
        )?
        .with_behaviour(|_| stream::Behaviour::new())?
        .with_swarm_config(|config| config.with_idle_connection_timeout(std::time::Duration::from_secs(900)))
        .build())
}

async fn read_prefix(stream: &mut Stream) -> Option<usize> {
    let mut prefix = [0; PREFIX];
    stream.read_exact(&mut prefix).await.ok()?;
    usize::try_from(u32::from_be_bytes(prefix)).ok()
}

async fn echo(mut stream: Stream) -> Option<()> {
    let question = read_prefix(&mut stream).await?;
    let mut bytes = vec![0; question.checked_sub(PREFIX)?];
    stream.read_exact(&mut bytes).await.ok()?;
    let wanted = usize::try_from(u32::from_be_bytes(*bytes.first_chunk()?)).ok()?;
    stream.write_all(&vec![7; wanted]).await.ok()?;
    stream.close().await.ok()
}

async fn sink(mut stream: Stream, count: Arc<AtomicU64>) -> Option<()> {
    let mut frame = Vec::new();
    while let Some(length) = read_prefix(&mut stream).await {
        frame.resize(length.checked_sub(PREFIX)?, 0);
        stream.read_exact(&mut frame).await.ok()?;
        count.fetch_add(1, Ordering::Relaxed);
    }
    stream.close().await.ok()
}

/// Runs the floor until its input ends.
pub async fn serve() -> Result<()> {
    let mut swarm = swarm()?;
    swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse()?)?;
    let mut control = swarm.behaviour().new_control();
    let (frames, connections) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut echoes = control.accept(ECHO)?;
    let mut sinks = control.accept(SINK)?;
    let spawn = Runtime::system().spawn;
    let counted = Arc::clone(&frames);
    spawn(
        "streams",
        Box::pin(async move {
            let spawn = Runtime::system().spawn;
            loop {
                tokio::select! {
                    Some((_, stream)) = echoes.next() => spawn("echo", Box::pin(async { let _ = echo(stream).await; })),
                    Some((_, stream)) = sinks.next() => {
                        let count = Arc::clone(&counted);
                        spawn("sink", Box::pin(async { let _ = sink(stream, count).await; }));
                    }
                    else => return,
                }
            }
        }),
    );
    let (told, listening) = oneshot::channel();
    let mut told = Some(told);
    let open = Arc::clone(&connections);
    spawn(
        "swarm",
        Box::pin(async move {
            loop {
                match swarm.select_next_some().await {
                    SwarmEvent::NewListenAddr { address, .. } => {
                        if let (Some(told), Ok(addr)) =
                            (told.take(), address.with_p2p(*swarm.local_peer_id()))
                        {
                            let _ = told.send(addr);
                        }
                    }
                    SwarmEvent::ConnectionEstablished { .. } => {
                        open.fetch_add(1, Ordering::Relaxed);
                    }
                    SwarmEvent::ConnectionClosed {
                        cause: Some(cause), ..
                    } => {
                        eprintln!("the floor lost a connection: {cause}");
                    }
                    _ => {}
                }
            }
        }),
    );
    println!("{}", listening.await?);
    child::answer(async |_| {
        Ok(json!({
            "frames": frames.load(Ordering::Relaxed),
            "connections": connections.load(Ordering::Relaxed),
        }))
    })
    .await
}

/// A connection to the floor.
pub struct Plain {
    control: stream::Control,
    peer: PeerId,
}

impl Plain {
    /// Connects a new peer.
    pub async fn connect(addr: &Multiaddr) -> Result<Self> {
        let mut swarm = swarm()?;
        let peer = dirnode_network::config::peer_of(addr).context("the floor has no peer id")?;
        swarm.dial(addr.clone())?;
        let control = swarm.behaviour().new_control();
        let (told, connected) = oneshot::channel();
        let mut told = Some(told);
        let spawn = Runtime::system().spawn;
        spawn(
            "swarm",
            Box::pin(async move {
                loop {
                    match swarm.select_next_some().await {
                        SwarmEvent::ConnectionEstablished { .. } => {
                            if let Some(told) = told.take() {
                                let _ = told.send(());
                            }
                        }
                        SwarmEvent::ConnectionClosed {
                            cause: Some(cause), ..
                        } => {
                            eprintln!("lost the connection to the floor: {cause}");
                        }
                        _ => {}
                    }
                }
            }),
        );
        connected.await?;
        Ok(Self { control, peer })
    }

    /// One question of so many bytes and its answer, on a stream of their own. The other side resets streams that come
    /// while it takes another one in; those are tried again, as part of the time.
    pub async fn echo(&self, question: usize, answer: usize) -> Result<()> {
        let mut tried = 0;
        loop {
            match self.echo_once(question, answer).await {
                Err(error) if tried == ECHO_TRIES => return Err(error),
                Err(_) => tried += 1,
                Ok(()) => return Ok(()),
            }
        }
    }

    async fn echo_once(&self, question: usize, answer: usize) -> Result<()> {
        let mut stream = self.control.clone().open_stream(self.peer, ECHO).await?;
        let mut bytes = vec![0; question.max(2 * PREFIX)];
        let length = u32::try_from(bytes.len())?.to_be_bytes();
        let wanted = u32::try_from(answer)?.to_be_bytes();
        for (place, byte) in bytes.iter_mut().zip(length.into_iter().chain(wanted)) {
            *place = byte;
        }
        stream.write_all(&bytes).await?;
        stream.flush().await?;
        let mut answered = vec![0; answer];
        stream.read_exact(&mut answered).await?;
        stream.close().await?;
        Ok(())
    }

    /// So many frames of so many bytes down one stream, with a flush after each `batch`, until the reader has taken all.
    pub async fn send(&self, frames: usize, bytes: usize, batch: usize) -> Result<()> {
        let mut stream = self.control.clone().open_stream(self.peer, SINK).await?;
        let mut frame = vec![0; bytes.max(PREFIX)];
        let length = u32::try_from(frame.len())?.to_be_bytes();
        for (place, byte) in frame.iter_mut().zip(length) {
            *place = byte;
        }
        let mut left = frames;
        while left > 0 {
            let now = left.min(batch.max(1));
            stream.write_all(&frame.repeat(now)).await?;
            stream.flush().await?;
            left -= now;
        }
        stream.close().await?;
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await?;
        Ok(())
    }
}
