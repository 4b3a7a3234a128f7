//! What `ConfigureRefresh` asks for, checked: the request's part, completed by the provider's
//! profile and judged by those who talk to issuers.

use std::collections::{BTreeMap, BTreeSet};

use evermint_core::credential::RefreshConfig;
use evermint_core::id::CredentialKey;
use evermint_core::profile::catalog::Found;
use evermint_core::profile::refresh::{Flaw, Part, Plan, Wish};
use evermint_core::profile::{Profile, RefreshSpec};
use evermint_core::provider::{Provider, limit};
use evermint_core::secret::Secret;
use evermint_core::strategy::{ReplayPolicy, Strategy};
use evermint_core::time::UnixMs;
use evermint_proto::v1;
use evermint_proto::v1::replay_policy::Kind as ReplayKind;
use tonic::Status;

use super::Services;
use super::providers::end;
use crate::port::FieldProblem;
use crate::rim::{Rim, entry};

/// Most scopes of one refresh.
const SCOPES_MAX: usize = 64;
/// The longest token endpoint, in bytes.
const URL_MAX: usize = 2048;
/// The longest time that a setting of a refresh may name: ten years.
const TIME_MAX_MS: u64 = 10 * 366 * 86_400_000;

/// A request to configure a refresh, checked.
pub(crate) struct Asked {
    pub(super) key: CredentialKey,
    pub(super) config: RefreshConfig,
    pub(super) secrets: BTreeMap<String, Secret>,
    pub(super) expires_at: Option<Option<UnixMs>>,
}

impl Services {
    pub(super) fn asked(
        &self,
        provider: &Provider,
        request: v1::ConfigureRefreshRequest,
    ) -> Result<Asked, Status> {
        let (catalog, state) = (&self.ports.catalog, self.state());
        let found = catalog.of(&state, &provider.workspace, &provider.kind);
        let counts = found.as_ref().is_some_and(Found::speaks_for_platform);
        self.asked_by(
            found.as_ref().map(Found::profile),
            counts,
            provider,
            request,
        )
    }

    /// The same, where `profile` is what the provider's type says, and `speaks_for_platform` whether
    /// endpoints that it fixes may be used without being listed.
    pub(crate) fn asked_by(
        &self,
        profile: Option<&Profile>,
        speaks_for_platform: bool,
        provider: &Provider,
        request: v1::ConfigureRefreshRequest,
    ) -> Result<Asked, Status> {
        let mut rim = Rim::default();
        let key = rim.parse::<CredentialKey>("credential_key", &request.credential_key);
        let strategy = match (request.strategy.as_str(), profile) {
            // The usual way of the profile; without one, the credential is only ever given.
            ("", Some(profile)) if !profile.strategies(key.as_ref()).is_empty() => {
                profile.strategies(key.as_ref()).first().copied()
            }
            (text, _) => strategy(&mut rim, text),
        };
        let alone = strategy.filter(|s| Wish::needs_no_profile(*s));
        let way = match alone {
            Some(_) => None,
            None => way(&mut rim, provider, profile, key.as_ref(), strategy),
        };
        if request.token_url.len() > URL_MAX {
            rim.text("token_url", &request.token_url, URL_MAX);
        }
        if request.revoke_url.len() > URL_MAX {
            rim.text("revoke_url", &request.revoke_url, URL_MAX);
        }
        rim.count("scopes", request.scopes.len(), SCOPES_MAX);
        for (i, scope) in request.scopes.iter().enumerate() {
            rim.text(format!("scopes[{i}]"), scope, limit::MAP_KEY);
        }
        let outputs = outputs(&mut rim, key.as_ref(), &request.outputs);
        let replay = replay(&mut rim, request.replay.as_ref());
        for (field, ms) in [
            ("refresh_before_ms", request.refresh_before_ms),
            ("not_before_ms", request.not_before_ms),
            ("max_lifetime_ms", request.max_lifetime_ms),
        ] {
            if ms.is_some_and(|ms| ms == 0 || ms > TIME_MAX_MS) {
                rim.problem(
                    field,
                    format_args!("must be 1 to {TIME_MAX_MS} if it is given"),
                );
            }
        }
        let is_secret = |name: &str| {
            let by_profile = way.iter().flat_map(|(_, spec)| &spec.material);
            by_profile.clone().any(|m| m.secret && m.name == name)
                || strategy.is_some_and(|s| self.ports.policy.is_secret(s, name))
        };
        let (material, secrets) = sort(
            &mut rim,
            is_secret,
            request.material,
            request.secret_material,
        );
        let ends = request.material_expires_at_ms;
        rim.count("material_expires_at_ms", ends.len(), limit::MATERIAL);
        for name in ends.keys() {
            if !material.contains_key(name) && !secrets.contains_key(name) {
                let field = entry("material_expires_at_ms", name);
                rim.problem(field, "is the end of material that is not given");
            }
        }
        let ends = ends.into_iter().map(|(name, end)| (name, UnixMs(end)));
        let wish = Wish {
            token_url: request.token_url,
            revoke_url: request.revoke_url,
            scopes: request.scopes,
            material,
            secrets: secrets.keys().cloned().collect(),
            outputs,
            material_ends: ends.collect(),
            replay,
            refresh_before_ms: request.refresh_before_ms,
            not_before_ms: request.not_before_ms,
            max_lifetime_ms: request.max_lifetime_ms,
        };
        let plan = match (alone, way) {
            (Some(strategy), _) => Some(wish.alone(strategy)),
            (None, Some((profile, spec))) => Some(profile.plan(spec, &provider.config, wish)),
            (None, None) => None,
        };
        let plan = plan.map(|mut plan| {
            if !speaks_for_platform {
                plan.config.fixed_urls.clear();
            }
            plan
        });
        let config = plan.map(|plan| self.judge(&mut rim, plan, &secrets));
        rim.finish(|| {
            Some(Asked {
                key: key?,
                config: config?,
                secrets,
                expires_at: request.expires_at_ms.map(end),
            })
        })
    }

    /// Asks those who talk to issuers, too. What only filled a template is none of theirs, and
    /// what the profile told already is not told twice.
    fn judge(
        &self,
        rim: &mut Rim,
        mut plan: Plan,
        secrets: &BTreeMap<String, Secret>,
    ) -> RefreshConfig {
        let policy = &self.ports.policy;
        let strategy = plan.config.strategy;
        plan.config
            .material
            .retain(|name, _| !plan.placed.contains(name) || policy.takes(strategy, name));
        let mut problems: Vec<FieldProblem> = plan.flaws.into_iter().map(problem).collect();
        let told: BTreeSet<String> = problems.iter().map(|p| p.field.clone()).collect();
        // Where material is missing, so is the endpoint that it would have made.
        let is_unmade = !told.is_empty() && plan.config.token_url.is_empty();
        let is_told = |field: &str| told.contains(field) || (field == "token_url" && is_unmade);
        let more = policy.check(&plan.config, secrets);
        problems.extend(more.into_iter().filter(|p| !is_told(&p.field)));
        rim.problems(problems);
        plan.config
    }
}

fn problem(flaw: Flaw) -> FieldProblem {
    FieldProblem {
        field: match flaw.part {
            Part::TokenUrl => "token_url".to_owned(),
            Part::RevokeUrl => "revoke_url".to_owned(),
            Part::Material(name) => entry("material", &name),
        },
        problem: flaw.problem,
    }
}

/// The way in which the profile mints the credential.
fn way<'p>(
    rim: &mut Rim,
    provider: &Provider,
    profile: Option<&'p Profile>,
    key: Option<&CredentialKey>,
    strategy: Option<Strategy>,
) -> Option<(&'p Profile, &'p RefreshSpec)> {
    let Some(profile) = profile else {
        let kind = &provider.kind;
        rim.problem(
            "provider",
            format_args!(
                "is of type {kind}, which no profile describes; import one, or use the type generic-oauth2"
            ),
        );
        return None;
    };
    if let Some(spec) = profile.way(key, strategy?) {
        return Some((profile, spec));
    }
    let known: Vec<&str> = profile.strategies(key).iter().map(|s| s.as_str()).collect();
    let offers = match known.as_slice() {
        [] => "values that are given, and mints none".to_owned(),
        known => known.join(", "),
    };
    rim.problem(
        "strategy",
        format_args!("is not one of profile {}, which has {offers}", profile.id),
    );
    None
}

/// Sorts material into public and secret: what the request calls secret, and what is known to be.
fn sort(
    rim: &mut Rim,
    is_secret: impl Fn(&str) -> bool,
    material: BTreeMap<String, String>,
    secret_material: BTreeMap<String, String>,
) -> (BTreeMap<String, String>, BTreeMap<String, Secret>) {
    rim.count(
        "material",
        material.len() + secret_material.len(),
        limit::MATERIAL,
    );
    let (mut public, mut secrets) = (BTreeMap::new(), BTreeMap::new());
    for (name, value) in secret_material {
        let field = entry("secret_material", &name);
        rim.text(field.clone(), &name, limit::MAP_KEY);
        if material.contains_key(&name) {
            rim.problem(field.clone(), "is in material as well");
        }
        secrets.insert(name, rim.secret(field, value));
    }
    for (name, value) in material {
        let field = entry("material", &name);
        rim.text(field.clone(), &name, limit::MAP_KEY);
        if is_secret(&name) {
            secrets.insert(name, rim.secret(field, value));
        } else {
            if value.len() > limit::MAP_VALUE {
                rim.too_long(field, value.len(), limit::MAP_VALUE);
            }
            public.insert(name, value);
        }
    }
    (public, secrets)
}

pub(super) fn strategy(rim: &mut Rim, text: &str) -> Option<Strategy> {
    // The error repeats the text; one that is no name is not repeated.
    if text.len() > limit::MAP_KEY || text.is_empty() {
        rim.text("strategy", text, limit::MAP_KEY);
        return None;
    }
    if text == "static" {
        let problem = "static needs no refresh: set the value, and its end, with UpdateProvider";
        rim.problem("strategy", problem);
        return None;
    }
    rim.parse("strategy", text)
}

/// The further outputs: each under a name of its own.
fn outputs(
    rim: &mut Rim,
    primary: Option<&CredentialKey>,
    asked: &BTreeMap<String, String>,
) -> BTreeMap<String, CredentialKey> {
    rim.count("outputs", asked.len(), limit::CREDENTIALS);
    let mut taken: BTreeSet<CredentialKey> = primary.cloned().into_iter().collect();
    let mut outputs = BTreeMap::new();
    for (output, name) in asked {
        let field = entry("outputs", output);
        rim.text(field.clone(), output, limit::MAP_KEY);
        let Some(key) = rim.parse::<CredentialKey>(field.clone(), name) else {
            continue;
        };
        if !taken.insert(key.clone()) {
            rim.problem(field, format_args!("has the name of another output, {key}"));
        }
        outputs.insert(output.clone(), key);
    }
    outputs
}

/// `None` leaves it to the profile.
fn replay(rim: &mut Rim, policy: Option<&v1::ReplayPolicy>) -> Option<ReplayPolicy> {
    let policy = policy?;
    let grace_ms = policy.grace_ms;
    match ReplayKind::try_from(policy.kind) {
        Ok(ReplayKind::Grace) if (1..=TIME_MAX_MS).contains(&grace_ms) => {
            Some(ReplayPolicy::Grace(grace_ms))
        }
        Ok(ReplayKind::Grace) => {
            rim.problem(
                "replay.grace_ms",
                format_args!("must be 1 to {TIME_MAX_MS}"),
            );
            None
        }
        Ok(_) if grace_ms != 0 => {
            rim.problem("replay.grace_ms", "is only for KIND_GRACE");
            None
        }
        Ok(ReplayKind::Safe) => Some(ReplayPolicy::Safe),
        Ok(ReplayKind::Strict) => Some(ReplayPolicy::Strict),
        Ok(ReplayKind::Unspecified) => None,
        Err(_) => {
            rim.problem("replay.kind", "is not known");
            None
        }
    }
}
