// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Running programs and telling what they said when they fail.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use crate::{Result, SetupError};

/// Runs a program and returns its standard output. `what` names the purpose for errors: "list the mirror's packages".
pub(crate) fn output(what: &str, command: &mut Command) -> Result<String> {
    let program = program(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|source| SetupError::Start {
            what: what.to_owned(),
            program: program.clone(),
            source,
        })?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    Err(SetupError::Failed {
        what: what.to_owned(),
        program,
        status: output.status,
        output: text + &String::from_utf8_lossy(&output.stderr),
    })
}

/// Runs a program, hands each line of its output and errors to `on_line` as it comes, and returns them all.
pub(crate) fn watch(
    what: &str,
    command: &mut Command,
    mut on_line: impl FnMut(&str),
) -> Result<String> {
    let program = program(command);
    let start = |source| SetupError::Start {
        what: what.to_owned(),
        program: program.clone(),
        source,
    };
    let (reader, writer) = std::io::pipe().map_err(start)?;
    let errors = writer.try_clone().map_err(start)?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(writer)
        .stderr(errors)
        .spawn()
        .map_err(start)?;
    // The command holds the pipe's writing ends; while they are open the reader never ends.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut text = String::new();
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    loop {
        line.clear();
        match reader.read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => break,
            Ok(_) => {
                let part = String::from_utf8_lossy(&line);
                on_line(part.trim_end());
                text.push_str(&part);
            }
        }
    }
    let status = child.wait().map_err(start)?;
    if status.success() {
        return Ok(text);
    }
    Err(SetupError::Failed {
        what: what.to_owned(),
        program,
        status,
        output: text,
    })
}

/// Runs programs of which each reads what the one before it writes. The last one's output is dropped.
pub(crate) fn pipeline(what: &str, commands: &mut [Command]) -> Result<()> {
    let names: Vec<String> = commands.iter().map(program).collect();
    let start = |index: usize| {
        let (what, program) = (what.to_owned(), names[index].clone());
        move |source| SetupError::Start {
            what,
            program,
            source,
        }
    };
    let (mut errors, errors_writer) = std::io::pipe().map_err(start(0))?;
    let mut children = Vec::with_capacity(commands.len());
    let mut input = Stdio::null();
    for (index, command) in commands.iter_mut().enumerate() {
        let last = index + 1 == names.len();
        let output = if last { Stdio::null() } else { Stdio::piped() };
        command.stdin(input).stdout(output);
        command.stderr(errors_writer.try_clone().map_err(start(index))?);
        let mut child = command.spawn().map_err(start(index))?;
        // The command keeps its ends of the pipes open; a reader would wait for them for ever.
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        input = child.stdout.take().map_or_else(Stdio::null, Stdio::from);
        children.push(child);
    }
    drop((input, errors_writer));
    let mut output = Vec::new();
    errors.read_to_end(&mut output).map_err(start(0))?;
    let mut statuses = Vec::with_capacity(children.len());
    for (index, child) in children.iter_mut().enumerate() {
        statuses.push(child.wait().map_err(start(index))?);
    }
    let failed = |status: &ExitStatus| !status.success();
    // A program whose reader has failed dies of a broken pipe, which says nothing.
    let broken_pipe =
        |status: &ExitStatus| status.signal() == Some(rustix::process::Signal::PIPE.as_raw());
    let culprit = (statuses.iter())
        .position(|status| failed(status) && !broken_pipe(status))
        .or_else(|| statuses.iter().position(failed));
    match culprit {
        None => Ok(()),
        Some(index) => Err(SetupError::Failed {
            what: what.to_owned(),
            program: names[index].clone(),
            status: statuses[index],
            output: String::from_utf8_lossy(&output).into_owned(),
        }),
    }
}

fn program(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

/// Copies a kernel module without what only a debugger reads, which is most of it and not for the guest's memory.
pub(crate) fn strip_module(module: &Path, stripped: &Path) -> Result<()> {
    let mut command = Command::new("strip");
    command
        .arg("--strip-debug")
        .arg("-o")
        .arg(stripped)
        .arg(module);
    output("strip a kernel module", &mut command).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn the_error_of_a_failed_program_holds_everything_it_said() {
        let script = "echo to stdout; echo to stderr >&2; exit 3";
        for error in [
            output("try", &mut shell(script)).unwrap_err(),
            watch("try", &mut shell(script), |_| {}).unwrap_err(),
        ] {
            let text = error.to_string();
            for part in ["try", "to stdout", "to stderr", "3"] {
                assert!(text.contains(part), "{part}: {text}");
            }
        }
    }

    #[test]
    fn lines_are_seen_in_order_and_without_their_ends() {
        let mut lines = Vec::new();
        let text = watch("try", &mut shell("echo a; echo b >&2; printf c"), |line| {
            lines.push(line.to_owned());
        });
        assert_eq!(lines, ["a", "b", "c"]);
        assert_eq!(text.unwrap(), "a\nb\nc");
    }

    #[test]
    fn a_pipeline_hands_on_and_names_the_program_that_failed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        let write = format!("tr a-z A-Z > {}", file.display());
        pipeline(
            "try",
            &mut [shell("echo hello"), shell("cat"), shell(&write)],
        )
        .unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "HELLO\n");
        let error = pipeline("try", &mut [shell("echo no >&2; exit 4"), shell("cat")]).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("exit status: 4") && text.contains("no"),
            "{text}"
        );
        let error = pipeline("try", &mut [Command::new("yes"), shell("exit 5")]).unwrap_err();
        assert!(error.to_string().contains("exit status: 5"), "{error}");
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error = output("try", &mut Command::new("/nonexistent/program")).unwrap_err();
        assert!(
            error.to_string().contains("/nonexistent/program"),
            "{error}"
        );
    }
}
