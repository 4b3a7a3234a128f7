//! Imported profiles: who may use which, and what a change of one means for sandboxes.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod support;

use evermint_core::bundle;
use evermint_core::command::{Command, Done, Kind, Refusal};
use evermint_core::id::*;
use evermint_core::profile::catalog::Catalog;
use evermint_core::profile::{Profile, Scope, limit};
use evermint_core::strategy::ReplayPolicy;
use support::*;

fn own() -> Scope {
    Scope::Workspace(Workspace::default_workspace())
}

fn import(scope: Scope, ids: &[&str]) -> Command {
    Command::ImportProfiles {
        scope,
        profiles: ids.iter().map(|id| profile(id)).collect(),
    }
}

fn delete(scope: Scope, id: &str) -> Command {
    Command::DeleteProfile {
        scope,
        id: ProfileId::new(id).unwrap(),
    }
}

fn update(scope: Scope, id: &str, expected_version: Option<u64>) -> Command {
    Command::UpdateProfile {
        scope,
        profile: Profile {
            description: "new".to_owned(),
            ..profile(id)
        },
        expected_version,
    }
}

#[test]
fn an_import_takes_all_or_none() {
    let mut w = World::new(ReplayPolicy::Strict);
    w.done(import(Scope::Platform, &["a", "b"]));
    for ids in [&["c", "b"][..], &["c", "c"]] {
        assert_eq!(
            w.propose(import(Scope::Platform, ids)),
            Err(Refusal::AlreadyExists(Kind::Profile))
        );
    }
    assert_eq!(w.state.profiles_in(Scope::Platform).count(), 2);
    // Another scope has names of its own.
    w.done(import(own(), &["a"]));
    let many: Vec<String> = (0..=limit::IMPORT).map(|i| format!("m{i}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert!(matches!(
        w.propose(import(own(), &many)),
        Err(Refusal::TooMany { .. })
    ));
}

#[test]
fn an_update_wants_the_version_that_it_knows() {
    let mut w = World::new(ReplayPolicy::Strict);
    assert_eq!(
        w.propose(update(Scope::Platform, "a", None)),
        Err(Refusal::NotFound(Kind::Profile))
    );
    w.done(import(Scope::Platform, &["a"]));
    assert_eq!(
        w.propose(update(Scope::Platform, "a", Some(1))),
        Ok(Done::Version(2))
    );
    assert_eq!(
        w.propose(update(Scope::Platform, "a", Some(1))),
        Err(Refusal::VersionMismatch {
            kind: Kind::Profile,
            current: 2
        })
    );
}

#[test]
fn a_profile_in_use_is_not_deleted_under_its_providers() {
    let mut w = World::new(ReplayPolicy::Strict);
    w.done(import(Scope::Platform, &["generic"]));
    let in_use = Err(Refusal::InUse {
        kind: Kind::Profile,
        by: w
            .state
            .providers
            .values()
            .next()
            .map(|p| format!("provider default/{}", p.name))
            .unwrap(),
    });
    assert_eq!(w.propose(delete(Scope::Platform, "generic")), in_use);
    // The workspace's own one stands before it; then that one is in use, and no more the other.
    w.done(import(own(), &["generic"]));
    assert_eq!(w.propose(delete(own(), "generic")), in_use);
    w.done(delete(Scope::Platform, "generic"));
    assert_eq!(w.propose(delete(own(), "generic")), in_use);
    w.done(Command::DeleteProvider { id: ProviderId(1) });
    w.done(delete(own(), "generic"));
    assert_eq!(
        w.propose(delete(own(), "generic")),
        Ok(Done::Changed(false))
    );
}

#[test]
fn bundles_grow_newer_with_the_profile_that_counts() {
    let mut w = World::new(ReplayPolicy::Strict);
    w.done(Command::CreateSandbox {
        id: SandboxId(1),
        workspace: Workspace::default_workspace(),
        name: Name::new("s1").unwrap(),
        providers: vec![ProviderId(1)],
    });
    let generation = |w: &World| bundle::inputs(&w.state, SandboxId(1)).unwrap().generation;
    let mut check = |command: Command, grows: bool| {
        let before = generation(&w);
        w.done(command);
        assert_eq!(generation(&w) == w.state.meta.position, grows);
        assert!(generation(&w) >= before);
    };
    check(import(Scope::Platform, &["generic"]), true);
    check(import(Scope::Platform, &["other"]), false);
    check(update(Scope::Platform, "other", None), false);
    check(update(Scope::Platform, "generic", None), true);
    check(import(own(), &["generic"]), true);
    check(update(Scope::Platform, "generic", None), false);
    check(update(own(), "generic", None), true);
    check(delete(Scope::Platform, "generic"), false);
}

#[test]
fn an_alias_is_replaced_by_the_id_that_counts() {
    let mut w = World::new(ReplayPolicy::Strict);
    let named = |id: &str, alias: &str| Profile {
        aliases: vec![ProfileId::new(alias).unwrap()],
        ..profile(id)
    };
    let catalog = Catalog::new([named("built-in", "short"), named("long", "built")]);
    w.done(Command::ImportProfiles {
        scope: own(),
        profiles: vec![named("mine", "my"), named("my-short", "short")],
    });
    let default = Workspace::default_workspace();
    let other = Workspace::new("other").unwrap();
    for (workspace, written, meant) in [
        (&default, "built-in", "built-in"),
        (&default, "BUILT-IN", "built-in"),
        (&default, "short", "my-short"),
        (&default, "My", "mine"),
        (&other, "short", "built-in"),
        (&other, "my", "my"),
        (&other, "No.Profile_id", "No.Profile_id"),
    ] {
        let written = ProviderType::new(written).unwrap();
        let canonical = catalog.canonical(&w.state, workspace, &written);
        assert_eq!(canonical.as_str(), meant, "{written} in {workspace}");
    }
    let ids: Vec<(String, u64)> = catalog
        .list(&w.state, Some(&default))
        .iter()
        .map(|found| (found.profile().id.to_string(), found.version()))
        .collect();
    let ids: Vec<(&str, u64)> = ids.iter().map(|(id, v)| (id.as_str(), *v)).collect();
    assert_eq!(
        ids,
        [("built-in", 0), ("long", 0), ("mine", 1), ("my-short", 1)]
    );
}
