//! How long the caller of a method waits, by the `grpc-timeout` header of its request (gRPC over HTTP/2): what takes long
//! answers with what it has a little before nobody listens any more. Pure.

use std::time::Duration;

use tonic::Request;
use tonic::metadata::MetadataMap;

/// Kept back of the caller's time, for what follows the work: encoding, and the way.
const SPARE: Duration = Duration::from_secs(1);

/// The time to work in for a request whose caller says how long it waits: all but a second of it, and of short times a
/// quarter. `None` for a caller that says nothing, or nothing that can be read.
pub fn working_time<T>(request: &Request<T>) -> Option<Duration> {
    let limit = limit(request.metadata())?;
    Some(limit.saturating_sub(SPARE).max(limit / 4))
}

fn limit(metadata: &MetadataMap) -> Option<Duration> {
    parse(metadata.get("grpc-timeout")?.to_str().ok()?)
}

/// Up to eight digits and a unit.
fn parse(text: &str) -> Option<Duration> {
    let (place, unit) = text.char_indices().next_back()?;
    let digits = text.get(..place)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        // Eight digits of hours are far from what seconds can count.
        'H' => Duration::from_secs(number.saturating_mul(3600)),
        'M' => Duration::from_secs(number.saturating_mul(60)),
        'S' => Duration::from_secs(number),
        'm' => Duration::from_millis(number),
        'u' => Duration::from_micros(number),
        'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(header: &str, expected: Option<Duration>) {
        let mut request = Request::new(());
        request
            .metadata_mut()
            .insert("grpc-timeout", header.parse().unwrap());
        assert_eq!(working_time(&request), expected, "{header:?}");
    }

    #[test]
    fn the_time_of_the_caller_less_a_second_is_worked_in() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        check("30S", seconds(29));
        check("30000000u", seconds(29));
        check("30000m", seconds(29));
        check("2M", seconds(119));
        check("1H", seconds(3599));
        check("99999999H", seconds(99_999_999 * 3600 - 1));
        check("1S", Some(Duration::from_millis(250)));
        check("80000000n", Some(Duration::from_millis(20)));
        check("0S", seconds(0));
        assert_eq!(working_time(&Request::new(())), None);
    }

    #[test]
    fn what_is_no_time_is_nothing() {
        for header in [
            "",
            "S",
            "1",
            "-1S",
            "+1S",
            "1.5S",
            "123456789S",
            "1 S",
            "1s",
            "1Sx",
            "99999999999999999999S",
        ] {
            check(header, None);
        }
    }

    #[test]
    fn what_clients_write_is_read() {
        for limit in [1_u64, 30, 99, 100, 86_400, 100_000_000].map(Duration::from_secs) {
            let mut request = Request::new(());
            request.set_timeout(limit);
            let left = limit - working_time(&request).unwrap();
            assert!(
                left <= SPARE + Duration::from_secs(60),
                "{limit:?}: {left:?} are kept back"
            );
        }
    }
}
