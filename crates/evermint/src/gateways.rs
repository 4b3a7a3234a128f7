//! Talking to the cluster: several gateways, one after the other until one answers.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use evermint_tls::Connector;
use rustls::pki_types::ServerName;
use rustls::sign::CertifiedKey;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request, Response, Status};

use crate::exit::{advised, usage};

/// Time to connect to one gateway.
const CONNECT: Duration = Duration::from_secs(3);

/// The metadata key under which a gateway gives a stable word for what is wrong.
const REASON: &str = "evermint-reason";

/// A connection to one gateway.
pub type Wire = InterceptedService<Channel, Bearer>;

/// The gateways of one cluster.
pub struct Gateways {
    endpoints: Vec<Gateway>,
    /// The file with the token that is shown. It is read for each call: somebody may keep it fresh.
    token_file: Option<PathBuf>,
    /// Which answered last.
    current: AtomicUsize,
}

struct Gateway {
    url: String,
    endpoint: Endpoint,
    tls: Option<Connector>,
}

/// What is needed to talk to a cluster.
#[derive(Clone, Debug)]
pub struct Access {
    /// URLs, in the order in which they are tried.
    pub urls: Vec<String>,
    /// The file with the admin token.
    pub admin_token_file: Option<PathBuf>,
    /// The file with the certificate authority of the gateways, in PEM.
    pub tls_ca: Option<PathBuf>,
    /// The files with the certificate that is shown to gateways, and its private key, in PEM.
    pub client_certificate: Option<(PathBuf, PathBuf)>,
    /// Time for one call.
    pub timeout: Duration,
}

/// Adds the admin token to a call.
#[derive(Clone)]
pub struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request
                .metadata_mut()
                .insert("authorization", token.clone());
        }
        Ok(request)
    }
}

impl Bearer {
    fn of(path: Option<&Path>) -> Result<Self> {
        path.map_or(Ok(Self(None)), Self::from_file)
    }

    fn from_file(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the admin token from {}", path.display()))?;
        let mut value: MetadataValue<Ascii> =
            format!("Bearer {}", text.trim()).parse().map_err(|_| {
                usage(format!(
                    "{} holds no token: control characters are in it",
                    path.display()
                ))
            })?;
        value.set_sensitive(true);
        Ok(Self(Some(value)))
    }
}

/// How a call that did not work is to be taken.
enum Miss {
    /// It was not carried out: the next gateway may be asked.
    NotDone(Status),
    /// It was refused, or may have been carried out.
    Final(Status),
}

impl Gateways {
    /// Prepares to talk; connects to nobody yet.
    ///
    /// # Errors
    /// A usage error for a URL that is none, or for an admin token over plain HTTP to another
    /// machine; a failure for a file that cannot be read.
    pub fn new(access: &Access) -> Result<Self> {
        let bearer = Bearer::of(access.admin_token_file.as_deref())?;
        let identity = access
            .client_certificate
            .as_ref()
            .map(identity)
            .transpose()?;
        let endpoints = access
            .urls
            .iter()
            .map(|url| {
                let gateway = gateway(url, access, identity.as_ref())?;
                if identity.is_some() && gateway.tls.is_none() {
                    return Err(usage(format!(
                        "a client certificate is not shown to {url}: use https"
                    )));
                }
                if bearer.0.is_some() && !is_private(&gateway) {
                    return Err(usage(format!(
                        "the admin token is not sent to {url} in clear text: use https"
                    )));
                }
                Ok(gateway)
            })
            .collect::<Result<Vec<_>>>()?;
        if endpoints.is_empty() {
            return Err(usage("no gateway given: set --gateway or EVERMINT_GATEWAY"));
        }
        Ok(Self {
            endpoints,
            token_file: access.admin_token_file.clone(),
            current: AtomicUsize::new(0),
        })
    }

    /// Makes a call that changes something: at another gateway only if it certainly was not
    /// carried out.
    ///
    /// # Errors
    /// What the last gateway that was asked said, with advice.
    pub async fn write<T>(
        &self,
        call: impl AsyncFn(Wire) -> Result<Response<T>, Status>,
    ) -> Result<T> {
        self.attempt(false, call).await
    }

    /// Makes a call that changes nothing: at another gateway whenever one is out of reach.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub async fn read<T>(
        &self,
        call: impl AsyncFn(Wire) -> Result<Response<T>, Status>,
    ) -> Result<T> {
        self.attempt(true, call).await
    }

    /// The URL of the gateway that is asked first.
    pub fn first(&self) -> &str {
        let current = self.current.load(Ordering::Relaxed);
        &self.endpoints[current % self.endpoints.len()].url
    }

    /// Asks another gateway first from now on.
    pub fn turn(&self) {
        self.current.fetch_add(1, Ordering::Relaxed);
    }

    async fn attempt<T>(
        &self,
        safe: bool,
        call: impl AsyncFn(Wire) -> Result<Response<T>, Status>,
    ) -> Result<T> {
        let mut missed = Vec::new();
        for _ in 0..self.endpoints.len() {
            let current = self.current.load(Ordering::Relaxed) % self.endpoints.len();
            let gateway = &self.endpoints[current];
            match self.once(gateway, safe, &call).await {
                Ok(answer) => return Ok(answer),
                Err(Miss::Final(status)) => return Err(explain(&gateway.url, &status)),
                Err(Miss::NotDone(status)) => {
                    missed.push((gateway.url.as_str(), status));
                    self.turn();
                }
            }
        }
        Err(nobody(&missed))
    }

    async fn once<T>(
        &self,
        gateway: &Gateway,
        safe: bool,
        call: &impl AsyncFn(Wire) -> Result<Response<T>, Status>,
    ) -> Result<T, Miss> {
        let channel = match &gateway.tls {
            Some(tls) => gateway.endpoint.connect_with_connector(tls.clone()).await,
            None => gateway.endpoint.connect().await,
        };
        let channel =
            channel.map_err(|error| Miss::NotDone(Status::unavailable(causes(&error))))?;
        let bearer = Bearer::of(self.token_file.as_deref());
        let bearer = bearer.map_err(|e| Miss::Final(Status::unauthenticated(e.to_string())))?;
        let wire = InterceptedService::new(channel, bearer);
        match call(wire).await {
            Ok(response) => Ok(response.into_inner()),
            Err(status) => {
                // A gateway that gives a reason for UNAVAILABLE says that nothing was done. One
                // that was lost in mid-call says nothing.
                let told = status.metadata().contains_key(REASON);
                let lost = matches!(status.code(), Code::Unavailable | Code::Unknown);
                Err(
                    if status.code() == Code::Unavailable && told || lost && safe {
                        Miss::NotDone(status)
                    } else {
                        Miss::Final(status)
                    },
                )
            }
        }
    }
}

/// A certificate and its key, which go together.
fn identity((certificate, key): &(PathBuf, PathBuf)) -> Result<Arc<CertifiedKey>> {
    let files = evermint_tls::Files {
        certificate: certificate.clone(),
        key: key.clone(),
        ca: None,
    };
    let material = files.read().context("cannot use the client certificate")?;
    Ok(material.identity)
}

fn gateway(url: &str, access: &Access, identity: Option<&Arc<CertifiedKey>>) -> Result<Gateway> {
    let wrong = || {
        usage(format!(
            "{url:?} is no gateway: expected http://HOST:PORT or https://HOST:PORT"
        ))
    };
    let uri: Uri = url.parse().map_err(|_| wrong())?;
    let host = uri.host().ok_or_else(wrong)?.to_owned();
    let (address, tls) = match uri.scheme_str() {
        Some("http") => (url.to_owned(), None),
        Some("https") => {
            let host = host.trim_start_matches('[').trim_end_matches(']');
            let name = ServerName::try_from(host.to_owned()).map_err(|_| wrong())?;
            let ca = access.tls_ca.as_deref().map(read_ca).transpose()?;
            let configs = evermint_tls::trusting(ca.as_deref(), identity.cloned())
                .with_context(|| format!("cannot set up TLS for {url}"))?;
            // TLS is the connector's concern, whose channels are plain to tonic.
            let port = uri.port_u16().unwrap_or(443);
            let host = uri.host().unwrap_or_default();
            (
                format!("http://{host}:{port}"),
                Some(Connector::new(configs, name)),
            )
        }
        Some(_) | None => return Err(wrong()),
    };
    let endpoint = Endpoint::from_shared(address).map_err(|_| wrong())?;
    Ok(Gateway {
        url: url.to_owned(),
        endpoint: endpoint
            .origin(uri)
            .connect_timeout(CONNECT)
            .timeout(access.timeout),
        tls,
    })
}

fn read_ca(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path)
        .with_context(|| format!("cannot read the certificate authority {}", path.display()))
}

/// Whether nobody else can read what is sent there.
fn is_private(gateway: &Gateway) -> bool {
    let loopback = gateway.endpoint.uri().host().is_some_and(|host| {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost"
            || host
                .parse::<std::net::IpAddr>()
                .is_ok_and(|ip| ip.is_loopback())
    });
    gateway.tls.is_some() || loopback
}

/// The causes of a transport error in one line, without its own meagre text.
fn causes(error: &tonic::transport::Error) -> String {
    let mut source = std::error::Error::source(error);
    let mut told: Vec<String> = Vec::new();
    while let Some(cause) = source {
        let text = cause.to_string();
        if !told.iter().any(|t| t.contains(&text)) {
            told.push(text);
        }
        source = cause.source();
    }
    told.join(": ")
}

/// No gateway carried the call out.
fn nobody(missed: &[(&str, Status)]) -> anyhow::Error {
    let told: Vec<String> = missed
        .iter()
        .map(|(url, status)| format!("{url}: {}", status.message()))
        .collect();
    let answered = missed
        .iter()
        .any(|(_, status)| status.metadata().contains_key(REASON));
    let untrusted = missed
        .iter()
        .any(|(_, s)| s.message().contains("certificate"));
    let advice = if untrusted {
        "name the gateways' certificate authority with --tls-ca, and the gateway as its certificate does"
    } else if answered {
        "again in a moment: the cluster may be electing a leader; `evermint cluster status` shows who is there"
    } else {
        "start one with `evermint dev` or `evermint serve`, or name a running one with --gateway"
    };
    advised(
        format!("no gateway could serve the call ({})", told.join("; ")),
        advice,
    )
}

/// What a gateway's refusal means, with advice.
pub fn explain(url: &str, status: &Status) -> anyhow::Error {
    let reason = status
        .metadata()
        .get(REASON)
        .and_then(|r| r.to_str().ok())
        .unwrap_or_default();
    let message = match status.message() {
        "" => status.code().description(),
        message => message,
    };
    let advice = match (status.code(), reason) {
        (Code::NotFound, _) => "check the name and the --workspace; `list` shows what is there",
        (Code::AlreadyExists, _) => "choose another name, or `update` what is there",
        (_, "version-mismatch") => "read it again, then repeat the change with its current version",
        (_, "in-use") => "detach it from its sandboxes and delete its routes first",
        (_, "refresh-managed") => {
            "`evermint provider refresh delete` first, or reconfigure the refresh"
        }
        (_, "no-refresh") => {
            "`evermint provider refresh configure` puts a credential under a refresh"
        }
        (_, "stopped") => {
            "`evermint provider refresh status` says what has to be corrected; reconfigure it then"
        }
        (_, "in-doubt") => {
            "`evermint provider refresh status` says until when; it is settled by itself"
        }
        (_, "not-revocable") => {
            "configure the refresh with --revoke-url, or leave out --revoke and revoke at the issuer yourself"
        }
        (_, "grant-at-stake") => {
            "rotate without --revoke: the old token ends by itself; `refresh delete --revoke` ends all of the grant"
        }
        (_, "outcome-unknown" | "done-elsewhere") => "look what is there before you repeat it",
        (Code::InvalidArgument, _) => "correct what is named; --help says what is expected",
        (Code::Unauthenticated, _) => {
            "give a token that is good with --admin-token-file, or a certificate with --client-cert and --client-key"
        }
        (Code::PermissionDenied, _) => "use a token that is allowed to do this",
        (Code::Unavailable | Code::Unknown, _) => {
            "look what is there before you repeat it: the gateway was lost in mid-call"
        }
        (Code::Cancelled, "") if url.starts_with("http:") => {
            "use https:// if this gateway speaks TLS; else look what is there before you repeat it"
        }
        (Code::DeadlineExceeded | Code::Cancelled, _) => {
            "look what is there before you repeat it, or give more time with --deadline"
        }
        (Code::Unimplemented, _) => {
            "use programs of one version: this gateway does not know the call"
        }
        _ => "",
    };
    let problems = evermint_gateway::field_problems(status);
    let problem = match problems.as_slice() {
        [] | [_] => format!("{message} (gateway {url})"),
        problems => {
            let told = problems
                .iter()
                .map(|p| format!("\n  {} {}", p.field, p.problem));
            format!(
                "{} fields are wrong (gateway {url}){}",
                problems.len(),
                told.collect::<String>()
            )
        }
    };
    if advice.is_empty() {
        anyhow::anyhow!("{problem}")
    } else {
        advised(problem, advice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit;

    fn access(url: &str) -> Access {
        Access {
            urls: vec![url.to_owned()],
            admin_token_file: None,
            tls_ca: None,
            client_certificate: None,
            timeout: Duration::from_secs(1),
        }
    }

    #[test]
    fn what_is_no_gateway_is_refused() {
        for url in ["", "localhost:7443", "ftp://x", "http://", "/x"] {
            let error = Gateways::new(&access(url)).err();
            assert!(error.is_some(), "{url}");
        }
        assert!(Gateways::new(&access("http://127.0.0.1:7443")).is_ok());
        assert!(Gateways::new(&access("https://gateway.internal:7443")).is_ok());
    }

    #[test]
    fn the_admin_token_does_not_travel_in_clear_text() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "token\n").unwrap();
        for (url, allowed) in [
            ("http://gateway.internal:7443", false),
            ("http://10.0.0.1:7443", false),
            ("http://127.0.0.1:7443", true),
            ("http://[::1]:7443", true),
            ("https://gateway.internal:7443", true),
        ] {
            let access = Access {
                admin_token_file: Some(file.path().to_owned()),
                ..access(url)
            };
            assert_eq!(Gateways::new(&access).is_ok(), allowed, "{url}");
        }
    }

    #[tokio::test]
    async fn the_next_gateway_is_asked_when_one_is_out_of_reach() {
        // Port 1 of loopback: nobody listens there.
        let gateways = Gateways::new(&Access {
            urls: vec!["http://127.0.0.1:1".into(), "http://127.0.0.1:1".into()],
            ..access("")
        })
        .unwrap();
        let error = gateways
            .read(async |_wire| Ok(Response::new(())))
            .await
            .unwrap_err();
        let text = error.to_string();
        assert_eq!(text.matches("http://127.0.0.1:1:").count(), 2, "{text}");
        assert!(text.contains("refused"), "{text}");
        assert!(exit::advice(&error).unwrap().contains("evermint dev"));
    }

    #[test]
    fn a_refusal_comes_with_advice() {
        let mut status = Status::aborted("provider was modified concurrently (current version: 4)");
        status
            .metadata_mut()
            .insert(REASON, MetadataValue::from_static("version-mismatch"));
        let error = explain("http://127.0.0.1:7443", &status);
        assert!(error.to_string().starts_with("provider was modified"));
        assert!(exit::advice(&error).unwrap().contains("read it again"));
    }
}
