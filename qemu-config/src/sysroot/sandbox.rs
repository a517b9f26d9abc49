// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A command in an unpacked system, by bubblewrap.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use crate::host::find_program;
use crate::{Result, SetupError};

/// A command that will run inside.
pub(crate) struct Sandbox {
    command: Command,
}

impl Sandbox {
    /// Begins a command below `root` as the caller: nothing of the host but what is bound, `folders` of the root, which
    /// cannot be written to, and an environment that does not depend on the user.
    pub(crate) fn below(root: &Path, folders: &[&str]) -> Result<Self> {
        let mut command = bubblewrap()?;
        for folder in folders {
            let inside = Path::new("/").join(folder);
            command.arg("--ro-bind").arg(root.join(folder)).arg(inside);
        }
        for folder in ["bin", "lib", "lib64", "sbin"] {
            command.args(["--symlink", &format!("usr/{folder}"), &format!("/{folder}")]);
        }
        for (name, value) in [
            ("HOME", "/tmp"),
            ("LC_ALL", "C.UTF-8"),
            ("KBUILD_BUILD_USER", "virtio-hmm"),
            ("KBUILD_BUILD_HOST", "build-root"),
            ("KBUILD_BUILD_TIMESTAMP", "1970-01-01 00:00:00 UTC"),
        ] {
            command.env(name, value);
        }
        Ok(Self { command }.apart())
    }

    /// Begins a command that takes itself for root in `root`, which it can write to, without a network. The user and the
    /// group that it has are the only ones there are.
    pub(crate) fn as_root(root: &Path) -> Result<Self> {
        let mut command = bubblewrap()?;
        command.args(["--unshare-user", "--uid", "0", "--gid", "0", "--bind"]);
        command.arg(root).arg("/").arg("--unshare-net");
        for (name, value) in [
            ("HOME", "/root"),
            ("LC_ALL", "C.UTF-8"),
            ("DEBIAN_FRONTEND", "noninteractive"),
        ] {
            command.env(name, value);
        }
        Ok(Self { command }.apart())
    }

    fn apart(mut self) -> Self {
        self.command
            .env("PATH", "/usr/sbin:/usr/bin")
            .args(["--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp"])
            .args([
                "--die-with-parent",
                "--unshare-pid",
                "--unshare-ipc",
                "--unshare-uts",
                "--chdir",
                "/",
            ]);
        self
    }

    /// Shows a host folder or file inside; nothing can be written to it.
    pub(crate) fn read(mut self, host: &Path, inside: impl AsRef<OsStr>) -> Self {
        self.command.arg("--ro-bind").arg(host).arg(inside);
        self
    }

    /// Shows a host folder inside; it can be written to.
    pub(crate) fn write(mut self, host: &Path, inside: impl AsRef<OsStr>) -> Self {
        self.command.arg("--bind").arg(host).arg(inside);
        self
    }

    /// Sets a variable of the environment.
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// The program and its arguments.
    pub(crate) fn program<A: AsRef<OsStr>>(
        mut self,
        program: &str,
        arguments: impl IntoIterator<Item = A>,
    ) -> Self {
        self.command.arg("--").arg(program).args(arguments);
        self
    }

    /// The whole command.
    pub(crate) fn into_command(self) -> Command {
        self.command
    }
}

/// Bubblewrap, with no environment.
fn bubblewrap() -> Result<Command> {
    let program = find_program("bwrap").ok_or_else(|| SetupError::HostLacks {
        missing: vec!["bwrap (enters the build root)".to_owned()],
        command: "sudo apt-get install bubblewrap".to_owned(),
    })?;
    let mut command = Command::new(program);
    command.env_clear();
    Ok(command)
}
