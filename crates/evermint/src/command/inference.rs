//! `evermint inference …`

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use evermint_proto::v1;
use evermint_proto::v1::inference_client::InferenceClient;

use super::{PAGE, all_pages};
use crate::cli::Client;
use crate::duration::Time;
use crate::view::route::{Many, One};
use crate::view::{Deletion, Deletions};

const SET_EXAMPLES: &str = "\
Examples:
  evermint inference set --provider vertex --model gemini-2.5-pro
  evermint inference set fast.local --provider openai --credential-key OPENAI_API_KEY \\
      --model gpt-5-mini --timeout 60s";

/// The route that is meant if none is named.
const LOCAL: &str = "inference.local";

/// `evermint inference …`
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a route, or replace it.
    #[command(after_help = SET_EXAMPLES)]
    Set(SetArgs),
    /// Show a route.
    Get(GetArgs),
    /// List the routes of the workspace.
    #[command(visible_alias = "ls")]
    List,
    /// Delete routes.
    #[command(visible_alias = "rm")]
    Delete(DeleteArgs),
}

/// Arguments of `inference set`.
#[derive(Args, Debug)]
pub struct SetArgs {
    /// The route's name.
    #[arg(default_value = LOCAL)]
    name: String,
    /// The provider whose credential it uses.
    #[arg(long, value_name = "NAME")]
    provider: String,
    /// The model that calls are sent to.
    #[arg(long, value_name = "MODEL")]
    model: String,
    /// Which of the provider's credentials; its first one if not given.
    #[arg(
        long,
        value_name = "KEY",
        default_value = "",
        hide_default_value = true
    )]
    credential_key: String,
    /// Time limit of one call, in whole seconds; left to the sandbox if not given.
    #[arg(long, value_name = "TIME")]
    timeout: Option<Time>,
}

/// Arguments of `inference get`.
#[derive(Args, Debug)]
pub struct GetArgs {
    /// The route's name.
    #[arg(default_value = LOCAL)]
    name: String,
    /// Ask the leader first, so that the answer is the newest there is.
    #[arg(long)]
    consistent: bool,
}

/// Arguments of `inference delete`.
#[derive(Args, Debug)]
pub struct DeleteArgs {
    /// Their names.
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

/// What a gateway's answer lacks if it is broken.
const EMPTY: &str = "the gateway's answer holds no route";

impl Command {
    /// Does it.
    ///
    /// # Errors
    /// What the gateway refused.
    pub async fn run(self, client: &Client) -> Result<()> {
        match self {
            Self::Set(args) => set(args, client).await,
            Self::Get(args) => get(args, client).await,
            Self::List => list(client).await,
            Self::Delete(args) => delete(args, client).await,
        }
    }
}

async fn set(args: SetArgs, client: &Client) -> Result<()> {
    let request = v1::SetRouteRequest {
        workspace: client.workspace.clone(),
        name: args.name,
        provider: args.provider,
        credential_key: args.credential_key,
        model: args.model,
        // Rounded up: 0 would mean no limit at all.
        timeout_secs: args.timeout.map_or(0, |t| t.as_millis().div_ceil(1_000)),
    };
    let answer = client
        .gateways
        .write(async |wire| InferenceClient::new(wire).set_route(request.clone()).await)
        .await?;
    client.out.show(&One {
        done: Some("set"),
        route: answer.route.context(EMPTY)?.into(),
        position: answer.position,
    })
}

async fn get(args: GetArgs, client: &Client) -> Result<()> {
    let request = v1::GetRouteRequest {
        workspace: client.workspace.clone(),
        name: args.name,
        consistent: args.consistent,
    };
    let answer = client
        .gateways
        .read(async |wire| InferenceClient::new(wire).get_route(request.clone()).await)
        .await?;
    client.out.show(&One {
        done: None,
        route: answer.route.context(EMPTY)?.into(),
        position: answer.position,
    })
}

async fn list(client: &Client) -> Result<()> {
    let routes = all_pages(async |page_token| {
        let request = v1::ListRoutesRequest {
            workspace: client.workspace.clone(),
            page_size: PAGE,
            page_token,
        };
        let answer = client
            .gateways
            .read(async |wire| {
                InferenceClient::new(wire)
                    .list_routes(request.clone())
                    .await
            })
            .await?;
        Ok((answer.routes, answer.next_page_token))
    })
    .await?;
    client.out.show(&Many {
        routes: routes.into_iter().map(Into::into).collect(),
    })
}

async fn delete(args: DeleteArgs, client: &Client) -> Result<()> {
    let mut deletions = Vec::new();
    for name in args.names {
        let request = v1::DeleteRouteRequest {
            workspace: client.workspace.clone(),
            name: name.clone(),
        };
        let answer = client
            .gateways
            .write(async |wire| {
                InferenceClient::new(wire)
                    .delete_route(request.clone())
                    .await
            })
            .await?;
        deletions.push(Deletion {
            name,
            deleted: answer.deleted,
            position: answer.position,
            revocations: Vec::new(),
        });
    }
    client.out.show(&Deletions {
        kind: "route",
        deletions,
    })
}
