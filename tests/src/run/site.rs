// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The guest that the tests share.

use anyhow::{Context, Result, ensure};
use hmm_vm::Artifacts;
use hmm_vm::guest::{
    BootSpec, Collected, Command, CommandEnd, ExitStatus, Guest, Input, Interrupts, PROGRAMS, Root,
    Streams,
};
use hmm_vm::initramfs::Packer;
use std::ffi::OsStr;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// How long a command may take that does next to nothing.
const LIMIT: Duration = Duration::from_secs(120);
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Folders of the image whose places in the guest have mounts.
pub(super) const IMAGE_FOLDERS: [&str; 2] = ["/tmp/hmm-test/cwd", "/dev/shm/hmm-test/cwd"];
/// A file in each of them, with its text.
pub(super) const IMAGE_FILE: (&str, &str) = ("file", "from the image\n");

/// A guest that sees the host's files.
pub(super) struct Site {
    guest: Guest,
    pub(super) interrupts: Interrupts,
    /// A socket of QEMU's monitor beside the one that the harness has.
    pub(super) monitor: PathBuf,
    _folder: TempDir,
}

impl Site {
    pub(super) fn boot(artifacts: &Artifacts, mut spec: BootSpec) -> Result<Self> {
        // The path of a socket may have 107 bytes only.
        let folder = tempfile::tempdir_in("/tmp").context("cannot make a folder")?;
        let monitor = folder.path().join("qmp");
        spec.machine.options.extend([
            "-qmp".to_owned(),
            format!("unix:{},server=on,wait=off", monitor.display()),
        ]);
        spec.share_host_root = true;
        let mut packer = Packer::of_this_system(OsStr::new(PATH));
        packer.program(OsStr::new("cat"), Path::new("/"))?;
        spec.image = packer.finish()?;
        for folder in IMAGE_FOLDERS {
            let (name, text) = IMAGE_FILE;
            spec.image
                .bytes(Path::new(folder).join(name), text, 0o644)?;
        }
        let interrupts = spec.interrupts.clone();
        Ok(Self {
            guest: Guest::boot(artifacts, &spec)?,
            interrupts,
            monitor,
            _folder: folder,
        })
    }

    /// Powers the guest off and returns the kernel's log.
    pub(super) fn power_off(self) -> Result<String> {
        Ok(self.guest.power_off()?.serial_log()?)
    }

    /// Runs a command to its end.
    pub(super) fn run(&mut self, command: &Command) -> Result<Ended> {
        let output = self.guest.output(command)?;
        Ok(Ended {
            end: output.end,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Runs a command, and does something when it has written a line.
    pub(super) fn run_with(
        &mut self,
        command: &Command,
        at_first_line: impl FnOnce() -> Result<()> + Send + 'static,
    ) -> Result<Ended> {
        let (stdout, stderr) = (Collected::default(), Collected::default());
        let end = self.guest.exec(
            command,
            Streams {
                stdin: Input::Empty,
                stdout: Box::new(Trigger {
                    sink: stdout.clone(),
                    action: Some(Box::new(at_first_line)),
                }),
                stderr: Box::new(stderr.clone()),
            },
        )?;
        Ok(Ended {
            end,
            stdout: stdout.text(),
            stderr: stderr.text(),
        })
    }
}

/// Keeps what is written, and does something at the first newline.
struct Trigger {
    sink: Collected,
    action: Option<Box<dyn FnOnce() -> Result<()> + Send>>,
}

impl Write for Trigger {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.sink.write(bytes)?;
        if self.sink.text().contains('\n')
            && let Some(action) = self.action.take()
        {
            action().map_err(|error| io::Error::other(format!("{error:#}")))?;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a command did.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) end: CommandEnd,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

impl Ended {
    /// Checks how it ended and what it wrote to standard output.
    pub(super) fn expect(self, status: ExitStatus, stdout: &str) -> Result<()> {
        ensure!(
            self.end == CommandEnd::Ended(status) && self.stdout == stdout,
            "expected {status:?} and {stdout:?}, found {self:?}"
        );
        Ok(())
    }

    /// Checks that it did well, and what it wrote to standard output.
    pub(super) fn expect_output(self, stdout: &str) -> Result<()> {
        self.expect(ExitStatus::Code(0), stdout)
    }
}

/// A command that sees the host's files.
pub(super) fn host_command(argv: &[&str]) -> Command {
    let path = format!("{PROGRAMS}:{PATH}");
    Command {
        env: vec![("PATH".into(), path.into())],
        root: Root::Host,
        limit: Some(LIMIT),
        ..Command::new(argv.iter().copied())
    }
}

/// A script for the host's shell.
pub(super) fn script(text: &str) -> Command {
    host_command(&["sh", "-c", text])
}

/// A command that sees the guest's image only.
pub(super) fn image_command(argv: &[&str]) -> Command {
    Command {
        limit: Some(LIMIT),
        ..Command::new(argv.iter().copied())
    }
}
