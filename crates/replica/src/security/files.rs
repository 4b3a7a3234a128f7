//! Certificates from files, as cert-manager and others write them.

use std::sync::Arc;

use evermint_tls::{
    ClientAuth, ClientConfigs, Files, Material, ServerConfigs, client_config, follow, provider,
    server_config,
};
use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::sync::watch;

use super::Names;
use crate::config::TlsFiles;
use crate::error::Error;

/// Certificates from files, followed as long as anybody uses them.
#[derive(Clone)]
pub(crate) struct Watched {
    server: ServerConfigs,
    client: ClientConfigs,
    names: Names,
}

impl Watched {
    /// Reads the files, and reads them again whenever they change.
    pub(crate) fn start(tls: &TlsFiles) -> Result<Self, Error> {
        let names = match &tls.server_name {
            None => Names::Hosts,
            Some(name) => Names::Shared(ServerName::try_from(name.clone()).map_err(|_| {
                Error::Config(format!(
                    "tls: {name:?} is no name that a certificate can have"
                ))
            })?),
        };
        let files = Files {
            certificate: tls.certificate.clone(),
            key: tls.key.clone(),
            ca: Some(tls.ca.clone()),
        };
        let material = files.read()?;
        let (server, client) = configs(&material)?;
        let (tell_servers, server) = watch::channel(server);
        let (tell_clients, client) = watch::channel(client);
        tokio::spawn(async move {
            let take = |material: &Material| match configs(material) {
                Ok((server, client)) => {
                    tell_servers.send_replace(server);
                    tell_clients.send_replace(client);
                }
                Err(error) => tracing::warn!(%error, "changed certificate files cannot be used"),
            };
            tokio::select! {
                () = follow(files, material, take) => {}
                () = tell_servers.closed() => {}
            }
        });
        Ok(Self {
            server,
            client,
            names,
        })
    }

    pub(crate) fn server(&self) -> ServerConfigs {
        self.server.clone()
    }

    pub(crate) fn client(&self) -> ClientConfigs {
        self.client.clone()
    }

    pub(crate) fn names(&self) -> Names {
        self.names.clone()
    }
}

/// Both halves of mutual TLS.
fn configs(material: &Material) -> Result<(Arc<ServerConfig>, Arc<ClientConfig>), Error> {
    let none = || Arc::new(RootCertStore::empty());
    let roots = material.roots.clone().unwrap_or_else(none);
    let verifier = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider())
        .build()
        .map_err(|e| Error::Config(format!("tls: {e}")))?;
    let identity = material.identity.clone();
    let server = server_config(identity.clone(), ClientAuth::Required(roots))?;
    let client = client_config(verifier, Some(identity))?;
    Ok((Arc::new(server), Arc::new(client)))
}
