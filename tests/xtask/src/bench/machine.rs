//! What the figures were measured on, and what a process and a folder take of it.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;

use super::load::Rate;
use crate::clock;

/// How long a process must have done nothing to count as quiet, and how long that is waited for.
const QUIET: Duration = Duration::from_millis(300);
const QUIET_LIMIT: Duration = Duration::from_secs(20);

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// One line: cores, processor, memory, kernel, file system of `dir`.
pub fn describe(dir: &Path) -> String {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let info = read("/proc/cpuinfo");
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or("unknown processor", |(_, model)| model.trim());
    let memory: u64 = field(&read("/proc/meminfo"), "MemTotal:");
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_path_buf());
    let mounts = read("/proc/mounts");
    let file_system = mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ').skip(1);
            Some((words.next()?, words.next()?))
        })
        .filter(|(point, _)| dir.starts_with(point))
        .max_by_key(|(point, _)| point.len())
        .map_or("unknown file system", |(_, kind)| kind);
    format!(
        "{cpus} cores ({model}), {:.0} GiB memory, Linux {}, {file_system}",
        gib(memory * 1024),
        read("/proc/sys/kernel/osrelease").trim()
    )
}

#[expect(clippy::cast_precision_loss, reason = "for display")]
fn gib(bytes: u64) -> f64 {
    bytes as f64 / (1_u64 << 30) as f64
}

/// The load average of the last minute: other work on the machine shows here.
pub fn load_average() -> String {
    read("/proc/loadavg").split(' ').next().unwrap_or("?").to_owned()
}

fn field(text: &str, name: &str) -> u64 {
    let found = text.lines().find_map(|line| line.strip_prefix(name));
    found
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or_default()
}

/// Resident memory of a process, in bytes.
pub fn resident_bytes(id: u32) -> u64 {
    field(&read(&format!("/proc/{id}/status")), "VmRSS:") * 1024
}

/// Clock ticks and bytes written by a process so far.
fn activity(id: u32) -> (u64, u64) {
    let stat = read(&format!("/proc/{id}/stat"));
    let words = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    // User and system time are fields 14 and 15 of the line, so 12 and 13 after the name.
    let ticks = words
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|word| word.parse::<u64>().ok())
        .sum();
    (ticks, field(&read(&format!("/proc/{id}/io")), "write_bytes:"))
}

/// Waits until a process has done its background work; says how long that took.
pub fn wait_until_quiet(id: u32) -> Duration {
    let begun = clock::moment();
    let mut last = (activity(id), clock::moment());
    let mut quiet_since = Duration::ZERO;
    let _ = clock::eventually(QUIET_LIMIT, || {
        let now = activity(id);
        // One tick is what timers of an idle process may take.
        if now.0 > last.0.0 + 1 || now.1 != last.0.1 {
            last = (now, clock::moment());
            quiet_since = begun.elapsed();
        }
        Ok(last.1.elapsed() > QUIET)
    });
    quiet_since
}

/// Bytes that a folder takes on its disk.
pub fn disk_bytes(dir: &Path) -> anyhow::Result<u64> {
    let mut sum = 0;
    let mut open = vec![dir.to_path_buf()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))? {
            let entry = entry?;
            // A file may be moved while we look.
            let Ok(data) = entry.metadata() else { continue };
            sum += data.blocks() * 512;
            if data.is_dir() {
                open.push(entry.path());
            }
        }
    }
    Ok(sum)
}

/// The floor: a new file for each body, one `fdatasync` each, one thread.
pub fn floor(dir: &Path, bodies: &[Vec<u8>]) -> anyhow::Result<Rate> {
    std::fs::create_dir_all(dir)?;
    let mut times = Vec::with_capacity(bodies.len());
    let paths: Vec<PathBuf> = (0..bodies.len())
        .map(|place| dir.join(format!("{place}")))
        .collect();
    let begun = clock::moment();
    for (path, body) in paths.iter().zip(bodies) {
        let one = clock::moment();
        let mut file = File::create_new(path)?;
        file.write_all(body)?;
        file.sync_data()?;
        times.push(u32::try_from(one.elapsed().as_micros()).unwrap_or(u32::MAX));
    }
    let rate = Rate::new(times, begun.elapsed());
    std::fs::remove_dir_all(dir)?;
    Ok(rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let rate = floor(&dir.path().join("floor"), &[vec![1; 5000], vec![2; 10]]).unwrap();
        assert!(rate.per_second > 0.0);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_takes_what_its_files_take() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("inner")).unwrap();
        std::fs::write(dir.path().join("inner/file"), vec![7; 100_000]).unwrap();
        File::open(dir.path().join("inner/file"))
            .unwrap()
            .sync_all()
            .unwrap();
        assert!((98_000..300_000).contains(&disk_bytes(dir.path()).unwrap()));
    }

    #[test]
    fn our_own_process_has_memory() {
        assert!(resident_bytes(std::process::id()) > 100_000);
        assert!(describe(Path::new("/")).contains("cores"));
    }
}
