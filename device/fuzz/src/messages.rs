// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whatever a front end may send: messages with any contents and descriptors, in any order, over a real socket.

use std::{
    fs::File,
    io::{IoSlice, Read},
    mem::MaybeUninit,
    net::Shutdown,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::{SocketAddr, UnixListener, UnixStream},
    },
    sync::{Arc, OnceLock},
};

use arbitrary::{Arbitrary, Unstructured};
use rustix::{
    event::{EventfdFlags, eventfd},
    fs::{MemfdFlags, memfd_create},
    net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg},
};
use vhost_user_hmm::{connection, device::Device};

use crate::fixture;

const GUEST_BYTES: u64 = 1 << 20;
/// A connection sends no more than fits into the socket, so that sending never waits.
const MAX_MESSAGES: usize = 64;

#[derive(Debug, Arbitrary)]
enum Attached {
    Memory,
    Event,
    Broken,
}

#[derive(Debug, Arbitrary)]
enum Body {
    /// Any bytes.
    Bytes(Vec<u8>),
    /// A number.
    Number(u64),
    /// A queue's index and a number.
    State { index: u8, number: u16 },
    /// A ring's addresses.
    Address {
        index: u8,
        descriptors: u32,
        used: u32,
        available: u32,
    },
    /// One memory region.
    Region {
        guest: u32,
        bytes: u32,
        user: u32,
        offset: u16,
    },
    /// A part of the configuration space.
    Config { offset: u8, size: u8 },
}

#[derive(Debug, Arbitrary)]
struct Message {
    code: u8,
    flags: u8,
    wrong_size: Option<u16>,
    body: Body,
    attached: Vec<Attached>,
}

impl Message {
    fn bytes(&self) -> Vec<u8> {
        let body = match &self.body {
            Body::Bytes(bytes) => bytes[..bytes.len().min(1024)].to_vec(),
            Body::Number(number) => number.to_le_bytes().to_vec(),
            Body::State { index, number } => [
                u32::from(*index % 8).to_le_bytes(),
                u32::from(*number).to_le_bytes(),
            ]
            .concat(),
            Body::Address {
                index,
                descriptors,
                used,
                available,
            } => {
                let mut body = u64::from(*index % 8).to_le_bytes().to_vec();
                for address in [descriptors, used, available] {
                    body.extend((u64::from(*address) % (2 * GUEST_BYTES)).to_le_bytes());
                }
                body.extend(0u64.to_le_bytes());
                body
            }
            Body::Region {
                guest,
                bytes,
                user,
                offset,
            } => {
                let mut body = 0u64.to_le_bytes().to_vec();
                for field in [*guest, *bytes % (2 << 20), *user, u32::from(*offset)] {
                    body.extend(u64::from(field).to_le_bytes());
                }
                body
            }
            Body::Config { offset, size } => {
                let mut body = Vec::new();
                for field in [u32::from(*offset), u32::from(*size), 0] {
                    body.extend(field.to_le_bytes());
                }
                body.extend(std::iter::repeat_n(0, usize::from(*size)));
                body
            }
        };
        let size = self.wrong_size.map_or(body.len() as u32, u32::from);
        let flags = 1 | u32::from(self.flags & 8);
        let mut message = Vec::new();
        for word in [u32::from(self.code % 48), flags, size] {
            message.extend(word.to_le_bytes());
        }
        message.extend(body);
        message
    }
}

impl Attached {
    fn descriptor(&self) -> Option<OwnedFd> {
        match self {
            Self::Memory => {
                let descriptor = memfd_create("fuzz-guest", MemfdFlags::CLOEXEC).ok()?;
                let file = File::from(descriptor);
                file.set_len(GUEST_BYTES).ok()?;
                Some(file.into())
            }
            Self::Event => eventfd(0, EventfdFlags::CLOEXEC).ok(),
            // One end of a pair whose other end is gone: always ready, never to be read.
            Self::Broken => UnixStream::pair().ok().map(|(end, _)| end.into()),
        }
    }
}

/// The bytes describe messages, which are sent at once; then the front end hangs up. The device must notice.
pub fn run(data: &[u8]) {
    static DEVICE: OnceLock<Arc<Device>> = OnceLock::new();
    let device = DEVICE.get_or_init(|| Arc::new(fixture::device(256)));
    let Ok(messages) = Vec::<Message>::arbitrary_take_rest(Unstructured::new(data)) else {
        return;
    };
    let (listener, mut stream) = socket();
    for message in messages.iter().take(MAX_MESSAGES) {
        let descriptors: Vec<OwnedFd> = message
            .attached
            .iter()
            .take(8)
            .filter_map(Attached::descriptor)
            .collect();
        if !send(&stream, &message.bytes(), &descriptors) {
            break;
        }
    }
    stream.shutdown(Shutdown::Write).expect("it is connected");
    // The answers must be read, or the device would wait for room in the socket.
    let reader = std::thread::spawn(move || {
        let mut rest = Vec::new();
        // The device may reset the connection; that is an end as well.
        let _ = stream.read_to_end(&mut rest);
    });
    connection::serve(device, &listener, |_| ()).expect("whatever was sent is no failure of ours");
    drop(listener);
    reader.join().expect("the reader does not panic");
    assert!(
        device.engine().open_generation().is_none(),
        "a session outlived its front end"
    );
}

/// A listening socket and a stream that waits to be accepted.
fn socket() -> (UnixListener, UnixStream) {
    use std::os::linux::net::SocketAddrExt;
    static COUNT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let name = format!("hmm-fuzz-{}-{count}", std::process::id());
    let address = SocketAddr::from_abstract_name(name).expect("a short name");
    let listener = UnixListener::bind_addr(&address).expect("a name of our own");
    let stream = UnixStream::connect_addr(&address).expect("somebody listens");
    (listener, stream)
}

fn send(stream: &UnixStream, bytes: &[u8], descriptors: &[OwnedFd]) -> bool {
    let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !borrowed.is_empty() {
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&borrowed)));
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    sendmsg(stream, &[IoSlice::new(bytes)], &mut ancillary, flags).is_ok()
}
