//! `oauth2-token-exchange`: another token for one of this issuer,
//! [RFC 8693](https://www.rfc-editor.org/rfc/rfc8693).

use std::sync::Arc;

use async_trait::async_trait;
use evermint_core::mint::{Failure, FailureClass, Fence, Minted};
use evermint_core::strategy::Strategy;

use super::{CredentialRefresher, Grant, client, entra};
use crate::exchange::{Proof, TOKEN_EXCHANGE, exchange};
use crate::material::{FieldError, Format, MaterialField, MaterialSchema};
use crate::outside::Setup;

/// The strategy.
#[derive(Clone, Copy, Debug)]
pub struct OAuth2TokenExchange;

/// What is exchanged, or for whom: the names of its token, its file and its type.
struct Party {
    token: &'static str,
    file: &'static str,
    kind: &'static str,
}

const SUBJECT: Party = Party {
    token: "subject_token",
    file: "subject_token_file",
    kind: "subject_token_type",
};

const ACTOR: Party = Party {
    token: "actor_token",
    file: "actor_token_file",
    kind: "actor_token_type",
};

const REQUESTED: &str = "requested_token_type";

/// The type of a token that says nothing of its type.
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";

const SCHEMA: MaterialSchema = MaterialSchema {
    strategy: Strategy::OAuth2TokenExchange,
    parts: &[
        &[
            MaterialField::secret(SUBJECT.token, Format::Line, "the token that is exchanged")
                .or(SUBJECT.file),
            MaterialField::public(
                SUBJECT.file,
                Format::Path,
                "a file on the replicas with the token that is exchanged",
            )
            .or(SUBJECT.token),
            MaterialField::public(
                SUBJECT.kind,
                Format::Line,
                "its type, a URI; urn:ietf:params:oauth:token-type:jwt if not given",
            )
            .checked(uri),
            MaterialField::secret(
                ACTOR.token,
                Format::Line,
                "the token of who acts for the subject, if somebody does",
            ),
            MaterialField::public(
                ACTOR.file,
                Format::Path,
                "a file on the replicas with the token of who acts",
            ),
            MaterialField::public(
                ACTOR.kind,
                Format::Line,
                "its type, a URI; urn:ietf:params:oauth:token-type:jwt if not given",
            )
            .checked(uri),
            MaterialField::public(
                REQUESTED,
                Format::Line,
                "the type of the token that is wanted, a URI",
            )
            .checked(uri),
        ],
        &[client::CLIENT_ID],
        client::AUTHENTICATION,
        entra::FIELDS,
        client::TARGET,
    ],
};

/// The URI of a token type, [RFC 8693 §3](https://www.rfc-editor.org/rfc/rfc8693#section-3).
pub(crate) fn uri(text: &str) -> Result<(), String> {
    match text.contains(':') {
        true => Ok(()),
        false => Err(format!(
            "is no URI; the types of RFC 8693 begin with {}",
            JWT.trim_end_matches("jwt")
        )),
    }
}

#[async_trait]
impl CredentialRefresher for OAuth2TokenExchange {
    fn schema(&self) -> &'static MaterialSchema {
        &SCHEMA
    }

    fn grant(&self) -> Grant {
        Grant {
            refused: FailureClass::GrantRefused,
            remedy: "the token that is exchanged is expired, or not one that the issuer takes: configure a new one, and check its type, issuer and audience",
        }
    }

    fn endpoints(&self, setup: &Setup<'_>) -> Vec<(&'static str, String)> {
        entra::endpoints(setup)
    }

    fn check(&self, setup: &Setup<'_>) -> Vec<FieldError> {
        let material = &setup.material;
        let mut errors = Vec::new();
        for Party { token, file, kind } in [SUBJECT, ACTOR] {
            let is_subject = token == SUBJECT.token;
            match (material.has(token), material.has(file)) {
                (true, true) => {
                    let problem = format!("excludes {file}: give one of them");
                    errors.push(FieldError::new(token, problem));
                }
                (false, false) if is_subject => {
                    let problem = format!("is missing; give it, or {file}");
                    errors.push(FieldError::new(token, problem));
                }
                (false, false) if material.has(kind) => {
                    errors.push(FieldError::new(kind, format!("needs {token} or {file}")));
                }
                _ => {}
            }
            errors.extend(setup.check_path(file));
        }
        errors.extend(client::check(setup));
        errors.extend(client::check_id(material));
        errors.extend(entra::check(setup));
        errors
    }

    async fn refresh(&self, setup: &Setup<'_>, fence: &Arc<dyn Fence>) -> Result<Minted, Failure> {
        let material = &setup.material;
        let mut request = client::request(setup, fence, TOKEN_EXCHANGE).await?;
        for Party { token, file, kind } in [SUBJECT, ACTOR] {
            let is_actor = token == ACTOR.token;
            if is_actor && !material.has(token) && !material.has(file) {
                continue;
            }
            let presented = setup.presented(&**fence, token, file).await?;
            request.redactor.add(presented.token.expose());
            request.form.add(token, presented.token.expose());
            request.form.add(kind, material.get(kind).unwrap_or(JWT));
            if presented.proof == Proof::Borrowed {
                request.proof = Proof::Borrowed;
            }
        }
        request.form.add_some(REQUESTED, material.get(REQUESTED));
        // The token is in access_token whatever its type (RFC 8693 §2.2.1).
        let tokens = exchange(setup, fence, request).await?;
        let in_use = client::in_use(&setup.material, &tokens);
        let mut minted = tokens.minted();
        minted.new_material.extend(in_use);
        Ok(minted)
    }
}
