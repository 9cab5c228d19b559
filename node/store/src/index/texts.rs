//! Texts by number, in segments: adding one never moves the others, so no addition takes long and no room is kept for many
//! more.

use super::room;

/// Bytes of a segment. A longer text has a segment of its own.
const SEGMENT_BYTES: usize = 1 << OFFSET_BITS;
/// Bytes of the first segment.
const FIRST_BYTES: usize = 1 << 10;
/// Bits of a span: from the highest, the segment, the place in it, the length.
const OFFSET_BITS: u32 = 20;
const LEN_BITS: u32 = 26;
/// Longest text, in bytes; what is longer than any record is cut.
const MAX_LEN: usize = (1 << LEN_BITS) - 1;
/// Dead bytes are given back when there are so many, and more than live ones.
const DEAD_BYTES: usize = 4 << 20;

/// The texts.
#[derive(Default)]
pub(super) struct Texts {
    segments: Vec<String>,
    /// Where each text is; zero for an empty one.
    spans: Vec<u64>,
    live: usize,
    dead: usize,
}

impl Texts {
    /// The text of a number; empty if there is none.
    pub(super) fn get(&self, value: u32) -> &str {
        let span = self.spans.get(value as usize).copied().unwrap_or(0);
        let part = |shift: u32, bits: u32| usize::try_from((span >> shift) & ((1 << bits) - 1)).unwrap_or(0);
        let (start, len) = (part(LEN_BITS, OFFSET_BITS), part(0, LEN_BITS));
        let segment = part(LEN_BITS + OFFSET_BITS, 64 - LEN_BITS - OFFSET_BITS);
        let segment = self.segments.get(segment).map_or("", String::as_str);
        segment.get(start..start.saturating_add(len)).unwrap_or_default()
    }

    /// A number above all that were used.
    pub(super) fn next(&self) -> u32 {
        u32::try_from(self.spans.len()).unwrap_or(u32::MAX)
    }

    /// Gives `value`, which has no text, its text.
    pub(super) fn set(&mut self, value: u32, text: &str) {
        let text = text.get(..text.floor_char_boundary(MAX_LEN)).unwrap_or_default();
        let room = |segment: &String| segment.capacity().saturating_sub(segment.len());
        if self.segments.last().is_none_or(|last| room(last) < text.len()) {
            // The first ones are small, so that a column of few texts takes little.
            let size = self
                .live
                .saturating_add(self.dead)
                .clamp(FIRST_BYTES, SEGMENT_BYTES);
            self.segments.push(String::with_capacity(text.len().max(size)));
        }
        let number = self.segments.len().saturating_sub(1) as u64;
        let Some(segment) = self.segments.last_mut() else {
            return;
        };
        let span = (number << (LEN_BITS + OFFSET_BITS))
            | ((segment.len() as u64) << LEN_BITS)
            | (text.len() as u64 & MAX_LEN as u64);
        segment.push_str(text);
        self.live = self.live.saturating_add(text.len());
        let at = value as usize;
        room::reach(&mut self.spans, at, 0);
        if let Some(place) = self.spans.get_mut(at) {
            *place = span;
        }
    }

    /// Forgets the text of `value`.
    pub(super) fn clear(&mut self, value: u32) {
        let len = self.get(value).len();
        self.dead = self.dead.saturating_add(len);
        self.live = self.live.saturating_sub(len);
        if let Some(span) = self.spans.get_mut(value as usize) {
            *span = 0;
        }
        if self.dead < DEAD_BYTES || self.dead < self.live {
            return;
        }
        let old = std::mem::take(self);
        self.spans.reserve_exact(old.spans.len());
        for value in 0..old.next() {
            self.set(value, old.get(value));
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.segments
            .iter()
            .map(|segment| (segment.capacity() as u64).saturating_add(24))
            .fold(
                (self.spans.capacity() as u64).saturating_mul(8),
                u64::saturating_add,
            )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_every_length_are_found_again_and_room_is_given_back() {
        let mut texts = Texts::default();
        let text = |number: u32| {
            let len = match number % 50 {
                0 => SEGMENT_BYTES + 5,
                1 => 0,
                short => short as usize * 1000,
            };
            format!("{number:04}")
                .chars()
                .cycle()
                .take(len)
                .collect::<String>()
        };
        for number in 0..200 {
            texts.set(number, &text(number));
        }
        let held = texts.bytes();
        for number in (0..200).filter(|number| number % 4 != 3) {
            texts.clear(number);
        }
        for number in 0..200 {
            let expected = if number % 4 == 3 {
                text(number)
            } else {
                String::new()
            };
            assert!(texts.get(number) == expected, "text {number} is another");
        }
        assert!(
            texts.bytes() < held / 2,
            "{} of {held} bytes are kept",
            texts.bytes()
        );
        assert_eq!((texts.next(), texts.get(5000)), (200, ""));
    }
}
