//! What bundles are made of beside tokens: places, and names.

use evermint_proto::v1;
use serde::Serialize;

use super::environment::place;
use crate::page::{Cell, Tone};

/// How a token goes into a call.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the names say it, and evermint.v1 says more")]
pub enum Auth {
    Header { name: String, prefix: String },
    Query(String),
    Basic { user: String },
    Path(String),
}

/// A variable whose value is secret.
#[derive(Debug, Serialize)]
#[allow(missing_docs, reason = "the names say it, and evermint.v1 says more")]
pub struct Variable {
    pub key: String,
    pub identity: String,
    pub handle: String,
}

/// A place to which values may be sent.
#[derive(Debug, Serialize)]
#[allow(missing_docs, reason = "the names say it, and evermint.v1 says more")]
pub struct Endpoint {
    pub host: String,
    pub port: u32,
    pub path: String,
    pub body_rewrite: bool,
}

/// A variable whose value is not secret.
#[derive(Debug, Serialize)]
#[allow(missing_docs, reason = "the names say it, and evermint.v1 says more")]
pub struct Plain {
    pub provider: String,
    pub key: String,
    pub value: String,
}

/// Names a credential.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the names say it, and evermint.v1 says more")]
pub struct Reference {
    pub provider: String,
    pub key: String,
}

impl Variable {
    /// What a table shows of its value: how placeholders name it.
    pub(super) fn shown(&self) -> Cell {
        match self.handle.get(..8) {
            Some(begin) => Cell::new(format!("secret, handle {begin}…"), Tone::Dim),
            None => Cell::new("secret, static", Tone::Dim),
        }
    }
}

impl std::fmt::Display for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Header { name, prefix } => write!(f, "{name}: {prefix}…"),
            Self::Query(name) => write!(f, "?{name}=…"),
            Self::Basic { user } => write!(f, "basic {user}:…"),
            Self::Path(path) => f.write_str(path),
        }
    }
}

impl From<v1::auth::Place> for Auth {
    fn from(place: v1::auth::Place) -> Self {
        match place {
            v1::auth::Place::Header(header) => Self::Header {
                name: header.name,
                prefix: header.prefix,
            },
            v1::auth::Place::Query(name) => Self::Query(name),
            v1::auth::Place::Basic(basic) => Self::Basic { user: basic.user },
            v1::auth::Place::Path(path) => Self::Path(path),
        }
    }
}

impl From<v1::SecretVariable> for Variable {
    fn from(variable: v1::SecretVariable) -> Self {
        Self {
            key: variable.key,
            identity: variable.identity,
            handle: variable.handle,
        }
    }
}

impl From<v1::EndpointBinding> for Endpoint {
    fn from(endpoint: v1::EndpointBinding) -> Self {
        Self {
            host: endpoint.host,
            port: endpoint.port,
            path: endpoint.path,
            body_rewrite: endpoint.body_rewrite,
        }
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let body = if self.body_rewrite { " (and body)" } else { "" };
        write!(f, "{}{body}", place(&self.host, self.port, &self.path))
    }
}
