// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `cargo xtask package`: Debian packages of the device, of `hmmctl`, of the driver's source for DKMS and of the C header.
//!
//! [`source`] puts a source package together, with the programs compiled. It is made into packages in a Debian system that is
//! apart from the host's, and [`check`] installs them in another one.

mod check;
mod source;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, ensure};
use hmm_vm::debian::PackagingRoot;
use hmm_vm::{Progress, SetupError};

use crate::build;
use crate::setup_arguments::SetupArguments;

/// Arguments of `package`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    setup: SetupArguments,
    /// Where the packages go; `packages` in the target folder if not given.
    #[arg(value_name = "FOLDER")]
    folder: Option<PathBuf>,
    /// Install the packages in a clean Debian system, run what they bring, build the driver from its source, and remove them again.
    #[arg(long)]
    check: bool,
}

/// The name of the source, and of its folder before the version.
const NAME: &str = "virtio-hmm";
/// The version of all packages.
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// `fail-on` is what makes lintian's exit code depend on what it found.
const LINTIAN: &str =
    "lintian --allow-root --display-info --fail-on error,warning virtio-hmm_*.changes";

/// Makes the packages, and names them.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let progress = Progress::new();
    let options = arguments.setup.options();
    let folder = match &arguments.folder {
        Some(folder) => folder.clone(),
        None => build::target_folder()?.join("packages"),
    };
    let programs = build::packaged_programs(&progress)?;
    let root = PackagingRoot::get(&options, &progress)?;

    let work = tempfile::tempdir().context("cannot make a folder")?;
    source::write(&work.path().join(format!("{NAME}-{VERSION}")), &programs)?;
    let outcome = try_packages(&root, work.path(), &folder, &progress).and_then(|packages| {
        if arguments.check {
            check::run(&folder, &packages, &options, &progress)?;
        }
        Ok(packages)
    });
    match outcome {
        Ok(packages) => {
            for package in packages {
                println!("{}", folder.join(package).display());
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(error) if is_lack(&error) => Err(error),
        Err(error) => {
            eprintln!("error: {error:#}");
            Ok(ExitCode::from(crate::FAILURE))
        }
    }
}

/// Whether this machine is at fault, and not the packages.
fn is_lack(error: &anyhow::Error) -> bool {
    (error.downcast_ref::<SetupError>()).is_some_and(|error| {
        !matches!(error, SetupError::Failed { .. } | SetupError::Driver { .. })
    })
}

/// Makes the packages in `work`, checks them, and moves them to `folder`.
fn try_packages(
    root: &PackagingRoot,
    work: &Path,
    folder: &Path,
    progress: &Progress,
) -> anyhow::Result<Vec<String>> {
    let found = make(root, work, progress)?;
    if !found.trim().is_empty() {
        progress.line(found.trim_end());
    }
    check_domain(root)?;
    take(work, folder)
}

/// Makes them in `work`. Returns what lintian found that is no fault.
fn make(root: &PackagingRoot, work: &Path, progress: &Progress) -> Result<String, SetupError> {
    let script = format!(
        "cd {NAME}-{VERSION} && DEB_BUILD_OPTIONS=noautodbgsym \
         dpkg-buildpackage --build=binary --no-sign --no-check-builddeps"
    );
    let step = progress.step("make the packages", None);
    root.run("make the packages", work, &script, |line| step.detail(line))?;
    step.finish("made");
    let step = progress.step("check the packages with lintian", None);
    let found = root.run("lintian", work, LINTIAN, |_| {})?;
    step.finish("no error, no warning");
    Ok(found)
}

/// The domain that the device's package has as an example, against libvirt's schema.
fn check_domain(root: &PackagingRoot) -> Result<(), SetupError> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../device/packaging");
    let script =
        "xmllint --noout --relaxng /usr/share/libvirt/schemas/domain.rng libvirt-domain.xml";
    root.run("check the libvirt domain", &folder, script, |_| {})?;
    Ok(())
}

/// Moves the packages to where they are wanted, and returns their names.
fn take(work: &Path, folder: &Path) -> anyhow::Result<Vec<String>> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut packages = Vec::new();
    for entry in std::fs::read_dir(work).context("cannot list the packages")? {
        let path = entry.context("cannot list the packages")?.path();
        if path.extension().is_none_or(|ending| ending != "deb") {
            continue;
        }
        let name = path.file_name().context("a package has no name")?;
        std::fs::copy(&path, folder.join(name))
            .with_context(|| format!("cannot write to {}", folder.display()))?;
        packages.push(name.to_string_lossy().into_owned());
    }
    ensure!(!packages.is_empty(), "no package was made");
    packages.sort();
    Ok(packages)
}
