//! The wiring: puts one replica together from settings, and takes it apart again in good order.
//!
//! ```text
//! settings ─ KEKs ─────────► keyring ◄── data keys of the state, whenever they change
//!          ─ data dir, peers ► node (Raft, sled): proposer and view for all below
//!          ─ issuers ───────► minter ─► policy of the gateway
//!                             actors: proposer, view, minter, keyring, journal
//!                             gateway: proposer, view, keyring, policy, control, web
//! ```

mod config;
mod keys;
mod port;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use evermint_core::port::{Proposer, StateView};
use evermint_gateway::{Ports, RaftStatus};
use evermint_minter::{HttpMinter, SystemClock};
use evermint_replica::Node;
use evermint_seal::Keyring;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::exit::{advised, usage};
use crate::settings::Settings;
use keys::Rotation;
use port::{Control, Policy, Web, keep_status, raft_status};

/// The directory of the mint journal, beside the store.
const JOURNAL: &str = "journal";

/// A running replica.
pub struct Replica {
    /// Where it listens to clients.
    pub api_addr: SocketAddr,
    /// Where it listens to other replicas.
    pub peer_addr: SocketAddr,
    /// Consensus and the applied state.
    pub node: Node,
    /// Seals and opens values.
    pub keyring: Arc<Keyring>,
    raft: watch::Receiver<RaftStatus>,
    stop: CancellationToken,
    /// Ends what `stop` lets finish.
    kill: CancellationToken,
    parts: JoinSet<Ended>,
}

/// A part that has ended.
struct Ended {
    part: &'static str,
    /// Whether nothing was left undone.
    outcome: Result<bool>,
}

impl Replica {
    /// Starts a replica: returns once it listens, and is on its way into its cluster.
    ///
    /// # Errors
    /// What is wrong with the settings, the key, the data directory or the addresses, and what to
    /// do about it.
    pub async fn start(settings: Settings) -> Result<Self> {
        settings.check()?;
        let keyring = {
            let settings = settings.clone();
            tokio::task::spawn_blocking(move || keys::keyring(&settings))
        };
        let keyring = Arc::new(keyring.await.context("the key-encryption key")??);
        let admin = settings
            .admin_token_file
            .as_deref()
            .map(config::admin_token)
            .transpose()?;
        let issuers = config::issuers(&settings)?;
        let minter = Arc::new(HttpMinter::new(&issuers)?);
        let web = Arc::new(Web(evermint_minter::Web::new(&issuers)?));

        let listener = TcpListener::bind(settings.api_listen)
            .await
            .map_err(|error| busy("clients", settings.api_listen, &error))?;
        let api_addr = listener.local_addr().context("the API's address")?;

        let node = Node::start(config::node(&settings, &keyring, api_addr)?)
            .await
            .map_err(|error| explain(error, &settings))?;
        let view: Arc<dyn StateView> = Arc::new(node.clone());
        let proposer: Arc<dyn Proposer> = Arc::new(node.clone());
        keyring.follow(&view.state())?;

        let (stop, kill) = (CancellationToken::new(), CancellationToken::new());
        let (loaded, ready) = watch::channel(keyring.active().is_some());
        let (tell, raft) = watch::channel(raft_status(node.status().await));
        let mut parts = JoinSet::new();
        let raft_part = keep_status(node.clone(), tell, stop.clone());
        parts.spawn(async move {
            Ended {
                part: "consensus",
                outcome: raft_part.await.map(|()| true),
            }
        });
        let keys = keys::keep(
            Arc::clone(&view),
            Arc::clone(&keyring),
            loaded,
            stop.clone(),
        );
        let rotation = Rotation {
            proposer: Arc::clone(&proposer),
            view: Arc::clone(&view),
            keyring: Arc::clone(&keyring),
            raft: raft.clone(),
        };
        let rotation = rotation.run(stop.clone());
        parts.spawn(async move {
            Ended {
                part: "the keyring",
                outcome: futures::join!(keys, rotation).0.map(|()| true),
            }
        });
        let actors = run_actors(
            evermint_actors::Config {
                proposer: Arc::clone(&proposer),
                view: Arc::clone(&view),
                minter: minter.clone(),
                keyring: Arc::clone(&keyring),
                clock: Arc::new(SystemClock),
                journal_dir: settings.data_dir.join(JOURNAL),
            },
            ready,
            settings.shutdown_grace.get(),
            stop.clone(),
            kill.clone(),
        );
        parts.spawn(async move {
            Ended {
                part: "the actors",
                outcome: actors.await,
            }
        });
        let ports = Ports {
            proposer,
            view,
            keyring: Arc::clone(&keyring),
            catalog: Arc::new(evermint_profiles::catalog()),
            policy: Arc::new(Policy(Arc::clone(&minter))),
            prober: minter,
            control: Arc::new(Control {
                node: node.clone(),
                status: raft.clone(),
            }),
            web,
        };
        let server = evermint_gateway::serve(
            listener,
            ports,
            config::gateway(&settings, admin)?,
            stop.clone(),
        );
        let killed = kill.clone();
        parts.spawn(async move {
            let served = tokio::select! {
                served = server => served.map_err(anyhow::Error::from),
                () = killed.cancelled() => Ok(()),
            };
            Ended {
                part: "the API",
                outcome: served.map(|()| true),
            }
        });
        Ok(Self {
            api_addr,
            peer_addr: node.listen_address(),
            node,
            keyring,
            raft,
            stop,
            kill,
            parts,
        })
    }

    /// Waits until a part of the replica has failed for good, and says why. Cancel safe.
    pub async fn failed(&mut self) -> anyhow::Error {
        let ended = self.parts.join_next().await;
        match ended {
            Some(Ok(Ended { part, outcome })) => match outcome {
                Ok(_) => anyhow!("{part} ended by itself"),
                Err(error) => error.context(format!("{part} failed")),
            },
            Some(Err(panic)) => anyhow!("a part of the replica failed: {panic}"),
            None => anyhow!("the replica has ended"),
        }
    }

    /// The Raft group as this replica saw it a moment ago.
    pub fn raft(&self) -> RaftStatus {
        self.raft.borrow().clone()
    }

    /// Stops in good order: no new calls, shards go to others, mints in flight end within the
    /// settings' grace, then consensus. Whether all mints ended.
    pub async fn shutdown(mut self) -> bool {
        self.stop.cancel();
        self.node.drain().await;
        let mut drained = true;
        while let Some(ended) = self.parts.join_next().await {
            drained &= matches!(
                ended,
                Ok(Ended {
                    outcome: Ok(true),
                    ..
                })
            );
        }
        self.node.shutdown().await;
        drained
    }

    /// Stops as a crash would, as far as that is possible without ending the process: nothing in
    /// flight ends well, and nobody is told.
    pub async fn kill(mut self) {
        self.kill.cancel();
        self.stop.cancel();
        while self.parts.join_next().await.is_some() {}
        // With its last clone, the node goes as in a crash.
    }
}

fn busy(whom: &str, address: SocketAddr, error: &std::io::Error) -> anyhow::Error {
    advised(
        format!("cannot listen to {whom} at {address}: {error}"),
        "another address with --api-listen or --peer-listen, or stop what listens there",
    )
}

/// What keeps a node from starting, in the words of this program's settings.
fn explain(error: evermint_replica::Error, settings: &Settings) -> anyhow::Error {
    use evermint_replica::Error;
    let dir = settings.data_dir.display();
    let advice = match &error {
        Error::InUse(_) => {
            format!("stop the replica that uses {dir}, or give this one a --data-dir of its own")
        }
        Error::Removed => format!("move {dir} away: the replica then joins as a new one"),
        Error::WrongKek { lacking, .. } => format!(
            "give this replica KEK {}: copy the key of another replica, or while it is being replaced give that one as --kek-former-file, -env or -command",
            lacking.join(" and ")
        ),
        Error::Config(_) => return usage(error.to_string()),
        Error::Format { .. }
        | Error::Damaged(_)
        | Error::Io { .. }
        | Error::Refused(_)
        | Error::Propose(_)
        | Error::Stopped(_) => {
            return anyhow::Error::new(error)
                .context(format!("the replica in {dir} does not start"));
        }
    };
    advised(error.to_string(), advice)
}

/// Runs the actor tree from when the first data key is there until the replica stops. Whether all
/// mints in flight ended then.
async fn run_actors(
    config: evermint_actors::Config,
    mut ready: watch::Receiver<bool>,
    grace: Duration,
    stop: CancellationToken,
    kill: CancellationToken,
) -> Result<bool> {
    let ready = async { ready.wait_for(|ready| *ready).await.is_ok() };
    let ready = tokio::select! {
        () = stop.cancelled() => return Ok(true),
        ready = ready => ready,
    };
    if !ready {
        // The keyring failed, and tells so itself.
        stop.cancelled().await;
        return Ok(true);
    }
    let tree = evermint_actors::Tree::start(config).await?;
    stop.cancelled().await;
    let grace = if kill.is_cancelled() {
        Duration::ZERO
    } else {
        grace
    };
    Ok(tree.shutdown(grace).await)
}
