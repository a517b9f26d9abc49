// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause
//! Has the device fill memory and compute its CRC-32C, and waits for the end by `poll()`.
//!
//! Usage: job [/dev/hmmN]
#![allow(unsafe_code)]

use hmm_uapi::client::{Device, JobReport, JobRequest};
use hmm_uapi::JobState;
use rustix::event::{eventfd, poll, EventfdFlags, PollFd, PollFlags};
use rustix::fd::AsFd;
use std::error::Error;

const BYTES: usize = 1 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let node = std::env::args().nth(1).unwrap_or("/dev/hmm0".into());
    let device = Device::open(node)?;
    let mut memory = vec![0_u8; BYTES];
    let start = memory.as_mut_ptr().expose_provenance() as u64;
    let range = start..start + BYTES as u64;

    let event = eventfd(0, EventfdFlags::CLOEXEC)?;
    let run = |request: JobRequest<'_>| -> Result<JobReport, Box<dyn Error>> {
        // SAFETY: `memory` lives longer than the job, which has ended when this returns, and nothing refers to it meanwhile.
        let id = unsafe { device.begin_job(&request.notifying(event.as_fd())) }?;
        poll(&mut [PollFd::new(&event, PollFlags::IN)], None)?;
        rustix::io::read(&event, &mut [0; 8])?;
        Ok(device.job_state(id)?)
    };
    let fill = run(JobRequest::fill(range.clone(), 0x0706_0504_0302_0100))?;
    assert!(fill.state == JobState::Done, "{fill:?}");
    let crc = run(JobRequest::crc32c(range, 0))?;
    assert!(crc.state == JobState::Done, "{crc:?}");
    assert!(
        (memory[0], memory[BYTES - 1]) == (0, 7),
        "the memory was not filled"
    );
    println!("CRC-32C {:08x} of {} bytes", crc.result, crc.amount);
    Ok(())
}
