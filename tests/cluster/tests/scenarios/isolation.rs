//! A replica that is cut off serves what is valid, for as long as it may, and not a moment longer.

use std::time::{Duration, Instant};

use evermint_cluster_tests::{
    Cluster, Idp, Mints, Options, Refreshing, Sandboxes, TTL_FOR_EVER, eventually, say, unix_ms,
};
use evermint_proto::v1::bundles_client::BundlesClient;
use evermint_proto::v1::{Bundle, GetBundleRequest};
use tonic::{Code, Status};

const BOUND: Duration = Duration::from_secs(20);
/// How long a replica that is cut off serves.
const MAX_STALENESS: Duration = Duration::from_secs(6);
/// The life of the token that ends while the replica is cut off.
const SHORT: Duration = Duration::from_secs(4);
/// How much later than it has to be a refusal may be seen: a beat, and a read.
const SLACK: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn an_isolated_replica_serves_valid_tokens_until_max_staleness_and_then_refuses() {
    let idp = Idp::built_in(TTL_FOR_EVER).await;
    let mut cluster = Cluster::start(Options {
        max_staleness: MAX_STALENESS,
        ..Options::default()
    })
    .await;
    let admin = cluster.admin().clone();
    let how = Mints::default();
    let long = Refreshing::register(&admin, &idp, "long", &how).await;
    let short = idp.grant("short").await;
    idp.access_ttl("short", SHORT).await;
    drop(short);
    let short = Refreshing::register(&admin, &idp, "short", &how).await;
    let providers = [long.provider.clone(), short.provider.clone()];
    Sandboxes::register(&admin, "reader", &providers).await;
    long.minted_after(&admin, 0).await;
    short.minted_after(&admin, 0).await;

    let leader = cluster.leader().await;
    let alone = cluster.others(leader).next().expect("a follower");
    cluster.caught_up().await;
    for other in cluster.others(alone) {
        cluster.pause(other);
    }
    let isolated = Instant::now();
    let mut ended = None;
    let refused = loop {
        let asked_ms = unix_ms();
        match read(&cluster, alone).await {
            Ok(bundle) => {
                assert!(live(&bundle, "LONG", asked_ms), "{bundle:?}");
                if !live(&bundle, "SHORT", asked_ms) {
                    ended.get_or_insert(isolated.elapsed());
                }
            }
            Err(status) => break status,
        }
        assert!(isolated.elapsed() < MAX_STALENESS + SLACK, "still serving");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let after = isolated.elapsed();
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    assert!(
        after + SLACK > MAX_STALENESS,
        "refused after {after:?} already"
    );
    let ended = ended.expect("the short token ended meanwhile, and was taken out");
    assert!(ended <= SHORT + SLACK, "{ended:?}");

    for other in cluster.others(alone) {
        cluster.resume(other);
    }
    eventually("it serves again", BOUND, async || {
        let asked_ms = unix_ms();
        match read(&cluster, alone).await {
            Ok(bundle) if live(&bundle, "SHORT", asked_ms) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    say(&format!(
        "the short token ended after {ended:?}, reads were refused after {after:?}"
    ));
}

async fn read(cluster: &Cluster, replica: usize) -> Result<Bundle, Status> {
    let request = GetBundleRequest {
        sandbox: "reader".to_owned(),
        ..GetBundleRequest::default()
    };
    let mut client = BundlesClient::new(cluster.admin().on(replica));
    let answer = client.get_bundle(request).await?.into_inner();
    Ok(answer.bundle.unwrap_or_default())
}

/// Whether the bundle has a token for `key`; one that has ended is a failure.
fn live(bundle: &Bundle, key: &str, asked_ms: u64) -> bool {
    let credential = bundle.credentials.iter().find(|c| c.key == key);
    let credential = credential.unwrap_or_else(|| panic!("no {key} in {bundle:?}"));
    let Some(token) = &credential.token else {
        return false;
    };
    let end = token.expires_at_ms.expect("an end");
    assert!(
        end + 100 > asked_ms,
        "{key} ended at {end}, and was served at {asked_ms}"
    );
    true
}
