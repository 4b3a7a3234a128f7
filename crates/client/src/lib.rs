//! The sandbox's library: follows the sandbox's bundle at whichever replica can serve it, and
//! hands out live tokens, never a stale or an expired one.
//!
//! ```no_run
//! # async fn demo() -> Result<(), evermint_client::Error> {
//! use evermint_client::Client;
//!
//! let client = Client::builder()
//!     .endpoints(["https://evermint.example:7600"])
//!     .sandbox("agent-7")
//!     .build()?;
//! client.wait_ready().await?;
//! let snapshot = client.snapshot();
//! if let Some(route) = snapshot.route("inference.local") {
//!     match route.token().usable() {
//!         Ok(()) => { /* route.token().value() is the token */ }
//!         Err(why) => eprintln!("no token for {}: {why}", route.name()),
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! What it promises:
//! * **Reading never blocks.** [`Client::snapshot`] is one atomic load; a snapshot is whole and
//!   does not change.
//! * **Never back in time.** A bundle older than one that was seen is refused, and another replica
//!   is asked (DESIGN §5, G6).
//! * **Fails closed.** A value is given out only while the *cluster's* clock, reckoned from its
//!   answers and this machine's boot-time clock, stands before its end, and while the cluster was
//!   heard of within [`Builder::max_staleness`]. The wall clock is never read.
//! * **Goes on.** A replica that cannot serve is passed over at once, and streams that a proxy
//!   cuts are replaced by polls. One that accepts calls and answers none is left after
//!   [`Timing::connect`] and [`Timing::attempt`] (4 s), one that freezes under a stream after
//!   [`Timing::keepalive`] and [`Timing::keepalive_timeout`] (15 s).
//! * **Children see no secret.** [`Snapshot::child_environment`] gives them [placeholders], which
//!   [`Snapshot::resolver`] replaces in calls to bound endpoints alone.
//!
//! How it is built: `cache` (what is believed), `endpoints` (whom to ask), `pace` (stream, call or
//! pause) and `server_clock` are machines without IO, which take time as an argument; `driver` is
//! the one task that moves them, over `wire` (gRPC) and `resolve` (DNS). [`Snapshot`] is what
//! readers see.
//!
//! [placeholders]: placeholder

mod auth;
mod builder;
mod cache;
mod client;
mod clock;
mod content;
mod dice;
mod driver;
mod endpoints;
mod error;
mod failure;
mod metrics;
mod names;
mod own;
mod pace;
pub mod placeholder;
mod renew;
mod report;
mod resolve;
mod server_clock;
mod shared;
mod snapshot;
mod timing;
mod url;
mod wire;

pub use auth::{BoxError, TokenFile, TokenSource};
pub use builder::Builder;
pub use client::{Changes, Client};
pub use clock::SystemClock;
pub use content::{Auth, Unavailable};
pub use error::{Error, Refusal};
pub use evermint_core::environment::{Plain, Problem, Variable};
pub use evermint_core::profile::binding::Binding;
pub use metrics::Metrics;
pub use renew::{Issued, Renewing};
pub use report::Report;
pub use resolve::{Resolve, SystemResolver};
pub use snapshot::{Credential, Route, Snapshot, Token, Unusable};
pub use timing::Timing;
