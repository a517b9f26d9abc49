// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The guest's image: its init, `hmmctl`, the driver, the plan, and what the specification adds.

use std::path::Path;

use hmm_control::plan::{self, Driver, Plan};

use super::layout::SHARE_TAG;
use super::spec::BootSpec;
use super::{Result, environment};
use crate::Artifacts;
use crate::initramfs::{Tree, TreeError};

/// Puts the image together.
pub(super) fn tree(artifacts: &Artifacts, spec: &BootSpec) -> Result<Tree> {
    build(artifacts, spec)
        .map_err(|error| environment(format!("the guest's image cannot be made: {error}")))
}

fn build(artifacts: &Artifacts, spec: &BootSpec) -> std::result::Result<Tree, TreeError> {
    let mut tree = Tree::default();
    // The kernel opens it for init before anything is mounted.
    tree.character_device("/dev/console", 5, 1)?;
    tree.host_file("/init", &artifacts.agent)?;
    tree.host_file(Path::new(plan::PROGRAMS).join("hmmctl"), &artifacts.hmmctl)?;
    if let Some(program) = &artifacts.device_program {
        tree.host_file(plan::DEVICE_PROGRAM, program)?;
    }
    let module = "/hmm/virtio_hmm.ko";
    let driver = spec.load_driver.then(|| Driver {
        path: module.to_owned(),
        parameters: spec.driver_parameters.clone(),
        // Linux names no more devices than this type can count.
        devices: spec
            .device_nodes
            .unwrap_or_else(|| u32::try_from(spec.devices.len()).unwrap_or(u32::MAX)),
    });
    if driver.is_some() {
        tree.host_file(module, &artifacts.environment.module)?;
    }
    let mut helper_modules = Vec::new();
    let modules = (artifacts.environment.helper_modules.iter()).chain(&spec.modules);
    for (number, module) in modules.enumerate() {
        let path = format!("/hmm/helper{number}.ko");
        tree.host_file(&path, module)?;
        helper_modules.push(path);
    }
    let plan = Plan {
        version: hmm_control::VERSION,
        helper_modules,
        driver,
        host_root: spec.share_host_root.then(|| SHARE_TAG.to_owned()),
    };
    let plan = serde_json::to_vec(&plan)
        .map_err(|error| TreeError::io(Path::new(plan::PATH))(error.into()))?;
    tree.bytes(plan::PATH, plan, 0o644)?;
    tree.extend(&spec.image)?;
    Ok(tree)
}
