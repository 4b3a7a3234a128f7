//! What a bundle says, parsed once: values become secrets here.

use std::collections::BTreeMap;
use std::time::Duration;

use evermint_core::credential::Verdict;
use evermint_core::environment::{Plain, Problem, Variable};
use evermint_core::id::Generation;
use evermint_core::profile::binding::Binding;
use evermint_core::secret::Secret;
use evermint_core::time::UnixMs;
use evermint_proto::v1;
use evermint_proto::v1::auth::Place;

use crate::placeholder::{Given, Placeholders};

/// A bundle without its generation: what its revision stands for.
#[derive(Debug, Default)]
pub(crate) struct Content {
    pub(crate) sandbox: String,
    pub(crate) revision: String,
    pub(crate) routes: Vec<RouteContent>,
    pub(crate) credentials: Vec<CredentialContent>,
    pub(crate) plain: Vec<Plain>,
    pub(crate) environment_revision: u64,
    pub(crate) problems: Vec<Problem>,
}

#[derive(Debug)]
pub(crate) struct RouteContent {
    pub(crate) name: String,
    pub(crate) provider: String,
    pub(crate) provider_type: String,
    pub(crate) config: BTreeMap<String, String>,
    pub(crate) model: String,
    pub(crate) timeout: Option<Duration>,
    pub(crate) upstream: Upstream,
    pub(crate) credential_key: String,
    pub(crate) slot: Slot,
}

/// Where the calls of a route go, and what they look like there.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) base_url: String,
    pub(crate) protocols: Vec<String>,
    pub(crate) auth: Auth,
    pub(crate) model_in_path: bool,
    pub(crate) request_path_override: Option<String>,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) passthrough_headers: Vec<String>,
}

/// The place of a token in a call. Whatever the caller put there is taken out before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth {
    /// In a header, after a prefix.
    Header {
        /// In lower case, such as `authorization`.
        name: String,
        /// Such as `Bearer `; may be empty.
        prefix: String,
    },
    /// In the query parameter of this name.
    Query(String),
    /// As the password of `Authorization: Basic`
    /// ([RFC 7617](https://www.rfc-editor.org/rfc/rfc7617)).
    Basic {
        /// The user; empty if the token is `USER:PASSWORD` already.
        user: String,
    },
    /// In the path: this one, with `{credential}` in the token's place.
    Path(String),
}

#[derive(Debug)]
pub(crate) struct CredentialContent {
    pub(crate) provider: String,
    pub(crate) key: String,
    pub(crate) variables: Vec<Variable>,
    pub(crate) endpoints: Vec<Binding>,
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

impl Content {
    /// What `before` comes to be with this bundle.
    pub(crate) fn placeholders(&self, before: &Placeholders) -> Placeholders {
        let given = self.credentials.iter().flat_map(|credential| {
            credential.variables.iter().map(|variable| {
                let token = credential.slot.as_ref().ok();
                let value = token.and_then(|t| Some((t.values.get(&variable.key)?, t.generation)));
                Given {
                    key: &variable.key,
                    identity: &variable.identity,
                    handle: variable.handle.as_deref(),
                    bindings: &credential.endpoints,
                    value,
                    expires_at: token.and_then(|t| t.expires_at),
                }
            })
        });
        let plain = self
            .plain
            .iter()
            .map(|p| (p.key.as_str(), p.value.as_str()));
        before.installed(self.environment_revision, given, plain)
    }
}

impl From<v1::Bundle> for Content {
    fn from(bundle: v1::Bundle) -> Self {
        Self {
            sandbox: bundle.sandbox,
            revision: bundle.revision,
            routes: bundle.routes.into_iter().map(Into::into).collect(),
            credentials: bundle.credentials.into_iter().map(Into::into).collect(),
            plain: bundle.plain.into_iter().map(plain).collect(),
            environment_revision: bundle.environment_revision,
            problems: bundle.problems.into_iter().map(problem).collect(),
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
            upstream: Upstream {
                base_url: route.base_url,
                protocols: route.protocols,
                auth: auth(route.auth),
                model_in_path: route.model_in_path,
                request_path_override: route.request_path_override,
                headers: route.headers,
                passthrough_headers: route.passthrough_headers,
            },
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
            variables: credential.variables.into_iter().map(variable).collect(),
            endpoints: credential
                .endpoints
                .into_iter()
                .filter_map(endpoint)
                .collect(),
            slot: slot(credential.token, credential.unavailable),
        }
    }
}

fn auth(auth: Option<v1::Auth>) -> Auth {
    match auth.and_then(|auth| auth.place) {
        Some(Place::Header(header)) => Auth::Header {
            name: header.name,
            prefix: header.prefix,
        },
        Some(Place::Query(name)) => Auth::Query(name),
        Some(Place::Basic(basic)) => Auth::Basic { user: basic.user },
        Some(Place::Path(template)) => Auth::Path(template),
        None => Auth::Header {
            name: "authorization".to_owned(),
            prefix: "Bearer ".to_owned(),
        },
    }
}

fn variable(variable: v1::SecretVariable) -> Variable {
    Variable {
        key: variable.key,
        identity: variable.identity,
        handle: Some(variable.handle).filter(|handle| !handle.is_empty()),
    }
}

/// A place with a port that cannot be is no place.
fn endpoint(endpoint: v1::EndpointBinding) -> Option<Binding> {
    Some(Binding {
        host: endpoint.host,
        port: u16::try_from(endpoint.port).ok().filter(|port| *port > 0)?,
        path: endpoint.path,
        body_rewrite: endpoint.body_rewrite,
    })
}

fn plain(plain: v1::PlainVariable) -> Plain {
    Plain {
        provider: plain.provider,
        key: plain.key,
        value: plain.value,
    }
}

fn problem(problem: v1::Problem) -> Problem {
    Problem {
        provider: problem.provider,
        key: problem.key,
        cause: problem.cause,
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
