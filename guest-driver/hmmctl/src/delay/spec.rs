// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One delay as it is written on a command line: `FUNCTION=return,100us..1ms,25%,log`.

use super::groups::Place;
use std::str::FromStr;

/// What one delay may take, microseconds; as in `guest-driver/delays/hmm_delays.c`.
const SHORTEST: u32 = 1;
const LONGEST: u32 = 2000;
/// A chance of 100 %, as the module counts it.
const CERTAIN: u32 = 1_000_000;
/// Bytes of a function's name.
const LONGEST_NAME: usize = 255;

/// What is to be delayed, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Delay {
    /// The function, or a group of functions.
    pub(crate) name: String,
    /// `None`: at the entry, or where the group has it.
    place: Option<Place>,
    /// Microseconds.
    shortest: u32,
    longest: u32,
    /// Of a million.
    chance: u32,
    /// Whether short delays are more frequent.
    logarithmic: bool,
    /// In all tasks, and not only in those of the command.
    everyone: bool,
    /// In place of the command's.
    seed: Option<u64>,
}

impl Delay {
    /// The line that adds it to the module, for one function. `of`: the process that it is for, with its descendants.
    pub(super) fn line(
        &self,
        function: &str,
        place_in_group: Option<Place>,
        seed: u64,
        of: Option<i32>,
    ) -> String {
        let place = (self.place.or(place_in_group)).unwrap_or(Place::Entry);
        let place = match place {
            Place::Entry => "entry",
            Place::Return => "return",
        };
        // Places with the same seed would be delayed at the same of their calls.
        let seed = self.seed.unwrap_or(seed) ^ hash(function) ^ hash(place);
        let mut line = format!(
            "{function} at={place} min={} max={} chance={} shape={} seed={seed}",
            self.shortest,
            self.longest,
            self.chance,
            if self.logarithmic { "log" } else { "uniform" },
        );
        if let Some(of) = of.filter(|_| !self.everyone) {
            line.push_str(&format!(" of={of}"));
        }
        line
    }
}

impl FromStr for Delay {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, parts) = text.split_once('=').unwrap_or((text, ""));
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.';
        if name.is_empty() || name.len() > LONGEST_NAME || !name.bytes().all(is_name) {
            return Err(format!("'{name}' is no name of a function or a group"));
        }
        let mut delay = Self {
            name: name.to_owned(),
            place: None,
            shortest: 20,
            longest: 500,
            chance: CERTAIN / 10,
            logarithmic: true,
            everyone: false,
            seed: None,
        };
        for part in parts.split(',').filter(|_| !parts.is_empty()) {
            delay.set(part)?;
        }
        Ok(delay)
    }
}

impl Delay {
    fn set(&mut self, part: &str) -> Result<(), String> {
        match part {
            "entry" => self.place = Some(Place::Entry),
            "return" => self.place = Some(Place::Return),
            "uniform" => self.logarithmic = false,
            "log" => self.logarithmic = true,
            "everyone" => self.everyone = true,
            _ => return self.set_number(part),
        }
        Ok(())
    }

    fn set_number(&mut self, part: &str) -> Result<(), String> {
        if let Some(seed) = part.strip_prefix("seed:") {
            let seed = seed.parse().map_err(|_| format!("'{seed}' is no seed"))?;
            self.seed = Some(seed);
            return Ok(());
        }
        if let Some(percent) = part.strip_suffix('%') {
            self.chance = chance(percent)?;
            return Ok(());
        }
        let (shortest, longest) = part.split_once("..").unwrap_or((part, part));
        (self.shortest, self.longest) = (micros(shortest, part)?, micros(longest, part)?);
        if self.shortest > self.longest {
            return Err(format!("'{part}' ends before it begins"));
        }
        Ok(())
    }
}

/// A percentage, of a million.
fn chance(percent: &str) -> Result<u32, String> {
    let number: f64 = (percent.parse()).map_err(|_| format!("'{percent}%' is no probability"))?;
    if !(0.0..=100.0).contains(&number) {
        return Err(format!("'{percent}%' is not between 0 and 100 %"));
    }
    Ok((number * f64::from(CERTAIN) / 100.0).round() as u32)
}

/// A time in microseconds.
fn micros(time: &str, part: &str) -> Result<u32, String> {
    let expected = || {
        format!(
            "expected entry, return, a time (100us, 20us..1ms), a probability (5%), uniform, log, everyone or \
             seed:NUMBER, found '{part}'"
        )
    };
    let (number, factor) = match (time.strip_suffix("us"), time.strip_suffix("ms")) {
        (Some(number), _) => (number, 1),
        (_, Some(number)) => (number, 1000),
        _ => return Err(expected()),
    };
    let number: u32 = number.parse().map_err(|_| expected())?;
    (number.checked_mul(factor))
        .filter(|micros| (SHORTEST..=LONGEST).contains(micros))
        .ok_or_else(|| format!("'{time}': a delay is between {SHORTEST} us and {LONGEST} us"))
}

/// FNV-1a.
fn hash(text: &str) -> u64 {
    (text.bytes()).fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::{Delay, Place, hash};

    fn line(text: &str) -> String {
        let delay: Delay = text.parse().unwrap();
        let line = delay.line("f", None, 7, Some(3));
        let place = if line.contains("return") {
            "return"
        } else {
            "entry"
        };
        let seed = 7 ^ hash("f") ^ hash(place);
        line.replace(&format!("seed={seed}"), "seed=own")
    }

    #[test]
    fn what_is_not_said_has_a_default() {
        assert_eq!(
            line("f"),
            "f at=entry min=20 max=500 chance=100000 shape=log seed=own of=3"
        );
    }

    #[test]
    fn parts_may_stand_in_any_order() {
        let expected = "f at=return min=100 max=1000 chance=25000 shape=uniform seed=own of=3";
        assert_eq!(line("f=return,100us..1ms,2.5%,uniform"), expected);
        assert_eq!(line("f=2.5%,uniform,100us..1ms,return"), expected);
    }

    #[test]
    fn everyone_is_no_process_and_a_seed_of_its_own_is_used() {
        assert_eq!(
            line("f=everyone,seed:7,2ms,100%"),
            "f at=entry min=2000 max=2000 chance=1000000 shape=log seed=own"
        );
        assert_ne!(line("f=seed:8"), line("f=seed:7"));
    }

    #[test]
    fn the_place_is_the_groups_unless_it_is_said() {
        let place = |text: &str| {
            let delay: Delay = text.parse().unwrap();
            let line = delay.line("f", Some(Place::Return), 0, None);
            line.contains("at=return")
        };
        assert!(place("migrate"));
        assert!(place("migrate=return"));
        assert!(!place("migrate=entry"));
    }

    #[test]
    fn places_have_different_numbers_of_the_same_seed() {
        let delay: Delay = "migrate".parse().unwrap();
        let seed = |function, place| {
            let line = delay.line(function, Some(place), 5, None);
            let rest = line.split("seed=").nth(1).unwrap().to_owned();
            rest.split(' ').next().unwrap().to_owned()
        };
        assert_ne!(seed("f", Place::Entry), seed("g", Place::Entry));
        assert_ne!(seed("f", Place::Entry), seed("f", Place::Return));
        assert_eq!(seed("f", Place::Entry), seed("f", Place::Entry));
    }

    #[test]
    fn what_is_wrong_is_refused() {
        for wrong in [
            "",
            "=1ms",
            "f g",
            "f=",
            "f=,",
            "f=1",
            "f=1s",
            "f=0us",
            "f=3ms",
            "f=1ms..1us",
            "f=101%",
            "f=-1%",
            "f=x%",
            "f=nan%",
            "f=seed:x",
            "f=5000000ms",
            "f=1us..",
            "f\n=1us",
        ] {
            let is_default = wrong == "f=";
            assert_eq!(wrong.parse::<Delay>().is_ok(), is_default, "{wrong:?}");
        }
    }
}
