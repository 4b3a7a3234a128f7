//! Tells an issuer to honour a token no more,
//! [RFC 7009](https://www.rfc-editor.org/rfc/rfc7009). The request leaves as a token request does:
//! once, to a checked endpoint, through the gate of its issuer, inside its fence.

use std::sync::Arc;

use evermint_core::mint::{Failure, FailureClass, Fence, RevokeOrder};
use evermint_core::secret::Secret;

use crate::classify::Judge;
use crate::exchange::{self, Request};
use crate::outside::Setup;
use crate::response::Unusable;
use crate::strategy::refresher;

/// The hint of a refresh token, [RFC 7009 §2.1](https://www.rfc-editor.org/rfc/rfc7009#section-2.1).
const REFRESH_TOKEN: &str = "refresh_token";

/// The hint of an access token.
const ACCESS_TOKEN: &str = "access_token";

/// What an issuer made of a revocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// The token is worth nothing: it was revoked, or it was unknown.
    Revoked,
    /// The issuer revokes no tokens of this kind.
    Unsupported,
}

/// Has everything in the order revoked, the grant first: with it, most issuers end its tokens.
pub(crate) async fn revoke(setup: &Setup<'_>, order: &RevokeOrder) -> Result<(), Failure> {
    let refresher = refresher(setup.config.strategy);
    let mut told = Vec::new();
    if order.with_grant {
        for token in refresher.grant_tokens(setup)? {
            let revoked = refresher.revoke(setup, &order.fence, &token, REFRESH_TOKEN);
            told.push(revoked.await?);
        }
    }
    for token in &order.tokens {
        let revoked = refresher.revoke(setup, &order.fence, token, ACCESS_TOKEN);
        told.push(revoked.await?);
    }
    match told.is_empty() || told.contains(&Told::Revoked) {
        true => Ok(()),
        false => Err(Failure {
            class: FailureClass::ConfigRefused,
            cause: "the issuer revokes no tokens of this kind (unsupported_token_type)".to_owned(),
            remedy: String::new(),
            retry_after_ms: None,
        }),
    }
}

/// Adds the token to a request that proves the client, sends it to the revocation endpoint, and
/// reads what it says.
pub(crate) async fn request(
    setup: &Setup<'_>,
    fence: &Arc<dyn Fence>,
    mut request: Request,
    token: &Secret,
    hint: &str,
) -> Result<Told, Failure> {
    request.url.clone_from(&setup.config.revoke_url);
    request.form.add("token", token.expose());
    request.form.add("token_type_hint", hint);
    request.redactor.add(token.expose());
    let redactor = request.redactor.clone();
    let judge = Judge {
        strategy: setup.config.strategy,
        redactor: &redactor,
        proof: request.proof,
    };
    let (answer, _) = exchange::ask(setup, fence, &judge, request).await?;
    if answer.status.is_success() {
        return Ok(Told::Revoked);
    }
    match judge.code(&answer).as_str() {
        // RFC 7009 says 200 for a token that is gone; Google says this.
        "invalid_token" => Ok(Told::Revoked),
        "unsupported_token_type" => Ok(Told::Unsupported),
        _ => Err(judge.answer(&answer, Unusable::Refusal)),
    }
}
