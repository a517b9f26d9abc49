// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Capabilities and resource limits.

use anyhow::Context;
use caps::{CapSet, Capability};
use rustix::{
    process::{Resource, Rlimit, getrlimit, setrlimit},
    thread::set_no_new_privs,
};

/// Descriptors that are needed at most: one for each of 509 memory regions, three for each of 19 queues, and the rest.
const DESCRIPTORS: u64 = 509 + 3 * 19 + 256;

/// No new privileges, no core files (they would hold a guest's memory), and descriptors enough.
pub(super) fn limit_resources() -> anyhow::Result<()> {
    set_no_new_privs(true).context("Cannot give up new privileges")?;
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none).context("Cannot give up core files")?;
    let before = getrlimit(Resource::Nofile);
    let wanted = before
        .maximum
        .map_or(DESCRIPTORS, |most| most.min(DESCRIPTORS));
    if before.current.is_some_and(|now| now < wanted) {
        let raised = Rlimit {
            current: Some(wanted),
            maximum: before.maximum,
        };
        setrlimit(Resource::Nofile, raised).context("Cannot have more descriptors")?;
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

/// Gives up all capabilities of this thread and of those it starts.
pub(super) fn drop_capabilities() -> anyhow::Result<()> {
    let may_bound = caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)
        .context("Cannot read the capabilities")?;
    if may_bound {
        caps::clear(None, CapSet::Bounding).context("Cannot bound the capabilities")?;
    }
    for set in [
        CapSet::Ambient,
        CapSet::Inheritable,
        CapSet::Effective,
        CapSet::Permitted,
    ] {
        caps::clear(None, set).context("Cannot give up capabilities")?;
    }
    Ok(())
}
