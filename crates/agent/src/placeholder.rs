//! Placeholders in requests to bound endpoints.

use evermint_client::Client;
use http::Request;

use crate::answer::Refusal;
use crate::proxy::Endpoint;

/// Whether a credential is bound to the endpoint.
pub(crate) fn is_bound(_client: &Client, _endpoint: &Endpoint) -> bool {
    false
}

/// Resolves.
pub(crate) fn resolve(
    _client: &Client,
    _endpoint: &Endpoint,
    _request: &mut Request<()>,
) -> Result<bool, Refusal> {
    Ok(false)
}
