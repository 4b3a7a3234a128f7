//! `private_key_jwt`: a client proves itself by an assertion under a registered key
//! ([RFC 7523 §3]), each of which counts once.
//!
//! [RFC 7523 §3]: https://www.rfc-editor.org/rfc/rfc7523#section-3

use std::collections::{BTreeMap, HashSet};

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde::Deserialize;

use crate::refusal::{Code, Refusal};

/// What `client_assertion_type` has to be.
pub(crate) const TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// The longest life of a client's assertion, in seconds.
const LIFE_SECONDS_MAX: u64 = 600;

/// The assertions that were accepted, until their ends.
#[derive(Default)]
pub(crate) struct Accepted(BTreeMap<(String, String), u64>);

#[derive(Deserialize)]
struct Claims {
    sub: String,
    jti: String,
    iat: u64,
    exp: u64,
}

impl Accepted {
    /// Verifies an assertion of `client` under its public key, for the issuer at `url`, at `now` in
    /// Unix seconds without leeway.
    pub(crate) fn verify(
        &mut self,
        assertion: &str,
        client: &str,
        key: &str,
        url: &str,
        now: u64,
    ) -> Result<(), Refusal> {
        let invalid = |why| Code::InvalidClient { challenge: false }.because(why);
        let header = decode_header(assertion).map_err(|_| invalid("no assertion"))?;
        let key = match header.alg {
            Algorithm::ES256 | Algorithm::ES384 => DecodingKey::from_ec_pem(key.as_bytes()),
            Algorithm::EdDSA => DecodingKey::from_ed_pem(key.as_bytes()),
            Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => {
                return Err(invalid("a symmetric algorithm"));
            }
            _ => DecodingKey::from_rsa_pem(key.as_bytes()),
        };
        let key = key.map_err(|_| invalid("an algorithm that is not of the key"))?;
        let mut validation = Validation::new(header.alg);
        validation.required_spec_claims =
            HashSet::from(["iss", "sub", "aud", "exp"].map(str::to_owned));
        validation.validate_exp = false; // Below, on the issuer's own clock and without leeway.
        validation.set_issuer(&[client]);
        validation.set_audience(&[url, &format!("{url}/token")]);
        let claims = decode::<Claims>(assertion, &key, &validation)
            .map_err(|_| invalid("the assertion's signature or a claim is not accepted"))?
            .claims;
        if claims.sub != client {
            return Err(invalid("sub is not the client"));
        }
        if claims.exp <= now || claims.iat > now || claims.exp - claims.iat > LIFE_SECONDS_MAX {
            return Err(invalid("the assertion's times are not accepted"));
        }
        self.0.retain(|_, end| *end > now);
        match self.0.insert((client.to_owned(), claims.jti), claims.exp) {
            None => Ok(()),
            Some(_) => Err(invalid("the assertion was used before")),
        }
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
    fn a_clients_assertion_is_accepted_once_and_only_as_rfc_7523_says() {
        let (mine, other) = (
            ServiceAccount::generate("c").unwrap(),
            ServiceAccount::generate("c").unwrap(),
        );
        let mut accepted = Accepted::default();
        use Algorithm::{HS256, PS256, RS256};
        let mut check = |key: &ServiceAccount, algorithm, change: Value, ok: bool| {
            let mut claims = json!({
                "iss": "c", "sub": "c", "aud": format!("{URL}/token"), "jti": change.to_string(),
                "iat": NOW - 10, "exp": NOW + 290
            });
            for (name, value) in change.as_object().unwrap() {
                claims[name] = value.clone();
            }
            let pem = key.private_key_pem.expose().as_bytes();
            let key = match algorithm {
                HS256 => EncodingKey::from_secret(mine.public_key_pem.as_bytes()),
                _ => EncodingKey::from_rsa_pem(pem).unwrap(),
            };
            let assertion = encode(&Header::new(algorithm), &claims, &key).unwrap();
            let got = accepted.verify(&assertion, "c", &mine.public_key_pem, URL, NOW);
            assert_eq!(got.is_ok(), ok, "{change} {algorithm:?}");
        };
        check(&mine, RS256, json!({"jti": "1"}), true);
        check(&mine, RS256, json!({"jti": "1"}), false);
        check(&mine, PS256, json!({"jti": "2", "aud": URL}), true);
        check(
            &mine,
            RS256,
            json!({"aud": "https://elsewhere.test"}),
            false,
        );
        check(&mine, RS256, json!({"iss": "d"}), false);
        check(&mine, RS256, json!({"sub": "d"}), false);
        check(&mine, RS256, json!({"exp": NOW}), false);
        check(&mine, RS256, json!({"iat": NOW + 1}), false);
        check(&mine, RS256, json!({"exp": NOW + 601}), false);
        check(&mine, RS256, json!({"jti": null}), false);
        check(&other, RS256, json!({"jti": "3"}), false);
        // The classic confusion: the public key used as an HMAC secret.
        check(&mine, HS256, json!({"jti": "4"}), false);
    }
}
