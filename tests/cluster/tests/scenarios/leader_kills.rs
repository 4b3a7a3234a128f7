//! The main promise, against an OpenID provider that others wrote: the leader is killed again and
//! again while it is minting, and no grant is lost, no sandbox notices.
//!
//! Each kill hits a leader whose request the issuer has received and not yet served, so that the
//! refresh token is still unspent. Before the kill every other request is answered and committed,
//! or held as well: a token that was spent for an answer which died with the process is the one
//! loss that no client of a strict issuer can prevent, and `lost_answer.rs` shows how that ends.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use evermint_cluster_tests::{
    Admin, Cluster, Findings, Idp, Mints, Options, Refreshing, Sandboxes, Way, eventually, say,
    unix_ms,
};
use evermint_issuer::{End, Fault, Mode, Release};
use evermint_proto::v1::providers_client::ProvidersClient;
use evermint_proto::v1::{RefreshStatus, UpdateProviderRequest, Verdict};
use futures::future::join_all;

const CREDENTIALS: usize = 50;
/// Leaders killed, each with a mint in flight.
const KILLS: usize = 5;
const READERS_EACH_WAY: usize = 8;
/// How long the provider's access tokens live.
const ACCESS_TTL: Duration = Duration::from_secs(24);
/// How long before its end a token is replaced: a time of its own for each credential, so that at
/// any time some are about to fall due.
const REFRESH_BEFORE: std::ops::Range<Duration> = Duration::from_secs(6)..Duration::from_secs(12);
/// Long enough for what is done while requests are held.
const TICKET_TTL: Duration = Duration::from_millis(3_500);
/// The oldest token whose mint is cut off: an election, the ticket and the doubt have to pass
/// before its end.
const AGE_MAX_MS: u64 = 14_000;
const BOUND: Duration = Duration::from_secs(30);
/// A request that was held for longer is not answered any more: the ticket's margin, and the time
/// that it had before, are not to be had.
const HELD_MAX_MS: u64 = 1_500;

/// What one kill did.
struct Kill {
    leader: usize,
    /// The client whose request was in flight.
    client: String,
    at_ms: u64,
    /// Until a write was acknowledged.
    write: Duration,
    /// Until the credential whose mint was cut off had a new token.
    recovered: Duration,
}

#[tokio::test(flavor = "multi_thread")]
async fn leaders_killed_in_mid_refresh_lose_no_grant_and_no_read() {
    let idp = Idp::real(ACCESS_TTL).await;
    let mut cluster = Cluster::start(Options {
        ticket_ttl: TICKET_TTL,
        ..Options::default()
    })
    .await;
    let admin = cluster.admin().clone();
    let credentials = register(&admin, &idp).await;
    let readers = open_sandboxes(&admin, &credentials).await;

    let mut kills = Vec::new();
    for _ in 0..KILLS {
        kills.push(kill_leader_in_flight(&mut cluster, &idp, &credentials).await);
    }
    let last = generations(&admin, &credentials).await;
    for (credential, generation) in credentials.iter().zip(last) {
        credential.minted_after(&admin, generation).await;
    }
    let findings = readers.stop().await;

    issuer_agrees(&idp, &admin, &credentials).await;
    readers_agree(&idp, &findings).await;
    report(&idp, &kills, &findings).await;
}

async fn register(admin: &Admin, idp: &Idp) -> Vec<Refreshing> {
    let step = (REFRESH_BEFORE.end - REFRESH_BEFORE.start) / CREDENTIALS as u32;
    let register = (0..CREDENTIALS).map(async |n| {
        let how = Mints {
            refresh_before: Some(REFRESH_BEFORE.start + step * n as u32),
            ..Mints::default()
        };
        Refreshing::register(admin, idp, &format!("rt-{n:03}"), &how).await
    });
    let credentials = join_all(register).await;
    for credential in &credentials {
        credential.minted_after(admin, 0).await;
    }
    // The first to fall due is the one that is replaced the longest before its end.
    credentials[CREDENTIALS - 1].minted_after(admin, 1).await;
    credentials
}

/// Every sandbox reads every other credential.
async fn open_sandboxes(admin: &Admin, credentials: &[Refreshing]) -> Sandboxes {
    let mut readers = Vec::new();
    for n in 0..2 * READERS_EACH_WAY {
        let (name, way) = match n % READERS_EACH_WAY == n {
            true => (format!("polling-{n}"), Way::Polling),
            false => (format!("watching-{n}"), Way::Watching),
        };
        let providers: Vec<String> = credentials
            .iter()
            .skip(n % 2)
            .step_by(2)
            .map(|credential| credential.provider.clone())
            .collect();
        let registered = Sandboxes::register(admin, &name, &providers).await;
        readers.push((name, way, registered));
    }
    Sandboxes::start(admin, readers)
}

async fn kill_leader_in_flight(
    cluster: &mut Cluster,
    idp: &Idp,
    credentials: &[Refreshing],
) -> Kill {
    let admin = cluster.admin().clone();
    // The leader may lose its office by itself before it is killed; then it is tried again.
    let (leader, target, generation) = loop {
        cluster.ready(BOUND).await;
        let leader = cluster.leader().await;
        let target = mint_in_flight(cluster, idp, credentials, leader).await;
        if let Some((target, generation)) = target
            && cluster.leader().await == leader
        {
            break (leader, target, generation);
        }
        idp.clear_faults().await;
        release_all(idp).await;
    };
    let client = target.grant.client.clone();
    let (at, at_ms) = (Instant::now(), unix_ms());
    cluster.kill(leader);
    idp.clear_faults().await;
    eventually("the issuer sees its client gone", BOUND, async || {
        let gone = gone(idp).await;
        let held = idp.holding().await;
        let held = held.iter().find(|h| h.client.as_deref() == Some(&client));
        let seq = held.map(|held| held.seq).ok_or("not held")?;
        gone.contains(&seq).then_some(()).ok_or(format!("{gone:?}"))
    })
    .await;
    release_all(idp).await;
    acknowledged_write(&admin, &credentials[0]).await;
    let write = at.elapsed();
    cluster.start_one(leader);
    target.minted_after(&admin, generation).await;
    let recovered = at.elapsed();
    target.settled(&admin).await;
    Kill {
        leader,
        client,
        at_ms,
        write,
        recovered,
    }
}

/// Brings the leader to where the issuer holds a request of it, and nothing else of it is half
/// done: the credential, and its generation. `None` if it leads no more.
async fn mint_in_flight(
    cluster: &Cluster,
    idp: &Idp,
    credentials: &[Refreshing],
    leader: usize,
) -> Option<(Refreshing, u64)> {
    let admin = cluster.admin();
    let id = cluster.status(leader).await?.replica;
    let target = due_next(admin, credentials, id).await;
    idp.hold_before(&target.grant.client).await;
    target.rotate(admin).await;
    idp.held(&target.grant.client, BOUND).await;
    let before = target.status(admin).await;
    let is_its_own = before.ticket.as_ref().is_some_and(|t| t.replica == id);
    quiesce(cluster, idp).await;
    is_its_own.then_some((target, before.generation))
}

/// The idle credential of replica `owner` with the oldest token that will do. The refresh token
/// of a mint that was cut off is tried again when the access token nears its end.
async fn due_next(admin: &Admin, credentials: &[Refreshing], owner: u64) -> Refreshing {
    eventually("the leader owns an idle credential", BOUND, async || {
        let statuses = join_all(credentials.iter().map(|c| c.status(admin))).await;
        let oldest_issue = unix_ms().saturating_sub(AGE_MAX_MS);
        let fits = |status: &RefreshStatus| {
            let owned = status.owner.as_ref().is_some_and(|o| o.replica == owner);
            let calm = status.ticket.is_none() && status.doubt.is_none();
            let issued = status.issued_at_ms.filter(|at| *at > oldest_issue);
            (owned && calm).then_some(issued).flatten()
        };
        let candidates = credentials.iter().zip(&statuses);
        let fitting = candidates.filter_map(|(c, status)| Some((fits(status)?, c)));
        let oldest = fitting.min_by_key(|(issued, _)| *issued);
        oldest
            .map(|(_, credential)| credential.clone())
            .ok_or_else(|| format!("none of replica {owner}"))
    })
    .await
}

/// Holds every request before it is served, and waits until those that were served before are
/// committed: every ticket that is out belongs to a request that is held.
async fn quiesce(cluster: &Cluster, idp: &Idp) {
    idp.fault(Fault::everybody(Mode::HoldBefore)).await;
    eventually("only held requests are open", BOUND, async || {
        let held = held_by(idp).await;
        let leader = cluster.leader().await;
        let status = cluster.status(leader).await.ok_or("no status")?;
        let tickets = status.counts.unwrap_or_default().tickets;
        let same = held_by(idp).await == held;
        match same && tickets == held.len() as u64 {
            true => Ok(()),
            false => Err(format!("{tickets} tickets, held: {held:?}")),
        }
    })
    .await;
}

async fn held_by(idp: &Idp) -> BTreeSet<String> {
    let held = idp.holding().await;
    held.into_iter().filter_map(|held| held.client).collect()
}

/// The requests whose client went away before they were answered.
async fn gone(idp: &Idp) -> BTreeSet<u64> {
    let history = idp.history().await;
    let gone = history.records().filter(|r| r.end == Some(End::ClientGone));
    gone.map(|r| r.seq).collect()
}

/// Lets held requests go on, and drops those that would be served in vain: their client is gone,
/// or its ticket may end before it has the answer.
async fn release_all(idp: &Idp) {
    for held in idp.holding().await {
        let history = idp.history().await;
        let record = history.records().find(|r| r.seq == held.seq);
        let record = record.expect("what is held has a record");
        let old = unix_ms() > record.arrived_unix_ms + HELD_MAX_MS;
        let how = match old || record.end.is_some() {
            true => Release::Drop,
            false => Release::Answer,
        };
        idp.release(&held.client.expect("a client"), how).await;
    }
}

/// A write that may be done twice.
async fn acknowledged_write(admin: &Admin, any: &Refreshing) {
    let request = UpdateProviderRequest {
        name: any.provider.clone(),
        config: [("written_at".to_owned(), unix_ms().to_string())].into(),
        ..UpdateProviderRequest::default()
    };
    let call = async |channel| {
        let mut client = ProvidersClient::new(channel);
        client.update_provider(request.clone()).await
    };
    admin.call("a write after the kill", call).await;
}

async fn generations(admin: &Admin, credentials: &[Refreshing]) -> Vec<u64> {
    let statuses = join_all(credentials.iter().map(|c| c.status(admin))).await;
    statuses.iter().map(|status| status.generation).collect()
}

async fn issuer_agrees(idp: &Idp, admin: &Admin, credentials: &[Refreshing]) {
    assert_eq!(idp.overlaps().await, [], "requests that overlap");
    assert_eq!(idp.history().await.reuse_detected(), 0);
    // The readers are gone, refreshing goes on: nothing is compared that moves.
    for credential in credentials {
        let family = idp.family(&credential.grant).await;
        assert!(family.is_alive(), "{family:?}");
        assert!(family.mints.values().all(|n| *n == 1), "{family:?}");
        assert_eq!((family.forks, family.reuse_detected), (0, 0), "{family:?}");
        let status = credential.status(admin).await;
        assert_eq!(status.verdict(), Verdict::Fresh, "{status:?}");
        assert!(
            status.generation.abs_diff(family.generation) <= 1,
            "{status:?} {family:?}"
        );
    }
}

async fn readers_agree(idp: &Idp, findings: &[Findings]) {
    let history = idp.history().await;
    for sandbox in findings {
        assert_eq!(sandbox.broken, Vec::<String>::new(), "{}", sandbox.sandbox);
        assert_eq!(sandbox.gaps, Vec::<String>::new(), "{}", sandbox.sandbox);
        let wrong = sandbox.against(&history, ACCESS_TTL);
        assert_eq!(wrong, Vec::<String>::new());
        assert!(sandbox.answers > 0 && sandbox.tokens() > CREDENTIALS / 2);
    }
}

async fn report(idp: &Idp, kills: &[Kill], findings: &[Findings]) {
    let history = idp.history().await;
    let next_mint = |kill: &Kill| {
        let after = history.records().filter(|r| r.arrived_unix_ms > kill.at_ms);
        let first = after.map(|r| r.arrived_unix_ms).min();
        first.map_or(0, |first| first - kill.at_ms)
    };
    say(&format!("\nissuer: {}", idp.name()));
    say("kill  replica  in flight  ms to: write  mint  that credential");
    for (n, kill) in kills.iter().enumerate() {
        say(&format!(
            "{:>4}  {:>7}  {:>9}  {:>12}  {:>4}  {:>15}",
            n + 1,
            kill.leader,
            kill.client,
            kill.write.as_millis(),
            next_mint(kill),
            kill.recovered.as_millis(),
        ));
    }
    let mints = history.records().filter(|r| r.status == Some(200)).count();
    let requests = history.records().count();
    say(&format!("{mints} mints by {requests} requests"));
    for way in [Way::Polling, Way::Watching] {
        let of_way = findings.iter().filter(|f| f.way == way);
        let answers: u64 = of_way.clone().map(|f| f.answers).sum();
        let detours: u64 = of_way.clone().map(|f| f.detours).sum();
        let slowest = of_way.map(|f| f.slowest).max().unwrap_or_default();
        say(&format!(
            "{way:?}: {answers} answers, {detours} detours, slowest {slowest:?}"
        ));
    }
}
