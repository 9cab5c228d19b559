//! A relay of TCP connections on loopback that counts the bytes it carries, both ways.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Bytes carried at once.
const CHUNK: usize = 64 * 1024;

/// A relay to one address; ends when dropped.
#[derive(Debug)]
pub struct Relay {
    /// Where it takes connections in.
    pub address: SocketAddr,
    bytes: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

impl Relay {
    /// Starts one.
    ///
    /// # Errors
    /// When no port is free.
    pub async fn start(target: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let bytes = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&bytes);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((inner, _)) = listener.accept().await {
                // Whoever dials sees a connection that closes at once, as without the relay.
                let Ok(outer) = TcpStream::connect(target).await else {
                    continue;
                };
                let _ = (inner.set_nodelay(true), outer.set_nodelay(true));
                let ((inner_in, inner_out), (outer_in, outer_out)) = (inner.into_split(), outer.into_split());
                open.spawn(carry(inner_in, outer_out, Arc::clone(&counted)));
                open.spawn(carry(outer_in, inner_out, Arc::clone(&counted)));
                while open.try_join_next().is_some() {}
            }
        });
        Ok(Self {
            address,
            bytes,
            _tasks: tasks,
        })
    }

    /// Bytes carried so far, both ways together.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, count: Arc<AtomicU64>) {
    let mut buffer = vec![0; CHUNK];
    while let Ok(length) = from.read(&mut buffer).await {
        let Some(part) = buffer.get(..length).filter(|part| !part.is_empty()) else {
            break;
        };
        count.fetch_add(part.len() as u64, Ordering::Relaxed);
        if to.write_all(part).await.is_err() {
            break;
        }
    }
    // The other side may be gone already.
    let _ = to.shutdown().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_carried_arrives_and_is_counted_both_ways() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let relay = Relay::start(listener.local_addr().unwrap()).await.unwrap();
        let mut near = TcpStream::connect(relay.address).await.unwrap();
        let (mut far, _) = listener.accept().await.unwrap();
        near.write_all(b"question").await.unwrap();
        near.shutdown().await.unwrap();
        let mut asked = Vec::new();
        far.read_to_end(&mut asked).await.unwrap();
        far.write_all(b"answers").await.unwrap();
        drop(far);
        let mut answered = Vec::new();
        near.read_to_end(&mut answered).await.unwrap();
        assert_eq!(
            (asked.as_slice(), answered.as_slice()),
            (&b"question"[..], &b"answers"[..])
        );
        assert_eq!(relay.bytes(), 15);
    }
}
