//! What no type forbids and yet makes a profile wrong: names that lead nowhere, templates that could
//! lead anywhere, defaults that are not allowed.

use std::collections::{BTreeMap, BTreeSet};

use evermint_core::profile::template::{Piece, pieces};
use evermint_core::profile::{
    Api, Auth, Format, Profile, ProfileCredential, RefreshSpec, TokenUrl, limit,
};

use crate::finding::{Finding, Severity};
use crate::write::{Tree, tree};

/// The files that [`Discovery`](evermint_core::profile::Discovery) may name.
const FILE_KINDS: [&str; 3] = ["gcloud-adc", "google-service-account", "aws-credentials"];

/// Every problem of a profile, in the order of its fields; without lines.
pub fn lint(profile: &Profile) -> Vec<Finding> {
    let mut lint = Lint {
        profile,
        findings: Vec::new(),
    };
    lint.texts("", &tree(profile));
    lint.names();
    for (i, credential) in profile.credentials.iter().enumerate() {
        lint.credential(&format!("credentials[{i}]"), credential);
    }
    lint.config();
    lint.endpoints();
    lint.discovery();
    for (i, api) in profile.inference.iter().enumerate() {
        lint.api(&format!("inference[{i}]"), api);
    }
    lint.findings
}

struct Lint<'p> {
    profile: &'p Profile,
    findings: Vec<Finding>,
}

/// What a placeholder may be filled from.
type Sources<'p> = BTreeMap<&'p str, &'p Format>;

impl<'p> Lint<'p> {
    fn error(&mut self, field: impl Into<String>, message: impl ToString) {
        let finding = Finding::new(Severity::Error, field, message.to_string());
        self.findings.push(finding);
    }

    fn warn(&mut self, field: impl Into<String>, message: impl ToString) {
        let finding = Finding::new(Severity::Warning, field, message.to_string());
        self.findings.push(finding);
    }

    /// Bounds of every text and list.
    fn texts(&mut self, path: &str, tree: &Tree) {
        match tree {
            Tree::Text(text) if text.len() > limit::TEXT => {
                let (got, max) = (text.len(), limit::TEXT);
                self.error(
                    path,
                    format!("is {got} bytes long; at most {max} are allowed"),
                );
            }
            Tree::Text(text) => {
                if let Some(found) = text.chars().find(|c| c.is_control() && *c != '\n') {
                    self.error(path, format!("contains {found:?}, which is not allowed"));
                }
            }
            Tree::List(items) => {
                self.count(path, items.len());
                for (i, item) in items.iter().enumerate() {
                    self.texts(&format!("{path}[{i}]"), item);
                }
            }
            Tree::Map(entries) => {
                self.count(path, entries.len());
                for (key, value) in entries {
                    let shown: String = key.chars().take(64).collect();
                    let path = match path {
                        "" => shown,
                        path => format!("{path}.{shown}"),
                    };
                    self.texts(&path, value);
                }
            }
            Tree::Json(value) => {
                let got = value.to_string().len();
                if got > limit::PROFILE / 4 {
                    self.error(path, format!("is {got} bytes long, which is too long"));
                }
            }
            Tree::Flag(_) | Tree::Number(_) => {}
        }
    }

    fn count(&mut self, path: &str, got: usize) {
        if got > limit::ENTRIES {
            let max = limit::ENTRIES;
            self.error(
                path,
                format!("has {got} entries; at most {max} are allowed"),
            );
        }
    }

    fn names(&mut self) {
        let kebab = |id: &str| !id.starts_with('-') && !id.ends_with('-') && !id.contains("--");
        if !kebab(self.profile.id.as_str()) {
            self.error(
                "id",
                "must be words of letters and digits with one '-' between them",
            );
        }
        let mut seen = BTreeSet::from([&self.profile.id]);
        for (i, alias) in self.profile.aliases.iter().enumerate() {
            if !seen.insert(alias) {
                self.error(
                    format!("aliases[{i}]"),
                    "is a name that the profile has already",
                );
            }
        }
        let mut names = BTreeSet::new();
        let mut keys = BTreeSet::new();
        for (i, credential) in self.profile.credentials.iter().enumerate() {
            let path = format!("credentials[{i}]");
            if credential.name.trim().is_empty() {
                self.error(format!("{path}.name"), "is missing");
            } else if !names.insert(&credential.name) {
                self.error(format!("{path}.name"), "is the name of another credential");
            }
            if credential.env_vars.is_empty() && credential.token_grant.is_none() {
                self.error(
                    format!("{path}.env_vars"),
                    "is missing; sandboxes know it by these",
                );
            }
            for (j, key) in credential.env_vars.iter().enumerate() {
                let path = format!("{path}.env_vars[{j}]");
                if !keys.insert(key) {
                    self.error(&path, "is a variable that the profile has already");
                }
                if is_reserved(key.as_str()) {
                    self.error(&path, "looks like a placeholder; choose another name");
                }
            }
        }
        let plain = self.profile.config.iter().enumerate();
        for (i, key) in plain.flat_map(|(i, c)| c.env_vars.iter().map(move |key| (i, key))) {
            if !keys.insert(key) {
                let path = format!("config[{i}].env_vars");
                self.error(path, format!("has {key}, which the profile has already"));
            }
        }
        if self.profile.credentials.is_empty() {
            self.warn(
                "credentials",
                "are missing; a provider of this type has nothing to give",
            );
        } else if self.profile.endpoints.is_empty() {
            let nowhere = "are missing; sandboxes may use the credentials nowhere";
            self.warn("endpoints", nowhere);
        }
    }

    fn credential(&mut self, path: &str, credential: &'p ProfileCredential) {
        self.auth(path, &credential.auth);
        let mut strategies = BTreeSet::new();
        for (i, spec) in credential.refresh.iter().enumerate() {
            let path = match credential.refresh.len() {
                1 => format!("{path}.refresh"),
                _ => format!("{path}.refresh[{i}]"),
            };
            if !strategies.insert(spec.strategy) {
                self.error(format!("{path}.strategy"), "stands here a second time");
            }
            self.refresh(&path, credential, spec);
        }
        if let Some(grant) = &credential.token_grant
            && Format::Url.check(&grant.token_endpoint).is_err()
        {
            self.error(
                format!("{path}.token_grant.token_endpoint"),
                "must be an https URL",
            );
        }
    }

    fn auth(&mut self, path: &str, auth: &Auth) {
        let (field, is_good, problem) = match auth {
            Auth::Unspecified | Auth::Basic { .. } => return,
            Auth::Bearer { header } => {
                let is_good = header.is_empty() || is_token(header);
                ("header_name", is_good, "must be the name of a header")
            }
            Auth::Header { name, .. } => (
                "header_name",
                is_token(name),
                "must be the name of a header",
            ),
            Auth::Query { param } => ("query_param", !param.is_empty(), "is missing"),
            Auth::Path { template } => (
                "path_template",
                template.matches("{credential}").count() == 1 && template.starts_with('/'),
                "must begin with '/' and hold {credential} once",
            ),
        };
        if !is_good {
            self.error(format!("{path}.{field}"), problem);
        }
    }

    fn refresh(&mut self, path: &str, credential: &ProfileCredential, spec: &'p RefreshSpec) {
        let mut names = BTreeSet::new();
        for (i, material) in spec.material.iter().enumerate() {
            let path = format!("{path}.material[{i}]");
            if material.name.trim().is_empty() {
                self.error(format!("{path}.name"), "is missing");
            } else if !names.insert(&material.name) {
                self.error(format!("{path}.name"), "is the name of other material");
            }
            if material.secret && material.default.is_some() {
                self.error(format!("{path}.default"), "is none of a secret's");
            }
            self.default(
                &path,
                material.required,
                &material.format,
                material.default.as_deref(),
            );
        }
        let mut sources = self.config_sources();
        let public = spec.material.iter().filter(|m| !m.secret);
        sources.extend(public.map(|m| (m.name.as_str(), &m.format)));
        for secret in spec.material.iter().filter(|m| m.secret) {
            sources.remove(secret.name.as_str());
        }
        if let TokenUrl::Template(url) = &spec.token_url {
            self.url(&format!("{path}.token_url"), url, &sources);
        }
        if !spec.revoke_url.is_empty() {
            self.url(&format!("{path}.revoke_url"), &spec.revoke_url, &sources);
        }
        for (output, name) in &spec.outputs {
            let field = format!("{path}.additional_outputs");
            match self.profile.credential(name) {
                None => self.error(
                    field,
                    format!("gives {output} to {name:?}, which is no credential"),
                ),
                Some(_) if *name == credential.name => {
                    self.error(field, format!("gives {output} to the credential itself"));
                }
                Some(_) => {}
            }
        }
        if let (Some(before), Some(max)) = (spec.refresh_before_secs, spec.max_lifetime_secs)
            && before >= max
        {
            let late = "is not before the end of max_lifetime_seconds";
            self.warn(format!("{path}.refresh_before_seconds"), late);
        }
    }

    fn default(&mut self, path: &str, required: bool, format: &Format, default: Option<&str>) {
        let Some(default) = default else { return };
        if let Err(problem) = format.check(default) {
            self.error(format!("{path}.default"), problem);
        }
        if required {
            self.warn(format!("{path}.required"), "means nothing beside a default");
        }
    }

    fn config_sources(&self) -> Sources<'p> {
        let config = self.profile.config.iter();
        config.map(|key| (key.name.as_str(), &key.format)).collect()
    }

    fn config(&mut self) {
        let mut names = BTreeSet::new();
        for (i, key) in self.profile.config.iter().enumerate() {
            let path = format!("config[{i}]");
            for name in std::iter::once(&key.name).chain(&key.aliases) {
                if name.trim().is_empty() {
                    self.error(format!("{path}.name"), "is missing");
                } else if !names.insert(name) {
                    self.error(format!("{path}.name"), format!("{name:?} is there already"));
                }
            }
            self.default(&path, key.required, &key.format, key.default.as_deref());
        }
    }

    fn endpoints(&mut self) {
        let sources = self.config_sources();
        for (i, endpoint) in self.profile.endpoints.iter().enumerate() {
            let path = format!("endpoints[{i}]");
            let host = self.template(&format!("{path}.host"), &endpoint.host, &sources);
            if host.is_some_and(|host| !is_host_pattern(&host)) {
                let problem =
                    "must be a host name; '*' within a label and '**' for labels may stand in it";
                self.error(format!("{path}.host"), problem);
            }
            if ["*", "**"].contains(&endpoint.host.as_str()) {
                self.warn(
                    format!("{path}.host"),
                    "lets the credentials go to any host",
                );
            }
            if endpoint.ports.is_empty() || endpoint.ports.contains(&0) {
                self.error(format!("{path}.port"), "must be 1 to 65535");
            }
            let p = &endpoint.path;
            if !p.is_empty() && !p.starts_with('/') && p != "**" {
                self.error(format!("{path}.path"), "must begin with '/'");
            }
        }
    }

    fn discovery(&mut self) {
        let discovery = &self.profile.discovery;
        for (i, name) in discovery.credentials.iter().enumerate() {
            if self.profile.credential(name).is_none() {
                let field = format!("discovery.credentials[{i}]");
                self.error(field, format!("names {name:?}, which is no credential"));
            }
        }
        for (i, file) in discovery.files.iter().enumerate() {
            let path = format!("discovery.files[{i}]");
            if !FILE_KINDS.contains(&file.kind.as_str()) {
                let all = FILE_KINDS.join(", ");
                self.error(format!("{path}.kind"), format!("must be one of {all}"));
            }
            if file.path.is_empty() && file.env_var.is_empty() {
                self.error(path, "needs path or env_var");
            }
        }
    }

    fn api(&mut self, path: &str, api: &Api) {
        self.auth(path, &api.auth);
        let sources = self.config_sources();
        for name in api
            .when
            .keys()
            .filter(|name| !sources.contains_key(name.as_str()))
        {
            self.error(
                format!("{path}.when"),
                format!("asks for {name:?}, which is no config key"),
            );
        }
        if !api.base_url.is_empty() {
            self.url(&format!("{path}.base_url"), &api.base_url, &sources);
        }
        if *api != Api::default() && api.protocols.is_empty() {
            self.warn(
                format!("{path}.protocols"),
                "are missing; agents have to know by themselves",
            );
        }
        if api
            .request_path
            .as_deref()
            .is_some_and(|p| p.contains(['?', '#', ' ']))
        {
            self.error(format!("{path}.request_path"), "must be a path");
        }
        for name in api.headers.keys().chain(&api.passthrough_headers) {
            if !is_token(name) {
                self.error(
                    format!("{path}.headers"),
                    format!("has {name:?}, which is no header"),
                );
            }
        }
    }

    /// A template that becomes a URL: https, and whoever fills it chooses no other domain.
    fn url(&mut self, field: &str, template: &str, sources: &Sources<'_>) {
        let Some(sample) = self.template(field, template, sources) else {
            return;
        };
        if let Err(problem) = Format::Url.check(&sample) {
            self.error(field, problem);
            return;
        }
        let pieces = pieces(template).unwrap_or_default();
        let last = pieces
            .iter()
            .rposition(|p| matches!(p, Piece::Placeholder(_, true)));
        let Some(last) = last else { return };
        let Piece::Placeholder(name, _) = pieces[last] else {
            return;
        };
        let rest = match pieces.get(last + 1) {
            Some(Piece::Text(rest)) => rest.split('/').next().unwrap_or(""),
            _ => "",
        };
        let domain = rest.split_once('.').map_or("", |(_, domain)| domain);
        let is_closed = matches!(sources.get(name), Some(Format::Host | Format::OneOf(_)));
        if !domain.contains('.') && !is_closed {
            let problem = "lets {name} choose the domain; give it format host or one_of";
            self.error(field, problem.replace("name", name));
        }
    }

    /// The template with something in the place of each placeholder.
    fn template(&mut self, field: &str, template: &str, sources: &Sources<'_>) -> Option<String> {
        let pieces = match pieces(template) {
            Ok(pieces) => pieces,
            Err(error) => {
                self.error(field, error);
                return None;
            }
        };
        let mut sample = String::new();
        for piece in pieces {
            match piece {
                Piece::Text(text) => sample.push_str(text),
                Piece::Placeholder(name, _) if sources.contains_key(name) => sample.push('x'),
                Piece::Placeholder(name, _) => {
                    let unknown =
                        format!("needs {name:?}, which is no config key and no public material");
                    self.error(field, unknown);
                    return None;
                }
            }
        }
        Some(sample)
    }
}

/// Whether a variable's name is one of the forms of OpenShell's placeholders.
fn is_reserved(key: &str) -> bool {
    let Some((head, rest)) = key.split_once('_') else {
        return false;
    };
    let is_revision = head
        .strip_prefix('v')
        .is_some_and(|n| !n.is_empty() && n.chars().all(|c| c.is_ascii_digit()));
    let is_handle = head
        .strip_prefix('s')
        .is_some_and(|n| n.len() == 64 && n.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f')));
    !rest.is_empty() && (is_revision || is_handle)
}

/// A token of [RFC 9110 §5.6.2](https://www.rfc-editor.org/rfc/rfc9110#section-5.6.2).
fn is_token(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    !text.is_empty() && text.chars().all(plain)
}

fn is_host_pattern(host: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_*?[]".contains(c);
    let is_label = |label: &str| !label.is_empty() && label.chars().all(plain);
    host.len() <= 253 && host.split('.').all(is_label)
}
