//! How a token is minted from material.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Whether a mint may use up its material.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spends {
    Nothing,
    Material,
}

/// One line for each strategy: its variant, its name, what a mint may use up, and what it is. The
/// order is stored; append only.
macro_rules! strategies {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal, $spends:ident, $about:literal;)+) => {
        /// The ways of minting that this build knows.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Strategy {
            $($(#[doc = $doc])+ #[serde(rename = $name)] $variant,)+
        }

        impl Strategy {
            /// Every strategy.
            pub const ALL: [Self; [$($name),+].len()] = [$(Self::$variant),+];

            fn row(self) -> (&'static str, Spends, &'static str) {
                match self {
                    $(Self::$variant => ($name, Spends::$spends, $about),)+
                }
            }
        }
    };
}

strategies! {
    /// [RFC 6749 §6](https://www.rfc-editor.org/rfc/rfc6749#section-6).
    OAuth2RefreshToken = "oauth2-refresh-token", Material,
        "a refresh token, rotated or not (RFC 6749 section 6)";
    /// [RFC 6749 §4.4](https://www.rfc-editor.org/rfc/rfc6749#section-4.4).
    OAuth2ClientCredentials = "oauth2-client-credentials", Nothing,
        "a client that acts for itself (RFC 6749 section 4.4), Microsoft Entra included";
    /// An assertion that a Google service account signs,
    /// [RFC 7523 §2.1](https://www.rfc-editor.org/rfc/rfc7523#section-2.1).
    GoogleServiceAccountJwt = "google-service-account-jwt", Nothing,
        "a Google service account, by its key file";
    /// The refresh token that `gcloud auth application-default login` keeps. Google does not
    /// rotate it.
    GoogleAuthorizedUser = "google-authorized-user", Nothing,
        "a person's Google account, by the file that gcloud keeps";
    /// Google's workload identity federation, over [RFC 8693](https://www.rfc-editor.org/rfc/rfc8693).
    GoogleExternalAccount = "google-external-account", Nothing,
        "Google's workload identity federation, with or without a service account to act as";
    /// [RFC 8693](https://www.rfc-editor.org/rfc/rfc8693).
    OAuth2TokenExchange = "oauth2-token-exchange", Nothing,
        "another token, exchanged for one of this issuer (RFC 8693)";
    /// [RFC 7523 §2.1](https://www.rfc-editor.org/rfc/rfc7523#section-2.1).
    OAuth2JwtBearer = "oauth2-jwt-bearer", Nothing,
        "an assertion, signed here or kept in a file (RFC 7523)";
    /// [IBM Cloud IAM](https://cloud.ibm.com/apidocs/iam-identity-token-api): watsonx and others.
    IbmIamApikey = "ibm-iam-apikey", Nothing,
        "an IBM Cloud API key (watsonx and others)";
    /// [AssumeRole](https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html).
    AwsStsAssumeRole = "aws-sts-assume-role", Nothing,
        "an AWS role, assumed with keys: key id, secret and session token at once";
    /// [AssumeRoleWithWebIdentity](https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html).
    AwsStsWebIdentity = "aws-sts-web-identity", Nothing,
        "an AWS role, assumed with a token of an identity provider";
    /// [Installation access tokens](https://docs.github.com/rest/apps/apps#create-an-installation-access-token-for-an-app).
    GitHubAppInstallation = "github-app-installation", Nothing,
        "an installation of a GitHub App, cut down by repositories and permissions";
    /// A command that the replicas' configuration names.
    Exec = "exec", Nothing,
        "a command on the replicas that prints a token, named in their configuration";
    /// Nothing is minted: whoever makes the values pushes them.
    External = "external", Nothing,
        "values that somebody else makes and pushes before the last one ends";
}

impl Strategy {
    /// The name that operators write.
    pub fn as_str(self) -> &'static str {
        self.row().0
    }

    /// Whether a mint may use up its material, so that a lost answer can lose the grant.
    pub fn consumes_material(self) -> bool {
        self.row().1 == Spends::Material
    }

    /// Whether its tokens are branches of one lasting grant: an issuer that revokes one of them may
    /// end the grant with it ([RFC 7009 §2.1](https://www.rfc-editor.org/rfc/rfc7009#section-2.1)).
    pub fn has_lasting_grant(self) -> bool {
        matches!(self, Self::OAuth2RefreshToken | Self::GoogleAuthorizedUser)
    }

    /// Whether values are pushed from outside instead of being minted here.
    pub fn is_pushed(self) -> bool {
        self == Self::External
    }

    /// What it is, in one line.
    pub fn about(self) -> &'static str {
        self.row().2
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A name that no strategy has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown strategy {0:?}; known are {known}", known = Strategy::ALL.map(Strategy::as_str).join(", "))]
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
