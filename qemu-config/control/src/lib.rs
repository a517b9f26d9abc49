// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the host and the guest's init say to each other.
//!
//! The two talk through named virtio-serial ports ([`port`]). The control port carries one JSON value a line
//! ([`line`]): the host sends a [`Request`], the guest sends a [`Report`]. The other ports carry bytes as they are;
//! where such a stream ends is said on the control port, as a count of all bytes since the guest started, because
//! a virtio-serial port has no end of file of its own.
//!
//! What the guest has to know before the ports are open stands in a file of its image ([`plan`]). The benchmark talks to
//! its program in the guest through that program's standard streams ([`bench`]), and fetches what was recorded
//! ([`recording`]) by a command.

#![forbid(unsafe_code)]

pub mod bench;
mod depth;
mod harm;
pub mod line;
pub mod plan;
pub mod port;
pub mod recording;
mod report;
mod request;
mod text;

pub use depth::{Depth, UnknownDepth};
pub use harm::{Again, Comeback, Deed, Harm};
pub use report::{ExecError, ExitStatus, Hello, HostRoot, ModuleReport, Question, Report};
pub use request::{Exec, Load, OutputStream, Request, Root, WindowSize};
pub use text::Text;

/// The version of everything in this crate. Host and guest image are made together; another version means that one
/// of them is stale.
pub const VERSION: u32 = 5;

/// What a guest writes to its kernel's log once it has slept, woken and found everything in order. Its ports do not
/// survive that.
pub const WOKE_WELL: &str = "hmm-agent: woke, and every byte is right";
