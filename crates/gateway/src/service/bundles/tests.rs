//! Bundles in virtual time: fencing, expiry, watching.

use std::collections::BTreeMap;

use evermint_core::command::{Command, Done, StaticValue};
use evermint_core::credential::{RefreshConfig, Verdict};
use evermint_core::id::{CredentialId, CredentialKey, ProviderId, ProviderType, Workspace};
use evermint_core::mint::{Failure, FailureClass};
use evermint_core::port::StateView as _;
use evermint_core::secret::Secret;
use evermint_core::strategy::Strategy;
use evermint_core::time::UnixMs;
use evermint_seal::Context;
use futures::StreamExt as _;
use prost::Message as _;
use tokio_util::sync::CancellationToken;
use tonic::Code;

use super::*;
use crate::access::Roles;
use crate::caller::{Operator, Way};
use crate::server::Limits;
use crate::shared::Shared;
use crate::status::REASON;
use crate::testing::FakeCluster;
use crate::views::Views;

const HOUR: Duration = Duration::from_secs(3600);
const SANDBOX: SandboxId = SandboxId(0xb0);

/// A cluster with a gateway on it, and one sandbox that uses one provider.
struct Bench {
    cluster: FakeCluster,
    services: Services,
    token: CredentialId,
    fixed: CredentialId,
}

impl Bench {
    /// The provider `cloud` has a minted credential `TOKEN` and a static one `FIXED`; the
    /// sandbox `box` uses it, and the route `inference.local` uses its `TOKEN`.
    fn new() -> Self {
        let cluster = FakeCluster::new();
        let services = gateway(&cluster);
        let id = |key: &str| CredentialId {
            provider: ProviderId(0xc1),
            key: CredentialKey::new(key).unwrap(),
        };
        let bench = Self {
            cluster,
            services,
            token: id("TOKEN"),
            fixed: id("FIXED"),
        };
        bench.create_provider("cloud", &bench.fixed);
        bench.apply(Command::ConfigureRefresh {
            credential: bench.token.clone(),
            config: RefreshConfig::new(
                Strategy::OAuth2ClientCredentials,
                "https://issuer.example/token",
            ),
            material: BTreeMap::new(),
            expires_at: None,
        });
        bench.apply(Command::CreateSandbox {
            id: SANDBOX,
            workspace: Workspace::default_workspace(),
            name: Name::new("box").unwrap(),
            providers: vec![bench.token.provider],
        });
        bench.apply(Command::SetRoute {
            workspace: Workspace::default_workspace(),
            name: Name::new("inference.local").unwrap(),
            provider: bench.token.provider,
            credential: Some(bench.token.key.clone()),
            model: "large".to_owned(),
            timeout_secs: 60,
        });
        bench
    }

    fn create_provider(&self, name: &str, credential: &CredentialId) {
        let value = self.sealed(credential, "fixed-value", None);
        self.apply(Command::CreateProvider {
            id: credential.provider,
            workspace: Workspace::default_workspace(),
            name: Name::new(name).unwrap(),
            kind: ProviderType::new("generic").unwrap(),
            config: BTreeMap::from([("base_url".to_owned(), "https://api.example".to_owned())]),
            notes: Default::default(),
            credentials: BTreeMap::from([(credential.key.clone(), value)]),
        });
    }

    fn sealed(&self, id: &CredentialId, value: &str, expires_at: Option<UnixMs>) -> StaticValue {
        let context = Context::value(id, &id.key);
        let secret = Secret::from(value);
        StaticValue {
            sealed: self.cluster.keyring().seal(&context, &secret).unwrap(),
            expires_at,
        }
    }

    fn apply(&self, command: Command) -> Position {
        let answer = self.cluster.apply(command);
        assert!(answer.outcome.is_ok(), "{:?}", answer.outcome);
        answer.position
    }

    fn set_fixed(&self, value: StaticValue) -> Position {
        self.apply(Command::UpdateProvider {
            id: self.fixed.provider,
            expected_version: None,
            config: BTreeMap::new(),
            credentials: BTreeMap::from([(self.fixed.key.clone(), Some(value))]),
            expires_at: BTreeMap::new(),
        })
    }

    fn mint(&self, token: &str, lifetime: Duration) -> Position {
        let answer = self.cluster.mint(&self.token, token, lifetime);
        assert!(matches!(answer.outcome, Ok(Done::Committed(_))));
        answer.position
    }

    async fn get(&self, request: v1::GetBundleRequest) -> Result<Read, Status> {
        let request = v1::GetBundleRequest {
            sandbox: "box".to_owned(),
            ..request
        };
        let response = self.services.get_bundle(Request::new(request)).await?;
        let response = response.into_inner();
        Ok(Read {
            bundle: v1::Bundle::decode(response.bundle.unwrap()).unwrap(),
            expiring: response.expiring,
        })
    }

    async fn bundle(&self) -> v1::Bundle {
        self.get(v1::GetBundleRequest::default())
            .await
            .unwrap()
            .bundle
    }

    async fn watch(&self, request: v1::WatchBundleRequest) -> BundleStream {
        let request = v1::WatchBundleRequest {
            sandbox: "box".to_owned(),
            ..request
        };
        let response = self.services.watch_bundle(Request::new(request)).await;
        response.unwrap().into_inner()
    }
}

struct Read {
    bundle: v1::Bundle,
    expiring: Vec<v1::CredentialRef>,
}

fn gateway(cluster: &FakeCluster) -> Services {
    let ports = cluster.ports();
    let shutdown = CancellationToken::new();
    let views = Views::new(
        Arc::clone(&ports.view),
        Arc::clone(&ports.keyring),
        Arc::clone(&ports.catalog),
    );
    let follower = Arc::clone(&views);
    let stop = shutdown.clone();
    tokio::spawn(async move { follower.follow(stop).await });
    Services(Arc::new(Shared {
        refusals: crate::refusals::Refusals::default(),
        fence: crate::fence::Fence::new(Arc::clone(&ports.view)),
        others: crate::others::Others::default(),
        passage: None,
        logins: crate::logins::Logins::new(&Default::default()),
        tokens: crate::token::TokenRules::default(),
        ports,
        limits: Limits::default(),
        rates: crate::rates::Rates::new(&crate::Bounds::default()),
        bounds: crate::Bounds::default(),
        views,
        trials: tokio::sync::Semaphore::new(1),
        shutdown,
    }))
}

/// The value of a credential in a bundle, or the verdict that it has instead.
fn value(bundle: &v1::Bundle, key: &str) -> Result<String, Verdict> {
    let credential = bundle
        .credentials
        .iter()
        .find(|c| c.key == key)
        .expect("the bundle lists it");
    told(&credential.token, &credential.unavailable, key)
}

fn told(
    token: &Option<v1::Token>,
    unavailable: &Option<v1::Unavailable>,
    key: &str,
) -> Result<String, Verdict> {
    match (token, unavailable) {
        (Some(token), None) => Ok(token.values[key].clone()),
        (None, Some(why)) => {
            assert!(!why.cause.is_empty());
            let all = [
                Verdict::Pending,
                Verdict::Expired,
                Verdict::Misconfigured,
                Verdict::NeedsReauthorization,
                Verdict::Retrying,
            ];
            let shown = |v: &Verdict| i32::from(crate::show::verdict(*v)) == why.verdict;
            Err(all.into_iter().find(shown).expect("one of these"))
        }
        other => panic!("either a token or a reason, not {other:?}"),
    }
}

async fn next(stream: &mut BundleStream) -> Result<ready::WatchBundleResponse, Status> {
    tokio::time::timeout(HOUR, stream.next())
        .await
        .expect("something comes within an hour")
        .expect("the stream goes on")
}

async fn next_bundle(stream: &mut BundleStream) -> v1::Bundle {
    loop {
        if let Some(bytes) = next(stream).await.unwrap().bundle {
            return v1::Bundle::decode(bytes).unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_bundle_holds_the_routes_and_the_values_of_attached_providers() {
    let bench = Bench::new();
    let before = bench.bundle().await;
    assert_eq!(value(&before, "TOKEN"), Err(Verdict::Pending));
    assert_eq!(value(&before, "FIXED").as_deref(), Ok("fixed-value"));

    let position = bench.mint("t1", HOUR);
    let bundle = bench.bundle().await;
    assert_eq!(bundle.generation, position.0);
    assert_eq!(bundle.sandbox, SANDBOX.to_string());
    assert_eq!(value(&bundle, "TOKEN").as_deref(), Ok("t1"));
    let [route] = bundle.routes.as_slice() else {
        panic!("one route");
    };
    assert_eq!(
        (route.name.as_str(), route.model.as_str()),
        ("inference.local", "large")
    );
    assert_eq!(route.config["base_url"], "https://api.example");
    assert_eq!(
        told(&route.token, &route.unavailable, "TOKEN").as_deref(),
        Ok("t1")
    );
    assert_eq!(route.token.as_ref().unwrap().generation, 1);
}

#[tokio::test(start_paused = true)]
async fn the_revision_changes_if_and_only_if_the_content_does() {
    let bench = Bench::new();
    bench.mint("t1", HOUR);
    let mut last = bench.bundle().await;
    type Step = (&'static str, fn(&Bench), bool, bool);
    let steps: [Step; 6] = [
        (
            "a ticket",
            |b| {
                b.cluster.grant(&b.token);
            },
            false,
            false,
        ),
        (
            "an unrelated provider",
            |b| {
                let other = CredentialId {
                    provider: ProviderId(0xd2),
                    key: CredentialKey::new("OTHER").unwrap(),
                };
                b.create_provider("other", &other);
            },
            false,
            false,
        ),
        (
            "an update without a change",
            |b| {
                b.apply(Command::UpdateProvider {
                    id: b.fixed.provider,
                    expected_version: None,
                    config: BTreeMap::new(),
                    credentials: BTreeMap::new(),
                    expires_at: BTreeMap::new(),
                });
            },
            true,
            false,
        ),
        (
            "a setting",
            |b| {
                b.apply(Command::UpdateProvider {
                    id: b.fixed.provider,
                    expected_version: None,
                    config: BTreeMap::from([("region".to_owned(), Some("eu".to_owned()))]),
                    credentials: BTreeMap::new(),
                    expires_at: BTreeMap::new(),
                });
            },
            true,
            true,
        ),
        (
            "a static value",
            |b| {
                b.set_fixed(b.sealed(&b.fixed, "fixed-2", None));
            },
            true,
            true,
        ),
        (
            "a detached provider",
            |b| {
                b.apply(Command::DetachProvider {
                    sandbox: SANDBOX,
                    provider: b.fixed.provider,
                    expected_version: None,
                });
            },
            true,
            true,
        ),
    ];
    for (what, step, newer, other) in steps {
        step(&bench);
        let bundle = bench.bundle().await;
        assert!(bundle.generation >= last.generation, "{what}");
        assert_eq!(bundle.generation > last.generation, newer, "{what}");
        assert_eq!(bundle.revision != last.revision, other, "{what}");
        last = bundle;
    }
    assert!(last.credentials.is_empty());
}

#[tokio::test(start_paused = true)]
async fn every_replica_gives_the_same_revision() {
    let bench = Bench::new();
    bench.mint("t1", HOUR);
    let other = Bench {
        services: gateway(&bench.cluster),
        cluster: bench.cluster.clone(),
        ..Bench::new()
    };
    assert_eq!(bench.bundle().await, other.bundle().await);
}

#[tokio::test(start_paused = true)]
async fn the_revision_tells_nothing_of_the_values() {
    let (a, b) = (Bench::new(), Bench::new());
    a.mint("one secret", HOUR);
    b.mint("another one", HOUR);
    assert_eq!(a.bundle().await.revision, b.bundle().await.revision);
}

#[tokio::test(start_paused = true)]
async fn an_expired_value_leaves_the_bundle_without_a_log_entry() {
    let bench = Bench::new();
    bench.mint("t1", HOUR);
    let fresh = bench.bundle().await;
    let position = bench.cluster.state().meta.position;

    tokio::time::advance(HOUR - Duration::from_millis(1)).await;
    assert_eq!(bench.bundle().await, fresh);
    tokio::time::advance(Duration::from_millis(1)).await;
    let bundle = bench.bundle().await;
    assert_eq!(value(&bundle, "TOKEN"), Err(Verdict::Expired));
    assert_eq!(value(&bundle, "FIXED").as_deref(), Ok("fixed-value"));
    assert_eq!(bundle.generation, fresh.generation);
    assert_ne!(bundle.revision, fresh.revision);
    assert_eq!(bench.cluster.state().meta.position, position);
}

#[tokio::test(start_paused = true)]
async fn a_watcher_learns_of_an_expiry_at_its_time() {
    // Not together with a heartbeat, which would tell as well.
    let lifetime = HOUR - Duration::from_secs(7);
    let bench = Bench::new();
    bench.mint("t1", lifetime);
    let mut stream = bench.watch(v1::WatchBundleRequest::default()).await;
    assert!(value(&next_bundle(&mut stream).await, "TOKEN").is_ok());
    let started = Instant::now();
    let bundle = next_bundle(&mut stream).await;
    assert_eq!(value(&bundle, "TOKEN"), Err(Verdict::Expired));
    let waited = started.elapsed();
    assert!(waited <= lifetime + Duration::from_millis(5), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_pushed_past_an_expiry_takes_the_value_away_at_once() {
    let bench = Bench::new();
    bench.mint("t1", HOUR);
    assert!(value(&bench.bundle().await, "TOKEN").is_ok());
    bench.cluster.push_clock(HOUR);
    assert_eq!(value(&bench.bundle().await, "TOKEN"), Err(Verdict::Expired));

    bench.mint("t2", HOUR);
    let mut stream = bench.watch(v1::WatchBundleRequest::default()).await;
    assert!(value(&next_bundle(&mut stream).await, "TOKEN").is_ok());
    let started = Instant::now();
    let (bundle, ()) = tokio::join!(next_bundle(&mut stream), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        bench.cluster.push_clock(HOUR);
        // The stamp of any entry tells the watchers' timer.
        let other = CredentialId {
            provider: ProviderId(0xd2),
            key: CredentialKey::new("OTHER").unwrap(),
        };
        bench.create_provider("other", &other);
    });
    assert_eq!(value(&bundle, "TOKEN"), Err(Verdict::Expired));
    assert!(started.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_detached_provider_and_a_deleted_sandbox_are_gone_at_once() {
    let bench = Bench::new();
    bench.mint("t1", HOUR);
    let mut stream = bench.watch(v1::WatchBundleRequest::default()).await;
    assert_eq!(next_bundle(&mut stream).await.credentials.len(), 2);
    bench.apply(Command::DetachProvider {
        sandbox: SANDBOX,
        provider: bench.token.provider,
        expected_version: None,
    });
    assert!(bench.bundle().await.credentials.is_empty());
    assert!(next_bundle(&mut stream).await.credentials.is_empty());

    bench.apply(Command::DeleteSandbox { id: SANDBOX });
    let status = bench
        .get(v1::GetBundleRequest::default())
        .await
        .err()
        .unwrap();
    assert_eq!(status.code(), Code::NotFound);
    assert_eq!(next(&mut stream).await.unwrap_err().code(), Code::NotFound);
    assert!(stream.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_value_that_cannot_be_opened_does_not_keep_the_others_from_being_served() {
    let bench = Bench::new();
    bench.mint("t1", HOUR);
    // Sealed for another place: as if someone had moved it in the store.
    bench.set_fixed(bench.sealed(&bench.token, "moved", None));
    let bundle = bench.bundle().await;
    assert_eq!(value(&bundle, "FIXED"), Err(Verdict::Misconfigured));
    assert_eq!(value(&bundle, "TOKEN").as_deref(), Ok("t1"));
    // It is tried again with every read, and mended by a good value.
    assert_eq!(bench.bundle().await, bundle);
    bench.set_fixed(bench.sealed(&bench.fixed, "good", None));
    assert_eq!(value(&bench.bundle().await, "FIXED").as_deref(), Ok("good"));
}

#[tokio::test(start_paused = true)]
async fn a_failure_does_not_displace_a_value_that_still_works() {
    let bench = Bench::new();
    bench.mint("t1", HOUR);
    let before = bench.bundle().await;
    bench.cluster.fail(
        &bench.token,
        Failure {
            class: FailureClass::GrantRefused,
            cause: "the issuer said invalid_grant".to_owned(),
            remedy: "authorize again".to_owned(),
            retry_after_ms: None,
        },
    );
    assert_eq!(bench.bundle().await, before);
    tokio::time::advance(HOUR).await;
    assert_eq!(
        value(&bench.bundle().await, "TOKEN"),
        Err(Verdict::NeedsReauthorization)
    );
}

#[tokio::test(start_paused = true)]
async fn a_slow_watcher_is_given_the_newest_bundle_and_no_queue() {
    let bench = Bench::new();
    let mut stream = bench.watch(v1::WatchBundleRequest::default()).await;
    next_bundle(&mut stream).await;
    for n in 1..=50 {
        bench.mint(&format!("t{n}"), HOUR);
        tokio::task::yield_now().await;
    }
    let bundle = next_bundle(&mut stream).await;
    assert_eq!(value(&bundle, "TOKEN").as_deref(), Ok("t50"));
    let beat = next(&mut stream).await.unwrap();
    assert_eq!(beat.bundle, None);
    assert_eq!(beat.generation, bundle.generation);
}

#[tokio::test(start_paused = true)]
async fn a_watcher_that_resumes_is_sent_only_what_it_does_not_hold() {
    let bench = Bench::new();
    bench.mint("t1", HOUR);
    let held = bench.bundle().await;
    let resume = v1::WatchBundleRequest {
        min_generation: held.generation,
        known_revision: held.revision.clone(),
        ..Default::default()
    };
    let mut stream = bench.watch(resume.clone()).await;
    let first = next(&mut stream).await.unwrap();
    assert_eq!((first.bundle, first.generation), (None, held.generation));
    drop(stream);

    bench.mint("t2", HOUR);
    let mut stream = bench.watch(resume).await;
    let first = next(&mut stream).await.unwrap();
    let bundle = v1::Bundle::decode(first.bundle.unwrap()).unwrap();
    assert_eq!(value(&bundle, "TOKEN").as_deref(), Ok("t2"));
    assert_eq!(bundle.generation, first.generation);
}

#[tokio::test(start_paused = true)]
async fn a_watcher_hears_a_heartbeat_when_nothing_changes() {
    let bench = Bench::new();
    let mut stream = bench.watch(v1::WatchBundleRequest::default()).await;
    next_bundle(&mut stream).await;
    for _ in 0..3 {
        let started = Instant::now();
        let beat = next(&mut stream).await.unwrap();
        assert_eq!(beat.bundle, None);
        assert_eq!(beat.server_time_ms, bench.cluster.now().0);
        let waited = started.elapsed();
        let expected = bench.services.limits.heartbeat;
        assert!(waited <= expected + Duration::from_millis(2), "{waited:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_ahead_of_the_replica_waits_and_is_then_served_or_sent_away() {
    let bench = Bench::new();
    bench.cluster.hold();
    let position = bench.mint("t1", HOUR);
    let ahead = || {
        bench.get(v1::GetBundleRequest {
            min_generation: position.0,
            ..Default::default()
        })
    };

    let started = Instant::now();
    let status = ahead().await.err().unwrap();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(status.metadata().get(REASON).unwrap(), "behind");
    assert!(status.metadata().contains_key(status::RETRY));
    assert!(started.elapsed() >= bench.services.limits.catch_up);
    // Others, who have not seen more, are served meanwhile.
    assert_eq!(value(&bench.bundle().await, "TOKEN"), Err(Verdict::Pending));

    let (read, ()) = tokio::join!(ahead(), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        bench.cluster.release();
    });
    let bundle = read.unwrap().bundle;
    assert_eq!(bundle.generation, position.0);
    assert_eq!(value(&bundle, "TOKEN").as_deref(), Ok("t1"));
}

#[tokio::test(start_paused = true)]
async fn a_consistent_read_shows_what_was_committed_when_it_began() {
    let bench = Bench::new();
    bench.cluster.hold();
    bench.mint("t1", HOUR);
    let consistent = || {
        bench.get(v1::GetBundleRequest {
            consistent: true,
            ..Default::default()
        })
    };
    assert_eq!(consistent().await.err().unwrap().code(), Code::Unavailable);
    let (read, ()) = tokio::join!(consistent(), async { bench.cluster.release() });
    assert_eq!(value(&read.unwrap().bundle, "TOKEN").as_deref(), Ok("t1"));
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_is_cut_off_serves_up_to_its_bound_and_no_longer() {
    let bench = Bench::new();
    bench.mint("t1", HOUR);
    let mut stream = bench.watch(v1::WatchBundleRequest::default()).await;
    next_bundle(&mut stream).await;
    bench.cluster.cut_off();
    let cut_off = Instant::now();
    let max = bench.services.limits.max_staleness;

    tokio::time::advance(max - Duration::from_millis(1)).await;
    assert_eq!(value(&bench.bundle().await, "TOKEN").as_deref(), Ok("t1"));
    let status = loop {
        match next(&mut stream).await {
            Ok(beat) => assert_eq!(beat.bundle, None),
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::Unavailable);
    assert!(cut_off.elapsed() <= max + Duration::from_millis(5));
    assert!(stream.next().await.is_none());
    let status = bench
        .get(v1::GetBundleRequest::default())
        .await
        .err()
        .unwrap();
    assert_eq!(status.metadata().get(REASON).unwrap(), "cut-off");

    bench.cluster.reconnect();
    assert_eq!(value(&bench.bundle().await, "TOKEN").as_deref(), Ok("t1"));
    bench.cluster.never_in_touch();
    let status = bench
        .get(v1::GetBundleRequest::default())
        .await
        .err()
        .unwrap();
    assert_eq!(status.metadata().get(REASON).unwrap(), "never-caught-up");
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_good_for_less_than_asked_is_named() {
    let bench = Bench::new();
    bench.mint("t1", HOUR);
    for (min_ttl_ms, named) in [(0, 0), (3_600_000, 0), (3_600_001, 1), (u64::MAX, 1)] {
        let read = bench
            .get(v1::GetBundleRequest {
                min_ttl_ms,
                ..Default::default()
            })
            .await
            .unwrap();
        assert_eq!(read.expiring.len(), named, "{min_ttl_ms}");
        if let Some(credential) = read.expiring.first() {
            assert_eq!(
                (credential.provider.as_str(), credential.key.as_str()),
                ("cloud", "TOKEN")
            );
        }
        assert_eq!(value(&read.bundle, "TOKEN").as_deref(), Ok("t1"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_sandbox_is_found_by_id_and_by_name_in_its_workspace() {
    let bench = Bench::new();
    for (sandbox, workspace, found) in [
        (SANDBOX.to_string(), "", true),
        (SANDBOX.to_string(), "elsewhere", true),
        ("box".to_owned(), "", true),
        ("box".to_owned(), "default", true),
        ("box".to_owned(), "elsewhere", false),
        ("other".to_owned(), "", false),
    ] {
        let request = v1::GetBundleRequest {
            sandbox: sandbox.clone(),
            workspace: workspace.to_owned(),
            ..Default::default()
        };
        let response = bench.services.get_bundle(Request::new(request)).await;
        assert_eq!(response.is_ok(), found, "{sandbox} {workspace}");
    }
}

#[tokio::test(start_paused = true)]
async fn every_one_of_a_thousand_watchers_is_given_the_new_bundle() {
    let bench = Bench::new();
    let mut streams = Vec::new();
    for n in 0..1000_u128 {
        let name = format!("box-{n}");
        bench.apply(Command::CreateSandbox {
            id: SandboxId(n + 1000),
            workspace: Workspace::default_workspace(),
            name: Name::new(&name).unwrap(),
            providers: vec![bench.token.provider],
        });
        let request = v1::WatchBundleRequest {
            sandbox: name,
            ..Default::default()
        };
        let response = bench.services.watch_bundle(Request::new(request)).await;
        streams.push(response.unwrap().into_inner());
    }
    for stream in &mut streams {
        next_bundle(stream).await;
    }
    bench.mint("t1", HOUR);
    let started = Instant::now();
    for stream in &mut streams {
        let bundle = next_bundle(stream).await;
        assert_eq!(value(&bundle, "TOKEN").as_deref(), Ok("t1"));
    }
    assert!(started.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_watch_ends_with_the_token_or_certificate_that_opened_it() {
    let bench = Bench::new();
    let until = |way: Way, until: Option<UnixMs>| {
        Caller::Operator(Arc::new(Operator {
            subject: "ann".to_owned(),
            way,
            roles: Roles::admin(),
            scopes: None,
            until,
        }))
    };
    // Between two heartbeats.
    let life = Duration::from_millis(100_700);
    for way in [Way::Oidc, Way::Certificate] {
        let end = bench.services.ports.view.now() + life;
        let mut request = Request::new(v1::WatchBundleRequest {
            sandbox: "box".to_owned(),
            ..Default::default()
        });
        request.extensions_mut().insert(until(way, Some(end)));
        let watching = bench.services.watch_bundle(request).await;
        let mut stream = watching.unwrap().into_inner();
        let refused = loop {
            match next(&mut stream).await {
                Ok(_) => assert!(bench.services.ports.view.now() < end),
                Err(refused) => break refused,
            }
        };
        assert_eq!(refused.code(), Code::Unauthenticated);
        assert_eq!(refused.metadata().get(REASON).unwrap(), "token-expired");
        let late = bench.services.ports.view.now().since(end);
        assert!(late < Duration::from_millis(10), "{late:?} late");
        assert!(stream.next().await.is_none());
    }
    // The admin token has no end.
    let mut request = Request::new(v1::WatchBundleRequest {
        sandbox: "box".to_owned(),
        ..Default::default()
    });
    let admin = until(Way::AdminToken, None);
    request.extensions_mut().insert(admin);
    let watching = bench.services.watch_bundle(request).await;
    let mut stream = watching.unwrap().into_inner();
    for _ in 0..100 {
        next(&mut stream).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_watches() {
    let bench = Bench::new();
    let mut stream = bench.watch(v1::WatchBundleRequest::default()).await;
    next_bundle(&mut stream).await;
    bench.services.shutdown.cancel();
    let status = next(&mut stream).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(stream.next().await.is_none());
}

async fn report(
    bench: &Bench,
    key: &str,
    generation: u64,
) -> Result<v1::ReportTokenResponse, Code> {
    let request = v1::ReportTokenRequest {
        sandbox: "box".to_owned(),
        workspace: String::new(),
        provider: "cloud".to_owned(),
        credential_key: key.to_owned(),
        generation,
    };
    let answer = bench.services.report_token(Request::new(request)).await;
    answer.map(Response::into_inner).map_err(|s| s.code())
}

fn early(bench: &Bench) -> usize {
    let log = bench.cluster.log();
    log.iter()
        .filter(|c| matches!(c, Command::MintEarly { .. }))
        .count()
}

#[tokio::test(start_paused = true)]
async fn a_refused_token_is_minted_anew_once_and_not_for_whoever_asks() {
    use v1::report_token_response::Outcome;
    let bench = Bench::new();
    bench.mint("t1", HOUR);
    let told = |answer: Result<v1::ReportTokenResponse, Code>| answer.map(|a| a.outcome());
    assert_eq!(told(report(&bench, "NONE", 1).await), Err(Code::NotFound));
    assert_eq!(told(report(&bench, "TOKEN", 2).await), Err(Code::NotFound));
    assert_eq!(told(report(&bench, "FIXED", 1).await), Ok(Outcome::Stuck));
    assert_eq!(early(&bench), 0);

    assert_eq!(told(report(&bench, "TOKEN", 1).await), Ok(Outcome::Due));
    assert_eq!(told(report(&bench, "TOKEN", 1).await), Ok(Outcome::Due));
    assert_eq!(early(&bench), 1, "the second one did not reach the log");
    bench.mint("t2", HOUR);
    let late = report(&bench, "TOKEN", 1).await.unwrap();
    assert_eq!((late.outcome(), late.generation), (Outcome::Superseded, 2));
    let soon = report(&bench, "TOKEN", 2).await.unwrap();
    assert_eq!(soon.outcome(), Outcome::NotYet);
    let now = bench.cluster.now().0;
    let quarter = u64::try_from(HOUR.as_millis()).unwrap() / 4;
    let not_before = soon.not_before_ms.unwrap();
    assert!((now + quarter - 1_000..=now + quarter).contains(&not_before));
    assert_eq!(early(&bench), 1);
    bench.cluster.push_clock(HOUR / 4);
    assert_eq!(told(report(&bench, "TOKEN", 2).await), Ok(Outcome::Due));
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_too_short_is_told_and_minted_anew() {
    let bench = Bench::new();
    bench.mint("t1", HOUR);
    let ask = |minutes: u64| v1::GetBundleRequest {
        min_ttl_ms: minutes * 60_000,
        ..v1::GetBundleRequest::default()
    };
    let due = || {
        let state = bench.cluster.committed();
        let (at, _) = state.credentials[&bench.token].due().unwrap();
        at <= bench.cluster.now()
    };
    // It is told; before half of its life nothing is minted for it.
    let told = bench.get(ask(90)).await.unwrap().expiring;
    assert_eq!(told.len(), 1);
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!((early(&bench), due()), (0, false));
    bench.cluster.push_clock(HOUR * 7 / 12);
    assert!(bench.get(ask(20)).await.unwrap().expiring.is_empty());
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!((early(&bench), due()), (0, false));
    for _ in 0..3 {
        assert_eq!(bench.get(ask(30)).await.unwrap().expiring.len(), 1);
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert_eq!((early(&bench), due()), (1, true));
    }
}

#[tokio::test(start_paused = true)]
async fn the_environment_has_a_revision_of_its_own() {
    let bench = Bench::new();
    bench.mint("t1", HOUR);
    let mut last = bench.bundle().await;
    assert_ne!(last.environment_revision, 0);
    let [fixed, token] = &last.credentials[..] else {
        panic!("two credentials");
    };
    assert_eq!(fixed.variables[0].handle, "");
    assert_eq!(token.variables[0].handle.len(), 64);
    assert_eq!(token.endpoints[0].host, "api.example");
    assert_eq!(last.routes[0].base_url, "https://api.example");

    let route = |b: &Bench, model: &str| {
        b.apply(Command::SetRoute {
            workspace: Workspace::default_workspace(),
            name: Name::new("inference.local").unwrap(),
            provider: b.token.provider,
            credential: Some(b.token.key.clone()),
            model: model.to_owned(),
            timeout_secs: 60,
        })
    };
    for (what, step, bundle_changes, environment_changes) in [
        ("a route", 0, true, false),
        ("the same route", 1, false, false),
        ("a mint", 2, true, true),
        ("an end that is set to what it is", 3, false, false),
        ("an end", 4, true, true),
        ("a failed mint", 5, false, false),
    ] {
        let expiry = |end: Option<UnixMs>| {
            bench.apply(Command::UpdateProvider {
                id: bench.fixed.provider,
                expected_version: None,
                config: BTreeMap::new(),
                credentials: BTreeMap::new(),
                expires_at: BTreeMap::from([(bench.fixed.key.clone(), end)]),
            })
        };
        match step {
            0 => drop(route(&bench, "small")),
            1 => drop(route(&bench, "small")),
            2 => drop(bench.mint("t2", HOUR)),
            3 => drop(expiry(None)),
            4 => drop(expiry(Some(bench.cluster.now() + 9 * HOUR))),
            _ => drop(bench.cluster.fail(
                &bench.token,
                Failure {
                    class: FailureClass::Transient,
                    cause: "busy".to_owned(),
                    remedy: String::new(),
                    retry_after_ms: None,
                },
            )),
        }
        let next = bench.bundle().await;
        assert_eq!(next.revision != last.revision, bundle_changes, "{what}");
        let (was, is) = (last.environment_revision, next.environment_revision);
        assert_eq!(was != is, environment_changes, "{what}");
        last = next;
    }
}

#[tokio::test(start_paused = true)]
async fn a_route_that_leads_nowhere_is_a_problem_and_the_others_are_served() {
    let bench = Bench::new();
    bench.mint("t1", HOUR);
    bench.apply(Command::UpdateProvider {
        id: bench.fixed.provider,
        expected_version: None,
        config: BTreeMap::from([("base_url".to_owned(), None)]),
        credentials: BTreeMap::new(),
        expires_at: BTreeMap::new(),
    });
    let bundle = bench.bundle().await;
    assert_eq!(value(&bundle, "TOKEN").as_deref(), Ok("t1"));
    assert_eq!((bundle.routes.len(), &*bundle.routes[0].base_url), (1, ""));
    let problems: Vec<_> = bundle
        .problems
        .iter()
        .map(|p| p.provider.as_str())
        .collect();
    assert_eq!(problems, ["cloud", "cloud"], "no endpoint, and no upstream");
}
