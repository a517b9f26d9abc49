// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Mappings of the case's own, whose every byte is known.

use super::pattern;
use anyhow::{Context, Result, bail};
use rustix::fd::BorrowedFd;
use rustix::mm::{Advice, MapFlags, MprotectFlags, ProtFlags};
use std::ops::Range;
use std::ptr::NonNull;

/// Bytes of a page.
pub(in crate::cases) const PAGE: usize = 4096;
/// Bytes of a huge page that the page tables map as one.
pub(in crate::cases) const HUGE: usize = 2 << 20;

/// A mapping. It is unmapped at the end, whatever the case has made of it meanwhile.
///
/// The methods that read or write must not be used on parts that the case has unmapped or protected: the process
/// would get SIGSEGV, which fails the case.
#[derive(Debug)]
pub(in crate::cases) struct Memory {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: The mapping belongs to the process and not to a thread, and all methods that write take `&mut self` or use
// atomics.
unsafe impl Send for Memory {}
// SAFETY: As above.
unsafe impl Sync for Memory {}

impl Memory {
    /// Private anonymous memory of so many pages, which the kernel backs with single pages.
    pub(in crate::cases) fn single(pages: usize) -> Result<Self> {
        let memory = Self::anonymous(pages)?;
        memory.advise(0..pages, Advice::LinuxNoHugepage)?;
        Ok(memory)
    }

    /// Private anonymous memory of single pages that one page table maps: never more than one batch.
    pub(in crate::cases) fn table() -> Result<Self> {
        let memory = Self::aligned(HUGE / PAGE, HUGE)?;
        memory.advise(0..memory.pages(), Advice::LinuxNoHugepage)?;
        Ok(memory)
    }

    /// Private anonymous memory of so many huge pages, aligned to them. A page that is touched becomes a huge page
    /// where the kernel has one.
    pub(in crate::cases) fn huge(huge_pages: usize) -> Result<Self> {
        let memory = Self::aligned(huge_pages * HUGE / PAGE, HUGE)?;
        memory.advise(0..memory.pages(), Advice::LinuxHugepage)?;
        Ok(memory)
    }

    /// Private anonymous memory, with whatever pages the kernel chooses.
    pub(in crate::cases) fn anonymous(pages: usize) -> Result<Self> {
        // SAFETY: A new mapping at an address of the kernel's choice touches nothing that exists.
        let start = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                pages * PAGE,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )
        };
        Self::from_mapping(start, pages)
    }

    /// Private anonymous memory of single pages for which the kernel sets nothing aside, so it may be vast.
    pub(in crate::cases) fn reserved(pages: usize) -> Result<Self> {
        // SAFETY: A new mapping at an address of the kernel's choice touches nothing that exists.
        let start = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                pages * PAGE,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
        };
        let memory = Self::from_mapping(start, pages)?;
        memory.advise(0..pages, Advice::LinuxNoHugepage)?;
        Ok(memory)
    }

    /// Anonymous memory that is shared with children.
    pub(in crate::cases) fn shared(pages: usize) -> Result<Self> {
        // SAFETY: As in `anonymous`.
        let start = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                pages * PAGE,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
            )
        };
        Self::from_mapping(start, pages)
    }

    /// Anonymous memory of hugetlb pages.
    pub(in crate::cases) fn hugetlb(huge_pages: usize) -> Result<Self> {
        // SAFETY: As in `anonymous`.
        let start = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                huge_pages * HUGE,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::HUGETLB | MapFlags::HUGE_2MB,
            )
        };
        Self::from_mapping(start, huge_pages * HUGE / PAGE)
    }

    /// The first pages of a file.
    pub(in crate::cases) fn file(
        file: BorrowedFd<'_>,
        pages: usize,
        flags: MapFlags,
    ) -> Result<Self> {
        // SAFETY: As in `anonymous`.
        let start = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                pages * PAGE,
                ProtFlags::READ | ProtFlags::WRITE,
                flags,
                file,
                0,
            )
        };
        Self::from_mapping(start, pages)
    }

    /// Private anonymous memory whose start is a multiple of `alignment` bytes.
    fn aligned(pages: usize, alignment: usize) -> Result<Self> {
        let length = pages * PAGE;
        let whole = Self::anonymous((length + alignment) / PAGE)?;
        let before = whole.address().wrapping_neg() % alignment;
        let memory = Self {
            start: whole.at(before),
            length,
        };
        // The parts before and after go back; the rest now belongs to `memory`.
        whole.unmap(0..before / PAGE)?;
        whole.unmap((before + length) / PAGE..whole.pages())?;
        std::mem::forget(whole);
        Ok(memory)
    }

    fn from_mapping(
        start: rustix::io::Result<*mut std::ffi::c_void>,
        pages: usize,
    ) -> Result<Self> {
        let start = start.with_context(|| format!("cannot map {pages} pages"))?;
        Ok(Self {
            start: NonNull::new(start.cast()).context("a mapping at address 0")?,
            length: pages * PAGE,
        })
    }

    /// Pages of the mapping.
    pub(in crate::cases) fn pages(&self) -> usize {
        self.length / PAGE
    }

    /// Bytes of the mapping.
    pub(in crate::cases) fn length(&self) -> usize {
        self.length
    }

    /// Address of the first byte.
    pub(in crate::cases) fn address(&self) -> usize {
        self.start.as_ptr().addr()
    }

    /// A pointer to a byte.
    pub(in crate::cases) fn at(&self, offset: usize) -> NonNull<u8> {
        assert!(
            offset <= self.length,
            "offset {offset} is outside of the mapping"
        );
        // SAFETY: The offset was just checked to be inside of the mapping.
        unsafe { self.start.add(offset) }
    }

    /// The addresses of the whole mapping.
    pub(in crate::cases) fn range(&self) -> Range<u64> {
        self.part(0..self.pages())
    }

    /// The addresses of some pages.
    pub(in crate::cases) fn part(&self, pages: Range<usize>) -> Range<u64> {
        let start = self.address() as u64;
        start + (pages.start * PAGE) as u64..start + (pages.end * PAGE) as u64
    }

    /// All bytes.
    pub(in crate::cases) fn bytes(&self) -> &[u8] {
        // SAFETY: The mapping is readable unless the case has made it otherwise (see the type), and is written
        // through `&mut self` only.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }

    /// All bytes.
    pub(in crate::cases) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: As in `bytes`, and `&mut self` is the only way to the bytes now.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.length) }
    }

    /// The bytes of some pages.
    pub(in crate::cases) fn page_bytes(&self, pages: Range<usize>) -> &[u8] {
        &self.bytes()[pages.start * PAGE..pages.end * PAGE]
    }

    /// A word of the mapping that several threads or processes may use at once.
    pub(in crate::cases) fn word(&self, offset: usize) -> &std::sync::atomic::AtomicU32 {
        assert!(offset.is_multiple_of(4) && offset + 4 <= self.length);
        // SAFETY: The word is aligned and inside of the mapping, which lives as long as the reference.
        unsafe { std::sync::atomic::AtomicU32::from_ptr(self.at(offset).as_ptr().cast()) }
    }

    /// Fills the whole mapping with a pattern.
    pub(in crate::cases) fn fill(&mut self, seed: u64) {
        self.fill_pages(0..self.pages(), seed);
    }

    /// Fills some pages with the pattern of a seed.
    pub(in crate::cases) fn fill_pages(&mut self, pages: Range<usize>, seed: u64) {
        let bytes = &mut self.bytes_mut()[pages.start * PAGE..pages.end * PAGE];
        pattern::fill(bytes, pages.start, seed);
    }

    /// Checks every byte of the whole mapping.
    pub(in crate::cases) fn check(&self, seed: u64) -> Result<()> {
        self.check_pages(0..self.pages(), seed)
    }

    /// Checks every byte of some pages.
    pub(in crate::cases) fn check_pages(&self, pages: Range<usize>, seed: u64) -> Result<()> {
        let first = pages.start;
        if let Some(difference) = pattern::difference(self.page_bytes(pages), first, seed) {
            let offset = first * PAGE + difference.offset;
            bail!(
                "page {}, byte {}: {difference}",
                offset / PAGE,
                offset % PAGE
            );
        }
        Ok(())
    }

    /// Checks that some pages are all zero.
    pub(in crate::cases) fn check_zero(&self, pages: Range<usize>) -> Result<()> {
        let first = pages.start * PAGE;
        match self.page_bytes(pages).iter().position(|&byte| byte != 0) {
            None => Ok(()),
            Some(index) => bail!(
                "page {}, byte {}: expected zero, found {:#x}",
                (first + index) / PAGE,
                (first + index) % PAGE,
                self.bytes()[first + index]
            ),
        }
    }

    /// Reads one byte of each of some pages, so that something is mapped there.
    pub(in crate::cases) fn touch(&self, pages: Range<usize>) {
        for page in pages {
            // SAFETY: The byte is inside of the mapping (`at` checks), which is readable.
            unsafe { self.at(page * PAGE).as_ptr().read_volatile() };
        }
    }

    /// `madvise` with one of the advices that the library knows.
    pub(in crate::cases) fn advise(&self, pages: Range<usize>, advice: Advice) -> Result<()> {
        let length = pages.len() * PAGE;
        // SAFETY: The range is inside of a mapping of the case's own (`at` checks its start), and what the advice
        // does to its contents is what the case wants.
        unsafe { rustix::mm::madvise(self.at(pages.start * PAGE).as_ptr().cast(), length, advice) }
            .with_context(|| format!("madvise({advice:?})"))
    }

    /// `madvise` with an advice by its number; for those that the library does not know yet.
    pub(in crate::cases) fn advise_raw(
        &self,
        pages: Range<usize>,
        advice: i32,
    ) -> std::io::Result<()> {
        let length = pages.len() * PAGE;
        // SAFETY: As in `advise`.
        let result =
            unsafe { libc::madvise(self.at(pages.start * PAGE).as_ptr().cast(), length, advice) };
        if result == 0 {
            Ok(())
        } else {
            Err(std::io::Error::last_os_error())
        }
    }

    /// `mprotect`.
    pub(in crate::cases) fn protect(
        &self,
        pages: Range<usize>,
        flags: MprotectFlags,
    ) -> Result<()> {
        let length = pages.len() * PAGE;
        // SAFETY: The range is inside of a mapping of the case's own, and what it may do with it from now on is the
        // case's affair (see the type).
        unsafe { rustix::mm::mprotect(self.at(pages.start * PAGE).as_ptr().cast(), length, flags) }
            .with_context(|| format!("mprotect({flags:?})"))
    }

    /// `mlock`.
    pub(in crate::cases) fn lock(&self, pages: Range<usize>) -> Result<()> {
        let length = pages.len() * PAGE;
        // SAFETY: Locking a range of an own mapping changes no contents.
        unsafe { rustix::mm::mlock(self.at(pages.start * PAGE).as_ptr().cast(), length) }
            .context("mlock")
    }

    /// `munlock`.
    pub(in crate::cases) fn unlock(&self, pages: Range<usize>) -> Result<()> {
        let length = pages.len() * PAGE;
        // SAFETY: As in `lock`.
        unsafe { rustix::mm::munlock(self.at(pages.start * PAGE).as_ptr().cast(), length) }
            .context("munlock")
    }

    /// `munmap` of some pages. They must not be used any more.
    pub(in crate::cases) fn unmap(&self, pages: Range<usize>) -> Result<()> {
        if pages.is_empty() {
            return Ok(());
        }
        let length = pages.len() * PAGE;
        // SAFETY: The range belongs to the case, and no reference into it outlives this (see the type).
        unsafe { rustix::mm::munmap(self.at(pages.start * PAGE).as_ptr().cast(), length) }
            .context("munmap")
    }

    /// Takes a mapping that another system call has made.
    ///
    /// # Safety
    /// The range must be mapped, and nothing else may own it.
    pub(in crate::cases) unsafe fn adopt(start: NonNull<u8>, pages: usize) -> Self {
        Self {
            start,
            length: pages * PAGE,
        }
    }

    /// Gives up the ownership without unmapping.
    pub(in crate::cases) fn into_raw(self) -> (NonNull<u8>, usize) {
        let raw = (self.start, self.length);
        std::mem::forget(self);
        raw
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: The mapping belongs to this value. Parts that the case has unmapped stay so: `munmap` of a hole is
        // no error.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.length) };
    }
}

#[cfg(test)]
mod tests {
    use super::{HUGE, Memory, PAGE};

    #[test]
    fn a_pattern_is_recognised_and_every_change_is_noticed() {
        let mut memory = Memory::single(3).unwrap();
        memory.fill(1);
        memory.check(1).unwrap();
        assert!(memory.check(2).is_err());
        for offset in [0, PAGE - 1, PAGE, 3 * PAGE - 1] {
            memory.bytes_mut()[offset] ^= 1;
            assert!(memory.check(1).is_err(), "{offset}");
            memory.bytes_mut()[offset] ^= 1;
        }
        memory.bytes_mut().copy_within(PAGE..2 * PAGE, 0);
        assert!(memory.check(1).is_err());
        assert!(memory.check_zero(0..1).is_err());
    }

    #[test]
    fn memory_for_huge_pages_is_aligned() {
        let memory = Memory::huge(2).unwrap();
        assert_eq!(memory.address() % HUGE, 0);
        assert_eq!(memory.length(), 2 * HUGE);
        memory.check_zero(0..memory.pages()).unwrap();
    }
}
