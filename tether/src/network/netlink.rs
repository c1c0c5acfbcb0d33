//! The kernel's routing socket, as far as one configures interfaces with it (rtnetlink(7)).
//!
//! A request is built ([`Message`]), sent and answered at once: the kernel works on it inside the send. Nothing
//! is listed here; what interfaces have is looked up in [`crate::host::interfaces`].

use std::net::IpAddr;
use std::os::fd::{AsRawFd as _, OwnedFd};

use guestinfo::IpNet;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send,
    socket,
};

// linux/netlink.h, linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h.
const NLMSG_ERROR: u16 = 2;
const NEW_LINK: u16 = 16;
const NEW_ADDR: u16 = 20;
const DEL_ADDR: u16 = 21;
const NEW_ROUTE: u16 = 24;
const DEL_ROUTE: u16 = 25;
const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
const REPLACE: u16 = 0x100;
const CREATE: u16 = 0x400;
const HEADER: usize = 16;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_IFALIAS: u16 = 20;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
/// An address of v6 is usable at once, without asking the others on the line whether they have it.
const IFA_F_NODAD: u8 = 0x02;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_STATIC: u8 = 4;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_LINK: u8 = 253;
const RTN_UNICAST: u8 = 1;
/// The gateway is on the line although no address says so.
const RTNH_F_ONLINK: u32 = 4;

/// A request to the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    bytes: Vec<u8>,
}

impl Message {
    fn new(kind: u16, flags: u16, body: &[u8]) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(REQUEST | ACK | flags).to_ne_bytes());
        bytes.extend_from_slice(body);
        Self { bytes }
    }

    /// Attributes are aligned to four bytes.
    fn with(mut self, kind: u16, value: &[u8]) -> Self {
        let len = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
        self.bytes.extend_from_slice(&len.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self
    }

    fn with_text(self, kind: u16, text: &str) -> Self {
        let zero_ended = [text.as_bytes(), b"\0"].concat();
        self.with(kind, &zero_ended)
    }

    fn with_ip(self, kind: u16, ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(v4) => self.with(kind, &v4.octets()),
            IpAddr::V6(v6) => self.with(kind, &v6.octets()),
        }
    }

    /// Ready to be sent.
    fn finished(mut self) -> Vec<u8> {
        let len = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        self.bytes[..4].copy_from_slice(&len.to_ne_bytes());
        self.bytes
    }

    fn link(index: u32, flags: libc::c_int) -> Self {
        let mut body = [0; 16];
        body[4..8].copy_from_slice(&index.to_ne_bytes());
        body[8..12].copy_from_slice(&flags.to_ne_bytes());
        // Which of the flags are meant.
        body[12..16].copy_from_slice(&libc::IFF_UP.to_ne_bytes());
        Self::new(NEW_LINK, 0, &body)
    }

    /// Switches an interface on, with this size of packets if any is given.
    pub fn up(index: u32, mtu: Option<u32>) -> Self {
        let message = Self::link(index, libc::IFF_UP);
        match mtu {
            Some(mtu) => message.with(IFLA_MTU, &mtu.to_ne_bytes()),
            None => message,
        }
    }

    /// Switches an interface off and gives it another name.
    pub fn rename(index: u32, name: &str) -> Self {
        Self::link(index, 0).with_text(IFLA_IFNAME, name)
    }

    /// Gives an interface a second name, for people.
    pub fn alias(index: u32, name: &str) -> Self {
        let mut body = [0; 16];
        body[4..8].copy_from_slice(&index.to_ne_bytes());
        Self::new(NEW_LINK, 0, &body).with(IFLA_IFALIAS, name.as_bytes())
    }

    /// Gives an interface an address, or leaves it that.
    pub fn add_address(index: u32, net: IpNet) -> Self {
        let message = Self::address(NEW_ADDR, CREATE | REPLACE, index, net);
        match net.addr {
            IpAddr::V4(v4) if net.prefix_len < 31 => {
                let hosts = u32::MAX.checked_shr(net.prefix_len.into()).unwrap_or(0);
                message.with(IFA_BROADCAST, &(v4.to_bits() | hosts).to_be_bytes())
            }
            _ => message,
        }
    }

    /// Takes an address from an interface.
    pub fn remove_address(index: u32, net: IpNet) -> Self {
        Self::address(DEL_ADDR, 0, index, net)
    }

    fn address(kind: u16, flags: u16, index: u32, net: IpNet) -> Self {
        let nodad = if net.addr.is_ipv6() { IFA_F_NODAD } else { 0 };
        let mut body = [0; 8];
        body[..4].copy_from_slice(&[family(net.addr), net.prefix_len, nodad, RT_SCOPE_UNIVERSE]);
        body[4..].copy_from_slice(&index.to_ne_bytes());
        Self::new(kind, flags, &body).with_ip(IFA_LOCAL, net.addr).with_ip(IFA_ADDRESS, net.addr)
    }

    /// Leads what is for a network through an interface, by a gateway or directly. `address` is the interface's: a
    /// gateway outside of its network is on the line all the same.
    pub fn add_route(
        index: u32,
        to: IpNet,
        gateway: Option<IpAddr>,
        address: Option<IpNet>,
    ) -> Self {
        let known = |gateway: IpAddr| {
            address.is_some_and(|net| {
                let there = IpNet { addr: gateway, ..net };
                net.addr.is_ipv4() == gateway.is_ipv4() && network(there) == network(net)
            })
        };
        let flags = if gateway.is_some_and(|it| !known(it)) { RTNH_F_ONLINK } else { 0 };
        Self::route(NEW_ROUTE, CREATE | REPLACE, index, to, gateway, flags)
    }

    /// Leads it there no more.
    pub fn remove_route(index: u32, to: IpNet, gateway: Option<IpAddr>) -> Self {
        Self::route(DEL_ROUTE, 0, index, to, gateway, 0)
    }

    fn route(
        kind: u16,
        flags: u16,
        index: u32,
        to: IpNet,
        gateway: Option<IpAddr>,
        route_flags: u32,
    ) -> Self {
        let scope = if gateway.is_some() { RT_SCOPE_UNIVERSE } else { RT_SCOPE_LINK };
        let mut body = [0; 12];
        body[..2].copy_from_slice(&[family(to.addr), to.prefix_len]);
        body[4..8].copy_from_slice(&[RT_TABLE_MAIN, RTPROT_STATIC, scope, RTN_UNICAST]);
        body[8..].copy_from_slice(&route_flags.to_ne_bytes());
        let mut message = Self::new(kind, flags, &body);
        if to.prefix_len > 0 {
            message = message.with_ip(RTA_DST, network(to));
        }
        if let Some(gateway) = gateway {
            message = message.with_ip(RTA_GATEWAY, gateway);
        }
        message.with(RTA_OIF, &index.to_ne_bytes())
    }
}

fn family(addr: IpAddr) -> u8 {
    let family = if addr.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    u8::try_from(family).unwrap_or(0)
}

/// The address of the network itself: the kernel takes no route to a host's with a short prefix.
fn network(net: IpNet) -> IpAddr {
    match net.addr {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(net.prefix_len.min(32))).unwrap_or(0);
            IpAddr::V4((v4.to_bits() & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(net.prefix_len.min(128))).unwrap_or(0);
            IpAddr::V6((v6.to_bits() & mask).into())
        }
    }
}

/// The kernel's answer: the number of an error with its sign changed, 0 for none.
fn answer(bytes: &[u8]) -> Option<Result<(), Errno>> {
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let number = i32::from_ne_bytes(bytes.get(HEADER..HEADER + 4)?.try_into().ok()?);
    (kind == NLMSG_ERROR).then(|| match number {
        0 => Ok(()),
        number => Err(Errno::from_raw(number.saturating_neg())),
    })
}

/// The socket.
#[derive(Debug)]
pub struct Netlink {
    fd: OwnedFd,
}

impl Netlink {
    /// Opens it.
    ///
    /// # Errors
    ///
    /// When the kernel has no network.
    pub fn open() -> Result<Self, Errno> {
        let fd = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::NetlinkRoute,
        )?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        Ok(Self { fd })
    }

    /// Has the kernel do it.
    ///
    /// # Errors
    ///
    /// What it said; `EAGAIN` when it said nothing, which it never does.
    pub fn ask(&self, message: Message) -> Result<(), Errno> {
        send(self.fd.as_raw_fd(), &message.finished(), MsgFlags::empty())?;
        let mut buffer = [0; 4096];
        loop {
            let len = recv(self.fd.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
            if let Some(answer) = answer(&buffer[..len]) {
                return answer;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        let (addr, prefix_len) = text.split_once('/').unwrap();
        IpNet { addr: addr.parse().unwrap(), prefix_len: prefix_len.parse().unwrap() }
    }

    #[test]
    fn requests_are_the_kernels_bytes() {
        // On a little-endian machine, as strace(1) shows those of ip(8).
        let bytes = Message::add_address(3, net("10.0.2.15/24")).finished();
        let expected: Vec<u8> = [
            &[48, 0, 0, 0, 20, 0, 5, 5, 0, 0, 0, 0, 0, 0, 0, 0][..],
            &[2, 24, 0, 0, 3, 0, 0, 0],
            &[8, 0, 2, 0, 10, 0, 2, 15],
            &[8, 0, 1, 0, 10, 0, 2, 15],
            &[8, 0, 4, 0, 10, 0, 2, 255],
        ]
        .concat();
        assert_eq!(bytes, expected);
        let gateway = Some("10.0.2.2".parse().unwrap());
        let add =
            |address| Message::add_route(3, net("0.0.0.0/0"), gateway, Some(address)).finished();
        let bytes = add(net("10.0.3.15/24"));
        let expected: Vec<u8> = [
            &[44, 0, 0, 0, 24, 0, 5, 5, 0, 0, 0, 0, 0, 0, 0, 0][..],
            &[2, 0, 0, 0, 254, 4, 0, 1, 4, 0, 0, 0],
            &[8, 0, 5, 0, 10, 0, 2, 2],
            &[8, 0, 4, 0, 3, 0, 0, 0],
        ]
        .concat();
        assert_eq!(bytes, expected);
        assert_eq!(add(net("10.0.2.15/24"))[24..28], [0; 4], "the line is known to lead there");
    }

    #[test]
    fn attributes_are_aligned_and_the_length_counts_all() {
        let bytes = Message::rename(3, "eth10").finished();
        assert_eq!(bytes.len() % 4, 0);
        assert_eq!(u32::from_ne_bytes(bytes[..4].try_into().unwrap()) as usize, bytes.len());
        assert_eq!(&bytes[32..], b"\x0a\0\x03\0eth10\0\0\0");
    }

    #[test]
    fn a_route_is_to_the_network_and_not_to_a_host_in_it() {
        for (given, expected) in
            [("10.1.2.3/8", "10.0.0.0"), ("10.1.2.3/32", "10.1.2.3"), ("fd00::7/64", "fd00::")]
        {
            assert_eq!(network(net(given)), expected.parse::<IpAddr>().unwrap(), "{given}");
        }
    }

    #[test]
    fn answers_are_told_from_other_messages() {
        let mut bytes = [0; 36];
        bytes[4] = 2;
        assert_eq!(answer(&bytes), Some(Ok(())));
        bytes[16..20].copy_from_slice(&(-17i32).to_ne_bytes());
        assert_eq!(answer(&bytes), Some(Err(Errno::EEXIST)));
        bytes[4] = 16;
        assert_eq!(answer(&bytes), None);
        assert_eq!(answer(&bytes[..18]), None);
    }

    #[test]
    fn the_kernel_refuses_what_is_not_there() {
        let Ok(netlink) = Netlink::open() else { return };
        let refused = netlink.ask(Message::up(0x7fff_ffff, None)).unwrap_err();
        assert!(matches!(refused, Errno::ENODEV | Errno::EPERM), "{refused}");
    }
}
