//! How replicas know each other.
//!
//! | way | certificates | the name of a replica |
//! | --- | --- | --- |
//! | plain text | none; for loopback | what it says |
//! | files | from outside, read again when they change | the host of its peer address, or one name that all share |
//! | built-in | signed by the cluster's own authority, for a day, by each replica for itself | its id in its cluster |
//!
//! A message counts if the certificate of the connection that it came by is good for the name of
//! the replica that it is from. A newcomer has no certificate yet: it shows a join token.

mod authority;
mod files;
mod keeper;
mod names;
mod newcomer;
mod stranger;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use evermint_tls::{ClientConfigs, ServerConfigs};
use tonic::Status;
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};

use crate::config::Tls;
use crate::error::Error;
use crate::identity::Identity;

pub(crate) use keeper::{Asked, BuiltIn, keep};
pub(crate) use names::Names;

/// How long a connection may last when certificates come from files: one that was made with an
/// older certificate ends after so long.
const FILES_CONNECTION: Duration = Duration::from_secs(3_600);

/// How this replica and others know each other.
#[derive(Clone)]
pub(crate) enum Security {
    /// Not at all.
    Plain,
    /// By certificates from files.
    Files(files::Watched),
    /// By certificates of the cluster's own authority.
    BuiltIn(Arc<BuiltIn>),
}

impl Security {
    pub(crate) fn new(
        tls: Option<&Tls>,
        data_dir: &Path,
        identity: &Identity,
    ) -> Result<Self, Error> {
        Ok(match tls {
            None => Self::Plain,
            Some(Tls::Files(files)) => Self::Files(files::Watched::start(files)?),
            Some(Tls::BuiltIn(built_in)) => {
                Self::BuiltIn(Arc::new(BuiltIn::new(built_in, data_dir, identity)?))
            }
        })
    }

    /// What the replica port uses for new connections; `None` for plain text.
    pub(crate) fn server(&self) -> Option<ServerConfigs> {
        match self {
            Self::Plain => None,
            Self::Files(files) => Some(files.server()),
            Self::BuiltIn(built_in) => Some(built_in.server()),
        }
    }

    /// What is used to reach members; `None` for plain text.
    pub(crate) fn client(&self) -> Option<ClientConfigs> {
        match self {
            Self::Plain => None,
            Self::Files(files) => Some(files.client()),
            Self::BuiltIn(built_in) => Some(built_in.client()),
        }
    }

    /// What is used by a replica that knows nobody yet; `None` for plain text.
    pub(crate) fn stranger(&self) -> Option<ClientConfigs> {
        match self {
            Self::Plain => None,
            Self::Files(files) => Some(files.client()),
            Self::BuiltIn(built_in) => Some(built_in.stranger()),
        }
    }

    /// By what replicas are called.
    pub(crate) fn names(&self) -> Option<Names> {
        match self {
            Self::Plain => None,
            Self::Files(files) => Some(files.names()),
            Self::BuiltIn(built_in) => built_in.names(),
        }
    }

    /// How long a connection may last: never much longer than the certificates behind it.
    pub(crate) fn connection_age(&self) -> Option<Duration> {
        match self {
            Self::Plain => None,
            Self::Files(_) => Some(FILES_CONNECTION),
            Self::BuiltIn(built_in) => Some(built_in.lifetime() / 4),
        }
    }
}

/// Whether the certificate by which a call came is good for `name`; the name of a replica of which
/// nothing is known is any.
///
/// # Errors
/// `UNAUTHENTICATED` without a certificate, `PERMISSION_DENIED` with another one's.
pub(crate) fn check_certificate(
    extensions: &tonic::Extensions,
    name: Option<&rustls::pki_types::ServerName<'_>>,
) -> Result<(), Status> {
    let connection = extensions.get::<TlsConnectInfo<TcpConnectInfo>>();
    let certificates = connection.and_then(TlsConnectInfo::peer_certs);
    let certificate = certificates.as_deref().and_then(|chain| chain.first());
    let none = || Status::unauthenticated("a replica has to show its certificate");
    let certificate = certificate.ok_or_else(none)?;
    let Some(name) = name else {
        return Ok(());
    };
    match names::is_good_for(certificate, name) {
        true => Ok(()),
        false => Err(Status::permission_denied(format!(
            "the certificate is not that of {}",
            name.to_str()
        ))),
    }
}
