//! A mint whose answer is cut off from the cluster: salvaged from the journal of its replica, or
//! named when the grant turns out to be lost.

use std::time::Duration;

use evermint_cluster_tests::{Cluster, Idp, Mints, Options, Refreshing, Sandboxes, eventually};
use evermint_issuer::Release;
use evermint_proto::v1::bundles_client::BundlesClient;
use evermint_proto::v1::{GetBundleRequest, RefreshStatus, Ticket, Verdict};

const BOUND: Duration = Duration::from_secs(20);
const CLIENT: &str = "rt-000";

fn options() -> Options {
    Options {
        // Long enough for what the test does between grant and answer.
        ticket_ttl: Duration::from_secs(5),
        ..Options::default()
    }
}

/// A credential whose second mint has rotated at the issuer, which holds the answer; and the
/// ticket of that mint.
async fn answer_held(cluster: &Cluster, idp: &Idp) -> (Refreshing, Ticket) {
    let admin = cluster.admin();
    let credential = Refreshing::register(admin, idp, CLIENT, &Mints::default()).await;
    credential.minted_after(admin, 0).await;
    credential.settled(admin).await;
    idp.hold_after(CLIENT).await;
    credential.rotate(admin).await;
    idp.held(CLIENT, BOUND).await;
    let status = credential.status(admin).await;
    (credential, status.ticket.expect("the mint is under way"))
}

/// Waits until the cluster says that the outcome of `ticket` is unknown, and that it names it.
async fn in_doubt(cluster: &Cluster, credential: &Refreshing, ticket: &Ticket) {
    let doubted = |status: &RefreshStatus| {
        let doubt = status.doubt.as_ref()?.ticket.as_ref()?;
        (doubt.id == ticket.id).then(|| status.clone())
    };
    let admin = cluster.admin();
    let status = credential.until(admin, "in doubt", BOUND, doubted).await;
    assert_eq!(status.verdict(), Verdict::InDoubt, "{status:?}");
    assert!(names(&status.cause, ticket), "{status:?}");
}

fn names(cause: &str, ticket: &Ticket) -> bool {
    cause.contains(&ticket.id) && cause.contains(&format!("replica {}", ticket.replica))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_reached_a_killed_replica_is_salvaged_from_its_journal() {
    let idp = Idp::built_in(Duration::from_secs(120)).await;
    let mut cluster = Cluster::start(options()).await;
    let (credential, ticket) = answer_held(&cluster, &idp).await;
    let owner = cluster.with_id(ticket.replica).await;

    // Without a majority the answer can reach the journal, and nothing else. The others are
    // killed: what is on its way to a paused one is only late.
    let sending = cluster.replica(owner).journalled();
    assert!(sending > 0, "nothing was journalled before the request");
    for other in cluster.others(owner) {
        cluster.kill(other);
    }
    idp.release(CLIENT, Release::Answer).await;
    eventually("the answer is journalled", BOUND, async || {
        let now = cluster.replica(owner).journalled();
        (now > sending).then_some(()).ok_or(format!("{now} bytes"))
    })
    .await;
    cluster.kill(owner);

    for other in cluster.others(owner) {
        cluster.start_one(other);
    }
    in_doubt(&cluster, &credential, &ticket).await;
    assert_eq!(credential.status(cluster.admin()).await.generation, 1);

    cluster.start_one(owner);
    let admin = cluster.admin();
    assert_eq!(credential.minted_after(admin, 1).await, 2);
    let status = credential.settled(admin).await;
    assert_eq!((status.generation, status.attempt), (2, 2), "{status:?}");

    // The rotated refresh token came along: it mints the next one.
    credential.rotate(admin).await;
    assert_eq!(credential.minted_after(admin, 2).await, 3);
    let family = idp.family(&credential.grant).await;
    assert!(family.is_alive() && family.generation == 3, "{family:?}");
    let history = idp.history().await;
    let shown: Vec<_> = history.of(CLIENT).map(|record| record.showing).collect();
    assert_eq!(shown, [Some(1); 3], "every token once");
    assert_eq!(idp.overlaps().await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_died_with_its_replica_ends_in_a_verdict_that_names_the_mint() {
    let idp = Idp::built_in(Duration::from_secs(12)).await;
    let mut cluster = Cluster::start(options()).await;
    let (credential, ticket) = answer_held(&cluster, &idp).await;
    Sandboxes::register(
        cluster.admin(),
        "reader",
        std::slice::from_ref(&credential.provider),
    )
    .await;
    let owner = cluster.with_id(ticket.replica).await;

    cluster.kill(owner);
    idp.release(CLIENT, Release::Drop).await;
    in_doubt(&cluster, &credential, &ticket).await;

    let admin = cluster.admin();
    let what = "needs reauthorization";
    let status = credential
        .until(admin, what, BOUND, |status| {
            (status.verdict() == Verdict::NeedsReauthorization).then(|| status.clone())
        })
        .await;
    assert!(names(&status.cause, &ticket), "{status:?}");
    let lost = status.lost.as_ref().expect("the lost mint");
    assert_eq!(
        (&lost.ticket, lost.replica),
        (&ticket.id, ticket.replica),
        "{status:?}"
    );
    assert!(!status.remedy.is_empty(), "{status:?}");

    // The old value was served until its end; after it, nothing is, and nothing more is tried.
    let live = *cluster.up().collect::<Vec<_>>().first().expect("two live");
    eventually("the old value has ended", BOUND, async || {
        let request = GetBundleRequest {
            sandbox: "reader".to_owned(),
            ..GetBundleRequest::default()
        };
        let mut client = BundlesClient::new(admin.on(live));
        let answer = client.get_bundle(request).await;
        let bundle = answer.map_err(|e| e.to_string())?.into_inner().bundle;
        let credentials = bundle.unwrap_or_default().credentials;
        match credentials.iter().all(|c| c.token.is_none()) {
            true => Ok(()),
            false => Err("still served".to_owned()),
        }
    })
    .await;
    let history = idp.history().await;
    let shown: Vec<_> = history
        .of(CLIENT)
        .map(|r| (r.presented_generation, r.showing, r.status))
        .collect();
    let expected = [
        (Some(0), Some(1), Some(200)),
        (Some(1), Some(1), Some(200)),
        (Some(1), Some(2), Some(400)),
    ];
    assert_eq!(shown, expected, "one try with the old token, and no more");
    assert_eq!(idp.overlaps().await, []);
}
