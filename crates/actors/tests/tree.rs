//! The tree over a cluster in memory, in virtual time.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use evermint_actors::{Config, Journal, Tree};
use evermint_core::command::Command;
use evermint_core::credential::{Credential, Phase, Reason, RefreshConfig, TicketEnd, Verdict};
use evermint_core::id::*;
use evermint_core::mint::{Failure, FailureClass};
use evermint_core::port::{Clock, StateView};
use evermint_core::revocation::{End, Stage};
use evermint_core::secret::Secret;
use evermint_core::settings::Settings;
use evermint_core::state::State;
use evermint_core::strategy::Strategy;
use evermint_core::time::Clocks;
use evermint_fakes::{FakeCluster, FakeMinter, MISSING, Revoked, Script, TokioClock};
use evermint_protocol::journal::{JournalEntry, Progress, SealedMint};
use evermint_seal::Context;
use tempfile::TempDir;

const LIFETIME: Duration = Duration::from_secs(3600);

struct World {
    cluster: Arc<FakeCluster>,
    minter: Arc<FakeMinter>,
    clock: Arc<TokioClock>,
    dir: TempDir,
}

fn mints() -> Script {
    Script::Mint {
        after: Duration::from_millis(100),
        lifetime: LIFETIME,
    }
}

fn failure(class: FailureClass) -> Failure {
    Failure {
        class,
        cause: "scripted".to_owned(),
        remedy: String::new(),
        retry_after_ms: None,
    }
}

fn id(provider: u128) -> CredentialId {
    CredentialId {
        provider: ProviderId(provider),
        key: CredentialKey::new("TOKEN").unwrap(),
    }
}

impl World {
    fn new(scripts: impl IntoIterator<Item = Script>) -> Self {
        Self::of(Settings::default(), scripts)
    }

    fn of(settings: Settings, scripts: impl IntoIterator<Item = Script>) -> Self {
        let clock = Arc::new(TokioClock::default());
        let cluster = FakeCluster::new(settings, Arc::clone(&clock));
        Self {
            cluster,
            minter: Arc::new(FakeMinter::new(scripts)),
            clock,
            dir: tempfile::tempdir().unwrap(),
        }
    }

    async fn tree(&self) -> Tree {
        self.tree_by(self.clock.clone()).await
    }

    async fn tree_by(&self, clock: Arc<dyn Clock>) -> Tree {
        Tree::start(Config {
            proposer: self.cluster.clone(),
            view: self.cluster.clone(),
            minter: self.minter.clone(),
            keyring: self.cluster.keyring(),
            clock,
            journal_dir: self.dir.path().join("journal"),
        })
        .await
        .unwrap()
    }

    /// A provider whose one credential has the refresh token `rt-0`.
    fn grant(&self, provider: u128) -> CredentialId {
        self.cluster.provider(provider, &format!("p{provider}"));
        self.configure(provider);
        id(provider)
    }

    fn configure(&self, provider: u128) {
        self.configure_with(provider, &[]);
    }

    fn configure_with(&self, provider: u128, outputs: &[(&str, &str)]) {
        let credential = id(provider);
        let material = Context::material(&credential, "refresh_token");
        let sealed = self
            .cluster
            .keyring()
            .seal(&material, &Secret::from("rt-0"))
            .unwrap();
        let answer = self.cluster.apply(Command::ConfigureRefresh {
            credential,
            config: RefreshConfig {
                outputs: outputs
                    .iter()
                    .map(|(output, key)| ((*output).to_owned(), CredentialKey::new(*key).unwrap()))
                    .collect(),
                revoke_url: "https://issuer.example/revoke".to_owned(),
                ..RefreshConfig::new(Strategy::OAuth2RefreshToken, "https://issuer.example/token")
            },
            material: BTreeMap::from([("refresh_token".to_owned(), sealed)]),
            expires_at: None,
        });
        answer.outcome.unwrap();
    }

    async fn until(&self, what: &str, id: &CredentialId, holds: impl Fn(&Credential) -> bool) {
        let credential = |s: &State| s.credentials.get(id).cloned();
        self.cluster
            .until(what, |s| credential(s).filter(|c| holds(c)))
            .await;
    }

    async fn generation(&self, id: &CredentialId, generation: u64) {
        self.until("the generation", id, |c| c.generation.0 >= generation)
            .await;
    }

    fn presented(&self) -> Vec<String> {
        let orders = self.minter.orders();
        orders.into_iter().filter_map(|(_, _, rt)| rt).collect()
    }

    fn journal(&self) -> Vec<JournalEntry> {
        Journal::open(self.dir.path().join("journal"))
            .unwrap()
            .entries()
    }
}

#[tokio::test(start_paused = true)]
async fn a_credential_is_minted_and_minted_again_before_its_end() {
    let w = World::new([mints()]);
    let id = w.grant(1);
    let tree = w.tree().await;
    w.generation(&id, 3).await;
    assert_eq!(w.presented()[..3], ["rt-0", "rt-1", "rt-2"]);
    let state = w.cluster.state();
    let value = state.credentials[&id].value.clone().unwrap();
    assert!(!value.is_expired(w.cluster.now()));
    let token = w
        .cluster
        .keyring()
        .open(&Context::value(&id, &id.key), &value.outputs[&id.key])
        .unwrap();
    assert_eq!(token.expose_str(), Some("token-3"));
    assert!(tree.shutdown(Duration::from_secs(60)).await);
    assert_eq!(w.journal(), []);
}

#[tokio::test(start_paused = true)]
async fn every_output_of_a_mint_is_sealed_under_its_own_name() {
    let w = World::new([mints()]);
    let id = w.grant(1);
    w.configure_with(1, &[("secret", "SECRET"), ("session", "SESSION")]);
    let tree = w.tree().await;
    w.generation(&id, 1).await;
    let value = w.cluster.state().credentials[&id].value.clone().unwrap();
    let clear = value.outputs.iter().map(|(name, sealed)| {
        let opened = w.cluster.keyring().open(&Context::value(&id, name), sealed);
        let secret = opened.unwrap();
        (name.to_string(), secret.expose_str().unwrap().to_owned())
    });
    let expected = [
        ("SECRET", "secret-1"),
        ("SESSION", "session-1"),
        (id.key.as_str(), "token-1"),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(clear.collect::<BTreeMap<_, _>>(), expected.into());
    assert!(tree.shutdown(Duration::from_secs(60)).await);
}

#[tokio::test(start_paused = true)]
async fn a_mint_that_lacks_an_output_fails_as_a_whole() {
    let w = World::new([mints()]);
    let id = w.grant(1);
    w.configure_with(1, &[("secret", "SECRET"), (MISSING, "MORE")]);
    let tree = w.tree().await;
    w.until("a failure", &id, |c| {
        c.refresh.as_ref().is_some_and(|r| r.failures == 1)
    })
    .await;
    let credential = w.cluster.state().credentials[&id].clone();
    assert_eq!(
        (credential.value.clone(), credential.generation.0),
        (None, 0)
    );
    let health = &credential.refresh.as_ref().unwrap().health;
    assert_eq!(health.cause, "the mint gave no missing");
    assert!(tree.shutdown(Duration::from_secs(60)).await);
}

#[tokio::test(start_paused = true)]
async fn fifty_credentials_are_minted_once_each() {
    let w = World::new([mints()]);
    let ids: Vec<_> = (1..=50).map(|n| w.grant(n)).collect();
    let tree = w.tree().await;
    for id in &ids {
        w.generation(id, 1).await;
    }
    assert_eq!(w.minter.orders().len(), 50);
    assert_eq!(w.minter.overlaps(), 0);
    assert!(tree.shutdown(Duration::from_secs(60)).await);
}

#[tokio::test(start_paused = true)]
async fn a_credential_that_is_configured_later_gets_its_actor_then() {
    let w = World::new([mints()]);
    let tree = w.tree().await;
    let id = w.grant(1);
    w.generation(&id, 1).await;
    w.configure(1);
    w.generation(&id, 2).await;
    assert_eq!(w.presented()[..2], ["rt-0", "rt-0"]);
    assert!(tree.shutdown(Duration::from_secs(60)).await);
}

#[tokio::test(start_paused = true)]
async fn a_strategy_that_panics_fails_its_own_mint_alone() {
    let w = World::new([Script::Panic, mints()]);
    let (first, second) = (w.grant(1), w.grant(2));
    let tree = w.tree().await;
    let state = w
        .cluster
        .until("one of two was minted", |s| {
            let minted = |id| s.credentials[id].generation.0 > 0;
            (minted(&first) || minted(&second)).then(|| s.clone())
        })
        .await;
    let doubts = state
        .credentials
        .values()
        .filter(|c| matches!(c.phase, Phase::InDoubt(_)));
    assert_eq!(doubts.count(), 1);
    // After the doubt it is tried again, and lives.
    w.generation(&first, 1).await;
    w.generation(&second, 1).await;
    assert!(tree.shutdown(Duration::from_secs(60)).await);
}

/// A clock that panics once when it is told to: whoever reads it next goes down.
struct Fragile(Arc<TokioClock>, AtomicBool);

impl Clock for Fragile {
    fn read(&self) -> Clocks {
        assert!(!self.1.swap(false, Ordering::Relaxed), "a planted panic");
        self.0.read()
    }
}

#[tokio::test(start_paused = true)]
async fn an_actor_that_panics_is_made_again_and_touches_no_other() {
    let w = World::new([mints()]);
    let (first, second) = (w.grant(1), w.grant(2));
    let clock = Arc::new(Fragile(w.clock.clone(), AtomicBool::new(false)));
    let tree = w.tree_by(clock.clone()).await;
    for _ in 0..4 {
        clock.1.store(true, Ordering::Relaxed);
        let minted = |id| w.cluster.state().credentials[id].generation.0;
        let next = minted(&first).max(minted(&second)) + 1;
        w.generation(&first, next).await;
        w.generation(&second, next).await;
        assert!(!clock.1.load(Ordering::Relaxed), "nobody went down");
    }
    assert_eq!(w.minter.overlaps(), 0);
    assert!(tree.shutdown(Duration::from_secs(60)).await);
}

#[tokio::test(start_paused = true)]
async fn an_actor_that_fails_after_its_shard_was_lost_still_hands_its_answer_in() {
    let w = World::new([mints()]);
    let id = w.grant(1);
    let clock = Arc::new(Fragile(w.clock.clone(), AtomicBool::new(false)));
    let tree = w.tree_by(clock.clone()).await;
    w.until("a ticket", &id, |c| c.ticket().is_some()).await;
    w.cluster.lose_leader();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let journalled = w.journal().pop().map(|entry| entry.progress);
    assert!(
        matches!(journalled, Some(Progress::Response(_))),
        "{journalled:?}"
    );
    let all = (0..w.cluster.state().settings().shards).map(ShardId);
    w.cluster.assign_all(all, SessionId(78));
    clock.1.store(true, Ordering::Relaxed);
    let gone_down = async {
        while clock.1.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), gone_down)
        .await
        .expect("its actor goes down");
    w.cluster.heal();
    w.generation(&id, 1).await;
    assert_eq!(w.presented(), ["rt-0"]);
    assert!(tree.shutdown(Duration::from_secs(60)).await);
}

#[tokio::test(start_paused = true)]
async fn a_failure_in_passing_is_retried_and_a_final_one_is_not() {
    let w = World::new([
        Script::Fail(failure(FailureClass::Transient)),
        Script::Fail(failure(FailureClass::GrantRefused)),
    ]);
    let id = w.grant(1);
    let tree = w.tree().await;
    let verdict = |v| move |c: &Credential| c.refresh.as_ref().unwrap().health.verdict == v;
    w.until("retrying", &id, verdict(Verdict::Retrying)).await;
    w.until("stopped", &id, verdict(Verdict::NeedsReauthorization))
        .await;
    tokio::time::sleep(Duration::from_secs(86_400)).await;
    assert_eq!(w.minter.orders().len(), 2);
    assert!(tree.shutdown(Duration::from_secs(60)).await);
}

#[tokio::test(start_paused = true)]
async fn the_fence_closes_when_any_clock_says_so() {
    type Push = fn(&TokioClock);
    let pushes: [(&str, Push); 3] = [
        ("time passes", |_| {}),
        ("the machine was suspended", |c| c.suspend(60_000)),
        ("the wall clock was set ahead", |c| c.set_wall_ahead(60_000)),
    ];
    for (name, push) in pushes {
        let w = World::new([Script::Hang(failure(FailureClass::Unclear)), mints()]);
        let id = w.grant(1);
        let tree = w.tree().await;
        w.until("a ticket", &id, |c| c.ticket().is_some()).await;
        push(&w.clock);
        w.until(name, &id, |c| matches!(c.phase, Phase::InDoubt(_)))
            .await;
        assert!(tree.shutdown(Duration::from_secs(60)).await);
    }
}

#[tokio::test(start_paused = true)]
async fn a_reconfiguration_cuts_the_mint_in_flight_short() {
    let w = World::new([Script::Hang(failure(FailureClass::Unclear)), mints()]);
    let id = w.grant(1);
    let tree = w.tree().await;
    w.until("a ticket", &id, |c| c.ticket().is_some()).await;
    w.configure(1);
    w.generation(&id, 1).await;
    assert_eq!(w.minter.overlaps(), 0);
    // Well before the ticket would have ended by itself.
    let state = w.cluster.state();
    let value = state.credentials[&id].value.clone().unwrap();
    assert!(w.cluster.now().since(value.issued_at) < Duration::from_secs(10));
    assert!(tree.shutdown(Duration::from_secs(60)).await);
}

#[tokio::test(start_paused = true)]
async fn a_lost_shard_finishes_what_is_in_flight_and_starts_nothing() {
    let slow = Script::Mint {
        after: Duration::from_secs(20),
        lifetime: LIFETIME,
    };
    let w = World::new([slow]);
    let id = w.grant(1);
    let tree = w.tree().await;
    w.until("a ticket", &id, |c| c.ticket().is_some()).await;
    let all = (0..w.cluster.state().settings().shards).map(ShardId);
    w.cluster.assign_all(all.clone(), SessionId(78));
    w.generation(&id, 1).await;
    tokio::time::sleep(LIFETIME * 3).await;
    assert_eq!(w.minter.orders().len(), 1);

    // Given back, it goes on.
    w.cluster.assign_all(all, SessionId(77));
    w.generation(&id, 2).await;
    assert!(tree.shutdown(Duration::from_secs(60)).await);
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_comes_back_while_it_finishes_goes_on_with_all_its_credentials() {
    let slow = Script::Mint {
        after: Duration::from_secs(20),
        lifetime: LIFETIME,
    };
    let one_shard = Settings {
        shards: 1,
        ..Settings::default()
    };
    let w = World::of(one_shard, [mints(), slow, mints()]);
    let idle = w.grant(1);
    let tree = w.tree().await;
    w.generation(&idle, 1).await;
    let busy = w.grant(2);
    w.until("a ticket", &busy, |c| c.ticket().is_some()).await;

    // The idle one has nothing to finish; the busy one keeps the shard's actor alive.
    w.cluster.assign_all([ShardId(0)], SessionId(78));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(
        w.cluster.state().credentials[&busy].generation,
        Generation(0)
    );
    w.cluster.assign_all([ShardId(0)], SessionId(77));
    w.generation(&busy, 2).await;
    w.generation(&idle, 2).await;
    assert!(tree.shutdown(Duration::from_secs(60)).await);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_without_a_leader_and_nothing_twice_when_answers_are_lost() {
    let w = World::new([mints()]);
    let id = w.grant(1);
    w.cluster.lose_leader();
    let tree = w.tree().await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(w.minter.orders().len(), 0);
    w.cluster.lose_answers();
    w.generation(&id, 1).await;
    assert_eq!(w.minter.orders().len(), 1);
    w.cluster.heal();
    w.generation(&id, 2).await;
    assert_eq!(w.presented(), ["rt-0", "rt-1"]);
    assert!(tree.shutdown(Duration::from_secs(60)).await);
}

#[tokio::test(start_paused = true)]
async fn shutting_down_lets_the_mint_in_flight_finish() {
    let slow = Script::Mint {
        after: Duration::from_secs(20),
        lifetime: LIFETIME,
    };
    let w = World::new([slow]);
    let id = w.grant(1);
    let tree = w.tree().await;
    w.until("a ticket", &id, |c| c.ticket().is_some()).await;
    assert!(tree.shutdown(Duration::from_secs(60)).await);
    assert_eq!(w.cluster.state().credentials[&id].generation, Generation(1));
}

/// A ticket that a former life of this replica left behind, in doubt by now.
fn left_behind(w: &World, ticket: TicketId) -> CredentialId {
    let id = w.grant(1);
    let state = w.cluster.state();
    let credential = &state.credentials[&id];
    let (former, now) = (SessionId(66), SessionId(77));
    w.cluster.assign_all([credential.shard], former);
    let grant = w.cluster.apply(Command::GrantTicket {
        credential: id.clone(),
        ticket,
        owner: ReplicaId(1),
        session: former,
        shard_epoch: w.cluster.state().shards[&credential.shard].epoch,
        epoch: credential.refresh.as_ref().unwrap().epoch,
        expected_generation: Generation(0),
        expected_attempt: Attempt(0),
        reason: Reason::First,
    });
    grant.outcome.unwrap();
    w.cluster.assign_all([credential.shard], now);
    w.cluster.apply(Command::ExpireTicket {
        credential: id.clone(),
        ticket,
    });
    id
}

async fn journal(w: &World, id: &CredentialId, ticket: TicketId, progress: Progress) {
    let journal = Arc::new(Journal::open(w.dir.path().join("journal")).unwrap());
    let entry = JournalEntry {
        credential: id.clone(),
        ticket,
        granted: Position(1),
        progress,
    };
    journal.write(entry).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_answer_in_the_journal_is_handed_in_after_a_restart() {
    let w = World::new([mints()]);
    let ticket = TicketId(5);
    let id = left_behind(&w, ticket);
    let keyring = w.cluster.keyring();
    let seal = |context, text: &str| keyring.seal(&context, &Secret::from(text)).unwrap();
    let mint = SealedMint {
        outputs: BTreeMap::from([(id.key.clone(), seal(Context::value(&id, &id.key), "saved"))]),
        lifetime_ms: Some(3_600_000),
        new_material: BTreeMap::from([(
            "refresh_token".to_owned(),
            seal(Context::material(&id, "refresh_token"), "rt-saved"),
        )]),
        material_lifetimes_ms: BTreeMap::new(),
    };
    journal(&w, &id, ticket, Progress::Response(mint)).await;
    let tree = w.tree().await;
    w.generation(&id, 1).await;
    assert_eq!(w.minter.orders().len(), 0);
    w.generation(&id, 2).await;
    assert_eq!(w.presented(), ["rt-saved"]);
    assert!(tree.shutdown(Duration::from_secs(60)).await);
    assert_eq!(w.journal(), []);
}

#[tokio::test(start_paused = true)]
async fn a_ticket_that_the_journal_does_not_know_is_given_back() {
    let w = World::new([mints()]);
    let ticket = TicketId(5);
    let id = left_behind(&w, ticket);
    let tree = w.tree().await;
    w.until("abandoned", &id, |c| {
        c.settled
            .as_ref()
            .is_some_and(|s| s.ticket == ticket && s.end == TicketEnd::Abandoned)
    })
    .await;
    w.generation(&id, 1).await;
    assert!(tree.shutdown(Duration::from_secs(60)).await);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_may_have_been_sent_is_not_given_back() {
    let w = World::new([mints()]);
    let ticket = TicketId(5);
    let id = left_behind(&w, ticket);
    journal(&w, &id, ticket, Progress::Sending).await;
    let since = w.cluster.now();
    let tree = w.tree().await;
    w.generation(&id, 1).await;
    let waited = w.cluster.now().since(since);
    assert!(waited >= Duration::from_millis(Settings::default().doubt_wait_ms));
    assert!(tree.shutdown(Duration::from_secs(60)).await);
}

/// Configures a grant that can be revoked, and has it minted once.
async fn revocable(w: &World) -> CredentialId {
    let id = w.grant(1);
    w.generation(&id, 1).await;
    id
}

/// Waits until every revocation has ended.
async fn told(w: &World) -> End {
    let ended = |s: &State| match &s.revocations.values().next()?.stage {
        Stage::Ended(ended) => Some(ended.end.clone()),
        Stage::Open(_) => None,
    };
    w.cluster.until("an end", ended).await
}

#[tokio::test(start_paused = true)]
async fn an_issuer_is_told_with_the_newest_tokens_and_again_if_it_cannot() {
    let w = World::new([mints()]);
    let tree = w.tree().await;
    let credential = revocable(&w).await;
    w.minter
        .refuse_revocations([failure(FailureClass::Transient)]);
    let answer = w.cluster.apply(Command::RevokeRefresh {
        credential: credential.clone(),
    });
    answer.outcome.unwrap();
    assert_eq!(told(&w).await, End::Told);
    let expected = Revoked {
        credential,
        grant: Some("rt-1".to_owned()),
        tokens: vec!["token-1".to_owned()],
    };
    assert_eq!(w.minter.revoked(), [expected.clone(), expected]);
    assert!(tree.shutdown(Duration::from_secs(60)).await);
}

#[tokio::test(start_paused = true)]
async fn a_mint_under_way_is_finished_and_what_it_brings_is_revoked() {
    let slow = Script::Mint {
        after: Duration::from_secs(5),
        lifetime: LIFETIME,
    };
    let w = World::new([mints(), slow]);
    let tree = w.tree().await;
    let credential = revocable(&w).await;
    let rotate = Command::RotateCredential {
        credential: credential.clone(),
    };
    w.cluster.apply(rotate).outcome.unwrap();
    w.until("a ticket", &credential, |c| c.ticket().is_some())
        .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let provider = Command::RevokeProvider { id: ProviderId(1) };
    w.cluster.apply(provider).outcome.unwrap();
    assert_eq!(told(&w).await, End::Told);
    let revoked = w.minter.revoked();
    assert_eq!(revoked.len(), 1);
    assert_eq!(revoked[0].grant.as_deref(), Some("rt-2"));
    assert_eq!(revoked[0].tokens, ["token-1", "token-2"]);
    assert!(tree.shutdown(Duration::from_secs(60)).await);
    assert_eq!(w.journal(), []);
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_a_former_life_is_revoked_with_the_rest() {
    let w = World::new([mints()]);
    let ticket = TicketId(5);
    let id = left_behind(&w, ticket);
    let keyring = w.cluster.keyring();
    let value = Context::value(&id, &id.key);
    let late = keyring.seal(&value, &Secret::from("late")).unwrap();
    let mint = SealedMint {
        outputs: BTreeMap::from([(id.key.clone(), late)]),
        lifetime_ms: None,
        new_material: BTreeMap::new(),
        material_lifetimes_ms: BTreeMap::new(),
    };
    journal(&w, &id, ticket, Progress::Response(mint)).await;
    let provider = Command::RevokeProvider { id: ProviderId(1) };
    w.cluster.apply(provider).outcome.unwrap();
    let tree = w.tree().await;
    assert_eq!(told(&w).await, End::Told);
    let revoked = w.minter.revoked();
    assert_eq!(revoked.last().unwrap().tokens, ["late"]);
    assert!(tree.shutdown(Duration::from_secs(60)).await);
}
