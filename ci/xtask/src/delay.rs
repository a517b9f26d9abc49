// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Delays of kernel functions in the guest: `docs/delays.md`.

use std::ffi::OsString;

use hmm_vm::guest::Command;

/// One delay, as `hmmctl delay` takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Delay(String);

impl Delay {
    /// Checks what can be checked without the guest's kernel.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        hmmctl::check_delay(text).map(|()| Self(text.to_owned()))
    }

    /// Makes a command one that is delayed.
    pub(crate) fn wrap(delays: &[Self], quiet: bool, command: &mut Command) {
        if delays.is_empty() {
            return;
        }
        let before = (["hmmctl", "delay"].into_iter())
            .chain(quiet.then_some("--quiet"))
            .chain(delays.iter().map(|delay| delay.0.as_str()))
            .chain(["--"])
            .map(OsString::from);
        command.argv.splice(0..0, before);
    }
}

#[cfg(test)]
mod tests {
    use super::Delay;
    use hmm_vm::guest::{Command, Root};

    fn wrapped(delays: &[&str], quiet: bool) -> Vec<String> {
        let delays: Vec<Delay> = (delays.iter())
            .map(|text| Delay::read(text).unwrap())
            .collect();
        let mut command = Command {
            argv: vec!["true".into()],
            env: Vec::new(),
            cwd: "/".into(),
            root: Root::Host,
            terminal: None,
            limit: None,
        };
        Delay::wrap(&delays, quiet, &mut command);
        (command.argv.into_iter())
            .map(|word| word.into_string().unwrap())
            .collect()
    }

    #[test]
    fn a_command_is_delayed_by_the_guests_hmmctl() {
        assert_eq!(wrapped(&[], false), ["true"]);
        assert_eq!(
            wrapped(&["migrate", "mmput=return,5%"], false),
            [
                "hmmctl",
                "delay",
                "migrate",
                "mmput=return,5%",
                "--",
                "true"
            ]
        );
        assert_eq!(
            wrapped(&["migrate"], true),
            ["hmmctl", "delay", "--quiet", "migrate", "--", "true"]
        );
    }

    #[test]
    fn a_delay_that_is_written_wrong_boots_no_guest() {
        assert!(Delay::read("migrate=1h").is_err());
    }
}
