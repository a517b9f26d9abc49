// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How thorough the cases are, and how long, and how, those of `load/` go on.

use anyhow::{Context, ensure};
use hmm_vm::guest::{Depth, Load};
use std::str::FromStr;

/// `short` or `long`; short without it.
pub const DEPTH_VARIABLE: &str = "HMM_DEPTH";
/// For how many minutes; a short time without it.
const MINUTES_VARIABLE: &str = "HMM_LOAD_MINUTES";
/// What the random numbers begin with; each run has its own without it.
const SEED_VARIABLE: &str = "HMM_LOAD_SEED";
/// Calls of each thread of the ioctl fuzzer; a small number without it.
const ROUNDS_VARIABLE: &str = "HMM_FUZZ_ROUNDS";
/// What the fuzzer's random numbers begin with; each run has its own without it.
const FUZZ_SEED_VARIABLE: &str = "HMM_FUZZ_SEED";
/// Kills of `restart/kills-at-random-moments-anon-4k`; a small number without it.
const KILLS_VARIABLE: &str = "HMM_KILLS";
/// More than that takes days.
const MOST_ROUNDS: u32 = 10_000_000;
/// The same of kills.
const MOST_KILLS: u32 = 100_000;
/// A day. More is a slip of the pen.
const MOST_MINUTES: u32 = 24 * 60;

/// What the environment asks for.
///
/// # Errors
/// When it is no number, or one that makes no sense.
pub fn from_environment() -> anyhow::Result<Load> {
    from(|name| std::env::var(name).ok())
}

fn from(variable: impl Fn(&str) -> Option<String>) -> anyhow::Result<Load> {
    let minutes = number(MINUTES_VARIABLE, &variable)?;
    ensure!(
        minutes.is_none_or(|minutes| (1..=MOST_MINUTES).contains(&minutes)),
        "{MINUTES_VARIABLE}: expected 1 to {MOST_MINUTES} minutes, found {}",
        minutes.unwrap_or_default()
    );
    let depth = match variable(DEPTH_VARIABLE) {
        Some(text) => text.parse().context(DEPTH_VARIABLE)?,
        None => Depth::default(),
    };
    let fuzz_rounds = number(ROUNDS_VARIABLE, &variable)?;
    ensure!(
        fuzz_rounds.is_none_or(|rounds| (1..=MOST_ROUNDS).contains(&rounds)),
        "{ROUNDS_VARIABLE}: expected 1 to {MOST_ROUNDS} rounds, found {}",
        fuzz_rounds.unwrap_or_default()
    );
    let kills = number(KILLS_VARIABLE, &variable)?;
    ensure!(
        kills.is_none_or(|kills| (1..=MOST_KILLS).contains(&kills)),
        "{KILLS_VARIABLE}: expected 1 to {MOST_KILLS} kills, found {}",
        kills.unwrap_or_default()
    );
    Ok(Load {
        kills,
        minutes,
        seed: number(SEED_VARIABLE, &variable)?,
        depth,
        fuzz_rounds,
        fuzz_seed: number(FUZZ_SEED_VARIABLE, &variable)?,
        record: false,
    })
}

fn number<T: FromStr>(
    name: &str,
    variable: impl Fn(&str) -> Option<String>,
) -> anyhow::Result<Option<T>>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    variable(name)
        .map(|text| {
            text.parse()
                .with_context(|| format!("{name}: expected a number, found {text:?}"))
        })
        .transpose()
}

#[cfg(test)]
mod tests {
    use super::from;
    use hmm_vm::guest::{Depth, Load};

    fn load(minutes: Option<&str>, seed: Option<&str>) -> anyhow::Result<Load> {
        from(|name| match name {
            "HMM_LOAD_MINUTES" => minutes.map(str::to_owned),
            "HMM_LOAD_SEED" => seed.map(str::to_owned),
            _ => None,
        })
    }

    #[test]
    fn the_variables_are_numbers() {
        assert_eq!(load(None, None).unwrap(), Load::default());
        let asked = load(Some("60"), Some("7")).unwrap();
        assert_eq!((asked.minutes, asked.seed), (Some(60), Some(7)));
        assert_eq!(asked.duration().as_secs(), 3600);
        for wrong in ["0", "-1", "an hour", "1441", ""] {
            assert!(load(Some(wrong), None).is_err(), "{wrong}");
        }
        assert!(load(None, Some("x")).is_err());
    }

    #[test]
    fn the_depth_is_short_or_long() {
        let depth = |text: &str| {
            from(|name| (name == "HMM_DEPTH").then(|| text.to_owned())).map(|load| load.depth)
        };
        assert_eq!(depth("long").unwrap(), Depth::Long);
        assert_eq!(depth("short").unwrap(), Depth::default());
        assert!(depth("").is_err());
    }

    #[test]
    fn kills_are_a_number_above_zero() {
        let kills = |text: &str| {
            from(|name| (name == "HMM_KILLS").then(|| text.to_owned())).map(|load| load.kills)
        };
        assert_eq!(kills("1000").unwrap(), Some(1000));
        for wrong in ["0", "-1", "all", "100001"] {
            assert!(kills(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_fuzzer_has_variables_of_its_own() {
        let fuzz = |rounds: &str| {
            from(|name| match name {
                "HMM_FUZZ_ROUNDS" => Some(rounds.to_owned()),
                "HMM_FUZZ_SEED" => Some("9".to_owned()),
                _ => None,
            })
        };
        let asked = fuzz("5000").unwrap();
        assert_eq!((asked.fuzz_rounds, asked.fuzz_seed), (Some(5000), Some(9)));
        assert_eq!((asked.minutes, asked.seed), (None, None));
        for wrong in ["0", "-1", "many", "10000001"] {
            assert!(fuzz(wrong).is_err(), "{wrong}");
        }
    }
}
