// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Looks for inputs that a target does not stand: mutates the seeds for a bounded time. An input that ends in a panic is
//! left in a file. It needs no instrumented build, and so has no coverage to guide it; `cargo xtask fuzz` has both.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Parser;

/// Fuzzes a target of the device.
#[derive(Parser)]
struct Args {
    /// decoder, rings, queues, jobs, messages, programs or translations
    #[arg(value_parser = hmm_fuzz::TARGETS)]
    target: String,

    /// How long, in seconds
    #[arg(long, value_name = "S", default_value_t = 10)]
    seconds: u64,

    /// The same seed gives the same inputs
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// Folder of inputs to start from
    #[arg(long, value_name = "PATH")]
    seeds: Option<PathBuf>,

    /// Folder for inputs that end in a panic
    #[arg(long, value_name = "PATH", default_value = ".")]
    crashes: PathBuf,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let Some(run) = hmm_fuzz::target(&args.target) else {
        return ExitCode::from(2);
    };
    let mut corpus = args
        .seeds
        .as_deref()
        .map(hmm_fuzz::read_seeds)
        .unwrap_or_default();
    corpus.push(Vec::new());
    let mut random = Random(args.seed);
    let until = Instant::now() + Duration::from_secs(args.seconds);
    let mut executions = 0u64;
    while Instant::now() < until {
        let input = mutate(&corpus, &mut random);
        if std::panic::catch_unwind(|| run(&input)).is_err() {
            return keep(&args, &input, executions);
        }
        executions += 1;
    }
    println!(
        "{}: {executions} executions, seed {}",
        args.target, args.seed
    );
    ExitCode::SUCCESS
}

fn keep(args: &Args, input: &[u8], executions: u64) -> ExitCode {
    let name = format!("{}-{}-{executions}", args.target, args.seed);
    let path: PathBuf = Path::new(&args.crashes).join(name);
    match std::fs::write(&path, input) {
        Ok(()) => eprintln!("a panic after {executions} executions: {}", path.display()),
        Err(error) => eprintln!("a panic, and {} cannot be written: {error}", path.display()),
    }
    ExitCode::FAILURE
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) as usize % bound.max(1)
    }
}

/// An input of the corpus with some changes, or one of nothing but chance.
fn mutate(corpus: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut input = if random.below(4) == 0 {
        let len = random.below(2000);
        (0..len).map(|_| random.below(256) as u8).collect()
    } else {
        corpus[random.below(corpus.len())].clone()
    };
    for _ in 0..=random.below(12) {
        let at = random.below(input.len() + 1);
        match random.below(6) {
            0 => input.insert(at, random.below(256) as u8),
            1 if at < input.len() => input[at] ^= 1 << random.below(8),
            2 if at < input.len() => input[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
            3 if at < input.len() => {
                input.remove(at);
            }
            4 => {
                let other = &corpus[random.below(corpus.len())];
                let from = random.below(other.len() + 1);
                let len = random.below(other.len() - from + 1).min(256);
                let part = other[from..from + len].to_vec();
                input.splice(at..at, part);
            }
            _ => input.extend((0..8).map(|_| random.below(256) as u8)),
        }
    }
    input.truncate(16 << 10);
    input
}
