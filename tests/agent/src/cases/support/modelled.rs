// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Memory with which anything is done at random, and of which it is known all the time what every page should hold.

use super::memory::{Memory, PAGE};
use super::pattern;
use super::random::Random;
use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::mm::{Advice, MremapFlags};
use std::ops::Range;
use std::ptr::NonNull;

/// Most pages by which a mapping grows at a time.
const MOST_GROWTH: usize = 200;
/// How many seeds there are, unless there is to be memory with equal pages.
const SEEDS: u64 = 1 << 20;

/// What a page should hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Contents {
    Zeroes,
    /// The pattern of a seed.
    Pattern(u64),
    /// Either: it was given up, and the kernel may have taken it or not.
    PatternOrZeroes(u64),
}

/// A mapping, and what each of its pages should hold.
#[derive(Debug)]
pub(in crate::cases) struct Modelled {
    memory: Memory,
    /// The place of the first page in the patterns.
    first: usize,
    pages: Vec<Contents>,
    seeds: u64,
}

impl Modelled {
    /// Takes memory that was never touched.
    pub(in crate::cases) fn new(memory: Memory) -> Self {
        let pages = vec![Contents::Zeroes; memory.pages()];
        Self {
            memory,
            first: 0,
            pages,
            seeds: SEEDS,
        }
    }

    /// The same with so few seeds that pages of several mappings are equal.
    pub(in crate::cases) fn with_seeds(mut self, seeds: u64) -> Self {
        self.seeds = seeds;
        self
    }

    /// The mapping.
    pub(in crate::cases) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Some pages in a row.
    pub(in crate::cases) fn some_pages(&self, random: &mut Random) -> Range<usize> {
        let first = random.below(self.pages.len());
        let length = 1 + random.below(self.pages.len() - first);
        first..first + length
    }

    /// Some of its addresses, whole pages in a row.
    pub(in crate::cases) fn some_range(&self, random: &mut Random) -> Range<u64> {
        self.memory.part(self.some_pages(random))
    }

    fn some_seed(&self, random: &mut Random) -> u64 {
        1 + random.next() % self.seeds
    }

    /// Writes some pages, and says which.
    pub(in crate::cases) fn write(&mut self, random: &mut Random) -> Range<usize> {
        let pages = self.some_pages(random);
        self.write_pages(pages.clone(), random);
        pages
    }

    /// Writes everything.
    pub(in crate::cases) fn write_all(&mut self, random: &mut Random) {
        self.write_pages(0..self.pages.len(), random);
    }

    fn write_pages(&mut self, pages: Range<usize>, random: &mut Random) {
        let seed = self.some_seed(random);
        let first = self.first + pages.start;
        let bytes = &mut self.memory.bytes_mut()[pages.start * PAGE..pages.end * PAGE];
        pattern::fill(bytes, first, seed);
        self.pages[pages].fill(Contents::Pattern(seed));
    }

    /// Writes all pages, each of so many threads a part, and each checks its part. Another thing is done meanwhile.
    pub(in crate::cases) fn write_by_threads<T>(
        &mut self,
        random: &mut Random,
        threads: usize,
        meanwhile: impl FnOnce(Range<u64>) -> Result<T>,
    ) -> Result<T> {
        let seed = self.some_seed(random);
        let (range, mut place) = (self.memory.range(), self.first);
        let part = self.pages.len().div_ceil(threads) * PAGE;
        let done = std::thread::scope(|scope| -> Result<T> {
            let mut writers = Vec::new();
            for bytes in self.memory.bytes_mut().chunks_mut(part) {
                let first = place;
                place += bytes.len() / PAGE;
                writers.push(scope.spawn(move || {
                    pattern::fill(bytes, first, seed);
                    pattern::difference(bytes, first, seed).map(|difference| (first, difference))
                }));
            }
            let done = meanwhile(range);
            for writer in writers {
                let found = joined(writer)?;
                if let Some((first, difference)) = found {
                    let page = first - self.first + difference.offset / PAGE;
                    bail!("page {page}, just written by a thread: {difference}");
                }
            }
            done
        })?;
        self.pages.fill(Contents::Pattern(seed));
        Ok(done)
    }

    /// Checks every byte of some pages.
    pub(in crate::cases) fn check(&self, pages: Range<usize>) -> Result<()> {
        for page in pages {
            let contents = self.pages[page];
            self.check_page(page, contents)
                .with_context(|| format!("it should hold {contents:?}"))?;
        }
        Ok(())
    }

    fn check_page(&self, page: usize, contents: Contents) -> Result<()> {
        let zeroes = || self.memory.check_zero(page..page + 1);
        let seed = match contents {
            Contents::Zeroes => return zeroes(),
            Contents::Pattern(seed) | Contents::PatternOrZeroes(seed) => seed,
        };
        let bytes = self.memory.page_bytes(page..page + 1);
        let Some(difference) = pattern::difference(bytes, self.first + page, seed) else {
            return Ok(());
        };
        // In this order: the kernel may take the page at any moment, and does not give it back.
        if matches!(contents, Contents::PatternOrZeroes(_)) && zeroes().is_ok() {
            return Ok(());
        }
        bail!("page {page}, byte {}: {difference}", difference.offset)
    }

    /// Checks everything.
    pub(in crate::cases) fn check_all(&self) -> Result<()> {
        self.check(0..self.pages.len())
    }

    /// Checks some pages in each of so many threads, and does another thing meanwhile.
    pub(in crate::cases) fn check_by_threads<T>(
        &self,
        random: &mut Random,
        threads: usize,
        meanwhile: impl FnOnce(Range<u64>) -> Result<T>,
    ) -> Result<T> {
        let parts: Vec<_> = (0..threads).map(|_| self.some_pages(random)).collect();
        std::thread::scope(|scope| {
            let readers: Vec<_> = parts
                .into_iter()
                .map(|pages| scope.spawn(move || self.check(pages)))
                .collect();
            let done = meanwhile(self.memory.range());
            for reader in readers {
                joined(reader)?.context("read by a thread")?;
            }
            done
        })
    }

    /// The first of some pages, at most so many, whose contents are known, and their bytes.
    pub(in crate::cases) fn some_known(
        &self,
        random: &mut Random,
        most: usize,
    ) -> (Range<usize>, Vec<u8>) {
        let some = self.some_pages(random);
        let mut known = Vec::new();
        for page in some.clone().take(most) {
            let mut bytes = vec![0; PAGE];
            match self.pages[page] {
                Contents::Zeroes => {}
                Contents::Pattern(seed) => pattern::fill(&mut bytes, self.first + page, seed),
                Contents::PatternOrZeroes(_) => break,
            }
            known.append(&mut bytes);
        }
        (some.start..some.start + known.len() / PAGE, known)
    }

    /// Has something else write some pages, at most so many. It is told them and is given their bytes.
    pub(in crate::cases) fn write_otherwise<T>(
        &mut self,
        random: &mut Random,
        most: usize,
        write: impl FnOnce(Range<usize>, &Memory, &Memory) -> Result<T>,
    ) -> Result<T> {
        let mut pages = self.some_pages(random);
        pages.end = pages.end.min(pages.start + most);
        let seed = self.some_seed(random);
        let mut source = Memory::single(pages.len())?;
        pattern::fill(source.bytes_mut(), self.first + pages.start, seed);
        let done = write(pages.clone(), &source, &self.memory)?;
        self.pages[pages].fill(Contents::Pattern(seed));
        Ok(done)
    }

    /// Throws the contents of some pages away, and says of which: they are zeroes from now on.
    pub(in crate::cases) fn discard(&mut self, random: &mut Random) -> Result<Range<usize>> {
        let pages = self.some_pages(random);
        self.memory.advise(pages.clone(), Advice::LinuxDontNeed)?;
        self.pages[pages.clone()].fill(Contents::Zeroes);
        Ok(pages)
    }

    /// Leaves it to the kernel to take some pages when it needs memory, until they are written again. Says which.
    pub(in crate::cases) fn free(&mut self, random: &mut Random) -> Result<Range<usize>> {
        let pages = self.some_pages(random);
        self.memory.advise(pages.clone(), Advice::LinuxFree)?;
        for contents in &mut self.pages[pages.clone()] {
            if let Contents::Pattern(seed) = *contents {
                *contents = Contents::PatternOrZeroes(seed);
            }
        }
        Ok(pages)
    }

    /// Gives the mapping another size, and perhaps another place.
    pub(in crate::cases) fn remap(self, random: &mut Random) -> Result<Self> {
        let pages = 1 + random.below(self.pages.len() + MOST_GROWTH);
        let (start, length) = self.memory.into_raw();
        let flags = MremapFlags::MAYMOVE;
        // SAFETY: The mapping's owner was just given up, so nothing else refers to it.
        let moved =
            unsafe { rustix::mm::mremap(start.as_ptr().cast(), length, pages * PAGE, flags) };
        let moved =
            NonNull::new(moved.context("mremap")?.cast()).context("a mapping at address 0")?;
        let mut contents = self.pages;
        contents.resize(pages, Contents::Zeroes);
        Ok(Self {
            // SAFETY: `mremap` has just made this mapping.
            memory: unsafe { Memory::adopt(moved, pages) },
            pages: contents,
            ..self
        })
    }

    /// Unmaps some pages. What is left are two mappings, one, or none.
    pub(in crate::cases) fn cut(self, random: &mut Random) -> Result<Vec<Self>> {
        let cut = self.some_pages(random);
        self.memory.unmap(cut.clone())?;
        let (start, length) = self.memory.into_raw();
        ensure!(
            length == self.pages.len() * PAGE,
            "the mapping has another size"
        );
        let mut left = Vec::new();
        for part in [0..cut.start, cut.end..self.pages.len()] {
            if part.is_empty() {
                continue;
            }
            // SAFETY: The page is inside of the mapping, or the part would be empty.
            let start = unsafe { start.add(part.start * PAGE) };
            left.push(Self {
                // SAFETY: This part is mapped still, and its owner was just given up.
                memory: unsafe { Memory::adopt(start, part.len()) },
                first: self.first + part.start,
                pages: self.pages[part].to_vec(),
                seeds: self.seeds,
            });
        }
        Ok(left)
    }
}

fn joined<T>(thread: std::thread::ScopedJoinHandle<'_, T>) -> Result<T> {
    thread.join().map_err(|_| anyhow!("a thread panicked"))
}

#[cfg(test)]
mod tests {
    use super::{Contents, Modelled};
    use crate::cases::support::memory::{Memory, PAGE};
    use crate::cases::support::random::Random;

    fn written(pages: usize, random: &mut Random) -> Modelled {
        let mut modelled = Modelled::new(Memory::single(pages).unwrap());
        modelled
            .write_by_threads(random, 3, |range| {
                assert_eq!(range.end - range.start, (pages * PAGE) as u64);
                Ok(())
            })
            .unwrap();
        modelled
    }

    #[test]
    fn the_model_follows_what_is_done() {
        let mut random = Random::new(1);
        let mut all = vec![
            Modelled::new(Memory::single(50).unwrap()),
            written(70, &mut random),
        ];
        for step in 0..400 {
            let index = random.below(all.len());
            match step % 6 {
                0 | 1 => {
                    all[index].write(&mut random);
                }
                2 => {
                    all[index].discard(&mut random).unwrap();
                }
                3 => {
                    all[index].free(&mut random).unwrap();
                }
                4 => {
                    let remapped = all.swap_remove(index).remap(&mut random).unwrap();
                    all.push(remapped);
                }
                _ => {
                    let left = all.swap_remove(index).cut(&mut random).unwrap();
                    all.extend(left);
                    all.push(written(40, &mut random));
                }
            }
            let some = &all[random.below(all.len())];
            some.check_by_threads(&mut random, 3, |_| Ok(())).unwrap();
        }
        for modelled in &all {
            modelled.check_all().unwrap();
        }
    }

    #[test]
    fn what_is_wrong_is_noticed() {
        let mut random = Random::new(2);
        let mut modelled = written(9, &mut random);
        modelled.memory.bytes_mut()[5 * PAGE + 8] ^= 1;
        let error = format!("{:#}", modelled.check_all().unwrap_err());
        assert!(error.contains("page 5, byte 8: expected"), "{error}");
        // A page that may be lost must be lost as a whole.
        let Contents::Pattern(seed) = modelled.pages[5] else {
            panic!("the page was written");
        };
        modelled.pages[5] = Contents::PatternOrZeroes(seed);
        assert!(modelled.check_all().is_err());
        modelled.memory.bytes_mut()[5 * PAGE..6 * PAGE].fill(0);
        modelled.check_all().unwrap();
        modelled.pages[5] = Contents::Pattern(seed);
        assert!(modelled.check_all().is_err());
    }
}
