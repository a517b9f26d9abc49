// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a module says about itself.

use std::path::Path;

use crate::{Result, SetupError};

/// The values of one field of a module. The section that holds them is a row of `FIELD=VALUE`, each ended by a zero byte;
/// no other part of a module begins a text with these field names.
fn values<'a>(module: &'a [u8], field: &str) -> Vec<&'a str> {
    (module.split(|byte| *byte == 0))
        .filter_map(|text| {
            let value = std::str::from_utf8(text).ok()?.strip_prefix(field)?;
            value.strip_prefix('=')
        })
        .collect()
}

/// Checks that the module is for this kernel and claims a virtio device with this id.
pub(super) fn check(module: &Path, release: &str, virtio_id: u32) -> Result<()> {
    let contents = std::fs::read(module).map_err(SetupError::io("read", module))?;
    problem(&contents, release, virtio_id)
        .map_or(Ok(()), |reason| Err(SetupError::invalid(module, reason)))
}

fn problem(module: &[u8], release: &str, virtio_id: u32) -> Option<String> {
    let versions = values(module, "vermagic");
    if !(versions.iter()).any(|version| version.split(' ').next() == Some(release)) {
        return Some(format!(
            "expected a module for the kernel {release}, found the version {versions:?}"
        ));
    }
    let alias = format!("virtio:d{virtio_id:08X}v*");
    let aliases = values(module, "alias");
    if !aliases.contains(&alias.as_str()) {
        return Some(format!("expected the alias {alias}, found {aliases:?}"));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODULE: &[u8] = b"\x7fELF\0\0license=GPL\0alias=virtio:d00000025v*\0\
                            vermagic=7.3.4+deb13-amd64 SMP preempt mod_unload \0\xff\xfe\0";

    #[test]
    fn a_fitting_module_has_no_problem() {
        assert_eq!(problem(MODULE, "7.3.4+deb13-amd64", 37), None);
    }

    #[test]
    fn a_module_for_another_kernel_or_device_has_one() {
        let text = problem(MODULE, "7.3.4", 37).unwrap();
        assert!(text.contains("7.3.4+deb13-amd64"), "{text}");
        let text = problem(MODULE, "7.3.4+deb13-amd64", 38).unwrap();
        assert!(
            text.contains("d00000026") && text.contains("d00000025"),
            "{text}"
        );
        assert!(problem(b"", "7.3.4", 37).is_some());
    }
}
