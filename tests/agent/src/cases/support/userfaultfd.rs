// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A userfaultfd of the case, which serves none of its faults by itself.

use super::ioctl::RawNode;
use crate::cases::case::skip;
use anyhow::{Context, Result};
use std::ops::Range;

/// Protected pages that are written lose the protection, and no handler is asked.
pub(in crate::cases) const WP_ASYNC: u64 = 1 << 15;
/// Pages that are not there can be protected, too.
pub(in crate::cases) const WP_UNPOPULATED: u64 = 1 << 13;
/// `UFFDIO_MOVE`.
pub(in crate::cases) const MOVE: u64 = 1 << 16;
/// A page that is not there is the handler's to provide.
pub(in crate::cases) const MODE_MISSING: u64 = 1 << 0;
/// A write to a protected page is the handler's to allow.
pub(in crate::cases) const MODE_WP: u64 = 1 << 1;

/// The type of the ioctls.
const TYPE: u8 = 0xaa;
const API_VERSION: u64 = 0xaa;
const REGISTER: u8 = 0;
const COPY: u8 = 3;
const MOVE_PAGES: u8 = 5;
const WRITE_PROTECT: u8 = 6;
const API: u8 = 0x3f;

/// An open userfaultfd.
#[derive(Debug)]
pub(in crate::cases) struct Userfaultfd(RawNode);

impl Userfaultfd {
    /// One with these features; the case is skipped if the kernel lacks one.
    pub(in crate::cases) fn new(features: u64) -> Result<Self> {
        // SAFETY: Only memory of the case's own is registered, and only it has its pages moved or protected.
        let created = unsafe {
            rustix::mm::userfaultfd(
                rustix::mm::UserfaultfdFlags::CLOEXEC | rustix::mm::UserfaultfdFlags::NONBLOCK,
            )
        };
        let node: RawNode = created
            .map_err(|_| skip("this kernel has no userfaultfd"))?
            .into();
        let this = Self(node);
        this.call(API, &[API_VERSION, features, 0])
            .map_err(|_| skip("this kernel's userfaultfd lacks a feature"))?;
        Ok(this)
    }

    /// Registers memory.
    pub(in crate::cases) fn register(&self, range: Range<u64>, mode: u64) -> Result<()> {
        self.call(REGISTER, &[range.start, range.end - range.start, mode, 0])
            .context("cannot register memory with userfaultfd")
    }

    /// Provides the pages from `to` on that are not there, with the contents of `bytes`.
    pub(in crate::cases) fn copy(&self, to: u64, bytes: &[u8]) -> Result<()> {
        let from = bytes.as_ptr().expose_provenance() as u64;
        self.call(COPY, &[to, from, bytes.len() as u64, 0, 0])
            .context("cannot provide pages")
    }

    /// Protects pages from being written, or allows it again.
    pub(in crate::cases) fn protect(&self, range: Range<u64>, protects: bool) -> Result<()> {
        let mode = u64::from(protects);
        self.call(WRITE_PROTECT, &[range.start, range.end - range.start, mode])
            .context("cannot protect pages")
    }

    /// Moves pages.
    pub(in crate::cases) fn move_pages(&self, to: u64, from: u64, bytes: u64) -> Result<()> {
        Ok(self.call(MOVE_PAGES, &[to, from, bytes, 0, 0])?)
    }

    fn call(&self, number: u8, words: &[u64]) -> Result<(), rustix::io::Errno> {
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        self.0.call(TYPE, number, &mut bytes)
    }
}
