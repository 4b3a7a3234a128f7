//! The tokens of sandboxes.
//!
//! A sandbox with a token of the gateway behind this one gets its next one there: it needs one that
//! both take.

use std::collections::BTreeSet;

use evermint_proto::openshell::v1;
use evermint_proto::openshell::v1::open_shell_client::OpenShellClient;
use tonic::{Request, Status};

use super::reader::{gone, own_pass};
use super::{Face, status};
use crate::token::{LIFETIME, Signer};

/// Most services that a token is asked for at once.
const EXTENSIONS_MAX: usize = 64;

pub(super) async fn issue(
    _: &Face,
    _: Request<v1::IssueSandboxTokenRequest>,
) -> Result<v1::IssueSandboxTokenResponse, Status> {
    // Whoever comes here has shown a sandbox's token; others are passed on, or not let in.
    Err(crate::status::denied(
        "this method requires a Kubernetes service account, which Evermint does not know; \
         `evermint sandbox token` gives a sandbox its first token",
    ))
}

pub(super) async fn refresh(
    face: &Face,
    request: Request<v1::RefreshSandboxTokenRequest>,
) -> Result<v1::RefreshSandboxTokenResponse, Status> {
    let pass = own_pass(&request)?;
    check(&request.get_ref().extension_service_names)?;
    if pass.signer == Signer::Gateway
        && let Some(behind) = face.behind()
    {
        let mut behind = OpenShellClient::new(behind);
        let answer = behind.refresh_sandbox_token(request).await?;
        return Ok(answer.into_inner());
    }
    if !request.get_ref().extension_service_names.is_empty() {
        return Err(status::invalid("there is no such extension service here"));
    }
    let state = face.state();
    let sandbox = state.sandboxes.get(&pass.sandbox).ok_or_else(gone)?;
    let token = face.token(sandbox, LIFETIME).await;
    let token = token.map_err(|error| {
        // A replica without its keys: another one has them.
        crate::status::no_issuer(error.message())
    })?;
    Ok(v1::RefreshSandboxTokenResponse {
        token: token.text,
        expires_at_ms: i64::try_from(token.expires_at.0).unwrap_or(i64::MAX),
        extension_credentials: Vec::new(),
    })
}

fn check(services: &[String]) -> Result<(), Status> {
    if services.len() > EXTENSIONS_MAX {
        return Err(status::invalid(format!(
            "extension_service_names must have at most {EXTENSIONS_MAX} entries"
        )));
    }
    let unique: BTreeSet<_> = services.iter().collect();
    if unique.len() < services.len() {
        return Err(status::invalid("extension_service_names must be unique"));
    }
    Ok(())
}
