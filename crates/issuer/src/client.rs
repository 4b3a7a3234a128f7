//! Clients and how their tokens live: authentication, rotation, lifetimes, response shape.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::secret::Secret;

/// One registered client. What is `None` follows the issuer's [`Policy`].
///
/// In JSON (`POST /admin/client`) the names are `client_id` and `client_secret`; times are seconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Client {
    /// The `client_id`; for a service account its e-mail address.
    #[serde(rename = "client_id")]
    pub id: String,
    /// The client secret; without one the client is public and may only refresh.
    #[serde(rename = "client_secret", default)]
    pub secret: Option<Secret>,
    /// The public key (PEM) under which the client signs assertions (`private_key_jwt`); then it
    /// proves itself by nothing else.
    #[serde(default)]
    pub public_key: Option<String>,
    /// How the secret must arrive. Ignored for a public client.
    #[serde(default)]
    pub authentication: Authentication,
    /// The scopes that the client may ask for; `None` allows any.
    #[serde(default)]
    pub scopes: Option<Vec<String>>,
    /// Lifetime of access tokens.
    #[serde(default, with = "seconds")]
    pub access_ttl: Option<Duration>,
    /// Lifetime of each refresh token, from its issue; absent means without end.
    #[serde(default, with = "seconds")]
    pub refresh_ttl: Option<Duration>,
    /// What happens to a refresh token that was used.
    #[serde(default)]
    pub rotation: Option<Rotation>,
    /// How long the most recently used refresh token may be used again (RFC 9700 §4.14 leaves it open;
    /// Okta, Auth0 and Cognito offer it). Zero is strict single use.
    #[serde(default, with = "seconds")]
    pub grace: Option<Duration>,
    /// The shape of `expires_in`.
    #[serde(default)]
    pub expires_in: Option<ExpiresIn>,
}

impl Client {
    /// A public client that follows the issuer's policy in everything.
    pub fn new(id: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            secret: None,
            public_key: None,
            authentication: Authentication::default(),
            scopes: None,
            access_ttl: None,
            refresh_ttl: None,
            rotation: None,
            grace: None,
            expires_in: None,
        }
    }

    /// Makes the client confidential.
    pub fn secret(mut self, secret: impl Into<Secret>) -> Self {
        self.secret = Some(secret.into());
        self
    }

    /// Makes the client prove itself by assertions under this public key (PEM).
    pub fn public_key(mut self, pem: impl Into<String>) -> Self {
        self.public_key = Some(pem.into());
        self
    }

    /// Whether it has to prove itself.
    pub(crate) fn is_confidential(&self) -> bool {
        self.secret.is_some() || self.public_key.is_some()
    }

    /// Demands one way of sending the secret.
    pub fn authentication(mut self, authentication: Authentication) -> Self {
        self.authentication = authentication;
        self
    }

    /// Limits the scopes that the client may ask for.
    pub fn scopes(mut self, scopes: &[&str]) -> Self {
        self.scopes = Some(scopes.iter().map(|&scope| scope.to_owned()).collect());
        self
    }

    /// Sets the lifetime of access tokens.
    pub fn access_ttl(mut self, ttl: Duration) -> Self {
        self.access_ttl = Some(ttl);
        self
    }

    /// Sets the lifetime of each refresh token.
    pub fn refresh_ttl(mut self, ttl: Duration) -> Self {
        self.refresh_ttl = Some(ttl);
        self
    }

    /// Sets what happens to a used refresh token.
    pub fn rotation(mut self, rotation: Rotation) -> Self {
        self.rotation = Some(rotation);
        self
    }

    /// Sets how long the most recently used refresh token may be used again.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = Some(grace);
        self
    }

    /// Sets the shape of `expires_in`.
    pub fn expires_in(mut self, shape: ExpiresIn) -> Self {
        self.expires_in = Some(shape);
        self
    }

    /// The client's own settings over the issuer's.
    pub(crate) fn policy(&self, issuer: &Policy) -> Policy {
        Policy {
            access_ttl: self.access_ttl.unwrap_or(issuer.access_ttl),
            refresh_ttl: self.refresh_ttl.or(issuer.refresh_ttl),
            rotation: self.rotation.unwrap_or(issuer.rotation),
            grace: self.grace.unwrap_or(issuer.grace),
            expires_in: self.expires_in.unwrap_or(issuer.expires_in),
        }
    }
}

/// How tokens live, where a client does not say otherwise.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Lifetime of access tokens.
    pub access_ttl: Duration,
    /// Lifetime of each refresh token; `None` is without end.
    pub refresh_ttl: Option<Duration>,
    /// What happens to a refresh token that was used.
    pub rotation: Rotation,
    /// How long the most recently used refresh token may be used again; zero is strict.
    pub grace: Duration,
    /// The shape of `expires_in`.
    pub expires_in: ExpiresIn,
}

impl Default for Policy {
    /// Strict: access tokens of one minute, single use, no grace.
    fn default() -> Self {
        Self {
            access_ttl: Duration::from_secs(60),
            refresh_ttl: None,
            rotation: Rotation::SingleUse,
            grace: Duration::ZERO,
            expires_in: ExpiresIn::Number,
        }
    }
}

/// How a confidential client sends its secret (RFC 6749 §2.3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Authentication {
    /// `client_secret_basic` or `client_secret_post`, but never both in one request.
    #[default]
    Either,
    /// Only the `Authorization: Basic` header.
    #[serde(rename = "client_secret_basic")]
    Basic,
    /// Only `client_secret` in the form.
    #[serde(rename = "client_secret_post")]
    Post,
}

/// What happens to a refresh token that was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rotation {
    /// Each works once; showing a used one again revokes the whole family (RFC 9700 §4.14.2).
    SingleUse,
    /// Each works once; showing a used one again is refused, and the family lives on.
    SingleUseNoDetection,
    /// A new one each time, and the old ones stay good (Microsoft).
    Replayable,
    /// No rotation: the answer carries no refresh token (Google; RFC 6749 §6).
    Off,
}

/// The shape of `expires_in`, which RFC 6749 §5.1 only recommends and issuers vary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExpiresIn {
    /// `3600`
    Number,
    /// `"3600"`
    Text,
    /// `null`
    Null,
    /// No such member.
    Absent,
}

/// Durations as JSON numbers of seconds, fractions allowed.
mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(
        value: &Option<Duration>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        value.map(|duration| duration.as_secs_f64()).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Duration>, D::Error> {
        Option::<f64>::deserialize(from)?
            .map(|seconds| Duration::try_from_secs_f64(seconds).map_err(D::Error::custom))
            .transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_does_not_say_follows_the_issuer() {
        let issuer = Policy {
            grace: Duration::from_secs(9),
            ..Policy::default()
        };
        let policy = Client::new("a")
            .access_ttl(Duration::from_secs(2))
            .policy(&issuer);
        assert_eq!(policy.access_ttl, Duration::from_secs(2));
        assert_eq!(policy.grace, Duration::from_secs(9));
    }

    #[test]
    fn a_client_is_read_from_json_and_unknown_names_are_refused() {
        let json = r#"{"client_id":"a","authentication":"client_secret_post","grace":1.5,"rotation":"replayable"}"#;
        let client: Client = serde_json::from_str(json).unwrap();
        assert_eq!(client.grace, Some(Duration::from_millis(1500)));
        assert_eq!(client.authentication, Authentication::Post);
        assert!(serde_json::from_str::<Client>(r#"{"client_id":"a","gracé":1}"#).is_err());
    }
}
