//! The parts of a profile, one function for each.

use std::collections::BTreeMap;

use evermint_core::id::ProfileId;
use evermint_core::profile::{
    Api, AudienceOverride, Auth, Category, ConfigKey, Discovery, DiscoveryFile, Endpoint, Format,
    MaterialSpec, Profile, ProfileCredential, RefreshSpec, Signing, TokenGrant, TokenUrl,
};
use evermint_core::strategy::{ReplayPolicy, Strategy};

use crate::read::{Fields, Reader, json};
use crate::yaml::Node;

/// What endpoints carry for others.
pub(crate) const POLICY: &[&str] = &[
    "enforcement",
    "access",
    "rules",
    "allowed_ips",
    "deny_rules",
    "allow_encoded_slash",
    "persisted_queries",
    "graphql_persisted_queries",
    "graphql_max_body_bytes",
    "json_rpc_max_body_bytes",
    "mcp",
    "advisor_proposed",
];

/// What profiles carry for others.
pub(crate) const CARRIED: &[&str] = &["binaries"];

impl Reader {
    pub(crate) fn profile(&mut self, node: &Node) -> Option<Profile> {
        let mut f = self.fields("", node)?;
        let id = self.parse(&mut f, "id");
        if id.is_none() && !self.findings.iter().any(|f| f.field == "id") {
            self.error(f.line, "id", "is missing");
        }
        // What the server fills in is accepted from an export, and means nothing.
        for ignored in ["resource_version", "source", "scope"] {
            f.take(ignored);
        }
        let is_capable = self.flag(&mut f, "inference_capable");
        let mut inference = self.list(&mut f, "inference", Self::api);
        if is_capable && inference.is_empty() {
            inference.push(Api::default());
        }
        let aliases = self.parsed(&mut f, "aliases");
        let display_name = self.text(&mut f, "display_name");
        let description = self.text(&mut f, "description");
        let category = self.category(&mut f);
        let credentials = self.list(&mut f, "credentials", Self::credential);
        let config = self.list(&mut f, "config", Self::config_key);
        let endpoints = self.list(&mut f, "endpoints", Self::endpoint);
        let discovery = self.discovery(&mut f);
        let annotations = self.text_map(&mut f, "annotations");
        let carried = self.carried(&mut f, CARRIED);
        self.finish(f);
        Some(Profile {
            // A profile without an id has a finding; the rest of it is looked at all the same.
            id: id.unwrap_or_else(|| ProfileId::new("unnamed").expect("a word")),
            aliases,
            display_name,
            description,
            category,
            credentials,
            config,
            endpoints,
            discovery,
            inference,
            annotations,
            carried,
        })
    }

    fn category(&mut self, f: &mut Fields<'_>) -> Category {
        let path = f.path("category");
        let Some(node) = f.take("category") else {
            return Category::default();
        };
        let Some(text) = self.scalar(&path, node) else {
            return Category::default();
        };
        let text = text.replace('_', "-");
        let known = Category::ALL.into_iter().find(|c| c.as_str() == text);
        if known.is_none() {
            let all = Category::ALL.map(Category::as_str).join(", ");
            self.error(node.line, path, format!("must be one of {all}"));
        }
        known.unwrap_or_default()
    }

    fn carried(&mut self, f: &mut Fields<'_>, names: &[&str]) -> BTreeMap<String, String> {
        names
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), json(f.take(name)?).to_string())))
            .collect()
    }

    fn credential(&mut self, path: &str, node: &Node) -> Option<ProfileCredential> {
        let mut f = self.fields(path, node)?;
        let credential = ProfileCredential {
            name: self.text(&mut f, "name"),
            description: self.text(&mut f, "description"),
            env_vars: self.parsed(&mut f, "env_vars"),
            required: self.flag(&mut f, "required"),
            auth: self.auth(&mut f),
            refresh: self.list(&mut f, "refresh", Self::refresh),
            token_grant: f
                .take("token_grant")
                .and_then(|node| self.token_grant(&f.path("token_grant"), node)),
        };
        self.finish(f);
        Some(credential)
    }

    fn auth(&mut self, f: &mut Fields<'_>) -> Auth {
        let style = self.text(f, "auth_style");
        let header = self.text(f, "header_name");
        let prefix = self.text(f, "header_prefix");
        let user = self.text(f, "user");
        let param = self.text(f, "query_param");
        let template = self.text(f, "path_template");
        let only = |reader: &mut Self, allowed: &[&str]| {
            for (name, value) in [
                ("header_name", &header),
                ("header_prefix", &prefix),
                ("user", &user),
                ("query_param", &param),
                ("path_template", &template),
            ] {
                if !value.is_empty() && !allowed.contains(&name) {
                    let styled = format!("does not go with auth_style {style:?}");
                    reader.wrong(f, name, styled);
                }
            }
        };
        match style.as_str() {
            "" => {
                only(self, &[]);
                Auth::Unspecified
            }
            "bearer" => {
                only(self, &["header_name"]);
                // The usual header need not be named.
                let usual = header.eq_ignore_ascii_case("authorization");
                Auth::Bearer {
                    header: if usual { String::new() } else { header },
                }
            }
            "header" => {
                only(self, &["header_name", "header_prefix"]);
                Auth::Header {
                    name: header,
                    prefix,
                }
            }
            "basic" => {
                only(self, &["user"]);
                Auth::Basic { user }
            }
            "query" => {
                only(self, &["query_param"]);
                Auth::Query { param }
            }
            "path" => {
                only(self, &["path_template"]);
                Auth::Path { template }
            }
            _ => {
                let all = "must be one of bearer, header, basic, query, path";
                self.wrong(f, "auth_style", all);
                Auth::Unspecified
            }
        }
    }

    fn refresh(&mut self, path: &str, node: &Node) -> Option<RefreshSpec> {
        let mut f = self.fields(path, node)?;
        let strategy = self.strategy(&mut f);
        let spec = RefreshSpec {
            strategy: strategy.unwrap_or(Strategy::OAuth2ClientCredentials),
            token_url: self.token_url(&mut f),
            scopes: self.texts(&mut f, "scopes"),
            material: self.list(&mut f, "material", Self::material),
            outputs: self.outputs(&mut f),
            refresh_before_secs: self.number(&mut f, "refresh_before_seconds"),
            not_before_secs: self.number(&mut f, "not_before_seconds"),
            max_lifetime_secs: self.number(&mut f, "max_lifetime_seconds"),
            replay: self.replay(&mut f),
            revoke_url: self.text(&mut f, "revoke_url"),
        };
        self.finish(f);
        strategy.map(|_| spec)
    }

    /// OpenShell writes strategies with underscores.
    fn strategy(&mut self, f: &mut Fields<'_>) -> Option<Strategy> {
        let path = f.path("strategy");
        let Some(node) = f.take("strategy") else {
            self.wrong(f, "strategy", "is missing");
            return None;
        };
        let text = self.scalar(&path, node)?.replace('_', "-");
        match text.parse() {
            Ok(strategy) => Some(strategy),
            Err(_) => {
                let all = Strategy::ALL.map(Strategy::as_str).join(", ");
                self.error(node.line, path, format!("must be one of {all}"));
                None
            }
        }
    }

    fn token_url(&mut self, f: &mut Fields<'_>) -> TokenUrl {
        let from_operator = self.flag(f, "token_url_from_operator");
        match self.text(f, "token_url") {
            url if url.is_empty() && from_operator => TokenUrl::FromOperator,
            url if url.is_empty() => TokenUrl::None,
            url => {
                if from_operator {
                    let both = "is of no use beside token_url";
                    self.wrong(f, "token_url_from_operator", both);
                }
                TokenUrl::Template(url)
            }
        }
    }

    fn replay(&mut self, f: &mut Fields<'_>) -> ReplayPolicy {
        let has_grace = f.has("replay_grace_seconds");
        let policy = self.text(f, "replay");
        let grace = self.number::<u32>(f, "replay_grace_seconds");
        match (policy.as_str(), grace) {
            ("grace", Some(secs)) => return ReplayPolicy::Grace(u64::from(secs) * 1000),
            ("grace", None) => self.wrong(f, "replay", "needs replay_grace_seconds"),
            (_, _) if has_grace => {
                self.wrong(f, "replay", "must be grace for replay_grace_seconds")
            }
            ("safe", _) => return ReplayPolicy::Safe,
            ("" | "strict", _) => {}
            _ => self.wrong(f, "replay", "must be one of strict, grace, safe"),
        }
        ReplayPolicy::Strict
    }

    fn outputs(&mut self, f: &mut Fields<'_>) -> BTreeMap<String, String> {
        let mut outputs = BTreeMap::new();
        for (path, node) in self.items(f, "additional_outputs") {
            let Some(mut f) = self.fields(&path, node) else {
                continue;
            };
            let output = self.text(&mut f, "output");
            let credential = self.text(&mut f, "credential");
            self.finish(f);
            if output.is_empty() || credential.is_empty() {
                self.error(node.line, path, "needs output and credential");
            } else if outputs.insert(output, credential).is_some() {
                self.error(node.line, path, "names an output a second time");
            }
        }
        outputs
    }

    fn material(&mut self, path: &str, node: &Node) -> Option<MaterialSpec> {
        let mut f = self.fields(path, node)?;
        let material = MaterialSpec {
            name: self.text(&mut f, "name"),
            description: self.text(&mut f, "description"),
            required: self.flag(&mut f, "required"),
            secret: self.flag(&mut f, "secret"),
            format: self.format(&mut f),
            default: self.maybe_text(&mut f, "default"),
        };
        self.finish(f);
        Some(material)
    }

    fn config_key(&mut self, path: &str, node: &Node) -> Option<ConfigKey> {
        let mut f = self.fields(path, node)?;
        let key = ConfigKey {
            name: self.text(&mut f, "name"),
            aliases: self.texts(&mut f, "aliases"),
            description: self.text(&mut f, "description"),
            required: self.flag(&mut f, "required"),
            format: self.format(&mut f),
            default: self.maybe_text(&mut f, "default"),
            env_vars: self.parsed(&mut f, "env_vars"),
        };
        self.finish(f);
        Some(key)
    }

    fn format(&mut self, f: &mut Fields<'_>) -> Format {
        let all = self.texts(f, "one_of");
        match (self.text(f, "format").as_str(), all.is_empty()) {
            ("", false) => Format::OneOf(all),
            ("" | "text", true) => Format::Text,
            ("segment", true) => Format::Segment,
            ("label", true) => Format::Label,
            ("uuid", true) => Format::Uuid,
            ("host", true) => Format::Host,
            ("url", true) => Format::Url,
            ("integer", true) => Format::Integer,
            (_, false) => {
                self.wrong(f, "format", "is of no use beside one_of");
                Format::OneOf(all)
            }
            _ => {
                let all = "must be one of text, segment, label, uuid, host, url, integer";
                self.wrong(f, "format", all);
                Format::Text
            }
        }
    }

    fn endpoint(&mut self, path: &str, node: &Node) -> Option<Endpoint> {
        let mut f = self.fields(path, node)?;
        let mut ports: Vec<u16> = self.parsed(&mut f, "ports");
        let port: Option<u16> = self.number(&mut f, "port");
        if ports.is_empty() {
            ports.extend(port);
        }
        let scheme = self.text(&mut f, "credential_signing");
        let service = self.text(&mut f, "signing_service");
        let region = self.text(&mut f, "signing_region");
        let is_signed = !(scheme.is_empty() && service.is_empty() && region.is_empty());
        let endpoint = Endpoint {
            host: self.text(&mut f, "host"),
            ports,
            path: self.text(&mut f, "path"),
            protocol: self.text(&mut f, "protocol"),
            tls: self.text(&mut f, "tls"),
            signing: is_signed.then_some(Signing {
                scheme,
                service,
                region,
            }),
            websocket_rewrite: self.flag(&mut f, "websocket_credential_rewrite"),
            body_rewrite: self.flag(&mut f, "request_body_credential_rewrite"),
            uninspected: self.flag(&mut f, "allow_uninspected_credentials"),
            policy: self.carried(&mut f, POLICY),
        };
        self.finish(f);
        Some(endpoint)
    }

    fn discovery(&mut self, f: &mut Fields<'_>) -> Discovery {
        let path = f.path("discovery");
        let Some(mut f) = f
            .take("discovery")
            .and_then(|node| self.fields(&path, node))
        else {
            return Discovery::default();
        };
        let discovery = Discovery {
            credentials: self.texts(&mut f, "credentials"),
            files: self.list(&mut f, "files", |reader, path, node| {
                let mut f = reader.fields(path, node)?;
                let file = DiscoveryFile {
                    env_var: reader.text(&mut f, "env_var"),
                    path: reader.text(&mut f, "path"),
                    kind: reader.text(&mut f, "kind"),
                };
                reader.finish(f);
                Some(file)
            }),
        };
        self.finish(f);
        discovery
    }

    fn api(&mut self, path: &str, node: &Node) -> Option<Api> {
        let mut f = self.fields(path, node)?;
        let when_path = f.path("when");
        let when = f.take("when").and_then(|node| {
            let mut fields = self.fields(&when_path, node)?;
            let names: Vec<String> = fields.names();
            let entries = names.into_iter().map(|name| {
                let values = self.texts(&mut fields, &name);
                (name, values)
            });
            Some(entries.collect::<BTreeMap<_, _>>())
        });
        let api = Api {
            models: self.texts(&mut f, "models"),
            when: when.unwrap_or_default(),
            base_url: self.text(&mut f, "base_url"),
            base_url_from: self.texts(&mut f, "base_url_from"),
            protocols: self.texts(&mut f, "protocols"),
            auth: self.auth(&mut f),
            headers: self.text_map(&mut f, "headers"),
            passthrough_headers: self.texts(&mut f, "passthrough_headers"),
            model_in_path: self.flag(&mut f, "model_in_path"),
            request_path: self.maybe_text(&mut f, "request_path"),
            default_model: self.text(&mut f, "default_model"),
        };
        self.finish(f);
        Some(api)
    }

    fn token_grant(&mut self, path: &str, node: &Node) -> Option<TokenGrant> {
        let mut f = self.fields(path, node)?;
        let grant = TokenGrant {
            token_endpoint: self.text(&mut f, "token_endpoint"),
            audience: self.text(&mut f, "audience"),
            jwt_svid_audience: self.text(&mut f, "jwt_svid_audience"),
            client_assertion_type: self.text(&mut f, "client_assertion_type"),
            scopes: self.texts(&mut f, "scopes"),
            cache_ttl_seconds: self.number(&mut f, "cache_ttl_seconds").unwrap_or(0),
            audience_overrides: self.list(&mut f, "audience_overrides", |reader, path, node| {
                let mut f = reader.fields(path, node)?;
                let one = AudienceOverride {
                    host: reader.text(&mut f, "host"),
                    port: reader.number(&mut f, "port").unwrap_or(0),
                    path: reader.text(&mut f, "path"),
                    audience: reader.text(&mut f, "audience"),
                    scopes: reader.texts(&mut f, "scopes"),
                };
                reader.finish(f);
                Some(one)
            }),
        };
        self.finish(f);
        Some(grant)
    }
}
