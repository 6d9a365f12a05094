//! The loop: take an input that did something new, change it, run it, keep it if it does something new.

use crate::{
    coverage::Coverage,
    memory,
    mutate::{Random, mutate},
    targets::Target,
};
use anyhow::{Context, Result, bail};
use maru_base::panics;
use rustix::time::{ClockId, clock_gettime};
use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// A run that takes more processor time than this is a finding ...
const SLOW: Duration = Duration::from_secs(1);
/// ... and so is one that does nothing for so long.
const STUCK: Duration = Duration::from_secs(30);
/// More bytes in use at once by one run are a finding.
const GREEDY: usize = 64 << 20;

/// When a loop ends.
#[derive(Debug, Clone, Copy)]
pub enum Until {
    /// After this time.
    Seconds(u64),
    /// After so many runs.
    Runs(u64),
}

/// What a loop came to.
pub struct Totals {
    /// Inputs run.
    pub runs: u64,
    /// Of them, those that the code under test took as valid.
    pub accepted: u64,
    /// Inputs that did something new.
    pub kept: usize,
    /// Branches reached and all; zeros without instrumentation.
    pub reached: (usize, usize),
    /// Time.
    pub took: Duration,
    /// Processor milliseconds of the slowest run.
    pub slowest: u64,
}

/// Writes the input about to run where the parent process finds it, whatever becomes of this one.
struct Current(File);

impl Current {
    fn set(&self, input: &[u8]) -> Result<()> {
        let mut all = Vec::with_capacity(input.len() + 8);
        all.extend((input.len() as u64).to_le_bytes());
        all.extend(input);
        self.0.write_all_at(&all, 0).context("cannot note the current input")
    }
}

/// What a dead child was running.
pub fn current(path: &Path) -> Result<Vec<u8>> {
    let all = std::fs::read(path)?;
    let length = all.get(..8).context("no input was noted")?;
    let length = usize::try_from(u64::from_le_bytes(length.try_into()?))?;
    Ok(all.get(8..8 + length).context("the noted input is cut off")?.to_vec())
}

fn processor() -> u64 {
    let t = clock_gettime(ClockId::ProcessCPUTime);
    u64::try_from(t.tv_sec).unwrap_or(0) * 1_000 + u64::try_from(t.tv_nsec).unwrap_or(0) / 1_000_000
}

/// Ends the process when a run does not end. `run` is the number of the run, or 0 between runs.
fn watch(run: Arc<AtomicU64>) {
    std::thread::spawn(move || {
        let mut last = (0, processor(), Instant::now());
        loop {
            std::thread::sleep(Duration::from_millis(100));
            let now = run.load(Ordering::Relaxed);
            if now == 0 || now != last.0 {
                last = (now, processor(), Instant::now());
                continue;
            }
            let (busy, wall) = (processor() - last.1, last.2.elapsed());
            if u128::from(busy) > SLOW.as_millis() || wall > STUCK {
                eprintln!(
                    "the run took {busy} ms of processor in {} ms and has not ended",
                    wall.as_millis()
                );
                std::process::exit(3);
            }
        }
    });
}

/// Runs one input.
///
/// # Errors
/// What is wrong with what it did.
fn run(target: &mut Target, input: &[u8]) -> Result<(bool, u64)> {
    let before = memory::mark();
    let begun = processor();
    let outcome = panics::run(|| (target.run)(input));
    let took = processor() - begun;
    let used = memory::peak_since(before);
    match outcome {
        Err(panicked) => bail!("{panicked}\n{}", panicked.backtrace),
        Ok(_) if u128::from(took) > SLOW.as_millis() => bail!("the run took {took} ms of processor"),
        Ok(_) if used > GREEDY => bail!("the run had {used} bytes in use at once"),
        Ok(accepted) => Ok((accepted, took)),
    }
}

/// Runs the target's seeds and `more`, then changed ones until told to stop.
///
/// # Errors
/// At the first finding.
pub fn fuzz(target: &mut Target, more: Vec<Vec<u8>>, seed: u64, until: Until, note: &Path) -> Result<Totals> {
    let begun = Instant::now();
    let note = Current(File::create(note).with_context(|| format!("cannot write {}", note.display()))?);
    let number = Arc::new(AtomicU64::new(0));
    watch(Arc::clone(&number));
    let mut random = Random::new(seed);
    let mut coverage = Coverage::new();
    let mut totals = Totals {
        runs: 0,
        accepted: 0,
        kept: 0,
        reached: (0, 0),
        took: Duration::ZERO,
        slowest: 0,
    };
    let mut corpus: Vec<Vec<u8>> = Vec::new();
    let mut first: Vec<Vec<u8>> = more.into_iter().chain(target.seeds.clone()).rev().collect();
    let (mut input, mut seeding);
    loop {
        if let Some(given) = first.pop() {
            input = given;
            seeding = true;
        } else {
            let over = match until {
                Until::Runs(n) => totals.runs >= n,
                // The clock is not looked at each time.
                Until::Seconds(n) => totals.runs.is_multiple_of(16) && begun.elapsed().as_secs() >= n,
            };
            if over {
                break;
            }
            // Half of the time one of the newest.
            let at = if random.below(2) == 0 {
                corpus.len() - 1 - random.below(corpus.len().min(16))
            } else {
                random.below(corpus.len())
            };
            input = corpus[at].clone();
            mutate(&mut input, &mut random, &corpus, &target.words, target.most);
            seeding = false;
        }
        note.set(&input)?;
        coverage.clear();
        number.store(totals.runs + 1, Ordering::Relaxed);
        let (accepted, took) = run(target, &input)?;
        number.store(0, Ordering::Relaxed);
        totals.runs += 1;
        totals.accepted += u64::from(accepted);
        totals.slowest = totals.slowest.max(took);
        if coverage.is_new() || seeding {
            corpus.push(input);
        }
    }
    totals.kept = corpus.len();
    totals.reached = if coverage.is_on() { coverage.reached() } else { (0, 0) };
    totals.took = begun.elapsed();
    Ok(totals)
}

/// Runs given inputs once.
///
/// # Errors
/// At the first finding.
pub fn replay(target: &mut Target, inputs: &[Vec<u8>], note: &Path) -> Result<()> {
    fuzz(target, inputs.to_vec(), 0, Until::Runs(0), note).map(drop)
}
