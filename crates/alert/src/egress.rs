//! The one policy for everything that this process sends to the outside because somebody configured
//! an address: it must not become a way into the networks around the server.
//!
//! A name is resolved first; then [`Egress::check`] judges each address, and the connection is made to
//! exactly an address that passed, so a name that answers differently the next time gains nothing.
//! Refused unless a configured network holds the address: this machine, private and link-local
//! networks (cloud metadata among them), shared and benchmark address space, multicast, broadcast, reserved blocks, and IPv6
//! addresses that carry such an IPv4 address (mapped, compatible, NAT64, 6to4, Teredo, ISATAP).
//! Redirects are never followed.

use palisade_event::network::Network;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Why an address may not be sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{address} is {kind}: nothing is sent there unless 'alerts.egress.allow' lists its network"
)]
pub struct Refused {
    /// The address.
    pub address: IpAddr,
    /// What it is.
    pub kind: &'static str,
}

/// What may be sent to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Egress {
    /// Networks that are allowed whatever they are.
    pub allow: Vec<Network>,
    /// Whether HTTP and syslog without TLS are allowed too.
    pub allow_plaintext: bool,
}

impl Egress {
    /// Judges the address that a connection is about to be made to.
    ///
    /// # Errors
    /// What kind of address it is, when that is refused.
    pub fn check(&self, address: IpAddr) -> Result<(), Refused> {
        if self.allow.iter().any(|network| network.contains(address)) {
            return Ok(());
        }
        let kind = match address {
            IpAddr::V4(address) => kind_of_v4(address),
            IpAddr::V6(address) => kind_of_v6(address),
        };
        kind.map_or(Ok(()), |kind| Err(Refused { address, kind }))
    }
}

/// The IANA special-purpose registry for IPv4, as far as it is not globally reachable.
const V4: [(u32, u8, &str); 16] = [
    (ip(0, 0, 0, 0), 8, "this network"),
    (ip(10, 0, 0, 0), 8, "a private address"),
    (ip(100, 64, 0, 0), 10, "a shared address"),
    (ip(127, 0, 0, 0), 8, "this machine"),
    (ip(168, 63, 129, 16), 32, "a cloud's metadata address"),
    (ip(169, 254, 0, 0), 16, "a link-local address"),
    (ip(172, 16, 0, 0), 12, "a private address"),
    (ip(192, 0, 0, 0), 24, "a reserved address"),
    (ip(192, 0, 2, 0), 24, "a documentation address"),
    (ip(192, 88, 99, 0), 24, "a relay's address"),
    (ip(192, 168, 0, 0), 16, "a private address"),
    (ip(198, 18, 0, 0), 15, "a benchmark address"),
    (ip(198, 51, 100, 0), 24, "a documentation address"),
    (ip(203, 0, 113, 0), 24, "a documentation address"),
    (ip(224, 0, 0, 0), 4, "a multicast address"),
    (ip(240, 0, 0, 0), 4, "a reserved address"),
];

const fn ip(a: u8, b: u8, c: u8, d: u8) -> u32 {
    u32::from_be_bytes([a, b, c, d])
}

fn kind_of_v4(address: Ipv4Addr) -> Option<&'static str> {
    let bits = u32::from(address);
    V4.into_iter()
        .find(|(network, prefix, _)| (bits ^ network) >> (32 - u32::from(*prefix)) == 0)
        .map(|(_, _, kind)| kind)
}

fn kind_of_v6(address: Ipv6Addr) -> Option<&'static str> {
    let bits = u128::from(address);
    let [a, b, c, d, e, f, g, h] = address.segments();
    let last = Ipv4Addr::from((u32::from(g) << 16) | u32::from(h));
    if bits == 0 {
        return Some("no address");
    }
    if bits == 1 {
        return Some("this machine");
    }
    if a & 0xff00 == 0xff00 {
        return Some("a multicast address");
    }
    if a & 0xffc0 == 0xfe80 {
        return Some("a link-local address");
    }
    if a & 0xffc0 == 0xfec0 {
        return Some("a site-local address");
    }
    if a & 0xfe00 == 0xfc00 {
        return Some("a private address");
    }
    // Addresses that lead to an IPv4 address are what that address is.
    let inner = match (a, b, c, d, e, f) {
        (0, 0, 0, 0, 0, 0xffff | 0) | (0, 0, 0, 0, 0xffff, 0) => Some(last),
        (0x64, 0xff9b, 0, 0, 0, 0) => Some(last),
        // A NAT64 prefix for local use leads wherever its owner wants.
        (0x64, 0xff9b, 1, ..) => return Some("a translated local address"),
        (0x2002, ..) => Some(Ipv4Addr::from((u32::from(b) << 16) | u32::from(c))),
        (0x2001, 0, ..) => Some(Ipv4Addr::from(!u32::from(last))),
        (_, _, _, _, 0 | 0x200, 0x5efe) => Some(last),
        _ => None,
    };
    if let Some(inner) = inner {
        return kind_of_v4(inner);
    }
    match (a, b) {
        (0x2001, 0xdb8) | (0x3fff, 0..=0xfff) => Some("a documentation address"),
        (0x2001, 2) => Some("a benchmark address"),
        (0x2001, 0x10..=0x2f) => Some("an identifier, no address"),
        (0x100, 0) => Some("a discarded address"),
        (0x5f00, _) => Some("a segment routing address"),
        // Only 2000::/3 is given out.
        _ if a & 0xe000 != 0x2000 => Some("a reserved address"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn refused(text: &str) -> bool {
        Egress::default().check(text.parse().unwrap()).is_err()
    }

    #[test]
    fn what_leads_inside_is_refused() {
        for text in [
            "127.0.0.1",
            "127.255.255.254",
            "0.0.0.0",
            "0.1.2.3",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "100.127.255.255",
            "100.100.100.200",
            "192.0.0.192",
            "168.63.129.16",
            "198.18.0.1",
            "198.19.255.255",
            "224.0.0.1",
            "239.255.255.250",
            "240.0.0.1",
            "255.255.255.255",
            "192.0.2.1",
            "203.0.113.9",
            "::",
            "::1",
            "fe80::1",
            "fec0::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "::ffff:0:10.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2002:a00:1::1",
            "2002:c0a8:101::",
        ] {
            assert!(refused(text), "{text}");
        }
        // Teredo: the client's address stands inverted at the end; here 192.168.2.45 and 127.0.0.1.
        assert!(refused("2001:0:4136:e378:8000:63bf:3f57:fdd2"));
        assert!(refused("2001:0:4136:e378:8000:63bf:80ff:fffe"));
        // ISATAP.
        assert!(refused("2a00:1450::5efe:a00:1"));
        assert!(refused("2a00:1450::200:5efe:c0a8:101"));
    }

    #[test]
    fn what_is_outside_is_allowed() {
        for text in [
            "1.1.1.1",
            "8.8.8.8",
            "100.63.255.255",
            "100.128.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "169.253.1.1",
            "198.17.0.1",
            "223.255.255.255",
            "2606:4700::1111",
            "2a00:1450:4001::1",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
            "2002:808:808::1",
        ] {
            assert!(!refused(text), "{text}");
        }
    }

    #[test]
    fn a_configured_network_is_allowed_however_the_address_is_written() {
        let egress = Egress {
            allow: vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()],
            allow_plaintext: false,
        };
        for text in ["10.1.2.3", "::ffff:10.1.2.3", "fd12::1"] {
            assert_eq!(egress.check(text.parse().unwrap()), Ok(()), "{text}");
        }
        for text in ["11.0.0.1", "127.0.0.1"] {
            assert_eq!(egress.check(text.parse().unwrap()).is_ok(), text == "11.0.0.1", "{text}");
        }
        // What leads to an allowed address through a translator is another address.
        assert!(egress.check("64:ff9b::a00:1".parse().unwrap()).is_err());
    }

    proptest! {
        /// Whatever carries an IPv4 address that is refused is refused too.
        #[test]
        fn carriers_are_what_they_carry(bits in any::<u32>()) {
            let inner = Ipv4Addr::from(bits);
            let own = Egress::default().check(IpAddr::V4(inner)).is_err();
            let wide = u128::from(bits);
            let carriers = [
                (0xffff_u128 << 32) | wide,
                (0x64_ff9b_u128 << 96) | wide,
                (0x2002_u128 << 112) | (wide << 80),
                (0x2001_u128 << 112) | u128::from(!bits),
            ];
            for carrier in carriers {
                let address = IpAddr::V6(Ipv6Addr::from(carrier));
                prop_assert_eq!(Egress::default().check(address).is_err(), own, "{}", address);
            }
        }
    }
}
