// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a mirror has when it does not have what the pins ask for.

use std::path::Path;

use super::apt::{Request, command};
use crate::host::Mirror;
use crate::{SetupError, process};

/// The error that names the first request that the mirror cannot fulfil; `None` when it could fulfil all of them, so
/// that something else went wrong.
pub(super) fn explain_missing(
    config: &Path,
    mirror: &Mirror,
    requests: &[Request],
) -> Option<SetupError> {
    requests.iter().find_map(|request| {
        let versions = versions(config, &request.package)?;
        if versions.iter().any(|version| fits(request, version)) {
            return None;
        }
        let available = if versions.is_empty() {
            relatives(config, &request.package)
        } else {
            versions
        };
        Some(SetupError::MissingPin {
            mirror: mirror.to_string(),
            package: request.package.clone(),
            wanted: request.version.clone().unwrap_or_default(),
            available,
        })
    })
}

fn fits(request: &Request, version: &str) -> bool {
    match &request.version {
        None => true,
        Some(wanted) => match wanted.strip_suffix('*') {
            Some(prefix) => version.starts_with(prefix),
            None => version == wanted,
        },
    }
}

/// The versions of a package, newest first, each once.
fn versions(config: &Path, package: &str) -> Option<Vec<String>> {
    let mut command = command(config, "apt-cache");
    command.args(["madison", package]);
    let text = process::output("list the versions of a package", &mut command).ok()?;
    let mut versions: Vec<String> = (text.lines())
        .filter_map(|line| Some(line.split('|').nth(1)?.trim().to_owned()))
        .collect();
    versions.dedup();
    Some(versions)
}

/// A kernel's version is part of its packages' names, so that another version is another package.
fn relatives(config: &Path, package: &str) -> Vec<String> {
    let Some(family) = Family::of(package) else {
        return Vec::new();
    };
    let mut command = command(config, "apt-cache");
    command.args(["pkgnames", family.prefix]);
    let Ok(text) = process::output("list the packages of a family", &mut command) else {
        return Vec::new();
    };
    newest(&family, &text)
        .into_iter()
        .map(|name| {
            let version = versions(config, name).and_then(|versions| versions.into_iter().next());
            format!("{name} {}", version.unwrap_or_default())
        })
        .collect()
}

/// The newest few members of a family, in the order of their numbers.
fn newest<'a>(family: &Family<'_>, names: &'a str) -> Vec<&'a str> {
    const SHOWN: usize = 5;
    let mut names: Vec<&str> = (names.lines()).filter(|name| family.has(name)).collect();
    names.sort_by_key(|name| {
        let numbers = name[family.prefix.len()..name.len() - family.suffix.len()].split('.');
        numbers
            .map(|number| number.parse::<u32>().unwrap_or(u32::MAX))
            .collect::<Vec<_>>()
    });
    names.split_off(names.len().saturating_sub(SHOWN))
}

/// Packages that differ in the number in the middle of their names.
struct Family<'a> {
    prefix: &'a str,
    suffix: &'a str,
}

impl<'a> Family<'a> {
    fn of(package: &'a str) -> Option<Self> {
        let digit = package.find(|letter: char| letter.is_ascii_digit())?;
        let suffix = package.find('+').unwrap_or(package.len());
        Some(Self {
            prefix: &package[..digit],
            suffix: &package[suffix..],
        })
    }

    fn has(&self, name: &str) -> bool {
        (name.strip_prefix(self.prefix))
            .and_then(|rest| rest.strip_suffix(self.suffix))
            .is_some_and(|middle| {
                !middle.is_empty()
                    && (middle.bytes()).all(|byte| byte.is_ascii_digit() || byte == b'.')
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_fits_what_it_begins() {
        let request = Request::pinned("rustc", "1.85.1+*");
        assert!(fits(&request, "1.85.1+dfsg1-1+deb13u1"));
        assert!(!fits(&request, "1.85.10+dfsg1-1"));
        assert!(!fits(&Request::pinned("rustc", "1.85.1"), "1.85.1+dfsg1-1"));
        assert!(fits(&Request::any("rustc"), "2"));
    }

    #[test]
    fn the_relatives_of_a_kernel_are_the_same_flavour() {
        let family = Family::of("linux-binary-7.3.4+deb13-amd64").unwrap();
        assert!(family.has("linux-binary-7.2.12+deb13-amd64"));
        for other in [
            "linux-binary-7.2.12+deb13-rt-amd64",
            "linux-binary-unsigned-7.2.12+deb13-amd64",
            "linux-binary-+deb13-amd64",
            "linux-base-7.2.12+deb13-amd64",
        ] {
            assert!(!family.has(other), "{other}");
        }
        let names: String = [
            "7.2.9", "7.10.1", "7.2.12", "6.19.8", "7.3.4", "7.0.1", "6.1.1",
        ]
        .map(|number| format!("linux-binary-{number}+deb13-amd64\n"))
        .concat();
        let newest = newest(&family, &names);
        assert_eq!(newest.len(), 5);
        assert_eq!(newest[0], "linux-binary-7.0.1+deb13-amd64");
        assert_eq!(newest[4], "linux-binary-7.10.1+deb13-amd64");
        let source = Family::of("linux-source-7.3").unwrap();
        assert!(source.has("linux-source-7.2"));
    }
}
