// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Capabilities, resource limits, and access by debuggers.

use caps::{CapSet, Capability, errors::CapsError};
use rustix::{
    io::Errno,
    process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit},
    thread::set_no_new_privs,
};

use super::SandboxError;

/// Descriptors that are needed at most: one for each of 509 memory regions, three for each of 19 queues, and the rest.
const DESCRIPTORS: u64 = 509 + 3 * 19 + 256;

/// No new privileges, no core files (they would hold a guest's memory), and descriptors enough.
pub(super) fn limit_resources() -> Result<(), SandboxError> {
    set_no_new_privs(true).map_err(refused("give up new privileges"))?;
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none).map_err(refused("give up core files"))?;
    let before = getrlimit(Resource::Nofile);
    let wanted = before
        .maximum
        .map_or(DESCRIPTORS, |most| most.min(DESCRIPTORS));
    if before.current.is_some_and(|now| now < wanted) {
        let raised = Rlimit {
            current: Some(wanted),
            maximum: before.maximum,
        };
        setrlimit(Resource::Nofile, raised).map_err(refused("have more descriptors"))?;
    }
    if wanted < DESCRIPTORS {
        tracing::warn!(
            limit = wanted,
            wanted = DESCRIPTORS,
            "few descriptors are allowed; a front end with many memory regions or queues may not be served"
        );
    }
    Ok(())
}

/// Keeps other processes of the same user from tracing this one and from reading its memory, which is a guest's.
pub(super) fn refuse_debuggers() -> Result<(), SandboxError> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(refused("refuse debuggers"))
}

/// Gives up all capabilities of this thread and of those it starts.
pub(super) fn drop_capabilities() -> Result<(), SandboxError> {
    let may_bound = caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)
        .map_err(kept("read the capabilities"))?;
    if may_bound {
        caps::clear(None, CapSet::Bounding).map_err(kept("bound the capabilities"))?;
    }
    for set in [
        CapSet::Ambient,
        CapSet::Inheritable,
        CapSet::Effective,
        CapSet::Permitted,
    ] {
        caps::clear(None, set).map_err(kept("give up capabilities"))?;
    }
    Ok(())
}

fn refused(what: &'static str) -> impl Fn(Errno) -> SandboxError {
    move |source| SandboxError::Process { what, source }
}

fn kept(what: &'static str) -> impl Fn(CapsError) -> SandboxError {
    move |source| SandboxError::Capabilities { what, source }
}
