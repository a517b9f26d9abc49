// SPDX-License-Identifier: GPL-2.0-only

//! A job touched a page that the device may not access, or not in this way.

use super::{
    access::access_to,
    exclusive::{
        make_exclusive,
        OfFault, //
    },
    policy,
    table::{
        Pages,
        Spare,
        GRANULE_BYTES, //
    },
    view::{
        Followed,
        View, //
    }, //
};
use crate::{
    contexts::{
        ContextOwner,
        DeviceFault, //
    },
    device::Device,
    link::{
        Link,
        Mapped, //
    },
    stats::Stage,
    sys::address_space::{
        mirror::{
            MirrorPart,
            Seen,
            SeenPage,
            Wanted, //
        },
        mm::{
            end_of_addresses,
            Vma,
            VmaObstacle, //
        },
        mmap_lock::MmapReadGuard,
        owner_rules::under_rules_of, //
    }, //
    sys::services::trace::{
        self,
        DeviceFaultEvent, //
    },
};
use core::ops::Range;
use hmm_logic::PageAccess;
use hmm_protocol::{
    FaultAccess,
    MapEntry,
    Status, //
};
use hmm_uapi::Trigger;
use kernel::{
    mm::{
        Mm,
        MmWithUser, //
    },
    page::PAGE_SIZE,
    prelude::*,
    time::{
        Delta,
        Instant,
        Monotonic, //
    }, //
};

/// Pages of system memory around the fault that are mapped if they are there, bytes.
const AROUND: usize = 64 << 10;
/// How long a page is tried that changes all the time. Then the job tries again, and the device ends it if that
/// goes on.
const PATIENCE: Delta = Delta::from_millis(1000);

/// What came of a try.
pub(super) enum Try {
    /// So many pages are mapped, and the job goes on.
    Mapped(usize),
    /// Something changed meanwhile.
    Again,
}

impl ContextOwner for Followed {
    fn serve(&self, fault: DeviceFault) {
        serve(self, &fault);
    }

    fn close(&self) {
        self.mirrored().close();
    }

    fn lose(&self, link: &Link) {
        self.mirrored().table.lock().lose(link);
    }

    fn advised(&self, mm: &Mm, range: &Range<usize>) {
        if self.mm().as_raw() == mm.as_raw() {
            self.mirrored().take_for_advice(range);
        }
    }
}

/// Serves a device fault.
fn serve(followed: &Followed, fault: &DeviceFault) {
    let view = followed.mirrored();
    // Without a device, or while it is going, the job is ended by that.
    let Some(device) = view.pool.attached() else {
        return;
    };
    let stats = &device.stats().contexts;
    stats.device_faults.add(1);
    let time = (device.stats()).measure(Stage::DeviceFault, Trigger::DeviceFault);
    let mapped = under_rules_of(followed.mm(), || map(followed, &device, fault));
    let (word, pages, entry) = match mapped {
        Ok(Try::Mapped(pages)) => ("ok", pages as u64, None),
        Ok(Try::Again) => ("retry", 0, Some(MapEntry::resume(fault.number))),
        Err(status) => {
            stats.device_faults_failed.add(1);
            let entry = MapEntry::fail(fault.number, status);
            (status.name(), 0, Some(entry))
        }
    };
    stats.device_fault_pages.add(pages);
    if let Some(entry) = entry {
        // A job that has ended meanwhile needs no answer.
        (view.table.lock()).answer(device.link(), view.context, entry);
    }
    let event = DeviceFaultEvent {
        context: view.context,
        number: fault.number,
        address: fault.address,
        access: access_name(fault.access),
    };
    trace::device_fault(device.vdev(), &event, word, pages, time.started());
}

/// The name of what a job was about to do.
fn access_name(access: FaultAccess) -> &'static str {
    match access {
        FaultAccess::READ => "read",
        FaultAccess::WRITE => "write",
        FaultAccess::ATOMIC => "atomic",
        FaultAccess::FETCH => "fetch",
        _ => "unknown",
    }
}

/// Maps what the job wants, and lets it try again.
fn map(
    followed: &Followed,
    device: &Device,
    fault: &DeviceFault,
) -> core::result::Result<Try, Status> {
    let access = match fault.access {
        FaultAccess::READ | FaultAccess::FETCH => PageAccess::Read,
        FaultAccess::WRITE => PageAccess::Write,
        FaultAccess::ATOMIC => PageAccess::Atomic,
        _ => return Err(Status::Forbidden),
    };
    let mm = followed.mm().mmget_not_zero().ok_or(Status::Unmapped)?;
    let most = end_of_addresses(&mm);
    let address = usize::try_from(fault.address).map_err(|_| Status::Unmapped)?;
    if address >= most {
        return Err(Status::Unmapped);
    }
    let page = address & !(PAGE_SIZE - 1);
    if let Some(tried) = resume(followed, device, page, access, fault.number) {
        return Ok(tried);
    }
    let bytes = usize::try_from(fault.bytes).unwrap_or(usize::MAX).max(1);
    let granule = page & !(GRANULE_BYTES - 1);
    let all = granule..granule.saturating_add(GRANULE_BYTES).min(most);
    let end = address.saturating_add(bytes).min(all.end);
    let wanted = page..end.next_multiple_of(PAGE_SIZE).min(all.end);
    let advised = followed.mirrored().table.lock().advised();
    policy::migrate_first(followed, device, &mm, &wanted);

    let along = policy::mapped_along(followed, page, &all);
    let part = KBox::pin_init(followed.part(&mm, all.clone()), GFP_KERNEL);
    let part = part.map_err(|_| Status::NoMemory)?;
    let mut attempt = Attempt {
        followed,
        part: &part,
        device,
        mm: &mm,
        all,
        along,
        page,
        wanted,
        access,
        fault: OfFault {
            number: fault.number,
            advised,
        },
    };
    let began = Instant::<Monotonic>::now();
    while began.elapsed() < PATIENCE && !device.link().is_stopping() && attempt.is_as_advised() {
        match attempt.run() {
            Ok(Try::Again) => {}
            Ok(tried) => return Ok(tried),
            Err(error) if error == EBUSY || error == EAGAIN => {}
            // Some of the pages that the job is going to access cannot be had. The first may.
            Err(error) if error != EIO && attempt.wanted.len() > PAGE_SIZE => {
                attempt.wanted.end = page + PAGE_SIZE;
            }
            Err(error) => return Err(status_of(error, &attempt)),
        }
    }
    Ok(Try::Again)
}

/// Lets the job try again at once if another fault has mapped the page meanwhile.
fn resume(
    followed: &Followed,
    device: &Device,
    page: usize,
    access: PageAccess,
    number: u64,
) -> Option<Try> {
    let view = followed.mirrored();
    let table = view.table.lock();
    if !table.has(device.link(), page, access) {
        return None;
    }
    table.answer(device.link(), view.context, MapEntry::resume(number));
    Some(Try::Mapped(0))
}

/// Tries to map what a job wants.
struct Attempt<'a> {
    followed: &'a Followed,
    /// Of the granule: what changes elsewhere does not matter.
    part: &'a MirrorPart<'a, View>,
    device: &'a Device,
    mm: &'a MmWithUser,
    /// The granule, as far as there are addresses.
    all: Range<usize>,
    /// The part of it of which pages of system memory may be mapped along.
    along: Range<usize>,
    page: usize,
    /// The pages that the job is going to access.
    wanted: Range<usize>,
    access: PageAccess,
    fault: OfFault,
}

impl Attempt<'_> {
    /// Whether the advice that was followed is still the one that is given. Otherwise the job tries again.
    fn is_as_advised(&self) -> bool {
        self.followed.mirrored().table.lock().advised() == self.fault.advised
    }

    fn run(&self) -> Result<Try> {
        let mut spare = Spare::new()?;
        let (first, pages) = (self.index(self.page), self.index(self.all.end));
        let mut entries = KVVec::from_elem(0usize, pages, GFP_KERNEL)?;
        let wanted = match self.access {
            PageAccess::Read => Wanted::Read,
            PageAccess::Write | PageAccess::Atomic => Wanted::Write,
        };
        let sequence = self.part.begin();
        {
            let gives_up = || self.device.link().is_stopping();
            let guard = MmapReadGuard::lock(self.mm, gives_up)?;
            // On their own: where there is no page table, the kernel faults in every page of a range of which any
            // page is wanted.
            let part = entries.get_mut(first..self.index(self.wanted.end));
            let part = part.ok_or(EINVAL)?;
            part.fill(wanted.entry());
            self.part
                .fault(&guard, self.wanted.clone(), sequence, part)?;
            entries.fill(0);
            self.part
                .fault(&guard, self.all.clone(), sequence, &mut entries)?;
        }
        let here = match entries.get(first).map(|&entry| Seen::of(entry)) {
            Some(Seen::Page(page)) => page,
            // It was there at the first look. Between the two another task has begun to migrate it, or another job
            // got it for itself, which is no change of the address space and does not count as one.
            _ => return Ok(Try::Again),
        };
        if self.access != PageAccess::Read && !here.is_writable() {
            return self.unshare();
        }
        if self.access == PageAccess::Atomic && !self.is_of_device(here) {
            let (followed, fault) = (self.followed, Some(self.fault));
            return make_exclusive(followed, self.device, self.mm, self.page, fault)
                .map(Try::Mapped);
        }
        let view = self.followed.mirrored();
        let mut seen = (0..).zip(&*entries).map(|(index, &entry)| {
            let address = self.all.start + index * PAGE_SIZE;
            match Seen::of(entry) {
                Seen::Page(page) if self.is_worth_mapping(address, page) => {
                    Some((page, access_to(self.device, page)))
                }
                _ => None,
            }
        });
        let mut table = view.table.lock();
        if self.part.has_changed(sequence) || table.advised() != self.fault.advised {
            return Ok(Try::Again);
        }
        let pages = Pages {
            start: self.all.start,
            seen: &mut seen,
        };
        let (link, memory) = (self.device.link(), self.device.memory());
        let number = Some(self.fault.number);
        let (count, mapped) = table.map(link, view.context, memory, pages, number, &mut spare);
        drop(table);
        match mapped {
            // Without a context there is no job either.
            Mapped::All | Mapped::Reset => Ok(Try::Mapped(count)),
            Mapped::Failed(_, Status::Busy | Status::NoMemory)
            | Mapped::Refused(Status::Busy | Status::NoMemory) => Err(ENOMEM),
            Mapped::Failed(..) | Mapped::Refused(_) => {
                self.device.stats().protocol_errors.add(1);
                Err(EIO)
            }
        }
    }

    /// `hmm_range_fault()` takes a device page of the driver's own as it is, also if it was to be written and may only
    /// be read. Migrates such a page back, so that the next try breaks the sharing with other processes.
    fn unshare(&self) -> Result<Try> {
        {
            let gives_up = || self.device.link().is_stopping();
            let guard = MmapReadGuard::lock(self.mm, gives_up)?;
            let vma = Vma::find(&guard, self.page).filter(|vma| vma.start() <= self.page);
            if !vma.ok_or(EFAULT)?.is_writable() {
                return Err(EPERM);
            }
        }
        policy::migrate_back(self.followed, self.device, self.mm, self.page)?;
        Ok(Try::Again)
    }

    fn index(&self, address: usize) -> usize {
        (address - self.all.start) / PAGE_SIZE
    }

    fn is_of_device(&self, page: SeenPage) -> bool {
        self.device.memory().index_of_pfn(page.pfn()).is_some()
    }

    /// Whether a page that is there is mapped along: what the job wants, all that is on the device or huge,
    /// and a little of the rest, since each page that is mapped costs a message when it goes.
    fn is_worth_mapping(&self, address: usize, page: SeenPage) -> bool {
        self.wanted.contains(&address)
            || self.is_of_device(page)
            || self.along.contains(&address)
                && (page.is_huge() || address / AROUND == self.page / AROUND)
    }
}

/// How a job ends whose page cannot be had.
fn status_of(error: Error, attempt: &Attempt<'_>) -> Status {
    match error {
        ENOMEM => Status::NoMemory,
        EFAULT => {
            let gives_up = || attempt.device.link().is_stopping();
            let Ok(guard) = MmapReadGuard::lock(attempt.mm, gives_up) else {
                return Status::Unmapped;
            };
            let vma = Vma::find(&guard, attempt.page).filter(|vma| vma.start() <= attempt.page);
            match vma.and_then(|vma| vma.obstacle()) {
                Some(VmaObstacle::NoAccess | VmaObstacle::Special) => Status::Forbidden,
                _ => Status::Unmapped,
            }
        }
        _ => Status::Forbidden,
    }
}
