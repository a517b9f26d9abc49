// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Jobs of a device that is lost.

use crate::cases::case::Case;

pub(super) const CASES: &[Case] = &[];
