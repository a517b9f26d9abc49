// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The caller's working directory and environment, as the guest's command gets them.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use hmm_vm::guest::PROGRAMS;

/// What Cargo and rustup set for the program that they start.
const CARGO: [&str; 10] = [
    "CARGO",
    "CARGO_BIN_NAME",
    "CARGO_CRATE_NAME",
    "CARGO_MANIFEST_DIR",
    "CARGO_MANIFEST_PATH",
    "CARGO_PRIMARY_PACKAGE",
    "OUT_DIR",
    "RUSTUP_TOOLCHAIN",
    "RUSTUP_TOOLCHAIN_SOURCE",
    "RUST_RECURSION_COUNT",
];
/// What names a socket of the host: nothing listens there in the guest.
const SOCKETS: [&str; 8] = [
    "DBUS_SESSION_BUS_ADDRESS",
    "DISPLAY",
    "GPG_AGENT_INFO",
    "NOTIFY_SOCKET",
    "SSH_AUTH_SOCK",
    "WAYLAND_DISPLAY",
    "XAUTHORITY",
    "XDG_RUNTIME_DIR",
];
const PATH: &str = "PATH";
const LIBRARY_PATH: &str = "LD_LIBRARY_PATH";
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The caller's working directory.
pub(crate) fn working_directory() -> anyhow::Result<PathBuf> {
    std::env::current_dir().context("the working directory is gone")
}

/// The caller's environment, for a command that sees the caller's files.
pub(crate) fn environment(target: &Path) -> Vec<(OsString, OsString)> {
    sanitised(std::env::vars_os(), target)
}

/// A small environment, the same for everybody, for a command that sees its own files only.
pub(crate) fn hermetic_environment() -> Vec<(OsString, OsString)> {
    let path = format!("{PROGRAMS}:{DEFAULT_PATH}");
    [
        (PATH, path.as_str()),
        ("HOME", "/root"),
        ("LANG", "C.UTF-8"),
    ]
    .map(|(name, value)| (name.into(), value.into()))
    .to_vec()
}

/// A variable for the command: with its value, or with the one that the caller has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Variable {
    name: OsString,
    value: Option<OsString>,
}

impl Variable {
    /// Reads `NAME=VALUE` or `NAME`.
    pub(crate) fn read(text: OsString) -> anyhow::Result<Self> {
        let bytes = text.as_bytes();
        match bytes.iter().position(|byte| *byte == b'=') {
            Some(0) => bail!("the name is missing"),
            Some(end) => Ok(Self {
                name: OsStr::from_bytes(&bytes[..end]).to_owned(),
                value: Some(OsStr::from_bytes(&bytes[end + 1..]).to_owned()),
            }),
            None => Ok(Self {
                value: std::env::var_os(&text),
                name: text,
            }),
        }
    }
}

/// Puts variables in, in place of others with the same name. One that has no value is taken out.
pub(crate) fn add(environment: &mut Vec<(OsString, OsString)>, variables: &[Variable]) {
    for variable in variables {
        environment.retain(|(other, _)| *other != variable.name);
        environment.extend(
            variable
                .value
                .clone()
                .map(|value| (variable.name.clone(), value)),
        );
    }
}

fn sanitised(
    variables: impl Iterator<Item = (OsString, OsString)>,
    target: &Path,
) -> Vec<(OsString, OsString)> {
    let mut path = OsString::from(DEFAULT_PATH);
    let mut kept = Vec::new();
    for (name, value) in variables {
        if name == PATH {
            path = value;
        } else if name == LIBRARY_PATH {
            // Cargo puts its own folders in front of what the caller had.
            let own = users_library_path(&value, target);
            if !own.is_empty() {
                kept.push((name, own));
            }
        } else if !unwanted(&name) {
            kept.push((name, value));
        }
    }
    let mut with_programs = OsString::from(PROGRAMS);
    with_programs.push(":");
    with_programs.push(path);
    kept.push((PATH.into(), with_programs));
    kept.sort();
    kept
}

fn unwanted(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else {
        return false;
    };
    CARGO.contains(&name) || SOCKETS.contains(&name) || name.starts_with("CARGO_PKG_")
}

fn users_library_path(value: &OsStr, target: &Path) -> OsString {
    let folders: Vec<&[u8]> = value
        .as_bytes()
        .split(|byte| *byte == b':')
        .filter(|folder| {
            let path = Path::new(OsStr::from_bytes(folder));
            let in_toolchain = path
                .components()
                .any(|part| matches!(part.as_os_str().to_str(), Some("rustlib" | "toolchains")));
            !folder.is_empty() && !path.starts_with(target) && !in_toolchain
        })
        .collect();
    OsString::from_vec(folders.join(&b':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(variables: &[(&str, &str)]) -> Vec<(String, String)> {
        let variables = variables
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()));
        sanitised(variables, Path::new("/p/target"))
            .into_iter()
            .map(|(name, value)| (name.into_string().unwrap(), value.into_string().unwrap()))
            .collect()
    }

    #[test]
    fn variables_are_set_replaced_and_passed_on() {
        let mut environment = vec![("A".into(), "old".into()), ("B".into(), "kept".into())];
        let variables = ["A=new=x", "PATH", "HMM_NOT_SET_ANYWHERE"];
        add(
            &mut environment,
            &variables.map(|text| Variable::read(text.into()).unwrap()),
        );
        let path = std::env::var_os("PATH").unwrap();
        let expected = [
            ("B".into(), "kept".into()),
            ("A".into(), "new=x".into()),
            ("PATH".into(), path),
        ];
        assert_eq!(environment, expected);
        assert!(Variable::read("=x".into()).is_err());
    }

    #[test]
    fn the_caller_s_own_variables_stay() {
        let kept = run(&[
            ("PATH", "/a:/b"),
            ("MINE", "x y"),
            ("LC_ALL", "C"),
            ("CARGO_HOME", "/h"),
        ]);
        let path = format!("{PROGRAMS}:/a:/b");
        let expected = [
            ("CARGO_HOME", "/h"),
            ("LC_ALL", "C"),
            ("MINE", "x y"),
            ("PATH", path.as_str()),
        ];
        assert_eq!(
            kept,
            expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
    }

    #[test]
    fn what_cargo_set_and_what_only_the_host_can_serve_goes() {
        let kept = run(&[
            ("CARGO_PKG_NAME", "xtask"),
            ("CARGO", "/c"),
            ("DISPLAY", ":0"),
            ("RUST_RECURSION_COUNT", "1"),
        ]);
        assert_eq!(
            kept,
            [("PATH".to_owned(), format!("{PROGRAMS}:{DEFAULT_PATH}"))]
        );
    }

    #[test]
    fn of_the_library_path_only_the_caller_s_part_stays() {
        let kept = run(&[(
            "LD_LIBRARY_PATH",
            "/p/target/release/deps:/h/.rustup/toolchains/x/lib:/h/rustlib/y/lib:/mine",
        )]);
        assert!(
            kept.contains(&("LD_LIBRARY_PATH".to_owned(), "/mine".to_owned())),
            "{kept:?}"
        );
        let kept = run(&[("LD_LIBRARY_PATH", "/p/target/release/deps")]);
        assert!(kept.iter().all(|(name, _)| name != "LD_LIBRARY_PATH"));
    }
}
