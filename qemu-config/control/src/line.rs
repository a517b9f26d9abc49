// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One JSON value a line.

use std::io::{self, BufRead, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The longest line. A command's arguments and environment are the longest thing that is sent, and Linux limits
/// them to a few MiB.
pub const MAX_LENGTH: usize = 32 << 20;

/// Why a line could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// The stream failed or ended within a line.
    #[error("control channel: {0}")]
    Io(#[from] io::Error),
    /// The line is longer than [`MAX_LENGTH`].
    #[error("control channel: a line of more than {MAX_LENGTH} bytes")]
    TooLong,
    /// The line is not what was expected.
    #[error("control channel: {error} in {line:?}")]
    Invalid {
        /// What the parser said.
        error: serde_json::Error,
        /// The beginning of the line.
        line: String,
    },
}

/// Writes one value as one line, in one piece.
///
/// # Errors
/// What the stream says.
pub fn write(stream: &mut dyn Write, value: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    stream.flush()
}

/// Reads one line; `None` at the end of the stream.
///
/// # Errors
/// When the stream fails, ends within a line, or holds something else than the expected value.
pub fn read<T: DeserializeOwned>(stream: &mut impl BufRead) -> Result<Option<T>, LineError> {
    let mut line = Vec::new();
    loop {
        let available = stream.fill_buf()?;
        if available.is_empty() {
            if line.is_empty() {
                return Ok(None);
            }
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        let (taken, complete) = match available.iter().position(|byte| *byte == b'\n') {
            Some(end) => (end + 1, true),
            None => (available.len(), false),
        };
        line.extend_from_slice(&available[..taken]);
        stream.consume(taken);
        if line.len() > MAX_LENGTH {
            return Err(LineError::TooLong);
        }
        if complete {
            return match serde_json::from_slice(&line) {
                Ok(value) => Ok(Some(value)),
                Err(error) => Err(LineError::Invalid {
                    error,
                    line: String::from_utf8_lossy(&line[..line.len().min(200)]).into_owned(),
                }),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Cursor};

    use super::*;
    use crate::{Exec, ExitStatus, Question, Report, Request, Root, Text, WindowSize};

    fn round_trip<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(values: Vec<T>) {
        let mut bytes = Vec::new();
        for value in &values {
            write(&mut bytes, value).unwrap();
        }
        // A buffer of three bytes makes every line arrive in pieces.
        let mut reader = BufReader::with_capacity(3, Cursor::new(bytes));
        for value in values {
            assert_eq!(read::<T>(&mut reader).unwrap(), Some(value));
        }
        assert_eq!(read::<T>(&mut reader).unwrap(), None);
    }

    #[test]
    fn requests_survive() {
        round_trip(vec![
            Request::Exec(Exec {
                argv: vec![Text::from("sh"), Text::Bytes(vec![0xff, b'\n'])],
                env: vec![(Text::from("A"), Text::from("b\nc"))],
                cwd: Text::from("/"),
                root: Root::Host,
                terminal: Some(WindowSize {
                    rows: 24,
                    columns: 80,
                }),
            }),
            Request::InputEnd { total: u64::MAX },
            Request::Answer {
                id: 1,
                answer: Err("no such device".to_owned()),
            },
            Request::Answer {
                id: 2,
                answer: Ok(serde_json::json!({"ok": true})),
            },
            Request::Poweroff,
        ]);
    }

    #[test]
    fn reports_survive() {
        round_trip(vec![
            Report::InputClosed,
            Report::ExecEnded {
                status: ExitStatus::Signal(9),
                stdout_total: 1 << 40,
                stderr_total: 0,
            },
            Report::Ask {
                id: 7,
                question: Question::Device {
                    index: 1,
                    request: serde_json::json!({"fault": "drop"}),
                },
            },
        ]);
    }

    #[test]
    fn a_cut_line_is_an_error() {
        let mut reader = Cursor::new(b"{\"report\":\"input_closed\"".to_vec());
        assert!(matches!(read::<Report>(&mut reader), Err(LineError::Io(_))));
    }

    #[test]
    fn something_else_is_an_error_that_shows_the_line() {
        let mut reader = Cursor::new(b"kernel text\n".to_vec());
        let error = read::<Report>(&mut reader).unwrap_err();
        assert!(error.to_string().contains("kernel text"), "{error}");
    }

    #[test]
    fn signals_and_codes_are_as_in_a_shell() {
        assert_eq!(ExitStatus::Signal(13).shell_code(), 141);
        assert_eq!(ExitStatus::Code(7).shell_code(), 7);
        assert_eq!(ExitStatus::Code(255).shell_code(), 255);
    }
}
