//! The way out: one HTTP client with all its bounds.
//!
//! A request goes to a checked endpoint, through the gate of its issuer, over a connection of its
//! own, at most once, and inside its ticket. What comes back is either a whole [`Answer`] or a
//! [`NoAnswer`] that says honestly whether the request went out. `reach` asks for a sign of life only.
//!
//! No connection is reused: an issuer may close an idle one in the moment in which the request is
//! written, and then nobody can say whether the grant was spent. HTTP/1.1 alone, because there the
//! body is pulled in the poll that writes it (see `fence`); no redirect, proxy, cookie,
//! decompression or retry.

use std::collections::BTreeSet;
use std::error::Error as _;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use evermint_core::mint::Fence;
use http::header::{ACCEPT, CONTENT_TYPE, DATE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use reqwest::redirect::Policy;
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::config::Config;
use crate::endpoint::{Endpoint, EndpointRefused, EndpointRules};
use crate::fence::{FencedBody, RevokeOnDrop, SendRight, fenced};
use crate::form::Form;
use crate::gate::{Gates, Shut};
use crate::resolver::{AddressRefused, CheckedResolver};
use crate::{Error, lifetime};

/// How long an answer is read that may have arrived while this process was stopped: a deadline
/// makes no answer worthless, and nothing can be sent any more.
const LATE_ANSWER: Duration = Duration::from_millis(100);

/// The longest answer that is read, in bytes.
pub const ANSWER_MAX: usize = 1024 * 1024;

/// Sends token requests.
#[derive(Debug)]
pub struct Transport {
    client: reqwest::Client,
    rules: EndpointRules,
    gates: Gates,
}

/// A request, ready to go.
pub struct Outgoing {
    method: Method,
    url: String,
    headers: HeaderMap,
    body: Option<Bytes>,
}

impl Outgoing {
    /// A request without a body. Unlike a body, it counts as sent before it is written.
    pub fn bare(method: Method, url: impl Into<String>) -> Self {
        Self {
            method,
            url: url.into(),
            headers: HeaderMap::from_iter([(ACCEPT, JSON)]),
            body: None,
        }
    }

    /// Posts a form.
    pub fn form(url: impl Into<String>, form: Form) -> Self {
        Self::form_bytes(url, form.into_bytes())
    }

    /// Posts the bytes of a form, which somebody else has signed.
    pub fn form_bytes(url: impl Into<String>, body: Bytes) -> Self {
        Self::bare(Method::POST, url)
            .header(CONTENT_TYPE, FORM)
            .body(body)
    }

    /// Posts JSON.
    pub fn json(url: impl Into<String>, body: &serde_json::Value) -> Self {
        let bytes = Zeroizing::new(body.to_string().into_bytes());
        Self::bare(Method::POST, url)
            .header(CONTENT_TYPE, JSON)
            .body(Bytes::from_owner(bytes))
    }

    /// The same with this header field, in place of another of that name.
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    fn body(mut self, body: Bytes) -> Self {
        self.body = Some(body);
        self
    }
}

impl std::fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Outgoing({})", self.method)
    }
}

const FORM: HeaderValue = HeaderValue::from_static("application/x-www-form-urlencoded");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A whole answer.
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its header fields.
    pub headers: HeaderMap,
    /// Its body, of at most [`ANSWER_MAX`] bytes; `None` if it was longer. Overwritten in memory
    /// when it is dropped.
    pub body: Option<Zeroizing<Vec<u8>>>,
    /// This replica's wall clock when it came.
    pub received_at: SystemTime,
}

impl Answer {
    /// The issuer's clock, from its `Date` header.
    pub fn date(&self) -> Option<SystemTime> {
        lifetime::http_date(self.headers.get(DATE)?.to_str().ok()?)
    }
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Answer({})", self.status)
    }
}

/// Why there is no whole answer. The texts hold no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// The endpoint may not be used; nothing was sent.
    Refused(EndpointRefused),
    /// Nothing was sent, and nothing will be.
    Unsent {
        /// Why.
        cause: String,
        /// When to try again, if that is known.
        retry_after: Option<Duration>,
    },
    /// The request went out, and no whole answer came back.
    Lost {
        /// What happened.
        cause: String,
    },
}

impl Transport {
    /// A transport under these rules.
    ///
    /// # Errors
    /// [`Error`] names the setting that cannot be.
    pub fn new(config: &Config) -> Result<Self, Error> {
        Self::with_resolver(config, |rules| {
            CheckedResolver::system(rules.addresses.clone())
        })
    }

    fn with_resolver(
        config: &Config,
        resolver: impl FnOnce(&EndpointRules) -> CheckedResolver,
    ) -> Result<Self, Error> {
        for (name, value) in [
            ("connect_timeout", config.connect_timeout_ms),
            ("concurrency", config.concurrency.into()),
            ("requests_per_minute", config.requests_per_minute.into()),
            ("breaker_failures", config.breaker_failures.into()),
        ] {
            if value == 0 {
                return Err(Error::Zero(name));
            }
        }
        let rules = EndpointRules::new(config);
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("evermint/", env!("CARGO_PKG_VERSION")))
            .no_proxy()
            .redirect(Policy::none())
            .retry(reqwest::retry::never())
            .http1_only()
            .pool_max_idle_per_host(0)
            .tcp_nodelay(true)
            .no_gzip()
            .no_brotli()
            .no_zstd()
            .no_deflate()
            .referer(false)
            .connect_timeout(config.connect_timeout())
            .dns_resolver(Arc::new(resolver(&rules)));
        let mut certificates = Vec::new();
        for pem in &config.ca_certificates {
            let parsed = reqwest::Certificate::from_pem_bundle(pem.as_bytes());
            certificates.extend(parsed.map_err(|e| Error::Certificate(innermost(&e)))?);
        }
        if !certificates.is_empty() {
            builder = builder.tls_certs_merge(certificates);
        }
        Ok(Self {
            client: builder.build().map_err(|e| Error::Client(innermost(&e)))?,
            rules,
            gates: Gates::new(config),
        })
    }

    /// Checks that a token endpoint may be used, as far as its URL tells.
    ///
    /// # Errors
    /// [`EndpointRefused`] says why not.
    pub fn check_endpoint(&self, url: &str) -> Result<(), EndpointRefused> {
        self.rules.check(url).map(|_| ())
    }

    /// Checks the same of an endpoint that the configuration of a refresh names, and that it is one
    /// of `fixed` or was allowed.
    ///
    /// # Errors
    /// [`EndpointRefused`] says why not.
    pub(crate) fn admit(&self, url: &str, fixed: &BTreeSet<String>) -> Result<(), EndpointRefused> {
        self.rules.admit(url, fixed)
    }

    /// Whether a token endpoint is among the allowed ones because somebody named it.
    pub(crate) fn is_listed(&self, url: &str) -> bool {
        self.rules.is_listed(url)
    }

    /// Sends a request, at most once and at the latest until the fence passes.
    ///
    /// # Errors
    /// [`NoAnswer`].
    pub async fn send(
        &self,
        fence: &Arc<dyn Fence>,
        request: Outgoing,
    ) -> Result<Answer, NoAnswer> {
        let endpoint = self.rules.way_to(&request.url).map_err(NoAnswer::Refused)?;
        let issuer = endpoint.authority.clone();
        let gate = self.gates.of(&issuer);
        // Whoever waits for longer has too little time left for the answer, and a single-use
        // token would be spent all the same.
        let patience = fence.remaining() / 2;
        let pass = match fenced(&**fence, gate.enter(patience)).await {
            Some(Ok(pass)) => pass,
            Some(Err(shut)) => return Err(unsent_at_gate(&issuer, shut)),
            None => {
                return Err(unsent(format!(
                    "the ticket ended while the request waited for its turn at {issuer}"
                )));
            }
        };

        let right = Arc::new(SendRight::default());
        let revoke = RevokeOnDrop(Arc::clone(&right));
        let mut exchange = pin!(self.exchange(endpoint, request, fence, &right));
        let mut ended = fenced(&**fence, exchange.as_mut()).await;
        if ended.is_none() && right.is_taken() {
            ended = timeout(LATE_ANSWER, exchange).await.ok();
        }
        drop(revoke);
        let is_unsent = right.revoke();
        match ended {
            Some(Ok(answer)) => {
                if answer.status.is_server_error() {
                    pass.failed();
                } else {
                    pass.succeeded();
                }
                Ok(answer)
            }
            Some(Err(error)) => {
                pass.failed();
                Err(describe(&issuer, &error, is_unsent))
            }
            None if is_unsent => Err(unsent(format!(
                "the ticket ended before the request was written to {issuer}"
            ))),
            None => {
                pass.failed();
                Err(NoAnswer::Lost {
                    cause: format!("{issuer} did not answer before the ticket ended"),
                })
            }
        }
    }

    async fn exchange(
        &self,
        endpoint: Endpoint,
        request: Outgoing,
        fence: &Arc<dyn Fence>,
        right: &Arc<SendRight>,
    ) -> Result<Answer, reqwest::Error> {
        let headers = request.headers;
        let wire = self.client.request(request.method, endpoint.url);
        let wire = match request.body {
            Some(body) => {
                let body = FencedBody::new(body, Arc::clone(fence), Arc::clone(right));
                wire.body(reqwest::Body::wrap(body))
            }
            // Nobody pulls a body that is not there: it counts as sent from here on.
            None => {
                right.take();
                wire
            }
        };
        let mut response = wire.headers(headers).send().await?;
        let mut body = Some(Zeroizing::new(Vec::with_capacity(expected(&response))));
        while let Some(chunk) = response.chunk().await? {
            body = body.take().and_then(|mut body| {
                append(&mut body, &chunk);
                (body.len() <= ANSWER_MAX).then_some(body)
            });
            if body.is_none() {
                break;
            }
        }
        Ok(Answer {
            status: response.status(),
            headers: std::mem::take(response.headers_mut()),
            body,
            received_at: SystemTime::now(),
        })
    }
}

mod reach;

/// Room for the body from the beginning.
fn expected(response: &reqwest::Response) -> usize {
    let length = response.content_length().unwrap_or(4096);
    usize::try_from(length)
        .unwrap_or(ANSWER_MAX)
        .min(ANSWER_MAX)
}

/// Appends without leaving a copy behind in memory that is given back.
fn append(body: &mut Zeroizing<Vec<u8>>, chunk: &[u8]) {
    if body.capacity() - body.len() < chunk.len() {
        let room = (body.len() + chunk.len()).next_power_of_two();
        let mut larger = Zeroizing::new(Vec::with_capacity(room));
        larger.extend_from_slice(body);
        *body = larger;
    }
    body.extend_from_slice(chunk);
}

fn unsent(cause: String) -> NoAnswer {
    NoAnswer::Unsent {
        cause,
        retry_after: None,
    }
}

fn unsent_at_gate(issuer: &str, shut: Shut) -> NoAnswer {
    let (cause, retry_after) = match shut {
        Shut::Down(wait) => (
            "did not answer the last requests and is left alone for a while",
            Some(wait),
        ),
        Shut::Crowded(wait) => (
            "has reached its rate limit (issuers.requests_per_minute)",
            Some(wait),
        ),
        Shut::Busy => (
            "is still busy with as many requests as it gets at once (issuers.concurrency)",
            None,
        ),
    };
    NoAnswer::Unsent {
        cause: format!("{issuer} {cause}"),
        retry_after,
    }
}

/// What an error of the client says. Its own text would name the URL.
fn describe(issuer: &str, error: &reqwest::Error, is_unsent: bool) -> NoAnswer {
    let mut source = error.source();
    while let Some(inner) = source {
        if let Some(refused) = inner.downcast_ref::<AddressRefused>() {
            return unsent(refused.to_string());
        }
        source = inner.source();
    }
    let why = if error.is_timeout() && error.is_connect() {
        "the connection was not established in time".to_owned()
    } else {
        innermost(error)
    };
    if is_unsent {
        unsent(format!("{issuer} could not be reached: {why}"))
    } else {
        NoAnswer::Lost {
            cause: format!("no complete answer from {issuer}: {why}"),
        }
    }
}

/// The text of the error that caused the others.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_the_client_is_told_by_its_cause() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer")]
        struct Outer(#[source] std::io::Error);
        let error = Outer(std::io::Error::other("the cause"));
        assert_eq!(innermost(&error), "the cause");
    }

    struct Endless;

    impl Fence for Endless {
        fn passed(&self) -> bool {
            false
        }
        fn remaining(&self) -> Duration {
            Duration::from_secs(60)
        }
    }

    #[tokio::test]
    async fn a_name_that_leads_inwards_is_not_connected_to() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let transport = Transport::with_resolver(&Config::default(), |rules| {
            CheckedResolver::new(
                rules.addresses.clone(),
                Arc::new(move |_| Box::pin(async move { Ok(vec![address]) })),
            )
        });
        let fence: Arc<dyn Fence> = Arc::new(Endless);
        let url = format!("https://idp.example:{}/token", address.port());
        let form = Form::new("client_credentials");
        let request = Outgoing::form(url, form);
        let sent = transport.unwrap().send(&fence, request).await;
        let NoAnswer::Unsent { cause, .. } = sent.unwrap_err() else {
            panic!("nothing may be sent");
        };
        assert!(
            cause.contains("idp.example resolves to a loopback address"),
            "{cause}"
        );
        let connected = futures::poll!(std::pin::pin!(listener.accept()));
        assert!(connected.is_pending());
    }

    /// A name server that changes its mind: each look-up takes the next answer. What is checked is
    /// what is connected to, and both are one look-up.
    #[tokio::test]
    async fn an_answer_that_changes_is_looked_up_once_and_checked_each_time() {
        let listen = |ip: &'static str, port: u16| tokio::net::TcpListener::bind((ip, port));
        let allowed = listen("127.0.0.1", 0).await.unwrap();
        let port = allowed.local_addr().unwrap().port();
        let inward = listen("127.0.0.2", port).await.unwrap();
        let (good, bad) = (allowed.local_addr().unwrap(), inward.local_addr().unwrap());
        let answers = [vec![good], vec![bad], vec![bad, good], vec![bad]];
        let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        let config = Config {
            allow_networks: vec!["127.0.0.1/32".parse().unwrap()],
            ..Config::default()
        };
        let transport = Transport::with_resolver(&config, |rules| {
            CheckedResolver::new(
                rules.addresses.clone(),
                Arc::new(move |_| {
                    let turn = counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    let answer = answers[turn].clone();
                    Box::pin(async move { Ok(answer) })
                }),
            )
        })
        .unwrap();
        for (turn, reaches) in [true, false, true, false].into_iter().enumerate() {
            let fence: Arc<dyn Fence> = Arc::new(Endless);
            let url = format!("https://idp.example:{port}/token");
            let request = Outgoing::form(url, Form::new("client_credentials"));
            let mut sending = pin!(transport.send(&fence, request));
            tokio::select! {
                sent = &mut sending => assert!(!reaches, "{turn}: {sent:?}"),
                reached = allowed.accept() => assert!(reaches, "{turn}: {reached:?}"),
                inside = inward.accept() => panic!("{turn}: {inside:?} was reached"),
            }
            assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), turn + 1);
        }
        let inside = futures::poll!(pin!(inward.accept()));
        assert!(inside.is_pending());
    }

    #[test]
    fn limits_of_zero_and_bad_certificates_are_refused() {
        let zero = Config {
            concurrency: 0,
            ..Config::default()
        };
        let error = Transport::new(&zero).unwrap_err().to_string();
        assert!(error.contains("issuers.concurrency"), "{error}");
        let bad = Config {
            ca_certificates: vec!["-----BEGIN CERTIFICATE-----\nxx\n".to_owned()],
            ..Config::default()
        };
        assert!(Transport::new(&bad).is_err());
    }
}
