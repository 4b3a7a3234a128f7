//! The JWT authorization grant ([RFC 7523 §3]) in Google's shape: RS256 under a registered key.
//!
//! [RFC 7523 §3]: https://www.rfc-editor.org/rfc/rfc7523#section-3

use std::collections::{BTreeMap, HashSet};

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, errors::ErrorKind};
use serde::Deserialize;

use crate::refusal::{Code, Refusal};

/// What Google's own libraries sign as `aud`, whatever token endpoint they talk to.
const GOOGLE_AUDIENCE: &str = "https://oauth2.googleapis.com/token";
/// The longest life of an assertion, in seconds.
const LIFE_SECONDS_MAX: u64 = 3600;

/// Public keys by service account.
#[derive(Default)]
pub(crate) struct Accounts(BTreeMap<String, DecodingKey>);

#[derive(Deserialize)]
struct Claims {
    iat: u64,
    exp: u64,
    #[serde(default)]
    scope: String,
}

#[derive(Deserialize)]
struct Issuer {
    iss: String,
}

/// The `iss` that an assertion claims; not verified.
pub(crate) fn claimed_issuer(assertion: &str) -> Option<String> {
    jsonwebtoken::dangerous::insecure_decode::<Issuer>(assertion)
        .ok()
        .map(|token| token.claims.iss)
}

impl Accounts {
    pub(crate) fn register(&mut self, email: String, key: DecodingKey) {
        self.0.insert(email, key);
    }

    /// Verifies an assertion made for the issuer at `url`, at `now` in Unix seconds without leeway;
    /// returns the account and the scope that the assertion asks for, if it does.
    pub(crate) fn verify(
        &self,
        assertion: &str,
        url: &str,
        now: u64,
    ) -> Result<(String, Option<String>), Refusal> {
        let invalid = |why| Code::InvalidGrant.because(why);
        let account =
            claimed_issuer(assertion).ok_or(invalid("Invalid JWT: it cannot be read."))?;
        let key = self
            .0
            .get(&account)
            .ok_or(invalid("Invalid grant: account not found"))?;

        let mut validation = Validation::new(Algorithm::RS256);
        validation.required_spec_claims = HashSet::from(["iss", "aud", "exp"].map(str::to_owned));
        validation.validate_exp = false; // Below, on the issuer's own clock and without leeway.
        validation.set_issuer(&[&account]);
        validation.set_audience(&[url, &format!("{url}/token"), GOOGLE_AUDIENCE]);
        let claims = decode::<Claims>(assertion, key, &validation)
            .map_err(|error| {
                invalid(match error.kind() {
                    ErrorKind::InvalidSignature => "Invalid JWT Signature.",
                    ErrorKind::InvalidAlgorithm => "Invalid JWT: RS256 is expected.",
                    ErrorKind::InvalidAudience => "Invalid JWT: wrong audience.",
                    _ => "Invalid JWT: a claim is missing or malformed.",
                })
            })?
            .claims;
        if claims.exp <= now {
            return Err(invalid("Invalid JWT: it has expired."));
        }
        if claims.iat > now || claims.exp.saturating_sub(claims.iat) > LIFE_SECONDS_MAX {
            let why = "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe.";
            return Err(invalid(why));
        }
        Ok((account, (!claims.scope.is_empty()).then_some(claims.scope)))
    }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{EncodingKey, Header, encode};
    use serde_json::{Value, json};

    use super::*;
    use crate::ServiceAccount;

    const NOW: u64 = 1_800_000_000;
    const URL: &str = "http://127.0.0.1:9";

    #[test]
    fn assertions_are_accepted_and_refused_as_rfc_7523_says() {
        let account = ServiceAccount::generate("robot@x.test").unwrap();
        let stranger = ServiceAccount::generate("robot@x.test").unwrap();
        let mut accounts = Accounts::default();
        accounts.register(
            "robot@x.test".into(),
            DecodingKey::from_rsa_pem(account.public_key_pem.as_bytes()).unwrap(),
        );

        let check = |key: &ServiceAccount, change: Value, verdict: Result<(), &str>| {
            let mut claims = json!({
                "iss": "robot@x.test", "aud": format!("{URL}/token"), "scope": "a b", "iat": NOW - 10, "exp": NOW + 3590
            });
            for (name, value) in change.as_object().unwrap() {
                claims[name] = value.clone();
            }
            let key = EncodingKey::from_rsa_pem(key.private_key_pem.expose().as_bytes()).unwrap();
            let assertion = encode(&Header::new(Algorithm::RS256), &claims, &key).unwrap();
            let got = accounts.verify(&assertion, URL, NOW);
            assert_eq!(
                got.map(|_| ()).map_err(|refusal| refusal.code.name()),
                verdict,
                "{change}"
            );
        };
        let refused = Err("invalid_grant");
        check(&account, json!({}), Ok(()));
        check(&account, json!({"aud": URL}), Ok(()));
        check(&account, json!({"aud": GOOGLE_AUDIENCE}), Ok(()));
        check(&account, json!({"iat": NOW, "exp": NOW + 3600}), Ok(()));
        check(&account, json!({"iat": NOW, "exp": NOW + 3601}), refused);
        check(&account, json!({"iat": NOW + 1}), refused);
        check(&account, json!({"exp": NOW}), refused);
        check(
            &account,
            json!({"aud": "https://elsewhere.test/token"}),
            refused,
        );
        check(&account, json!({"iss": "nobody@x.test"}), refused);
        check(&account, json!({"iat": null}), refused);
        check(&account, json!({"scope": ""}), Ok(()));
        check(&stranger, json!({}), refused);
    }

    #[test]
    fn an_assertion_under_another_algorithm_is_refused() {
        let account = ServiceAccount::generate("robot@x.test").unwrap();
        let mut accounts = Accounts::default();
        accounts.register(
            "robot@x.test".into(),
            DecodingKey::from_rsa_pem(account.public_key_pem.as_bytes()).unwrap(),
        );
        // The classic confusion: the public key used as an HMAC secret.
        let key = EncodingKey::from_secret(account.public_key_pem.as_bytes());
        let claims =
            json!({"iss": "robot@x.test", "aud": URL, "scope": "a", "iat": NOW, "exp": NOW + 60});
        let assertion = encode(&Header::new(Algorithm::HS256), &claims, &key).unwrap();
        assert!(accounts.verify(&assertion, URL, NOW).is_err());
    }
}
