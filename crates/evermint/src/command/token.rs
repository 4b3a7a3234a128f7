//! `evermint sandbox token` and `evermint sandbox revoke`.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use evermint_client::TokenFile;
use evermint_core::secret::Secret;
use evermint_proto::v1;
use evermint_proto::v1::sandbox_tokens_client::SandboxTokensClient;

use crate::cli::Client;
use crate::duration::Time;
use crate::view::token::{Revocation, Token};

/// Arguments of `sandbox token`.
#[derive(Args, Debug)]
pub struct IssueArgs {
    /// The sandbox's name.
    sandbox: String,
    /// For how long; at most a day. A sandbox renews its token itself while it is good.
    #[arg(long, value_name = "TIME", default_value = "1h")]
    lifetime: Time,
    /// Write the token to this file, readable by its owner alone, instead of standard output. A
    /// file that is there is replaced at once, as a whole.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Arguments of `sandbox revoke`.
#[derive(Args, Debug)]
pub struct RevokeArgs {
    /// The sandbox's name.
    sandbox: String,
}

pub(super) async fn issue(args: IssueArgs, client: &Client) -> Result<()> {
    let request = v1::IssueSandboxTokenRequest {
        workspace: client.workspace.clone(),
        sandbox: args.sandbox,
        lifetime_secs: args.lifetime.as_millis().div_ceil(1_000),
    };
    let answer = client
        .gateways
        .write(async |wire| {
            SandboxTokensClient::new(wire)
                .issue_sandbox_token(request.clone())
                .await
        })
        .await?;
    let mut token = Token::new(request.sandbox, answer);
    if let Some(path) = args.out {
        TokenFile::new(&path)
            .replace(&Secret::from(token.take()))
            .with_context(|| format!("cannot write {}", path.display()))?;
        token.file = Some(path);
    }
    client.out.show(&token)
}

pub(super) async fn revoke(args: RevokeArgs, client: &Client) -> Result<()> {
    let request = v1::RevokeSandboxTokensRequest {
        workspace: client.workspace.clone(),
        sandbox: args.sandbox,
    };
    let answer = client
        .gateways
        .write(async |wire| {
            SandboxTokensClient::new(wire)
                .revoke_sandbox_tokens(request.clone())
                .await
        })
        .await?;
    client.out.show(&Revocation {
        sandbox: request.sandbox,
        position: answer.position,
    })
}
