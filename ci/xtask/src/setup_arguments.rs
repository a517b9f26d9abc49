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
    /// The guest's kernel: `stock`, or the path of a kernel tree that you have built.
    #[arg(long, value_name = "stock|PATH", default_value = "stock")]
    kernel: KernelChoice,
}

impl SetupArguments {
    /// What the library is asked for.
    pub(crate) fn options(&self) -> SetupOptions {
        SetupOptions {
            offline: self.offline,
            mirror: self.mirror.clone(),
            pins: self.pins.clone(),
            kernel: self.kernel.clone(),
            ..SetupOptions::default()
        }
    }
}
