//! `evermint.v1.SandboxTokens`.

use std::time::Duration;

use evermint_core::command::{Command, Refusal};
use evermint_core::id::SigningKeyId;
use evermint_core::provider::Sandbox;
use evermint_core::secret::Secret;
use evermint_core::signing;
use evermint_proto::v1;
use evermint_proto::v1::sandbox_tokens_server::SandboxTokens;
use evermint_seal::Context;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::Services;
use super::providers::named;
use crate::caller::Caller;
use crate::rim::Rim;
use crate::shared::Shared;
use crate::token::{self, LIFETIME, LIFETIME_MAX, Token};
use crate::{origin, status};

/// How often a first key is looked for anew after another replica brought one.
const TRIES: usize = 3;

#[tonic::async_trait]
impl SandboxTokens for Services {
    async fn issue_sandbox_token(
        &self,
        request: Request<v1::IssueSandboxTokenRequest>,
    ) -> Result<Response<v1::IssueSandboxTokenResponse>, Status> {
        let request = request.into_inner();
        let mut rim = Rim::default();
        let workspace = rim.workspace(&request.workspace);
        let name = rim.parse("sandbox", &request.sandbox);
        if request.lifetime_secs > LIFETIME_MAX.as_secs() {
            rim.problem(
                "lifetime_secs",
                format!("must be at most {}", LIFETIME_MAX.as_secs()),
            );
        }
        let (workspace, name) = rim.finish(|| Some((workspace?, name?)))?;
        let sandbox = self.sandbox(&workspace, &name).await?;
        let lifetime = match request.lifetime_secs {
            0 => LIFETIME,
            secs => Duration::from_secs(secs),
        };
        let token = self.token(&sandbox, lifetime).await?;
        Ok(Response::new(v1::IssueSandboxTokenResponse {
            expires_at_ms: token.expires_at.0,
            token: token.text,
            server_time_ms: self.ports.view.now().0,
        }))
    }

    async fn renew_sandbox_token(
        &self,
        request: Request<v1::RenewSandboxTokenRequest>,
    ) -> Result<Response<v1::RenewSandboxTokenResponse>, Status> {
        let Some(Caller::Sandbox(pass)) = request.extensions().get::<Caller>() else {
            return Err(status::denied("this method requires a sandbox principal"));
        };
        let sandbox = self.state().sandboxes.get(&pass.sandbox).cloned();
        let sandbox = sandbox.ok_or_else(|| status::spent(token::Spent::Unknown))?;
        let token = self.token(&sandbox, LIFETIME).await?;
        Ok(Response::new(v1::RenewSandboxTokenResponse {
            expires_at_ms: token.expires_at.0,
            token: token.text,
            server_time_ms: self.ports.view.now().0,
        }))
    }

    async fn revoke_sandbox_tokens(
        &self,
        request: Request<v1::RevokeSandboxTokensRequest>,
    ) -> Result<Response<v1::RevokeSandboxTokensResponse>, Status> {
        let request = request.into_inner();
        let (workspace, name) = named(&request.workspace, &request.sandbox)?;
        let id = self.sandbox(&workspace, &name).await?.id;
        let written = self.propose(Command::RevokeSandboxTokens { id }).await?;
        Ok(Response::new(v1::RevokeSandboxTokensResponse {
            position: written.position.0,
        }))
    }
}

impl Shared {
    /// A token for a sandbox.
    pub(crate) async fn token(
        &self,
        sandbox: &Sandbox,
        lifetime: Duration,
    ) -> Result<Token, Status> {
        let (key, private) = self.signing_key().await?;
        let now = self.ports.view.now();
        token::sign(&self.tokens, key, &private, sandbox, now, lifetime).ok_or_else(|| {
            tracing::error!(%key, "no token could be signed");
            status::internal("this replica cannot sign tokens; its log says why")
        })
    }

    /// The key that signs. The first token of a cluster brings the first key; of several replicas
    /// that find none, one is first.
    async fn signing_key(&self) -> Result<(SigningKeyId, Secret), Status> {
        for _ in 0..TRIES {
            if let Some(key) = signing::newest(&self.state()) {
                let private = self.open(&Context::signing_key(key.id), &key.private)?;
                return Ok((key.id, private));
            }
            let id = SigningKeyId(Uuid::new_v4().as_u128());
            let pair = token::generate();
            let (public, private) =
                pair.ok_or_else(|| status::internal("no key could be drawn"))?;
            let command = Command::AddSigningKey {
                id,
                replaces: None,
                public,
                private: self.seal(&Context::signing_key(id), &private)?,
            };
            let answer = self
                .ports
                .proposer
                .propose_for(origin::current(), command)
                .await;
            let answer = answer.map_err(|e| status::unanswered(&e))?;
            match answer.outcome {
                Ok(_) | Err(Refusal::SigningKeyReplaced) => self.reach(answer.position).await?,
                Err(refusal) => return Err(status::refused(&refusal)),
            }
        }
        Err(status::internal("the signing key changes all the time"))
    }
}
