//! What a failure means: the one place that decides whether to retry, to wait, or to call a
//! person.
//!
//! A refusal is final only if the issuer names a reason that no retry changes, in the form of
//! [RFC 6749 §5.2](https://www.rfc-editor.org/rfc/rfc6749#section-5.2), and under a status that is
//! made for it. What stands in the way between here and the issuer (proxies, firewalls, load
//! balancers) answers too, and does not know the grant.

mod aws;
mod github;

use std::time::Duration;

use evermint_core::mint::{Failure, FailureClass};
use evermint_core::refresh::RETRY_AFTER_MAX_MS;
use evermint_core::strategy::Strategy;
use evermint_core::time::millis;
use http::header::{CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::{HeaderMap, HeaderName};
use serde_json::Value;
use url::Url;

use crate::exchange::Proof;
use crate::lifetime::http_date;
use crate::redact::{Redactor, bounded};
use crate::remedy::{Said, remedy};
use crate::response::Unusable;
use crate::skew::Skew;
use crate::strategy::refresher;
use crate::transport::{Answer, NoAnswer};

/// Judges the failures of one mint.
#[derive(Debug)]
pub(crate) struct Judge<'a> {
    pub(crate) strategy: Strategy,
    pub(crate) redactor: &'a Redactor,
    /// By what the request proved itself.
    pub(crate) proof: Proof,
}

impl Judge<'_> {
    /// There is no whole answer.
    pub(crate) fn no_answer(&self, no: NoAnswer) -> Failure {
        match no {
            NoAnswer::Refused(refused) => self.failure(
                FailureClass::ConfigRefused,
                &refused.to_string(),
                "correct the token endpoint, or allow it in the configuration of the replicas",
                None,
            ),
            NoAnswer::Unsent { cause, retry_after } => {
                self.failure(FailureClass::Unsent, &cause, "", retry_after)
            }
            NoAnswer::Lost { cause } => self.failure(self.lost(), &cause, "", None),
        }
    }

    /// There is an answer, and no token in it.
    pub(crate) fn answer(&self, answer: &Answer, why: Unusable) -> Failure {
        let status = answer.status.as_u16();
        let words = Words::of(answer);
        let known = self.known(answer, &words);
        let mut class = match (status, why) {
            (200..=299, Unusable::Problem(_)) => self.lost(),
            (400..=499, _) if let Some((class, _)) = known => class,
            (200..=299 | 400 | 401 | 403, _) => self
                .named(&words.said.code)
                .or_else(|| (status == 403 && is_html(answer)).then_some(FailureClass::Throttled))
                .unwrap_or(FailureClass::UnknownRefusal),
            (300..=399, _) => FailureClass::ConfigRefused,
            (408 | 425 | 503, _) => FailureClass::Transient,
            (429, _) => FailureClass::Throttled,
            // Permanent codes count under their own statuses only.
            (400..=499, _) => passing(&words.said.code).unwrap_or(FailureClass::UnknownRefusal),
            _ => self.lost(),
        };
        let mut hint = match known {
            Some((_, hint)) => hint.to_owned(),
            None => remedy(class, self.strategy, &words.said).to_owned(),
        };
        let is_final = matches!(
            class,
            FailureClass::GrantRefused | FailureClass::ConfigRefused
        );
        if is_final && self.is_of_proof(status, &words.said.code) {
            match (self.proof, Skew::of(answer)) {
                // The next assertion is dated by the issuer's clock.
                (Proof::Dated, Some(skew)) => {
                    class = FailureClass::Transient;
                    hint = format!("{skew}: set it (NTP)");
                }
                // What keeps the file may be about to replace it.
                (Proof::Borrowed, _) => {
                    class = FailureClass::UnknownRefusal;
                    hint = format!("check that the token file is kept fresh; otherwise: {hint}");
                }
                (Proof::Dated | Proof::Lasting, _) => {}
            }
        }
        let cause = match (status, why) {
            (300..=399, _) => format!(
                "token endpoint redirects to {} (HTTP {status})",
                target(&answer.headers)
            ),
            (_, Unusable::Problem(problem)) => format!("HTTP {status} with {problem}"),
            _ => words.line(status),
        };
        self.failure(class, &cause, &hint, pause(answer))
    }

    /// The code of the issuer's refusal; empty if it names none.
    pub(crate) fn code(&self, answer: &Answer) -> String {
        Words::of(answer).said.code
    }

    /// Whether the issuer refuses the client itself, whatever it asks for.
    pub(crate) fn refuses_client(&self, answer: &Answer) -> bool {
        let is_refusal = matches!(answer.status.as_u16(), 400 | 401 | 403);
        let code = self.code(answer);
        is_refusal
            && matches!(
                code.as_str(),
                "invalid_client" | "incorrect_client_credentials"
            )
    }

    /// The refusals of issuers that do not speak OAuth, each with its remedy.
    fn known(&self, answer: &Answer, words: &Words) -> Option<(FailureClass, &'static str)> {
        match self.strategy {
            Strategy::GitHubAppInstallation => github::verdict(answer, &words.said.description),
            _ => aws::verdict(&words.said.code, refresher(self.strategy).grant().refused),
        }
    }

    /// Whether a refusal may be about what the request proved itself by.
    fn is_of_proof(&self, status: u16, code: &str) -> bool {
        let is_github = self.strategy == Strategy::GitHubAppInstallation;
        let special = match self.proof {
            Proof::Lasting => return false,
            Proof::Dated => aws::is_of_signature(code) || (is_github && status == 401),
            Proof::Borrowed => aws::is_of_token(code),
        };
        special || matches!(code, "invalid_grant" | "invalid_client" | "invalid_request")
    }

    /// The class of an error code that names its reason.
    fn named(&self, code: &str) -> Option<FailureClass> {
        match code {
            "invalid_grant"
            | "bad_refresh_token"
            | "refresh_token_reused"
            | "interaction_required"
            | "login_required"
            | "consent_required" => Some(refresher(self.strategy).grant().refused),
            "invalid_client"
            | "unauthorized_client"
            | "unsupported_grant_type"
            | "invalid_scope"
            | "invalid_request"
            | "invalid_target"
            | "deleted_client"
            | "incorrect_client_credentials" => Some(FailureClass::ConfigRefused),
            _ => passing(code),
        }
    }

    /// The request went out, and its effect is unknown.
    fn lost(&self) -> FailureClass {
        if self.strategy.consumes_material() {
            FailureClass::Unclear
        } else {
            FailureClass::Transient
        }
    }

    fn failure(
        &self,
        class: FailureClass,
        cause: &str,
        remedy: &str,
        retry_after: Option<Duration>,
    ) -> Failure {
        Failure {
            class,
            cause: self.redactor.clean(cause),
            remedy: bounded(remedy.to_owned()),
            retry_after_ms: retry_after.map(|wait| millis(wait).min(RETRY_AFTER_MAX_MS)),
        }
    }
}

/// The class of an error code that says: not now.
fn passing(code: &str) -> Option<FailureClass> {
    match code {
        "temporarily_unavailable" | "server_error" | "UNAVAILABLE" | "INTERNAL" => {
            Some(FailureClass::Transient)
        }
        "slow_down" | "RESOURCE_EXHAUSTED" => Some(FailureClass::Throttled),
        _ => None,
    }
}

/// What the issuer said, out of the body of its answer.
#[derive(Debug, Default)]
struct Words {
    said: Said,
    /// The issuer's number for the request, if its own words do not hold it.
    request: String,
}

impl Words {
    fn of(answer: &Answer) -> Self {
        let body = answer.body.as_ref().map_or(&[][..], |body| &body[..]);
        if let Some(words) = aws::words(body) {
            return words;
        }
        let Ok(Value::Object(body)) = serde_json::from_slice(body) else {
            return Self::default();
        };
        let text = |value: Option<&Value>| match value {
            Some(Value::String(text)) => text.clone(),
            _ => String::new(),
        };
        let first = |names: &[&str], of: &serde_json::Map<String, Value>| {
            let found = names.iter().map(|name| text(of.get(*name)));
            found
                .into_iter()
                .find(|text| !text.is_empty())
                .unwrap_or_default()
        };
        let nested = body.get("error").and_then(Value::as_object);
        let code = match nested {
            Some(error) => first(&["code", "type", "status"], error),
            None => first(&["error", "errorCode"], &body),
        };
        let description = match nested {
            Some(error) => first(&["message"], error),
            None => first(&["error_description", "errorMessage", "message"], &body),
        };
        let numbers = body.get("error_codes").and_then(Value::as_array);
        let mut aadsts: Vec<u64> = numbers
            .into_iter()
            .flatten()
            .filter_map(Value::as_u64)
            .collect();
        aadsts.extend(numbers_after("AADSTS", &description));
        let mut subtype = first(&["error_subtype", "suberror"], &body);
        if let Some(details) = nested.and_then(|error| error.get("details")?.as_array()) {
            let reasons = details.iter().map(|detail| text(detail.get("reason")));
            subtype = reasons.fold(subtype, |a, b| if a.is_empty() { b } else { a });
        }
        let context = body.get("context").and_then(Value::as_object);
        Self {
            said: Said {
                code,
                subtype,
                aadsts,
                description,
            },
            request: context.map_or(String::new(), |context| first(&["requestId"], context)),
        }
    }

    /// All of it in one line, with the status.
    fn line(&self, status: u16) -> String {
        let subtype = match self.said.subtype.as_str() {
            "" => String::new(),
            subtype => format!(" ({subtype})"),
        };
        let request = match self.request.as_str() {
            "" => String::new(),
            request => format!(", request {request}"),
        };
        let status = format!("HTTP {status}{request}");
        match (self.said.code.as_str(), self.said.description.as_str()) {
            ("", "") => format!("{status} without an error code"),
            ("", description) => format!("{status}: {description}"),
            (code, "") => format!("{code}{subtype} ({status})"),
            // The issuer's words last: they may be cut.
            (code, description) => format!("{code}{subtype} ({status}): {description}"),
        }
    }
}

/// The numbers that follow `prefix` in `text`.
fn numbers_after(prefix: &str, text: &str) -> Vec<u64> {
    let after = text.split(prefix).skip(1);
    let digits = after.map(|rest| {
        rest.split(|c: char| !c.is_ascii_digit())
            .next()
            .unwrap_or("")
    });
    digits.filter_map(|digits| digits.parse().ok()).collect()
}

/// Google answers throttling with a page instead of an error
/// (google-oauth-java-client issue 57).
fn is_html(answer: &Answer) -> bool {
    let by_type = header(&answer.headers, CONTENT_TYPE)
        .to_ascii_lowercase()
        .contains("text/html");
    let body = answer.body.as_ref().map_or(&[][..], |body| &body[..]);
    by_type || body.trim_ascii_start().starts_with(b"<")
}

/// Where a redirect leads, without what might be an echo of the request.
fn target(headers: &HeaderMap) -> String {
    let location = header(headers, LOCATION);
    match Url::parse(location) {
        Ok(url) => format!("{}{}", url.origin().ascii_serialization(), url.path()),
        Err(_) if location.is_empty() => "nowhere".to_owned(),
        Err(_) => location.split(['?', '#']).next().unwrap_or("").to_owned(),
    }
}

/// `Retry-After`, in seconds or as a date,
/// [RFC 9110 §10.2.3](https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3).
fn pause(answer: &Answer) -> Option<Duration> {
    let text = header(&answer.headers, RETRY_AFTER).trim();
    if let Ok(seconds) = text.parse::<f64>() {
        let seconds = seconds.clamp(0.0, RETRY_AFTER_MAX_MS as f64 / 1_000.0);
        return Duration::try_from_secs_f64(seconds).ok();
    }
    // A date is one of the issuer's clock.
    let now = answer.date().unwrap_or(answer.received_at);
    let until = http_date(text)?;
    Some(until.duration_since(now).unwrap_or(Duration::ZERO))
}

fn header(headers: &HeaderMap, name: HeaderName) -> &str {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("")
}

#[cfg(test)]
mod tests;
