// SPDX-License-Identifier: GPL-2.0-only

//! What the driver has for one device and keeps when the device is lost: its pool, its nodes, and what must be the same
//! when it comes back.

use super::{
    debugfs,
    node_number::NodeNumber, //
};
use crate::{
    contexts::Numbers,
    device::DevicePool,
    dmirror::Dmirror,
    link::Shape,
    loss::{
        LossCounts,
        Presence, //
    },
    session::Session,
    stats::Stats,
    sys::services::{
        module_ref::ModuleRef,
        node::Node,
        trace, //
    }, //
};
use kernel::{
    debugfs::Scope,
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    }, //
};

/// The nodes, and what else stands for the device under its name.
#[pin_data]
struct Front {
    #[pin]
    node: Node<Session>,
    _dmirror: Option<Pin<KBox<Node<Dmirror>>>>,
    #[pin]
    _debugfs: Scope<debugfs::Sources>,
    // Free again when nothing has the name any more.
    number: NodeNumber,
}

/// Whether a device works with an instance.
struct Binding {
    is_bound: bool,
    /// More than the number of resets of any link so far.
    resets: u32,
    /// Keeps the module while no device is bound and pages are in use, whose faults it serves.
    _module: Option<ModuleRef>,
    /// What was told of the changes.
    told: Told,
}

/// What users were told by uevents.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Told {
    counts: LossCounts,
    is_gone: bool,
}

/// See the module.
///
/// # Lock order
///
/// `front` > `binding`.
#[pin_data]
pub(super) struct Instance {
    #[pin]
    front: Mutex<Option<Pin<KBox<Front>>>>,
    #[pin]
    binding: Mutex<Binding>,
    pool: Arc<DevicePool>,
    stats: Arc<Stats>,
    numbers: Arc<Numbers>,
    shape: Shape,
}

impl Instance {
    /// An instance whose device is about to be bound. Its node appears with [`Instance::show`].
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn new(pool: Arc<DevicePool>, stats: Arc<Stats>, shape: Shape) -> Result<Arc<Self>> {
        let numbers = Arc::pin_init(Numbers::new(), GFP_KERNEL)?;
        let binding = Binding {
            is_bound: true,
            resets: 0,
            _module: None,
            told: Told::default(),
        };
        Arc::pin_init(
            pin_init!(Self {
                front <- new_mutex!(None, "driver::Instance::front"),
                binding <- new_mutex!(binding, "driver::Instance::binding"),
                pool,
                stats,
                numbers,
                shape,
            }),
            GFP_KERNEL,
        )
    }

    /// Makes the nodes and the folder in debugfs.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; what the kernel reports.
    pub(super) fn show(&self, number: NodeNumber) -> Result {
        let name = number.name();
        let session = Session::new(self.pool.clone())?;
        let dmirror = number
            .dmirror_name()
            .filter(|_| *crate::module_parameters::dmirror.value_ref() != 0)
            .map(|name| {
                KBox::pin_init(Node::new(name, Dmirror::new(self.pool.clone())), GFP_KERNEL)
            })
            .transpose()?;
        let front = try_pin_init!(Front {
            node <- Node::new(name, session),
            _dmirror: dmirror,
            _debugfs <- debugfs::folder(name, self.stats.clone(), self.pool.clone()),
            number,
        }? Error);
        let front = KBox::pin_init(front, GFP_KERNEL)?;
        *self.front.lock() = Some(front);
        Ok(())
    }

    /// Takes the nodes away. Files that are open stay.
    pub(super) fn hide(&self) {
        let front = self.front.lock().take();
        drop(front);
    }

    /// Its memory.
    pub(super) fn pool(&self) -> &Arc<DevicePool> {
        &self.pool
    }

    /// Its counters.
    pub(super) fn stats(&self) -> &Arc<Stats> {
        &self.stats
    }

    /// The numbers of its contexts.
    pub(super) fn numbers(&self) -> &Arc<Numbers> {
        &self.numbers
    }

    /// What must be the same of the device when it comes back.
    pub(super) fn shape(&self) -> Shape {
        self.shape
    }

    /// With what the next link begins to count resets.
    pub(super) fn resets(&self) -> u32 {
        self.binding.lock().resets
    }

    /// Marks the instance as bound if its device is lost and none is bound. Returns whether it is this caller's now.
    pub(super) fn try_bind(&self) -> bool {
        let mut binding = self.binding.lock();
        let may = !binding.is_bound && self.pool.loss().presence() == Presence::Lost;
        binding.is_bound |= may;
        may
    }

    /// No device is bound any more, whose link was reset so many times. `module` is kept until no page is in use.
    pub(super) fn unbound(&self, resets: u32, module: Option<ModuleRef>) {
        let mut binding = self.binding.lock();
        binding.is_bound = false;
        binding.resets = binding.resets.max(resets.wrapping_add(1));
        binding._module = module;
    }

    /// A link that was reset so many times has ended before its device was bound.
    pub(super) fn count_resets(&self, resets: u32) {
        let mut binding = self.binding.lock();
        binding.resets = binding.resets.max(resets.wrapping_add(1));
    }

    /// No device was bound after all, once [`Instance::try_bind`] had said that one may be.
    pub(super) fn not_bound(&self) {
        self.binding.lock().is_bound = false;
    }

    /// A device is bound again, so the module cannot go without it.
    pub(super) fn bound(&self) {
        let module = self.binding.lock()._module.take();
        drop(module);
    }

    /// Whether something will be to do for it after some time.
    pub(super) fn needs_care(&self) -> bool {
        match self.pool.loss().presence() {
            Presence::Present => false,
            Presence::Lost => true,
            // Until the last page is free.
            Presence::Gone => !self.binding.lock().is_bound,
        }
    }

    /// Whether it serves for nothing any more.
    pub(super) fn is_over(&self) -> bool {
        !self.binding.lock().is_bound
            && self.pool.loss().presence() == Presence::Gone
            && self.pool.pages().resident_bytes() == 0
    }

    /// Does what time asks for: counts a device as gone that was away for too long, tells users what happened, and lets
    /// the module go when no page needs it.
    pub(super) fn look_after(&self) {
        let loss = self.pool.loss();
        loss.expire_if_overdue();
        let now = Told {
            counts: loss.counts(),
            is_gone: loss.presence() == Presence::Gone,
        };
        let before = core::mem::replace(&mut self.binding.lock().told, now);
        if now != before {
            self.tell(before, now);
        }
        if now.is_gone {
            self.hide();
        }
        if self.pool.pages().resident_bytes() == 0 {
            let module = self.binding.lock()._module.take();
            drop(module);
        }
    }

    /// Tells users of each change, by a uevent and a trace event.
    fn tell(&self, before: Told, now: Told) {
        let front = self.front.lock();
        let Some(front) = front.as_ref() else {
            return;
        };
        let resident = self.pool.pages().resident_bytes();
        let tell = |word: Word| {
            trace::presence(front.number.name(), word.name(), resident);
            front.node.announce(word.variable());
        };
        let (old, new) = (before.counts, now.counts);
        // They alternate. What is gone, or lost again, was lost last.
        let (mut losses, mut returns) = (new.losses - old.losses, new.returns - old.returns);
        let mut is_lost = old.losses > old.returns;
        while losses + returns > 0 {
            match is_lost {
                true if returns > 0 => {
                    returns -= 1;
                    tell(Word::Returned);
                }
                false if losses > 0 => {
                    losses -= 1;
                    tell(Word::Lost);
                }
                _ => break,
            }
            is_lost = !is_lost;
        }
        if new.refusals > old.refusals {
            tell(Word::Refused);
        }
        if now.is_gone && !before.is_gone {
            tell(Word::Gone);
        }
    }
}

/// What users are told.
#[derive(Clone, Copy)]
enum Word {
    Lost,
    Returned,
    Refused,
    Gone,
}

impl Word {
    /// As trace events have it.
    fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Returned => "returned",
            Self::Refused => "refused",
            Self::Gone => "gone",
        }
    }

    /// As uevents have it.
    fn variable(self) -> &'static CStr {
        match self {
            Self::Lost => c"HMM_DEVICE=lost",
            Self::Returned => c"HMM_DEVICE=returned",
            Self::Refused => c"HMM_DEVICE=refused",
            Self::Gone => c"HMM_DEVICE=gone",
        }
    }
}
