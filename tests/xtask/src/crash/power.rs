//! The power-cut model: a file system in a loop image; the process is stopped under load, the image is copied, and a
//! node is started on the copy after the journal of the file system was replayed.
//!
//! Optimistic for the store: what the block layer received counts as on disk. Even so it finds writes that were never
//! flushed, provided that nobody else flushes the same file system, since ext4 commits one journal for all files; so the
//! image holds nothing but the data folder. Where mounting is not allowed the model cannot run.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use dirnode_generator::{Generator, Random};

use super::check::{self, Findings};
use super::ledger::{Ledger, State};
use super::load::Load;
use crate::process::Plan;
use crate::shell;

/// Size of the image; sparse, so that it costs what is written.
const IMAGE_BYTES: u64 = 4 << 30;

/// Where cuts are made.
#[derive(Debug)]
pub struct Bench {
    dir: PathBuf,
}

/// A mounted image; unmounted when dropped.
#[derive(Debug)]
pub struct Mounted {
    point: PathBuf,
}

impl Mounted {
    fn new(image: &Path, point: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(point)?;
        shell::output(Command::new("mount").args(["-o", "loop"]).arg(image).arg(point))?;
        Ok(Self {
            point: point.to_path_buf(),
        })
    }

    /// The data folder on it.
    pub fn data_dir(&self) -> PathBuf {
        self.point.join("data")
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if shell::output(Command::new("umount").arg(&self.point)).is_err() {
            // Something still holds a file; the mount goes when that ends.
            let _ = shell::output(Command::new("umount").arg("-l").arg(&self.point));
        }
    }
}

impl Bench {
    /// A place for cuts, or `None` where the model cannot run, which it says.
    pub fn new(dir: &Path) -> anyhow::Result<Option<Self>> {
        if dir.exists() {
            std::fs::remove_dir_all(dir).with_context(|| format!("cannot clear {}", dir.display()))?;
        }
        std::fs::create_dir_all(dir)?;
        let bench = Self {
            dir: dir.to_path_buf(),
        };
        match bench.fresh() {
            Ok(mounted) => drop(mounted),
            Err(error) => {
                println!(
                    "NOT RUN: the power-cut model cannot mount a file system of its own here ({error:#}). It needs root, \
                     mkfs.ext4 and loop devices. The recording-disk tests of node/store cover the model where mounting \
                     is not allowed: cargo test -p dirnode-store crash"
                );
                return Ok(None);
            }
        }
        Ok(Some(bench))
    }

    /// File for what must not lie on the disk under test.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// A new, empty file system.
    pub fn fresh(&self) -> anyhow::Result<Mounted> {
        let image = self.file("disk.img");
        if image.exists() {
            std::fs::remove_file(&image)?;
        }
        std::fs::File::create(&image)?.set_len(IMAGE_BYTES)?;
        shell::output(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image))?;
        Mounted::new(&image, &self.dir.join("disk"))
    }

    /// Keeps the disk as it is now.
    pub fn copy_image(&self) -> anyhow::Result<()> {
        let (image, copy) = (self.file("disk.img"), self.file("copy.img"));
        shell::output(Command::new("cp").arg("--sparse=always").arg(image).arg(copy))?;
        Ok(())
    }

    /// The disk as it was kept, its journal replayed.
    pub fn mount_copy(&self) -> anyhow::Result<Mounted> {
        Mounted::new(&self.file("copy.img"), &self.dir.join("copy"))
    }

    /// Removes images and mount points.
    pub fn clear(&self) -> anyhow::Result<()> {
        std::fs::remove_dir_all(&self.dir).with_context(|| format!("cannot remove {}", self.dir.display()))
    }
}

/// How long a process may write before the power goes.
pub fn moment(random: &mut Random) -> Duration {
    Duration::from_millis(1200 + random.below(2000))
}

/// Cuts the power of a node so many times, each time on a new file system.
pub async fn run(bench: &Bench, binary: &Path, cuts: u32, streams: u64, seed: u64) -> anyhow::Result<()> {
    println!("power cut: {cuts} cuts, {streams} streams, seed {seed}");
    let generator = Arc::new(Generator::new(seed));
    let mut random = Random::of(seed, u64::MAX - 1);
    let mut all = Findings::default();
    let (mut pushes, mut refused) = (0, 0);
    for cut in 1..=cuts {
        let disk = bench.fresh()?;
        let mut plan = Plan {
            binary: binary.to_path_buf(),
            data_dir: disk.data_dir(),
            log: bench.file("node.log"),
            validation: "off",
            network: None,
        };
        let node = plan.start().await?;
        let ledgers: Vec<Ledger> = (0..streams).map(|lane| Ledger::new(lane, streams)).collect();
        let load = Load::start(&node, &generator, ledgers, seed ^ 0x5eed, cut).await?;
        let moment = moment(&mut random);
        tokio::time::sleep(moment).await;
        node.pause()?;
        bench.copy_image()?;
        // What was answered before the stop may still be on its way to us; with the process gone, all of it has come.
        node.kill()?;
        let mut ledgers = load.end().await?;
        drop(disk);
        let acknowledged: u64 = ledgers.iter().map(|ledger| ledger.pushes).sum();
        pushes += acknowledged;

        let copy = bench.mount_copy()?;
        plan.data_dir = copy.data_dir();
        let opened = plan.start().await;
        let outcome = match opened {
            Ok(node) => {
                let start_time = node.start_time;
                let findings = check::check(&node, &generator, &mut ledgers, |_| true).await?;
                node.kill()?;
                let text = format!(
                    "opened in {:.0} ms, {} checked, {} lost, {} faults",
                    start_time.as_secs_f64() * 1000.0,
                    findings.checked,
                    findings.lost,
                    findings.faults.len()
                );
                all.add(findings);
                text
            }
            Err(error) => {
                refused += 1;
                all.lost += ledgers
                    .iter()
                    .flat_map(|ledger| &ledger.records)
                    .filter(|held| held.state == State::Stored)
                    .count() as u64;
                all.faults.push(format!("cut {cut}: does not open: {error:#}"));
                "REFUSED TO OPEN".to_owned()
            }
        };
        println!(
            "cut {cut:>2}: after {:>4} ms; {acknowledged} pushes acknowledged; {outcome}",
            moment.as_millis()
        );
    }
    println!(
        "{cuts} power cuts, {pushes} acknowledged pushes, {} lost, {refused} refused to open; seed {seed}",
        all.lost
    );
    if let Err(error) = all.verdict() {
        bail!("seed {seed}: {error:#}");
    }
    bench.clear()
}
