//! A token request, parsed strictly: form encoding, no repeated parameter, one client authentication.

use std::collections::BTreeMap;

use axum::http::{HeaderMap, header};
use base64::{Engine, engine::general_purpose::STANDARD};
use url::form_urlencoded;

use crate::{
    client::{Authentication, Client},
    client_assertion,
    refusal::{Code, Refusal},
    secret::Digest,
};

/// The grant of [RFC 7523 §2.1](https://www.rfc-editor.org/rfc/rfc7523#section-2.1).
pub(crate) const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
/// The grant of [RFC 8693 §2.1](https://www.rfc-editor.org/rfc/rfc8693#section-2.1).
pub(crate) const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
/// The grant of [RFC 6749 §6](https://www.rfc-editor.org/rfc/rfc6749#section-6).
pub(crate) const REFRESH_TOKEN: &str = "refresh_token";
/// The grant of [RFC 6749 §4.4](https://www.rfc-editor.org/rfc/rfc6749#section-4.4).
pub(crate) const CLIENT_CREDENTIALS: &str = "client_credentials";

/// What arrived at `/token`, readable even when it is to be refused (history wants the client).
#[derive(Default)]
pub(crate) struct TokenRequest {
    fields: BTreeMap<String, String>,
    basic: Option<(String, String)>,
    /// Why it cannot be served at all.
    fault: Option<Refusal>,
}

impl TokenRequest {
    pub(crate) fn parse(headers: &HeaderMap, body: &[u8]) -> Self {
        let mut request = Self::default();
        let form = headers
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|value| value.split(';').next().is_some_and(is_form));
        if !form {
            request.fault = Some(Code::InvalidRequest.because("the body is not form-urlencoded"));
        }
        for (name, value) in form_urlencoded::parse(body) {
            // RFC 6749 §3.2: a parameter without a value counts as absent, and none may come twice.
            if !value.is_empty()
                && request
                    .fields
                    .insert(name.into_owned(), value.into_owned())
                    .is_some()
            {
                request.fault = Some(Code::InvalidRequest.because("a parameter is repeated"));
            }
        }
        if let Some(value) = headers.get(header::AUTHORIZATION) {
            request.basic = value.to_str().ok().and_then(basic);
            if request.basic.is_none() {
                request.fault = Some(
                    Code::InvalidClient { challenge: true }.because("not Basic authentication"),
                );
            }
        }
        request
    }

    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(String::as_str)
    }

    pub(crate) fn grant_type(&self) -> Option<&str> {
        self.field("grant_type")
    }

    /// Who the request says it is from; not verified.
    pub(crate) fn claimed_client(&self) -> Option<String> {
        self.basic
            .as_ref()
            .map(|(id, _)| id.clone())
            .or_else(|| self.field("client_id").map(str::to_owned))
            .or_else(|| {
                ["client_assertion", "assertion", "subject_token"]
                    .into_iter()
                    .find_map(|name| crate::assertion::claimed_issuer(self.field(name)?))
            })
    }

    /// Whether the request tries to prove who it is from.
    pub(crate) fn names_client(&self) -> bool {
        let names = ["client_id", "client_assertion"];
        self.basic.is_some() || names.iter().any(|name| self.field(name).is_some())
    }

    /// The digest of the refresh token that was presented.
    pub(crate) fn presented(&self) -> Option<Digest> {
        self.field("refresh_token").map(Digest::of)
    }

    /// Refuses what is malformed, and names the grant type.
    pub(crate) fn well_formed(&self) -> Result<&str, Refusal> {
        if let Some(fault) = &self.fault {
            return Err(fault.clone());
        }
        self.grant_type()
            .ok_or(Code::InvalidRequest.because("grant_type is missing"))
    }

    /// Checks the request's client authentication against `client` (RFC 6749 §2.3.1); the
    /// assertion of a client with a key is still to be verified.
    pub(crate) fn authenticate(&self, client: Option<&Client>) -> Result<(), Refusal> {
        let refused = Code::InvalidClient {
            challenge: self.basic.is_some(),
        };
        let posted = self.field("client_secret");
        let asserted = self.field("client_assertion");
        let proofs = [self.basic.is_some(), posted.is_some(), asserted.is_some()];
        if proofs.into_iter().filter(|is| *is).count() > 1 {
            return Err(Code::InvalidRequest.because("more than one client authentication"));
        }
        if let (Some((basic, _)), Some(posted)) = (&self.basic, self.field("client_id"))
            && basic != posted
        {
            return Err(Code::InvalidRequest.because("two different client ids"));
        }
        let client = client.ok_or(refused.because("unknown client"))?;
        let kind = self.field("client_assertion_type");
        match (&client.public_key, asserted, kind) {
            (Some(_), Some(_), Some(client_assertion::TYPE)) => return Ok(()),
            (None, None, None) => {}
            _ => return Err(refused.because("client authentication of another kind is expected")),
        }
        let presented = match (client.authentication, &self.basic, posted) {
            (Authentication::Either | Authentication::Basic, Some((_, secret)), None) => {
                Some(secret.as_str())
            }
            (Authentication::Either | Authentication::Post, None, Some(secret)) => Some(secret),
            (_, None, None) => None,
            _ => return Err(refused.because("client authentication of another kind is expected")),
        };
        match (&client.secret, presented) {
            (None, None) => Ok(()),
            (Some(secret), Some(presented)) if secret.matches(presented) => Ok(()),
            (None, Some(_)) => Err(refused.because("a public client has no secret")),
            (Some(_), _) => Err(refused.because("client authentication failed")),
        }
    }

    /// The scope asked for, within what the client may ask.
    pub(crate) fn scope(&self, client: &Client) -> Result<Option<String>, Refusal> {
        let Some(scope) = self.field("scope") else {
            return Ok(None);
        };
        let allowed = |asked: &str| {
            client
                .scopes
                .as_ref()
                .is_none_or(|scopes| scopes.iter().any(|s| s == asked))
        };
        match scope.split(' ').all(allowed) {
            true => Ok(Some(scope.to_owned())),
            false => Err(Code::InvalidScope.because("the client may not ask for this scope")),
        }
    }
}

fn is_form(media_type: &str) -> bool {
    media_type
        .trim()
        .eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

/// Id and secret are form-encoded before they are joined and base64-encoded (RFC 6749 §2.3.1).
fn basic(header: &str) -> Option<(String, String)> {
    let (scheme, encoded) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let joined = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (id, secret) = joined.split_once(':')?;
    Some((form_decoded(id), form_decoded(secret)))
}

fn form_decoded(value: &str) -> String {
    // Escaping the two separators makes the parser see one name without a value.
    let whole = value.replace('&', "%26").replace('=', "%3D");
    form_urlencoded::parse(whole.as_bytes())
        .next()
        .map(|(name, _)| name.into_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(authorization: Option<&str>, body: &str) -> TokenRequest {
        let mut headers = HeaderMap::new();
        headers.insert(
            header::CONTENT_TYPE,
            "application/x-www-form-urlencoded; charset=utf-8"
                .parse()
                .unwrap(),
        );
        if let Some(pair) = authorization {
            headers.insert(
                header::AUTHORIZATION,
                format!("Basic {}", STANDARD.encode(pair)).parse().unwrap(),
            );
        }
        TokenRequest::parse(&headers, body.as_bytes())
    }

    #[test]
    fn a_repeated_parameter_is_an_invalid_request() {
        let refusal = request(None, "grant_type=a&grant_type=b")
            .well_formed()
            .unwrap_err();
        assert_eq!(refusal.code, Code::InvalidRequest);
    }

    #[test]
    fn a_body_that_is_no_form_is_an_invalid_request() {
        let request = TokenRequest::parse(&HeaderMap::new(), b"grant_type=refresh_token");
        assert_eq!(
            request.well_formed().unwrap_err().code,
            Code::InvalidRequest
        );
    }

    #[test]
    fn client_authentication_follows_what_the_client_expects() {
        #[track_caller]
        fn check(
            expects: Authentication,
            header: Option<&str>,
            body: &str,
            verdict: Result<(), Code>,
        ) {
            let client = Client::new("a b").secret("p:w&1").authentication(expects);
            let got = request(header, body).authenticate(Some(&client));
            assert_eq!(got.map_err(|refusal| refusal.code), verdict);
        }
        use Authentication::*;
        let header = Some("a+b:p%3Aw%261");
        let form = "client_id=a+b&client_secret=p%3Aw%261";
        let refused = |challenge| Err(Code::InvalidClient { challenge });
        check(Either, header, "", Ok(()));
        check(Either, None, form, Ok(()));
        check(Basic, header, "", Ok(()));
        check(Basic, None, form, refused(false));
        check(Post, None, form, Ok(()));
        check(Post, header, "", refused(true));
        check(Either, header, form, Err(Code::InvalidRequest));
        check(Either, header, "client_id=other", Err(Code::InvalidRequest));
        check(Either, Some("a+b:wrong"), "", refused(true));
        check(Either, None, "client_id=a+b", refused(false));
    }
}
