//! The network between replicas, and its faults.
//!
//! With root and iproute2, each place has a network namespace of its own, joined by a bridge that
//! has one too, and the harness lives in a further one: partitions are dropped packets. Elsewhere
//! all share loopback, and [`proxies`] stand before each peer port.

pub mod namespaces;
pub mod netem;
pub mod proxies;

use std::ffi::OsString;
use std::net::SocketAddr;

use crate::history::Place;
use namespaces::Namespaces;
use proxies::Proxies;

/// What happens to packets, or to bytes, from one place to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    /// They vanish.
    Drop,
    /// Connections are reset.
    Reset,
    /// So many in a hundred vanish. Proxies cannot: TCP hides it.
    Lose(u32),
}

/// A rule that is in force; taken back by [`Network::lift`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub(crate) from: Place,
    pub(crate) to: Place,
    pub(crate) harm: Harm,
    /// The number by which nft knows it, or the proxies do.
    pub(crate) handle: u64,
}

/// How the places of a run are connected.
#[derive(Debug)]
pub enum Network {
    /// Each in a namespace.
    Namespaces(Namespaces),
    /// All on loopback.
    Proxies(Proxies),
}

impl Network {
    /// `namespaces` or `proxies`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Namespaces(_) => "namespaces",
            Self::Proxies(_) => "proxies",
        }
    }

    /// What a command line has to begin with, so that its program runs at a place.
    pub fn enter(&self, place: Place) -> Vec<OsString> {
        match self {
            Self::Namespaces(net) => net.enter(place),
            Self::Proxies(_) => Vec::new(),
        }
    }

    /// Where clients reach a replica; it listens there itself.
    pub fn api(&self, place: Place) -> SocketAddr {
        match self {
            Self::Namespaces(net) => net.api(place),
            Self::Proxies(net) => net.api(place),
        }
    }

    /// Where a replica listens to others.
    pub fn peer_listen(&self, place: Place) -> SocketAddr {
        match self {
            Self::Namespaces(net) => net.peer(place),
            Self::Proxies(net) => net.peer_listen(place),
        }
    }

    /// Where others reach it.
    pub fn peer(&self, place: Place) -> SocketAddr {
        match self {
            Self::Namespaces(net) => net.peer(place),
            Self::Proxies(net) => net.peer(place),
        }
    }

    /// Harms what goes from one place to another, and nothing that comes back.
    ///
    /// # Errors
    /// What the system said.
    pub async fn harm(&self, from: Place, to: Place, harm: Harm) -> Result<Rule, String> {
        match self {
            Self::Namespaces(net) => net.harm(from, to, harm).await,
            Self::Proxies(net) => net.harm(from, to, harm),
        }
    }

    /// How many packets, or chunks, a rule has hit so far.
    ///
    /// # Errors
    /// What the system said.
    pub async fn hits(&self, rule: &Rule) -> Result<u64, String> {
        match self {
            Self::Namespaces(net) => net.hits(rule).await,
            Self::Proxies(net) => Ok(net.hits(rule)),
        }
    }

    /// Takes a rule back.
    ///
    /// # Errors
    /// What the system said.
    pub async fn lift(&self, rule: &Rule) -> Result<(), String> {
        match self {
            Self::Namespaces(net) => net.lift(rule).await,
            Self::Proxies(net) => {
                net.lift(rule);
                Ok(())
            }
        }
    }

    /// Takes everything down.
    pub async fn down(&self) {
        if let Self::Namespaces(net) = self {
            net.down().await;
        }
    }
}
