// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Installs the packages in a system that has nothing but what Debian needs, runs what they bring, and removes them again.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use hmm_vm::debian::CleanRoot;
use hmm_vm::{Progress, SetupOptions};
use serde_json::Value;

use super::{NAME, VERSION};

/// How long the device may take to answer: one that does not is a failure, however slow the machine.
const LIMIT: Duration = Duration::from_secs(120);
/// How much memory the device is given.
const MEMORY: &str = "64M";
const MEMORY_BYTES: u64 = 64 << 20;

/// Checks `packages`, which are files in `folder`.
pub(super) fn run(
    folder: &Path,
    packages: &[String],
    options: &SetupOptions,
    progress: &Progress,
) -> Result<()> {
    let work = tempfile::tempdir().context("cannot make a folder")?;
    let root = CleanRoot::copy_to(&work.path().join("root"), options, progress)?;
    let names: Vec<&str> = (packages.iter())
        .filter_map(|file| file.split('_').next())
        .collect();
    let step = progress.step("install the packages in a clean system", None);
    install(&root, folder, packages, &names)?;
    programs(&root, folder)?;
    device(&root, &work.path().join("sockets"))?;
    step.finish("installed; the device answers");
    let source = root.folder().join(format!("usr/src/{NAME}-{VERSION}"));
    hmm_vm::driver_of(&source, options, progress).context("the installed source of the driver")?;
    purge(&root, folder, &names)
}

fn install(root: &CleanRoot, folder: &Path, packages: &[String], names: &[&str]) -> Result<()> {
    let files: Vec<String> = (packages.iter())
        .map(|package| format!("/mnt/{package}"))
        .collect();
    root.run(
        "install the packages",
        folder,
        &format!("dpkg --install {} 2>&1", files.join(" ")),
    )?;
    // Both say nothing where all is well.
    for question in ["--audit", "--verify"] {
        let script = format!("dpkg {question} {}", names.join(" "));
        let found = root.run("look at what was installed", folder, &script)?;
        ensure!(found.trim().is_empty(), "dpkg {question}: {found}");
    }
    let state = root.run("ask DKMS", folder, "dkms status")?;
    ensure!(
        state.contains(&format!("{NAME}/{VERSION}: added")),
        "DKMS does not have the driver's source: {state:?}"
    );
    root.run("ask DKMS for a module", folder, &headers_without_metadata())
        .map(drop)?;
    Ok(())
}

/// DKMS leaves out a kernel whose headers are as Debian's, and does not fail at it.
fn headers_without_metadata() -> String {
    let options = ["RUST", "DEVICE_PRIVATE", "HMM_MIRROR", "VIRTIO_PCI"]
        .map(|option| format!("CONFIG_{option}=y"))
        .join("\\n");
    format!(
        "mkdir -p /tmp/headers/include /lib/modules/0.0.1\n\
         printf '{options}\\n' > /tmp/headers/.config\n\
         code=0\n\
         dkms build {NAME}/{VERSION} -k 0.0.1 --kernelsourcedir /tmp/headers --config /tmp/headers/.config 2>&1 || code=$?\n\
         rmdir /lib/modules/0.0.1\n\
         test $code = 77"
    )
}

fn programs(root: &CleanRoot, folder: &Path) -> Result<()> {
    for program in ["vhost-user-hmm", "hmmctl"] {
        let version = root.run(program, folder, &format!("{program} --version"))?;
        ensure!(
            version.trim() == format!("{program} {VERSION}"),
            "{version}"
        );
        let script = format!(
            "bash -n /usr/share/bash-completion/completions/{program}\n\
             gzip --decompress --stdout /usr/share/man/man1/{program}.1.gz"
        );
        let page = root.run(program, folder, &script)?;
        ensure!(page.contains(".TH"), "the manual page of {program}: {page}");
    }
    // There is no driver here, and it says so.
    let said = root.run("hmmctl", folder, "hmmctl info 2>&1 && exit 1 || true")?;
    ensure!(
        said.contains("/dev/hmm0"),
        "hmmctl without a device: {said}"
    );
    Ok(())
}

/// Starts the device and asks it what it is.
fn device(root: &CleanRoot, sockets: &Path) -> Result<()> {
    fs::create_dir(sockets).context("cannot make a folder")?;
    let mut command = root.command(
        sockets,
        &[
            "vhost-user-hmm",
            "--socket-path",
            "/mnt/device",
            "--control-socket",
            "/mnt/control",
            "--memory",
            MEMORY,
        ],
    )?;
    let log = sockets.join("log");
    let mut process = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(&log).context("cannot make a file")?)
        .spawn()
        .context("cannot start the device")?;
    let answer = ask(&mut process, &sockets.join("control"));
    // It may have ended by itself.
    let _ = process.kill();
    process.wait().context("cannot wait for the device")?;
    let answer = answer.with_context(|| {
        let log = fs::read_to_string(&log).unwrap_or_default();
        format!("the device, which says {log:?}")
    })?;
    ensure!(
        answer["ok"] == true && answer["memory_bytes"] == MEMORY_BYTES,
        "the device answers {answer}"
    );
    Ok(())
}

fn ask(process: &mut Child, socket: &Path) -> Result<Value> {
    let end = Instant::now() + LIMIT;
    let mut stream = loop {
        if let Ok(stream) = UnixStream::connect(socket) {
            break stream;
        }
        if let Some(status) = process.try_wait().context("cannot look at the device")? {
            bail!("the device ended with {status}");
        }
        ensure!(Instant::now() < end, "the device does not listen");
        thread::sleep(Duration::from_millis(20));
    };
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(b"{\"command\":\"info\"}\n")?;
    let mut line = String::new();
    BufReader::new(stream)
        .read_line(&mut line)
        .context("the device does not answer")?;
    serde_json::from_str(&line).with_context(|| format!("the device answers {line:?}"))
}

/// Nothing of them is left.
fn purge(root: &CleanRoot, folder: &Path, names: &[&str]) -> Result<()> {
    let script = format!("dpkg --purge {} 2>&1", names.join(" "));
    root.run("remove the packages", folder, &script)?;
    let script = "find /usr /etc /var -name '*hmm*' -not -path '/var/log/*'";
    let left = root.run("look for what is left", folder, script)?;
    ensure!(left.trim().is_empty(), "left behind:\n{left}");
    Ok(())
}
