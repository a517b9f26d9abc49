// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A huge page that `mremap(MREMAP_DONTUNMAP)` moved away, while the kernel asks for it at its old address.

use crate::cases::support::depth;
use crate::cases::support::prelude::*;
use rustix::mm::{Advice, MremapFlags, mremap_fixed};
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};

/// Huge pages of the mapping; the first is replaced, the last is mapped by single entries.
const COUNT: usize = 4;
/// Single pages of a huge one.
const TABLE: usize = HUGE / PAGE;
const ROUNDS: u32 = 10;
/// `MPOL_MF_MOVE` of `linux/mempolicy.h`.
const MPOL_MF_MOVE: i32 = 1 << 1;

/// `move_pages()` walks the reverse mapping of the page that was moved away, which leads to its old address as well.
/// Another huge page is there now, which is on the device, in a range that is held for a migration. The walk has the
/// lock of the reverse mapping. The migration needs it to split another huge page, so the walk must not wait for it.
pub(super) fn walk() -> Result<()> {
    if !Path::new("/sys/devices/system/node/node1").exists() {
        return Err(skip("there is one memory node"));
    }
    let rounds = depth::rounds(ROUNDS)?;
    let mover = Mover::open()?;
    let mut memory = Memory::huge(COUNT)?;
    memory.fill(1);
    let aside = move_first_page(&memory)?;
    memory.fill_pages(0..TABLE, 2);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let walking = scope.spawn(|| -> Result<()> {
            while !is_over.load(Ordering::Relaxed) {
                for node in [0, 1] {
                    move_to_node(&aside, node)?;
                }
            }
            Ok(())
        });
        let moved = (0..rounds).try_for_each(|_| round(&mover, &mut memory));
        is_over.store(true, Ordering::Relaxed);
        match walking.join() {
            Ok(walked) => moved.and(walked),
            Err(_) => bail!("a thread panicked"),
        }
    })?;
    aside.check(1)?;
    memory.check_pages(0..TABLE, 2)?;
    memory.check_pages(TABLE..(COUNT - 1) * TABLE, 1)
}

/// Moves the first huge page to a mapping of its own. The mapping where it was stays.
fn move_first_page(memory: &Memory) -> Result<Memory> {
    let aside = Memory::huge(1)?;
    let (target, _) = aside.into_raw();
    // SAFETY: Both are mappings of the case's own and of this length, and nothing refers to what is in them.
    let start = unsafe {
        mremap_fixed(
            memory.at(0).as_ptr().cast(),
            HUGE,
            HUGE,
            MremapFlags::MAYMOVE | MremapFlags::DONTUNMAP,
            target.as_ptr().cast(),
        )
    };
    let start = NonNull::new(start.context("mremap")?.cast()).context("mremap to address 0")?;
    // SAFETY: The mapping is as long as it was, and has no other owner.
    Ok(unsafe { Memory::adopt(start, TABLE) })
}

/// The first page is on the device when a hold of the whole range begins. In it the last page is split.
fn round(mover: &Mover, memory: &mut Memory) -> Result<()> {
    mover.call(memory.range(), Direction::ToSystem, MigrateFlags::default())?;
    let last = (COUNT - 1) * TABLE..COUNT * TABLE;
    memory.advise(last.clone(), Advice::LinuxDontNeed)?;
    memory.fill_pages(last.clone(), 3);
    memory.advise(last.start..last.start + 1, Advice::LinuxDontNeed)?;
    for range in [memory.part(0..TABLE), memory.range()] {
        mover.call(range, Direction::ToDevice, MigrateFlags::default())?;
    }
    memory.check_pages(last.start + 1..last.end, 3)
}

fn move_to_node(memory: &Memory, node: i32) -> Result<()> {
    let page = memory.address();
    let mut status = 0_i32;
    // SAFETY: Each array has one element. Moving pages between nodes changes no contents.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_pages,
            0,
            1,
            &raw const page,
            &raw const node,
            &raw mut status,
            MPOL_MF_MOVE,
        )
    };
    // A page that is busy stays where it is.
    ensure!(
        result >= 0,
        "move_pages: {}",
        std::io::Error::last_os_error()
    );
    Ok(())
}
