//! Which network addresses may be reached: the defence against a token endpoint that points
//! inwards (server-side request forgery).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An IP network in CIDR form, such as `10.0.0.0/8` or `fd00:1::/32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network {
    base: IpAddr,
    prefix: u8,
}

/// A text that is no network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no network in CIDR form, such as 10.20.0.0/16 or fd00:1::/32, without host bits")]
pub struct NotANetwork(String);

impl Network {
    /// Whether `ip` is in it.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.base, ip) {
            (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)) => {
                masked(ip, self.prefix) == self.base
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

/// `ip` with everything after the first `prefix` bits cleared.
fn masked(ip: IpAddr, prefix: u8) -> IpAddr {
    let prefix = u32::from(prefix);
    match ip {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32 - prefix).unwrap_or(0);
            Ipv4Addr::from_bits(ip.to_bits() & mask).into()
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128 - prefix).unwrap_or(0);
            Ipv6Addr::from_bits(ip.to_bits() & mask).into()
        }
    }
}

impl FromStr for Network {
    type Err = NotANetwork;
    fn from_str(text: &str) -> Result<Self, NotANetwork> {
        let parsed = text.split_once('/').and_then(|(base, prefix)| {
            let base: IpAddr = base.parse().ok()?;
            let prefix: u8 = prefix.parse().ok()?;
            let fits = prefix <= if base.is_ipv4() { 32 } else { 128 };
            (fits && masked(base, prefix) == base).then_some(Self { base, prefix })
        });
        parsed.ok_or_else(|| NotANetwork(text.to_owned()))
    }
}

impl TryFrom<String> for Network {
    type Error = NotANetwork;
    fn try_from(text: String) -> Result<Self, NotANetwork> {
        text.parse()
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        network.to_string()
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

/// What may be reached beside the public internet.
#[derive(Clone, Debug, Default)]
pub(crate) struct AddressRules {
    pub(crate) loopback: bool,
    pub(crate) networks: Vec<Network>,
}

impl AddressRules {
    /// Refuses an address that is not public and not allowed.
    ///
    /// # Errors
    /// What kind of address it is.
    pub(crate) fn check(&self, ip: IpAddr) -> Result<(), &'static str> {
        let ip = ip.to_canonical();
        if self.networks.iter().any(|n| n.contains(ip)) || (self.loopback && ip.is_loopback()) {
            return Ok(());
        }
        let kind = match ip {
            IpAddr::V4(ip) => special_v4(ip),
            IpAddr::V6(ip) => special_v6(ip),
        };
        kind.map_or(Ok(()), Err)
    }
}

/// The setting that would allow an address of this kind.
pub(crate) fn setting(kind: &str) -> &'static str {
    match kind {
        "loopback" => "issuers.allow_loopback",
        _ => "issuers.allow_networks",
    }
}

/// The kind of an IPv4 address that is not public, after the
/// [IANA registry](https://www.iana.org/assignments/iana-ipv4-special-registry).
fn special_v4(ip: Ipv4Addr) -> Option<&'static str> {
    // A public address by number, but Azure's metadata and agent endpoint.
    const AZURE_WIRE_SERVER: [u8; 4] = [168, 63, 129, 16];
    let kind = match ip.octets() {
        [0, ..] => "unspecified",
        [10, ..] | [192, 168, ..] => "private",
        [172, b, ..] if (16..32).contains(&b) => "private",
        [100, b, ..] if (64..128).contains(&b) => "shared (carrier-grade NAT)",
        [127, ..] => "loopback",
        [169, 254, ..] => "link-local (cloud metadata)",
        AZURE_WIRE_SERVER => "cloud metadata",
        [192, 0, 0, _] | [192, 88, 99, _] => "reserved",
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => "documentation",
        [198, 18 | 19, ..] => "benchmarking",
        [224..=239, ..] => "multicast",
        [240..=255, ..] => "reserved",
        _ => return None,
    };
    Some(kind)
}

/// The kind of an IPv6 address that is not public, after the
/// [IANA registry](https://www.iana.org/assignments/iana-ipv6-special-registry). An address that
/// carries an IPv4 address is as good as that one.
fn special_v6(ip: Ipv6Addr) -> Option<&'static str> {
    let embedded = |high: u16, low: u16| {
        special_v4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)))
    };
    match ip.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Some("unspecified"),
        [0, 0, 0, 0, 0, 0, 0, 1] => Some("loopback"),
        // NAT64, RFC 6052.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low),
        // 6to4, RFC 3056.
        [0x2002, high, low, ..] => embedded(high, low),
        [0x2001, b, ..] if b < 0x200 => Some("reserved (Teredo and others)"),
        [0x2001, 0xdb8, ..] => Some("documentation"),
        [0x3fff, b, ..] if b < 0x1000 => Some("documentation"),
        [0xfc00..=0xfdff, ..] => Some("private"),
        [0xfe80..=0xfebf, ..] => Some("link-local"),
        [0xff00..=0xffff, ..] => Some("multicast"),
        // Global unicast.
        [0x2000..=0x3fff, ..] => None,
        _ => Some("reserved"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rules: &AddressRules, ip: &str) -> Result<(), &'static str> {
        rules.check(ip.parse().unwrap())
    }

    #[test]
    fn addresses_that_are_not_public_are_refused() {
        let rules = AddressRules::default();
        for (ip, word) in [
            ("0.0.0.0", "unspecified"),
            ("0.1.2.3", "unspecified"),
            ("10.1.2.3", "private"),
            ("172.16.0.1", "private"),
            ("172.31.255.255", "private"),
            ("192.168.0.1", "private"),
            ("100.64.0.1", "shared"),
            ("100.100.100.200", "shared"),
            ("127.0.0.1", "loopback"),
            ("127.255.0.9", "loopback"),
            ("169.254.169.254", "metadata"),
            ("168.63.129.16", "metadata"),
            ("192.0.0.192", "reserved"),
            ("192.0.2.1", "documentation"),
            ("198.18.0.1", "benchmarking"),
            ("198.19.255.1", "benchmarking"),
            ("224.0.0.1", "multicast"),
            ("255.255.255.255", "reserved"),
            ("::", "unspecified"),
            ("::1", "loopback"),
            ("::ffff:127.0.0.1", "loopback"),
            ("::ffff:10.0.0.1", "private"),
            ("::ffff:169.254.169.254", "metadata"),
            ("::127.0.0.1", "reserved"),
            ("::10.0.0.1", "reserved"),
            ("::ffff:0:10.0.0.1", "reserved"),
            ("::ffff:100.64.0.1", "shared"),
            ("64:ff9b::7f00:1", "loopback"),
            ("64:ff9b::a9fe:a9fe", "metadata"),
            ("2002:a9fe:a9fe::1", "metadata"),
            ("2002:c0a8:1::", "private"),
            ("64:ff9b::a00:1", "private"),
            ("64:ff9b:1::1", "reserved"),
            ("2002:7f00:1::", "loopback"),
            ("2001::1", "reserved"),
            ("2001:db8::1", "documentation"),
            ("3fff::1", "documentation"),
            ("fd00:ec2::254", "private"),
            ("fc00::1", "private"),
            ("fe80::1", "link-local"),
            ("fec0::1", "reserved"),
            ("ff02::1", "multicast"),
            ("100::1", "reserved"),
            ("5f00::1", "reserved"),
        ] {
            let kind = check(&rules, ip).expect_err(ip);
            assert!(kind.contains(word), "{ip}: {kind}");
        }
    }

    #[test]
    fn public_addresses_are_reached() {
        for ip in [
            "8.8.8.8",
            "172.15.0.1",
            "172.32.0.1",
            "100.63.0.1",
            "100.128.0.1",
            "192.1.0.1",
            "2606:4700::1111",
            "2001:4860:4860::8888",
            "64:ff9b::808:808",
            "2002:808:808::1",
            "::ffff:8.8.8.8",
        ] {
            assert_eq!(check(&AddressRules::default(), ip), Ok(()), "{ip}");
        }
    }

    #[test]
    fn what_is_allowed_is_reached_and_no_more() {
        let loopback = AddressRules {
            loopback: true,
            networks: vec![],
        };
        for ip in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(check(&loopback, ip), Ok(()), "{ip}");
        }
        assert!(check(&loopback, "10.0.0.1").is_err());
        let network = AddressRules {
            loopback: false,
            networks: vec!["10.20.0.0/16".parse().unwrap(), "fd00::/8".parse().unwrap()],
        };
        assert_eq!(check(&network, "10.20.255.1"), Ok(()));
        assert_eq!(check(&network, "::ffff:10.20.0.1"), Ok(()));
        assert_eq!(check(&network, "fd12::1"), Ok(()));
        for ip in ["10.21.0.1", "127.0.0.1", "fc00::1", "169.254.169.254"] {
            assert!(check(&network, ip).is_err(), "{ip}");
        }
    }

    #[test]
    fn a_network_of_everything_contains_everything_of_its_family() {
        let all: Network = "0.0.0.0/0".parse().unwrap();
        assert!(all.contains("1.2.3.4".parse().unwrap()));
        assert!(!all.contains("::1".parse().unwrap()));
        let one: Network = "1.2.3.4/32".parse().unwrap();
        assert!(one.contains("1.2.3.4".parse().unwrap()));
        assert!(!one.contains("1.2.3.5".parse().unwrap()));
    }
}
