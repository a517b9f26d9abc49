// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What can be wrong with a fault.

use thiserror::Error;

/// Faults at a time. Each batch looks at all of them, and the control socket lists them in one answer.
pub(super) const MAX_FAULTS: usize = 256;

/// Why a fault is not taken.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FaultError {
    /// The device takes no faults.
    #[error("the device was started with --no-faults")]
    Forbidden,
    /// There are as many as there may be.
    #[error("there are {MAX_FAULTS} faults already; remove some with fault-clear")]
    TooMany,
    /// There is no action.
    #[error("'action' is missing")]
    NoAction,
    /// The action is unknown.
    #[error("there is no action '{0}'")]
    UnknownAction(String),
    /// The action needs a field that is not there.
    #[error("action '{action}' needs '{field}', a number")]
    Missing {
        /// The action.
        action: String,
        /// The field.
        field: &'static str,
    },
    /// The action does not take a field that is there.
    #[error("action '{action}' takes no '{field}'")]
    Unwanted {
        /// The action.
        action: String,
        /// The field.
        field: &'static str,
    },
    /// A name is not one of those that the field takes.
    #[error("'{field}' is {expected}, found '{found}'")]
    Name {
        /// The field.
        field: &'static str,
        /// The names that it takes.
        expected: String,
        /// The name that was there.
        found: String,
    },
    /// The status is unknown, or no error.
    #[error("'{0}' is not the name of an error status")]
    Status(String),
    /// The delay is too long.
    #[error("'microseconds' is at most one hour")]
    Delay,
    /// The length does not fit a used element.
    #[error("'length' of a used element has 32 bits")]
    UsedLength,
    /// The range of a poison is empty or wraps.
    #[error("'length' is at least 1 and the range does not wrap")]
    Range,
    /// More than one trigger, or one that never fires.
    #[error("give at most one of 'nth' (from 1), 'every' (from 1) and 'fraction' (0 to 1)")]
    Trigger,
}
