//! What a replica says and serves while an issuer fails: the real minter under the real actors,
//! against the strict issuer. Once for each class of failure: status shows it, and the token that
//! was served is served on until its end.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use evermint_actors::{Config, Tree};
use evermint_core::command::Command;
use evermint_core::credential::{Credential, Verdict};
use evermint_core::id::{CredentialId, CredentialKey, ProviderId};
use evermint_core::port::StateView;
use evermint_core::secret::Secret;
use evermint_core::settings::Settings;
use evermint_core::strategy::Strategy;
use evermint_fakes::{FakeCluster, TokioClock};
use evermint_issuer::{Client, Config as IssuerConfig, Fault, Handle, Issuer, Mode, Seeded};
use evermint_seal::Context;
use serde_json::json;
use support::{minter, order};

/// One class of failure.
struct Row {
    name: &'static str,
    /// Makes the next mint of the client fail.
    spoil: fn(&Handle, &Seeded),
    verdict: Verdict,
    /// What status has to hold of the cause, and of the remedy.
    cause: &'static str,
    remedy: &'static str,
}

fn answers(status: u16, body: serde_json::Value) -> Mode {
    // Long enough that no retry clears the verdict before it is read.
    let headers = BTreeMap::from([("retry-after".to_owned(), "600".to_owned())]);
    Mode::Status {
        status,
        headers,
        body,
    }
}

fn faulty(handle: &Handle, seeded: &Seeded, mode: Mode) {
    handle.fault(Fault::always(&seeded.client_id, mode));
}

const ROWS: &[Row] = &[
    Row {
        name: "transient",
        spoil: |handle, seeded| faulty(handle, seeded, answers(503, json!("busy"))),
        verdict: Verdict::Retrying,
        cause: "HTTP 503",
        remedy: "",
    },
    Row {
        name: "throttled",
        spoil: |handle, seeded| faulty(handle, seeded, answers(429, json!("slow down"))),
        verdict: Verdict::Throttled,
        cause: "HTTP 429",
        remedy: "higher limit",
    },
    Row {
        name: "unclear",
        spoil: |handle, seeded| faulty(handle, seeded, Mode::DropAfter),
        verdict: Verdict::InDoubt,
        cause: "no complete answer",
        remedy: "",
    },
    Row {
        name: "unknown refusal",
        spoil: |handle, seeded| faulty(handle, seeded, answers(418, json!({"error": "teapot"}))),
        verdict: Verdict::Retrying,
        cause: "teapot (HTTP 418)",
        remedy: "check the token endpoint",
    },
    Row {
        name: "grant refused",
        spoil: |handle, seeded| assert!(handle.revoke(&seeded.grant_id)),
        verdict: Verdict::NeedsReauthorization,
        cause: "invalid_grant (HTTP 400)",
        remedy: "authorize again",
    },
    Row {
        name: "config refused",
        spoil: |handle, seeded| handle.register(Client::new(&seeded.client_id).secret("another")),
        verdict: Verdict::Misconfigured,
        cause: "invalid_client (HTTP 401)",
        remedy: "check client_id",
    },
];

struct World {
    cluster: Arc<FakeCluster>,
    tree: Tree,
    _dir: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let clock = Arc::new(TokioClock::default());
        let cluster = FakeCluster::new(Settings::default(), Arc::clone(&clock));
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::start(Config {
            proposer: cluster.clone(),
            view: cluster.clone(),
            minter: Arc::new(minter(|_| ())),
            keyring: cluster.keyring(),
            clock,
            journal_dir: dir.path().join("journal"),
        })
        .await
        .unwrap();
        Self {
            cluster,
            tree,
            _dir: dir,
        }
    }

    /// Puts a credential under the grant, and waits for its first token.
    async fn minted(&self, token_url: &str, provider: u128, seeded: &Seeded) -> Credential {
        let id = CredentialId {
            provider: ProviderId(provider),
            key: CredentialKey::new("TOKEN").unwrap(),
        };
        self.cluster.provider(provider, &format!("p{provider}"));
        let token = Secret::from(seeded.refresh_token.expose());
        let context = Context::material(&id, "refresh_token");
        let sealed = self.cluster.keyring().seal(&context, &token).unwrap();
        let client = [("client_id", seeded.client_id.as_str())];
        let configured = self.cluster.apply(Command::ConfigureRefresh {
            credential: id.clone(),
            config: order(Strategy::OAuth2RefreshToken, token_url, &client, &[]).config,
            material: BTreeMap::from([("refresh_token".to_owned(), sealed)]),
            expires_at: None,
        });
        configured.outcome.unwrap();
        self.until(&id, |c| c.generation.0 == 1).await
    }

    async fn until(&self, id: &CredentialId, holds: impl Fn(&Credential) -> bool) -> Credential {
        let wait = self.cluster.until("the credential", |state| {
            let credential = state.credentials.get(id)?;
            holds(credential).then(|| Credential::clone(credential))
        });
        tokio::time::timeout(6 * support::BOUND, wait)
            .await
            .unwrap()
    }

    /// Asks for a mint now, which fails, and checks what is said and served then.
    async fn check(&self, name: &str, before: Credential, row: (Verdict, &str, &str)) {
        let (verdict, cause, remedy) = row;
        let credential = before.id.clone();
        let rotate = Command::RotateCredential { credential };
        self.cluster.apply(rotate).outcome.unwrap();
        let failed = |c: &Credential| c.refresh.as_ref().unwrap().health.verdict == verdict;
        let after = self.until(&before.id, failed).await;
        let health = after.refresh.as_ref().unwrap().health.clone();
        assert!(health.cause.contains(cause), "{name}: {health:?}");
        assert!(health.remedy.contains(remedy), "{name}: {health:?}");

        assert_eq!(
            after.value, before.value,
            "{name}: a failure displaces nothing"
        );
        let value = after.value.as_ref().unwrap();
        let end = value.expires_at.unwrap();
        assert_eq!(end, value.issued_at + Duration::from_secs(3_600), "{name}");
        assert_eq!(after.verdict(self.cluster.now()), verdict, "{name}");
        assert!(
            !value.is_expired(end.minus(Duration::from_millis(1))),
            "{name}"
        );
        assert!(value.is_expired(end), "{name}");
        let then = match verdict.is_final() {
            true => verdict,
            false => Verdict::Expired,
        };
        assert_eq!(after.verdict(end), then, "{name}");
    }
}

fn hourly(id: &str) -> Client {
    Client::new(id).access_ttl(Duration::from_secs(3_600))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_shows_each_class_of_failure_and_the_token_is_served_until_its_end() {
    let world = World::new().await;
    for (provider, row) in (1..).zip(ROWS) {
        // An issuer for each: the breaker of one that fails is nobody else's.
        let issuer = Issuer::start(IssuerConfig::default()).await.unwrap();
        let seeded = issuer.handle().seed(hourly(&format!("rt-{provider}")));
        let before = world.minted(&issuer.token_url(), provider, &seeded).await;
        (row.spoil)(issuer.handle(), &seeded);
        let expected = (row.verdict, row.cause, row.remedy);
        world.check(row.name, before, expected).await;
        issuer.shutdown().await;
    }
    assert!(world.tree.shutdown(Duration::from_secs(30)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_issuer_that_is_gone_leaves_the_grant_unspent_and_the_token_served() {
    let world = World::new().await;
    let issuer = Issuer::start(IssuerConfig::default()).await.unwrap();
    let seeded = issuer.handle().seed(hourly("rt"));
    let before = world.minted(&issuer.token_url(), 1, &seeded).await;
    issuer.shutdown().await;
    let expected = (Verdict::Retrying, "could not be reached", "");
    world.check("unsent", before, expected).await;
    assert!(world.tree.shutdown(Duration::from_secs(30)).await);
}
