// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Results in the kernel's test format, KTAP version 1.

use std::io::{self, Write};

/// How a case ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// All is as it should be.
    Passed,
    /// Something is not.
    Failed,
    /// It could not run here, and why.
    Skipped(String),
    /// It hung.
    TimedOut,
}

/// Writes results. Every line is flushed: a crash leaves what was known until then.
pub(super) struct Writer<'a> {
    out: &'a mut dyn Write,
    planned: usize,
    done: usize,
}

impl<'a> Writer<'a> {
    /// Starts the output with its version and the number of cases to come.
    pub(super) fn start(out: &'a mut dyn Write, planned: usize) -> io::Result<Self> {
        writeln!(out, "KTAP version 1")?;
        writeln!(out, "1..{planned}")?;
        out.flush()?;
        Ok(Self {
            out,
            planned,
            done: 0,
        })
    }

    /// Says which case starts, so that a crash can be laid to its door.
    pub(super) fn begin(&mut self, name: &str) -> io::Result<()> {
        writeln!(self.out, "# start {name}")?;
        self.out.flush()
    }

    /// Writes remarks, each line for itself.
    pub(super) fn remark(&mut self, text: &str) -> io::Result<()> {
        for line in text.lines() {
            writeln!(self.out, "#   {}", line.trim_end())?;
        }
        self.out.flush()
    }

    /// Writes a result.
    pub(super) fn result(&mut self, name: &str, outcome: &Outcome) -> io::Result<()> {
        self.done += 1;
        let number = self.done;
        match outcome {
            Outcome::Passed => writeln!(self.out, "ok {number} {name}")?,
            Outcome::Failed => writeln!(self.out, "not ok {number} {name}")?,
            Outcome::Skipped(reason) => {
                // A line break would end the result.
                let reason = reason.replace(['\n', '\r'], " ");
                writeln!(self.out, "ok {number} {name} # SKIP {reason}")?;
            }
            Outcome::TimedOut => writeln!(self.out, "not ok {number} {name} # TIMEOUT")?,
        }
        self.out.flush()
    }

    /// Gives up: the cases that are left cannot run.
    pub(super) fn bail_out(&mut self, reason: &str) -> io::Result<()> {
        writeln!(
            self.out,
            "Bail out! {} ({} of {} cases done)",
            reason.replace(['\n', '\r'], " "),
            self.done,
            self.planned
        )?;
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::{Outcome, Writer};

    #[test]
    fn every_outcome_has_its_line() {
        let mut text = Vec::new();
        let mut writer = Writer::start(&mut text, 4).unwrap();
        writer.begin("group/one").unwrap();
        writer.result("group/one", &Outcome::Passed).unwrap();
        writer.begin("group/two").unwrap();
        writer.remark("first\nsecond\n").unwrap();
        writer.result("group/two", &Outcome::Failed).unwrap();
        writer
            .result("group/three", &Outcome::Skipped("no\nswap".to_owned()))
            .unwrap();
        writer.result("group/four", &Outcome::TimedOut).unwrap();
        writer.bail_out("the module is stuck").unwrap();
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "KTAP version 1\n\
             1..4\n\
             # start group/one\n\
             ok 1 group/one\n\
             # start group/two\n\
             #   first\n\
             #   second\n\
             not ok 2 group/two\n\
             ok 3 group/three # SKIP no swap\n\
             not ok 4 group/four # TIMEOUT\n\
             Bail out! the module is stuck (4 of 4 cases done)\n"
        );
    }
}
