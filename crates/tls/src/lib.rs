//! TLS 1.3 for gRPC, for servers and clients, with certificates that change while a process runs.
//!
//! tonic's own TLS reads its certificates once. Here both sides take the newest configuration from
//! a channel whenever a connection comes about: [`incoming`] at a server, [`Connector`] at a
//! client. Connections that exist go on as they are.
//!
//! | file | about |
//! | --- | --- |
//! | `accept`, `connect` | connections |
//! | `config` | TLS 1.3 and nothing older, with the one crypto provider of the tree |
//! | `files` | certificate, key and authorities in PEM files, and their changes |
//!
//! Who may speak to whom is not decided here.

mod accept;
mod config;
mod connect;
mod error;
mod files;

pub use accept::{HANDSHAKE, incoming};
pub use config::{ClientAuth, client_config, provider, server_config, trusting, trusting_alike};
pub use connect::Connector;
pub use error::Error;
pub use files::{Files, Material, RELOAD_EVERY, follow};

/// The configuration that a server uses for new connections.
pub type ServerConfigs = tokio::sync::watch::Receiver<std::sync::Arc<rustls::ServerConfig>>;

/// The configuration that a client uses for new connections.
pub type ClientConfigs = tokio::sync::watch::Receiver<std::sync::Arc<rustls::ClientConfig>>;
