// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Loading kernel modules from the guest's image.

use std::ffi::CString;
use std::fs::{self, File};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hmm_control::ModuleReport;
use hmm_control::plan::Driver;

/// How long the driver may take to make its nodes once it is loaded.
const NODES_LIMIT: Duration = Duration::from_secs(60);

/// Loads one module.
pub(crate) fn load(path: &str, parameters: &str) -> Result<()> {
    let file = File::open(path).with_context(|| format!("cannot open {path}"))?;
    let parameters = CString::new(parameters).context("module parameters with a zero byte")?;
    rustix::system::finit_module(&file, &parameters, 0)
        .with_context(|| format!("the kernel refuses {path}; its log says more"))
}

/// Loads the driver and waits for its nodes.
pub(crate) fn load_driver(driver: Option<&Driver>) -> ModuleReport {
    let Some(driver) = driver else {
        return ModuleReport::None;
    };
    let result =
        load(&driver.path, &driver.parameters).and_then(|()| wait_for_nodes(driver.devices));
    match result {
        Ok(()) => ModuleReport::Loaded,
        Err(error) => ModuleReport::Failed {
            reason: format!("{error:#}"),
        },
    }
}

fn wait_for_nodes(count: u32) -> Result<()> {
    let end = Instant::now() + NODES_LIMIT;
    loop {
        let nodes = nodes()?;
        if nodes.len() >= count as usize {
            return Ok(());
        }
        if Instant::now() > end {
            bail!(
                "it made {} of {count} device nodes within {} s; the kernel's log says why",
                nodes.len(),
                NODES_LIMIT.as_secs()
            );
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// The driver's nodes, sorted.
pub(crate) fn nodes() -> Result<Vec<String>> {
    let mut nodes = Vec::new();
    for entry in fs::read_dir("/dev").context("cannot look for device nodes")? {
        let name = entry?.file_name();
        let is_node = name
            .to_str()
            .and_then(|name| name.strip_prefix("hmm"))
            .is_some_and(|number| {
                !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
            });
        if is_node {
            nodes.push(Path::new("/dev").join(name).to_string_lossy().into_owned());
        }
    }
    nodes.sort();
    Ok(nodes)
}
