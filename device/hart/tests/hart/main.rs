// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Tests of harts.
//!
//! - `groups`: each group of instructions against expected values.
//! - `compare`: random programs and all compressed instructions against a plain interpreter.
//! - `ends`: how programs end, and where.
//! - `together`: atomic operations of harts on several threads.
//! - `assembler`, `model`: what they share.

mod assembler;
mod compare;
mod ends;
mod groups;
mod model;
mod together;
