//! A strict OAuth 2.0 token issuer on loopback, for `evermint dev` and for tests.
//!
//! It owns three things: *tokens* (refresh tokens that rotate, with reuse detection as in
//! [RFC 9700 §4.14.2]), a *history* of every token request with the moment it arrived and the
//! moment it ended, and *faults* (hold an answer, lose it, tear it). It knows nothing of Evermint:
//! it stands on the other side of the wire, and its history is the evidence that two mints of one
//! credential never overlapped and that no refresh token was shown twice.
//!
//! Tokens are kept only as SHA-256 digests; history and logs show the first 12 hex digits.
//!
//! Start reading at [`Issuer::start`]; then [`Handle`] for what a test may do in process, `admin`
//! for the same over HTTP, `token` for the path of one request, `ledger` for the rules.
//!
//! ```no_run
//! # async fn example() -> Result<(), evermint_issuer::Error> {
//! use evermint_issuer::{Client, Config, Fault, Issuer, Mode, Release};
//!
//! let issuer = Issuer::start(Config::default()).await?;
//! let grant = issuer.handle().seed(Client::new("rt-000").secret("s3cret"));
//! issuer.handle().fault(Fault::once("rt-000", Mode::HoldAfter));
//! // … a client posts grant.refresh_token to issuer.token_url() …
//! issuer.handle().held("rt-000").await;
//! issuer.handle().release("rt-000", Release::Answer);
//! assert!(issuer.handle().history().overlaps().is_empty());
//! issuer.shutdown().await;
//! # Ok(()) }
//! ```
//!
//! [RFC 9700 §4.14.2]: https://www.rfc-editor.org/rfc/rfc9700#section-4.14.2

mod admin;
mod answer;
mod assertion;
mod client;
mod client_assertion;
mod desk;
mod exchange;
mod fault;
mod handle;
mod history;
mod ledger;
mod refusal;
mod request;
mod resource;
mod revocation;
mod secret;
mod server;
mod service_account;
mod token;
mod wire;

pub use client::{Authentication, Client, ExpiresIn, Policy, Rotation};
pub use desk::Held;
pub use fault::{Fault, Mode, Release};
pub use handle::{Handle, Seeded};
pub use history::{Counts, End, History, Overlap, Record};
pub use ledger::Family;
pub use secret::Secret;
pub use server::{Config, Issuer, Running};
pub use service_account::ServiceAccount;

/// Why the issuer could not do what it was asked outside the token protocol.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is not a loopback address: this issuer serves nobody else.
    #[error("{0} is not a loopback address")]
    NotLoopback(std::net::SocketAddr),
    /// The listener could not be opened.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address that was asked for.
        address: std::net::SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The text is not an RSA public key in PEM.
    #[error("not an RSA public key in PEM")]
    PublicKey(#[from] jsonwebtoken::errors::Error),
    /// The key pair of a service account could not be made.
    #[error("cannot generate an RSA key pair")]
    KeyGeneration,
}
