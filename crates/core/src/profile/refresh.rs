//! What a profile makes of a wish to refresh a credential: where the token endpoint is, what is
//! missing, and what holds where the operator said nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::{Format, Profile, ProfileCredential, RefreshSpec, TokenUrl, template};
use crate::credential::RefreshConfig;
use crate::id::CredentialKey;
use crate::strategy::{ReplayPolicy, Strategy};
use crate::time::UnixMs;

/// What an operator asks for; empty or `None` where they leave it to the profile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// The token endpoint.
    pub token_url: String,
    /// The revocation endpoint.
    pub revoke_url: String,
    /// Scopes.
    pub scopes: Vec<String>,
    /// Public material.
    pub material: BTreeMap<String, String>,
    /// The names of the secret material that comes along.
    pub secrets: BTreeSet<String>,
    /// Further outputs.
    pub outputs: BTreeMap<String, CredentialKey>,
    /// The ends of material, where they are known.
    pub material_ends: BTreeMap<String, UnixMs>,
    /// What the issuer does with a used refresh token.
    pub replay: Option<ReplayPolicy>,
    /// How long before its end a token is replaced, in milliseconds.
    pub refresh_before_ms: Option<u64>,
    /// How long a token is kept at least, in milliseconds.
    pub not_before_ms: Option<u64>,
    /// No token is trusted for longer, in milliseconds.
    pub max_lifetime_ms: Option<u64>,
}

/// A wish with the profile's part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What is stored, as if the profile had the platform's word on endpoints; see
    /// [`Found::speaks_for_platform`](super::catalog::Found::speaks_for_platform).
    pub config: RefreshConfig,
    /// Public material that a template took up: the strategy need not know it.
    pub placed: BTreeSet<String>,
    /// Everything that is wrong with the wish, as far as the profile can tell; if anything is, the
    /// plan is of no use.
    pub flaws: Vec<Flaw>,
}

/// Something wrong with a wish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// Which part.
    pub part: Part,
    /// What is wrong, as the rest of a sentence that begins with the part. Holds no value.
    pub problem: String,
}

/// A part of a wish.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Part {
    TokenUrl,
    RevokeUrl,
    Material(String),
}

impl Wish {
    /// Whether a strategy asks no issuer, so that no profile has to name one.
    pub fn needs_no_profile(strategy: Strategy) -> bool {
        matches!(strategy, Strategy::Exec | Strategy::External)
    }

    /// The plan of a wish that no profile completes.
    pub fn alone(self, strategy: Strategy) -> Plan {
        Plan {
            placed: BTreeSet::new(),
            flaws: Vec::new(),
            config: RefreshConfig {
                revoke_url: self.revoke_url,
                scopes: self.scopes,
                material: self.material,
                material_ends: self.material_ends,
                outputs: self.outputs,
                replay: self.replay.unwrap_or_default(),
                refresh_before_ms: self.refresh_before_ms,
                not_before_ms: self.not_before_ms,
                max_lifetime_ms: self.max_lifetime_ms,
                ..RefreshConfig::new(strategy, self.token_url)
            },
        }
    }
}

impl Profile {
    /// The way in which the credential `key` is minted by `strategy`: that of the credential of
    /// this name, or of the first that can be minted so, since operators may serve a credential
    /// under a name of their own.
    pub fn way(&self, key: Option<&CredentialKey>, strategy: Strategy) -> Option<&RefreshSpec> {
        let mut candidates = self.candidates(key).iter();
        candidates.find_map(|credential| credential.refresh_by(strategy))
    }

    /// The strategies that [`way`](Self::way) knows for `key`, the usual one first.
    pub fn strategies(&self, key: Option<&CredentialKey>) -> Vec<Strategy> {
        let mut all = Vec::new();
        for spec in self.candidates(key).iter().flat_map(|c| &c.refresh) {
            if !all.contains(&spec.strategy) {
                all.push(spec.strategy);
            }
        }
        all
    }

    fn candidates(&self, key: Option<&CredentialKey>) -> &[ProfileCredential] {
        match key.and_then(|key| self.credential_for(key)) {
            Some(credential) => std::slice::from_ref(credential),
            None => &self.credentials,
        }
    }

    /// Completes a wish by the way `spec` of this profile, for a provider with these settings.
    pub fn plan(
        &self,
        spec: &RefreshSpec,
        settings: &BTreeMap<String, String>,
        wish: Wish,
    ) -> Plan {
        let mut flaws = Vec::new();
        let mut material = wish.material;
        for known in &spec.material {
            let is_given = material.contains_key(&known.name) || wish.secrets.contains(&known.name);
            if let (false, Some(default)) = (is_given, &known.default) {
                material.insert(known.name.clone(), default.clone());
            } else if known.required && !is_given {
                let about = match known.description.as_str() {
                    "" => String::new(),
                    about => format!(": {about}"),
                };
                flaws.push(Flaw {
                    part: Part::Material(known.name.clone()),
                    problem: format!("is missing{about}"),
                });
            }
            if let Some(value) = material.get(&known.name)
                && let Err(problem) = known.format.check(value)
            {
                flaws.push(Flaw {
                    part: Part::Material(known.name.clone()),
                    problem,
                });
            }
        }
        let value = |name: &str| -> Option<(&str, &Format)> {
            let known = spec.material.iter().find(|m| m.name == name && !m.secret);
            let given = known.and_then(|m| Some((material.get(name)?.as_str(), &m.format)));
            given.or_else(|| self.config_value(settings, name))
        };
        let fixed = |template: &str, url: &str| {
            let is_fixed = !url.is_empty()
                && !template::frees_host(template, |name| value(name).map(|(_, format)| format));
            is_fixed.then(|| url.to_owned())
        };
        let token_url = match &spec.token_url {
            TokenUrl::FromOperator => Ok(wish.token_url),
            TokenUrl::None if wish.token_url.is_empty() => Ok(String::new()),
            TokenUrl::None => Err(format!("is not for strategy {}", spec.strategy)),
            TokenUrl::Template(template) => match template::fill(template, value) {
                Ok(url) if wish.token_url.is_empty() || wish.token_url == url => Ok(url),
                Ok(_) => Err(format!(
                    "comes from the profile {}; leave it out, use the type generic-oauth2, or import a profile of your own",
                    self.id
                )),
                Err(error) => Err(error.to_string()),
            },
        };
        let token_url = token_url.unwrap_or_else(|problem| {
            // Material that is missing was told already.
            let is_told = flaws.iter().any(|flaw| match &flaw.part {
                Part::Material(name) => problem.contains(name.as_str()),
                Part::TokenUrl | Part::RevokeUrl => false,
            });
            if !is_told {
                flaws.push(Flaw {
                    part: Part::TokenUrl,
                    problem,
                });
            }
            String::new()
        });
        let revoke_url = match (spec.revoke_url.as_str(), wish.revoke_url.as_str()) {
            ("", given) => given.to_owned(),
            // What hinders the token endpoint hinders this one, and was told.
            (template, given) => match template::fill(template, value) {
                Ok(url) if given.is_empty() || given == url => url,
                Ok(_) => {
                    flaws.push(Flaw {
                        part: Part::RevokeUrl,
                        problem: format!("comes from the profile {}; leave it out", self.id),
                    });
                    String::new()
                }
                Err(error) => {
                    if flaws.is_empty() {
                        flaws.push(Flaw {
                            part: Part::RevokeUrl,
                            problem: error.to_string(),
                        });
                    }
                    String::new()
                }
            },
        };
        let token_template = match &spec.token_url {
            TokenUrl::Template(template) => Some((template.as_str(), token_url.as_str())),
            TokenUrl::None | TokenUrl::FromOperator => None,
        };
        let revoke_template = Some((spec.revoke_url.as_str(), revoke_url.as_str()));
        let fixed_urls = [
            token_template,
            revoke_template.filter(|(t, _)| !t.is_empty()),
        ]
        .into_iter()
        .flatten()
        .filter_map(|(template, url)| fixed(template, url))
        .collect();
        let millis = |secs: Option<u64>| secs.map(|secs| secs.saturating_mul(1000));
        // A target audience asks for an ID token, which has no scopes.
        let is_scoped = !wish.scopes.is_empty() || material.contains_key("target_audience");
        let outputs = match wish.outputs.is_empty() {
            true => self.output_keys(spec),
            false => wish.outputs,
        };
        Plan {
            placed: self.placeholders(spec),
            flaws,
            config: RefreshConfig {
                revoke_url,
                fixed_urls,
                scopes: match is_scoped {
                    true => wish.scopes,
                    false => spec.scopes.clone(),
                },
                material,
                material_ends: wish.material_ends,
                outputs,
                replay: wish.replay.unwrap_or(spec.replay),
                refresh_before_ms: wish.refresh_before_ms.or(millis(spec.refresh_before_secs)),
                not_before_ms: wish.not_before_ms.or(millis(spec.not_before_secs)),
                max_lifetime_ms: wish.max_lifetime_ms.or(millis(spec.max_lifetime_secs)),
                ..RefreshConfig::new(spec.strategy, token_url)
            },
        }
    }

    /// Everything wrong with a provider's settings: a name, and the rest of a sentence.
    pub fn check_config(&self, settings: &BTreeMap<String, String>) -> Vec<(String, String)> {
        let mut flaws = Vec::new();
        for key in &self.config {
            let names = std::iter::once(&key.name).chain(&key.aliases);
            let given: Vec<&String> = names.filter(|name| settings.contains_key(*name)).collect();
            if given.len() > 1 {
                let problem = format!("is the same as {}; give one of them", given[1]);
                flaws.push((given[0].clone(), problem));
            }
            for name in &given {
                let value = settings[*name].as_str();
                if let Err(problem) = key.format.check(value)
                    && !value.is_empty()
                {
                    flaws.push(((*name).clone(), problem));
                }
            }
            if key.required && key.value(settings).is_none() {
                flaws.push((key.name.clone(), "is missing".to_owned()));
            }
        }
        flaws
    }

    fn placeholders(&self, spec: &RefreshSpec) -> BTreeSet<String> {
        let token_url = match &spec.token_url {
            TokenUrl::Template(template) => template.as_str(),
            TokenUrl::None | TokenUrl::FromOperator => "",
        };
        [token_url, &spec.revoke_url]
            .into_iter()
            .flat_map(|text| template::pieces(text).unwrap_or_default())
            .filter_map(|piece| match piece {
                template::Piece::Placeholder(name, _) => Some(name.to_owned()),
                template::Piece::Text(_) => None,
            })
            .collect()
    }
}
