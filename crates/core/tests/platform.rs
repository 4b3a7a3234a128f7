//! What OpenShell's clients keep here: workspaces as objects, notes, and settings of the platform.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod support;

use std::collections::BTreeMap;

use evermint_core::command::{Command, Done, Kind, Refusal};
use evermint_core::id::*;
use evermint_core::platform::SettingValue;
use evermint_core::provider::{Notes, limit};
use evermint_core::state::State;
use evermint_core::strategy::ReplayPolicy;
use support::*;

fn world() -> World {
    World::new(ReplayPolicy::Strict)
}

fn workspace(name: &str) -> Workspace {
    Workspace::new(name).unwrap()
}

fn notes(labels: usize) -> Notes {
    let label = |n| (format!("l{n}"), "x".to_owned());
    Notes {
        labels: (0..labels).map(label).collect(),
        annotations: BTreeMap::from([("note".to_owned(), "y".to_owned())]),
        profile_workspace: None,
    }
}

fn create(name: &str, labels: usize) -> Command {
    Command::CreateWorkspace {
        id: WorkspaceId(1),
        name: workspace(name),
        notes: notes(labels),
    }
}

/// What a snapshot would bring back.
#[track_caller]
fn check_stored(w: &World) {
    let stored = State::from_records(w.state.records()).unwrap();
    assert_eq!(stored.hash(), w.state.hash());
    assert_eq!(stored.platform, w.state.platform);
    assert_eq!(stored.workspaces, w.state.workspaces);
}

#[test]
fn a_workspace_is_created_once_and_outlives_what_is_in_it() {
    let mut w = world();
    assert!(!w.state.has_workspace(&workspace("red")));
    for (name, labels, outcome) in [
        (
            "red",
            limit::NOTES + 1,
            Err(Refusal::TooMany {
                what: "labels".to_owned(),
                max: limit::NOTES,
            }),
        ),
        ("red", 2, Ok(Done::Version(1))),
        ("red", 2, Err(Refusal::AlreadyExists(Kind::Workspace))),
        ("default", 0, Err(Refusal::AlreadyExists(Kind::Workspace))),
    ] {
        assert_eq!(w.propose(create(name, labels)), outcome, "{name}");
    }
    assert!(w.state.has_workspace(&workspace("red")));
    check_stored(&w);

    // A deleted route leaves a mark on its workspace, and the object as it was.
    let provider = Command::CreateProvider {
        id: ProviderId(7),
        workspace: workspace("red"),
        name: Name::new("p").unwrap(),
        kind: ProviderType::new("openai").unwrap(),
        config: BTreeMap::new(),
        notes: notes(1),
        credentials: BTreeMap::new(),
    };
    w.done(provider);
    let name = Name::new("inference.local").unwrap();
    w.done(Command::SetRoute {
        workspace: workspace("red"),
        name: name.clone(),
        provider: ProviderId(7),
        credential: None,
        model: "m".to_owned(),
        timeout_secs: 0,
    });
    w.done(Command::DeleteRoute {
        workspace: workspace("red"),
        name,
    });
    assert_eq!(w.state.providers[&ProviderId(7)].notes, notes(1));
    let marks = w.state.marks(&workspace("red"));
    assert_eq!(marks.object.unwrap().notes, notes(2));
    assert!(marks.route_deleted > Position(0));
}

#[test]
fn a_workspace_that_holds_something_is_there() {
    let mut w = world();
    for (name, there) in [("default", true), ("blue", false)] {
        assert_eq!(w.state.has_workspace(&workspace(name)), there, "{name}");
    }
    w.done(Command::CreateSandbox {
        id: SandboxId(1),
        workspace: workspace("blue"),
        name: Name::new("s").unwrap(),
        providers: Vec::new(),
    });
    assert!(w.state.has_workspace(&workspace("blue")));
    let taken = Err(Refusal::AlreadyExists(Kind::Workspace));
    assert_eq!(w.propose(create("blue", 0)), taken);
    for near in ["blu", "bluer"] {
        assert!(!w.state.has_workspace(&workspace(near)), "{near}");
    }
}

#[test]
fn a_setting_counts_its_changes() {
    let mut w = world();
    let set = |key: &str, value| Command::SetPlatformSetting {
        key: key.to_owned(),
        value,
    };
    let on = || Some(SettingValue::Bool(true));
    for (command, changes, revision) in [
        (set("a", on()), true, 1),
        (set("a", on()), false, 1),
        (set("a", Some(SettingValue::Text("x".to_owned()))), true, 2),
        (set("b", None), false, 2),
        (set("a", None), true, 3),
    ] {
        let text = format!("{command:?}");
        assert_eq!(w.propose(command), Ok(Done::Changed(changes)), "{text}");
        assert_eq!(w.state.platform.revision, revision, "{text}");
        check_stored(&w);
    }
}
