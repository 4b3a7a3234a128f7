//! What a person can do about a refusal, in one line. Hints only: no decision depends on them.

use evermint_core::mint::FailureClass;
use evermint_core::strategy::Strategy;

use crate::strategy::refresher;

/// What an issuer said of a failure, as far as it helps to find a remedy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Said {
    /// The OAuth error code.
    pub(crate) code: String,
    /// Finer codes: Google's `error_subtype` and reason of an API error, Entra's `suberror`.
    pub(crate) subtype: String,
    /// Its own words.
    pub(crate) description: String,
    /// Entra's AADSTS numbers.
    pub(crate) aadsts: Vec<u64>,
}

/// The remedy for a failure of this class; empty if there is nothing to do but wait.
pub(crate) fn remedy(class: FailureClass, strategy: Strategy, said: &Said) -> &'static str {
    if let Some(text) = said.aadsts.iter().find_map(|number| entra(*number)) {
        return text;
    }
    let finer = subtype(&said.subtype).or_else(|| ibm(&said.code));
    if let Some(text) = finer.or_else(|| phrase(&said.description)) {
        return text;
    }
    match class {
        FailureClass::GrantRefused => refresher(strategy).grant().remedy,
        FailureClass::ConfigRefused => config(&said.code),
        FailureClass::UnknownRefusal => {
            "check the token endpoint and the client's registration at the issuer"
        }
        FailureClass::Throttled => "wait; if it lasts, ask the issuer for a higher limit",
        FailureClass::Unsent | FailureClass::Transient | FailureClass::Unclear => "",
    }
}

fn config(code: &str) -> &'static str {
    match code {
        "invalid_client" | "deleted_client" | "incorrect_client_credentials" => {
            "check client_id and client_secret (or the key), and whether the issuer expects client_auth client_secret_basic or client_secret_post; then configure the refresh again"
        }
        "unauthorized_client" => {
            "allow this grant type, and these scopes, for the client at the issuer; then configure the refresh again"
        }
        "unsupported_grant_type" => {
            "the issuer does not know this grant type: check the strategy and the token endpoint"
        }
        "invalid_scope" => "correct the scopes and configure the refresh again",
        "invalid_target" => "correct audience or resource and configure the refresh again",
        _ => "correct the refresh configuration and configure it again",
    }
}

/// Google's finer codes.
fn subtype(subtype: &str) -> Option<&'static str> {
    let text = match subtype {
        "invalid_rapt" | "rapt_required" => {
            "Google's session control ended the session: authorize again, or exempt the app in the Workspace admin console (Google Cloud session control)"
        }
        "SERVICE_DISABLED" => {
            "enable the API that the message names in the Google Cloud project; it takes a few minutes to be known"
        }
        "IAM_PERMISSION_DENIED" => {
            "grant the role that the message names on the service account: Workload Identity User for the federated identity, or Service Account Token Creator; it takes a few minutes to be known"
        }
        _ => return None,
    };
    Some(text)
}

/// IBM's codes.
fn ibm(code: &str) -> Option<&'static str> {
    let text = match code {
        "BXNIM0415E" => {
            "the API key is unknown: it was deleted, mistyped, or made a moment ago; if it lasts, configure the refresh with a new key"
        }
        "BXNIM0109E" | "BXNIM0106E" => {
            "the request lacks something or has it in a form that IBM refuses: check the token endpoint and the API key"
        }
        _ => return None,
    };
    Some(text)
}

/// What issuers say without a code of its own.
fn phrase(description: &str) -> Option<&'static str> {
    const PHRASES: [(&str, &str); 6] = [
        (
            "check your iat and exp",
            "the assertion's times are refused: set this replica's clock (NTP)",
        ),
        (
            "invalid jwt signature",
            "the key that signed is not (any more) a key of this account: configure the refresh with a new key file",
        ),
        (
            "account not found",
            "the account does not exist (any more): check its email address",
        ),
        (
            "client is unauthorized to retrieve access tokens",
            "domain-wide delegation is missing: allow the service account's client id for exactly these scopes in the Workspace admin console",
        ),
        (
            "has not been used in project",
            "enable the API that the message names in the Google Cloud project; it takes a few minutes to be known",
        ),
        (
            "getaccesstoken' denied",
            "grant Workload Identity User (or Service Account Token Creator) on the service account to the federated identity",
        ),
    ];
    let said = description.to_ascii_lowercase();
    let found = PHRASES.iter().find(|(words, _)| said.contains(words));
    found.map(|(_, text)| *text)
}

/// Microsoft Entra's numbers. Microsoft asks clients not to branch on them.
fn entra(number: u64) -> Option<&'static str> {
    let text = match number {
        7_000_215 => {
            "the client secret is wrong: use its value, not its id; a new secret can take two minutes to be known"
        }
        7_000_222 => {
            "the client secret has expired: create a new one in Entra and configure the refresh with it"
        }
        7_000_218 => "the request carries no client secret: configure client_secret",
        700_016 => {
            "the application is not in this tenant: check client_id and the tenant in the token endpoint"
        }
        90_002 => "the tenant does not exist: check the token endpoint",
        700_027 => {
            "the assertion's signature is not accepted: upload the certificate to the application"
        }
        700_024 => "the assertion's times are refused: set this replica's clock (NTP)",
        70_021 | 700_213 | 700_211 | 700_212 => {
            "no federated credential of the application fits the token: compare issuer, subject and audience (api://AzureADTokenExchange)"
        }
        700_236 => {
            "tokens that Entra issued are not taken as federated credentials: use another issuer's"
        }
        500_011 => "the resource is not in this tenant: check the scope",
        70_008 | 700_082 => "the refresh token was idle for too long: authorize again",
        700_084 => {
            "refresh tokens of single-page applications live for 24 hours: authorize again, with another type of application"
        }
        50_173 => "the grant was revoked, often by a change of password: authorize again",
        50_076 | 50_079 | 50_158 => {
            "a policy asks for another factor: authorize again interactively, or exempt the application"
        }
        65_001 => "nobody consented to these permissions: grant admin consent in Entra",
        70_011 | 1_002_012 => {
            "the scope is not accepted: for client credentials it is the resource with /.default"
        }
        _ => return None,
    };
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use evermint_core::mint::FAILURE_TEXT_MAX;

    #[test]
    fn the_most_specific_hint_wins() {
        let generic = Said {
            code: "invalid_client".to_owned(),
            ..Said::default()
        };
        let class = FailureClass::ConfigRefused;
        let strategy = Strategy::OAuth2ClientCredentials;
        assert!(remedy(class, strategy, &generic).contains("client_id"));
        let entra = Said {
            aadsts: vec![1, 7_000_222],
            ..generic.clone()
        };
        assert!(remedy(class, strategy, &entra).contains("expired"));
        let rapt = Said {
            subtype: "invalid_rapt".to_owned(),
            ..generic
        };
        assert!(remedy(class, strategy, &rapt).contains("session control"));
    }

    #[test]
    fn a_final_refusal_always_has_a_remedy_that_fits() {
        for strategy in Strategy::ALL {
            for class in [FailureClass::GrantRefused, FailureClass::ConfigRefused] {
                let text = remedy(class, strategy, &Said::default());
                assert!(!text.is_empty() && text.len() <= FAILURE_TEXT_MAX);
            }
        }
    }
}
