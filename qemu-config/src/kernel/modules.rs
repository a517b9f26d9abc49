// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Modules that are built outside of the kernel's source.

use std::ffi::OsString;
use std::path::Path;

/// Which modules, and where to.
#[derive(Clone, Copy)]
pub(crate) struct Modules<'a> {
    /// What the sources may refer to.
    pub(crate) repository: &'a Path,
    /// Where the modules are in it.
    pub(crate) folder: &'a str,
    /// The only folder that is written to.
    pub(crate) output: &'a Path,
    /// Variables of `make`.
    pub(crate) variables: &'a [&'a str],
}

impl Modules<'_> {
    /// What `make` is told of them, when `repository` and `output` are the names of their folders where it runs.
    pub(super) fn arguments(self, repository: &Path, output: &Path) -> Vec<OsString> {
        let assign = |variable: &str, path: &Path| {
            let mut argument = OsString::from(variable);
            argument.push("=");
            argument.push(path);
            argument
        };
        let mut arguments = vec![
            assign("M", &repository.join(self.folder)),
            assign("MO", output),
        ];
        arguments.extend(self.variables.iter().map(OsString::from));
        arguments.push("modules".into());
        arguments
    }
}
