// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The driver's module, and its bond to the devices.

use super::nodes;
use anyhow::{Context, Result, ensure};
use hmm_control::plan;
use std::ffi::CString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const NAME: &str = "virtio_hmm";
const FOLDER: &str = "/sys/bus/virtio/drivers/virtio_hmm";
/// How long a node may take to appear or go.
const LIMIT: Duration = Duration::from_secs(20);

/// Loads the module as init did, and waits for its nodes.
pub(in crate::cases) fn load() -> Result<()> {
    load_with("")
}

/// Loads the module with further parameters, and waits for its nodes.
pub(in crate::cases) fn load_with(parameters: &str) -> Result<()> {
    let driver = planned()?;
    insert(&driver, parameters)?;
    wait_until("the nodes to appear", || {
        nodes::all().len() >= driver.devices as usize
    })
}

/// Loads the module as init did, and does not care what becomes of its nodes.
pub(in crate::cases) fn load_now() -> Result<()> {
    insert(&planned()?, "")
}

/// Whether this guest was booted with the driver.
pub(in crate::cases) fn is_planned() -> bool {
    planned().is_ok()
}

/// The driver that this guest was booted with.
fn planned() -> Result<plan::Driver> {
    let plan: plan::Plan = serde_json::from_slice(&fs::read(plan::PATH)?)?;
    plan.driver.context("this guest has no driver")
}

fn insert(driver: &plan::Driver, parameters: &str) -> Result<()> {
    let parameters = format!("{} {parameters}", driver.parameters);
    let file = File::open(&driver.path).with_context(|| format!("cannot open {}", driver.path))?;
    rustix::system::finit_module(file, &CString::new(parameters.trim())?, 0)
        .context("cannot load the module")
}

/// Removes the module, which migrates all pages back first.
pub(in crate::cases) fn unload() -> Result<(), rustix::io::Errno> {
    // Without waiting for users: a node that is open is an error at once.
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    rustix::system::delete_module(c"virtio_hmm", flags)
}

/// Whether the module is loaded.
pub(in crate::cases) fn is_loaded() -> bool {
    Path::new("/sys/module").join(NAME).exists()
}

/// The devices that the driver is bound to, by their names on the virtio bus.
pub(in crate::cases) fn bound_devices() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(FOLDER).context("the driver is not registered")? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.starts_with("virtio") {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Unbinds the driver from a device.
pub(in crate::cases) fn unbind(device: &str) -> Result<()> {
    fs::write(folder_file("unbind"), device).with_context(|| format!("cannot unbind {device}"))
}

/// Binds the driver to a device, and waits for so many nodes.
pub(in crate::cases) fn bind(device: &str, nodes: usize) -> Result<()> {
    bind_now(device)?;
    wait_until("the node to appear", || nodes::all().len() >= nodes)
}

/// Binds the driver to a device, and does not care what becomes of its node.
pub(in crate::cases) fn bind_now(device: &str) -> Result<()> {
    fs::write(folder_file("bind"), device).with_context(|| format!("cannot bind {device}"))
}

/// Brings the driver back, whatever a case has done to it.
pub(in crate::cases) fn restore() -> Result<()> {
    if is_loaded() {
        // What a lost device had holds the module until it is free, and a moment longer.
        let deadline = Instant::now() + LIMIT;
        while let Err(errno) = unload() {
            ensure!(
                errno == rustix::io::Errno::AGAIN && Instant::now() < deadline,
                "cannot remove the module: {errno}"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    load()?;
    ensure!(nodes::exist(), "there is no {}", nodes::first().display());
    Ok(())
}

/// The driver with other parameters, for as long as the value exists.
#[derive(Debug)]
pub(in crate::cases) struct Reloaded(());

impl Reloaded {
    /// Loads the driver anew.
    pub(in crate::cases) fn with(parameters: &str) -> Result<Self> {
        unload().context("cannot remove the module")?;
        let reloaded = Self(());
        load_with(parameters)?;
        Ok(reloaded)
    }
}

impl Drop for Reloaded {
    fn drop(&mut self) {
        // Where this fails the runner finds no driver and says so.
        let _ = restore();
    }
}

fn folder_file(name: &str) -> PathBuf {
    Path::new(FOLDER).join(name)
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) -> Result<()> {
    let deadline = Instant::now() + LIMIT;
    while !done() {
        ensure!(Instant::now() < deadline, "waited for {what} in vain");
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
