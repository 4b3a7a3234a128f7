//! Ports that stay free while a killed process is started again.

use std::net::{Ipv4Addr, TcpListener};

use rand::Rng;

/// Below the range from which systems take ports for outgoing connections, so that none of those
/// sits on the port of a replica that is down.
const RANGE: std::ops::Range<u16> = 12_000..32_000;

/// A port on loopback that nobody listens on.
pub fn free_port() -> u16 {
    let mut random = rand::rng();
    let free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    std::iter::repeat_with(|| random.random_range(RANGE))
        .take(1_000)
        .find(free)
        .expect("one port in 1,000 is free")
}
