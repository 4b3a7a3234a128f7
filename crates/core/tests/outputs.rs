//! Several outputs of one mint: all or nothing, and each name once.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod support;

use std::collections::BTreeMap;

use evermint_core::command::{Command, Refusal, StaticValue};
use evermint_core::credential::RefreshConfig;
use evermint_core::id::*;
use evermint_core::strategy::{ReplayPolicy, Strategy};
use support::*;

/// A refresh whose mints have a further output, SECRET.
fn pair() -> Command {
    let mut config = config(Strategy::OAuth2ClientCredentials, ReplayPolicy::Strict);
    config.outputs = BTreeMap::from([("secret".to_owned(), key("SECRET"))]);
    Command::ConfigureRefresh {
        credential: token(),
        config,
        material: BTreeMap::new(),
        expires_at: None,
    }
}

fn set(provider: u128, name: &str, value: Option<&str>) -> Command {
    let value = value.map(|value| StaticValue {
        sealed: sealed(value),
        expires_at: None,
    });
    Command::UpdateProvider {
        id: ProviderId(provider),
        expected_version: None,
        config: BTreeMap::new(),
        credentials: BTreeMap::from([(key(name), value)]),
        expires_at: BTreeMap::new(),
    }
}

#[test]
fn the_outputs_of_a_mint_come_and_go_together() {
    let mut w = World::new(ReplayPolicy::Strict);
    w.done(pair());
    w.done(w.claim(1));
    // One that lacks an output, or has another, is refused as a whole, and may still succeed.
    for wrong in [
        &["TOKEN"][..],
        &["SECRET"],
        &["TOKEN", "SECRET", "MORE"],
        &[],
    ] {
        assert_eq!(
            w.propose(w.commit_of(1, "t1", wrong)),
            Err(Refusal::WrongOutputs),
            "{wrong:?}"
        );
        assert_eq!(w.token().value, None);
    }
    w.done(w.commit(1, "t1"));
    let names = |w: &World| -> Vec<String> {
        let value = w.token().value.clone();
        value
            .iter()
            .flat_map(|v| v.outputs.keys().map(ToString::to_string))
            .collect()
    };
    assert_eq!(names(&w), ["SECRET", "TOKEN"]);
    // Deleting the refresh keeps both values until their end, and both names.
    w.done(Command::DeleteRefresh {
        credential: token(),
    });
    assert_eq!(names(&w), ["SECRET", "TOKEN"]);
    assert_eq!(
        w.propose(set(1, "SECRET", Some("x"))),
        Err(Refusal::OutputOf {
            key: key("SECRET"),
            credential: key("TOKEN")
        })
    );
    assert_eq!(
        w.propose(set(1, "SECRET", None)),
        Err(Refusal::OutputOf {
            key: key("SECRET"),
            credential: key("TOKEN")
        })
    );
    // A static value takes the place of both; then the other name is free.
    w.done(set(1, "TOKEN", Some("static")));
    assert_eq!(names(&w), ["TOKEN"]);
    w.done(set(1, "SECRET", Some("x")));
}

#[test]
fn an_output_of_a_refresh_cannot_be_set_or_deleted_by_itself() {
    let mut w = World::new(ReplayPolicy::Strict);
    w.done(pair());
    for value in [Some("x"), None] {
        assert_eq!(
            w.propose(set(1, "SECRET", value)),
            Err(Refusal::RefreshManaged(key("SECRET")))
        );
    }
    let end = Command::UpdateProvider {
        id: ProviderId(1),
        expected_version: None,
        config: BTreeMap::new(),
        credentials: BTreeMap::new(),
        expires_at: BTreeMap::from([(key("SECRET"), None)]),
    };
    assert_eq!(w.propose(end), Err(Refusal::RefreshManaged(key("SECRET"))));
}

#[test]
fn an_output_takes_no_name_that_is_given_already() {
    // By the provider itself.
    let mut w = World::new(ReplayPolicy::Strict);
    w.done(set(1, "SECRET", Some("x")));
    assert_eq!(
        w.propose(pair()),
        Err(Refusal::OutputOf {
            key: key("SECRET"),
            credential: key("SECRET")
        })
    );
    w.done(set(1, "SECRET", None));
    w.done(pair());
    let Command::ConfigureRefresh {
        config, material, ..
    } = pair()
    else {
        unreachable!()
    };
    let on_the_output = Command::ConfigureRefresh {
        credential: CredentialId {
            provider: ProviderId(1),
            key: key("SECRET"),
        },
        config: RefreshConfig {
            outputs: BTreeMap::new(),
            ..config.clone()
        },
        material: material.clone(),
        expires_at: None,
    };
    assert_eq!(
        w.propose(on_the_output),
        Err(Refusal::OutputOf {
            key: key("SECRET"),
            credential: key("TOKEN")
        })
    );
    let twice = BTreeMap::from([("secret".to_owned(), key("TOKEN"))]);
    let twice = Command::ConfigureRefresh {
        credential: token(),
        config: RefreshConfig {
            outputs: twice,
            ..config
        },
        material,
        expires_at: None,
    };
    assert_eq!(
        w.propose(twice),
        Err(Refusal::OutputOf {
            key: key("TOKEN"),
            credential: key("TOKEN")
        })
    );

    // By another provider of the same sandbox, whichever comes first.
    w.done(create_provider(2, "q"));
    w.done(set(2, "SECRET", Some("x")));
    let sandbox = |id: u128, providers: &[u128]| Command::CreateSandbox {
        id: SandboxId(id),
        workspace: Workspace::default_workspace(),
        name: Name::new(format!("s{id}")).unwrap(),
        providers: providers.iter().map(|p| ProviderId(*p)).collect(),
    };
    let taken = |by: &str| {
        Err(Refusal::KeyCollision {
            key: key("SECRET"),
            provider: Name::new(by).unwrap(),
        })
    };
    assert_eq!(w.propose(sandbox(1, &[1, 2])), taken("p"));
    w.done(Command::DeleteRefresh {
        credential: token(),
    });
    w.done(sandbox(1, &[1, 2]));
    assert_eq!(w.propose(pair()), taken("q"));
}
