//! Stand-ins for what an agent stands between: [`Gateway`] gives it bundles, [`Api`] takes its calls
//! and remembers them. The tests stand in `tests/`: `calls` (what becomes of a call), `command`
//! (`evermint agent run`), `clients` (real SDKs, unmodified), `scenarios` (a cluster that is hurt).

mod api;
mod bundle;
mod gateway;
mod tls;

pub use api::{Api, Judge, Seen};
pub use bundle::{bundle, credential, route, token};
pub use gateway::Gateway;
pub use tls::TlsFront;

use std::sync::Arc;
use std::time::Duration;

use evermint_agent::{Agent, Config};
use evermint_client::{Client, Timing};
use tempfile::TempDir;
use tokio::time::timeout;

/// Longer than anything takes; a test that waits so long has failed.
pub const BOUND: Duration = Duration::from_secs(30);

/// Waits, with a bound.
///
/// # Panics
/// When it takes longer.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let Ok(done) = timeout(BOUND, future).await else {
        panic!("{what}: not within {BOUND:?}")
    };
    done
}

/// A running agent in this process, with its state in a directory of its own.
#[derive(Debug)]
pub struct Running {
    /// The agent.
    pub agent: Agent,
    /// What it follows its bundle with.
    pub client: Client,
    _state: Arc<TempDir>,
}

impl Running {
    /// Starts an agent that has its first bundle.
    ///
    /// # Panics
    /// When it cannot be started.
    pub async fn start(gateway: &Gateway, config: Config) -> Self {
        let running = Self::begin(gateway, config).await;
        let ready = running.agent.ready(BOUND).await;
        ready.expect("it has its bundle");
        running
    }

    /// Starts an agent, ready or not.
    ///
    /// # Panics
    /// When it cannot be started.
    pub async fn begin(gateway: &Gateway, config: Config) -> Self {
        let state = TempDir::with_prefix("evermint-agent-").expect("a temporary directory");
        let timing = Timing {
            penalty_base: Duration::from_millis(5),
            penalty_cap: Duration::from_millis(50),
            attempt: Duration::from_secs(10),
            connect: Duration::from_secs(5),
            ..Timing::default()
        };
        let client = Client::builder()
            .endpoints([gateway.url()])
            .sandbox("agent-7")
            .timing(timing)
            .build()
            .expect("a client");
        let any = "127.0.0.1:0".parse().expect("an address");
        let config = Config {
            listen: any,
            local_listen: any,
            state_dir: state.path().join("state"),
            ..config
        };
        let agent = Agent::start(config, client.clone())
            .await
            .expect("an agent");
        Self {
            agent,
            client,
            _state: Arc::new(state),
        }
    }

    /// The URL of something that the agent takes.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.agent.address())
    }

    /// The URL of something on its loopback listener.
    pub fn local_url(&self, path: &str) -> String {
        format!("http://{}{path}", self.agent.local_address())
    }

    /// Waits until the agent has a bundle of at least this generation.
    pub async fn has(&self, generation: u64) {
        let mut changes = self.client.subscribe();
        let there = || {
            self.client
                .snapshot()
                .generation()
                .is_some_and(|g| g.0 >= generation)
        };
        while !there() {
            within("a newer bundle", changes.changed())
                .await
                .expect("a client");
        }
    }
}
