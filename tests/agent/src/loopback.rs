// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The loopback interface, which programs use to talk to themselves.

use rustix::io::Result;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, sendto, socket_with};

const RTM_NEWLINK: u16 = 16;
const NLM_F_REQUEST: u16 = 1;
const LOOPBACK_INDEX: u32 = 1;
const IFF_UP: u32 = 1;
/// A `struct nlmsghdr` and a `struct ifinfomsg`.
const LENGTH: u32 = 32;

/// Brings it up. Its addresses come by themselves.
pub(crate) fn up() -> Result<()> {
    // The protocol of interfaces and addresses is number 0.
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None,
    )?;
    sendto(
        &socket,
        &message(),
        SendFlags::empty(),
        &SocketAddrNetlink::new(0, 0),
    )?;
    Ok(())
}

/// The request to change the flags of the first interface.
fn message() -> Vec<u8> {
    let mut message = Vec::new();
    message.extend(LENGTH.to_ne_bytes());
    message.extend(RTM_NEWLINK.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    // Sequence number and sender, which the kernel does not need.
    message.extend([0; 8]);
    // Family, padding and type.
    message.extend([0; 4]);
    message.extend(LOOPBACK_INDEX.to_ne_bytes());
    // The flags, and which of them are to change.
    message.extend(IFF_UP.to_ne_bytes());
    message.extend(IFF_UP.to_ne_bytes());
    message
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_message_is_as_long_as_it_says() {
        assert_eq!(super::message().len(), super::LENGTH as usize);
    }
}
