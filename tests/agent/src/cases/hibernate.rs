// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `hibernate/*`: the kernel prepares to write all memory to disk, up to the point where all tasks are frozen.
//!
//! What lies on the device is not in the image, so it is migrated back before the kernel reserves memory for one.

use super::support::inject::Faults;
use super::support::prelude::*;
use crate::cases::case::skip;
use serde_json::json;
use std::fs;
use std::io;
use std::path::Path;

pub(super) const CASES: &[Case] = &[
    Case::new(
        "hibernate/evicts-before-the-image-anon-4k",
        evicts_before_the_image,
    ),
    Case::new(
        "hibernate/refused-while-pages-stay-anon-4k",
        refused_while_pages_stay,
    ),
];

const PAGES: usize = 600;

/// Begins to hibernate, and ends it again once tasks are frozen.
fn hibernate() -> Result<io::Result<()>> {
    if !Path::new("/sys/power/disk").exists() {
        return Err(skip("this kernel cannot hibernate".to_owned()));
    }
    fs::write("/sys/power/pm_test", "freezer").context("cannot choose the depth of the test")?;
    fs::write("/sys/module/hibernate/parameters/pm_test_delay", "0")?;
    // The larger the image may be, the less memory the kernel frees for it.
    fs::write("/sys/power/image_size", u32::MAX.to_string())?;
    let result = fs::write("/sys/power/state", "disk");
    fs::write("/sys/power/pm_test", "none")?;
    Ok(result)
}

fn evicts_before_the_image() -> Result<()> {
    let mover = Mover::open()?;
    let mut memory = Memory::single(PAGES)?;
    memory.fill(1);
    mover.all_to_device(memory.range())?;
    hibernate()?.context("cannot hibernate")?;
    let resident = mover.resident()?;
    ensure!(resident == 0, "{resident} bytes are not in the image");
    memory.check(1)?;
    // Migration works as before.
    mover.all_to_device(memory.range())?;
    memory.check(1)
}

fn refused_while_pages_stay() -> Result<()> {
    let faults = Faults::of_first_device()?;
    let mover = Mover::open()?;
    let mut memory = Memory::single(PAGES)?;
    memory.fill(2);
    mover.all_to_device(memory.range())?;
    faults
        .add(json!({ "action": "fail", "on": "entry", "op": "to_system", "status": "internal" }))?;
    let result = hibernate()?;
    faults.clear()?;
    match result {
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
        other => bail!("hibernation ended with {other:?}, and not with EBUSY"),
    }
    memory.check(2)?;
    mover.all_to_device(memory.range())?;
    memory.check(2)
}
