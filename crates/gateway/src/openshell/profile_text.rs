//! Profiles between OpenShell's message and the profile format, by way of JSON: both have the same
//! names for the same things, but for two enums, and the format has more.

use evermint_core::profile::catalog::Found;
use evermint_core::profile::{Category, Profile, ProfileCredential, Scope};
use evermint_core::strategy::Strategy;
use evermint_profiles::{Finding, Severity};
use evermint_proto::openshell::v1;
use evermint_proto::openshell::v1::ProviderProfileCategory as WireCategory;
use serde_json::{Value, json};

use super::refresh;

/// The profile that a message holds, if no finding is an error.
pub(super) fn read(message: &v1::ProviderProfile) -> (Option<Profile>, Vec<Finding>) {
    let text = match text(message) {
        Ok(text) => text,
        Err(finding) => return (None, vec![finding]),
    };
    let mut documents = evermint_profiles::read(&text);
    match documents.pop() {
        Some(document) => (document.profile, document.findings),
        None => (None, Vec::new()),
    }
}

/// The message as a document. JSON is YAML.
fn text(message: &v1::ProviderProfile) -> Result<String, Finding> {
    let wrong = |field: &str| Finding::new(Severity::Error, field, "is not known");
    let mut tree = serde_json::to_value(message).map_err(|_| wrong(""))?;
    tree["category"] = match category(message.category()) {
        Some(category) => json!(category.as_str()),
        None => Value::Null,
    };
    for (i, credential) in message.credentials.iter().enumerate() {
        let Some(spec) = &credential.refresh else {
            continue;
        };
        let strategy = known(spec.strategy());
        let field = format!("credentials[{i}].refresh.strategy");
        let refresh = &mut tree["credentials"][i]["refresh"];
        match (spec.strategy(), strategy) {
            (_, Some(strategy)) => refresh["strategy"] = json!(strategy.as_str()),
            // A value that is given needs no way to mint it.
            (v1::ProviderCredentialRefreshStrategy::Static, None) => *refresh = Value::Null,
            (_, None) => return Err(wrong(&field)),
        }
    }
    for filled_in in ["resource_version", "source", "scope"] {
        tree[filled_in] = Value::Null;
    }
    // Derived by the gateway, or for policies alone.
    for endpoint in items(&mut tree, "endpoints") {
        endpoint["provider_credentialed"] = Value::Null;
        endpoint["credential_binding"] = Value::Null;
    }
    prune(&mut tree);
    Ok(tree.to_string())
}

/// A profile as its clients see it.
pub(super) fn shown(found: &Found) -> v1::ProviderProfile {
    let profile = found.profile();
    let (source, scope) = match found {
        Found::Builtin(_) => ("builtin", ""),
        Found::Custom(custom) => match custom.scope {
            Scope::Platform => ("user", "platform"),
            Scope::Workspace(_) => ("user", "workspace"),
        },
    };
    let mut message = message(profile);
    message.category = wire(profile.category).into();
    message.inference_capable = profile.is_inference_capable();
    message.resource_version = found.version();
    message.source = source.to_owned();
    message.scope = scope.to_owned();
    message
}

/// A credential of a profile as its clients see it.
pub(super) fn credential(known: &ProfileCredential) -> v1::ProviderProfileCredential {
    let mut tree = evermint_profiles::write::credential_json(known);
    fit(&mut tree, known);
    serde_json::from_value(tree).unwrap_or_default()
}

/// Its clients know one way to mint a credential: the usual one.
fn fit(credential: &mut Value, known: &ProfileCredential) {
    let Some(spec) = known.refresh.first() else {
        return;
    };
    let refresh = &mut credential["refresh"];
    if let Some(first) = refresh.get(0) {
        *refresh = first.clone();
    }
    refresh["strategy"] = json!(i32::from(refresh::wire(spec.strategy)));
}

/// Policy that was carried, and is no policy that this version's messages can hold, is left out.
fn message(profile: &Profile) -> v1::ProviderProfile {
    let whole = tree(profile);
    serde_json::from_value(whole).unwrap_or_else(|_| {
        let mut bare = profile.clone();
        bare.carried.clear();
        for endpoint in &mut bare.endpoints {
            endpoint.policy.clear();
        }
        serde_json::from_value(tree(&bare)).unwrap_or_default()
    })
}

fn tree(profile: &Profile) -> Value {
    let mut tree = evermint_profiles::write::json(profile);
    tree["category"] = json!(0);
    let credentials = items(&mut tree, "credentials").zip(&profile.credentials);
    for (credential, known) in credentials {
        fit(credential, known);
    }
    // Texts write a binary as its path.
    for binary in items(&mut tree, "binaries") {
        if binary.is_string() {
            *binary = json!({ "path": binary });
        }
    }
    tree
}

/// The items of a list, if it is there.
fn items<'v>(tree: &'v mut Value, name: &str) -> impl Iterator<Item = &'v mut Value> {
    let list = tree.get_mut(name).and_then(Value::as_array_mut);
    list.into_iter().flatten()
}

/// Takes out what says nothing, which a message cannot tell from what is not there.
fn prune(value: &mut Value) {
    match value {
        Value::Object(entries) => {
            for (name, value) in entries.iter_mut() {
                // Its flags tell off from not said.
                if name != "mcp" {
                    prune(value);
                }
            }
            entries.retain(|_, value| !is_default(value));
        }
        Value::Array(items) => items.iter_mut().for_each(prune),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn is_default(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(entries) => entries.is_empty(),
    }
}

fn category(wire: WireCategory) -> Option<Category> {
    Some(match wire {
        WireCategory::Unspecified => return None,
        WireCategory::Other => Category::Other,
        WireCategory::Inference => Category::Inference,
        WireCategory::Agent => Category::Agent,
        WireCategory::SourceControl => Category::SourceControl,
        WireCategory::Messaging => Category::Messaging,
        WireCategory::Data => Category::Data,
        WireCategory::Knowledge => Category::Knowledge,
    })
}

fn wire(category: Category) -> WireCategory {
    match category {
        Category::Other => WireCategory::Other,
        Category::Inference => WireCategory::Inference,
        Category::Agent => WireCategory::Agent,
        Category::SourceControl => WireCategory::SourceControl,
        Category::Messaging => WireCategory::Messaging,
        Category::Data => WireCategory::Data,
        Category::Knowledge => WireCategory::Knowledge,
    }
}

/// The strategy of a profile's refresh.
fn known(wire: v1::ProviderCredentialRefreshStrategy) -> Option<Strategy> {
    Strategy::ALL
        .into_iter()
        .find(|strategy| refresh::wire(*strategy) == wire)
        .filter(|_| wire != v1::ProviderCredentialRefreshStrategy::Unspecified)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_built_in_profile_comes_back_through_the_message_as_far_as_its_words_go() {
        for profile in evermint_profiles::catalog().builtin() {
            let shown = shown(&Found::Builtin(profile.clone()));
            assert_eq!(shown.id, profile.id.as_str());
            assert_eq!(shown.credentials.len(), profile.credentials.len());
            assert_eq!(shown.endpoints.len(), profile.endpoints.len());
            for (message, credential) in shown.credentials.iter().zip(&profile.credentials) {
                assert_eq!(message.name, credential.name);
                assert_eq!(message.refresh.is_some(), !credential.refresh.is_empty());
            }
            assert_eq!(shown.source, "builtin");
        }
    }

    #[test]
    fn policy_passes_through_both_ways() {
        use evermint_proto::openshell::sandbox::v1 as sandbox;
        let endpoint = sandbox::NetworkEndpoint {
            host: "api.example.com".to_owned(),
            port: 443,
            protocol: "rest".to_owned(),
            access: "read-only".to_owned(),
            rules: vec![sandbox::L7Rule {
                allow: Some(sandbox::L7Allow {
                    method: "GET".to_owned(),
                    path: "/v1/**".to_owned(),
                    ..Default::default()
                }),
            }],
            mcp: Some(sandbox::McpOptions {
                strict_tool_names: Some(false),
                allow_all_known_mcp_methods: None,
            }),
            ..Default::default()
        };
        let given = v1::ProviderProfile {
            id: "acme".to_owned(),
            category: WireCategory::Data.into(),
            credentials: vec![v1::ProviderProfileCredential {
                name: "token".to_owned(),
                env_vars: vec!["ACME_TOKEN".to_owned()],
                auth_style: "bearer".to_owned(),
                ..Default::default()
            }],
            endpoints: vec![endpoint],
            binaries: vec![sandbox::NetworkBinary {
                path: "/usr/bin/acme".to_owned(),
                harness: true,
            }],
            ..Default::default()
        };
        let (profile, findings) = read(&given);
        assert_eq!(findings, []);
        let shown = shown(&Found::Builtin(std::sync::Arc::new(profile.unwrap())));
        assert_eq!(shown.endpoints, given.endpoints);
        assert_eq!(shown.binaries, given.binaries);
        assert_eq!(shown.category, given.category);
    }
}
