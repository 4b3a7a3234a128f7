//! `evermint audit`

use anyhow::Result;
use evermint_proto::v1;
use evermint_proto::v1::audit_client::AuditClient;

use crate::cli::Client;
use crate::view::audit::Trail;

const EXAMPLES: &str = "\
Examples:
  evermint audit --limit 20
      The newest 20 records.
  evermint audit --provider vertex --credential-key VERTEX_AI_TOKEN
  evermint audit --since 1200 -o json
      What came after position 1200, oldest first.";

/// Arguments of `audit`.
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Only records about this provider.
    #[arg(long, value_name = "NAME")]
    provider: Option<String>,
    /// Only records about this credential of the provider.
    #[arg(long, value_name = "KEY", requires = "provider")]
    credential_key: Option<String>,
    /// The records after this position, oldest first; the newest ones if not given.
    #[arg(long, value_name = "POSITION")]
    since: Option<u64>,
    /// At most so many, up to 1000.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
}

impl Args {
    /// Does it.
    ///
    /// # Errors
    /// What the gateway refused.
    pub async fn run(self, client: &Client) -> Result<()> {
        let request = v1::ListAuditRequest {
            provider: self.provider.unwrap_or_default(),
            workspace: client.workspace.clone(),
            credential_key: self.credential_key.unwrap_or_default(),
            since_position: self.since.unwrap_or(0),
            limit: self.limit,
            newest: self.since.is_none(),
        };
        let answer = client
            .gateways
            .read(async |wire| AuditClient::new(wire).list_audit(request.clone()).await)
            .await?;
        client.out.show(&Trail::new(answer, request.newest))
    }
}
