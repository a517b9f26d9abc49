// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The options that every command shares which sets the machine up first.

use std::path::PathBuf;

use hmm_vm::{KernelChoice, SetupOptions};

/// Options of the set-up.
#[derive(clap::Args)]
pub(crate) struct SetupArguments {
    /// Use what the cache has and no network.
    #[arg(long)]
    offline: bool,
    /// Debian mirror to download from, instead of the one in this machine's apt configuration.
    #[arg(long, value_name = "URL", env = "HMM_MIRROR")]
    mirror: Option<String>,
    /// Versions to use instead of those in qemu-config/pins.toml.
    #[arg(long, value_name = "FILE", env = "HMM_PINS")]
    pins: Option<PathBuf>,
    /// The guest's kernel: `stock`, `debug` (finds bugs; it is built once, which takes long), `fixed` (the same with the
    /// patches of qemu-config/kernel/fixes), or the path of a kernel tree that you have built. Without it `test`, `suite` and `check` take stock and debug, and all others stock.
    #[arg(long, value_name = "stock|debug|fixed|PATH")]
    kernel: Option<KernelChoice>,
}

impl SetupArguments {
    /// The kernel, if one is named.
    pub(crate) fn kernel(&self) -> Option<&KernelChoice> {
        self.kernel.as_ref()
    }

    /// What the library is asked for where there is one kernel.
    pub(crate) fn options(&self) -> SetupOptions {
        self.options_for(self.kernel.clone().unwrap_or_default())
    }

    /// The kernels of a command that looks at all of them.
    pub(crate) fn kernels(&self) -> Vec<KernelChoice> {
        match &self.kernel {
            Some(kernel) => vec![kernel.clone()],
            None => vec![KernelChoice::Stock, KernelChoice::Debug],
        }
    }

    /// What the library is asked for with this kernel.
    pub(crate) fn options_for(&self, kernel: KernelChoice) -> SetupOptions {
        SetupOptions {
            offline: self.offline,
            mirror: self.mirror.clone(),
            pins: self.pins.clone(),
            kernel,
            ..SetupOptions::default()
        }
    }
}
