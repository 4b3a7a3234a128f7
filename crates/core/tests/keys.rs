//! Rotation of keys as the state machine sees it: what was prepared on an older state changes
//! nothing that has moved on since.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use evermint_core::admission::JoinTokenId;
use evermint_core::command::{Command, Done, Outcome, Refusal};
use evermint_core::credential::RefreshConfig;
use evermint_core::id::*;
use evermint_core::keys::{self, DATA_KEYS_MAX, Place, RESEAL_MAX, Resealed, Rewrapped};
use evermint_core::platform::SettingValue;
use evermint_core::profile::Scope;
use evermint_core::record::Key;
use evermint_core::secret::{DataKeyId, SealId, Sealed, WrappedKey};
use evermint_core::strategy::{ReplayPolicy, Strategy};
use support::*;

fn wrapped(kek: &str, nonce: u8) -> WrappedKey {
    WrappedKey {
        kek: kek.to_owned(),
        nonce: [nonce; 12],
        ciphertext: vec![nonce],
    }
}

fn add(id: u32, kek: &str) -> Command {
    Command::AddDataKey {
        id: DataKeyId(id),
        wrapped: wrapped(kek, u8::try_from(id % 200).unwrap()),
    }
}

fn rewrap(joined: u64, keys: &[(u32, u8)]) -> Command {
    let keys = keys.iter().map(|(id, from)| Rewrapped {
        key: DataKeyId(*id),
        from: [*from; 12],
        to: wrapped("next", 100 + from),
    });
    Command::RewrapDataKeys {
        joined,
        keys: keys.collect(),
    }
}

fn under(key: u32, nonce: u8) -> Sealed {
    Sealed {
        key: DataKeyId(key),
        nonce: [nonce; 12],
        ciphertext: vec![nonce],
    }
}

fn material() -> Place {
    Place::Material {
        credential: token(),
        name: "refresh_token".to_owned(),
    }
}

fn reseal(place: Place, from: (u32, u8), to: Sealed) -> Command {
    Command::Reseal {
        items: vec![Resealed {
            place,
            from: SealId {
                key: DataKeyId(from.0),
                nonce: [from.1; 12],
            },
            to,
        }],
    }
}

fn check(world: &mut World, what: &str, command: Command, expected: Outcome) {
    let before = (
        world.state.data_keys.clone(),
        world.state.credentials.clone(),
    );
    assert_eq!(world.propose(command), expected, "{what}");
    let unchanged = expected.is_err() || expected == Ok(Done::Resealed(0));
    let after = (
        world.state.data_keys.clone(),
        world.state.credentials.clone(),
    );
    assert!(!unchanged || before == after, "{what}");
}

#[test]
fn a_data_key_is_taken_if_it_is_the_next_and_wrapped_as_the_newest() {
    let mut world = World::new(ReplayPolicy::Strict);
    let no = Err(Refusal::KeysChanged);
    check(&mut world, "one that is there", add(1, "k"), no.clone());
    check(&mut world, "one too far", add(3, "k"), no.clone());
    check(&mut world, "under another KEK", add(2, "next"), no.clone());
    check(&mut world, "the next", add(2, "k"), Ok(Done::Ok));
    check(&mut world, "the same again", add(2, "k"), no);
    for id in 3..=u32::try_from(DATA_KEYS_MAX).unwrap() {
        world.done(add(id, "k"));
    }
    let too_many = Refusal::TooMany {
        what: "data keys".to_owned(),
        max: DATA_KEYS_MAX,
    };
    let next = u32::try_from(DATA_KEYS_MAX).unwrap() + 1;
    check(&mut world, "one too many", add(next, "k"), Err(too_many));
}

#[test]
fn data_keys_are_wrapped_anew_all_or_none_and_the_log_is_cut_behind_them() {
    let mut world = World::new(ReplayPolicy::Strict);
    world.done(add(2, "k"));
    let joined = world.state.meta.next_replica;
    let no = || Err(Refusal::KeysChanged);
    let both = [(1, 0), (2, 2)];
    check(
        &mut world,
        "a replica came",
        rewrap(joined - 1, &both),
        no(),
    );
    check(
        &mut world,
        "another wrapping",
        rewrap(joined, &[(1, 0), (2, 3)]),
        no(),
    );
    check(
        &mut world,
        "no such key",
        rewrap(joined, &[(1, 0), (9, 0)]),
        no(),
    );
    check(&mut world, "both", rewrap(joined, &both), Ok(Done::Ok));
    assert!(world.state.data_keys.values().all(|key| key.kek == "next"));
    let meta = &world.state.meta;
    assert_eq!(
        (meta.rewrapped, meta.destroyed),
        (meta.position, meta.position)
    );
    // Another leader prepared the same.
    check(&mut world, "again", rewrap(joined, &both), no());
    check(&mut world, "a key under the former", add(3, "k"), no());
    check(
        &mut world,
        "a key under the new one",
        add(3, "next"),
        Ok(Done::Ok),
    );
}

#[test]
fn a_secret_is_sealed_anew_only_where_nothing_has_changed_since() {
    let mut world = World::new(ReplayPolicy::Strict);
    world.done(world.claim(1));
    world.done(world.commit(1, "value"));
    world.done(add(2, "k"));
    let value = Place::Value {
        credential: token(),
        output: key("TOKEN"),
    };
    let elsewhere = Place::Value {
        credential: token(),
        output: key("OTHER"),
    };
    let before = world.token().clone();
    let none = || Ok(Done::Resealed(0));
    let one = || Ok(Done::Resealed(1));
    let to = |nonce| under(2, nonce);
    for (what, place, from, to, expected) in [
        ("another value", value.clone(), (1, 9), to(1), none()),
        ("no such output", elsewhere, (1, 0), to(1), none()),
        (
            "an unknown data key",
            value.clone(),
            (1, 0),
            under(3, 1),
            none(),
        ),
        (
            "no newer data key",
            value.clone(),
            (1, 0),
            under(1, 1),
            none(),
        ),
        (
            "no signing key",
            Place::SigningKey(SigningKeyId(1)),
            (1, 0),
            to(1),
            none(),
        ),
        ("the value", value.clone(), (1, 0), to(1), one()),
        ("the value again", value, (1, 0), to(2), none()),
        ("the material", material(), (1, 0), to(3), one()),
    ] {
        check(&mut world, what, reseal(place, from, to), expected);
    }
    // Nothing but the seals is another.
    let mut after = world.token().clone();
    after.value = before.value.clone();
    let material = before.refresh.as_ref().unwrap().material.clone();
    after.refresh.as_mut().unwrap().material = material;
    assert_eq!(after, before);
    assert_eq!(keys::sealed_under(&world.state)[&DataKeyId(2)], 2);

    // The mint under way takes its result wherever it was sealed; the next rotation finds it.
    world.done(world.claim(2));
    world.done(world.commit(2, "later"));
    assert_eq!(keys::sealed_under(&world.state)[&DataKeyId(1)], 2);
}

#[test]
fn a_batch_is_bounded() {
    let mut world = World::new(ReplayPolicy::Strict);
    world.done(add(2, "k"));
    let Command::Reseal { items } = reseal(material(), (1, 0), under(2, 1)) else {
        unreachable!()
    };
    let items = vec![items[0].clone(); RESEAL_MAX + 1];
    let too_many = Refusal::TooMany {
        what: "secrets".to_owned(),
        max: RESEAL_MAX,
    };
    check(
        &mut world,
        "too many",
        Command::Reseal { items },
        Err(too_many),
    );
}

/// In every secret of the world below, and nowhere else.
const SECRET: &str = "~secret~";

/// Which kind of record it is. The world below has one of each kind: a new kind goes in there too.
fn kind(key: &Key) -> usize {
    match key {
        Key::Meta => 0,
        Key::DataKey(_) => 1,
        Key::Replica(_) => 2,
        Key::Shard(_) => 3,
        Key::Provider(_) => 4,
        Key::Credential(_) => 5,
        Key::Route(..) => 6,
        Key::Workspace(_) => 7,
        Key::Sandbox(_) => 8,
        Key::Audit(_) => 9,
        Key::Answer(_) => 10,
        Key::SigningKey(_) => 11,
        Key::Profile(..) => 12,
        Key::Platform => 13,
        Key::Authority => 14,
        Key::JoinToken(_) => 15,
        Key::Revocation(_) => 16,
    }
}

/// One of everything that a state can hold, with a secret wherever one can be.
fn full() -> World {
    let mut w = World::new(ReplayPolicy::Strict);
    let own = Workspace::default_workspace();
    let name = |text: &str| Name::new(text).unwrap();
    w.done(Command::ConfigureRefresh {
        credential: token(),
        config: RefreshConfig {
            revoke_url: "https://issuer.example/revoke".to_owned(),
            ..config(Strategy::OAuth2ClientCredentials, ReplayPolicy::Strict)
        },
        material: BTreeMap::from([("client_secret".to_owned(), sealed(SECRET))]),
        expires_at: None,
    });
    for ticket in [1, 2] {
        let claim = w.claim(ticket);
        w.done(claim);
        let commit = w.commit(ticket, SECRET);
        w.done(commit);
        if ticket == 1 {
            w.done(Command::RevokeValue {
                credential: token(),
                grace_ms: 1_000,
            });
        }
    }
    w.done(Command::SetRoute {
        workspace: own.clone(),
        name: name("r"),
        provider: ProviderId(1),
        credential: None,
        model: "m".to_owned(),
        timeout_secs: 1,
    });
    w.done(Command::CreateWorkspace {
        id: WorkspaceId(1),
        name: Workspace::new("w").unwrap(),
        notes: Default::default(),
    });
    w.done(Command::CreateSandbox {
        id: SandboxId(1),
        workspace: own.clone(),
        name: name("s"),
        providers: vec![ProviderId(1)],
    });
    w.done(Command::AddSigningKey {
        id: SigningKeyId(1),
        replaces: None,
        public: vec![1; 32],
        private: sealed(SECRET),
    });
    w.done(Command::ImportProfiles {
        scope: Scope::Platform,
        profiles: vec![profile("mine")],
    });
    w.done(Command::SetPlatformSetting {
        key: "a".to_owned(),
        value: Some(SettingValue::Bool(true)),
    });
    w.done(Command::AddAuthority {
        certificate: vec![1],
        key: sealed(SECRET),
    });
    w.done(Command::CreateJoinToken {
        id: JoinTokenId([1; 32]),
        lifetime_ms: 60_000,
    });
    w
}

#[test]
fn every_secret_of_the_state_is_found_and_sealed_anew() {
    let mut w = full();
    let kinds: BTreeSet<usize> = w.state.keys().map(|key| kind(&key)).collect();
    assert_eq!(kinds, (0..=16).collect(), "one record of each kind");
    let stored = |w: &World| -> usize {
        let in_record = |bytes: Vec<u8>| {
            let windows = bytes.windows(SECRET.len());
            windows.filter(|at| *at == SECRET.as_bytes()).count()
        };
        w.state.records().map(|(_, bytes)| in_record(bytes)).sum()
    };
    // Value, two pieces of material; of the superseded value the token and its material; two keys.
    assert_eq!(stored(&w), 8);
    assert_eq!(keys::sealed(&w.state).count(), stored(&w));

    w.done(add(2, "k"));
    let items = keys::sealed(&w.state).zip(1..).map(|((place, from), n)| {
        let (from, to) = (from.id(), under(2, n));
        Resealed { place, from, to }
    });
    let items: Vec<_> = items.collect();
    let count = u32::try_from(items.len()).unwrap();
    assert_eq!(
        w.propose(Command::Reseal { items }),
        Ok(Done::Resealed(count))
    );
    assert_eq!(stored(&w), 0, "the retired data key's secrets are gone");
    let left = keys::sealed_under(&w.state);
    assert_eq!((left[&DataKeyId(1)], left[&DataKeyId(2)]), (0, 8));
}
