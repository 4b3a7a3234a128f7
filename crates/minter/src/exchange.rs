//! One token request and its answer: what all OAuth 2.0 strategies share.

use std::sync::Arc;

use evermint_core::mint::{Failure, Fence};
use http::HeaderValue;
use http::header::AUTHORIZATION;

use crate::classify::Judge;
use crate::form::Form;
use crate::outside::Setup;
use crate::redact::Redactor;
use crate::response::{self, Tokens, Wanted};
use crate::skew::Skew;
use crate::transport::{Answer, Outgoing};

/// The grant type of [RFC 8693 §2.1](https://www.rfc-editor.org/rfc/rfc8693#section-2.1).
pub(crate) const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";

/// The grant type of [RFC 7523 §2.1](https://www.rfc-editor.org/rfc/rfc7523#section-2.1).
pub(crate) const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// A token request, ready to go.
pub(crate) struct Request {
    /// Where.
    pub(crate) url: String,
    /// Its body, but for the client's proof.
    pub(crate) form: Form,
    /// How the client proves itself.
    pub(crate) client: Client,
    /// How it does if the issuer refuses that: its other secret, while two are good for a change.
    pub(crate) other_client: Option<Client>,
    /// Knows every secret in it.
    pub(crate) redactor: Redactor,
    /// What the answer is to hold.
    pub(crate) wanted: Wanted,
    /// By what it proves itself.
    pub(crate) proof: Proof,
}

/// A client's proof.
#[derive(Default)]
pub(crate) struct Client {
    /// What goes into the body.
    pub(crate) form: Form,
    /// What goes into the header.
    pub(crate) authorization: Option<HeaderValue>,
}

/// What a refusal may be about, beside the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    /// Nothing that changes by itself.
    Lasting,
    /// An assertion that was dated and signed here: its times may be refused.
    Dated,
    /// A token out of a file that somebody else keeps: it may be stale.
    Borrowed,
}

/// Sends the request and reads the answer.
pub(crate) async fn exchange(
    setup: &Setup<'_>,
    fence: &Arc<dyn Fence>,
    request: Request,
) -> Result<Tokens, Failure> {
    let redactor = request.redactor.clone();
    let judge = Judge {
        strategy: setup.config.strategy,
        redactor: &redactor,
        proof: request.proof,
    };
    let wanted = request.wanted;
    let (answer, is_other) = ask(setup, fence, &judge, request).await?;
    let mut tokens = response::read(&answer, wanted).map_err(|why| judge.answer(&answer, why))?;
    for scope in tokens.scopes.iter_mut().flatten() {
        *scope = redactor.clean(scope);
    }
    tokens.by_other_client = is_other;
    Ok(tokens)
}

/// Sends the request and gives its answer, whatever it says, and whether the client's other secret
/// was taken. That one is shown once, after a whole answer that refuses the client: an issuer knows
/// its client before it looks at the grant, so nothing was spent.
pub(crate) async fn ask(
    setup: &Setup<'_>,
    fence: &Arc<dyn Fence>,
    judge: &Judge<'_>,
    request: Request,
) -> Result<(Answer, bool), Failure> {
    let url = request.url.as_str();
    let outgoing = |client: Client| {
        let outgoing = Outgoing::form(url, request.form.with(&client.form));
        match client.authorization {
            Some(authorization) => outgoing.header(AUTHORIZATION, authorization),
            None => outgoing,
        }
    };
    let answer = send(setup, fence, judge, url, outgoing(request.client)).await?;
    match request.other_client {
        Some(other) if judge.refuses_client(&answer) => {
            let answer = send(setup, fence, judge, url, outgoing(other)).await?;
            Ok((answer, true))
        }
        _ => Ok((answer, false)),
    }
}

/// Sends a request and gives its answer, whatever it says; from a refusal of a dated assertion
/// the clock of the issuer is learnt.
pub(crate) async fn send(
    setup: &Setup<'_>,
    fence: &Arc<dyn Fence>,
    judge: &Judge<'_>,
    url: &str,
    outgoing: Outgoing,
) -> Result<Answer, Failure> {
    let sent = setup.outside.transport.send(fence, outgoing).await;
    let answer = sent.map_err(|no| judge.no_answer(no))?;
    if judge.proof == Proof::Dated && answer.status.is_client_error() {
        setup.outside.skews.learn(url, Skew::of(&answer));
    }
    Ok(answer)
}
