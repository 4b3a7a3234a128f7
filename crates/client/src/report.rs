//! Telling the cluster that a value is refused where it is used.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use evermint_core::id::Generation;
use evermint_core::time::UnixMs;
use evermint_proto::v1;
use evermint_proto::v1::bundles_client::BundlesClient;
use evermint_proto::v1::report_token_response::Outcome;
use tokio::time::timeout;
use tonic::transport::Channel;

use crate::auth::TokenSource;
use crate::error::Error;
use crate::failure::{Failure, Kind};
use crate::wire::authenticated;

/// What comes of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// A new value is on its way, and comes with the bundle.
    Due,
    /// There is a newer value already, or it is about to arrive.
    Superseded,
    /// Too early after the last one.
    NotYet {
        /// When a new value may be asked for, on the cluster clock.
        not_before: UnixMs,
    },
    /// Nothing changes before a person acts.
    Stuck,
}

/// The endpoint that gave something last, for calls beside those of the driver.
#[derive(Clone)]
pub(crate) struct Giver {
    pub(crate) channel: Channel,
    pub(crate) source: Option<Arc<dyn TokenSource>>,
    pub(crate) sandbox: String,
    pub(crate) workspace: String,
    pub(crate) bound: Duration,
}

impl Giver {
    pub(crate) async fn report(
        &self,
        provider: &str,
        credential_key: &str,
        generation: Generation,
    ) -> Result<Report, Error> {
        let request = v1::ReportTokenRequest {
            sandbox: self.sandbox.clone(),
            workspace: self.workspace.clone(),
            provider: provider.to_owned(),
            credential_key: credential_key.to_owned(),
            generation: generation.0,
        };
        let attempt = async {
            let request = authenticated(self.source.as_deref(), request).await?;
            let answer = BundlesClient::new(self.channel.clone())
                .report_token(request)
                .await;
            answer.map_err(|status| Failure::of_call(&status))
        };
        let answer = match timeout(self.bound, attempt).await {
            Ok(Ok(answer)) => answer.into_inner(),
            Ok(Err(failure)) => {
                return Err(match failure.kind {
                    Kind::Refused(refusal) | Kind::NoSandbox(refusal) => refusal.into(),
                    other @ (Kind::Passing(_) | Kind::Cut(_) | Kind::Silent(_)) => {
                        Error::Unanswered(other.to_string())
                    }
                });
            }
            Err(_) => return Err(Error::Unanswered(format!("nothing in {:?}", self.bound))),
        };
        Ok(match answer.outcome() {
            Outcome::Due => Report::Due,
            Outcome::Superseded => Report::Superseded,
            Outcome::NotYet => Report::NotYet {
                not_before: UnixMs(answer.not_before_ms.unwrap_or_default()),
            },
            Outcome::Stuck | Outcome::Unspecified => Report::Stuck,
        })
    }
}

impl fmt::Debug for Giver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Giver").finish_non_exhaustive()
    }
}
