// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which accelerator runs the guest's processors, and why.
//!
//! That `/dev/kvm` opens, and even that a processor runs in it, does not mean that an ordinary kernel does: inside some
//! virtual machines it stops half way and QEMU waits for ever. So the cheap reasons against KVM are looked at first,
//! and what is left is tried: KVM is used if the very kernel that is to run boots with it.

mod facts;
mod verdict;

use std::fmt;
use std::path::Path;
use std::str::FromStr;

pub use facts::{Facts, KvmNode};

use self::verdict::NoBoot;
use crate::Artifacts;
use crate::guest::{GuestError, environment};

/// How the guest's processors run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// On the host's processors.
    Kvm,
    /// Emulated.
    Tcg,
}

/// What the user wants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AcceleratorChoice {
    /// KVM where ordinary guests really run, emulation elsewhere.
    #[default]
    Auto,
    /// KVM or an error.
    Kvm,
    /// Emulation.
    Tcg,
}

impl fmt::Display for Accelerator {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        })
    }
}

/// A text that names no [`AcceleratorChoice`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an accelerator; expected auto, kvm or tcg")]
pub struct UnknownAccelerator(String);

impl FromStr for AcceleratorChoice {
    type Err = UnknownAccelerator;

    fn from_str(text: &str) -> Result<Self, UnknownAccelerator> {
        match text {
            "auto" => Ok(Self::Auto),
            "kvm" => Ok(Self::Kvm),
            "tcg" => Ok(Self::Tcg),
            other => Err(UnknownAccelerator(other.to_owned())),
        }
    }
}

/// An accelerator and why it was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The accelerator.
    pub accelerator: Accelerator,
    /// Why, for people.
    pub reason: String,
}

impl fmt::Display for Decision {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({})", self.accelerator, self.reason)
    }
}

/// Decides for this machine. A guest is booted to try KVM where that is still open; what came out is remembered until
/// the host reboots or another QEMU or kernel is used.
///
/// # Errors
/// When KVM was asked for and this machine has none that may be used.
pub fn resolve(choice: AcceleratorChoice, artifacts: &Artifacts) -> Result<Decision, GuestError> {
    decide(choice, &Facts::of_this_machine(), || {
        verdict::remembered(artifacts)
    })
}

/// The decision itself. `try_kvm` boots a guest.
fn decide(
    choice: AcceleratorChoice,
    facts: &Facts,
    try_kvm: impl FnOnce() -> Result<(), NoBoot>,
) -> Result<Decision, GuestError> {
    let taken = |accelerator, reason: String| {
        Ok(Decision {
            accelerator,
            reason,
        })
    };
    match choice {
        AcceleratorChoice::Tcg => taken(Accelerator::Tcg, "as asked".to_owned()),
        AcceleratorChoice::Kvm => match facts.no_access() {
            Some(reason) => Err(environment(format!(
                "KVM was asked for, but {reason}; \"--accel tcg\" emulates the processors"
            ))),
            None => taken(Accelerator::Kvm, "as asked".to_owned()),
        },
        AcceleratorChoice::Auto => match facts.no_access().or_else(|| facts.no_ordinary_guests()) {
            Some(reason) => taken(Accelerator::Tcg, format!("no KVM: {reason}")),
            None => match try_kvm() {
                Ok(()) => taken(Accelerator::Kvm, "a guest was booted with it".to_owned()),
                Err(reason) => taken(
                    Accelerator::Tcg,
                    format!("no KVM: a guest did not boot with it: {reason}"),
                ),
            },
        },
    }
}

/// The identifier of the host's boot.
fn boot_id() -> String {
    std::fs::read_to_string(Path::new("/proc/sys/kernel/random/boot_id")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Facts = Facts {
        same_architecture: true,
        node: KvmNode::Usable,
        processor_virtualizes: true,
        paravirtual_kvm: false,
    };

    fn never() -> Result<(), NoBoot> {
        panic!("a guest was booted although the answer was known")
    }

    #[test]
    fn auto_takes_kvm_only_where_a_guest_boots() {
        let decision = decide(AcceleratorChoice::Auto, &GOOD, || Ok(())).unwrap();
        assert_eq!(decision.accelerator, Accelerator::Kvm);
        let decision = decide(AcceleratorChoice::Auto, &GOOD, || {
            Err(NoBoot::new("internal-error"))
        })
        .unwrap();
        assert_eq!(decision.accelerator, Accelerator::Tcg);
        assert!(decision.reason.contains("internal-error"));
    }

    #[test]
    fn cheap_reasons_come_first_and_are_named() {
        for (facts, word) in [
            (
                Facts {
                    same_architecture: false,
                    ..GOOD
                },
                "x86-64",
            ),
            (
                Facts {
                    node: KvmNode::Missing,
                    ..GOOD
                },
                "/dev/kvm",
            ),
            (
                Facts {
                    node: KvmNode::Denied,
                    ..GOOD
                },
                "kvm group",
            ),
            (
                Facts {
                    processor_virtualizes: false,
                    ..GOOD
                },
                "vmx",
            ),
            (
                Facts {
                    paravirtual_kvm: true,
                    ..GOOD
                },
                "kvm_pvm",
            ),
        ] {
            let decision = decide(AcceleratorChoice::Auto, &facts, never).unwrap();
            assert_eq!(decision.accelerator, Accelerator::Tcg);
            assert!(decision.reason.contains(word), "{}", decision.reason);
        }
    }

    #[test]
    fn kvm_never_falls_back() {
        let decision = decide(
            AcceleratorChoice::Kvm,
            &Facts {
                paravirtual_kvm: true,
                ..GOOD
            },
            never,
        )
        .unwrap();
        assert_eq!(decision.accelerator, Accelerator::Kvm);
        for node in [KvmNode::Missing, KvmNode::Denied] {
            let error = decide(AcceleratorChoice::Kvm, &Facts { node, ..GOOD }, never).unwrap_err();
            assert_eq!(error.exit_code(), 3);
        }
    }

    #[test]
    fn tcg_looks_at_nothing() {
        let nothing = Facts {
            node: KvmNode::Missing,
            same_architecture: false,
            ..GOOD
        };
        let decision = decide(AcceleratorChoice::Tcg, &nothing, never).unwrap();
        assert_eq!(decision.accelerator, Accelerator::Tcg);
    }
}
