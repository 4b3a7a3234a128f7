//! How a token is minted from material.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The ways of minting that this build knows. The order is stored; append only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Strategy {
    /// [RFC 6749 §6](https://www.rfc-editor.org/rfc/rfc6749#section-6).
    #[serde(rename = "oauth2-refresh-token")]
    OAuth2RefreshToken,
    /// [RFC 6749 §4.4](https://www.rfc-editor.org/rfc/rfc6749#section-4.4).
    #[serde(rename = "oauth2-client-credentials")]
    OAuth2ClientCredentials,
    /// A self-signed assertion for a Google service account,
    /// [RFC 7523 §2.1](https://www.rfc-editor.org/rfc/rfc7523#section-2.1).
    #[serde(rename = "google-service-account-jwt")]
    GoogleServiceAccountJwt,
}

impl Strategy {
    /// Every strategy.
    pub const ALL: [Self; 3] = [
        Self::OAuth2RefreshToken,
        Self::OAuth2ClientCredentials,
        Self::GoogleServiceAccountJwt,
    ];

    /// The name that operators write.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OAuth2RefreshToken => "oauth2-refresh-token",
            Self::OAuth2ClientCredentials => "oauth2-client-credentials",
            Self::GoogleServiceAccountJwt => "google-service-account-jwt",
        }
    }

    /// Whether a mint may use up its material, so that a lost answer can lose the grant.
    pub fn consumes_material(self) -> bool {
        match self {
            Self::OAuth2RefreshToken => true,
            Self::OAuth2ClientCredentials | Self::GoogleServiceAccountJwt => false,
        }
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A name that no strategy has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown strategy {0:?}; known are oauth2-refresh-token, oauth2-client-credentials and google-service-account-jwt"
)]
pub struct UnknownStrategy(pub String);

impl FromStr for Strategy {
    type Err = UnknownStrategy;
    fn from_str(text: &str) -> Result<Self, UnknownStrategy> {
        Self::ALL
            .into_iter()
            .find(|s| s.as_str() == text)
            .ok_or_else(|| UnknownStrategy(text.to_owned()))
    }
}

/// What the issuer does with a refresh token that was already used once; decides what may be
/// done about a mint whose outcome is unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReplayPolicy {
    /// The old token keeps working (Google, Microsoft): retry at once.
    Safe,
    /// The old token works for this many milliseconds after its use (Okta, Cognito, Auth0 with
    /// leeway).
    Grace(u64),
    /// Single use: the second use may revoke the whole grant
    /// ([RFC 9700 §4.14.2](https://www.rfc-editor.org/rfc/rfc9700#section-4.14.2)).
    #[default]
    Strict,
}
