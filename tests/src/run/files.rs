// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a command sees of the host's files, and what it may do to them.

use super::site::{IMAGE_FILE, IMAGE_FOLDERS, Site, host_command, image_command, script};
use super::{Outcome, RunTest};
use anyhow::{Context, Result, ensure};
use hmm_vm::guest::{Command, CommandEnd, ExecError, WindowSize};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

pub(super) const TESTS: &[RunTest] = &[
    RunTest::new("run/cwd-in-dev-shm", cwd_in_dev_shm),
    RunTest::new("run/cwd-in-run", cwd_in_run),
    RunTest::new("run/cwd-is-run", cwd_is_run),
    RunTest::new("run/cwd-refused", cwd_refused),
    RunTest::new("run/cwd-of-the-image", cwd_of_the_image),
    RunTest::new("run/streams-of-another-user", streams_of_another_user),
    RunTest::new("run/rename-host-folder", rename_host_folder),
    RunTest::new("run/hard-links-of-the-host", hard_links_of_the_host),
];

fn cwd_in_dev_shm(site: &mut Site) -> Result<Outcome> {
    let folder = tempfile::tempdir_in("/dev/shm").context("cannot make a folder in /dev/shm")?;
    works_in(site, folder.path(), folder.path())?;
    works_in(site, Path::new("/dev/shm"), folder.path())?;
    Ok(Outcome::Passed)
}

fn cwd_in_run(site: &mut Site) -> Result<Outcome> {
    let runtime = std::env::var("XDG_RUNTIME_DIR").unwrap_or_default();
    let folder = ["/run", "/run/lock", &runtime]
        .into_iter()
        .filter(|place| place.starts_with("/run"))
        .find_map(|place| TempDir::new_in(place).ok());
    let Some(folder) = folder else {
        return Ok(Outcome::Skipped("this user cannot write below /run"));
    };
    works_in(site, folder.path(), folder.path())?;
    Ok(Outcome::Passed)
}

/// Reads a file of the host's folder and writes another one, which the host does not get.
fn works_in(site: &mut Site, cwd: &Path, folder: &Path) -> Result<()> {
    fs::write(folder.join("theirs"), "from the host\n")?;
    let place = folder.strip_prefix(cwd).unwrap_or(folder).join(".");
    let command = Command {
        cwd: cwd.to_owned(),
        ..script(&format!(
            "pwd && cd {} && read -r text < theirs && echo $text && echo kept > ours && read -r text < ours && echo $text",
            place.display()
        ))
    };
    let expected = format!("{}\nfrom the host\nkept\n", cwd.display());
    site.run(&command)?.expect_output(&expected)?;
    ensure!(
        !folder.join("ours").exists(),
        "the command wrote to the host"
    );
    Ok(())
}

/// The guest's own programs are below it.
fn cwd_is_run(site: &mut Site) -> Result<Outcome> {
    let command = Command {
        cwd: "/run".into(),
        ..script("hmmctl info > /dev/null && cd hmm/bin && echo *")
    };
    site.run(&command)?.expect_output("hmmctl\n")?;
    Ok(Outcome::Passed)
}

fn cwd_refused(site: &mut Site) -> Result<Outcome> {
    // Process ids end before this.
    for cwd in ["/proc/5000000", "/sys/hmm-test", "/dev/hmm-test"] {
        let command = Command {
            cwd: cwd.into(),
            ..host_command(&["true"])
        };
        let ended = site.run(&command)?;
        let CommandEnd::NotStarted { error, message } = &ended.end else {
            anyhow::bail!("{cwd}: {ended:?}");
        };
        ensure!(
            *error == ExecError::Other
                && message.contains(cwd)
                && message.contains("run the command from another directory"),
            "{message}"
        );
    }
    Ok(Outcome::Passed)
}

fn cwd_of_the_image(site: &mut Site) -> Result<Outcome> {
    for cwd in IMAGE_FOLDERS {
        let command = Command {
            cwd: cwd.into(),
            ..image_command(&["cat", IMAGE_FILE.0])
        };
        site.run(&command)?.expect_output(IMAGE_FILE.1)?;
    }
    Ok(Outcome::Passed)
}

fn streams_of_another_user(site: &mut Site) -> Result<Outcome> {
    const SCRIPT: &str =
        "read -r end < /dev/stdin; test -w /etc || echo out > /dev/stdout; echo err > /dev/stderr";
    let command = host_command(&[
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "sh",
        "-c",
        SCRIPT,
    ]);
    let ended = site.run(&command)?;
    ensure!(ended.stderr == "err\n", "{ended:?}");
    ended.expect_output("out\n")?;
    let on_terminal = Command {
        terminal: Some(WindowSize {
            rows: 24,
            columns: 80,
        }),
        ..command
    };
    site.run(&on_terminal)?.expect_output("out\r\nerr\r\n")?;
    Ok(Outcome::Passed)
}

fn rename_host_folder(site: &mut Site) -> Result<Outcome> {
    let folder = tempfile::tempdir().context("cannot make a folder")?;
    fs::create_dir_all(folder.path().join("old/inner"))?;
    fs::write(folder.path().join("old/inner/file"), "from the host\n")?;
    let command = Command {
        cwd: folder.path().to_owned(),
        ..host_command(&["perl", "-e", RENAME])
    };
    site.run(&command)?
        .expect_output("moved new\nfrom the host\nmore\n")?;
    ensure!(
        folder.path().join("old/inner/file").exists(),
        "the command changed the host"
    );
    Ok(Outcome::Passed)
}

/// mv would copy the folder.
const RENAME: &str = r#"
rename("old", "new") or die "$!\n";
rename("new/inner", "moved") or die "$!\n";
print join(" ", sort glob("*")), "\n";
open(my $file, "+>>", "moved/file") or die "$!\n";
print $file "more\n";
seek($file, 0, 0);
print <$file>;
"#;

fn hard_links_of_the_host(site: &mut Site) -> Result<Outcome> {
    let folder = tempfile::tempdir().context("cannot make a folder")?;
    fs::write(folder.path().join("one"), "from the host\n")?;
    fs::hard_link(folder.path().join("one"), folder.path().join("two"))?;
    let command = Command {
        cwd: folder.path().to_owned(),
        ..script("echo more >> one && cat two && test one -ef two && stat -c %h two")
    };
    let text = "from the host\nmore\n";
    site.run(&command)?.expect_output(&format!("{text}2\n"))?;
    // The same when the kernel has dropped from its caches what it knew.
    let command = Command {
        cwd: folder.path().to_owned(),
        ..script("echo 3 > /proc/sys/vm/drop_caches && echo last >> two && cat one two")
    };
    let text = format!("{text}last\n");
    site.run(&command)?
        .expect_output(&format!("{text}{text}"))?;
    Ok(Outcome::Passed)
}
