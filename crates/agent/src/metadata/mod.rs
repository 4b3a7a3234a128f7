//! Metadata endpoints: live credentials in the ways that cloud SDKs look for them.
//!
//! Each gives the credentials of one attached provider: the one that is named, or the only one that
//! fits. Ends are told by the sandbox's own clock, since that is what SDKs compare them with.

pub(crate) mod aws;
pub(crate) mod azure;
pub(crate) mod google;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use evermint_client::{Credential, Plain, Snapshot, Token};
use evermint_core::secret::Secret;

use crate::config::{Cloud, Metadata};

/// What an SDK is told of a value that has no end: to ask again by then.
const ENDLESS: Duration = Duration::from_secs(3600);

/// Why there is no credential.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Problem {
    #[error("the key of this endpoint was not shown")]
    Unauthorized,
    #[error("no gateway has given this sandbox its bundle yet")]
    NotReady,
    #[error("no attached provider fits; name one in the agent's metadata setting")]
    None,
    #[error("several attached providers fit; name one in the agent's metadata setting")]
    Several,
    #[error("provider {0:?} has no value for this now: {1}")]
    NoValue(String, String),
}

impl Problem {
    /// Whether it may pass.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(self, Self::NotReady | Self::NoValue(..))
    }
}

/// The credentials of one attached provider, in the order of their keys.
#[derive(Clone, Debug)]
pub(crate) struct Provider<'a> {
    pub(crate) name: &'a str,
    /// Its variables that are no secrets.
    pub(crate) plain: Vec<&'a Plain>,
    pub(crate) credentials: Vec<Credential<'a>>,
}

/// The provider whose credentials an endpoint gives.
pub(crate) fn provider<'a>(
    snapshot: &'a Snapshot,
    metadata: &Metadata,
) -> Result<Provider<'a>, Problem> {
    if !snapshot.is_ready() {
        return Err(Problem::NotReady);
    }
    let of = |name: &'a str| Provider {
        name,
        plain: snapshot
            .plain()
            .iter()
            .filter(|p| p.provider == name)
            .collect(),
        credentials: snapshot
            .credentials()
            .filter(|c| c.provider() == name)
            .collect(),
    };
    let mut names: Vec<&str> = snapshot.credentials().map(Credential::provider).collect();
    names.dedup();
    let wanted = |provider: &Provider<'_>| match &metadata.provider {
        Some(name) => provider.name == name,
        None => provider.fits(metadata.cloud),
    };
    let mut found = names.into_iter().map(of).filter(wanted);
    match (found.next(), found.next()) {
        (None, _) => Err(Problem::None),
        (Some(provider), None) => Ok(provider),
        (Some(_), Some(_)) => Err(Problem::Several),
    }
}

impl<'a> Provider<'a> {
    /// Whether its variables look like the cloud's.
    fn fits(&self, cloud: Cloud) -> bool {
        let words: &[&str] = match cloud {
            Cloud::Google => &["GOOGLE", "GCP", "VERTEX", "GEMINI"],
            Cloud::Aws => &["AWS"],
            Cloud::Azure => &["AZURE", "ENTRA", "MICROSOFT", "GRAPH"],
        };
        let keys = self.credentials.iter().flat_map(|c| {
            let variables = c.variables().iter().map(|v| v.key.as_str());
            variables.chain([c.key()])
        });
        let mut parts = keys.flat_map(|key| key.split('_'));
        parts.any(|part| words.contains(&part))
    }

    /// The first value that may be used now and whose name fits, with its token.
    pub(crate) fn value(
        &self,
        fits: impl Fn(&str) -> bool,
    ) -> Result<(&'a Secret, Token<'a>), Problem> {
        let mut why = "it has no such value".to_owned();
        for credential in &self.credentials {
            let token = credential.token();
            if let Some((_, value)) = token.outputs().find(|(name, _)| fits(name)) {
                return Ok((value, token));
            }
            if let Err(unusable) = token.usable() {
                why = unusable.to_string();
            }
        }
        Err(Problem::NoValue(self.name.to_owned(), why))
    }
}

/// How long an SDK may keep a value.
pub(crate) fn good_for(token: Token<'_>) -> Duration {
    token.good_for().unwrap_or(ENDLESS)
}

/// When that is over by the sandbox's clock, in seconds since 1970.
pub(crate) fn ends_at(token: Token<'_>) -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    (now + good_for(token)).as_secs()
}

/// A secret as text.
pub(crate) fn shown<'a>(name: &str, secret: &'a Secret) -> Result<&'a str, Problem> {
    let none = || Problem::NoValue(name.to_owned(), "it is no text".to_owned());
    secret.expose_str().ok_or_else(none)
}
