//! What operators may do, and what they are refused.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod support;

use std::collections::BTreeMap;

use evermint_core::audit::{Origin, REFUSED_MAX, RefusedCalls, TEXT_MAX};
use evermint_core::bundle;
use evermint_core::command::{Command, Done, Kind, Proposal, Refusal, StaticValue};
use evermint_core::id::*;
use evermint_core::settings::Settings;
use evermint_core::signing;
use evermint_core::strategy::{ReplayPolicy, Strategy};
use evermint_core::time::UnixMs;
use support::*;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn static_value(text: &str) -> StaticValue {
    StaticValue {
        sealed: sealed(text),
        expires_at: None,
    }
}

fn update(id: u128, credentials: &[(&str, Option<&str>)]) -> Command {
    Command::UpdateProvider {
        id: ProviderId(id),
        expected_version: None,
        config: BTreeMap::new(),
        credentials: credentials
            .iter()
            .map(|(k, v)| (key(k), v.map(static_value)))
            .collect(),
        expires_at: BTreeMap::new(),
    }
}

fn create_sandbox(id: u128, providers: &[u128]) -> Command {
    Command::CreateSandbox {
        id: SandboxId(id),
        workspace: Workspace::default_workspace(),
        name: name(&format!("s{id}")),
        providers: providers.iter().map(|p| ProviderId(*p)).collect(),
    }
}

fn set_route(provider: u128) -> Command {
    Command::SetRoute {
        workspace: Workspace::default_workspace(),
        name: name("inference.local"),
        provider: ProviderId(provider),
        credential: None,
        model: "m".to_owned(),
        timeout_secs: 0,
    }
}

fn world() -> World {
    World::new(ReplayPolicy::Strict)
}

#[test]
fn nothing_happens_before_the_bootstrap_and_it_happens_once() {
    let mut w = World::empty();
    assert_eq!(
        w.propose(create_provider(1, "p")),
        Err(Refusal::NotBootstrapped)
    );
    assert_eq!(w.propose(bootstrap()), Ok(Done::Replica(ReplicaId(1))));
    assert_eq!(w.propose(bootstrap()), Err(Refusal::AlreadyBootstrapped));
}

#[test]
fn a_proposal_that_arrives_twice_is_applied_once() {
    let mut w = world();
    let proposal = Proposal {
        by: None,
        request: RequestId(999),
        command: create_provider(2, "q"),
    };
    assert_eq!(w.apply(&proposal), Ok(Done::Version(1)));
    assert_eq!(w.apply(&proposal), Ok(Done::Version(1)));
    let other = Proposal {
        by: None,
        request: RequestId(998),
        ..proposal
    };
    assert_eq!(w.apply(&other), Err(Refusal::AlreadyExists(Kind::Provider)));
}

#[test]
fn a_replica_keeps_its_id_and_a_wiped_one_gets_another() {
    let mut w = world();
    let mut register = |installation| {
        w.propose(Command::RegisterReplica {
            installation: InstallationId(installation),
            peer_address: "a:1".to_owned(),
            api_address: "http://a:2".to_owned(),
        })
    };
    assert_eq!(register(1), Ok(Done::Replica(ReplicaId(1))));
    assert_eq!(register(2), Ok(Done::Replica(ReplicaId(2))));
    assert_eq!(register(2), Ok(Done::Replica(ReplicaId(2))));
    assert_eq!(
        w.propose(Command::RemoveReplica {
            replica: ReplicaId(2)
        }),
        Ok(Done::Changed(true))
    );
    let mut register = |installation| {
        w.propose(Command::RegisterReplica {
            installation: InstallationId(installation),
            peer_address: "a:1".to_owned(),
            api_address: "http://a:2".to_owned(),
        })
    };
    assert_eq!(register(3), Ok(Done::Replica(ReplicaId(3))));
}

#[test]
fn a_placement_is_changed_by_one_at_a_time() {
    let mut w = world();
    let moves = vec![(ShardId(0), REPLICA, SESSION)];
    assert_eq!(
        w.propose(Command::AssignShards { based_on: 0, moves }),
        Err(Refusal::PlacementChanged(1))
    );
    for (shard, replica, kind) in [(9_999, 1, Kind::Shard), (0, 9, Kind::Replica)] {
        assert_eq!(
            w.propose(Command::AssignShards {
                based_on: 1,
                moves: vec![(ShardId(shard), ReplicaId(replica), SESSION)],
            }),
            Err(Refusal::NotFound(kind))
        );
    }
}

#[test]
fn versions_guard_against_concurrent_writers() {
    let mut w = world();
    let mut stale = update(1, &[("A", Some("a"))]);
    if let Command::UpdateProvider {
        expected_version, ..
    } = &mut stale
    {
        *expected_version = Some(7);
    }
    let current = w.state.providers[&ProviderId(1)].version;
    assert_eq!(
        w.propose(stale),
        Err(Refusal::VersionMismatch {
            kind: Kind::Provider,
            current
        })
    );
}

#[test]
fn an_update_merges_and_never_touches_what_a_refresh_manages() {
    let mut w = world();
    w.done(update(1, &[("A", Some("a")), ("B", Some("b"))]));
    let before = w.state.clone();
    assert_eq!(
        w.propose(update(1, &[("A", None), ("TOKEN", Some("x"))])),
        Err(Refusal::RefreshManaged(key("TOKEN")))
    );
    assert_eq!(w.state.providers, before.providers);
    assert_eq!(w.state.credentials, before.credentials);
    w.done(update(1, &[("A", None)]));
    let keys: Vec<_> = w.state.providers[&ProviderId(1)]
        .credentials
        .iter()
        .map(CredentialKey::as_str)
        .collect();
    assert_eq!(keys, ["B", "TOKEN"]);
}

#[test]
fn the_end_of_a_static_value_can_be_set_alone() {
    let mut w = world();
    w.done(update(1, &[("A", Some("a"))]));
    let end = UnixMs(w.now.0 + 10);
    w.done(Command::UpdateProvider {
        id: ProviderId(1),
        expected_version: None,
        config: BTreeMap::new(),
        credentials: BTreeMap::new(),
        expires_at: BTreeMap::from([(key("A"), Some(end))]),
    });
    let id = CredentialId {
        provider: ProviderId(1),
        key: key("A"),
    };
    let value = w.state.credentials[&id].value.clone().unwrap();
    assert!(!value.is_expired(w.now) && value.is_expired(end));
}

#[test]
fn a_provider_in_use_is_not_deleted() {
    let mut w = world();
    w.done(create_sandbox(1, &[1]));
    w.done(set_route(1));
    assert_eq!(
        w.propose(Command::DeleteProvider { id: ProviderId(1) }),
        Err(Refusal::InUse {
            kind: Kind::Provider,
            by: "sandbox s1, route inference.local".to_owned()
        })
    );
    w.done(Command::DeleteSandbox { id: SandboxId(1) });
    w.done(Command::DeleteRoute {
        workspace: Workspace::default_workspace(),
        name: name("inference.local"),
    });
    w.done(Command::DeleteProvider { id: ProviderId(1) });
    assert!(w.state.credentials.is_empty());
    assert_eq!(
        w.propose(Command::DeleteProvider { id: ProviderId(1) }),
        Ok(Done::Changed(false))
    );
}

#[test]
fn a_sandbox_gets_each_key_from_one_provider() {
    let mut w = world();
    w.done(create_provider(2, "q"));
    w.done(update(2, &[("B", Some("b"))]));
    w.done(create_sandbox(1, &[1, 2]));
    let collision = |provider: &str| {
        Err(Refusal::KeyCollision {
            key: key("TOKEN"),
            provider: name(provider),
        })
    };
    assert_eq!(
        w.propose(update(2, &[("TOKEN", Some("x"))])),
        collision("p")
    );
    w.done(create_provider(3, "r"));
    w.done(update(3, &[("TOKEN", Some("x"))]));
    assert_eq!(
        w.propose(Command::AttachProvider {
            sandbox: SandboxId(1),
            provider: ProviderId(3),
            expected_version: None
        }),
        collision("p")
    );
}

#[test]
fn a_bundle_grows_newer_with_every_change_that_a_sandbox_sees() {
    let mut w = world();
    w.done(create_sandbox(1, &[]));
    let generation = |w: &World| {
        bundle::inputs(&w.state, SandboxId(1))
            .map(|i| i.generation)
            .unwrap()
    };
    let attach = Command::AttachProvider {
        sandbox: SandboxId(1),
        provider: ProviderId(1),
        expected_version: None,
    };
    let detach = Command::DetachProvider {
        sandbox: SandboxId(1),
        provider: ProviderId(1),
        expected_version: None,
    };
    let delete_route = Command::DeleteRoute {
        workspace: Workspace::default_workspace(),
        name: name("inference.local"),
    };
    let steps: Vec<(Command, bool)> = vec![
        (attach, true),
        (w.claim(1), false),
        (w.commit(1, "t1"), true),
        (create_provider(5, "unrelated"), false),
        (set_route(1), true),
        (update(1, &[("A", Some("a"))]), true),
        (update(1, &[("A", None)]), true),
        (delete_route, true),
        (detach, true),
    ];
    for (command, newer) in steps {
        let text = format!("{command:?}");
        let before = generation(&w);
        w.done(command);
        assert_eq!(generation(&w) > before, newer, "{text}");
    }
}

#[test]
fn what_destroys_secrets_is_remembered_so_that_the_log_follows() {
    let mut w = world();
    w.done(create_provider(2, "q"));
    let rotate = Command::RotateCredential {
        credential: token(),
    };
    let configure = Command::ConfigureRefresh {
        credential: token(),
        config: config(Strategy::OAuth2RefreshToken, ReplayPolicy::Strict),
        material: BTreeMap::new(),
        expires_at: None,
    };
    let delete_refresh = Command::DeleteRefresh {
        credential: token(),
    };
    let steps: Vec<(Command, bool)> = vec![
        (rotate, false),
        (configure, true),
        (delete_refresh.clone(), true),
        (delete_refresh, false),
        (update(2, &[("A", Some("a"))]), false),
        (update(2, &[("A", Some("b"))]), true),
        (update(2, &[("A", None)]), true),
        (Command::DeleteProvider { id: ProviderId(2) }, true),
        (Command::DeleteProvider { id: ProviderId(2) }, false),
    ];
    for (command, destroys) in steps {
        let text = format!("{command:?}");
        w.done(command);
        let meta = &w.state.meta;
        assert_eq!(meta.destroyed == meta.position, destroys, "{text}");
    }
}

#[test]
fn one_key_signs_and_its_predecessor_is_kept() {
    let mut w = world();
    let add = |id, replaces: Option<u128>| Command::AddSigningKey {
        id: SigningKeyId(id),
        replaces: replaces.map(SigningKeyId),
        public: vec![1; 32],
        private: sealed("key"),
    };
    let newest = |w: &World| signing::newest(&w.state).map(|key| key.id.0);
    for (command, outcome, signs) in [
        (add(9, Some(8)), Err(Refusal::SigningKeyReplaced), None),
        (add(5, None), Ok(Done::Ok), Some(5)),
        // Two replicas found none: one of them comes second.
        (add(6, None), Err(Refusal::SigningKeyReplaced), Some(5)),
        (add(5, None), Ok(Done::Ok), Some(5)),
        (add(3, Some(5)), Ok(Done::Ok), Some(3)),
        (add(4, Some(3)), Ok(Done::Ok), Some(4)),
    ] {
        let text = format!("{command:?}");
        assert_eq!(w.propose(command), outcome, "{text}");
        assert_eq!(newest(&w), signs, "{text}");
    }
    let kept: Vec<u128> = w.state.signing_keys.keys().map(|id| id.0).collect();
    assert_eq!(kept, [3, 4], "the oldest went");
}

#[test]
fn revoked_tokens_belong_to_an_older_epoch() {
    let mut w = world();
    w.done(create_sandbox(1, &[]));
    let epoch = |w: &World| w.state.sandboxes[&SandboxId(1)].token_epoch;
    let before = epoch(&w);
    w.done(Command::RevokeSandboxTokens { id: SandboxId(1) });
    assert_eq!(epoch(&w), before + 1);
    let unknown = Command::RevokeSandboxTokens { id: SandboxId(2) };
    assert_eq!(w.propose(unknown), Err(Refusal::NotFound(Kind::Sandbox)));
}

#[test]
fn limits_are_kept() {
    let mut w = world();
    let many: Vec<String> = (0..33).map(|i| format!("K{i}")).collect();
    let many: Vec<(&str, Option<&str>)> = many.iter().map(|k| (k.as_str(), Some("v"))).collect();
    assert!(matches!(
        w.propose(update(1, &many)),
        Err(Refusal::TooMany { max: 32, .. })
    ));
}

#[test]
fn the_audit_trail_is_bounded_by_number_and_age_and_goes_on_from_what_was_dropped() {
    let mut world = World::empty();
    let settings = Settings {
        audit_retention: 100,
        audit_max_age_ms: 3_600_000,
        ..Settings::default()
    };
    let Command::Bootstrap {
        data_key,
        wrapped,
        installation,
        peer_address,
        api_address,
        ..
    } = bootstrap()
    else {
        unreachable!()
    };
    world.done(Command::Bootstrap {
        settings,
        data_key,
        wrapped,
        installation,
        peer_address,
        api_address,
    });
    // `World` checks after every step that the chain goes on.
    for n in 1..=300 {
        world.done(create_provider(n, &format!("p{n}")));
    }
    assert_eq!(world.state.audit.len(), 100);
    let head = world.state.meta.audit_head;
    assert_eq!(
        (head.number, world.state.meta.audit_anchor.number),
        (302, 202)
    );
    world.wait(3_600_001);
    for n in 301..=303 {
        world.done(create_provider(n, &format!("p{n}")));
    }
    assert_eq!(world.state.audit.len(), 3);
    assert_eq!(world.state.meta.audit_anchor.number, 302);
    assert_eq!(world.state.meta.audit_anchor, head);
}

#[test]
fn refused_calls_are_recorded_with_their_callers_and_in_bounds() {
    let mut world = World::new(ReplayPolicy::Strict);
    let call = |who: &str| {
        let by = Origin {
            who: who.to_owned(),
            from: "10.0.0.1".to_owned(),
            replica: REPLICA,
        };
        let refused = RefusedCalls {
            method: "/m".to_owned(),
            reason: "denied".to_owned(),
            count: 3,
            since: START,
        };
        (by, refused)
    };
    let before = world.state.meta.audit_head.number;
    let calls = vec![call("a"), call(&"x".repeat(TEXT_MAX + 1)), call("b")];
    world.done(Command::RecordRefusals { calls });
    let records: Vec<_> = world.state.audit.range(before + 1..).collect();
    let who: Vec<_> = records
        .iter()
        .map(|(_, r)| r.by.as_ref().unwrap().who.as_str())
        .collect();
    assert_eq!(who, ["a", "b"]);
    let calls = vec![call("a"); REFUSED_MAX + 1];
    let refused = world.propose(Command::RecordRefusals { calls });
    assert!(matches!(refused, Err(Refusal::TooMany { .. })));
}
