// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause
//! Pure logic of the driver.
#![cfg_attr(not(MODULE), no_std)]
#![forbid(unsafe_code)]
