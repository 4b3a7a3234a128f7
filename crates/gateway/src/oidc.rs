//! Operators by the tokens of an OpenID provider: signed by one of its keys, for us, in their time.
//! Claims say what their bearer may do.
//!
//! Times are judged by the cluster clock, on which all replicas agree.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use evermint_core::time::UnixMs;
use jsonwebtoken::{DecodingKey, Validation};
use serde_json::{Map, Value};
use tonic::Status;

use crate::access::Roles;
use crate::caller::{Operator, Way};
use crate::jwks::{Keys, NoKey, is_allowed};
use crate::port::Web;
use crate::roles::RoleRule;
use crate::status;

/// The longest token that is looked at, in bytes.
const LENGTH_MAX: usize = 16 * 1024;

/// An OpenID provider, and what its tokens mean here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Oidc {
    /// The issuer, to the letter as its tokens name it.
    pub issuer: String,
    /// The audience that tokens have to be for.
    pub audience: String,
    /// Where a token says what its bearer is: the name of a claim, or a path of names.
    pub roles_claim: String,
    /// What that means here.
    pub roles: Vec<RoleRule>,
    /// Where a token says what it may be used for; without it, for everything.
    pub scopes_claim: Option<String>,
    /// How far the provider's clock may be from the cluster's.
    pub leeway: Duration,
    /// How long its keys are good before they are fetched anew.
    pub keys_ttl: Duration,
}

/// Checks tokens.
pub(crate) struct Verifier {
    oidc: Oidc,
    pub(crate) keys: Keys,
    rules: Validation,
}

impl Verifier {
    pub(crate) fn new(oidc: Oidc, web: Arc<dyn Web>) -> Self {
        let mut rules = Validation::default();
        rules.set_issuer(&[&oidc.issuer]);
        rules.set_audience(&[&oidc.audience]);
        rules.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        // By the cluster clock, below.
        rules.validate_exp = false;
        Self {
            keys: Keys::new(web, oidc.issuer.clone(), oidc.keys_ttl),
            rules,
            oidc,
        }
    }

    /// The operator who bears `token`.
    ///
    /// # Errors
    /// `UNAUTHENTICATED`; `UNAVAILABLE` if the key that signed cannot be asked for.
    pub(crate) async fn operator(&self, token: &[u8], now: UnixMs) -> Result<Operator, Status> {
        let invalid = || status::unauthenticated("invalid token");
        if token.len() > LENGTH_MAX {
            return Err(invalid());
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| invalid())?;
        let kid = header.kid.ok_or_else(invalid)?;
        // Nobody is asked for the keys of others, or for those of signatures that are not taken.
        if !is_allowed(header.alg) || !self.claims_to_be_ours(token) {
            return Err(invalid());
        }
        let key = self.keys.find(&kid).await.map_err(|no_key| match no_key {
            NoKey::Unknown => invalid(),
            NoKey::Unreachable => status::no_provider(),
        })?;
        if !key.is_for(header.alg) {
            return Err(invalid());
        }
        let mut rules = self.rules.clone();
        rules.algorithms = vec![header.alg];
        let claims = decode(token, &key.key, &rules).ok_or_else(invalid)?;
        let until = self.in_time(&claims, now)?;
        self.judged(&claims, until).ok_or_else(invalid)
    }

    /// Whether an unread token says that it is from our provider.
    fn claims_to_be_ours(&self, token: &[u8]) -> bool {
        let claims = jsonwebtoken::dangerous::insecure_decode_claims::<Map<String, Value>>(token);
        claims.is_ok_and(|claims| {
            claims.get("iss").and_then(Value::as_str) == Some(&self.oidc.issuer)
        })
    }

    /// When the time of a token is over.
    fn in_time(&self, claims: &Map<String, Value>, now: UnixMs) -> Result<UnixMs, Status> {
        // NumericDate, which may have a fraction (RFC 7519 §2).
        let at = |name: &str| claims.get(name).and_then(Value::as_f64);
        #[allow(clippy::cast_precision_loss, reason = "seconds are far below 2^53")]
        let (now_secs, leeway) = (now.0 as f64 / 1_000.0, self.oidc.leeway.as_secs_f64());
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a cast saturates, and what is no number is 0"
        )]
        let until = UnixMs(at("exp").map_or(0, |exp| ((exp + leeway) * 1_000.0) as u64));
        if until <= now {
            return Err(status::spent(crate::token::Spent::Expired));
        }
        match claims.get("nbf") {
            Some(nbf) if nbf.as_f64().is_none_or(|nbf| now_secs + leeway < nbf) => {
                Err(status::unauthenticated("the token is not good yet"))
            }
            Some(_) | None => Ok(until),
        }
    }

    /// What the claims of a good token mean.
    fn judged(&self, claims: &Map<String, Value>, until: UnixMs) -> Option<Operator> {
        let subject = claims.get("sub")?.as_str()?.to_owned();
        let values = words(claim(claims, &self.oidc.roles_claim), false);
        let scopes = self.oidc.scopes_claim.as_ref().map(|path| {
            let scopes = words(claim(claims, path), true);
            scopes.into_iter().collect::<BTreeSet<_>>()
        });
        Some(Operator {
            subject,
            way: Way::Oidc,
            roles: Roles::granted(&self.oidc.roles, &values),
            scopes,
            until: Some(until),
        })
    }
}

fn decode(token: &[u8], key: &DecodingKey, rules: &Validation) -> Option<Map<String, Value>> {
    let read = jsonwebtoken::decode::<Map<String, Value>>(token, key, rules);
    Some(read.ok()?.claims)
}

/// The claim at a path: one of this very name, or names within names (`realm_access.roles`).
fn claim<'a>(claims: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    if let Some(value) = claims.get(path) {
        return Some(value);
    }
    let mut names = path.split('.');
    let first = claims.get(names.next()?)?;
    names.try_fold(first, |value, name| value.get(name))
}

/// The words of a claim: of a list, or of a text, which for scopes holds several.
fn words(value: Option<&Value>, several: bool) -> Vec<String> {
    match value {
        Some(Value::Array(all)) => all
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect(),
        Some(Value::String(text)) if several => {
            text.split_ascii_whitespace().map(str::to_owned).collect()
        }
        Some(Value::String(text)) => vec![text.clone()],
        _ => Vec::new(),
    }
}
