//! What a sandbox's environment is made of, and what its handles depend on.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod support;

use std::collections::BTreeMap;

use evermint_core::bundle;
use evermint_core::command::{Command, StaticValue};
use evermint_core::environment::{Environment, environment};
use evermint_core::id::*;
use evermint_core::profile::catalog::Catalog;
use evermint_core::profile::{Category, ConfigKey, Discovery, Endpoint, Format, Profile};
use evermint_core::strategy::{ReplayPolicy, Strategy};
use support::*;

const SANDBOX: SandboxId = SandboxId(1);

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn provider(id: u128, kind: &str, config: &[(&str, &str)], keys: &[&str]) -> Command {
    let value = || StaticValue {
        sealed: sealed("v"),
        expires_at: None,
    };
    Command::CreateProvider {
        id: ProviderId(id),
        workspace: Workspace::default_workspace(),
        name: name(&format!("p{id}")),
        kind: ProviderType::new(kind).unwrap(),
        config: config
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect(),
        notes: Default::default(),
        credentials: keys.iter().map(|k| (key(k), value())).collect(),
    }
}

fn sandbox(id: SandboxId, providers: &[u128]) -> Command {
    Command::CreateSandbox {
        id,
        workspace: Workspace::default_workspace(),
        name: name(&format!("s{}", id.0)),
        providers: providers.iter().map(|p| ProviderId(*p)).collect(),
    }
}

fn attach(provider: u128) -> Command {
    Command::AttachProvider {
        sandbox: SANDBOX,
        provider: ProviderId(provider),
        expected_version: None,
    }
}

fn detach(provider: u128) -> Command {
    Command::DetachProvider {
        sandbox: SANDBOX,
        provider: ProviderId(provider),
        expected_version: None,
    }
}

fn set_config(provider: u128, name: &str, value: &str) -> Command {
    Command::UpdateProvider {
        id: ProviderId(provider),
        expected_version: None,
        config: BTreeMap::from([(name.to_owned(), Some(value.to_owned()))]),
        credentials: BTreeMap::new(),
        expires_at: BTreeMap::new(),
    }
}

/// One profile, `cloud`: a region that sandboxes know, and an endpoint in it.
fn catalog() -> Catalog {
    let region = ConfigKey {
        name: "region".to_owned(),
        aliases: vec![],
        description: String::new(),
        required: false,
        format: Format::Label,
        default: None,
        env_vars: vec![key("REGION")],
    };
    let endpoint = Endpoint {
        host: "{region}.cloud.example".to_owned(),
        ports: vec![443, 8443],
        path: "/v1/**".to_owned(),
        protocol: String::new(),
        tls: String::new(),
        signing: None,
        websocket_rewrite: false,
        body_rewrite: true,
        uninspected: false,
        policy: BTreeMap::new(),
    };
    Catalog::new([Profile {
        id: ProfileId::new("cloud").unwrap(),
        aliases: vec![],
        display_name: String::new(),
        description: String::new(),
        category: Category::Other,
        credentials: vec![],
        config: vec![region],
        endpoints: vec![endpoint],
        discovery: Discovery::default(),
        inference: vec![],
        annotations: BTreeMap::new(),
        carried: BTreeMap::new(),
    }])
}

fn of(w: &World, id: SandboxId) -> Environment {
    environment(&bundle::inputs(&w.state, id).unwrap(), &catalog())
}

/// `p1` without a profile, `p2` of the profile `cloud`; both attached to the sandbox.
fn world() -> World {
    let mut w = World::empty();
    w.done(bootstrap());
    let moves = (0..w.state.settings().shards)
        .map(|s| (ShardId(s), REPLICA, SESSION))
        .collect();
    w.done(Command::AssignShards { based_on: 0, moves });
    let base = [("base_url", "https://Api.Crm.example/v2/")];
    w.done(provider(1, "crm", &base, &["FIXED"]));
    w.done(provider(2, "cloud", &[("region", "eu-1")], &["KEY"]));
    w.configure(Strategy::OAuth2ClientCredentials, ReplayPolicy::Safe);
    w.done(sandbox(SANDBOX, &[1, 2]));
    w
}

/// Key, identity and handle of every variable, with the number of its bindings.
fn variables(environment: &Environment) -> Vec<(String, String, Option<String>, usize)> {
    let parts = environment.secrets.iter();
    parts
        .flat_map(|part| {
            let bindings = part.bindings.len();
            let each = part.variables.iter();
            each.map(move |v| {
                (
                    v.key.clone(),
                    v.identity.clone(),
                    v.handle.clone(),
                    bindings,
                )
            })
        })
        .collect()
}

fn handle(w: &World) -> Option<String> {
    let all = variables(&of(w, SANDBOX));
    all.into_iter().find(|v| v.0 == "TOKEN")?.2
}

#[test]
fn an_environment_has_secret_and_plain_variables_with_their_places() {
    let w = world();
    let found = of(&w, SANDBOX);
    let shown = variables(&found);
    let keys: Vec<_> = shown.iter().map(|v| (v.0.as_str(), v.3)).collect();
    assert_eq!(keys, [("FIXED", 1), ("TOKEN", 1), ("KEY", 2)]);
    assert_eq!(shown[0].1, format!("{}:FIXED", ProviderId(1)));
    assert_eq!(shown[0].2, None);
    let handle = shown[1].2.clone().unwrap();
    assert_eq!(handle.len(), 64);
    assert_eq!(shown[1].1, format!("refresh:{handle}"));
    let binding = &found.secrets[0].bindings[0];
    assert_eq!(
        (&*binding.host, binding.port, &*binding.path),
        ("api.crm.example", 443, "/v2/**")
    );
    let binding = &found.secrets[2].bindings[1];
    assert_eq!(
        (&*binding.host, binding.port, binding.body_rewrite),
        ("eu-1.cloud.example", 8443, true)
    );
    let plain: Vec<_> = found.plain.iter().map(|p| (&*p.key, &*p.value)).collect();
    assert_eq!(plain, [("REGION", "eu-1")]);
    assert_eq!(found.problems, []);
}

#[test]
fn a_handle_stays_while_values_are_minted_and_changes_with_everything_else() {
    let mut w = world();
    let first = handle(&w).unwrap();
    for ticket in 1..4 {
        w.done(Command::RotateCredential {
            credential: token(),
        });
        w.done(w.claim(ticket));
        w.done(w.commit(ticket, "t"));
        assert_eq!(handle(&w).as_ref(), Some(&first));
    }
    w.done(set_config(1, "unrelated", "x"));
    assert_eq!(handle(&w).as_ref(), Some(&first));
    w.done(detach(1));
    assert_eq!(handle(&w), None);
    w.done(attach(1));
    assert_eq!(handle(&w).as_ref(), Some(&first), "the same grant again");

    let mut seen = vec![first];
    let mut another = |what: &str, handle: Option<String>| {
        let handle = handle.unwrap();
        assert!(!seen.contains(&handle), "{what}");
        seen.push(handle);
    };
    w.configure(Strategy::OAuth2ClientCredentials, ReplayPolicy::Safe);
    another("a reconfiguration", handle(&w));
    w.done(set_config(1, "base_url", "https://api.crm.example/v3"));
    another("another endpoint", handle(&w));
    w.done(sandbox(SandboxId(2), &[1]));
    let other = variables(&of(&w, SandboxId(2)));
    another("another sandbox", other[1].2.clone());
    w.done(Command::DeleteRefresh {
        credential: token(),
    });
    let shown = variables(&of(&w, SANDBOX));
    assert!(shown.iter().any(|v| v.0 == "TOKEN" && v.2.is_none()));
}

#[test]
fn a_handle_is_openshells() {
    // The parts of the hash by hand, each behind its length as u64 in little endian.
    let w = world();
    let epoch = w.token().refresh.as_ref().unwrap().epoch.0.to_string();
    let mut bytes = Vec::new();
    for part in [
        "openshell-workload-credential-handle-v1".as_bytes(),
        SANDBOX.to_string().as_bytes(),
        ProviderId(1).to_string().as_bytes(),
        b"TOKEN",
        epoch.as_bytes(),
        b"api.crm.example",
        &443_u32.to_le_bytes(),
        b"/v2/**",
    ] {
        bytes.extend((part.len() as u64).to_le_bytes());
        bytes.extend(part);
    }
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &bytes);
    let hex: String = digest.as_ref().iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(handle(&w), Some(hex));
}

#[test]
fn a_broken_provider_is_a_problem_and_leaves_the_others_alone() {
    let mut w = world();
    // No profile and no URL; a profile whose endpoint lacks its region; a name that is reserved.
    w.done(provider(3, "unknown", &[], &["LOST"]));
    w.done(provider(4, "cloud", &[], &["HALF"]));
    w.done(provider(
        5,
        "crm",
        &[("base_url", "https://a.example")],
        &["v1_KEY"],
    ));
    w.done(provider(
        6,
        "crm",
        &[("base_url", "http://evil.example")],
        &["PLAINTEXT"],
    ));
    let before = variables(&of(&w, SANDBOX));
    for id in 3..=6 {
        w.done(attach(id));
    }
    let found = of(&w, SANDBOX);
    let shown = variables(&found);
    assert_eq!(shown[..3], before[..]);
    let rest: Vec<_> = shown[3..].iter().map(|v| (v.0.as_str(), v.3)).collect();
    assert_eq!(rest, [("LOST", 0), ("HALF", 0), ("PLAINTEXT", 0)]);
    let problems: Vec<_> = found
        .problems
        .iter()
        .map(|p| (p.provider.as_str(), p.key.as_str()))
        .collect();
    assert_eq!(
        problems,
        [("p3", ""), ("p4", ""), ("p5", "v1_KEY"), ("p6", "")]
    );
}

#[test]
fn of_two_providers_that_give_one_variable_the_first_one_does() {
    let mut w = world();
    // Its own credential has the name of what the profile of `p2` gives in the clear.
    let base = [("base_url", "https://c.example")];
    w.done(provider(3, "crm", &base, &["REGION", "OWN"]));
    w.done(attach(3));
    let found = of(&w, SANDBOX);
    let keys: Vec<_> = variables(&found).into_iter().map(|v| v.0).collect();
    assert_eq!(keys, ["FIXED", "TOKEN", "KEY", "OWN"]);
    assert_eq!(found.plain.len(), 1);
    assert_eq!(found.problems.len(), 1);
    assert_eq!(found.problems[0].cause, "provider p2 gives it already");
    // Whoever comes first counts, whichever kind it is.
    w.done(detach(2));
    w.done(attach(2));
    let found = of(&w, SANDBOX);
    let keys: Vec<_> = variables(&found).into_iter().map(|v| v.0).collect();
    assert_eq!(keys, ["FIXED", "TOKEN", "OWN", "REGION", "KEY"]);
    assert!(found.plain.is_empty());
}
