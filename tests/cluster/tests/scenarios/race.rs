//! The race that others lose: two gateways of the best-known product in this field, sharing one
//! database, were measured on 50 single-use refresh tokens that fell due together. 30 of the 50
//! grants were revoked by reuse detection, and 24 of those were still reported as refreshed.

use std::time::Duration;

use evermint_cluster_tests::{Cluster, Idp, Mints, Options, Refreshing, TTL_FOR_EVER, say};
use evermint_proto::v1::Verdict;
use futures::future::join_all;

const GRANTS: usize = 50;
/// So often they all fall due at once, after the first time.
const ROUNDS: usize = 2;
/// What the issuer takes for each request.
const LATENCY: Duration = Duration::from_millis(100);

#[tokio::test(flavor = "multi_thread")]
async fn the_race_that_others_lose() {
    let idp = Idp::built_in(TTL_FOR_EVER).await;
    idp.latency(LATENCY).await;
    let cluster = Cluster::start(Options::default()).await;
    let admin = cluster.admin();

    let clients: Vec<String> = (0..GRANTS).map(|n| format!("rt-{n:03}")).collect();
    let how = Mints::default();
    let register = clients
        .iter()
        .map(|client| Refreshing::register(admin, &idp, client, &how));
    let grants = join_all(register).await;
    for round in 1..=ROUNDS as u64 {
        for grant in &grants {
            grant.minted_after(admin, round - 1).await;
        }
        // Due at once, and every replica is told so.
        let calls = grants
            .iter()
            .flat_map(|grant| (0..cluster.len()).map(|replica| grant.rotate_at(admin.on(replica))));
        for answer in join_all(calls).await {
            answer.expect("a rotation is taken by any replica");
        }
    }

    let families = idp.families().await;
    let mut mints = 0;
    for grant in &grants {
        grant.minted_after(admin, ROUNDS as u64).await;
        let status = grant.settled(admin).await;
        let family = idp.family(&grant.grant).await;
        assert!(family.is_alive(), "{family:?}");
        assert_eq!(status.verdict(), Verdict::Fresh, "{status:?}");
        assert_eq!(status.generation, family.generation, "{status:?}");
        assert!(family.mints.values().all(|n| *n == 1), "{family:?}");
        assert_eq!((family.forks, family.reuse_detected), (0, 0), "{family:?}");
        mints += family.generation;
    }
    assert_eq!(families.len(), GRANTS);
    assert_eq!(idp.overlaps().await, []);
    let history = idp.history().await;
    assert_eq!(
        history.records().count() as u64,
        mints,
        "one request a mint"
    );
    let presentations = history.presentations();
    let twice: Vec<_> = presentations.iter().filter(|(_, n)| **n != 1).collect();
    assert!(twice.is_empty(), "shown more than once: {twice:?}");
    say(&format!(
        "{GRANTS} of {GRANTS} grants alive after {mints} mints, each token shown once"
    ));
}
