//! The faces of a replica: the gRPC services of `evermint.v1` and of OpenShell, health and
//! reflection.
//!
//! The gateway parses requests into the domain's types, seals secrets before they go anywhere,
//! proposes commands, and serves reads from the replica's own applied state. It stands on ports
//! alone: it knows nothing of Raft, of issuers or of actors. [`serve`] is the entry; [`Ports`] is
//! what it needs.
//!
//! Where to read next: `service` has a file for each service, `openshell` is the other face, `rim` turns requests into types,
//! `show` turns types into answers, `status` turns errors into codes, `views` keeps bundles ready,
//! `call` is what happens around every call, `caller` says who calls, and `access` who may call
//! what: the table of that is in `methods`.

mod access;
mod bounds;
mod bundle;
mod call;
mod caller;
mod certificate;
mod doorway;
mod fence;
#[cfg(test)]
mod fuzz;
mod health;
mod jwks;
mod logins;
mod methods;
mod names;
mod oidc;
mod openshell;
mod origin;
mod others;
mod outgoing;
mod passthrough;
mod port;
mod quota;
mod rates;
mod refusals;
mod rim;
mod roles;
mod server;
mod service;
mod shared;
mod show;
mod status;
mod target;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod token;
mod views;

pub use access::{METHODS, Method, Place, Role as CallerRole, Roles, Who};
pub use bounds::Bounds;
pub use caller::{AdminToken, Caller, Operator, Way};
pub use jwks::KEEP as OIDC_KEYS_KEPT;
pub use oidc::Oidc;
pub use passthrough::UpstreamGateway;
pub use port::{
    ClusterControl, ControlError, FieldProblem, Peer, Post, RaftStatus, RefreshPolicy, Role, Web,
};
pub use roles::{NotARule, RoleRule};
pub use server::{ClientCertificates, Config, Error, Limits, TlsFiles, serve};
pub use shared::Ports;
pub use status::{REASON, RETRY, field_problems};
pub use token::{GatewayKey, Pass, TokenRules};
