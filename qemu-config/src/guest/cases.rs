// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Running the guest's own cases.

use std::io::Write;
use std::time::Duration;

use hmm_control::{Load, Report, Request};

use super::event::Event;
use super::output::Stream;
use super::watch::Limit;
use super::{Guest, GuestErrorKind, Result, infrastructure};

impl Guest {
    /// Runs the cases whose names contain one of `filter`, or all of them when it is empty, and hands their KTAP to
    /// `ktap` as it comes. `load` is for cases that would go on for any time. Whether the cases passed is for the reader of the KTAP to say.
    ///
    /// # Errors
    /// When the guest fails or `limit` is over; `ktap` has got what came before.
    pub fn cases(
        &mut self,
        filter: &[String],
        load: Load,
        ktap: Box<dyn Write + Send>,
        limit: Option<Duration>,
    ) -> Result<()> {
        let limit = limit.map(|limit| Limit::new("the guest's cases", limit));
        self.ktap
            .hand_to(ktap, self.sender.clone())
            .map_err(|error| self.failed(infrastructure(error.to_string())))?;
        let result = self.run_cases(filter, load, limit.as_ref());
        if result.is_err() {
            self.settle(1);
        }
        result
    }

    fn run_cases(&mut self, filter: &[String], load: Load, limit: Option<&Limit>) -> Result<()> {
        self.send(&Request::Cases {
            filter: filter.to_owned(),
            load,
        })?;
        let mut failure = None;
        loop {
            match self.next(limit)? {
                Event::Report(Report::CasesEnded { ktap_total, error }) => {
                    failure = error;
                    self.ktap.end_at(ktap_total);
                }
                Event::OutputDone(Stream::Ktap, result) => {
                    let problem = result
                        .err()
                        .map(|error| format!("their results were lost: {error}"));
                    return match failure.or(problem) {
                        None => Ok(()),
                        Some(text) => Err(self.failed(infrastructure(format!(
                            "the guest's cases did not end well: {text}"
                        )))),
                    };
                }
                Event::Interrupt(_) => return Err(self.failed(GuestErrorKind::Interrupted.into())),
                _ => {}
            }
        }
    }
}
