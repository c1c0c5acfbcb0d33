//! A guest's addresses in the form in which VMware's tools report them, NIC info version 3 in XDR.

use std::net::{IpAddr, Ipv4Addr};

use crate::IpNet;

/// One network interface and its addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nic {
    /// Its hardware address, `00:50:56:01:02:03`.
    pub mac: String,
    /// Its addresses.
    pub addresses: Vec<IpNet>,
}

/// What the protocol has room for.
const MAX_NICS: usize = 16;
const MAX_MAC: usize = 18;
const MAX_ADDRESSES: usize = 2048;

/// The address that stands for the guest: the first v4 address that is not its own loopback.
pub(super) fn primary(nics: &[Nic]) -> Option<Ipv4Addr> {
    let all = nics.iter().flat_map(|nic| &nic.addresses);
    all.filter_map(|net| match net.addr {
        IpAddr::V4(v4) if !v4.is_loopback() => Some(v4),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    })
    .next()
}

/// The RPCI request that reports the interfaces: `SetGuestInfo`, two blanks, what kind of info, and
/// XDR.
pub(super) fn request(nics: &[Nic]) -> Vec<u8> {
    const NIC_INFO_V3: u32 = 3;
    let mut xdr = Xdr(b"SetGuestInfo  9 ".to_vec());
    xdr.number(NIC_INFO_V3).present(true);
    let nics: Vec<_> = nics.iter().filter(|nic| nic.mac.len() <= MAX_MAC).take(MAX_NICS).collect();
    xdr.count(nics.len());
    for nic in nics {
        xdr.bytes(nic.mac.as_bytes());
        let addresses = nic.addresses.get(..MAX_ADDRESSES).unwrap_or(&nic.addresses);
        xdr.count(addresses.len());
        addresses.iter().for_each(|net| xdr.address(net));
        xdr.nothing_more_to_say();
    }
    xdr.count(0).nothing_more_to_say(); // routes
    xdr.0
}

/// XDR (RFC 4506): everything in units of four bytes, big-endian.
struct Xdr(Vec<u8>);

impl Xdr {
    fn number(&mut self, number: u32) -> &mut Self {
        self.0.extend_from_slice(&number.to_be_bytes());
        self
    }

    fn count(&mut self, count: usize) -> &mut Self {
        self.number(u32::try_from(count).unwrap_or(u32::MAX))
    }

    /// Whether an optional value follows.
    fn present(&mut self, present: bool) -> &mut Self {
        self.number(u32::from(present))
    }

    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.count(bytes.len());
        self.0.extend_from_slice(bytes);
        let padding = bytes.len().next_multiple_of(4) - bytes.len();
        self.0.extend_from_slice([0; 3].get(..padding).unwrap_or_default());
        self
    }

    /// An address (its kind as in RFC 4001), its prefix length, and that it is usable; not where it
    /// came from.
    fn address(&mut self, net: &IpNet) {
        const PREFERRED: u32 = 1;
        match net.addr {
            IpAddr::V4(v4) => self.number(1).bytes(&v4.octets()),
            IpAddr::V6(v6) => self.number(2).bytes(&v6.octets()),
        };
        self.number(net.prefix_len.into()).present(false).present(true).number(PREFERRED);
    }

    /// No DNS, WINS, DHCP or DHCPv6.
    fn nothing_more_to_say(&mut self) {
        (0..4).for_each(|_| {
            self.present(false);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nic(mac: &str, addresses: &[(&str, u8)]) -> Nic {
        let net = |(addr, prefix_len): &(&str, u8)| IpNet {
            addr: addr.parse().unwrap(),
            prefix_len: *prefix_len,
        };
        Nic { mac: mac.to_owned(), addresses: addresses.iter().map(net).collect() }
    }

    #[test]
    fn the_first_v4_address_that_is_not_loopback_stands_for_the_guest() {
        let nics = [
            nic("", &[("127.0.0.1", 8), ("::1", 128)]),
            nic("", &[("fe80::1", 64), ("172.16.0.2", 16)]),
            nic("", &[("10.0.0.1", 8)]),
        ];
        assert_eq!(primary(&nics), Some([172, 16, 0, 2].into()));
        assert_eq!(primary(&nics[..1]), None);
    }

    #[test]
    fn interfaces_are_told_in_xdr() {
        let nics = [nic("00:50:56:01:02:03", &[("172.16.0.2", 16), ("fe80::1", 64)])];
        let words: &[&[u8]] = &[
            b"SetGuestInfo  9 ",
            &[0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0, 1],
            &[0, 0, 0, 17],
            b"00:50:56:01:02:03\0\0\0",
            &[0, 0, 0, 2],
            &[0, 0, 0, 1, 0, 0, 0, 4, 172, 16, 0, 2, 0, 0, 0, 16],
            &[0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1],
            &[
                0, 0, 0, 2, 0, 0, 0, 16, 0xFE, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0,
                0, 0, 64,
            ],
            &[0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1],
            &[0; 16],
            &[0; 20],
        ];
        assert_eq!(request(&nics), words.concat());
    }

    #[test]
    fn what_the_protocol_has_no_room_for_is_left_out() {
        let many = vec![nic("00:50:56:01:02:03", &[("10.0.0.1", 8); 3000]); 20];
        let with_oddity: Vec<_> =
            [nic(&"x".repeat(19), &[])].into_iter().chain(many.clone()).collect();
        assert_eq!(request(&with_oddity), request(&many[..16]));
        assert_eq!(request(&many[..1])[52..56], [0, 0, 8, 0], "2048 addresses");
    }
}
