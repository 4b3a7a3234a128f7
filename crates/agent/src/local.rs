//! The loopback listener: health, readiness, and the metrics and metadata endpoints that were asked
//! for.

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use evermint_client::{Snapshot, prometheus};
use http::{HeaderMap, Method, Request, Response, StatusCode};

use crate::answer::{text, typed};
use crate::body::Body;
use crate::config::{Cloud, Metadata};
use crate::metadata::{Problem, aws, azure, google, provider};
use crate::shared::Shared;

/// What the loopback listener knows.
pub(crate) struct Local {
    metadata: Vec<Metadata>,
    /// Whether metrics were asked for.
    metrics: bool,
    /// What a caller of the AWS endpoint has to show.
    pub(crate) aws_key: String,
    /// What a caller of the Azure endpoint has to show.
    pub(crate) azure_key: String,
}

impl Local {
    pub(crate) fn new(metadata: Vec<Metadata>, metrics: bool) -> Self {
        Self {
            metadata,
            metrics,
            aws_key: key(),
            azure_key: key(),
        }
    }

    /// Whether a cloud's endpoint was asked for.
    pub(crate) fn serves(&self, cloud: Cloud) -> Option<&Metadata> {
        self.metadata.iter().find(|m| m.cloud == cloud)
    }

    /// Answers a request.
    pub(crate) fn serve<B>(&self, shared: &Shared, request: &Request<B>) -> Response<Body> {
        let snapshot = shared.client.snapshot();
        let path = request.uri().path();
        match path {
            "/healthz" => return text(StatusCode::OK, "ok\n"),
            "/readyz" => return ready(&snapshot),
            "/metrics" if self.metrics => {
                let rendered = shared.counters.render() + &shared.client.prometheus();
                return typed(StatusCode::OK, prometheus::CONTENT_TYPE, rendered);
            }
            _ => {}
        }
        let cloud = match path {
            aws::PATH => Cloud::Aws,
            azure::PATH => Cloud::Azure,
            _ if google::is_path(path) => Cloud::Google,
            _ => return text(StatusCode::NOT_FOUND, "not found\n"),
        };
        let Some(metadata) = self.serves(cloud) else {
            return text(StatusCode::NOT_FOUND, "this metadata endpoint is off\n");
        };
        if request.method() != Method::GET {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered\n");
        }
        // What was passed on by somebody was not meant for this endpoint.
        if request.headers().contains_key("x-forwarded-for") {
            return text(
                StatusCode::FORBIDDEN,
                "forwarded requests are not answered\n",
            );
        }
        let asked = Asked {
            path,
            query: request.uri().query(),
            headers: request.headers(),
        };
        let provider = provider(&snapshot, metadata);
        let answered = match cloud {
            Cloud::Google => google::serve(provider, &asked),
            Cloud::Aws => aws::serve(provider, &asked, &self.aws_key),
            Cloud::Azure => azure::serve(provider, &asked, &self.azure_key),
        };
        if answered.status() == StatusCode::OK {
            shared.counters.metadata.add();
        }
        answered
    }
}

/// What a caller of a metadata endpoint asks for.
pub(crate) struct Asked<'a> {
    pub(crate) path: &'a str,
    pub(crate) query: Option<&'a str>,
    pub(crate) headers: &'a HeaderMap,
}

impl Asked<'_> {
    /// A header, as text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// A query parameter as it was sent.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        let pairs = self.query?.split('&');
        pairs
            .filter_map(|pair| pair.split_once('='))
            .find(|(n, _)| *n == name)
            .map(|(_, v)| v)
    }
}

/// Compares in a time that does not tell where the difference is.
pub(crate) fn same(shown: Option<&str>, key: &str) -> Result<(), Problem> {
    let shown = shown.unwrap_or_default();
    aws_lc_rs::constant_time::verify_slices_are_equal(shown.as_bytes(), key.as_bytes())
        .map_err(|_| Problem::Unauthorized)
}

fn ready(snapshot: &Snapshot) -> Response<Body> {
    if snapshot.is_ready() {
        text(StatusCode::OK, "ready\n")
    } else {
        text(
            StatusCode::SERVICE_UNAVAILABLE,
            "no gateway has given a bundle yet\n",
        )
    }
}

/// 128 random bits in hex.
fn key() -> String {
    let mut bytes = [0; 16];
    SystemRandom::new()
        .fill(&mut bytes)
        .expect("the system has random numbers");
    hex::encode(bytes)
}
