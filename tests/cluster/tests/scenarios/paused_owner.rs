//! The classical breaker of leases: an owner that stands still for longer than its ticket, and
//! wakes up with everything in its hands.

use std::time::Duration;

use evermint_cluster_tests::{
    Cluster, Gate, Guest, Idp, Mints, Options, Refreshing, eventually, unix_ms,
};
use evermint_issuer::{Client, Release, Rotation};
use evermint_proto::v1::replay_policy::Kind;
use evermint_proto::v1::{RefreshStatus, Ticket};

const BOUND: Duration = Duration::from_secs(20);
const CLIENT: &str = "rt-000";

/// An issuer like Google's: used refresh tokens keep working, so that after a lost mint the
/// cluster tries again at once.
async fn forgiving_issuer() -> Idp {
    let idp = Idp::built_in(Duration::from_secs(120)).await;
    let client = Client::new(CLIENT)
        .secret(format!("{CLIENT}-secret"))
        .rotation(Rotation::Replayable);
    idp.register(&client).await;
    idp
}

async fn minted_once(cluster: &Cluster, idp: &Idp, token_url: Option<String>) -> Refreshing {
    let admin = cluster.admin();
    let how = Mints {
        replay: Kind::Safe,
        token_url,
        ..Mints::default()
    };
    let credential = Refreshing::register(admin, idp, CLIENT, &how).await;
    credential.minted_after(admin, 0).await;
    credential.settled(admin).await;
    credential
}

/// A credential whose second mint has been served by the issuer, which holds the answer; and the
/// ticket of that mint.
async fn answer_held(cluster: &Cluster, idp: &Idp) -> (Refreshing, Ticket) {
    let admin = cluster.admin();
    let credential = minted_once(cluster, idp, None).await;
    idp.hold_after(CLIENT).await;
    credential.rotate(admin).await;
    idp.held(CLIENT, BOUND).await;
    let status = credential.status(admin).await;
    (credential, status.ticket.expect("the mint is under way"))
}

/// Waits until another replica than that of `ticket` has minted, under the next ticket.
async fn replaced(cluster: &Cluster, credential: &Refreshing, ticket: &Ticket) -> RefreshStatus {
    let admin = cluster.admin();
    assert_eq!(credential.minted_after(admin, 1).await, 2);
    let status = credential.settled(admin).await;
    assert_eq!(status.attempt, ticket.attempt + 1, "{status:?}");
    status
}

/// Waits until the replica has nothing left to say about the mint: its journal is empty.
async fn journal_is_empty(cluster: &Cluster, replica: usize) {
    eventually("the journal is empty", BOUND, async || {
        match cluster.replica(replica).journalled() {
            0 => Ok(()),
            bytes => Err(format!("{bytes} bytes")),
        }
    })
    .await;
}

/// Checks on every replica that `before` is still how the credential stands.
async fn unchanged(cluster: &Cluster, credential: &Refreshing, before: &RefreshStatus) {
    cluster.caught_up().await;
    for replica in 0..cluster.len() {
        let now = credential.status_on(cluster.admin(), replica).await;
        let now = now.unwrap_or_else(|| panic!("replica {replica} does not answer"));
        let value = |s: &RefreshStatus| (s.generation, s.attempt, s.issued_at_ms, s.expires_at_ms);
        assert_eq!(value(&now), value(before), "replica {replica}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_paused_before_it_could_send_sends_nothing_after_it_wakes() {
    let idp = forgiving_issuer().await;
    let mut gate = Gate::before(idp.address()).await;
    let mut cluster = Cluster::start(Options::default()).await;
    let token_url = format!("{}/token", gate.url());
    let credential = minted_once(&cluster, &idp, Some(token_url)).await;
    let admin = cluster.admin().clone();

    // The owner has its ticket, and waits for its connection.
    gate.shut().await;
    credential.rotate(&admin).await;
    let what = "a ticket";
    let ticket = credential
        .until(&admin, what, BOUND, |status| status.ticket.clone())
        .await;
    let owner = cluster.with_id(ticket.replica).await;
    eventually("the owner connects", BOUND, async || {
        gate.is_knocked_at().then_some(()).ok_or("no".to_owned())
    })
    .await;
    cluster.pause(owner);
    let what = "the ticket has ended";
    credential
        .until(&admin, what, BOUND, |status| {
            let current = status.ticket.as_ref().is_some_and(|t| t.id == ticket.id);
            (!current).then_some(())
        })
        .await;

    // Now the kernel connects it, while another replica mints.
    gate.open();
    assert_eq!(credential.minted_after(&admin, 1).await, 2);
    let after = credential.settled(&admin).await;
    let waits = |guest: &Guest| guest.sent == 0 && !guest.left;
    eventually("the paused owner is connected", BOUND, async || {
        let guests = gate.guests();
        guests
            .iter()
            .any(waits)
            .then_some(())
            .ok_or(format!("{guests:?}"))
    })
    .await;
    let sent = |gate: &Gate| gate.guests().iter().map(|guest| guest.sent).sum::<u64>();
    let before = sent(&gate);
    cluster.resume(owner);
    journal_is_empty(&cluster, owner).await;
    eventually("it hangs up", BOUND, async || {
        let guests = gate.guests();
        (!guests.iter().any(waits))
            .then_some(())
            .ok_or(format!("{guests:?}"))
    })
    .await;
    cluster.ready(BOUND).await;

    unchanged(&cluster, &credential, &after).await;
    assert_eq!(
        sent(&gate),
        before,
        "sent after it woke: {:?}",
        gate.guests()
    );
    assert_eq!(idp.history().await.of(CLIENT).count(), 2);
    assert_eq!(idp.overlaps().await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_paused_beyond_its_ticket_sends_nothing_after_it_wakes() {
    let idp = forgiving_issuer().await;
    let mut cluster = Cluster::start(Options::default()).await;
    let (credential, ticket) = answer_held(&cluster, &idp).await;
    let owner = cluster.with_id(ticket.replica).await;

    cluster.pause(owner);
    let after = replaced(&cluster, &credential, &ticket).await;
    // The answer waits in its socket when it wakes.
    idp.release(CLIENT, Release::Answer).await;
    let woken_ms = unix_ms();
    cluster.resume(owner);
    journal_is_empty(&cluster, owner).await;
    cluster.ready(BOUND).await;

    unchanged(&cluster, &credential, &after).await;
    let history = idp.history().await;
    let late: Vec<_> = history
        .of(CLIENT)
        .filter(|r| r.arrived_unix_ms >= woken_ms)
        .collect();
    assert!(late.is_empty(), "sent after it woke: {late:?}");
    assert_eq!(history.of(CLIENT).count(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_under_a_ticket_that_a_newer_one_has_replaced_is_refused() {
    let idp = forgiving_issuer().await;
    let mut cluster = Cluster::start(Options::default()).await;
    let (credential, ticket) = answer_held(&cluster, &idp).await;
    let owner = cluster.with_id(ticket.replica).await;

    // Without a majority the owner can only hold on to its answer. The others are killed: a
    // paused one would find the commit in its socket.
    let sending = cluster.replica(owner).journalled();
    for other in cluster.others(owner) {
        cluster.kill(other);
    }
    idp.release(CLIENT, Release::Answer).await;
    eventually("the owner has its answer", BOUND, async || {
        let now = cluster.replica(owner).journalled();
        (now > sending).then_some(()).ok_or(format!("{now} bytes"))
    })
    .await;
    cluster.pause(owner);
    for other in cluster.others(owner) {
        cluster.start_one(other);
    }
    let after = replaced(&cluster, &credential, &ticket).await;

    cluster.resume(owner);
    journal_is_empty(&cluster, owner).await;
    cluster.ready(BOUND).await;
    unchanged(&cluster, &credential, &after).await;
    assert_eq!(idp.history().await.of(CLIENT).count(), 3);
}
