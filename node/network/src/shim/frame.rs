//! Collecting one length-prefixed frame at a time, and writing one.
//!
//! Pure. A frame is an unsigned varint (minimal) and so many bytes. The collector says how many bytes it may be
//! given next and never wants one beyond the frame, so nothing has to be given back when a stream turns plain
//! (p2p-wire §3.2, "read, negotiating"). Its memory grows with the bytes that came, not with what a prefix promises.

use bytes::{BufMut, BytesMut};

/// What bytes given to a [`Collector`] led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// The frame is not whole yet.
    More,
    /// The frame is whole: [`Collector::take_body`].
    Whole,
    /// The prefix is no minimal varint or promises too much: [`Collector::take_raw`].
    Refused,
}

/// One frame in the making.
#[derive(Debug)]
pub(super) struct Collector {
    /// Prefix and body as they came.
    raw: Vec<u8>,
    prefix_len: usize,
    /// Length of the body, once the prefix is whole.
    body_len: Option<usize>,
    max_prefix: usize,
    max_body: usize,
}

impl Collector {
    /// For frames of at most `max_body` bytes behind a prefix of at most `max_prefix`.
    pub(super) fn new(max_prefix: usize, max_body: usize) -> Self {
        Self {
            raw: Vec::new(),
            prefix_len: 0,
            body_len: None,
            max_prefix,
            max_body,
        }
    }

    /// How many bytes may be pushed next: one while in the prefix, then the rest of the body. Never zero.
    pub(super) fn wanted(&self) -> usize {
        match self.body_len {
            None => 1,
            Some(body) => self
                .prefix_len
                .saturating_add(body)
                .saturating_sub(self.raw.len()),
        }
    }

    /// Whether nothing of a frame was taken.
    pub(super) fn is_empty(&self) -> bool {
        self.raw.is_empty()
    }

    /// Takes at most [`Collector::wanted`] bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Step {
        debug_assert!(bytes.len() <= self.wanted());
        self.raw.extend_from_slice(bytes);
        if self.body_len.is_none() && !bytes.is_empty() {
            match self.read_prefix() {
                Some(Ok(length)) => {
                    self.prefix_len = self.raw.len();
                    self.body_len = Some(length);
                }
                Some(Err(())) => return Step::Refused,
                None => return Step::More,
            }
        }
        match self.body_len {
            Some(_) if self.wanted() == 0 => Step::Whole,
            _ => Step::More,
        }
    }

    /// The value of the prefix so far: none while more bytes belong to it.
    fn read_prefix(&self) -> Option<Result<usize, ()>> {
        let last = *self.raw.last()?;
        if last & 0x80 != 0 {
            return (self.raw.len() >= self.max_prefix).then_some(Err(()));
        }
        Some(match unsigned_varint::decode::usize(&self.raw) {
            Ok((length, _)) if length <= self.max_body => Ok(length),
            _ => Err(()),
        })
    }

    /// The body of the whole frame; the collector is ready for the next one.
    pub(super) fn take_body(&mut self) -> Vec<u8> {
        let prefix = self.prefix_len;
        let mut raw = self.take_raw();
        raw.drain(..prefix.min(raw.len()));
        raw
    }

    /// What was taken, as it came; the collector is ready for the next frame.
    pub(super) fn take_raw(&mut self) -> Vec<u8> {
        self.prefix_len = 0;
        self.body_len = None;
        std::mem::take(&mut self.raw)
    }
}

/// Appends one frame.
pub(super) fn put_frame(out: &mut BytesMut, body: &[u8]) {
    let mut prefix = unsigned_varint::encode::usize_buffer();
    out.put_slice(unsigned_varint::encode::usize(body.len(), &mut prefix));
    out.put_slice(body);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn wants_exactly_the_frame() {
        let mut collector = Collector::new(2, 100);
        assert_eq!(collector.wanted(), 1);
        assert_eq!(collector.push(&[3]), Step::More);
        assert_eq!(collector.wanted(), 3);
        assert_eq!(collector.push(b"ab"), Step::More);
        assert_eq!(collector.wanted(), 1);
        assert_eq!(collector.push(b"c"), Step::Whole);
        assert_eq!(collector.take_body(), b"abc");
        assert!(collector.is_empty());
        assert_eq!(collector.push(&[0]), Step::Whole);
        assert_eq!(collector.take_body(), b"");
    }

    #[test]
    fn prefixes_too_long_too_large_or_not_minimal_are_handed_back() {
        for bytes in [&[0xff, 0xff][..], &[0x80, 0x00], &[101]] {
            let mut collector = Collector::new(2, 100);
            let (last, first) = bytes.split_last().unwrap();
            for byte in first {
                assert_eq!(collector.push(&[*byte]), Step::More);
            }
            assert_eq!(collector.push(&[*last]), Step::Refused, "{bytes:?}");
            assert_eq!(collector.take_raw(), bytes);
        }
    }

    proptest! {
        #[test]
        fn frames_come_back(bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..8),
                            step in 1usize..50) {
            let mut wire = BytesMut::new();
            for body in &bodies {
                put_frame(&mut wire, body);
            }
            let mut collector = Collector::new(2, 300);
            let mut rest = &wire[..];
            let mut seen = Vec::new();
            while !rest.is_empty() {
                let (now, later) = rest.split_at(collector.wanted().min(step).min(rest.len()));
                rest = later;
                match collector.push(now) {
                    Step::More => {}
                    Step::Whole => seen.push(collector.take_body()),
                    Step::Refused => prop_assert!(false),
                }
            }
            prop_assert_eq!(seen, bodies);
        }
    }
}
