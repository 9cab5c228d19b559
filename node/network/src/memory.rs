//! How much memory the process may take before it refuses connections, where nobody said so.
//!
//! Nine tenths of what there is: of the control group's limit, or of the machine's memory where that is less or there is no
//! such limit. Read once, at the start. Never frees anything. State: none.

use std::fs;

/// The limit of a control group, version 2, as the process itself sees it.
const CGROUP_V2: &str = "/sys/fs/cgroup/memory.max";
/// The same of version 1.
const CGROUP_V1: &str = "/sys/fs/cgroup/memory/memory.limit_in_bytes";
/// What the machine has.
const MACHINE: &str = "/proc/meminfo";

/// Bytes of resident memory above which connections are refused; none where the system does not say what there is.
pub(crate) fn default_limit() -> Option<usize> {
    let read = |path| fs::read_to_string(path).ok();
    let there = available(
        read(CGROUP_V2).as_deref(),
        read(CGROUP_V1).as_deref(),
        read(MACHINE).as_deref(),
    )?;
    usize::try_from(nine_tenths(there)).ok()
}

/// What the process may take in all, from the texts of those files.
fn available(v2: Option<&str>, v1: Option<&str>, machine: Option<&str>) -> Option<u64> {
    let group = v2.and_then(bytes).or_else(|| v1.and_then(bytes));
    let machine = machine.and_then(total);
    // Without a limit version 1 gives a figure near 2^63.
    match (group, machine) {
        (Some(group), Some(machine)) => Some(group.min(machine)),
        (group, machine) => group.or(machine),
    }
}

/// A figure by itself on a line; "max" is no limit.
fn bytes(text: &str) -> Option<u64> {
    text.trim().parse().ok().filter(|bytes| *bytes > 0)
}

/// `MemTotal:       32777216 kB`, among other lines.
fn total(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib = line.trim().strip_suffix("kB")?.trim_end();
    bytes(kib)?.checked_mul(1024)
}

fn nine_tenths(bytes: u64) -> u64 {
    bytes.saturating_sub(bytes / 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMINFO: &str = "MemTotal:       16384 kB\nMemFree:         1024 kB\nSwapTotal:      99999 kB\n";
    const MACHINE_BYTES: u64 = 16384 * 1024;

    fn check(v2: Option<&str>, v1: Option<&str>, machine: Option<&str>, expected: Option<u64>) {
        assert_eq!(available(v2, v1, machine), expected, "{v2:?} {v1:?} {machine:?}");
    }

    #[test]
    fn the_control_group_counts_before_the_machine() {
        check(Some("1048576\n"), Some("7\n"), Some(MEMINFO), Some(1_048_576));
        check(Some("max\n"), None, Some(MEMINFO), Some(MACHINE_BYTES));
        check(Some("max\n"), Some("2097152\n"), Some(MEMINFO), Some(2_097_152));
        check(None, Some("2097152\n"), Some(MEMINFO), Some(2_097_152));
        check(
            None,
            Some("9223372036854771712\n"),
            Some(MEMINFO),
            Some(MACHINE_BYTES),
        );
        check(None, None, Some(MEMINFO), Some(MACHINE_BYTES));
        check(Some("1048576"), None, None, Some(1_048_576));
    }

    #[test]
    fn what_does_not_read_as_a_figure_is_no_limit() {
        for odd in ["", "max", "-1", "0", "12 kB", "99999999999999999999999"] {
            check(Some(odd), Some(odd), None, None);
            check(Some(odd), Some(odd), Some(MEMINFO), Some(MACHINE_BYTES));
        }
        for odd in [
            "",
            "MemTotal: lots kB",
            "MemTotal: 5",
            "MemTotal: 18446744073709551615 kB",
            "MemFree: 5 kB",
        ] {
            check(None, None, Some(odd), None);
        }
    }

    #[test]
    fn a_tenth_is_left_to_others() {
        assert_eq!(nine_tenths(1000), 900);
        assert_eq!(nine_tenths(9), 9);
        assert_eq!(nine_tenths(u64::MAX), u64::MAX - u64::MAX / 10);
    }

    /// On the systems this runs on there is always something to read.
    #[test]
    #[cfg(target_os = "linux")]
    fn this_machine_has_memory() {
        assert!(default_limit().unwrap() > 64 << 20);
    }
}
