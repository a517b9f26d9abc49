// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Serving a socket that is connected already (`--fd`).
//!
//! The library only accepts front ends on a listening socket, so a connected one is joined with a private pair: two
//! threads pass vhost-user messages on, whole, each with the descriptors that came with it. Only set-up goes this way;
//! rings and kicks do not.

use std::{
    io::{self, IoSlice, IoSliceMut, Read, Write},
    mem::MaybeUninit,
    net::Shutdown,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener, UnixStream},
    },
    thread,
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// Header of a vhost-user message: request, flags, size of what follows; 4 bytes each.
const HEADER_BYTES: usize = 12;
/// More than any message has.
const MAX_PAYLOAD_BYTES: usize = 64 << 10;
/// Descriptors of one message: one for each of at most eight memory regions, with room to spare.
const MAX_DESCRIPTORS: usize = 32;

/// A listening socket on which `stream` is, as it were, about to be accepted.
///
/// # Errors
/// The system's reason.
pub fn listen_for(stream: UnixStream) -> io::Result<UnixListener> {
    let mut name = [0; 16];
    getrandom::fill(&mut name).map_err(|error| io::Error::other(error.to_string()))?;
    let address = SocketAddr::from_abstract_name(uuid::Uuid::from_bytes(name).to_string())?;
    let listener = UnixListener::bind_addr(&address)?;
    let inner = UnixStream::connect_addr(&address)?;
    pump("relay-in", stream.try_clone()?, inner.try_clone()?)?;
    pump("relay-out", inner, stream)?;
    Ok(listener)
}

/// Passes messages from `from` to `to` until either ends, and then ends both.
fn pump(name: &str, from: UnixStream, to: UnixStream) -> io::Result<()> {
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            if let Err(error) = pass_all(&from, &to) {
                tracing::debug!(%error, "the front end's socket failed");
            }
            let _ = to.shutdown(Shutdown::Both);
            let _ = from.shutdown(Shutdown::Both);
        })?;
    Ok(())
}

fn pass_all(mut from: &UnixStream, mut to: &UnixStream) -> io::Result<()> {
    let mut message = vec![0; HEADER_BYTES];
    loop {
        message.resize(HEADER_BYTES, 0);
        let descriptors = receive(from, &mut message)?;
        let Some((read, descriptors)) = descriptors else {
            return Ok(());
        };
        from.read_exact(&mut message[read..])?;
        let size = message[8..12]
            .iter()
            .rev()
            .fold(0usize, |size, byte| size << 8 | usize::from(*byte));
        if size > MAX_PAYLOAD_BYTES {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("a message announces {size} bytes"),
            ));
        }
        message.resize(HEADER_BYTES + size, 0);
        from.read_exact(&mut message[HEADER_BYTES..])?;
        let sent = send(to, &message, &descriptors)?;
        to.write_all(&message[sent..])?;
    }
}

/// Receives at most `buffer` and the descriptors that come with it; `None` at the end.
fn receive(from: &UnixStream, buffer: &mut [u8]) -> io::Result<Option<(usize, Vec<OwnedFd>)>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(
        from,
        &mut [IoSliceMut::new(buffer)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    if received.bytes == 0 {
        return Ok(None);
    }
    let descriptors = ancillary
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        })
        .flatten()
        .collect();
    Ok(Some((received.bytes, descriptors)))
}

/// Sends what the socket takes of `bytes`, with the descriptors.
fn send(to: &UnixStream, bytes: &[u8], descriptors: &[OwnedFd]) -> io::Result<usize> {
    let borrowed: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !borrowed.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(&borrowed)) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "a message has more descriptors than any should",
        ));
    }
    Ok(sendmsg(
        to,
        &[IoSlice::new(bytes)],
        &mut ancillary,
        SendFlags::NOSIGNAL,
    )?)
}
