// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the private apt is told: where packages come from, which are preferred, how a mirror is reached.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::create;
use crate::host::{self, Mirror};
use crate::pins::Suites;
use crate::{Result, SetupError, process};

/// Writes the configuration into `root`, with the folders that it names, and returns its path.
pub(super) fn write_to(root: &Path, suites: &Suites, mirror: &Mirror) -> Result<PathBuf> {
    let missing_keyring = || SetupError::HostLacks {
        missing: vec!["the Debian archive keyring".to_owned()],
        command: "apt-get install debian-archive-keyring".to_owned(),
    };
    let keyring = host::debian_keyring().ok_or_else(missing_keyring)?;
    for folder in ["lists/partial", "state", "cache", "none/partial"] {
        create(&root.join(folder))?;
    }
    write(&root.join("state/status"), "")?;
    write(
        &root.join("sources.list"),
        &sources(suites, mirror, &keyring),
    )?;
    write(&root.join("preferences"), &preferences(suites))?;
    let config = root.join("apt.conf");
    write(&config, &configuration(root, &host_acquire_options()?))?;
    Ok(config)
}

fn sources(suites: &Suites, mirror: &Mirror, keyring: &Path) -> String {
    [&suites.base, &suites.backports]
        .map(|suite| {
            format!(
                "deb [arch=amd64 signed-by={}] {mirror} {suite} main\n",
                keyring.display()
            )
        })
        .concat()
}

fn preferences(suites: &Suites) -> String {
    let sources: Vec<String> = (suites.from_backports.iter())
        .map(|source| format!("src:{source}"))
        .collect();
    format!(
        "Package: {}\nPin: release n={}\nPin-Priority: 990\n",
        sources.join(" "),
        suites.backports
    )
}

/// The machine's own settings of how to reach a mirror: proxies, time-outs, retries, checks of dates.
fn host_acquire_options() -> Result<Vec<String>> {
    let mut command = Command::new("apt-config");
    command.args(["dump", "Acquire"]).env("LC_ALL", "C");
    let dump = process::output("read the machine's apt configuration", &mut command)?;
    Ok(reach_options(&dump))
}

/// What is not about reaching a mirror stays behind, above all what would weaken the check of signatures.
fn reach_options(dump: &str) -> Vec<String> {
    const TAKEN: &[&str] = &[
        "Acquire::http::",
        "Acquire::https::",
        "Acquire::ftp::",
        "Acquire::socks::",
        "Acquire::tor::",
        "Acquire::Check-Date",
        "Acquire::Check-Valid-Until",
        "Acquire::ForceIPv4",
        "Acquire::ForceIPv6",
        "Acquire::Max-ValidTime",
        "Acquire::Retries",
    ];
    (dump.lines())
        .filter(|line| TAKEN.iter().any(|name| line.starts_with(name)))
        .map(str::to_owned)
        .collect()
}

/// apt reads the file that `APT_CONFIG` names first, so that the machine's own files are not read at all.
fn configuration(root: &Path, reach: &[String]) -> String {
    let root = root.display();
    let mut text = format!(
        r#"APT::Architecture "amd64";
APT::Architectures {{ "amd64"; }};
APT::Install-Recommends "false";
APT::Install-Suggests "false";
APT::Sandbox::User "";
Acquire::GzipIndexes "true";
Acquire::Languages "none";
Acquire::PDiffs "false";
Debug::NoLocking "true";
Dir::State "{root}/state";
Dir::State::lists "{root}/lists";
Dir::State::status "{root}/state/status";
Dir::Cache "{root}/cache";
Dir::Cache::srcpkgcache "";
Dir::Etc::main "/dev/null";
Dir::Etc::parts "/dev/null";
Dir::Etc::sourcelist "{root}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "{root}/preferences";
Dir::Etc::preferencesparts "/dev/null";
Dir::Etc::trusted "/dev/null";
Dir::Etc::trustedparts "/dev/null";
"#
    );
    for option in reach {
        text.push_str(option);
        text.push('\n');
    }
    text
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(SetupError::io("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_machines_settings_only_how_to_reach_a_mirror_is_taken() {
        let dump = "Acquire \"\";\nAcquire::http::Proxy \"http://proxy.example:3128\";\n\
                    Acquire::AllowInsecureRepositories \"1\";\nAcquire::Retries \"9\";\n\
                    Acquire::IndexTargets::deb::DEP-11 \"\";\n";
        assert_eq!(
            reach_options(dump),
            [
                "Acquire::http::Proxy \"http://proxy.example:3128\";",
                "Acquire::Retries \"9\";"
            ]
        );
    }

    #[test]
    fn both_suites_are_signed_and_only_the_named_sources_come_from_backports() {
        let suites = Suites {
            base: "trixie".to_owned(),
            backports: "trixie-backports".to_owned(),
            from_backports: vec!["linux".to_owned(), "qemu".to_owned()],
        };
        let mirror = Mirror::choose(Some("http://mirror.example/debian/")).unwrap();
        assert_eq!(
            sources(&suites, &mirror, Path::new("/keys.gpg")),
            "deb [arch=amd64 signed-by=/keys.gpg] http://mirror.example/debian trixie main\n\
             deb [arch=amd64 signed-by=/keys.gpg] http://mirror.example/debian trixie-backports main\n"
        );
        assert_eq!(
            preferences(&suites),
            "Package: src:linux src:qemu\nPin: release n=trixie-backports\nPin-Priority: 990\n"
        );
    }
}
