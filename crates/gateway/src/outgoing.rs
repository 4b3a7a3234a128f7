//! Connections that a replica makes by gRPC: to the gateway behind it, and to other replicas.

use axum::http::Uri;
use evermint_tls::{ClientConfigs, Connector, Error};
use rustls::pki_types::ServerName;
use tonic::transport::{Channel, Endpoint};

/// A channel to a URL, made as `shape` says. It connects when it is used, and again when it
/// breaks; over TLS, as `tls` says, if the URL is an `https` one.
///
/// # Errors
/// What is wrong with the URL or with TLS, as the rest of a sentence that begins with the URL.
pub(crate) fn channel(
    url: &str,
    tls: impl FnOnce() -> Result<ClientConfigs, Error>,
    shape: impl FnOnce(Endpoint) -> Endpoint,
) -> Result<Channel, String> {
    let no_url = || "is no http:// or https:// URL".to_owned();
    let uri: Uri = url.parse().map_err(|_| no_url())?;
    let host = uri.host().ok_or_else(no_url)?;
    let (address, name) = match uri.scheme_str() {
        Some("http") => (url.to_owned(), None),
        Some("https") => {
            let bare = host.trim_start_matches('[').trim_end_matches(']');
            let name = ServerName::try_from(bare.to_owned()).map_err(|_| no_url())?;
            let port = uri.port_u16().unwrap_or(443);
            (format!("http://{host}:{port}"), Some(name))
        }
        Some(_) | None => return Err(no_url()),
    };
    let endpoint = Endpoint::from_shared(address).map_err(|_| no_url())?;
    let endpoint = shape(endpoint).origin(uri).tcp_nodelay(true);
    let Some(name) = name else {
        return Ok(endpoint.connect_lazy());
    };
    let configs = tls().map_err(|error| format!("cannot be spoken to over TLS: {error}"))?;
    // TLS is the connector's concern, whose channels are plain to tonic.
    Ok(endpoint.connect_with_connector_lazy(Connector::new(configs, name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_what_can_be_connected_to_gives_a_channel() {
        let none = || Err(Error::Authorities("there are none".to_owned()));
        for (url, problem) in [
            ("http://127.0.0.1:1", None),
            ("http://[::1]:1", None),
            ("https://a.example", Some("there are none")),
            ("ftp://a.example", Some("is no http:// or https:// URL")),
            ("a.example:1", Some("is no http:// or https:// URL")),
            ("https://a_b c", Some("is no http:// or https:// URL")),
            ("", Some("is no http:// or https:// URL")),
        ] {
            let got = channel(url, none, |endpoint| endpoint).err();
            match (got, problem) {
                (Some(got), Some(problem)) => assert!(got.contains(problem), "{url}: {got}"),
                (got, problem) => assert_eq!(got.as_deref(), problem, "{url}"),
            }
        }
    }
}
