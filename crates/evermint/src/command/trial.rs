//! `evermint provider test`

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use evermint_proto::v1;
use evermint_proto::v1::providers_client::ProvidersClient;
use evermint_proto::v1::refreshes_client::RefreshesClient;

use crate::cli::Client;
use crate::duration::Time;
use crate::exit::advised;
use crate::view::trial::{Many, Trial};

/// Examples of `provider test`.
pub const EXAMPLES: &str = "\
Examples:
  evermint provider test vertex
  evermint provider test vertex --credential-key VERTEX_AI_TOKEN -o json

Opens the material on a replica, asks the token endpoint for a sign of life and, for strategies that
consume nothing, mints once and throws the token away. A refresh token is never sent: it may be for
single use. Changes nothing. The exit code is 1 if a step failed.";

/// Arguments of `provider test`.
#[derive(Args, Debug)]
pub struct TestArgs {
    /// The provider's name.
    provider: String,
    /// One credential; all if not given.
    #[arg(long, value_name = "KEY")]
    credential_key: Option<String>,
    /// Time for each credential, at most 60s.
    #[arg(long, value_name = "TIME", default_value = "20s")]
    timeout: Time,
}

/// `provider test`
///
/// # Errors
/// What the gateway refused. A step that failed is no error here, but the exit code tells it.
pub async fn test(args: TestArgs, client: &Client) -> Result<ExitCode> {
    let keys = match args.credential_key {
        Some(key) => vec![key],
        None => keys(client, &args.provider).await?,
    };
    let mut many = Many {
        credentials: Vec::new(),
    };
    for credential_key in keys {
        let request = v1::TestCredentialRequest {
            workspace: client.workspace.clone(),
            provider: args.provider.clone(),
            credential_key,
            timeout_ms: args.timeout.as_millis(),
        };
        // Nothing is changed: any other gateway may be asked when one cannot.
        let answer = client
            .gateways
            .read(async |wire| {
                RefreshesClient::new(wire)
                    .test_credential(request.clone())
                    .await
            })
            .await?;
        let trial = Trial::new(&args.provider, &request.credential_key, answer);
        many.credentials.push(trial);
    }
    client.out.show(&many)?;
    let failed = many.credentials.iter().any(Trial::has_failed);
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// The keys of a provider's credentials.
async fn keys(client: &Client, provider: &str) -> Result<Vec<String>> {
    let request = v1::GetProviderRequest {
        workspace: client.workspace.clone(),
        name: provider.to_owned(),
        consistent: false,
    };
    let answer = client
        .gateways
        .read(async |wire| {
            ProvidersClient::new(wire)
                .get_provider(request.clone())
                .await
        })
        .await?;
    let credentials = answer.provider.unwrap_or_default().credentials;
    if credentials.is_empty() {
        return Err(advised(
            format!("provider {provider} has no credential"),
            "`evermint provider refresh configure` adds one that is minted, `evermint provider update --credential` a static one",
        ));
    }
    Ok(credentials.into_iter().map(|c| c.key).collect())
}
