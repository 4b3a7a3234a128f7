//! `evermint provider refresh …`

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use clap::{Args, Subcommand};
use evermint_core::strategy::Strategy;
use evermint_core::time::millis;
use evermint_minter::refresher;
use evermint_proto::v1;
use evermint_proto::v1::refreshes_client::RefreshesClient;
use evermint_proto::v1::replay_policy::Kind;

use super::erasure::ErasureArgs;
use super::provider;
use super::revocation::{self, RevokeArgs};
use super::settle::{End as Ending, Wish, settle};
use crate::cli::Client;
use crate::discover::{self, Grant, Here};
use crate::duration::Time;
use crate::exit::{advised, usage};
use crate::out::{At, note};
use crate::page::Style;
use crate::value::{End, Given, Moment, Reader, unique};
use crate::view::refresh::{Many, One, Refresh};
use crate::view::{Deletion, Deletions};

/// Examples of `provider refresh configure`.
pub const CONFIGURE_EXAMPLES: &str = "\
Examples:
  evermint provider refresh configure graph --credential-key MS_GRAPH_ACCESS_TOKEN \\
      --strategy oauth2-refresh-token --material tenant_id=contoso.example \\
      --material client_id=0oa1 --secret-material refresh_token=@refresh-token.txt
  evermint provider refresh configure crm --credential-key CRM_TOKEN \\
      --strategy oauth2-client-credentials --token-url https://idp.example/oauth2/token \\
      --scope crm.read --material client_id=0oa2 --secret-material client_secret=env:CRM_SECRET
  evermint provider refresh configure vertex --credential-key VERTEX_AI_TOKEN \\
      --from-service-account key.json
  evermint provider refresh configure vertex --credential-key VERTEX_AI_TOKEN --from-gcloud-adc
  evermint provider refresh configure aws --credential-key AWS_ACCESS_KEY_ID \\
      --strategy aws-sts-assume-role --material role_arn=arn:aws:iam::123456789012:role/agent \\
      --material region=eu-central-1 --material access_key_id=AKIA1 \\
      --secret-material secret_access_key=- --mint-output secret_access_key=AWS_SECRET_ACCESS_KEY \\
      --mint-output session_token=AWS_SESSION_TOKEN";

/// `evermint provider refresh …`
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Put a credential under a refresh, or replace the configuration that it has.
    #[command(visible_alias = "config", after_help = CONFIGURE_EXAMPLES)]
    Configure(Box<ConfigureArgs>),
    /// Say how refreshes stand: verdict, generation, expiry, next mint, owner.
    Status(StatusArgs),
    /// Mint now.
    Rotate(RotateArgs),
    /// Destroy a refresh's material; the value is served until its end.
    #[command(visible_alias = "rm")]
    Delete(DeleteArgs),
    /// Say what became of revocations at issuers (`--revoke`).
    Revocations(revocation::ListArgs),
}

/// Arguments of `provider refresh configure`.
#[derive(Args, Debug)]
pub struct ConfigureArgs {
    /// The provider's name.
    provider: String,
    /// The credential: the environment variable that sandboxes use.
    #[arg(long, value_name = "KEY")]
    credential_key: String,
    /// How it is minted: one of the strategies of the provider's profile, such as
    /// oauth2-refresh-token (see `provider profile list`); its usual one if not given.
    #[arg(long, value_name = "STRATEGY")]
    strategy: Option<String>,
    #[command(flatten)]
    found: FoundArgs,
    /// The issuer's token endpoint, where the profile leaves it to you, as generic-oauth2 does.
    #[arg(
        long,
        value_name = "URL",
        default_value = "",
        hide_default_value = true
    )]
    token_url: String,
    /// The issuer's revocation endpoint (RFC 7009), for --revoke, where the profile knows none.
    #[arg(
        long,
        value_name = "URL",
        default_value = "",
        hide_default_value = true
    )]
    revoke_url: String,
    /// A scope to ask for (repeatable); those of the profile if none is given.
    #[arg(long, value_name = "SCOPE")]
    scope: Vec<String>,
    /// Material, such as client_id=… (repeatable): KEY=VALUE, or a source as for
    /// --secret-material. What the strategy knows to be secret is kept so wherever it is given.
    #[arg(long, value_name = "KEY=VALUE")]
    material: Vec<Given>,
    /// Secret material (repeatable): KEY=@FILE, KEY=- (standard input, once), KEY=env:NAME, or KEY
    /// alone for the variable of that name. A line break at the end is left out. KEY=VALUE works
    /// too, but stays in the shell's history, and `ps` shows it.
    #[arg(long, value_name = "KEY=SOURCE")]
    secret_material: Vec<Given>,
    /// Secret material from the environment (repeatable); the variable is named like the key
    /// unless said otherwise.
    #[arg(long, value_name = "KEY[=VARIABLE]")]
    secret_material_env: Vec<String>,
    /// Treat this --material as secret (repeatable).
    #[arg(long, value_name = "KEY")]
    secret_material_key: Vec<String>,
    /// A further output of each mint, and the environment variable that sandboxes know it by
    /// (repeatable): secret_access_key=AWS_SECRET_ACCESS_KEY.
    #[arg(long, value_name = "OUTPUT=KEY")]
    mint_output: Vec<Given>,
    /// The end of a piece of material, such as a client secret (repeatable); status announces it in
    /// time: client_secret=2027-01-31T00:00:00Z.
    #[arg(long, value_name = "KEY=TIME")]
    material_expires_at: Vec<End>,
    /// The end of the value that is served now, if it is known: 2026-07-16T00:00:00Z,
    /// milliseconds, or +1h.
    #[arg(long, value_name = "TIME")]
    credential_expires_at: Option<Moment>,
    /// What the issuer does with a refresh token that was used once: `strict` (a second use may
    /// revoke the grant), `safe` (it keeps working), or `grace=30s` (it works that long). As the
    /// profile says if not given.
    #[arg(long, value_name = "POLICY")]
    replay_policy: Option<Replay>,
    /// How long before its end a token is replaced; computed from its lifetime if not given.
    #[arg(long, value_name = "TIME")]
    refresh_before: Option<Time>,
    /// How long a token is kept at least, for issuers that refuse early refreshes.
    #[arg(long, value_name = "TIME")]
    not_before: Option<Time>,
    /// Trust no token for longer.
    #[arg(long, value_name = "TIME")]
    max_lifetime: Option<Time>,
    /// Wait for the first mint; the exit code says how it ended, as for `rotate`.
    #[arg(
        long,
        value_name = "TIME",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "60s"
    )]
    wait: Option<Time>,
}

/// What lies on this machine already.
#[derive(Args, Debug)]
#[group(id = "found", multiple = false)]
struct FoundArgs {
    /// Mint by gcloud's application default credentials; gives strategy and material.
    #[arg(long, conflicts_with = "strategy")]
    from_gcloud_adc: bool,
    /// Mint by the key file of a Google service account; gives strategy and material.
    #[arg(long, value_name = "FILE", conflicts_with = "strategy")]
    from_service_account: Option<PathBuf>,
}

impl FoundArgs {
    fn find(&self) -> Result<Option<Grant>> {
        match &self.from_service_account {
            Some(path) => discover::service_account(&Here, path).map(Some),
            None if self.from_gcloud_adc => discover::gcloud_adc(&Here).map(Some),
            None => Ok(None),
        }
    }
}

/// Arguments of `provider refresh status`.
#[derive(Args, Debug)]
pub struct StatusArgs {
    /// The provider's name; all of the workspace if not given.
    provider: Option<String>,
    /// One credential; all if not given.
    #[arg(long, value_name = "KEY", requires = "provider")]
    credential_key: Option<String>,
    /// Ask the leader first, so that the answer is the newest there is.
    #[arg(long)]
    consistent: bool,
    /// Show it again and again, until interrupted.
    #[arg(
        long,
        value_name = "EVERY",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "2s"
    )]
    watch: Option<Time>,
}

/// Arguments of `provider refresh rotate`.
#[derive(Args, Debug)]
pub struct RotateArgs {
    /// The provider's name.
    provider: String,
    /// The credential; may be left out if the provider has one refresh only.
    #[arg(long, value_name = "KEY")]
    credential_key: Option<String>,
    /// Wait for the outcome, at most so long. The exit code is 0 if a value was minted, 1 if the
    /// mint failed, and 3 if there was no outcome in time or it is in doubt.
    #[arg(
        long,
        value_name = "TIME",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "60s"
    )]
    wait: Option<Time>,
    /// Have the issuer revoke the value that is served now (RFC 7009), so long after the new one
    /// came (5m unless said): sandboxes change over meanwhile.
    #[arg(
        long,
        value_name = "AFTER",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "5m"
    )]
    revoke: Option<Time>,
}

/// Arguments of `provider refresh delete`.
#[derive(Args, Debug)]
pub struct DeleteArgs {
    /// The provider's name.
    provider: String,
    /// The credential.
    #[arg(long, value_name = "KEY")]
    credential_key: String,
    #[command(flatten)]
    revoke: RevokeArgs,
    #[command(flatten)]
    erasure: ErasureArgs,
}

/// A replay policy as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replay {
    kind: Kind,
    grace_ms: u64,
}

impl FromStr for Replay {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (kind, grace_ms) = match text.split_once(['=', ':']) {
            None if text == "strict" => (Kind::Strict, 0),
            None if text == "safe" => (Kind::Safe, 0),
            Some(("grace", time)) => {
                let time: Time = time.parse()?;
                (Kind::Grace, time.as_millis())
            }
            None | Some(_) => return Err(anyhow!("expected strict, safe or grace=30s")),
        };
        Ok(Self { kind, grace_ms })
    }
}

impl Command {
    /// Does it.
    ///
    /// # Errors
    /// What the gateway refused.
    pub async fn run(self, client: &Client) -> Result<ExitCode> {
        match self {
            Self::Configure(args) => return configure(*args, client).await,
            Self::Status(args) => status(args, client).await?,
            Self::Rotate(args) => return rotate(args, client).await,
            Self::Delete(args) => return delete(args, client).await,
            Self::Revocations(args) => revocation::show(args, client).await?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Public and secret material of a configuration.
type Material = (BTreeMap<String, String>, BTreeMap<String, String>);

impl ConfigureArgs {
    fn material(&self, strategy: &str) -> Result<Material> {
        let mut reader = Reader::default();
        let is_secret = |key: &str| {
            let marked = self.secret_material_key.iter().any(|marked| marked == key);
            marked || knows_as_secret(strategy, key)
        };
        reader.note_exposed(&self.material, is_secret);
        let mut public = reader.plain(&self.material)?;
        let mut secrets = self.secret_material.clone();
        for given in &self.secret_material_env {
            let (key, variable) = given.split_once('=').unwrap_or((given, given));
            secrets.push(Given::from_env(key, variable));
        }
        let mut secret = reader.secret(&secrets)?;
        for key in &self.secret_material_key {
            if secret.contains_key(key) {
                continue;
            }
            let value = public.remove(key).ok_or_else(|| {
                usage(format!(
                    "--secret-material-key {key}: there is no --material of that name"
                ))
            })?;
            secret.insert(key.clone(), value);
        }
        if let Some(key) = secret.keys().find(|key| public.contains_key(*key)) {
            return Err(usage(format!("{key} is given as public and as secret")));
        }
        reader.warn();
        Ok((public, secret))
    }

    fn request(self, workspace: &str) -> Result<v1::ConfigureRefreshRequest> {
        let outputs = Reader::default().plain(&self.mint_output)?;
        let found = self.found.find()?;
        let strategy = match &found {
            Some(grant) => grant.strategy.to_string(),
            None => self.strategy.clone().unwrap_or_default(),
        };
        let (material, mut secret_material) = self.material(&strategy)?;
        let ends = self.material_expires_at.into_iter();
        let ends = ends
            .filter(|end| end.at_ms > 0)
            .map(|end| (end.key, end.at_ms));
        let ends = unique(ends)?;
        let mut scopes = self.scope;
        if let Some(grant) = found {
            note(&format!("found {}", grant.origin));
            grant.secret.into_iter().for_each(|(key, value)| {
                secret_material.entry(key).or_insert(value);
            });
            if scopes.is_empty() && !material.contains_key("target_audience") {
                scopes = grant.scopes;
            }
        }
        Ok(v1::ConfigureRefreshRequest {
            workspace: workspace.to_owned(),
            provider: self.provider,
            credential_key: self.credential_key,
            strategy,
            token_url: self.token_url,
            revoke_url: self.revoke_url,
            scopes,
            outputs,
            material_expires_at_ms: ends,
            material,
            secret_material,
            replay: self.replay_policy.map(|policy| v1::ReplayPolicy {
                kind: policy.kind.into(),
                grace_ms: policy.grace_ms,
            }),
            refresh_before_ms: self.refresh_before.map(Time::as_millis),
            not_before_ms: self.not_before.map(Time::as_millis),
            max_lifetime_ms: self.max_lifetime.map(Time::as_millis),
            expires_at_ms: self.credential_expires_at.map(Moment::as_millis),
        })
    }
}

/// Whether the strategy of that name counts this material as secret.
fn knows_as_secret(strategy: &str, material: &str) -> bool {
    let strategy = strategy.parse::<Strategy>();
    strategy.is_ok_and(|strategy| {
        let mut fields = refresher(strategy).schema().fields();
        fields.any(|field| field.secret && field.name == material)
    })
}

/// What a gateway's answer lacks if it is broken.
const EMPTY: &str = "the gateway's answer holds no status";

/// `provider refresh configure`
///
/// # Errors
/// What the gateway refused.
pub async fn configure(args: ConfigureArgs, client: &Client) -> Result<ExitCode> {
    let wait = args.wait;
    configure_with(args.request(&client.workspace)?, wait, client).await
}

/// Puts a credential under a refresh by what was found on this machine.
///
/// # Errors
/// What the gateway refused.
pub(super) async fn configure_found(
    provider: &str,
    key: &str,
    grant: Grant,
    scopes: Vec<String>,
    client: &Client,
) -> Result<ExitCode> {
    let request = v1::ConfigureRefreshRequest {
        workspace: client.workspace.clone(),
        provider: provider.to_owned(),
        credential_key: key.to_owned(),
        strategy: grant.strategy.to_string(),
        scopes: if scopes.is_empty() {
            grant.scopes
        } else {
            scopes
        },
        secret_material: grant.secret,
        ..Default::default()
    };
    configure_with(request, None, client).await
}

async fn configure_with(
    request: v1::ConfigureRefreshRequest,
    wait: Option<Time>,
    client: &Client,
) -> Result<ExitCode> {
    let answer = client
        .gateways
        .write(async |wire| {
            RefreshesClient::new(wire)
                .configure_refresh(request.clone())
                .await
        })
        .await?;
    let (provider, key) = (&request.provider, &request.credential_key);
    let status = answer.status.context(EMPTY)?;
    // Whoever says when the value ends vouches for it: nothing is minted before.
    let is_vouched = status.wanted() == v1::Reason::Due;
    let done = match is_vouched {
        true => format!("refresh of {provider}/{key} configured"),
        false => format!("refresh of {provider}/{key} configured; its first mint is due"),
    };
    let Some(wait) = wait.filter(|_| !is_vouched) else {
        client.out.show(&One {
            done,
            outcome: None,
            revocations: Vec::new(),
            refresh: Refresh::new(provider, status),
            position: answer.position,
        })?;
        return Ok(ExitCode::SUCCESS);
    };
    await_mint(client, provider, key, status, answer.position, wait, false).await
}

/// Waits for the mint that was asked for at `position`, and tells what became of it.
async fn await_mint(
    client: &Client,
    provider: &str,
    key: &str,
    status: v1::RefreshStatus,
    position: u64,
    wait: Time,
    revoke: bool,
) -> Result<ExitCode> {
    let started = Instant::now();
    let wish = Wish {
        provider,
        key,
        epoch: status.authorization_epoch,
        position,
    };
    let (end, newest) = settle(client, &wish, wait).await?;
    let what = format!("{provider}/{key}");
    let revocations = match revoke && end == Ending::Minted {
        true => {
            let left = wait.get().saturating_sub(started.elapsed());
            revocation::ended(position, Some(Time::millis(millis(left))), client).await?
        }
        false => Vec::new(),
    };
    client.out.show(&One {
        done: end.told(&what, wait),
        outcome: Some(end.as_str().to_owned()),
        revocations,
        refresh: Refresh::new(provider, newest.unwrap_or(status)),
        position,
    })?;
    Ok(end.code())
}

pub(super) async fn statuses(
    client: &Client,
    provider: &str,
    key: &str,
    consistent: bool,
) -> Result<v1::GetRefreshStatusResponse> {
    let request = v1::GetRefreshStatusRequest {
        workspace: client.workspace.clone(),
        provider: provider.to_owned(),
        credential_key: key.to_owned(),
        consistent,
    };
    client
        .gateways
        .read(async |wire| {
            RefreshesClient::new(wire)
                .get_refresh_status(request.clone())
                .await
        })
        .await
}

async fn gather(args: &StatusArgs, client: &Client) -> Result<Many> {
    let names: Vec<String> = match &args.provider {
        Some(name) => vec![name.clone()],
        None => {
            let providers = provider::all(client, false).await?;
            providers.into_iter().map(|p| p.name).collect()
        }
    };
    let key = args.credential_key.as_deref().unwrap_or_default();
    let mut many = Many {
        refreshes: Vec::new(),
        server_time: At(crate::page::wall_ms()),
        staleness_ms: None,
    };
    for name in names {
        let answer = statuses(client, &name, key, args.consistent).await?;
        many.server_time = At(answer.server_time_ms);
        many.staleness_ms = answer.staleness_ms;
        let refreshes = answer.refreshes.into_iter();
        many.refreshes
            .extend(refreshes.map(|status| Refresh::new(&name, status)));
    }
    Ok(many)
}

/// `provider refresh status`
///
/// # Errors
/// What the gateway refused.
pub async fn status(args: StatusArgs, client: &Client) -> Result<()> {
    let Some(every) = args.watch else {
        return client.out.show(&gather(&args, client).await?);
    };
    let every = every.get().max(Duration::from_millis(100));
    loop {
        let many = gather(&args, client).await?;
        if Style::of_stdout().width.is_some() && !client.out.is_for_programs() {
            // Home, and clear what was there.
            crate::out::write("\x1b[H\x1b[2J")?;
        }
        client.out.show_next(&many)?;
        tokio::time::sleep(every).await;
    }
}

/// The only refresh of a provider.
async fn sole_key(client: &Client, provider: &str) -> Result<String> {
    let refreshes = statuses(client, provider, "", false).await?.refreshes;
    let keys: Vec<&str> = refreshes
        .iter()
        .map(|r| r.credential_key.as_str())
        .collect();
    match keys.as_slice() {
        [key] => Ok((*key).to_owned()),
        [] => Err(advised(
            format!("provider {provider} has no refresh"),
            "`evermint provider refresh configure` puts a credential under one",
        )),
        keys => Err(usage(format!(
            "provider {provider} has several refreshes: give --credential-key, one of {}",
            keys.join(", ")
        ))),
    }
}

/// `provider refresh rotate`
///
/// # Errors
/// What the gateway refused. A mint that failed is no error here, but the exit code tells it.
pub async fn rotate(args: RotateArgs, client: &Client) -> Result<ExitCode> {
    let credential_key = match args.credential_key {
        Some(key) => key,
        None => sole_key(client, &args.provider).await?,
    };
    let request = v1::RotateCredentialRequest {
        workspace: client.workspace.clone(),
        provider: args.provider,
        credential_key,
        wait_ms: 0,
        revoke_after_ms: args.revoke.map(Time::as_millis),
    };
    let answer = client
        .gateways
        .write(async |wire| {
            RefreshesClient::new(wire)
                .rotate_credential(request.clone())
                .await
        })
        .await?;
    let (provider, key) = (&request.provider, &request.credential_key);
    let status = answer.status.context(EMPTY)?;
    if let Some(wait) = args.wait {
        let revoke = args.revoke.is_some();
        return await_mint(client, provider, key, status, answer.position, wait, revoke).await;
    }
    client.out.show(&One {
        done: format!("{provider}/{key} is due now"),
        outcome: Some("due".to_owned()),
        revocations: Vec::new(),
        refresh: Refresh::new(provider, status),
        position: answer.position,
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn delete(args: DeleteArgs, client: &Client) -> Result<ExitCode> {
    let request = v1::DeleteRefreshRequest {
        workspace: client.workspace.clone(),
        provider: args.provider,
        credential_key: args.credential_key,
        revoke: args.revoke.revoke,
    };
    let answer = client
        .gateways
        .write(async |wire| {
            RefreshesClient::new(wire)
                .delete_refresh(request.clone())
                .await
        })
        .await?;
    let done = Deletions {
        kind: "refresh of",
        deletions: vec![Deletion {
            name: format!("{}/{}", request.provider, request.credential_key),
            deleted: answer.deleted,
            position: answer.position,
            revocations: match answer.deleted {
                true => args.revoke.outcome(answer.position, client).await?,
                false => Vec::new(),
            },
        }],
    };
    client.out.show(&done)?;
    args.erasure.wait(&done, client).await?;
    Ok(args.revoke.code(&done.deletions[0].revocations))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: ConfigureArgs,
    }

    fn request(line: &[&str]) -> Result<v1::ConfigureRefreshRequest> {
        let fixed = ["x", "idp", "--credential-key", "TOKEN"];
        let strategy = ["--strategy", "oauth2-refresh-token"];
        let strategy = strategy.iter().filter(|_| !line.contains(&"--strategy"));
        let line = Line::try_parse_from(fixed.iter().chain(strategy).chain(line))?;
        line.args.request("default")
    }

    #[test]
    fn replay_policies_are_read() {
        for (text, kind, grace_ms) in [
            ("strict", Kind::Strict, 0),
            ("safe", Kind::Safe, 0),
            ("grace=30s", Kind::Grace, 30_000),
            ("grace:1m", Kind::Grace, 60_000),
        ] {
            assert_eq!(text.parse::<Replay>().unwrap(), Replay { kind, grace_ms });
        }
        for text in ["grace", "grace=", "lax", "strict=1s"] {
            assert!(text.parse::<Replay>().is_err(), "{text}");
        }
    }

    #[test]
    fn secrets_may_be_marked_in_either_way() {
        let a = request(&[
            "--material",
            "client_id=a",
            "--secret-material",
            "client_secret=b",
        ]);
        let b = request(&[
            "--material",
            "client_id=a",
            "--material",
            "client_secret=b",
            "--secret-material-key",
            "client_secret",
        ]);
        assert_eq!(a.unwrap(), b.unwrap());
        let c = request(&["--secret-material-env", "who=CARGO_PKG_NAME"]).unwrap();
        assert_eq!(c.secret_material["who"], "evermint");
    }

    #[test]
    fn contradictions_are_named() {
        for (line, named) in [
            (&["--secret-material-key", "x"][..], "no --material"),
            (
                &["--material", "x=1", "--secret-material", "x=2"],
                "as public and as secret",
            ),
            (&["--material", "x=1", "--material", "x=2"], "twice"),
            (&["--refresh-before", "5"], "1h30m"),
        ] {
            let error = format!("{:#}", request(line).unwrap_err());
            assert!(error.contains(named), "{error}");
        }
    }
}
