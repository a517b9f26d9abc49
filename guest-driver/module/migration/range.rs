// SPDX-License-Identifier: GPL-2.0-only

//! Requests: the migration of a range of an address space in one direction.

mod explain;
mod frontier;
mod hold;
mod merged;
mod migrate;
mod request;
mod team;
mod walk;
mod work;

pub(crate) use self::migrate::{
    migrate,
    Target, //
};
