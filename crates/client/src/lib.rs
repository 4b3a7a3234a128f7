//! The sandbox's library: follows the sandbox's bundle at whichever replica can serve it, and
//! hands out live tokens, never a stale or an expired one.
//!
//! ```no_run
//! # async fn demo() -> Result<(), evermint_client::Error> {
//! use evermint_client::{Client, Renewals};
//!
//! let client = Client::builder()
//!     .endpoints(["https://evermint-0.example:7600", "https://evermint-1.example:7600"])
//!     .sandbox("agent-7")
//!     .sandbox_token_file("/run/evermint/token", Renewals::InMemory)
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
//! A [`Client`] works in the background until its last clone is dropped. Take a [`Snapshot`] of it
//! for each use, and ask its [`Token`]s at the moment of use: they look at the clock each time.
//!
//! To be told of changes instead of looking, subscribe; a slow reader misses versions, not the newest:
//!
//! ```no_run
//! # async fn demo(client: evermint_client::Client) -> Result<(), evermint_client::Error> {
//! let mut changes = client.subscribe();
//! loop {
//!     let snapshot = changes.changed().await?;
//!     println!("{} values may be used now", snapshot.environment().len());
//! }
//! # }
//! ```
//!
//! Give child processes names instead of secrets, and resolve them in what they send:
//!
//! ```no_run
//! # fn demo(client: &evermint_client::Client) -> Result<(), Box<dyn std::error::Error>> {
//! let snapshot = client.snapshot();
//! std::process::Command::new("./agent").envs(snapshot.child_environment()).spawn()?;
//! // In the proxy that it calls through, for one request to api.example:
//! let resolver = snapshot.resolver("api.example", 443, "/v1/items")?;
//! let sent = b"Bearer openshell:resolve:env:v7_API_TOKEN";
//! match resolver.header(sent)? {
//!     Some(live) => { /* live.expose() goes out in its place */ }
//!     None => { /* it holds no placeholder, and goes out as it is */ }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Who the sandbox is, it shows by a token of its own: [`Builder::sandbox_token`] and
//! [`Builder::sandbox_token_file`] renew what the cluster issued, [`Builder::token_source`] takes any
//! other, such as a [`TokenFile`] that a sidecar renews. What is counted is in [`Client::metrics`], and
//! for Prometheus in [`Client::prometheus`]; events go to `tracing`. `examples/` has two programs.
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
pub mod prometheus;
mod renew;
mod report;
mod resolve;
mod server_clock;
mod shared;
mod snapshot;
mod timing;
mod token_file;
mod url;
mod wire;

pub use auth::{BoxError, TokenSource};
pub use builder::Builder;
pub use client::{Changes, Client};
pub use clock::SystemClock;
pub use content::{Auth, Unavailable};
pub use error::{Error, Refusal};
pub use evermint_core::environment::{Plain, Problem, Variable};
pub use evermint_core::profile::binding::Binding;
pub use metrics::Metrics;
pub use own::Renewals;
pub use renew::{Issued, Renewing};
pub use report::Report;
pub use resolve::{Resolve, SystemResolver};
pub use snapshot::{Credential, Route, Snapshot, Token, Unusable};
pub use timing::Timing;
pub use token_file::TokenFile;
