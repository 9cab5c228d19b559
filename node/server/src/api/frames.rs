//! Counts gRPC messages in a body that passes by, without looking inside (gRPC over HTTP/2: one byte of flags, four of
//! length, the message).

/// How far into a message the bytes seen so far reach.
#[derive(Debug, Default)]
pub struct FrameCounter {
    head: [u8; 5],
    head_len: usize,
    body_left: u64,
}

impl FrameCounter {
    /// Takes the next bytes; returns how many messages began their body, or were empty, in them.
    pub fn take(&mut self, mut bytes: &[u8]) -> u64 {
        let mut messages = 0;
        while !bytes.is_empty() {
            if self.body_left > 0 {
                let skip = usize::try_from(self.body_left)
                    .unwrap_or(usize::MAX)
                    .min(bytes.len());
                self.body_left -= skip as u64;
                bytes = bytes.get(skip..).unwrap_or_default();
                continue;
            }
            let wanted = (self.head.len() - self.head_len).min(bytes.len());
            let (now, rest) = bytes.split_at(wanted);
            if let Some(room) = self.head.get_mut(self.head_len..self.head_len + wanted) {
                room.copy_from_slice(now);
            }
            self.head_len += wanted;
            bytes = rest;
            if self.head_len == self.head.len() {
                let [_, a, b, c, d] = self.head;
                self.body_left = u64::from(u32::from_be_bytes([a, b, c, d]));
                self.head_len = 0;
                messages += 1;
            }
        }
        messages
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_counted_however_the_bytes_are_cut() {
        let mut bytes = Vec::new();
        for len in [0_u32, 3, 0, 300, 1] {
            bytes.push(0);
            bytes.extend(len.to_be_bytes());
            bytes.extend(std::iter::repeat_n(7, len as usize));
        }
        for cut in 1..40 {
            let mut counter = FrameCounter::default();
            let count: u64 = bytes.chunks(cut).map(|part| counter.take(part)).sum();
            assert_eq!(count, 5, "cut into pieces of {cut}");
        }
    }
}
