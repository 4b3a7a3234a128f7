//! Whether the endpoint of a route takes what sandboxes will send it: one small call in a protocol
//! of the provider, with the route's credential and model, before the route is set.
//!
//! The status of the answer decides. Its body is the upstream's, and is shown to nobody.

use std::time::Duration;

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use evermint_core::credential::Credential;
use evermint_core::profile::Auth;
use evermint_core::profile::route::Upstream;
use evermint_core::provider::Provider;
use evermint_core::secret::Secret;
use evermint_proto::openshell::inference::v1;
use evermint_seal::Context;
use serde_json::{Value, json};
use tokio::time::Instant;
use tonic::Status;
use zeroize::Zeroizing;

use super::{Face, status};
use crate::port::Post;

/// How long an endpoint has for its answer: models may have to be loaded.
const TIME: Duration = Duration::from_secs(30);
/// The most that the model may say.
const TOKENS_MAX: u32 = 32;
/// The version of Anthropic's API that Vertex AI wants in the body.
const VERTEX_ANTHROPIC: &str = "vertex-2023-10-16";

/// Why an endpoint cannot be said to take the calls of a route.
struct Failure {
    /// What happened; never with what the upstream said, or the credential.
    what: String,
    /// What to look at.
    remedy: &'static str,
}

/// A call that shows whether an endpoint takes others.
struct Probe {
    url: String,
    protocol: &'static str,
    /// What is sent; each is tried after the one before it was found malformed.
    bodies: Vec<Value>,
}

/// Tries where `upstream` leads, with the value of `credential`.
///
/// # Errors
/// `FAILED_PRECONDITION` with what to look at, if it takes no calls; `UNAVAILABLE` if this replica
/// is busy.
pub(super) async fn verify(
    face: &Face,
    provider: &Provider,
    upstream: &Upstream,
    credential: &Credential,
) -> Result<v1::ValidatedEndpoint, Status> {
    let key = &credential.id.key;
    let sealed = credential.value.as_ref().and_then(|v| v.outputs.get(key));
    let sealed = sealed.ok_or_else(|| status::no_usable_credential(provider))?;
    let secret = face.open(&Context::value(&credential.id, key), sealed)?;

    let until = Instant::now() + TIME;
    let turn = tokio::time::timeout_at(until, face.trials.acquire()).await;
    let Ok(Ok(_turn)) = turn else {
        return Err(crate::status::busy());
    };
    let tried = tokio::select! {
        tried = attempt(face, upstream, &secret, until) => tried,
        () = face.shutdown.cancelled() => return Err(crate::status::shutting_down()),
    };
    tried.map_err(|Failure { what, remedy }| {
        status::precondition(format!(
            "the inference endpoint of provider '{}' could not be verified for model '{}' at \
             '{}': {what}. {remedy}, or skip this check with --no-verify",
            provider.name, upstream.model, upstream.base_url
        ))
    })
}

async fn attempt(
    face: &Face,
    upstream: &Upstream,
    secret: &Secret,
    until: Instant,
) -> Result<v1::ValidatedEndpoint, Failure> {
    let probe = Probe::of(upstream)?;
    let headers = headers(upstream, secret)?;
    let mut answered = Err(Failure::status(404));
    for body in probe.bodies {
        let call = Post {
            url: probe.url.clone(),
            headers: headers.clone(),
            body,
            time: until.saturating_duration_since(Instant::now()),
        };
        let status = face.ports.web.post(call).await;
        let status = status.map_err(|what| Failure {
            what,
            remedy: "Check that the service runs, its base URL, and what this replica may reach",
        })?;
        answered = match status {
            200..=299 => Ok(()),
            _ => Err(Failure::status(status)),
        };
        if !is_malformed(status) {
            break;
        }
    }
    answered.map(|()| v1::ValidatedEndpoint {
        url: probe.url,
        protocol: probe.protocol.to_owned(),
    })
}

/// Whether another body may be taken where this one was not.
fn is_malformed(status: u16) -> bool {
    matches!(status, 400 | 404 | 405 | 422)
}

impl Failure {
    fn status(status: u16) -> Self {
        let (what, remedy) = match status {
            401 | 403 => (
                "it refused the credential",
                "Check the provider's credential and what it is allowed",
            ),
            429 => (
                "it limits how often it may be called",
                "Try again later, or check the quota of the account",
            ),
            status if is_malformed(status) => (
                "it does not take such a call",
                "Check the provider's type, its base URL and the name of the model",
            ),
            500..=599 => (
                "it is not well",
                "Check whether the endpoint serves requests",
            ),
            _ => (
                "its answer was not expected",
                "Check the provider's base URL, credential and the name of the model",
            ),
        };
        Self {
            what: format!("{what} (HTTP {status})"),
            remedy,
        }
    }
}

impl Probe {
    /// The first protocol of an upstream in which a model can be asked for a few words.
    fn of(upstream: &Upstream) -> Result<Self, Failure> {
        let ping = json!([{"role": "user", "content": "ping"}]);
        let known = [
            (
                "openai_chat_completions",
                "/v1/chat/completions",
                // Newer models want the first, and what people run themselves the second.
                vec![
                    json!({"messages": ping, "max_completion_tokens": TOKENS_MAX}),
                    json!({"messages": ping, "max_tokens": TOKENS_MAX}),
                ],
            ),
            (
                "anthropic_messages",
                "/v1/messages",
                vec![json!({"messages": ping, "max_tokens": TOKENS_MAX})],
            ),
            (
                "openai_responses",
                "/v1/responses",
                vec![json!({"input": "ping", "max_output_tokens": TOKENS_MAX})],
            ),
            (
                "openai_completions",
                "/v1/completions",
                vec![json!({"prompt": "ping", "max_tokens": TOKENS_MAX})],
            ),
        ];
        let spoken = |protocol: &str| upstream.protocols.iter().any(|p| p == protocol);
        let (protocol, path, mut bodies) = known
            .into_iter()
            .find(|(protocol, _, _)| spoken(protocol))
            .ok_or(Failure {
                what: "its type speaks no protocol in which it could be tried".to_owned(),
                remedy: "Check the provider's profile",
            })?;
        let is_raw =
            upstream.model_in_path && upstream.request_path.as_deref() == Some(":rawPredict");
        for body in bodies.iter_mut().filter_map(Value::as_object_mut) {
            match is_raw {
                true => body.insert("anthropic_version".to_owned(), VERTEX_ANTHROPIC.into()),
                false => body.insert("model".to_owned(), upstream.model.as_str().into()),
            };
        }
        Ok(Self {
            url: url(upstream, path),
            protocol,
            bodies,
        })
    }
}

/// Where a call to `path` goes that a sandbox makes of `inference.local`.
fn url(upstream: &Upstream, path: &str) -> String {
    let (base, model) = (upstream.base_url.trim_end_matches('/'), &upstream.model);
    match (&upstream.request_path, upstream.model_in_path) {
        (Some(suffix), true) => format!("{base}/{model}{suffix}"),
        (None, true) => format!("{base}/{model}{path}"),
        (Some(path), false) if path.is_empty() || path.starts_with('/') => format!("{base}{path}"),
        (Some(path), false) => format!("{base}/{path}"),
        // A base URL that ends in the version has it already.
        (None, false) => match path.strip_prefix("/v1") {
            Some(rest) if base.ends_with("/v1") => format!("{base}{rest}"),
            _ => format!("{base}{path}"),
        },
    }
}

/// The upstream's own headers, and the one that carries the credential.
fn headers(upstream: &Upstream, secret: &Secret) -> Result<HeaderMap, Failure> {
    let unfit = |what: &str| Failure {
        what: what.to_owned(),
        remedy: "Check the provider's profile and credential",
    };
    let key = secret.expose_str().unwrap_or_default();
    if key.trim().is_empty() {
        return Err(unfit("its credential is blank"));
    }
    let (name, text) = match &upstream.auth {
        Auth::Unspecified => ("", format!("Bearer {key}")),
        Auth::Bearer { header } => (header.as_str(), format!("Bearer {key}")),
        Auth::Header { name, prefix } => (name.as_str(), format!("{prefix}{key}")),
        // OpenShell's sandboxes know no other ways.
        Auth::Basic { .. } | Auth::Query { .. } | Auth::Path { .. } => {
            return Err(unfit(
                "its credential is no bearer token and no header of its own",
            ));
        }
    };
    let text = Zeroizing::new(text);
    let mut value = HeaderValue::from_str(&text)
        .map_err(|_| unfit("its credential holds what no header can carry"))?;
    value.set_sensitive(true);
    let mut headers = HeaderMap::new();
    for (name, value) in &upstream.headers {
        let parsed = (name.parse::<HeaderName>(), HeaderValue::from_str(value));
        let (Ok(name), Ok(value)) = parsed else {
            return Err(unfit("one of its headers is none"));
        };
        headers.insert(name, value);
    }
    let name = match name {
        "" => AUTHORIZATION,
        name => name
            .parse()
            .map_err(|_| unfit("the header of its credential is none"))?,
    };
    headers.insert(name, value);
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn upstream(base_url: &str, protocols: &[&str]) -> Upstream {
        Upstream {
            base_url: base_url.to_owned(),
            protocols: protocols.iter().map(|p| (*p).to_owned()).collect(),
            auth: Auth::Unspecified,
            headers: BTreeMap::new(),
            passthrough_headers: Vec::new(),
            model: "m".to_owned(),
            model_in_path: false,
            request_path: None,
        }
    }

    #[test]
    fn a_probe_goes_where_sandboxes_call() {
        let chat = &["openai_chat_completions"][..];
        for (base, model_in_path, request_path, protocols, expected) in [
            (
                "https://a.test/v1",
                false,
                None,
                chat,
                "https://a.test/v1/chat/completions",
            ),
            (
                "https://a.test/",
                false,
                None,
                chat,
                "https://a.test/v1/chat/completions",
            ),
            (
                "https://a.test/v1/openai",
                false,
                None,
                chat,
                "https://a.test/v1/openai/v1/chat/completions",
            ),
            (
                "https://a.test",
                true,
                None,
                chat,
                "https://a.test/m/v1/chat/completions",
            ),
            (
                "https://a.test",
                false,
                Some("/chat/completions"),
                chat,
                "https://a.test/chat/completions",
            ),
            (
                "https://a.test",
                false,
                Some("chat"),
                chat,
                "https://a.test/chat",
            ),
            ("https://a.test", false, Some(""), chat, "https://a.test"),
            (
                "https://a.test/models",
                true,
                Some(":rawPredict"),
                &["anthropic_messages"],
                "https://a.test/models/m:rawPredict",
            ),
            (
                "https://a.test/v1",
                false,
                None,
                &["model_discovery", "openai_responses"],
                "https://a.test/v1/responses",
            ),
            (
                "https://a.test/v1",
                false,
                None,
                &["openai_completions"],
                "https://a.test/v1/completions",
            ),
        ] {
            let upstream = Upstream {
                model_in_path,
                request_path: request_path.map(str::to_owned),
                ..upstream(base, protocols)
            };
            let probe = Probe::of(&upstream).ok().unwrap();
            assert_eq!(probe.url, expected);
            let raw = request_path == Some(":rawPredict");
            for body in probe.bodies {
                assert_eq!(body.get("model").is_none(), raw, "{body}");
                assert_eq!(body.get("anthropic_version").is_some(), raw, "{body}");
            }
        }
        let silent = Probe::of(&upstream("https://a.test", &["openai_embeddings"]));
        assert!(silent.is_err());
    }

    #[test]
    fn a_credential_travels_as_the_profile_says_and_is_not_shown() {
        let header = |name: &str, prefix: &str| Auth::Header {
            name: name.to_owned(),
            prefix: prefix.to_owned(),
        };
        let bearer = |header: &str| Auth::Bearer {
            header: header.to_owned(),
        };
        for (auth, name, value) in [
            (Auth::Unspecified, "authorization", "Bearer k"),
            (bearer(""), "authorization", "Bearer k"),
            (bearer("x-token"), "x-token", "Bearer k"),
            (header("x-api-key", ""), "x-api-key", "k"),
            (header("authorization", "Key "), "authorization", "Key k"),
        ] {
            let upstream = Upstream {
                auth,
                headers: BTreeMap::from([("x-version".to_owned(), "1".to_owned())]),
                ..upstream("https://a.test", &[])
            };
            let sent = headers(&upstream, &Secret::from("k")).ok().unwrap();
            assert_eq!(sent[name], value);
            assert_eq!(sent["x-version"], "1");
            assert!(sent[name].is_sensitive());
        }
        for (auth, secret) in [
            (
                Auth::Basic {
                    user: "u".to_owned(),
                },
                "k",
            ),
            (
                Auth::Query {
                    param: "key".to_owned(),
                },
                "k",
            ),
            (
                Auth::Path {
                    template: "/{credential}".to_owned(),
                },
                "k",
            ),
            (Auth::Unspecified, " "),
            (Auth::Unspecified, "can\nary"),
            (header("no header", ""), "canary"),
        ] {
            let upstream = Upstream {
                auth,
                ..upstream("https://a.test", &[])
            };
            let failure = headers(&upstream, &Secret::from(secret)).err().unwrap();
            assert!(!failure.what.contains("ary"), "{}", failure.what);
        }
    }

    #[test]
    fn an_answer_that_is_no_success_says_what_to_look_at() {
        for (status, what, remedy) in [
            (
                400,
                "does not take such a call (HTTP 400)",
                "name of the model",
            ),
            (401, "refused the credential (HTTP 401)", "credential"),
            (403, "refused the credential (HTTP 403)", "credential"),
            (429, "how often", "quota"),
            (503, "not well", "serves requests"),
            (302, "not expected (HTTP 302)", "base URL"),
        ] {
            let failure = Failure::status(status);
            assert!(failure.what.contains(what), "{}", failure.what);
            assert!(failure.remedy.contains(remedy), "{}", failure.remedy);
        }
    }
}
