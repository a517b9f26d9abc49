// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What can be known about KVM without trying it.

use std::fs::OpenOptions;
use std::io;
use std::path::Path;

/// What is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// Whether the host is of the guest's architecture.
    pub same_architecture: bool,
    /// Whether the node can be used.
    pub node: KvmNode,
    /// Whether the processor says that it can virtualize.
    pub processor_virtualizes: bool,
    /// Whether the host's KVM is one that has no help from the processor.
    pub paravirtual_kvm: bool,
}

/// `/dev/kvm`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KvmNode {
    /// It is not there.
    Missing,
    /// It may not be opened.
    Denied,
    /// It opens.
    Usable,
}

impl Facts {
    /// Looks at this machine.
    #[must_use]
    pub fn of_this_machine() -> Self {
        Self {
            same_architecture: cfg!(target_arch = "x86_64"),
            node: KvmNode::at(Path::new("/dev/kvm")),
            processor_virtualizes: std::fs::read_to_string("/proc/cpuinfo")
                .is_ok_and(|text| virtualizes(&text)),
            paravirtual_kvm: Path::new("/sys/module/kvm_pvm").exists(),
        }
    }

    /// Why KVM cannot be used at all.
    pub(super) fn no_access(&self) -> Option<String> {
        if !self.same_architecture {
            return Some("the host is not x86-64".to_owned());
        }
        match self.node {
            KvmNode::Missing => Some("there is no /dev/kvm".to_owned()),
            KvmNode::Denied => Some(
                "/dev/kvm may not be opened by this user; join the kvm group (sudo usermod -aG kvm \"$USER\", then log \
                 in again) or let everybody use it (a udev rule: KERNEL==\"kvm\", MODE=\"0666\")"
                    .to_owned(),
            ),
            KvmNode::Usable => None,
        }
    }

    /// Why ordinary guests will not run although KVM can be used.
    pub(super) fn no_ordinary_guests(&self) -> Option<String> {
        if self.paravirtual_kvm {
            return Some("the host's KVM is kvm_pvm, which runs no ordinary guests".to_owned());
        }
        (!self.processor_virtualizes).then(|| "the processor has neither vmx nor svm".to_owned())
    }
}

impl KvmNode {
    fn at(path: &Path) -> Self {
        match OpenOptions::new().read(true).write(true).open(path) {
            Ok(_) => Self::Usable,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Self::Denied,
            Err(_) => Self::Missing,
        }
    }
}

/// Whether `/proc/cpuinfo` has the flag of Intel's or of AMD's extension.
fn virtualizes(cpuinfo: &str) -> bool {
    cpuinfo
        .lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(name, _)| name.trim() == "flags")
        .any(|(_, flags)| {
            flags
                .split_whitespace()
                .any(|flag| flag == "vmx" || flag == "svm")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_line_decides() {
        assert!(virtualizes("processor\t: 0\nflags\t\t: fpu vmx sse\n"));
        assert!(virtualizes("flags : svm\n"));
        assert!(!virtualizes("flags\t\t: fpu svm_lock\nmodel name\t: vmx\n"));
    }

    #[test]
    fn a_node_is_missing_or_usable() {
        assert_eq!(KvmNode::at(Path::new("/nonexistent/kvm")), KvmNode::Missing);
        assert_eq!(KvmNode::at(Path::new("/dev/null")), KvmNode::Usable);
    }
}
