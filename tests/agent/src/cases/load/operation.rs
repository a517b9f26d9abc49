// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What can be done to memory.

use crate::cases::support::random::Random;

/// One thing that a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    /// MIGRATE of a part.
    ToDevice,
    /// MIGRATE of a part, holes included.
    Populate,
    /// MIGRATE of all memory of the process.
    AllToDevice,
    /// MIGRATE of a part, the other way.
    ToSystem,
    /// Writes a part.
    Write,
    /// Compares a part.
    Check,
    /// Several threads write while the memory moves.
    WriteByThreads,
    /// Several threads compare while the memory moves.
    CheckByThreads,
    /// MADV_DONTNEED.
    Discard,
    /// MADV_FREE.
    Free,
    /// MADV_PAGEOUT.
    PageOut,
    /// MADV_COLLAPSE.
    Collapse,
    /// MADV_HUGEPAGE or MADV_NOHUGEPAGE.
    ChoosePages,
    /// MADV_MERGEABLE or MADV_UNMERGEABLE.
    Merge,
    /// mremap.
    Remap,
    /// munmap of a part.
    Cut,
    /// munmap of everything, and a new mapping.
    Replace,
    /// A child goes on with the same memory.
    Fork,
    /// Waits for a child.
    Bury,
    /// ADVISE.
    Advise,
    /// PREFETCH.
    Prefetch,
    /// WAIT, perhaps with CANCEL.
    Wait,
    /// EVICT of a part.
    Evict,
    /// LIMIT.
    Limit,
    /// Jobs write a part while the memory moves.
    WriteByDevice,
    /// Jobs compare a part while the memory moves.
    CheckByDevice,
    /// Jobs add to the words of a part what others subtract, while the memory moves.
    AddByDevice,
    /// Begins a job that reads a part while anything else is done.
    BeginJob,
    /// JOB_WAIT, perhaps with CANCEL.
    EndJob,
    /// Anything of the driver's, done to another process.
    Outside,
}

/// How often each is done, relative to the others.
const WEIGHTS: [(Operation, usize); 30] = [
    (Operation::ToDevice, 10),
    (Operation::Populate, 2),
    (Operation::AllToDevice, 3),
    (Operation::ToSystem, 4),
    (Operation::Write, 7),
    (Operation::Check, 8),
    (Operation::WriteByThreads, 2),
    (Operation::CheckByThreads, 3),
    (Operation::Discard, 2),
    (Operation::Free, 1),
    (Operation::PageOut, 2),
    (Operation::Collapse, 2),
    (Operation::ChoosePages, 1),
    (Operation::Merge, 1),
    (Operation::Remap, 2),
    (Operation::Cut, 1),
    (Operation::Replace, 1),
    (Operation::Fork, 2),
    (Operation::Bury, 1),
    (Operation::Advise, 2),
    (Operation::Prefetch, 2),
    (Operation::Wait, 2),
    (Operation::Evict, 1),
    (Operation::Limit, 1),
    (Operation::WriteByDevice, 3),
    (Operation::CheckByDevice, 4),
    (Operation::AddByDevice, 3),
    (Operation::BeginJob, 3),
    (Operation::EndJob, 2),
    (Operation::Outside, 0),
];

impl Operation {
    /// Every one.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        WEIGHTS.iter().map(|&(operation, _)| operation)
    }

    /// Whether jobs of the device do it.
    pub(super) fn is_by_device(self) -> bool {
        matches!(
            self,
            Self::WriteByDevice | Self::CheckByDevice | Self::AddByDevice | Self::BeginJob
        )
    }

    /// One that a worker may do.
    pub(super) fn some(random: &mut Random) -> Self {
        let sum = WEIGHTS.iter().map(|(_, weight)| weight).sum();
        let mut left = random.below(sum);
        for (operation, weight) in WEIGHTS {
            if left < weight {
                return operation;
            }
            left -= weight;
        }
        Self::Check
    }
}

#[cfg(test)]
mod tests {
    use super::{Operation, WEIGHTS};
    use crate::cases::support::random::Random;

    #[test]
    fn all_are_listed_and_those_with_a_weight_are_done() {
        for (index, operation) in Operation::all().enumerate() {
            assert_eq!(operation as usize, index);
        }
        let mut random = Random::new(1);
        let done: Vec<_> = (0..10_000).map(|_| Operation::some(&mut random)).collect();
        for (operation, weight) in WEIGHTS {
            assert_eq!(done.contains(&operation), weight > 0, "{operation:?}");
        }
    }
}
