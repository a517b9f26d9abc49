// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The part of the kernel's log that a case wrote, to be shown with its failure: a CI service keeps what the tests print, and not
//! the folder of the logs.
//!
//! The program that runs the cases writes a line into the kernel's log when a case starts.

use std::path::Path;
use std::time::{Duration, Instant};

/// What the line begins with, after the kernel's time stamp; the name of the case follows.
const MARK: &str = "hmm-agent: case ";
/// So many lines of the beginning are shown, where a splat is the cause of those after it…
const FIRST: usize = 25;
/// …and so many of the end.
const LAST: usize = 15;

/// How long the kernel may take to write what it has to say: a result may overtake it.
const LIMIT: Duration = Duration::from_secs(10);

/// What the kernel said during this case, shortened; empty if it said nothing. Waits for the mark that follows; a guest that has died
/// writes none.
#[must_use]
pub fn of_case(folder: &Path, case: &str) -> String {
    of_case_within(folder, case, LIMIT)
}

fn of_case_within(folder: &Path, case: &str, limit: Duration) -> String {
    let deadline = Instant::now() + limit;
    loop {
        let log = match log(folder) {
            Ok(log) => log,
            Err(text) => return text,
        };
        let (lines, is_complete) = part(&log, case);
        if is_complete || Instant::now() >= deadline {
            return shortened(lines);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The last lines of the log.
#[must_use]
pub fn end(folder: &Path) -> String {
    match log(folder) {
        Ok(log) => {
            let lines: Vec<&str> = log.lines().collect();
            lines[lines.len().saturating_sub(FIRST + LAST)..].join("\n")
        }
        Err(text) => text,
    }
}

fn log(folder: &Path) -> Result<String, String> {
    let bytes = std::fs::read(folder.join("serial.log"))
        .map_err(|error| format!("the kernel's log cannot be read: {error}"))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The lines between the mark of this case and the next one, and whether the next one is there.
fn part<'log>(log: &'log str, case: &str) -> (Vec<&'log str>, bool) {
    let marked = |line: &'log str| line.trim_end().split_once(MARK).map(|(_, name)| name);
    let mut lines = log.lines().skip_while(|line| marked(line) != Some(case));
    let _mark = lines.next();
    let mut part = Vec::new();
    for line in lines {
        if marked(line).is_some() {
            return (part, true);
        }
        part.push(line);
    }
    (part, false)
}

fn shortened(lines: Vec<&str>) -> String {
    match lines.len().saturating_sub(FIRST + LAST) {
        0 => lines.join("\n"),
        left_out => format!(
            "{}\n({left_out} lines more)\n{}",
            lines[..FIRST].join("\n"),
            lines[FIRST + left_out..].join("\n")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::{FIRST, LAST, end, of_case, of_case_within};
    use std::io::Write;
    use std::time::Duration;

    fn folder(log: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("serial.log"), log).unwrap();
        folder
    }

    #[test]
    fn a_case_has_what_is_between_two_marks() {
        let folder = folder(
            "[1] Linux version\r\n[2] hmm-agent: case a/one\r\n[3] first\r\n\
             [4] hmm-agent: case a/one-more\n[5] second\n[6] third\n",
        );
        let part = |case| of_case_within(folder.path(), case, Duration::ZERO);
        assert_eq!(part("a/one"), "[3] first");
        assert_eq!(part("a/one-more"), "[5] second\n[6] third");
        assert_eq!(part("a/two"), "");
    }

    #[test]
    fn lines_that_come_late_are_waited_for() {
        let folder = folder("[1] hmm-agent: case a\n");
        let mut log = (std::fs::OpenOptions::new().append(true))
            .open(folder.path().join("serial.log"))
            .unwrap();
        std::thread::scope(|scope| {
            let found = scope.spawn(|| of_case(folder.path(), "a"));
            log.write_all(b"[2] BUG\n").unwrap();
            log.write_all(b"[3] hmm-agent: case (none)\n").unwrap();
            assert_eq!(found.join().unwrap(), "[2] BUG");
        });
    }

    #[test]
    fn the_middle_of_much_is_left_out() {
        let lines: Vec<String> = (0..100).map(|line| format!("line {line}\n")).collect();
        let folder = folder(&format!("[0] hmm-agent: case a\n{}", lines.concat()));
        let part = of_case_within(folder.path(), "a", Duration::ZERO);
        assert_eq!(part.lines().count(), FIRST + LAST + 1);
        assert!(part.starts_with("line 0\n") && part.ends_with("\nline 99"));
        assert!(part.contains(&format!("\n({} lines more)\n", 100 - FIRST - LAST)));
        assert_eq!(end(folder.path()).lines().count(), FIRST + LAST);
    }

    #[test]
    fn a_log_that_is_not_there_is_said_to_be_missing() {
        let folder = tempfile::tempdir().unwrap();
        assert!(of_case(folder.path(), "a").contains("cannot be read"));
        assert!(end(folder.path()).contains("cannot be read"));
    }
}
