//! `evermint audit`

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use clap::{Subcommand, ValueEnum};
use evermint_proto::v1;
use evermint_proto::v1::audit_client::AuditClient;

use crate::chain::{Chain, Line};
use crate::cli::Client;
use crate::exit::advised;
use crate::out;
use crate::view::audit::{Record, Trail, Verified};

/// Pauses between looks for new records.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Records asked for at once.
const PAGE: u32 = 1000;

/// The longest line of an exported trail that is read, in bytes.
const LINE_MAX: u64 = 64 * 1024;

const EXAMPLES: &str = "\
Examples:
  evermint audit --limit 20
      The newest 20 records.
  evermint audit --provider vertex --credential-key VERTEX_AI_TOKEN
  evermint audit --since 1200 -o json
      What came after position 1200, oldest first.
  evermint audit --kind refused --follow
      Refused calls, as they come.
  evermint audit export --out audit.jsonl
  evermint audit verify audit.jsonl
      Without a cluster: whether the file is as it was written.";

/// Arguments of `audit`.
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    list: ListArgs,
}

/// What else can be done with the trail.
#[derive(Debug, Subcommand)]
enum Command {
    /// Check that no record was changed, taken out or put in: in the cluster, or in files that
    /// `export` wrote.
    Verify(VerifyArgs),
    /// Write the whole trail, a JSON object a line.
    Export(ExportArgs),
}

#[derive(clap::Args, Debug)]
struct ListArgs {
    /// Only records about this provider.
    #[arg(long, value_name = "NAME")]
    provider: Option<String>,
    /// Only records about this credential of the provider.
    #[arg(long, value_name = "KEY", requires = "provider")]
    credential_key: Option<String>,
    /// Only events of this kind.
    #[arg(long, value_enum)]
    kind: Option<Kind>,
    /// Only what was asked for by callers whose name begins so: admin-token, sandbox:ID.
    #[arg(long, value_name = "NAME")]
    who: Option<String>,
    /// The records after this position, oldest first; the newest ones if not given.
    #[arg(long, value_name = "POSITION")]
    since: Option<u64>,
    /// At most so many, up to 1000.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Go on with new ones as they come.
    #[arg(long, short)]
    follow: bool,
}

#[derive(clap::Args, Debug)]
struct VerifyArgs {
    /// Files to check, each one going on where the one before it ends; the cluster's trail if none
    /// is given.
    files: Vec<PathBuf>,
}

#[derive(clap::Args, Debug)]
struct ExportArgs {
    /// File to write, which must not be there; standard output if not given.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Only records after the one with this number: the last one of an earlier export.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    after: u64,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    /// Mints that came to their end.
    Mint,
    /// Changes of the configuration and of the members.
    Change,
    /// Revocations at issuers that came to their end.
    Revocation,
    /// Calls that were refused.
    Refused,
}

impl Args {
    /// Whether it needs no cluster.
    pub fn is_offline(&self) -> bool {
        matches!(&self.command, Some(Command::Verify(args)) if !args.files.is_empty())
    }

    /// Does what needs no cluster.
    ///
    /// # Errors
    /// What is wrong with the files.
    pub fn run_offline(self, out: out::Out) -> Result<()> {
        let Some(Command::Verify(args)) = self.command else {
            return Ok(());
        };
        let mut chain = Chain::default();
        for file in &args.files {
            read(file, &mut chain).with_context(|| file.display().to_string())?;
        }
        out.show(&Verified(chain))
    }

    /// Does it.
    ///
    /// # Errors
    /// What the gateway refused, or where the chain is broken.
    pub async fn run(self, client: &Client) -> Result<()> {
        match self.command {
            None => self.list.run(client).await,
            Some(Command::Export(args)) => export(args, client).await,
            Some(Command::Verify(_)) => verify(client).await,
        }
    }
}

impl ListArgs {
    async fn run(self, client: &Client) -> Result<()> {
        let kind = self.kind.map(|kind| match kind {
            Kind::Mint => "mint",
            Kind::Change => "change",
            Kind::Revocation => "revocation",
            Kind::Refused => "refused",
        });
        let mut request = v1::ListAuditRequest {
            provider: self.provider.unwrap_or_default(),
            workspace: client.workspace.clone(),
            credential_key: self.credential_key.unwrap_or_default(),
            since_position: self.since.unwrap_or(0),
            limit: self.limit,
            newest: self.since.is_none(),
            kind: kind.unwrap_or_default().to_owned(),
            who: self.who.unwrap_or_default(),
            since_number: 0,
        };
        let answer = list(client, &request).await?;
        if !self.follow {
            return client.out.show(&Trail::new(answer, request.newest));
        }
        let mut records = answer.records;
        request.newest = false;
        loop {
            for record in records {
                request.since_number = record.number;
                client.out.show_next(&Record::from(record))?;
            }
            tokio::time::sleep(LOOK_EVERY).await;
            records = list(client, &request).await?.records;
        }
    }
}

async fn list(client: &Client, request: &v1::ListAuditRequest) -> Result<v1::ListAuditResponse> {
    client
        .gateways
        .read(async |wire| AuditClient::new(wire).list_audit(request.clone()).await)
        .await
}

/// Every record after the one with number `after`, page by page, and the end of the chain.
async fn all(
    client: &Client,
    after: u64,
    mut take: impl FnMut(Line) -> Result<()>,
) -> Result<v1::ListAuditResponse> {
    let mut request = v1::ListAuditRequest {
        limit: PAGE,
        since_number: after,
        ..Default::default()
    };
    loop {
        let mut answer = list(client, &request).await?;
        for record in std::mem::take(&mut answer.records) {
            request.since_number = record.number;
            take(Line::from(record))?;
        }
        if !answer.more {
            return Ok(answer);
        }
    }
}

async fn verify(client: &Client) -> Result<()> {
    let mut chain = Chain::default();
    let end = all(client, 0, |line| chain.add(&line).map_err(broken)).await?;
    let head = end.head.unwrap_or_default();
    // Another replica may have answered the last page, which is behind or ahead.
    let same = chain.last == head.number && chain.head == hex::encode(&head.digest);
    if chain.last >= head.number && !same {
        return Err(broken(format!(
            "the trail does not end at record {}",
            head.number
        )));
    }
    client.out.show(&Verified(chain))
}

fn broken(problem: String) -> anyhow::Error {
    advised(
        format!("the audit trail is not as it was written: {problem}"),
        "an earlier export, and the trails of the other replicas (--gateway), show what was there",
    )
}

async fn export(args: ExportArgs, client: &Client) -> Result<()> {
    let Some(path) = &args.out else {
        let write = |line: Line| out::write(&format!("{}\n", serde_json::to_string(&line)?));
        return all(client, args.after, write).await.map(drop);
    };
    let cannot = || format!("cannot write {}", path.display());
    let mut file = BufWriter::new(File::create_new(path).with_context(cannot)?);
    let write = |line: Line| {
        serde_json::to_writer(&mut file, &line)?;
        file.write_all(b"\n").with_context(cannot)
    };
    all(client, args.after, write).await?;
    let file = file
        .into_inner()
        .map_err(|e| anyhow!("{}: {e}", cannot()))?;
    file.sync_all().with_context(cannot)
}

fn read(path: &Path, chain: &mut Chain) -> Result<()> {
    let mut file = BufReader::new(File::open(path)?);
    for number in 1_u64.. {
        let mut text = Vec::new();
        let mut line = std::io::Read::take(&mut file, LINE_MAX);
        if line.read_until(b'\n', &mut text)? == 0 {
            break;
        }
        let line: Line = serde_json::from_slice(&text)
            .map_err(|error| broken(format!("line {number} is no record: {error}")))?;
        chain
            .add(&line)
            .map_err(|problem| broken(format!("line {number}: {problem}")))?;
    }
    Ok(())
}
