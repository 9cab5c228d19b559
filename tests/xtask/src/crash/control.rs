//! The control of the power-cut model: sled 0.34.7 as shipped, 8 threads, values of 1 to 20 kB, `insert` and `flush`.
//! Its flush does not reach the disk, so a model that finds no fault here is no model.
//!
//! The writer tells of each acknowledged key on its standard output; the reader opens the copy in a process of its own,
//! since sled may panic or hang on what it finds.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use dirnode_generator::{MAX_BYTES, MIN_BYTES, Random};

use super::power::{Bench, moment};
use crate::{clock, process};

const THREADS: usize = 8;
/// How long opening a copy may take before it counts as refused.
const OPEN_LIMIT: Duration = Duration::from_secs(60);

#[derive(Debug, clap::Args)]
pub struct WriterArgs {
    /// Folder of the database
    dir: PathBuf,
    #[arg(long)]
    seed: u64,
}

#[derive(Debug, clap::Args)]
pub struct ReaderArgs {
    /// Folder of the database
    dir: PathBuf,
    /// File with the acknowledged keys, one a line
    keys: PathBuf,
    #[arg(long)]
    seed: u64,
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "between MIN_BYTES and MAX_BYTES"
)]
fn value(seed: u64, key: u64) -> Vec<u8> {
    let mut random = Random::of(seed, key);
    let size = random.log_uniform(MIN_BYTES, MAX_BYTES) as usize;
    let mut value = Vec::with_capacity(size + 8);
    while value.len() < size {
        value.extend_from_slice(&random.next().to_le_bytes());
    }
    value.truncate(size);
    value
}

/// Writes until it is stopped.
pub fn write(args: &WriterArgs) -> anyhow::Result<()> {
    let database = sled::open(&args.dir)?;
    let next = AtomicU64::new(0);
    let failure = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let work = || -> anyhow::Result<()> {
                    loop {
                        let key = next.fetch_add(1, Ordering::Relaxed);
                        database.insert(key.to_be_bytes(), value(args.seed, key))?;
                        database.flush()?;
                        let mut out = std::io::stdout().lock();
                        out.write_all(format!("{key}\n").as_bytes())?;
                        out.flush()?;
                    }
                };
                if let (Err(error), Ok(mut failure)) = (work(), failure.lock()) {
                    *failure = Some(error);
                }
            });
        }
    });
    let failure = failure.into_inner().ok().flatten();
    failure.map_or(Ok(()), Err)
}

/// Reads every acknowledged key back; prints how many are lost or wrong.
pub fn read(args: &ReaderArgs) -> anyhow::Result<()> {
    let database = sled::open(&args.dir)?;
    let keys = std::fs::read_to_string(&args.keys)?;
    let mut lost = 0_u64;
    for line in keys.lines() {
        let key: u64 = line.parse()?;
        let found = database.get(key.to_be_bytes()).ok().flatten();
        if found.as_deref() != Some(value(args.seed, key).as_slice()) {
            lost += 1;
        }
    }
    println!("{lost}");
    Ok(())
}

/// Cuts the power of the writer so many times.
///
/// # Errors
/// When the model found nothing: then it cannot find faults of the node either.
pub fn run(bench: &Bench, cuts: u32, seed: u64) -> anyhow::Result<()> {
    println!("power cut, control: sled 0.34.7 as shipped, {cuts} cuts, {THREADS} threads, seed {seed}");
    let mut random = Random::of(seed, u64::MAX - 2);
    let (mut acknowledged, mut lost, mut refused, mut harmed) = (0, 0, 0, 0);
    for cut in 1..=cuts {
        let moment = moment(&mut random);
        let keys = one_cut(bench, moment, seed)?;
        let count = keys.lines().count() as u64;
        acknowledged += count;
        let copy = bench.mount_copy()?;
        let outcome = match reopen(bench, &copy.data_dir(), seed)? {
            None => {
                refused += 1;
                lost += count;
                "REFUSED TO OPEN".to_owned()
            }
            Some(missing) => {
                harmed += u32::from(missing > 0);
                lost += missing;
                format!("opened, {missing} lost")
            }
        };
        println!(
            "cut {cut:>2}: after {:>4} ms; {count} inserts acknowledged; {outcome}",
            moment.as_millis()
        );
    }
    println!(
        "{cuts} power cuts of sled as shipped, {acknowledged} acknowledged inserts, {lost} lost, {refused} refused to open, \
         {harmed} opened with losses; seed {seed}"
    );
    bench.clear()?;
    if lost == 0 {
        bail!(
            "the model found nothing wrong with a writer that does not flush: it proves nothing on this machine"
        );
    }
    Ok(())
}

/// Runs the writer until the cut; gives the keys it acknowledged and leaves the copied image behind.
fn one_cut(bench: &Bench, moment: Duration, seed: u64) -> anyhow::Result<String> {
    let disk = bench.fresh()?;
    let mut writer = Command::new(std::env::current_exe()?)
        .arg("sled-writer")
        .arg(disk.data_dir())
        .args(["--seed", &seed.to_string()])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let told = writer.stdout.take().context("the writer has no output")?;
    let listener = std::thread::spawn(move || {
        let mut keys = String::new();
        for line in BufReader::new(told).lines() {
            let Ok(line) = line else { break };
            keys.push_str(&line);
            keys.push('\n');
        }
        keys
    });
    std::thread::sleep(moment);
    let cut = process::pause(writer.id()).and_then(|()| bench.copy_image());
    writer.kill()?;
    writer.wait()?;
    cut?;
    drop(disk);
    let keys = listener.join().map_err(|_| anyhow!("the listener panicked"))?;
    std::fs::write(bench.file("keys"), &keys)?;
    Ok(keys)
}

/// How many acknowledged keys are lost, or `None` when the copy does not open.
fn reopen(bench: &Bench, dir: &std::path::Path, seed: u64) -> anyhow::Result<Option<u64>> {
    let mut reader = Command::new(std::env::current_exe()?)
        .arg("sled-reader")
        .arg(dir)
        .arg(bench.file("keys"))
        .args(["--seed", &seed.to_string()])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut status = None;
    clock::eventually(OPEN_LIMIT, || {
        status = reader.try_wait()?;
        Ok(status.is_some())
    })?;
    if !status.is_some_and(|status| status.success()) {
        // Gone already, or hanging.
        let _ = reader.kill();
        reader.wait()?;
        return Ok(None);
    }
    let output = reader.wait_with_output()?;
    Ok(Some(String::from_utf8_lossy(&output.stdout).trim().parse()?))
}
