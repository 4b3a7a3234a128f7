//! The token that the cluster issued to this sandbox, renewed at whichever endpoint serves.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use evermint_core::port::Clock;
use evermint_core::secret::Secret;
use evermint_proto::v1;
use evermint_proto::v1::sandbox_tokens_client::SandboxTokensClient;
use tokio::time::{sleep, timeout};

use crate::auth::{BoxError, TokenSource};
use crate::names;
use crate::renew::{Issued, Renewing};
use crate::shared::Shared;
use crate::wire::authenticated;

/// How soon to look again for an endpoint that can renew the token.
const SOON: Duration = Duration::from_secs(1);
/// How soon to try again after a renewal that failed.
const RETRY: Duration = Duration::from_secs(10);

/// Begins with `first`, whose end nobody knows: it is renewed as soon as an endpoint serves. A
/// renewal that fails leaves the token as it is, so that the calls with it tell what is wrong.
pub(crate) fn source(
    first: Secret,
    shared: Weak<Shared>,
    bound: Duration,
    clock: Arc<dyn Clock>,
) -> Arc<dyn TokenSource> {
    let current = Arc::new(Mutex::new(first));
    let fetch = move || {
        let (current, shared) = (Arc::clone(&current), shared.clone());
        async move {
            let held = current
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            let keep = |renew_in| Issued {
                token: held.clone(),
                lifetime: None,
                renew_in: Some(renew_in),
            };
            let giver = shared.upgrade().and_then(|s| s.giver.load_full());
            let Some(giver) = giver else {
                return Ok(keep(SOON));
            };
            // Half of the time of the call that waits for it.
            let renewal = renew(SandboxTokensClient::new(giver.channel.clone()), &held);
            let issued = match timeout(bound / 2, renewal).await {
                Ok(Ok(issued)) => issued,
                Ok(Err(cause)) => {
                    tracing::warn!(
                        { names::CAUSE } = cause,
                        "the sandbox's token is not renewed"
                    );
                    return Ok(keep(RETRY));
                }
                Err(_) => return Ok(keep(RETRY)),
            };
            tracing::debug!("the sandbox's token is renewed");
            *current.lock().unwrap_or_else(PoisonError::into_inner) = issued.token.clone();
            Ok::<_, BoxError>(issued)
        }
    };
    Arc::new(Renewing::with_clock(fetch, clock))
}

/// Keeps the token fresh while no call asks for it: a stream may outlive it, and a token that is
/// over cannot be renewed.
pub(crate) async fn keep(source: Arc<dyn TokenSource>) {
    loop {
        sleep(SOON).await;
        if let Err(error) = source.token().await {
            tracing::debug!({ names::CAUSE } = error, "the sandbox has no token");
        }
    }
}

async fn renew(
    mut client: SandboxTokensClient<tonic::transport::Channel>,
    held: &Secret,
) -> Result<Issued, String> {
    let request = authenticated(Some(held), v1::RenewSandboxTokenRequest {}).await;
    let request = request.map_err(|failure| failure.kind.to_string())?;
    let answer = client.renew_sandbox_token(request).await;
    let answer = answer
        .map_err(|s| format!("{:?}: {}", s.code(), s.message()))?
        .into_inner();
    let lifetime = answer.expires_at_ms.saturating_sub(answer.server_time_ms);
    Ok(Issued {
        token: Secret::from(answer.token),
        lifetime: Some(Duration::from_millis(lifetime)),
        renew_in: None,
    })
}
