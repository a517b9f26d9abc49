// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which Debian mirror to download from.

use std::fmt;
use std::process::Command;

use super::find_program;
use crate::{Result, SetupError, process};

/// The address of a Debian mirror.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mirror(String);

impl Mirror {
    /// The one that the user named, or the one that this machine's own apt uses.
    pub(crate) fn choose(named: Option<&str>) -> Result<Self> {
        if let Some(named) = named {
            return Self::parse(named).ok_or_else(|| SetupError::NoMirror {
                reason: format!("and {named:?} is not an address such as scheme://host/debian"),
            });
        }
        let no_mirror = |reason: &str| SetupError::NoMirror {
            reason: reason.to_owned(),
        };
        let apt = find_program("apt-get").ok_or_else(|| no_mirror("there is no apt-get"))?;
        let targets = |arguments: &[&str]| {
            let mut command = Command::new(&apt);
            command
                .arg("indextargets")
                .args(arguments)
                .arg("Created-By: Packages");
            process::output("ask apt for its mirrors", &mut command)
        };
        let known = targets(&["--format", "$(REPO_URI) $(ORIGIN) $(LABEL)"])?;
        if let Some(mirror) = from_described_targets(&known) {
            return Ok(mirror);
        }
        // A machine that has no package lists yet knows addresses only.
        let configured = targets(&["--no-release-info", "--format", "$(REPO_URI)"])?;
        from_bare_targets(&configured)
            .ok_or_else(|| no_mirror("no entry of it is Debian's archive"))
    }

    fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once(":/")?;
        let valid = !scheme.is_empty()
            && scheme
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
            && rest.len() > 1
            && (text.chars()).all(|letter| letter.is_ascii_graphic() && !"\"#".contains(letter));
        valid.then(|| Self(text.trim_end_matches('/').to_owned()))
    }
}

impl fmt::Display for Mirror {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// The first address whose release file says that it is Debian's main archive. Its security archive has the same origin
/// and another label.
fn from_described_targets(targets: &str) -> Option<Mirror> {
    targets.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let (address, origin, label) = (words.next()?, words.next()?, words.next()?);
        (origin == "Debian" && label == "Debian" && words.next().is_none())
            .then(|| Mirror::parse(address))
            .flatten()
    })
}

/// The first address whose path ends in `debian`. Whether it really is Debian's archive shows when the signature of what
/// it serves is checked.
fn from_bare_targets(targets: &str) -> Option<Mirror> {
    (targets.lines())
        .map(str::trim)
        .filter(|address| address.trim_end_matches('/').ends_with("/debian"))
        .find_map(Mirror::parse)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_main_archive_is_told_from_the_others() {
        let targets = "https://packages.example/node nodistro . nodistro\n\
                       http://security.example/debian-security/ Debian Debian-Security\n\
                       http://mirror.example/debian-backports/ Debian Backports Debian\n\
                       http://mirror.example/debian/ Debian Debian\n\
                       http://other.example/debian/ Debian Debian\n";
        let mirror = from_described_targets(targets).unwrap();
        assert_eq!(mirror.to_string(), "http://mirror.example/debian");
    }

    #[test]
    fn targets_without_a_description_name_no_mirror() {
        assert_eq!(from_described_targets(""), None);
        assert_eq!(
            from_described_targets("http://mirror.example/debian/ $(ORIGIN)\n\n"),
            None
        );
        assert_eq!(
            from_described_targets("http://mirror.example/ubuntu/ Ubuntu Ubuntu\n"),
            None
        );
    }

    #[test]
    fn without_lists_the_path_decides() {
        let targets = "https://packages.example/node\nhttp://mirror.example/debian-security/\n\
                       http://mirror.example/debian/\n";
        let mirror = from_bare_targets(targets).unwrap();
        assert_eq!(mirror.to_string(), "http://mirror.example/debian");
        assert_eq!(from_bare_targets("http://mirror.example/ubuntu/\n"), None);
    }

    #[test]
    fn an_address_that_would_break_the_source_list_is_refused() {
        for address in [
            "mirror.example/debian",
            "http://mirror example/debian",
            "http://mirror.example/debian\ndeb http://evil.example/",
            "[trusted=yes] http://mirror.example/debian",
            "http:/",
            "",
        ] {
            assert!(Mirror::choose(Some(address)).is_err(), "{address:?}");
        }
        assert!(Mirror::choose(Some("copy:/srv/debian")).is_ok());
    }
}
