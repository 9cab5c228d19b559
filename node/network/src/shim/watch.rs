//! What keeps a peer from sitting on a stream that it opened: bounds and deadlines for its messages.
//!
//! Kademlia and gossip read inbound streams without any deadline, so half a message would be waited for as long as the
//! connection lasts. A watched stream ends when a message takes longer from its first byte to its last than it may
//! (trickling does not help), when it is larger than anything the network sends, and, for the DHT, when nothing comes
//! for as long as the reference would wait (p2p-wire §2.2). Each end is counted with its reason. Never looks at what a
//! message says. Holds one timer, made when it is first needed. Soft state.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use super::names::KAD_INSIDE;

/// Largest DHT request. A provider with twenty addresses stays below 2 KiB, and values are not kept.
pub(super) const MAX_KAD_REQUEST_BYTES: usize = 32 * 1024;

/// How long a peer may take on a stream that it opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// From the first byte of a message to its last.
    pub message: Duration,
    /// Without any message, where streams are not meant to stay: the DHT.
    pub idle: Duration,
}

/// What a watched stream carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Watched {
    Kad,
    Gossip,
    IdentifyPush,
}

impl Watched {
    /// The protocols whose readers wait for ever.
    pub(super) fn of(protocol: &[u8]) -> Option<Self> {
        if protocol == KAD_INSIDE.as_bytes() {
            Some(Self::Kad)
        } else if protocol.starts_with(b"/meshsub/") || protocol.starts_with(b"/floodsub/") {
            Some(Self::Gossip)
        } else if protocol == super::stream::IDENTIFY_PUSH.as_bytes() {
            Some(Self::IdentifyPush)
        } else {
            None
        }
    }

    /// Name in the figures.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Kad => "kad",
            Self::Gossip => "gossip",
            Self::IdentifyPush => "identify_push",
        }
    }
}

/// Why a watched stream ended, or what was wrong with a message on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Offence {
    /// A message was begun and not ended in time.
    Slow,
    /// Nothing came.
    Idle,
    /// The length of a message is broken or above the bound.
    Oversize,
    /// A whole message does not parse; its reader ends the stream.
    Malformed,
}

impl Offence {
    /// Name in the figures.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Slow => "slow",
            Self::Idle => "idle",
            Self::Oversize => "oversize",
            Self::Malformed => "malformed",
        }
    }
}

/// The watch over one stream.
#[derive(Debug)]
pub(super) struct Watch {
    what: Watched,
    deadlines: Deadlines,
    inside: bool,
    until: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Watch {
    /// Begins when the protocol is agreed on.
    pub(super) fn new(what: Watched, deadlines: Deadlines) -> Self {
        let mut watch = Self {
            what,
            deadlines,
            inside: false,
            until: None,
            timer: None,
        };
        watch.restart();
        watch
    }

    pub(super) fn what(&self) -> Watched {
        self.what
    }

    /// Bytes came: whether a message is under way now, and whether one has become whole since the last call.
    pub(super) fn came(&mut self, inside: bool, whole: bool) {
        if whole || inside != self.inside {
            self.inside = inside;
            self.restart();
        }
    }

    fn restart(&mut self) {
        let span = match (self.what, self.inside) {
            (_, true) | (Watched::IdentifyPush, false) => Some(self.deadlines.message),
            (Watched::Kad, false) => Some(self.deadlines.idle),
            (Watched::Gossip, false) => None,
        };
        self.until = span.map(|span| Instant::now() + span);
    }

    /// Ready once the time is over. Asked when nothing has come; the timer is moved only here.
    pub(super) fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<Offence> {
        let Some(until) = self.until else {
            self.timer = None;
            return Poll::Pending;
        };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(until)));
        loop {
            if timer.deadline() > until {
                timer.as_mut().reset(until);
            }
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= until {
                return Poll::Ready(if self.inside { Offence::Slow } else { Offence::Idle });
            }
            timer.as_mut().reset(until);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const SHORT: Duration = Duration::from_millis(30);
    const LONG: Duration = Duration::from_secs(3600);

    fn watch(what: Watched, message: Duration, idle: Duration) -> Watch {
        Watch::new(what, Deadlines { message, idle })
    }

    async fn over(watch: &mut Watch) -> Offence {
        poll_fn(|cx| watch.poll_over(cx)).await
    }

    async fn is_over(watch: &mut Watch) -> bool {
        poll_fn(|cx| Poll::Ready(watch.poll_over(cx))).await.is_ready()
    }

    #[tokio::test]
    async fn trickling_does_not_lengthen_the_time_of_a_message() {
        let mut watch = watch(Watched::Kad, SHORT, LONG);
        watch.came(true, false);
        let until = watch.until;
        while !is_over(&mut watch).await {
            watch.came(true, false);
            assert_eq!(watch.until, until);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(Instant::now() >= until.unwrap());
        assert_eq!(over(&mut watch).await, Offence::Slow);
    }

    /// The end of one message and the beginning of the next may come in the same read.
    #[tokio::test]
    async fn a_whole_message_gives_the_next_one_its_own_time() {
        let mut watch = watch(Watched::Gossip, LONG, SHORT);
        watch.came(true, false);
        let first = watch.until.unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
        watch.came(true, true);
        assert!(watch.until.unwrap() > first);
        assert!(!is_over(&mut watch).await);
    }

    #[tokio::test]
    async fn only_streams_that_are_not_meant_to_stay_end_for_silence() {
        for mut watch in [
            watch(Watched::Kad, LONG, SHORT),
            watch(Watched::IdentifyPush, SHORT, LONG),
        ] {
            assert_eq!(over(&mut watch).await, Offence::Idle);
        }
        let mut watch = watch(Watched::Gossip, SHORT, SHORT);
        watch.came(true, false);
        assert!(!is_over(&mut watch).await, "armed for the message");
        watch.came(false, true);
        assert_eq!(watch.until, None);
        assert!(!is_over(&mut watch).await);
    }

    /// A timer set for the long silence must not make a message wait for it, nor the other way round.
    #[tokio::test]
    async fn the_timer_follows_the_deadline_both_ways() {
        let mut watch = watch(Watched::Kad, SHORT, LONG);
        assert!(!is_over(&mut watch).await);
        watch.came(true, false);
        assert_eq!(over(&mut watch).await, Offence::Slow);
        watch.came(false, true);
        assert!(!is_over(&mut watch).await);
    }

    #[test]
    fn protocols_with_readers_that_wait_are_watched() {
        for (name, what) in [
            ("/dir/kad/1.0.0", Some(Watched::Kad)),
            ("/meshsub/1.3.0", Some(Watched::Gossip)),
            ("/floodsub/1.0.0", Some(Watched::Gossip)),
            ("/ipfs/id/push/1.0.0", Some(Watched::IdentifyPush)),
            ("/dir/rpc/1.0.0", None),
        ] {
            assert_eq!(Watched::of(name.as_bytes()), what, "{name}");
        }
    }
}
