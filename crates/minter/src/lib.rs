//! Outgoing requests to token issuers.
//!
//! One file for each strategy under [`strategy`] says what is asked; everything they share stands
//! beside it, once: `transport` owns the HTTP client, its bounds and the fence at its last inch;
//! `endpoint`, `address` and `resolver` decide which addresses may be reached; `gate` limits what
//! one issuer gets; `response` reads the answer, `classify` alone says what a failure means, and
//! `redact` keeps secrets out of its words.
//!
//! This crate knows nothing of tickets beyond their [`Fence`](evermint_core::mint::Fence), of
//! schedules, or of the cluster. Start reading at [`HttpMinter`], then
//! [`CredentialRefresher`].

mod address;
mod assertion;
mod breaker;
mod classify;
mod clock;
mod command;
mod config;
mod endpoint;
mod exchange;
mod fence;
mod form;
#[cfg(test)]
mod fuzz;
mod gate;
mod lifetime;
mod material;
mod minter;
mod outside;
mod redact;
mod remedy;
mod resolver;
mod response;
mod revocation;
mod skew;
mod stand_in;
pub mod strategy;
mod token_file;
mod transport;
mod web;

pub use address::Network;
pub use clock::SystemClock;
pub use command::CommandLine;
pub use config::Config;
pub use endpoint::{EndpointPattern, EndpointRefused};
pub use form::Form;
pub use material::{
    FieldError, Format, MATERIAL_MAX, Material, MaterialField, MaterialSchema, Need,
};
pub use minter::HttpMinter;
pub use outside::{Outside, Setup};
pub use revocation::Told;
pub use skew::{Skew, Skews};
pub use stand_in::{NotAStandIn, StandIn};
pub use strategy::{CredentialRefresher, Grant, Outputs, refresher};
pub use token_file::TokenFiles;
pub use transport::{ANSWER_MAX, Answer, NoAnswer, Outgoing, Transport};
pub use web::Web;

/// Why a minter cannot be made: the configuration has to be corrected.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A certificate that is to be trusted cannot be read.
    #[error("issuers.ca_files: not a PEM certificate: {0}")]
    Certificate(String),
    /// A limit of zero would stop every mint.
    #[error("issuers.{0} must not be 0")]
    Zero(&'static str),
    /// The HTTP client cannot be built.
    #[error(
        "cannot set up TLS towards issuers: {0}; install the system's root certificates (package ca-certificates), or name your own in issuers.ca_files"
    )]
    Client(String),
}
