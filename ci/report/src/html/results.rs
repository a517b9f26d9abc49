// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A table of results: of tests, of a suite's cases, or figures.

use serde::Serialize;

/// A table.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Results {
    /// What its columns are.
    pub heads: Vec<String>,
    /// Its rows. Each has as many cells as there are columns.
    pub rows: Vec<Row>,
}

/// A result.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Row {
    /// One for each column.
    pub cells: Vec<String>,
    /// How it is to be taken.
    pub state: State,
    /// What else there is to say, in lines; empty if there is nothing.
    pub text: String,
    /// The place of the recording that was made meanwhile.
    pub part: Option<usize>,
    /// The name of its case in that recording, if cases are marked there.
    pub case: Option<String>,
}

/// How a result is to be taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Good,
    /// Not as it should be.
    Bad,
    /// Neither.
    #[default]
    Other,
}
