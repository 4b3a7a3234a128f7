//! From a profile to YAML: what [`read`](crate::read()) reads back as the same profile.

use evermint_core::profile::{
    Api, Auth, ConfigKey, Endpoint, Format, MaterialSpec, Profile, ProfileCredential, RefreshSpec,
    TokenGrant, TokenUrl,
};
use evermint_core::strategy::ReplayPolicy;
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};

/// The profile as one YAML document.
pub fn write(profile: &Profile) -> String {
    let text = serde_saphyr::to_string(&tree(profile));
    text.expect("a tree of texts, numbers, lists and maps is YAML")
}

/// Several profiles as the documents of one text.
pub fn write_all<'a>(profiles: impl IntoIterator<Item = &'a Profile>) -> String {
    let documents: Vec<String> = profiles.into_iter().map(write).collect();
    documents.join("---\n")
}

/// The profile as JSON, by the same names.
pub fn json(profile: &Profile) -> serde_json::Value {
    let tree = serde_json::to_value(tree(profile));
    tree.expect("a tree of texts, numbers, lists and maps is JSON")
}

/// A credential of a profile as JSON, by the same names.
pub fn credential_json(one: &ProfileCredential) -> serde_json::Value {
    let tree = serde_json::to_value(credential(one));
    tree.expect("a tree of texts, numbers, lists and maps is JSON")
}

/// What a document consists of.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Tree {
    Text(String),
    Flag(bool),
    Number(u64),
    List(Vec<Tree>),
    Map(Vec<(String, Tree)>),
    Json(serde_json::Value),
}

impl Serialize for Tree {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::Flag(flag) => serializer.serialize_bool(*flag),
            Self::Number(number) => serializer.serialize_u64(*number),
            Self::Json(value) => value.serialize(serializer),
            Self::List(items) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                for item in items {
                    list.serialize_element(item)?;
                }
                list.end()
            }
            Self::Map(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                for (key, value) in entries {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
        }
    }
}

/// A mapping without the entries that say nothing.
#[derive(Default)]
struct Entries(Vec<(String, Tree)>);

impl Entries {
    fn put(&mut self, name: &str, tree: Tree) {
        self.0.push((name.to_owned(), tree));
    }

    fn text(&mut self, name: &str, text: &str) {
        if !text.is_empty() {
            self.put(name, Tree::Text(text.to_owned()));
        }
    }

    fn maybe(&mut self, name: &str, text: Option<&str>) {
        if let Some(text) = text {
            self.put(name, Tree::Text(text.to_owned()));
        }
    }

    fn flag(&mut self, name: &str, flag: bool) {
        if flag {
            self.put(name, Tree::Flag(true));
        }
    }

    fn number(&mut self, name: &str, number: Option<u64>) {
        if let Some(number) = number {
            self.put(name, Tree::Number(number));
        }
    }

    fn texts(&mut self, name: &str, texts: impl IntoIterator<Item = impl ToString>) {
        let texts = texts.into_iter().map(|text| Tree::Text(text.to_string()));
        self.list(name, texts.collect());
    }

    fn list(&mut self, name: &str, items: Vec<Tree>) {
        if !items.is_empty() {
            self.put(name, Tree::List(items));
        }
    }

    fn map<'a>(&mut self, name: &str, map: impl IntoIterator<Item = (&'a String, &'a String)>) {
        let entries: Vec<_> = map
            .into_iter()
            .map(|(key, value)| (key.clone(), Tree::Text(value.clone())))
            .collect();
        if !entries.is_empty() {
            self.put(name, Tree::Map(entries));
        }
    }

    /// What was carried for others comes back as it was.
    fn carried<'a>(&mut self, carried: impl IntoIterator<Item = (&'a String, &'a String)>) {
        for (name, json) in carried {
            let value = serde_json::from_str(json).unwrap_or(serde_json::Value::Null);
            self.put(name, Tree::Json(value));
        }
    }

    fn auth(&mut self, auth: &Auth) {
        self.text("auth_style", auth.style());
        match auth {
            Auth::Unspecified => {}
            Auth::Bearer { header } => self.text("header_name", header),
            Auth::Header { name, prefix } => {
                self.text("header_name", name);
                self.text("header_prefix", prefix);
            }
            Auth::Basic { user } => self.text("user", user),
            Auth::Query { param } => self.text("query_param", param),
            Auth::Path { template } => self.text("path_template", template),
        }
    }

    fn format(&mut self, format: &Format) {
        let name = match format {
            Format::Text => "",
            Format::Segment => "segment",
            Format::Label => "label",
            Format::Uuid => "uuid",
            Format::Host => "host",
            Format::Url => "url",
            Format::Integer => "integer",
            Format::OneOf(all) => {
                self.texts("one_of", all);
                return;
            }
        };
        self.text("format", name);
    }
}

pub(crate) fn tree(profile: &Profile) -> Tree {
    let mut e = Entries::default();
    e.text("id", profile.id.as_str());
    e.texts("aliases", &profile.aliases);
    e.text("display_name", &profile.display_name);
    e.text("description", &profile.description);
    e.text("category", profile.category.as_str());
    e.list(
        "credentials",
        profile.credentials.iter().map(credential).collect(),
    );
    e.list("config", profile.config.iter().map(config_key).collect());
    e.list(
        "endpoints",
        profile.endpoints.iter().map(endpoint).collect(),
    );
    let mut discovery = Entries::default();
    discovery.texts("credentials", &profile.discovery.credentials);
    let files = profile.discovery.files.iter().map(|file| {
        let mut e = Entries::default();
        e.text("env_var", &file.env_var);
        e.text("path", &file.path);
        e.text("kind", &file.kind);
        Tree::Map(e.0)
    });
    discovery.list("files", files.collect());
    if !discovery.0.is_empty() {
        e.put("discovery", Tree::Map(discovery.0));
    }
    if profile.inference == [Api::default()] {
        e.flag("inference_capable", true);
    } else {
        e.list("inference", profile.inference.iter().map(api).collect());
    }
    e.map("annotations", &profile.annotations);
    e.carried(&profile.carried);
    Tree::Map(e.0)
}

fn credential(credential: &ProfileCredential) -> Tree {
    let mut e = Entries::default();
    e.text("name", &credential.name);
    e.text("description", &credential.description);
    e.texts("env_vars", &credential.env_vars);
    e.flag("required", credential.required);
    e.auth(&credential.auth);
    match credential.refresh.as_slice() {
        [one] => e.put("refresh", refresh(one)),
        many => e.list("refresh", many.iter().map(refresh).collect()),
    }
    if let Some(grant) = &credential.token_grant {
        e.put("token_grant", token_grant(grant));
    }
    Tree::Map(e.0)
}

fn refresh(spec: &RefreshSpec) -> Tree {
    let mut e = Entries::default();
    e.text("strategy", spec.strategy.as_str());
    match &spec.token_url {
        TokenUrl::None => {}
        TokenUrl::FromOperator => e.flag("token_url_from_operator", true),
        TokenUrl::Template(url) => e.text("token_url", url),
    }
    e.texts("scopes", &spec.scopes);
    e.list("material", spec.material.iter().map(material).collect());
    let outputs = spec.outputs.iter().map(|(output, credential)| {
        let mut e = Entries::default();
        e.text("output", output);
        e.text("credential", credential);
        Tree::Map(e.0)
    });
    e.list("additional_outputs", outputs.collect());
    e.number("refresh_before_seconds", spec.refresh_before_secs);
    e.number("not_before_seconds", spec.not_before_secs);
    e.number("max_lifetime_seconds", spec.max_lifetime_secs);
    match spec.replay {
        ReplayPolicy::Strict => {}
        ReplayPolicy::Safe => e.text("replay", "safe"),
        ReplayPolicy::Grace(ms) => {
            e.text("replay", "grace");
            e.number("replay_grace_seconds", Some(ms / 1000));
        }
    }
    e.text("revoke_url", &spec.revoke_url);
    Tree::Map(e.0)
}

fn material(material: &MaterialSpec) -> Tree {
    let mut e = Entries::default();
    e.text("name", &material.name);
    e.text("description", &material.description);
    e.flag("required", material.required);
    e.flag("secret", material.secret);
    e.format(&material.format);
    e.maybe("default", material.default.as_deref());
    Tree::Map(e.0)
}

fn config_key(key: &ConfigKey) -> Tree {
    let mut e = Entries::default();
    e.text("name", &key.name);
    e.texts("aliases", &key.aliases);
    e.text("description", &key.description);
    e.flag("required", key.required);
    e.format(&key.format);
    e.maybe("default", key.default.as_deref());
    e.texts("env_vars", &key.env_vars);
    Tree::Map(e.0)
}

fn endpoint(endpoint: &Endpoint) -> Tree {
    let mut e = Entries::default();
    e.text("host", &endpoint.host);
    match endpoint.ports.as_slice() {
        [port] => e.number("port", Some(u64::from(*port))),
        ports => {
            let ports = ports.iter().map(|port| Tree::Number(u64::from(*port)));
            e.list("ports", ports.collect());
        }
    }
    e.text("path", &endpoint.path);
    e.text("protocol", &endpoint.protocol);
    e.text("tls", &endpoint.tls);
    if let Some(signing) = &endpoint.signing {
        e.text("credential_signing", &signing.scheme);
        e.text("signing_service", &signing.service);
        e.text("signing_region", &signing.region);
    }
    e.flag("websocket_credential_rewrite", endpoint.websocket_rewrite);
    e.flag("request_body_credential_rewrite", endpoint.body_rewrite);
    e.flag("allow_uninspected_credentials", endpoint.uninspected);
    e.carried(&endpoint.policy);
    Tree::Map(e.0)
}

fn api(api: &Api) -> Tree {
    let mut e = Entries::default();
    e.texts("models", &api.models);
    let when = api.when.iter().map(|(name, values)| {
        let values = values.iter().map(|value| Tree::Text(value.clone()));
        (name.clone(), Tree::List(values.collect()))
    });
    let when: Vec<_> = when.collect();
    if !when.is_empty() {
        e.put("when", Tree::Map(when));
    }
    e.text("base_url", &api.base_url);
    e.texts("base_url_from", &api.base_url_from);
    e.texts("protocols", &api.protocols);
    e.auth(&api.auth);
    e.map("headers", &api.headers);
    e.texts("passthrough_headers", &api.passthrough_headers);
    e.flag("model_in_path", api.model_in_path);
    e.maybe("request_path", api.request_path.as_deref());
    e.text("default_model", &api.default_model);
    Tree::Map(e.0)
}

fn token_grant(grant: &TokenGrant) -> Tree {
    let mut e = Entries::default();
    e.text("token_endpoint", &grant.token_endpoint);
    e.text("audience", &grant.audience);
    e.text("jwt_svid_audience", &grant.jwt_svid_audience);
    e.text("client_assertion_type", &grant.client_assertion_type);
    e.texts("scopes", &grant.scopes);
    e.number(
        "cache_ttl_seconds",
        u64::try_from(grant.cache_ttl_seconds)
            .ok()
            .filter(|n| *n > 0),
    );
    let overrides = grant.audience_overrides.iter().map(|one| {
        let mut e = Entries::default();
        e.text("host", &one.host);
        e.number("port", (one.port != 0).then_some(u64::from(one.port)));
        e.text("path", &one.path);
        e.text("audience", &one.audience);
        e.texts("scopes", &one.scopes);
        Tree::Map(e.0)
    });
    e.list("audience_overrides", overrides.collect());
    Tree::Map(e.0)
}
