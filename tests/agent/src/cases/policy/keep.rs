// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! ADVISE with KEEP: how much memory a process may keep on the device.

use super::super::support::prelude::*;
use super::super::support::proc_self;
use hmm_uapi::client::{Advice, Device, Error};
use rustix::process::{Resource, Rlimit, Uid, setrlimit};
use rustix::thread::set_thread_uid;
use std::ops::Range;

pub(super) const CASES: &[Case] = &[Case::new("policy/keep-counts-as-pinned", counts_as_pinned)];

/// Pages that the process may keep.
const ALLOWED: usize = 300;

fn keep(device: &Device, range: Range<u64>, yes: bool) -> Result<(), Error> {
    let advice = Advice {
        keep: Some(yes),
        ..Advice::default()
    };
    device.advise(Process::Caller, range, advice)
}

/// What is to be kept counts as pinned, and `RLIMIT_MEMLOCK` limits it, unless the process has `CAP_IPC_LOCK`.
fn counts_as_pinned() -> Result<()> {
    fork(|| {
        let own = std::process::id().cast_signed();
        let device = Mover::open()?.device;
        let memory = Memory::single(2 * ALLOWED)?;
        let expect_pinned = |pages: usize| -> Result<()> {
            let found = proc_self::status(own, "VmPin")?;
            ensure!(
                found == (pages * PAGE) as u64,
                "{pages} pages are to be kept, and {found} bytes are pinned"
            );
            Ok(())
        };
        let bytes = (ALLOWED * PAGE) as u64;
        let limit = Rlimit {
            current: Some(bytes),
            maximum: Some(bytes),
        };
        setrlimit(Resource::Memlock, limit).context("cannot set a limit")?;
        // Root may.
        keep(&device, memory.range(), true)?;
        expect_pinned(2 * ALLOWED)?;
        keep(&device, memory.range(), false)?;
        expect_pinned(0)?;

        set_thread_uid(Uid::from_raw(65534)).context("cannot become nobody")?;
        let expect_refused = |part: Range<usize>| -> Result<()> {
            let refused = keep(&device, memory.part(part.clone()), true);
            ensure!(
                matches!(refused, Err(Error::NotMapped { .. })),
                "pages {part:?} are kept: {refused:?}"
            );
            Ok(())
        };
        expect_refused(0..ALLOWED + 1)?;
        expect_pinned(0)?;
        keep(&device, memory.part(0..ALLOWED), true)?;
        // What is kept already does not count twice.
        keep(&device, memory.part(10..ALLOWED), true)?;
        expect_refused(ALLOWED..ALLOWED + 1)?;
        keep(&device, memory.part(0..100), false)?;
        expect_pinned(ALLOWED - 100)?;
        keep(&device, memory.part(ALLOWED..ALLOWED + 100), true)?;
        expect_refused(0..1)?;
        // What is unmapped is not kept any more.
        memory.unmap(200..ALLOWED)?;
        expect_pinned(ALLOWED - 100)?;
        keep(&device, memory.part(0..100), true)?;
        expect_pinned(ALLOWED)
    })?
    .wait()
}
