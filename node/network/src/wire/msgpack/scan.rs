//! Where a value ends, while its bytes arrive.

use super::{Fault, Head, MsgpackError, big_endian, head};

/// How far a [`Scanner`] has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// At least this many bytes more belong to the value, so that reading them never takes what follows it.
    More(usize),
    /// The value is complete and this long.
    Done(usize),
}

/// Finds the end of one value while its bytes arrive. Looks at each byte once and holds no copy.
#[derive(Debug, Clone)]
pub struct Scanner {
    limit: usize,
    /// End of what is understood; may lie beyond what has arrived.
    at: usize,
    /// Values that are owed.
    owed: u64,
}

impl Scanner {
    /// A scanner for one value of at most `limit` bytes.
    #[must_use]
    pub const fn new(limit: usize) -> Self {
        Self {
            limit,
            at: 0,
            owed: 1,
        }
    }

    /// Goes on with `buffer`, which holds the value from its first byte on, as far as it has arrived.
    ///
    /// # Errors
    /// [`Fault::TooLarge`] as soon as the value must pass the limit, [`Fault::Reserved`] for the byte that begins no
    /// value; positions count from the first byte of the value.
    pub fn scan(&mut self, buffer: &[u8]) -> Result<Progress, MsgpackError> {
        while self.owed > 0 {
            let Some(rest) = buffer.get(self.at..).filter(|rest| !rest.is_empty()) else {
                break;
            };
            if !self.step(rest)? {
                // The head itself is cut: one byte more is sure.
                return Ok(Progress::More(1));
            }
            let owed = usize::try_from(self.owed).unwrap_or(usize::MAX);
            if self.at.saturating_add(owed) > self.limit {
                return Err(MsgpackError {
                    position: buffer.len().min(self.at),
                    fault: Fault::TooLarge(self.limit),
                });
            }
        }
        let owed = usize::try_from(self.owed).unwrap_or(usize::MAX);
        let missing = self.at.saturating_sub(buffer.len()).saturating_add(owed);
        Ok(if missing == 0 {
            Progress::Done(self.at)
        } else {
            Progress::More(missing)
        })
    }

    /// Takes one head at the start of `rest`; `false` when it is cut.
    fn step(&mut self, rest: &[u8]) -> Result<bool, MsgpackError> {
        let Some((first, behind)) = rest.split_first() else {
            return Ok(false);
        };
        let (taken, children) = match head(*first) {
            Head::Plain(length) => (length, 0),
            Head::Values(count) => (0, count),
            Head::Reserved => {
                return Err(MsgpackError {
                    position: self.at.saturating_add(1),
                    fault: Fault::Reserved(*first),
                });
            }
            Head::Sized { length_bytes, extra } => {
                let Some(length) = behind.get(..length_bytes) else {
                    return Ok(false);
                };
                let length = usize::try_from(big_endian(length)).unwrap_or(usize::MAX);
                (length.saturating_add(length_bytes).saturating_add(extra), 0)
            }
            Head::Counted { length_bytes, each } => {
                let Some(count) = behind.get(..length_bytes) else {
                    return Ok(false);
                };
                (length_bytes, big_endian(count).saturating_mul(each))
            }
        };
        self.at = self.at.saturating_add(1).saturating_add(taken);
        self.owed = self.owed.saturating_sub(1).saturating_add(children);
        Ok(true)
    }
}
