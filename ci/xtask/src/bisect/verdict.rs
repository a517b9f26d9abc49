// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a revision is for `git bisect run`, by what happened to it.

use std::fmt;
use std::path::Path;
use std::process::ExitCode;

use hmm_vm::SetupError;
use hmm_vm::guest::{CommandEnd, ExitStatus, GuestError, GuestErrorKind};

/// Git leaves the revision out and chooses another one.
const SKIP: u8 = 125;
/// The first code that makes git stop.
const ABORT: u8 = 128;

/// How far a revision came.
pub(super) enum Outcome {
    /// The kernel does not build; the build ended with this.
    NotBuilt(std::process::ExitStatus),
    /// The tree or the driver for it cannot be made ready.
    NotReady(SetupError),
    /// The guest does not boot.
    NotBooted(GuestError),
    /// The guest failed while the command ran.
    Failed(GuestError, Reports),
    /// The command ended.
    Ended(CommandEnd, Reports),
}

/// The kernel's reports of its own faults, as far as they are to count.
pub(super) struct Reports(pub(super) Vec<String>);

/// A verdict, and why.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    kind: Kind,
    reason: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Good,
    Bad,
    Skip,
    /// The code is at least 128.
    Abort(u8),
}

impl Verdict {
    /// The verdict on a revision of the tree in `tree`.
    pub(super) fn of(outcome: &Outcome, tree: &Path) -> Self {
        match outcome {
            Outcome::NotBuilt(status) => Self::skip(format!("the build ended with {status}")),
            Outcome::NotReady(error) => match error {
                SetupError::Driver { .. } => Self::skip(error.to_string()),
                // What is wrong with the tree is of the revision. A lack of this machine meets every revision.
                SetupError::Invalid { path, .. } if path.starts_with(tree) => {
                    Self::skip(error.to_string())
                }
                _ => Self::abort(ABORT, error.to_string()),
            },
            Outcome::NotBooted(error) => match error.kind() {
                GuestErrorKind::Infrastructure(_) | GuestErrorKind::Timeout { .. } => {
                    Self::skip(format!("the guest does not boot: {error}"))
                }
                _ => Self::of_error(error),
            },
            Outcome::Failed(error, reports) => match (error.kind(), reports.0.first()) {
                (GuestErrorKind::Infrastructure(_), Some(report)) => {
                    Self::bad(format!("{error}\n{report}"))
                }
                // Neither the command nor the kernel said what it was: the device or QEMU may have failed.
                (GuestErrorKind::Infrastructure(_), None) => Self::skip(error.to_string()),
                (GuestErrorKind::Timeout { .. }, _) => Self::bad(error.to_string()),
                _ => Self::of_error(error),
            },
            Outcome::Ended(end, reports) => Self::of_end(end, reports),
        }
    }

    /// A verdict where this program cannot do its work at all.
    pub(super) fn unable(reason: String) -> Self {
        Self::abort(ABORT, reason)
    }

    fn of_error(error: &GuestError) -> Self {
        // An interruption has a code above 128 already.
        Self::abort(error.exit_code().max(ABORT), error.to_string())
    }

    fn of_end(end: &CommandEnd, reports: &Reports) -> Self {
        let status = match end {
            CommandEnd::NotStarted { message, .. } => {
                let reason = format!("the guest cannot start the command: {message}");
                return Self::abort(ABORT, reason);
            }
            CommandEnd::Ended(status) => *status,
        };
        match (status, reports.0.first()) {
            (ExitStatus::Code(code @ (126 | 127)), _) => Self::abort(
                ABORT,
                format!("the command ended with {code}, as a shell does that finds no program"),
            ),
            (ExitStatus::Code(code), _) if code >= ABORT.into() => Self::abort(
                status.shell_code(),
                format!("the command ended with {code}"),
            ),
            (_, Some(report)) => Self::bad(format!("the kernel reports a fault:\n{report}")),
            (ExitStatus::Code(0), None) => Self {
                kind: Kind::Good,
                reason: "the command ended well".to_owned(),
            },
            (ExitStatus::Code(125), None) => Self::skip("the command ended with 125".to_owned()),
            (ExitStatus::Code(code), None) => Self::bad(format!("the command ended with {code}")),
            (ExitStatus::Signal(signal), None) => {
                Self::bad(format!("signal {signal} ended the command"))
            }
        }
    }

    fn bad(reason: String) -> Self {
        Self {
            kind: Kind::Bad,
            reason,
        }
    }

    fn skip(reason: String) -> Self {
        Self {
            kind: Kind::Skip,
            reason,
        }
    }

    fn abort(code: u8, reason: String) -> Self {
        Self {
            kind: Kind::Abort(code),
            reason,
        }
    }

    fn number(&self) -> u8 {
        match self.kind {
            Kind::Good => 0,
            Kind::Bad => 1,
            Kind::Skip => SKIP,
            Kind::Abort(code) => code,
        }
    }

    /// The code as git reads it.
    pub(super) fn code(&self) -> ExitCode {
        ExitCode::from(self.number())
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.kind {
            Kind::Good => "good",
            Kind::Bad => "bad",
            Kind::Skip => "skip",
            Kind::Abort(_) => "stop the bisection",
        };
        write!(formatter, "{word}: {}", self.reason)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::time::Duration;

    use hmm_vm::guest::ExecError;

    use super::*;

    const TREE: &str = "/src/linux";

    fn number(outcome: Outcome) -> u8 {
        Verdict::of(&outcome, Path::new(TREE)).number()
    }

    fn ended(status: ExitStatus, reports: &[&str]) -> u8 {
        let reports = Reports(reports.iter().map(|&text| text.to_owned()).collect());
        number(Outcome::Ended(CommandEnd::Ended(status), reports))
    }

    fn failed(kind: GuestErrorKind, reports: &[&str]) -> u8 {
        let reports = Reports(reports.iter().map(|&text| text.to_owned()).collect());
        number(Outcome::Failed(kind.into(), reports))
    }

    fn broken() -> GuestErrorKind {
        GuestErrorKind::Infrastructure("QEMU ended".to_owned())
    }

    fn timeout() -> GuestErrorKind {
        GuestErrorKind::Timeout {
            what: "the command".to_owned(),
            limit: Duration::from_secs(9),
        }
    }

    #[test]
    fn the_commands_code_is_read_as_git_reads_it() {
        let code = |code| ended(ExitStatus::Code(code), &[]);
        assert_eq!([code(0), code(1), code(124), code(125)], [0, 1, 1, 125]);
        // A program that is missing is missing in every revision.
        assert_eq!([code(126), code(127)], [128, 128]);
        assert_eq!([code(128), code(130), code(255)], [128, 130, 255]);
        // Of a test that crashes the shell says 139, which for git would be the end.
        assert_eq!(ended(ExitStatus::Signal(11), &[]), 1);
    }

    #[test]
    fn a_report_of_the_kernel_makes_bad_what_ended_well() {
        assert_eq!(ended(ExitStatus::Code(0), &["BUG: KASAN"]), 1);
        assert_eq!(ended(ExitStatus::Code(125), &["BUG: KASAN"]), 1);
        assert_eq!(ended(ExitStatus::Code(255), &["BUG: KASAN"]), 255);
    }

    #[test]
    fn a_command_that_cannot_start_stops_the_bisection() {
        let end = CommandEnd::NotStarted {
            error: ExecError::NotFound,
            message: "no such file".to_owned(),
        };
        assert_eq!(number(Outcome::Ended(end, Reports(Vec::new()))), 128);
    }

    #[test]
    fn a_guest_that_does_not_boot_is_skipped_and_one_that_hangs_is_bad() {
        assert_eq!(number(Outcome::NotBooted(broken().into())), 125);
        assert_eq!(number(Outcome::NotBooted(timeout().into())), 125);
        assert_eq!(failed(timeout(), &[]), 1);
    }

    #[test]
    fn a_guest_that_is_lost_is_bad_only_if_its_kernel_said_something() {
        assert_eq!(failed(broken(), &["Kernel panic - not syncing"]), 1);
        assert_eq!(failed(broken(), &[]), 125);
    }

    #[test]
    fn an_interruption_and_a_lack_of_the_machine_stop_the_bisection() {
        assert_eq!(failed(GuestErrorKind::Interrupted, &[]), 130);
        let lack = || GuestErrorKind::Environment("no memory".to_owned());
        assert_eq!(failed(lack(), &[]), 128);
        assert_eq!(number(Outcome::NotBooted(lack().into())), 128);
        let error = SetupError::HostLacks {
            missing: vec!["bwrap".to_owned()],
            command: "apt-get install bubblewrap".to_owned(),
        };
        assert_eq!(number(Outcome::NotReady(error)), 128);
    }

    #[test]
    fn a_revision_that_does_not_build_or_lacks_rust_is_skipped() {
        let status = std::process::ExitStatus::from_raw(2 << 8);
        assert_eq!(number(Outcome::NotBuilt(status)), 125);
        let driver = SetupError::Driver {
            what: "build the driver".to_owned(),
            output: "error[E0560]: struct `migrate_vma` has no field".to_owned(),
        };
        assert_eq!(number(Outcome::NotReady(driver)), 125);
        let invalid = |folder: &str| SetupError::Invalid {
            path: Path::new(folder).join(".config"),
            reason: "expected CONFIG_RUST".to_owned(),
        };
        assert_eq!(number(Outcome::NotReady(invalid(TREE))), 125);
        assert_eq!(number(Outcome::NotReady(invalid("/etc"))), 128);
    }

    #[test]
    fn the_words_say_what_git_will_do() {
        let verdict = Verdict::unable("no tree".to_owned());
        assert_eq!(verdict.to_string(), "stop the bisection: no tree");
    }
}
