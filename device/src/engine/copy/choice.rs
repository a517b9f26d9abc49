// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What `--copy` takes.

use std::{fmt, str::FromStr};

use clap::ValueEnum;

use super::CopyRoutine;

/// What the user wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CopyChoice {
    /// Large batches with what is measured to be fastest at the start.
    #[default]
    Auto,
    /// Large batches with this routine.
    Fixed(CopyRoutine),
    /// No copies: batches succeed and no byte is moved. For measuring what a copy costs beside everything else.
    None,
}

impl FromStr for CopyChoice {
    type Err = UnknownRoutine;

    fn from_str(text: &str) -> Result<Self, UnknownRoutine> {
        match text {
            "auto" => Ok(Self::Auto),
            "none" => Ok(Self::None),
            _ => match CopyRoutine::from_str(text, false) {
                Ok(routine) if routine.is_available() => Ok(Self::Fixed(routine)),
                _ => Err(UnknownRoutine),
            },
        }
    }
}

impl fmt::Display for CopyChoice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => formatter.write_str("auto"),
            Self::Fixed(routine) => formatter.write_str(&routine.name()),
            Self::None => formatter.write_str("none"),
        }
    }
}

/// A name of no routine that this processor can execute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownRoutine;

impl std::error::Error for UnknownRoutine {}

impl fmt::Display for UnknownRoutine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = CopyRoutine::available().map(CopyRoutine::name).collect();
        write!(
            formatter,
            "this processor copies with one of {}; or take auto or none",
            names.join(", ")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_available_routine_can_be_chosen_by_its_name() {
        for routine in CopyRoutine::available() {
            assert_eq!(routine.name().parse(), Ok(CopyChoice::Fixed(routine)));
        }
        assert_eq!("auto".parse(), Ok(CopyChoice::Auto));
        let refusal = "fast"
            .parse::<CopyChoice>()
            .map_err(|error| error.to_string());
        assert!(refusal.is_err_and(|text| text.contains("memcpy")));
    }
}
