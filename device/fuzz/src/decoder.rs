// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Requests of any bytes, to the engine itself.

use std::sync::{Mutex, OnceLock};

use hmm_protocol::{ControlKind, ControlRequest, SessionRequest, Status};
use vhost_user_hmm::{
    engine::{Engine, Job, Pace, Workspace},
    guest_memory::GuestMemory,
    layout::Role,
};
use zerocopy::IntoBytes;

use crate::fixture;

struct NoPace;

impl Pace for NoPace {
    fn between_slices(&self) {}
    fn is_wanted(&self) -> bool {
        false
    }
}

struct Rig {
    engine: Engine,
    guest: GuestMemory,
}

/// The first byte says how the rest is given: as it is, or with a header whose fixed fields are right, so that what is
/// behind it is reached.
pub fn run(data: &[u8]) {
    static RIG: OnceLock<Mutex<Rig>> = OnceLock::new();
    let rig = RIG.get_or_init(|| {
        let regions = [(0, 0x40000), (0x80000, 0x40000)];
        Mutex::new(Rig {
            engine: fixture::engine(),
            guest: GuestMemory::new(fixture::guest_memory(&regions)),
        })
    });
    let rig = rig.lock().expect("no panic before");
    let Some((mode, bytes)) = data.split_first() else {
        return;
    };
    let generation = rig.engine.open_generation().unwrap_or_else(|| {
        let open = SessionRequest {
            request: ControlRequest::new(ControlKind::SessionOpen, 0, 0, 0, 0),
            key: [1; 16],
        };
        rig.engine.control(open.as_bytes()).generation.get()
    });
    let mut request = bytes.to_vec();
    if mode & 1 != 0 && request.len() >= 32 {
        let page_list = mode & 2 != 0;
        let (entry, head) = if page_list { (8, 32) } else { (32, 0) };
        let count = (request.len() - 32).saturating_sub(head) / entry;
        request.truncate(32 + head + count * entry);
        request[0] = if page_list { 2 } else { 1 };
        request[1] &= 7;
        request[2..4].copy_from_slice(&(entry as u16).to_le_bytes());
        request[4..8].copy_from_slice(&(count as u32).to_le_bytes());
        request[16..24].copy_from_slice(&generation.to_le_bytes());
        request[24..32].fill(0);
    }
    let mut workspace = Workspace::default();
    let job = Job {
        role: match mode >> 7 {
            0 => Role::Urgent,
            _ => Role::Bulk(0),
        },
        guest: &rig.guest,
        pace: &NoPace,
        status_room: if mode & 4 != 0 { 0 } else { usize::MAX },
    };
    let report = rig.engine.execute(&request, &job, &mut workspace);
    assert_ne!(report.status, Status::NotAttempted);
    assert_eq!(report.completion.status, report.status.to_wire());
    if report.with_statuses {
        let ok = workspace
            .statuses()
            .iter()
            .filter(|byte| **byte == 1)
            .count();
        assert_eq!(ok, report.completion.entries_ok.get() as usize);
        assert!(
            workspace
                .statuses()
                .iter()
                .all(|byte| Status::from_wire(*byte).is_some())
        );
    }
    let reply = rig.engine.control(&request);
    assert!(Status::from_wire(reply.status).is_some());
}
