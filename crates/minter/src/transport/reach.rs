//! A sign of life: whether a token endpoint can be reached, without sending it anything.

use evermint_core::mint::Fence;
use http::StatusCode;

use super::{NoAnswer, Transport, describe, unsent, unsent_at_gate};
use crate::fence::fenced;

impl Transport {
    /// Asks for the head of a token endpoint, with no material and no body. Any status is a sign
    /// of life: a token endpoint answers nothing but a POST. Takes its turn at the issuer's gate. Gives the
    /// issuer's host and the status.
    ///
    /// # Errors
    /// [`NoAnswer`]; nothing that is secret was sent in any case.
    pub async fn reach(
        &self,
        fence: &dyn Fence,
        url: &str,
    ) -> Result<(String, StatusCode), NoAnswer> {
        let endpoint = self.rules.way_to(url).map_err(NoAnswer::Refused)?;
        let issuer = endpoint.authority.clone();
        let late = || unsent(format!("{issuer} did not answer in time"));
        let patience = fence.remaining() / 2;
        let pass = fenced(fence, self.gates.of(&issuer).enter(patience))
            .await
            .ok_or_else(late)?
            .map_err(|shut| unsent_at_gate(&issuer, shut))?;
        let asked = fenced(fence, self.client.head(endpoint.url).send()).await;
        match asked {
            // Dropping the pass says nothing of how token requests fare.
            Some(Ok(answer)) => Ok((issuer, answer.status())),
            Some(Err(error)) => {
                pass.failed();
                Err(describe(&issuer, &error, true))
            }
            None => {
                pass.failed();
                Err(late())
            }
        }
    }
}
