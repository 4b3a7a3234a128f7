//! What the certificate of a replica has to be good for.

use evermint_core::id::{InstallationId, ReplicaId};
use rustls::pki_types::{CertificateDer, ServerName};
use webpki::EndEntityCert;

use crate::identity::ClusterId;

/// A domain that nobody on the internet has: `.internal` is set aside for private use.
const DOMAIN: &str = "evermint.internal";

/// By what replicas are called in certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Names {
    /// By the host of their peer address.
    Hosts,
    /// All by one name.
    Shared(ServerName<'static>),
    /// By their id in this cluster: no two replicas ever have the same.
    Ids(ClusterId),
}

impl Names {
    /// The name of a replica at an address, if it has one: where hosts are names, a replica whose
    /// address is not known has none.
    ///
    /// # Errors
    /// When its address has no host that a certificate could name.
    pub(crate) fn of(
        &self,
        replica: ReplicaId,
        address: Option<&str>,
    ) -> Result<Option<ServerName<'static>>, String> {
        match (self, address) {
            (Self::Hosts, Some(address)) => host(address).map(Some),
            (Self::Hosts, None) => Ok(None),
            (Self::Shared(name), _) => Ok(Some(name.clone())),
            (Self::Ids(cluster), _) => {
                let name = ServerName::try_from(text(*cluster, replica));
                Ok(Some(
                    name.expect("made of letters, digits, hyphens and dots"),
                ))
            }
        }
    }
}

/// The name of a replica in the certificates of its cluster's own authority.
pub(crate) fn text(cluster: ClusterId, replica: ReplicaId) -> String {
    format!("replica-{replica}.{}.{DOMAIN}", InstallationId(cluster.0))
}

/// The host of `host:port` as certificates name it.
///
/// # Errors
/// When it is neither a host name nor an address.
pub(crate) fn host(address: &str) -> Result<ServerName<'static>, String> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    ServerName::try_from(host.to_owned())
        .map_err(|_| format!("peer address {address}: no certificate can name {host:?}"))
}

/// Whether a certificate that was signed as it should be names `name`.
pub(crate) fn is_good_for(certificate: &CertificateDer<'_>, name: &ServerName<'_>) -> bool {
    let certificate = EndEntityCert::try_from(certificate);
    certificate.is_ok_and(|c| c.verify_is_valid_for_subject_name(name).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_is_called_by_its_host_by_a_shared_name_or_by_its_id() {
        let shared = ServerName::try_from("evermint").unwrap();
        let ids = "replica-3.00000000-0000-0000-0000-000000000007.evermint.internal";
        for (names, address, expected) in [
            (Names::Hosts, Some("a.example:7444"), Ok(Some("a.example"))),
            (Names::Hosts, Some("127.0.0.2:1"), Ok(Some("127.0.0.2"))),
            (Names::Hosts, Some("[::1]:1"), Ok(Some("::1"))),
            (Names::Hosts, None, Ok(None)),
            (Names::Hosts, Some("a b:1"), Err(())),
            (Names::Shared(shared), None, Ok(Some("evermint"))),
            (Names::Ids(ClusterId(7)), Some("a:1"), Ok(Some(ids))),
        ] {
            let name = names.of(ReplicaId(3), address).map_err(|_| ());
            let name = name.map(|name| name.map(|n| n.to_str().into_owned()));
            assert_eq!(name, expected.map(|n| n.map(str::to_owned)), "{names:?}");
        }
    }
}
