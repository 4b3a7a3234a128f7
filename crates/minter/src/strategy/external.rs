//! `external`: nothing is minted. Whoever makes the values pushes them, each with its end, and
//! status says when the next one is overdue.

use std::sync::Arc;

use async_trait::async_trait;
use evermint_core::mint::{Failure, FailureClass, Fence, Minted};
use evermint_core::strategy::Strategy;

use super::{CredentialRefresher, Grant};
use crate::material::{FieldError, MaterialSchema};
use crate::outside::Setup;

/// The strategy.
#[derive(Clone, Copy, Debug)]
pub struct External;

const SCHEMA: MaterialSchema = MaterialSchema {
    strategy: Strategy::External,
    parts: &[],
};

const REMEDY: &str =
    "push a value: provider update --credential KEY=@FILE --credential-expires-at KEY=TIME";

#[async_trait]
impl CredentialRefresher for External {
    fn schema(&self) -> &'static MaterialSchema {
        &SCHEMA
    }

    fn grant(&self) -> Grant {
        Grant {
            refused: FailureClass::ConfigRefused,
            remedy: REMEDY,
        }
    }

    fn endpoints(&self, _: &Setup<'_>) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    fn check(&self, setup: &Setup<'_>) -> Vec<FieldError> {
        let unused = [
            ("token_url", !setup.config.token_url.is_empty()),
            ("scopes", !setup.config.scopes.is_empty()),
        ];
        let unused = unused.into_iter().filter(|(_, given)| *given);
        let problem = "is of no use: values of this strategy are pushed";
        unused
            .map(|(field, _)| FieldError::new(field, problem))
            .collect()
    }

    /// The state machine grants no ticket for it; a dry run asks all the same.
    fn is_revocable(&self) -> bool {
        false
    }

    async fn refresh(&self, _: &Setup<'_>, _: &Arc<dyn Fence>) -> Result<Minted, Failure> {
        Err(Failure {
            class: FailureClass::ConfigRefused,
            cause: "values of this strategy are pushed; there is nothing to mint".to_owned(),
            remedy: REMEDY.to_owned(),
            retry_after_ms: None,
        })
    }
}
