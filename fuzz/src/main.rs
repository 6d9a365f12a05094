//! `maru-fuzz TARGET`: feeds a parser bytes until the time is over or something breaks.
//!
//! ```text
//!   parent ──spawns──► child: seeds and fuzz/corpus/TARGET, then changed inputs, guided by the branches that ran
//!     │                  │ panic, more than 1 s of processor, more than 64 MiB, abort, signal
//!     └── saves what the child was running as fuzz/findings/TARGET-HASH and says how to run it again
//! ```
//! `make fuzz` builds with branch counters (`fuzz/rustc`); without them the loop works as well, only more blindly. The
//! seed is printed; the same seed, corpus and number of runs give the same inputs.

#![allow(clippy::print_stdout, clippy::print_stderr)] // a command line talks to people

mod coverage;
mod engine;
mod memory;
mod mutate;
mod targets;

use anyhow::{Context, Result, bail};
use engine::Until;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};
use targets::Target;

#[global_allocator]
static MEMORY: memory::Counted = memory::Counted;

const USAGE: &str = "usage: maru-fuzz TARGET [--seconds N | --runs N] [--seed N] [FILE ...]
  TARGET     token, policy, image, dhcp or metadata; `all` runs each in turn
  --seconds  how long (default 10)
  --runs     how many inputs, instead
  --seed     a number; a random one is chosen and printed otherwise
  FILE       inputs to run once instead: what a finding is run again with";

struct Options {
    target: String,
    until: Until,
    seed: u64,
    files: Vec<PathBuf>,
    child: bool,
}

fn options() -> Result<Options> {
    let mut given = std::env::args().skip(1);
    let mut options = Options {
        target: given.next().context(USAGE)?,
        until: Until::Seconds(10),
        seed: u64::from_le_bytes(maru_base::random::u128().to_le_bytes()[..8].try_into()?) >> 32,
        files: Vec::new(),
        child: false,
    };
    while let Some(word) = given.next() {
        let mut number = || -> Result<u64> {
            let text = given.next().with_context(|| format!("{word} needs a number"))?;
            text.parse().with_context(|| format!("{word} {text}: not a number"))
        };
        match word.as_str() {
            "--seconds" => options.until = Until::Seconds(number()?),
            "--runs" => options.until = Until::Runs(number()?),
            "--seed" => options.seed = number()?,
            "--child" => options.child = true,
            other if other.starts_with("--") => bail!("{USAGE}"),
            file => options.files.push(file.into()),
        }
    }
    Ok(options)
}

fn main() -> ExitCode {
    let outcome = options().and_then(|options| {
        if options.child {
            return child(&options);
        }
        let names: Vec<&str> = match options.target.as_str() {
            "all" => targets::NAMES.to_vec(),
            name => vec![name],
        };
        for name in names {
            parent(name, &options)?;
        }
        Ok(())
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("fuzz: {e:#}");
            ExitCode::FAILURE
        }
    }
}

/// The folder of this crate, where corpus and findings are.
fn home() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn note(child: u32) -> PathBuf {
    std::env::temp_dir().join(format!("maru-fuzz-{child}"))
}

/// Runs a child and keeps what it dies of.
fn parent(name: &str, options: &Options) -> Result<()> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg(name)
        .arg("--child")
        .args(["--seed", &options.seed.to_string()]);
    match options.until {
        Until::Seconds(n) => command.args(["--seconds", &n.to_string()]),
        Until::Runs(n) => command.args(["--runs", &n.to_string()]),
    };
    let mut child = command.args(&options.files).spawn()?;
    let note = note(child.id());
    let status = child.wait()?;
    let outcome = if status.success() {
        Ok(())
    } else {
        let input =
            engine::current(&note).with_context(|| format!("{name} ended with {status} before its first run"))?;
        let dir = home().join("findings");
        fs::create_dir_all(&dir)?;
        let file = dir.join(format!("{name}-{:016x}", fnv(&input)));
        fs::write(&file, &input)?;
        let shown = String::from_utf8_lossy(&input[..input.len().min(200)])
            .escape_debug()
            .to_string();
        Err(anyhow::anyhow!(
            "{name}: a finding ({status}, seed {}), {} bytes: {shown}\nsaved; run it again with: fuzz/run {name} {}",
            options.seed,
            input.len(),
            file.display()
        ))
    };
    fs::remove_file(&note).ok();
    outcome
}

fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| {
        (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn read_all(files: impl IntoIterator<Item = PathBuf>) -> Result<Vec<Vec<u8>>> {
    files
        .into_iter()
        .map(|f| fs::read(&f).with_context(|| format!("cannot read {}", f.display())))
        .collect()
}

/// What was found once and must stay fixed.
fn corpus(name: &str) -> Result<Vec<Vec<u8>>> {
    let Ok(entries) = fs::read_dir(home().join("corpus").join(name)) else {
        return Ok(Vec::new());
    };
    let mut files: Vec<PathBuf> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
    files.sort();
    read_all(files)
}

fn child(options: &Options) -> Result<()> {
    let mut target: Target = targets::make(&options.target)?;
    let name = target.name;
    let note = note(std::process::id());
    if !options.files.is_empty() {
        let inputs = read_all(options.files.clone())?;
        engine::replay(&mut target, &inputs, &note)?;
        println!("fuzz {name}: {} given inputs: ok", inputs.len());
        return Ok(());
    }
    let t = engine::fuzz(&mut target, corpus(name)?, options.seed, options.until, &note)?;
    let branches = match t.reached {
        (_, 0) => "branches=not-counted".to_owned(),
        (reached, all) => format!("branches={reached}/{all}"),
    };
    println!(
        "fuzz {name}: ok runs={} accepted={} kept={} {branches} slowest-ms={} seconds={:.0} seed={}",
        t.runs,
        t.accepted,
        t.kept,
        t.slowest,
        t.took.as_secs_f64(),
        options.seed
    );
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// A corpus of valid inputs is only that if the code under test takes them.
    #[test]
    fn every_seed_is_accepted_and_every_old_finding_is_fixed() {
        for name in targets::NAMES {
            let mut target = targets::make(name).unwrap();
            assert!(target.seeds.len() >= 3, "{name}");
            for (i, seed) in target.seeds.clone().iter().enumerate() {
                assert!((target.run)(seed), "{name}: seed {i} is not valid");
            }
            for old in corpus(name).unwrap() {
                (target.run)(&old);
            }
        }
    }

    fn broken(run: impl FnMut(&[u8]) -> bool + 'static) -> Target {
        Target {
            name: "broken",
            seeds: vec![b"seed".to_vec()],
            words: vec![b"magic".to_vec()],
            most: 100,
            run: Box::new(run),
        }
    }

    /// The engine finds what it is for: a panic that only some inputs reach, and memory.
    #[test]
    fn the_engine_finds_panics_and_blow_ups() {
        let dir = std::env::temp_dir().join(format!("maru-fuzz-test-{}", std::process::id()));
        let mut panics = broken(|input| {
            assert!(!input.windows(5).any(|w| w == b"magic"), "found");
            true
        });
        let error = engine::fuzz(&mut panics, Vec::new(), 1, Until::Runs(100_000), &dir)
            .err()
            .unwrap();
        assert!(error.to_string().contains("found"), "{error}");
        let noted = engine::current(&dir).unwrap();
        assert!(noted.windows(5).any(|w| w == b"magic"));
        let mut greedy = broken(|input| std::hint::black_box(vec![1_u8; 70 << 20]).len() > input.len());
        let error = engine::fuzz(&mut greedy, Vec::new(), 1, Until::Runs(10), &dir)
            .err()
            .unwrap();
        assert!(error.to_string().contains("bytes in use"), "{error}");
        let mut sound = broken(|_| true);
        let totals = engine::fuzz(&mut sound, Vec::new(), 1, Until::Runs(1_000), &dir).unwrap();
        assert_eq!((totals.runs, totals.accepted), (1_000, 1_000));
        fs::remove_file(&dir).unwrap();
    }
}
