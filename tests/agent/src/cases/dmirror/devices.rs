// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Two devices and the memory of one process.

use crate::cases::support::mirror::{self, Mirror};
use crate::cases::support::nodes;
use crate::cases::support::prelude::*;

pub(super) const CASES: &[Case] = &[Case::new(
    "dmirror/to-system-takes-its-own-anon-4k",
    to_system,
)];

/// A device brings its own pages back, and leaves those of the other where they are.
fn to_system() -> Result<()> {
    const PAGES: usize = 64;
    let _driver = mirror::driver()?;
    let (first, second) = (Mover::open()?, Mover::on(&nodes::second()?)?);
    let node = Mirror::open(1)?;
    let mut memory = Memory::single(2 * PAGES)?;
    memory.fill(1);
    first.all_to_device(memory.part(0..PAGES))?;
    second.all_to_device(memory.part(PAGES..2 * PAGES))?;
    let done = node.to_system(memory.range())?;
    ensure!(
        done.pages == PAGES,
        "{} pages went back, of {PAGES}",
        done.pages
    );
    first.expect_on_device(memory.part(0..PAGES))?;
    first.expect_in_system(memory.part(PAGES..2 * PAGES))?;
    memory.check(1)
}
