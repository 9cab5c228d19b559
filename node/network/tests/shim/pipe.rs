//! Two ends of a stream in memory that read and write little at a time and are not always ready; and an executor
//! that notices when nobody will ever be woken.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use libp2p::futures::{AsyncRead, AsyncWrite};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

#[derive(Default)]
struct Line {
    bytes: VecDeque<u8>,
    closed: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// How an end behaves.
#[derive(Debug, Clone, Copy)]
pub struct Manners {
    /// Most bytes moved by one call.
    pub step: usize,
    /// Bytes that fit on the way.
    pub capacity: usize,
    /// Of 256 calls, how many are answered with Pending for no reason.
    pub pending: u8,
}

impl Manners {
    pub const PLAIN: Self = Self {
        step: usize::MAX,
        capacity: usize::MAX,
        pending: 0,
    };
}

pub struct End {
    incoming: Arc<Mutex<Line>>,
    outgoing: Arc<Mutex<Line>>,
    manners: Manners,
    rng: ChaCha8Rng,
}

pub fn pair(manners: Manners, seed: u64) -> (End, End) {
    let (one, two) = (Arc::<Mutex<Line>>::default(), Arc::<Mutex<Line>>::default());
    let end = |incoming: &Arc<Mutex<Line>>, outgoing: &Arc<Mutex<Line>>, seed| End {
        incoming: incoming.clone(),
        outgoing: outgoing.clone(),
        manners,
        rng: ChaCha8Rng::seed_from_u64(seed),
    };
    (end(&one, &two, seed), end(&two, &one, seed.wrapping_add(1)))
}

impl End {
    /// Bytes that were sent to this end and not read by it.
    pub fn unread(&self) -> usize {
        self.incoming.lock().unwrap().bytes.len()
    }

    /// A look at this end's incoming line that survives the end itself.
    pub fn unread_later(&self) -> impl Fn() -> usize + use<> {
        let line = self.incoming.clone();
        move || line.lock().unwrap().bytes.len()
    }

    fn hesitates(&mut self, cx: &Context<'_>) -> bool {
        let hesitates = (self.rng.next_u32() & 0xff) < u32::from(self.manners.pending);
        if hesitates {
            cx.waker().wake_by_ref();
        }
        hesitates
    }

    fn step(&mut self) -> usize {
        match self.manners.step {
            0 | 1 => 1,
            usize::MAX => usize::MAX,
            most => 1 + self.rng.next_u32() as usize % most,
        }
    }
}

impl AsyncRead for End {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        if self.hesitates(cx) {
            return Poll::Pending;
        }
        let step = self.step();
        let mut line = self.incoming.lock().unwrap();
        if line.bytes.is_empty() {
            if line.closed {
                return Poll::Ready(Ok(0));
            }
            line.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let count = line.bytes.len().min(buf.len()).min(step);
        for (to, from) in buf.iter_mut().zip(line.bytes.drain(..count)) {
            *to = from;
        }
        if let Some(writer) = line.writer.take() {
            writer.wake();
        }
        Poll::Ready(Ok(count))
    }
}

impl AsyncWrite for End {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.hesitates(cx) {
            return Poll::Pending;
        }
        let (step, capacity) = (self.step(), self.manners.capacity);
        let mut line = self.outgoing.lock().unwrap();
        if line.closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let count = buf.len().min(step).min(capacity.saturating_sub(line.bytes.len()));
        if count == 0 && !buf.is_empty() {
            line.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        line.bytes.extend(&buf[..count]);
        if let Some(reader) = line.reader.take() {
            reader.wake();
        }
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.hesitates(cx) {
            Poll::Pending
        } else {
            Poll::Ready(Ok(()))
        }
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.hesitates(cx) {
            return Poll::Pending;
        }
        self.shut();
        Poll::Ready(Ok(()))
    }
}

impl End {
    fn shut(&self) {
        let mut line = self.outgoing.lock().unwrap();
        line.closed = true;
        if let Some(reader) = line.reader.take() {
            reader.wake();
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.shut();
        // Who still writes to us has to notice as well.
        let mut line = self.incoming.lock().unwrap();
        line.closed = true;
        if let Some(writer) = line.writer.take() {
            writer.wake();
        }
    }
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Runs a future to its end; `None` if it waits and nothing will wake it.
pub fn run<F: Future>(future: F) -> Option<F::Output> {
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(woken.clone());
    let mut cx = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        woken.0.store(false, Ordering::SeqCst);
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return Some(output);
        }
        if !woken.0.load(Ordering::SeqCst) {
            return None;
        }
    }
}
