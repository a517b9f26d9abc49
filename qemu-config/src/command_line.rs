// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A command that can be run and shown.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::Command;

use crate::Launcher;

/// A program and its arguments. Its display is quoted for a POSIX shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandLine {
    program: PathBuf,
    args: Vec<OsString>,
}

impl CommandLine {
    /// The launcher's program with the launcher's own arguments.
    #[must_use]
    pub fn new(launcher: &Launcher) -> Self {
        Self {
            program: launcher.program.clone(),
            args: launcher.args.clone(),
        }
    }

    /// Adds one argument.
    pub fn arg(&mut self, arg: impl Into<OsString>) -> &mut Self {
        self.args.push(arg.into());
        self
    }

    /// Adds an option and its value.
    pub fn option(&mut self, name: &str, value: impl Into<OsString>) -> &mut Self {
        self.arg(name).arg(value)
    }

    /// The command, not yet started.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.args);
        command
    }

    /// All arguments, without the program.
    #[must_use]
    pub fn args(&self) -> &[OsString] {
        &self.args
    }
}

impl fmt::Display for CommandLine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", quoted(self.program.as_os_str()))?;
        for arg in &self.args {
            write!(formatter, " {}", quoted(arg))?;
        }
        Ok(())
    }
}

/// One word for a POSIX shell.
fn quoted(word: &OsStr) -> String {
    let text = String::from_utf8_lossy(word.as_bytes());
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-+=:,./@%".contains(&byte);
    if !text.is_empty() && text.bytes().all(plain) {
        text.into_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_where_a_shell_needs_it() {
        let mut line = CommandLine::new(&Launcher {
            program: "/usr/bin/qemu".into(),
            args: vec!["-nodefaults".into()],
        });
        line.option("-append", "console=ttyS0 panic=-1")
            .arg("it's")
            .arg("");
        assert_eq!(
            line.to_string(),
            r"/usr/bin/qemu -nodefaults -append 'console=ttyS0 panic=-1' 'it'\''s' ''"
        );
    }

    #[test]
    fn a_shell_reads_back_what_was_quoted() {
        let words = [
            "a b",
            "$HOME",
            "`x`",
            "\"",
            "'",
            "\\",
            "*",
            "new\nline",
            "~",
        ];
        let mut line = CommandLine::new(&Launcher {
            program: "printf".into(),
            args: vec!["%s\\0".into()],
        });
        for word in words {
            line.arg(word);
        }
        let output = Command::new("sh")
            .arg("-c")
            .arg(line.to_string())
            .output()
            .unwrap();
        let back: Vec<_> = output.stdout.split(|byte| *byte == 0).collect();
        assert_eq!(back[..words.len()], words.map(str::as_bytes));
    }
}
