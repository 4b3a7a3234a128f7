//! Reads the answer to a token request,
//! [RFC 6749 §5.1](https://www.rfc-editor.org/rfc/rfc6749#section-5.1).

use std::collections::BTreeMap;
use std::time::Duration;

use evermint_core::mint::Minted;
use evermint_core::secret::Secret;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::lifetime;
use crate::transport::Answer;

/// Most granted scopes that are told of one answer.
const SCOPES_MAX: usize = 64;

/// Which token of the answer is the one that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// The field `access_token`.
    AccessToken,
    /// The field `id_token`.
    IdToken,
}

/// An answer with a token.
#[derive(Debug)]
pub(crate) struct Tokens {
    /// The token that was asked for.
    pub(crate) token: Secret,
    /// Its lifetime, from before the request was sent, if the answer or the token tells.
    pub(crate) lifetime: Option<Duration>,
    /// A refresh token; if none came, the old one stays good
    /// ([RFC 6749 §6](https://www.rfc-editor.org/rfc/rfc6749#section-6)).
    pub(crate) refresh_token: Option<Secret>,
    /// How long the refresh token lasts, new or not, if the issuer says.
    pub(crate) refresh_lifetime: Option<Duration>,
    /// Whether the client's other secret was taken.
    pub(crate) by_other_client: bool,
    /// The granted scopes, as the issuer words them.
    pub(crate) scopes: Option<Vec<String>>,
}

impl Tokens {
    /// The token, with its lifetime and nothing else.
    pub(crate) fn minted(self) -> Minted {
        Minted {
            token: self.token,
            extra_outputs: BTreeMap::new(),
            lifetime: self.lifetime,
            new_material: BTreeMap::new(),
            material_lifetimes: BTreeMap::new(),
            scopes: self.scopes,
        }
    }

    /// The token, and the refresh token as new material `name` if it is another than `old`.
    pub(crate) fn renewing(mut self, name: &str, old: &Secret) -> Minted {
        let new = self.refresh_token.take();
        let rotated = new.filter(|new| new.expose() != old.expose());
        let lifetime = self.refresh_lifetime;
        let mut minted = self.minted();
        minted.material_lifetimes = lifetime.map(|l| (name.to_owned(), l)).into_iter().collect();
        minted.new_material = rotated
            .map(|new| (name.to_owned(), new))
            .into_iter()
            .collect();
        minted
    }
}

/// Why an answer gives no token, in words that hold nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unusable {
    /// It is an answer of failure: by its status, or by an `error` under a status of success.
    Refusal,
    /// It claims success and cannot be used.
    Problem(&'static str),
}

#[derive(Deserialize)]
struct Wire {
    #[serde(default, deserialize_with = "text")]
    access_token: Option<Secret>,
    #[serde(default, deserialize_with = "text")]
    id_token: Option<Secret>,
    #[serde(default, deserialize_with = "text")]
    refresh_token: Option<Secret>,
    #[serde(default)]
    expires_in: Value,
    /// Not standard, but common: GitHub, Salesforce and others.
    #[serde(default)]
    refresh_token_expires_in: Value,
    /// The same at Keycloak; 0 means that it does not end.
    #[serde(default)]
    refresh_expires_in: Value,
    /// IBM's own field: the end, in seconds since 1970.
    #[serde(default)]
    expiration: Value,
    #[serde(default)]
    scope: Value,
    #[serde(default)]
    error: Value,
}

/// A text that goes into a [`Secret`] without a copy; null and empty count as absent.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Secret>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    Ok(text.filter(|t| !t.is_empty()).map(Secret::from))
}

/// Reads the token out of an answer. `token_type` is not looked at: issuers write it in every
/// case and spelling, and a token that came cannot be sent back.
pub(crate) fn read(answer: &Answer, wanted: Wanted) -> Result<Tokens, Unusable> {
    let wire: Wire = json(answer)?;
    match &wire.error {
        Value::Null | Value::Bool(false) => {}
        Value::String(text) if text.is_empty() => {}
        _ => return Err(Unusable::Refusal),
    }
    let (token, missing) = match wanted {
        Wanted::AccessToken => (wire.access_token, "no access_token"),
        Wanted::IdToken => (wire.id_token, "no id_token"),
    };
    let token = self::token(token, missing)?;
    let said = match wanted {
        Wanted::AccessToken => lifetime::earlier(
            lifetime::expires_in(&wire.expires_in),
            lifetime::until(
                &wire.expiration,
                answer.date().unwrap_or(answer.received_at),
            ),
        ),
        // It is the access token's.
        Wanted::IdToken => None,
    };
    let lifetime =
        said.or_else(|| lifetime::of_jwt(token.expose_str().unwrap_or(""), answer.date()));
    Ok(Tokens {
        token,
        lifetime,
        refresh_token: wire.refresh_token,
        refresh_lifetime: lifetime::expires_in(&wire.refresh_token_expires_in)
            .or_else(|| lifetime::expires_in(&wire.refresh_expires_in)),
        by_other_client: false,
        scopes: scopes(&wire.scope),
    })
}

/// The JSON object of an answer of success.
///
/// # Errors
/// [`Unusable`], by status and body.
pub(crate) fn json<T: DeserializeOwned>(answer: &Answer) -> Result<T, Unusable> {
    if !answer.status.is_success() {
        return Err(Unusable::Refusal);
    }
    let body = answer
        .body
        .as_ref()
        .ok_or(Unusable::Problem("a body that is too long"))?;
    if body.trim_ascii().is_empty() {
        return Err(Unusable::Problem("an empty body"));
    }
    // An array would pass for an object with its fields in order.
    let is_object = body.trim_ascii_start().starts_with(b"{");
    is_object
        .then(|| serde_json::from_slice(body).ok())
        .flatten()
        .ok_or(Unusable::Problem("a body that is no token response"))
}

/// A token that may go into a header field.
///
/// # Errors
/// That it is `missing`, or no token.
pub(crate) fn token(token: Option<Secret>, missing: &'static str) -> Result<Secret, Unusable> {
    let token = token.filter(|token| !token.is_empty());
    let token = token.ok_or(Unusable::Problem(missing))?;
    // RFC 6749 §A.12; anything else could end a header field and begin another.
    match token.expose().iter().all(|b| (0x20..0x7f).contains(b)) {
        true => Ok(token),
        false => Err(Unusable::Problem(
            "a token with characters that no token has",
        )),
    }
}

/// The scopes in `scope`; some issuers part them by commas, or give a list.
fn scopes(scope: &Value) -> Option<Vec<String>> {
    let split = |text: &str| {
        let scopes = text.split([' ', ',']).filter(|scope| !scope.is_empty());
        scopes.map(str::to_owned).collect::<Vec<_>>()
    };
    let mut scopes = match scope {
        Value::String(text) => split(text),
        Value::Array(list) => list
            .iter()
            .filter_map(Value::as_str)
            .flat_map(split)
            .collect(),
        _ => return None,
    };
    scopes.truncate(SCOPES_MAX);
    Some(scopes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use http::StatusCode;
    use std::time::SystemTime;
    use zeroize::Zeroizing;

    fn answer(status: u16, body: &str) -> Answer {
        Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: http::HeaderMap::new(),
            body: Some(Zeroizing::new(body.as_bytes().to_vec())),
            received_at: SystemTime::now(),
        }
    }

    fn access(body: &str) -> Result<Tokens, Unusable> {
        read(&answer(200, body), Wanted::AccessToken)
    }

    #[test]
    fn a_token_is_read_whatever_stands_around_it() {
        for (body, lifetime) in [
            (
                r#"{"access_token":"at","token_type":"Bearer","expires_in":60}"#,
                Some(60),
            ),
            (
                r#"{"access_token":"at","token_type":"bEARER","expires_in":"60"}"#,
                Some(60),
            ),
            (
                r#"{"access_token":"at","expires_in":null,"error":null}"#,
                None,
            ),
            (
                r#"{"access_token":"at","error":"","scope":["a"],"x":{"y":1}}"#,
                None,
            ),
            (
                r#"{"access_token":"at","token_type":null,"expires_in":0}"#,
                None,
            ),
            ("\n {\"access_token\":\"at\",\"expires_in\":-1}", None),
        ] {
            let tokens = access(body).unwrap();
            assert_eq!(tokens.token.expose(), b"at");
            assert_eq!(tokens.lifetime, lifetime.map(Duration::from_secs), "{body}");
            assert!(tokens.refresh_token.is_none());
        }
        let created = read(
            &answer(201, r#"{"access_token":"at"}"#),
            Wanted::AccessToken,
        );
        assert!(created.is_ok());
    }

    #[test]
    fn a_new_refresh_token_is_a_rotation_and_its_absence_is_none() {
        for (body, new) in [
            (
                r#"{"access_token":"at","refresh_token":"rt2"}"#,
                Some(&b"rt2"[..]),
            ),
            (r#"{"access_token":"at","refresh_token":null}"#, None),
            (r#"{"access_token":"at","refresh_token":""}"#, None),
        ] {
            let tokens = access(body).unwrap();
            assert_eq!(
                tokens.refresh_token.as_ref().map(Secret::expose),
                new,
                "{body}"
            );
        }
    }

    #[test]
    fn what_gives_no_token_is_told_apart() {
        for (body, why) in [
            (r#"{"error":"bad_refresh_token"}"#, Unusable::Refusal),
            (r#"{"access_token":"at","error":"x"}"#, Unusable::Refusal),
            (r#"{"error":{"code":401}}"#, Unusable::Refusal),
            ("", Unusable::Problem("an empty body")),
            (" \r\n", Unusable::Problem("an empty body")),
            ("{}", Unusable::Problem("no access_token")),
            (
                r#"{"access_token":""}"#,
                Unusable::Problem("no access_token"),
            ),
            (
                r#"{"access_token":null}"#,
                Unusable::Problem("no access_token"),
            ),
            (
                r#"{"access_token":5}"#,
                Unusable::Problem("a body that is no token response"),
            ),
            (
                r#"{"access_token":"a"#,
                Unusable::Problem("a body that is no token response"),
            ),
            ("[]", Unusable::Problem("a body that is no token response")),
            (
                r#"["at"]"#,
                Unusable::Problem("a body that is no token response"),
            ),
            (
                "access_token=at",
                Unusable::Problem("a body that is no token response"),
            ),
            (
                "<html>",
                Unusable::Problem("a body that is no token response"),
            ),
            (
                "{\"access_token\":\"a\\r\\nX: y\"}",
                Unusable::Problem("a token with characters that no token has"),
            ),
        ] {
            assert_eq!(access(body).unwrap_err(), why, "{body}");
        }
        let refused = read(
            &answer(400, r#"{"access_token":"at"}"#),
            Wanted::AccessToken,
        );
        assert_eq!(refused.unwrap_err(), Unusable::Refusal);
    }

    #[test]
    fn a_body_that_is_not_utf8_is_no_token_response() {
        let mut answer = answer(200, "");
        answer.body = Some(Zeroizing::new(b"{\"access_token\":\"\xff\"}".to_vec()));
        assert!(matches!(
            read(&answer, Wanted::AccessToken),
            Err(Unusable::Problem(_))
        ));
        answer.body = None;
        let problem = Unusable::Problem("a body that is too long");
        assert_eq!(read(&answer, Wanted::AccessToken).unwrap_err(), problem);
    }

    #[test]
    fn a_jwt_tells_its_lifetime_where_the_answer_does_not() {
        let payload = URL_SAFE_NO_PAD.encode(r#"{"iat":1000,"exp":1300}"#);
        let body = format!(r#"{{"access_token":"e30.{payload}.s","id_token":"e30.{payload}.s"}}"#);
        let tokens = access(&body).unwrap();
        assert_eq!(tokens.lifetime, Some(Duration::from_secs(300)));
        let body = body.replace('{', r#"{"expires_in":3600,"#);
        let id = read(&answer(200, &body), Wanted::IdToken).unwrap();
        assert_eq!(
            id.lifetime,
            Some(Duration::from_secs(300)),
            "not the access token's"
        );
    }

    #[test]
    fn debug_shows_no_token() {
        let tokens = access(r#"{"access_token":"hunter2","refresh_token":"hunter3"}"#).unwrap();
        assert!(!format!("{tokens:?}").contains("hunter"));
    }
}
