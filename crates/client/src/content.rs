//! What a bundle says, parsed once: values become secrets here.

use std::collections::BTreeMap;
use std::time::Duration;

use evermint_core::credential::Verdict;
use evermint_core::id::Generation;
use evermint_core::secret::Secret;
use evermint_core::time::UnixMs;
use evermint_proto::v1;

/// A bundle without its generation: what its revision stands for.
#[derive(Debug, Default)]
pub(crate) struct Content {
    pub(crate) sandbox: String,
    pub(crate) revision: String,
    pub(crate) routes: Vec<RouteContent>,
    pub(crate) credentials: Vec<CredentialContent>,
}

#[derive(Debug)]
pub(crate) struct RouteContent {
    pub(crate) name: String,
    pub(crate) provider: String,
    pub(crate) provider_type: String,
    pub(crate) config: BTreeMap<String, String>,
    pub(crate) model: String,
    pub(crate) timeout: Option<Duration>,
    pub(crate) credential_key: String,
    pub(crate) slot: Slot,
}

#[derive(Debug)]
pub(crate) struct CredentialContent {
    pub(crate) provider: String,
    pub(crate) key: String,
    pub(crate) slot: Slot,
}

/// A token, or why there is none.
pub(crate) type Slot = Result<TokenContent, Unavailable>;

#[derive(Debug)]
pub(crate) struct TokenContent {
    pub(crate) values: BTreeMap<String, Secret>,
    /// On the cluster clock.
    pub(crate) expires_at: Option<UnixMs>,
    pub(crate) generation: Generation,
}

/// Why the cluster serves no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unavailable {
    /// How the credential stands; `None` if this build does not know the word.
    pub verdict: Option<Verdict>,
    /// In one line.
    pub cause: String,
}

impl From<v1::Bundle> for Content {
    fn from(bundle: v1::Bundle) -> Self {
        Self {
            sandbox: bundle.sandbox,
            revision: bundle.revision,
            routes: bundle.routes.into_iter().map(Into::into).collect(),
            credentials: bundle.credentials.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<v1::ResolvedRoute> for RouteContent {
    fn from(route: v1::ResolvedRoute) -> Self {
        Self {
            name: route.name,
            provider: route.provider,
            provider_type: route.provider_type,
            config: route.config,
            model: route.model,
            timeout: (route.timeout_secs > 0).then(|| Duration::from_secs(route.timeout_secs)),
            credential_key: route.credential_key,
            slot: slot(route.token, route.unavailable),
        }
    }
}

impl From<v1::BundleCredential> for CredentialContent {
    fn from(credential: v1::BundleCredential) -> Self {
        Self {
            provider: credential.provider,
            key: credential.key,
            slot: slot(credential.token, credential.unavailable),
        }
    }
}

/// A value counts only if nothing is said against it.
fn slot(token: Option<v1::Token>, unavailable: Option<v1::Unavailable>) -> Slot {
    match (token, unavailable) {
        (_, Some(unavailable)) => Err(Unavailable {
            verdict: verdict(unavailable.verdict()),
            cause: unavailable.cause,
        }),
        (None, None) => Err(Unavailable {
            verdict: None,
            cause: "the cluster gave neither a value nor a reason".to_owned(),
        }),
        (Some(token), None) => Ok(TokenContent {
            values: token
                .values
                .into_iter()
                .map(|(name, value)| (name, Secret::from(value)))
                .collect(),
            expires_at: token.expires_at_ms.map(UnixMs),
            generation: Generation(token.generation),
        }),
    }
}

fn verdict(verdict: v1::Verdict) -> Option<Verdict> {
    Some(match verdict {
        v1::Verdict::Unspecified => return None,
        v1::Verdict::Pending => Verdict::Pending,
        v1::Verdict::Fresh => Verdict::Fresh,
        v1::Verdict::Retrying => Verdict::Retrying,
        v1::Verdict::Throttled => Verdict::Throttled,
        v1::Verdict::InDoubt => Verdict::InDoubt,
        v1::Verdict::Misconfigured => Verdict::Misconfigured,
        v1::Verdict::NeedsReauthorization => Verdict::NeedsReauthorization,
        v1::Verdict::Expired => Verdict::Expired,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_something_is_said_against_is_no_value() {
        let token = || {
            Some(v1::Token {
                values: [("K".to_owned(), "hunter2".to_owned())].into(),
                ..v1::Token::default()
            })
        };
        let unavailable = || Some(v1::Unavailable::default());
        for (token, unavailable, usable) in [
            (token(), None, true),
            (token(), unavailable(), false),
            (None, unavailable(), false),
            (None, None, false),
        ] {
            let slot = slot(token, unavailable);
            assert_eq!(slot.is_ok(), usable);
            assert!(!format!("{slot:?}").contains("hunter2"));
        }
    }

    #[test]
    fn every_verdict_has_its_word() {
        for number in 1..=8 {
            let word = verdict(v1::Verdict::try_from(number).unwrap()).unwrap();
            let wire = v1::Verdict::try_from(number).unwrap().as_str_name();
            let wire = wire.trim_start_matches("VERDICT_").to_lowercase();
            assert_eq!(wire.replace('_', "-"), word.as_str());
        }
        assert_eq!(verdict(v1::Verdict::Unspecified), None);
    }
}
