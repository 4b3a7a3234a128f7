//! One token request and its answer: what all OAuth 2.0 strategies share.

use evermint_core::mint::{Failure, MintOrder};
use http::HeaderValue;

use crate::classify::Judge;
use crate::form::Form;
use crate::redact::Redactor;
use crate::response::{self, Tokens, Wanted};
use crate::transport::Transport;

/// A token request, ready to go.
pub(crate) struct Request {
    /// Its body.
    pub(crate) form: Form,
    /// The client's word for itself, if it goes into the header.
    pub(crate) authorization: Option<HeaderValue>,
    /// Knows every secret in it.
    pub(crate) redactor: Redactor,
    /// What the answer is to hold.
    pub(crate) wanted: Wanted,
}

/// Sends the request under the order's fence and reads the answer.
pub(crate) async fn exchange(
    order: &MintOrder,
    transport: &Transport,
    request: Request,
) -> Result<Tokens, Failure> {
    let judge = Judge {
        strategy: order.config.strategy,
        redactor: &request.redactor,
    };
    let answer = transport
        .post(
            &order.fence,
            &order.config.token_url,
            request.form,
            request.authorization,
        )
        .await
        .map_err(|no| judge.no_answer(no))?;
    let mut tokens =
        response::read(&answer, request.wanted).map_err(|why| judge.answer(&answer, why))?;
    for scope in tokens.scopes.iter_mut().flatten() {
        *scope = request.redactor.clean(scope);
    }
    Ok(tokens)
}
