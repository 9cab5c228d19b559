//! Moments as announcements write them: RFC 3339 with nanoseconds and the writer's offset.
//!
//! Written with trailing zeros cut and `Z` for no offset. Read as leniently as the reference's parser: an hour of one
//! digit, a comma before the fraction, more than nine digits (cut), an offset of up to 24 hours and 60 minutes. Pure:
//! the clock is the caller's. Follows p2p-wire §4.2.

use std::fmt;

use time::{Date, Month};

const DAY: i64 = 24 * 60 * 60;
/// The Julian day of 1 January 1970.
const EPOCH: i32 = 2_440_588;
/// 1 January of the year 1, the reference's zero time, in seconds since 1970.
const ZERO_SECONDS: i64 = -62_135_596_800;

/// A moment, and the offset it was written with. Order and equality look at the moment first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    seconds: i64,
    nanos: u32,
    offset_minutes: i16,
}

/// The text is not a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an rfc 3339 time")]
pub struct TimestampError;

impl Timestamp {
    /// The moment so many nanoseconds after 1970 began, in UTC. Beyond the year 9999 it stays at its end.
    #[must_use]
    pub fn from_unix_nanos(nanos: u64) -> Self {
        // 584 years is all that 64 bits of nanoseconds hold, far before the year 9999.
        Self {
            seconds: i64::try_from(nanos / 1_000_000_000).unwrap_or_default(),
            nanos: u32::try_from(nanos % 1_000_000_000).unwrap_or_default(),
            offset_minutes: 0,
        }
    }

    /// Whole seconds since 1970, rounded down.
    #[must_use]
    pub const fn unix_seconds(self) -> i64 {
        self.seconds
    }

    /// Nanoseconds within the second.
    #[must_use]
    pub const fn subsec_nanos(self) -> u32 {
        self.nanos
    }

    /// Nanoseconds since 1970; the nearest end of what 64 bits hold for moments outside it.
    #[must_use]
    pub fn unix_nanos(self) -> i64 {
        self.seconds
            .saturating_mul(1_000_000_000)
            .saturating_add(i64::from(self.nanos))
    }

    /// The moment `nanos` later, with the same offset.
    #[must_use]
    pub fn later_by(self, nanos: u32) -> Self {
        let sum = u64::from(self.nanos).saturating_add(u64::from(nanos));
        Self {
            seconds: self
                .seconds
                .saturating_add(i64::try_from(sum / 1_000_000_000).unwrap_or_default()),
            nanos: u32::try_from(sum % 1_000_000_000).unwrap_or_default(),
            ..self
        }
    }

    /// Whether it is the reference's zero time, in whatever offset, which stands for "none".
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.seconds == ZERO_SECONDS && self.nanos == 0
    }

    /// Reads a text.
    ///
    /// # Errors
    /// [`TimestampError`] for anything that the reference's parser refuses.
    pub fn parse(text: &[u8]) -> Result<Self, TimestampError> {
        read(text).ok_or(TimestampError)
    }
}

fn read(text: &[u8]) -> Option<Timestamp> {
    let mut rest = text;
    let year = number(&mut rest, 4)?;
    literal(&mut rest, b'-')?;
    let month = number(&mut rest, 2)?;
    literal(&mut rest, b'-')?;
    let day = number(&mut rest, 2)?;
    literal(&mut rest, b'T')?;
    let hour = number(&mut rest, 2).or_else(|| number(&mut rest, 1))?;
    literal(&mut rest, b':')?;
    let minute = number(&mut rest, 2)?;
    literal(&mut rest, b':')?;
    let second = number(&mut rest, 2)?;
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let nanos = fraction(&mut rest);
    let offset_minutes = offset(rest)?;

    let month = Month::try_from(u8::try_from(month).ok()?).ok()?;
    let date = Date::from_calendar_date(i32::try_from(year).ok()?, month, u8::try_from(day).ok()?).ok()?;
    let days = i64::from(date.to_julian_day()) - i64::from(EPOCH);
    let clock = i64::from(hour * 3600 + minute * 60 + second);
    Some(Timestamp {
        seconds: days * DAY + clock - i64::from(offset_minutes) * 60,
        nanos,
        offset_minutes,
    })
}

/// A number of exactly `count` digits.
fn number(rest: &mut &[u8], count: usize) -> Option<u32> {
    let (digits, behind) = rest.split_at_checked(count)?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    *rest = behind;
    Some(
        digits
            .iter()
            .fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0')),
    )
}

fn literal(rest: &mut &[u8], byte: u8) -> Option<()> {
    *rest = rest.strip_prefix(&[byte])?;
    Some(())
}

/// The fraction in nanoseconds, when one stands here.
fn fraction(rest: &mut &[u8]) -> u32 {
    let [b'.' | b',', behind @ ..] = *rest else {
        return 0;
    };
    let count = behind.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let Some((digits, behind)) = behind.split_at_checked(count).filter(|_| count > 0) else {
        return 0;
    };
    *rest = behind;
    let padded = digits.iter().copied().chain(std::iter::repeat(b'0'));
    padded
        .take(9)
        .fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0'))
}

/// What is left must be the offset, in minutes.
fn offset(mut rest: &[u8]) -> Option<i16> {
    if rest == b"Z" {
        return Some(0);
    }
    let (sign, behind) = rest.split_first()?;
    rest = behind;
    let hours = i16::try_from(number(&mut rest, 2)?).ok()?;
    literal(&mut rest, b':')?;
    let minutes = i16::try_from(number(&mut rest, 2)?).ok()?;
    if !rest.is_empty() || hours > 24 || minutes > 60 {
        return None;
    }
    let total = hours * 60 + minutes;
    match sign {
        b'+' => Some(total),
        b'-' => Some(-total),
        _ => None,
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let local = self.seconds.saturating_add(i64::from(self.offset_minutes) * 60);
        let day = i32::try_from(local.div_euclid(DAY) + i64::from(EPOCH)).map_err(|_| fmt::Error)?;
        let date = Date::from_julian_day(day).map_err(|_| fmt::Error)?;
        let clock = local.rem_euclid(DAY);
        write!(
            f,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}",
            date.year(),
            u8::from(date.month()),
            date.day(),
            clock / 3600,
            clock / 60 % 60,
            clock % 60
        )?;
        if self.nanos > 0 {
            let digits = format!("{:09}", self.nanos);
            write!(f, ".{}", digits.trim_end_matches('0'))?;
        }
        match self.offset_minutes {
            0 => f.write_str("Z"),
            minutes => write!(
                f,
                "{}{:02}:{:02}",
                if minutes < 0 { '-' } else { '+' },
                minutes.abs() / 60,
                minutes.abs() % 60
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lenient_forms_are_read() {
        for (text, written) in [
            ("2026-03-04T5:06:07Z", "2026-03-04T05:06:07Z"),
            ("2026-03-04T05:06:07,5Z", "2026-03-04T05:06:07.5Z"),
            (
                "2026-03-04T05:06:07.1234567899Z",
                "2026-03-04T05:06:07.123456789Z",
            ),
            ("2026-03-04T05:06:07+24:00", "2026-03-04T05:06:07+24:00"),
            ("2026-03-04T05:06:07-00:00", "2026-03-04T05:06:07Z"),
            ("0000-02-29T00:00:00Z", "0000-02-29T00:00:00Z"),
        ] {
            assert_eq!(Timestamp::parse(text.as_bytes()).unwrap().to_string(), written);
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "2026-03-04",
            "2026-03-04 05:06:07Z",
            "2026-03-04t05:06:07z",
            "2026-03-04T05:06:07",
            "2026-03-04T05:06:07+0100",
            "2026-03-04T05:06:60Z",
            "2026-03-04T24:00:00Z",
            "2026-02-30T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-03-04T05:06:07.Z",
            "2026-03-04T05:06:07+25:00",
            "2026-03-04T05:06:07Zx",
            "10000-01-01T00:00:00Z",
            "2026-3-04T05:06:07Z",
        ] {
            assert_eq!(Timestamp::parse(text.as_bytes()), Err(TimestampError), "{text}");
        }
    }

    #[test]
    fn the_zero_time_is_known_in_any_offset() {
        for text in [
            "0001-01-01T00:00:00Z",
            "0001-01-01T01:00:00+01:00",
            "0000-12-31T23:00:00-01:00",
        ] {
            assert!(Timestamp::parse(text.as_bytes()).unwrap().is_zero(), "{text}");
        }
        assert!(
            !Timestamp::parse(b"0001-01-01T00:00:00.000000001Z")
                .unwrap()
                .is_zero()
        );
    }

    proptest! {
        #[test]
        fn moments_round_trip(nanos: u64, later in 0u32..2_000_000_000) {
            let moment = Timestamp::from_unix_nanos(nanos);
            prop_assert_eq!(Timestamp::parse(moment.to_string().as_bytes()), Ok(moment));
            prop_assert!(moment.later_by(later) >= moment);
            if let Ok(nanos) = i64::try_from(nanos) {
                prop_assert_eq!(moment.unix_nanos(), nanos);
            }
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in "[0-9TZ:+.,-]{0,40}") {
            if let Ok(moment) = Timestamp::parse(bytes.as_bytes()) {
                prop_assert_eq!(Timestamp::parse(moment.to_string().as_bytes()), Ok(moment));
            }
        }
    }
}
