//! `evermint sandbox token` and `evermint sandbox revoke`.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
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
        replace(&path, token.take().as_bytes())
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

/// Puts `bytes` in place of the file at `path`.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension(format!("new-{}", std::process::id()));
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside)?;
    let written = file
        .write_all(bytes)
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        // The reason why it could not be written is the one that counts.
        let _ = fs::remove_file(&beside);
    }
    written
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_token_file_is_replaced_as_a_whole_and_is_its_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        for text in ["the first one", "2nd"] {
            replace(&path, text.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(replace(&dir.path().join("nowhere/token"), b"x").is_err());
    }
}
