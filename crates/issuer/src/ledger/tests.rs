//! The rules, case by case.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// A ledger with one client `c`, its family and its first refresh token.
fn ledger(client: Client) -> (Ledger, Secret) {
    let mut ledger = Ledger::new(Policy::default());
    ledger.register(client);
    let (_, token) = ledger.seed(Duration::ZERO, "c");
    (ledger, token)
}

fn refresh(ledger: &mut Ledger, at: Duration, token: &Secret) -> Result<Minted, Refusal> {
    ledger.refresh(at, 1, "c", token.digest())
}

fn rotated(ledger: &mut Ledger, at: Duration, token: &Secret) -> Secret {
    refresh(ledger, at, token)
        .ok()
        .and_then(|minted| minted.refresh)
        .expect("the token lives")
}

#[test]
fn each_refresh_rotates_and_counts_one_generation() {
    let (mut ledger, mut token) = ledger(Client::new("c"));
    for generation in 1..=3 {
        let minted = refresh(&mut ledger, SECOND, &token).ok().unwrap();
        assert_eq!(minted.generation, generation);
        token = minted.refresh.unwrap();
    }
    let family = ledger.families().next().unwrap();
    assert!(family.is_alive());
    assert_eq!(
        family.mints,
        BTreeMap::from([(0, 1), (1, 1), (2, 1), (3, 1)])
    );
}

#[test]
fn reuse_kills_the_newest_refresh_token_and_every_access_token() {
    let (mut ledger, first) = ledger(Client::new("c"));
    let minted = refresh(&mut ledger, SECOND, &first).ok().unwrap();
    assert!(ledger.active(SECOND, minted.access.expose()).is_some());

    let refusal = refresh(&mut ledger, SECOND, &first).err().unwrap();
    assert!(refusal.reuse);
    assert!(ledger.active(SECOND, minted.access.expose()).is_none());
    let newest = refresh(&mut ledger, SECOND, &minted.refresh.unwrap())
        .err()
        .unwrap();
    assert_eq!(newest.code, Code::InvalidGrant);
    assert!(
        !newest.reuse,
        "the newest was not reused; its family is dead"
    );
}

#[test]
fn without_detection_reuse_is_refused_and_the_family_lives() {
    let (mut ledger, first) = ledger(Client::new("c").rotation(Rotation::SingleUseNoDetection));
    let second = rotated(&mut ledger, SECOND, &first);
    assert!(refresh(&mut ledger, SECOND, &first).err().unwrap().reuse);
    assert!(refresh(&mut ledger, SECOND, &second).is_ok());
}

#[test]
fn grace_allows_the_token_shown_last_until_it_ends() {
    let (mut ledger, first) = ledger(Client::new("c").grace(10 * SECOND));
    let _lost = rotated(&mut ledger, SECOND, &first);
    let second = rotated(&mut ledger, 11 * SECOND, &first);
    assert_eq!(ledger.families().next().unwrap().forks, 1);
    rotated(&mut ledger, 12 * SECOND, &second);
    assert!(
        refresh(&mut ledger, 12 * SECOND, &first)
            .err()
            .unwrap()
            .reuse,
        "no longer the last one shown"
    );
    assert!(!ledger.families().next().unwrap().is_alive());
}

#[test]
fn grace_that_has_passed_is_reuse() {
    let (mut ledger, first) = ledger(Client::new("c").grace(10 * SECOND));
    rotated(&mut ledger, SECOND, &first);
    assert!(
        refresh(&mut ledger, Duration::from_millis(11_001), &first)
            .err()
            .unwrap()
            .reuse
    );
}

#[test]
fn showing_one_sibling_spends_the_others() {
    let (mut ledger, first) = ledger(Client::new("c").grace(10 * SECOND));
    let lost = rotated(&mut ledger, SECOND, &first);
    let kept = rotated(&mut ledger, SECOND, &first);
    rotated(&mut ledger, SECOND, &kept);
    assert!(refresh(&mut ledger, SECOND, &lost).err().unwrap().reuse);
}

#[test]
fn a_replayable_token_stays_good_and_its_replay_is_counted() {
    let (mut ledger, first) = ledger(Client::new("c").rotation(Rotation::Replayable));
    rotated(&mut ledger, SECOND, &first);
    rotated(&mut ledger, 2 * SECOND, &first);
    assert_eq!(ledger.families().next().unwrap().forks, 1);
}

#[test]
fn without_rotation_no_refresh_token_comes_back() {
    let (mut ledger, first) = ledger(Client::new("c").rotation(Rotation::Off));
    for generation in 1..=2 {
        let minted = refresh(&mut ledger, SECOND, &first).ok().unwrap();
        assert!(minted.refresh.is_none());
        assert_eq!(minted.generation, generation);
    }
}

#[test]
fn another_clients_refresh_token_is_refused_and_harms_nothing() {
    let (mut ledger, first) = ledger(Client::new("c"));
    ledger.register(Client::new("thief"));
    let refusal = ledger
        .refresh(SECOND, 1, "thief", first.digest())
        .err()
        .unwrap();
    assert_eq!(refusal.code, Code::InvalidGrant);
    assert!(refresh(&mut ledger, SECOND, &first).is_ok());
}

#[test]
fn tokens_end_with_their_lifetimes() {
    let (mut ledger, first) = ledger(
        Client::new("c")
            .access_ttl(5 * SECOND)
            .refresh_ttl(20 * SECOND),
    );
    let minted = refresh(&mut ledger, SECOND, &first).ok().unwrap();
    assert!(
        ledger
            .active(Duration::from_millis(5_999), minted.access.expose())
            .is_some()
    );
    assert!(ledger.active(6 * SECOND, minted.access.expose()).is_none());
    let refusal = refresh(&mut ledger, 21 * SECOND, &minted.refresh.unwrap())
        .err()
        .unwrap();
    assert_eq!(refusal.description, "the refresh token has expired");
}

#[test]
fn a_client_without_refresh_tokens_has_one_standing_family() {
    let (mut ledger, _) = ledger(Client::new("c"));
    let first = ledger.direct(SECOND, "cc", "client_credentials");
    let second = ledger.direct(SECOND, "cc", "client_credentials");
    assert_eq!((first.generation, second.generation), (1, 2));
    assert_eq!(first.grant_id, second.grant_id);
    assert!(ledger.revoke(1, &first.grant_id));
    assert!(ledger.active(SECOND, second.access.expose()).is_none());
    assert_ne!(
        ledger.direct(SECOND, "cc", "client_credentials").grant_id,
        first.grant_id
    );
}

#[test]
fn expired_access_tokens_are_forgotten() {
    let (mut ledger, _) = ledger(Client::new("c"));
    for _ in 0..ACCESS_TOKENS_SWEPT_FROM {
        ledger.direct(Duration::ZERO, "cc", "client_credentials");
    }
    ledger.direct(3600 * SECOND, "cc", "client_credentials");
    assert_eq!(ledger.access.len(), 1);
}
