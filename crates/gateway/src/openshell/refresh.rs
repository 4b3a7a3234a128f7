//! Refreshes of credentials.

use std::collections::{BTreeMap, BTreeSet};

use axum::http::StatusCode;
use evermint_core::command::Command;
use evermint_core::credential::{Credential, Verdict};
use evermint_core::id::{CredentialId, CredentialKey, Name, Workspace};
use evermint_core::profile::catalog::Found;
use evermint_core::profile::{Format, MaterialSpec, Profile, TokenUrl};
use evermint_core::provider::{Provider, limit};
use evermint_core::strategy::Strategy;
use evermint_core::time::UnixMs;
use evermint_proto::openshell::v1;
use evermint_proto::openshell::v1::ProviderCredentialRefreshStrategy as Wire;
use evermint_proto::v1 as ours;
use evermint_proto::v1::refreshes_server::Refreshes as _;
use evermint_proto::v1::rotate_credential_response::Outcome;
use tonic::{Request, Status};

use super::meta::{self, millis};
use super::{Face, providers, settings, status as error};

/// How long before its end a token is replaced, if nobody says.
const REFRESH_BEFORE_SECS: u64 = 300;
/// No token is trusted for longer, if nobody says.
const LIFETIME_MAX_SECS: u64 = 3_600;
/// How long a mint may take that a call waits for.
const MINT_TIME_MS: u64 = 45_000;
/// Where tenants of Microsoft mint, whatever the profile says.
const TENANTS: &str = "https://login.microsoftonline.com/{tenant_id}/oauth2/v2.0/token";
/// The material that names a tenant.
const TENANT: &str = "tenant_id";

pub(super) async fn status(
    face: &Face,
    request: Request<v1::GetProviderRefreshStatusRequest>,
) -> Result<v1::GetProviderRefreshStatusResponse, Status> {
    let request = request.into_inner();
    let name = meta::wanted("provider", request.provider.trim())?;
    let provider = provider(face, &request.workspace, name.as_ref()).await?;
    let key = request.credential_key.trim();
    let (state, now) = (face.state(), face.ports.view.now());
    let credentials = state
        .credentials_of(&provider)
        .filter(|c| key.is_empty() || c.id.key.as_str() == key)
        .filter_map(|c| shown(&provider, c, now))
        .collect();
    Ok(v1::GetProviderRefreshStatusResponse { credentials })
}

pub(super) async fn configure(
    face: &Face,
    request: Request<v1::ConfigureProviderRefreshRequest>,
) -> Result<v1::ConfigureProviderRefreshResponse, Status> {
    let request = request.into_inner();
    let name = meta::wanted("provider", request.provider.trim())?;
    let key = required_key(&request.credential_key)?;
    let strategy = strategy(request.strategy)?;
    check_material(&request)?;
    let provider = provider(face, &request.workspace, name.as_ref()).await?;
    if strategy == Strategy::AwsStsAssumeRole && !settings::is_on(face, settings::PROVIDERS_V2) {
        return Err(error::precondition(
            "AWS STS refresh requires the gateway setting providers_v2_enabled=true",
        ));
    }
    let catalog = &face.ports.catalog;
    let found = catalog.of(&face.state(), &provider.workspace, &provider.kind);
    let profile = found.as_ref().map(Found::profile).map(|profile| {
        let mut profile = profile.clone();
        if request.material.contains_key(TENANT) {
            send_to_tenant(&mut profile);
        }
        let specs = profile.credentials.iter_mut().flat_map(|c| &mut c.refresh);
        for material in specs.flat_map(|spec| &mut spec.material) {
            material.name = ours_of(std::mem::take(&mut material.name));
        }
        profile
    });
    let wish = wish(face, request, &key, strategy, profile.as_ref())?;
    let services = face.services();
    let counts = found.as_ref().is_some_and(Found::speaks_for_platform);
    let asked = services.asked_by(profile.as_ref(), counts, &provider, wish)?;
    let id = CredentialId {
        provider: provider.id,
        key,
    };
    let written = face.commit(services.configure(&id, asked)?).await?;
    let credential = written.state.credentials.get(&id);
    Ok(v1::ConfigureProviderRefreshResponse {
        status: credential.and_then(|c| shown(&provider, c, face.ports.view.now())),
    })
}

pub(super) async fn rotate(
    face: &Face,
    request: Request<v1::RotateProviderCredentialRequest>,
) -> Result<v1::RotateProviderCredentialResponse, Status> {
    let request = request.into_inner();
    let name = meta::wanted("provider", request.provider.trim())?;
    let key = required_key(&request.credential_key)?;
    let provider = provider(face, &request.workspace, name.as_ref()).await?;
    let id = CredentialId {
        provider: provider.id,
        key,
    };
    let has_refresh = |c: &&std::sync::Arc<Credential>| c.refresh.is_some();
    face.find(|state| state.credentials.get(&id).filter(has_refresh).cloned())
        .await?
        .ok_or_else(|| error::not_found("provider credential refresh is not configured"))?;
    // The same mint under the same ticket as on the other face.
    let rotate = ours::RotateCredentialRequest {
        workspace: provider.workspace.to_string(),
        provider: provider.name.to_string(),
        credential_key: id.key.to_string(),
        wait_ms: MINT_TIME_MS,
        revoke_after_ms: None,
    };
    let services = face.services();
    let rotated = services.rotate_credential(Request::new(rotate)).await?;
    let state = face.state();
    let Some(credential) = state.credentials.get(&id).filter(has_refresh) else {
        return Err(error::aborted("the refresh was deleted while the mint ran"));
    };
    let now = face.ports.view.now();
    match rotated.get_ref().outcome() {
        Outcome::Minted => Ok(v1::RotateProviderCredentialResponse {
            status: shown(&provider, credential, now),
        }),
        Outcome::Failed => Err(failed(credential)),
        Outcome::Due | Outcome::Unspecified => Err(error::unavailable(
            "the mint has not ended yet; ask for the status of the refresh",
        )),
    }
}

pub(super) async fn delete(
    face: &Face,
    request: Request<v1::DeleteProviderRefreshRequest>,
) -> Result<v1::DeleteProviderRefreshResponse, Status> {
    let request = request.into_inner();
    let name = meta::wanted("provider", request.provider.trim())?;
    let key: Option<CredentialKey> = meta::wanted("credential_key", request.credential_key.trim())?;
    let provider = provider(face, &request.workspace, name.as_ref()).await?;
    let Some(key) = key else {
        return Ok(v1::DeleteProviderRefreshResponse { deleted: false });
    };
    let credential = CredentialId {
        provider: provider.id,
        key,
    };
    let written = face.commit(Command::DeleteRefresh { credential }).await?;
    Ok(v1::DeleteProviderRefreshResponse {
        deleted: meta::changed(&written.done),
    })
}

async fn provider(
    face: &Face,
    workspace: &str,
    name: Option<&Name>,
) -> Result<std::sync::Arc<Provider>, Status> {
    let workspace: Workspace = face.workspace(workspace).await?;
    let found = providers::find(face, &workspace, name).await?;
    found.ok_or_else(providers::not_found)
}

fn required_key(text: &str) -> Result<CredentialKey, Status> {
    match text.trim() {
        "" => Err(error::invalid("credential_key is required")),
        text => meta::parse("credential_key", text),
    }
}

fn strategy(wire: i32) -> Result<Strategy, Status> {
    match Wire::try_from(wire) {
        Ok(Wire::Oauth2RefreshToken) => Ok(Strategy::OAuth2RefreshToken),
        Ok(Wire::Oauth2ClientCredentials) => Ok(Strategy::OAuth2ClientCredentials),
        Ok(Wire::GoogleServiceAccountJwt) => Ok(Strategy::GoogleServiceAccountJwt),
        Ok(Wire::AwsStsAssumeRole) => Ok(Strategy::AwsStsAssumeRole),
        Ok(Wire::Unspecified) => Err(error::invalid("strategy is required")),
        Ok(Wire::Static | Wire::External) => Err(error::invalid(
            "strategy cannot be minted by the gateway: static and external values are set with UpdateProvider",
        )),
        Err(_) => Err(error::invalid("strategy is not known")),
    }
}

/// The name that this face has for a strategy; those that came later have none.
pub(super) fn wire(strategy: Strategy) -> Wire {
    match strategy {
        Strategy::OAuth2RefreshToken => Wire::Oauth2RefreshToken,
        Strategy::OAuth2ClientCredentials => Wire::Oauth2ClientCredentials,
        Strategy::GoogleServiceAccountJwt => Wire::GoogleServiceAccountJwt,
        Strategy::AwsStsAssumeRole => Wire::AwsStsAssumeRole,
        Strategy::External => Wire::External,
        _ => Wire::Unspecified,
    }
}

/// What this face forbids or asks of material before the profile is looked at.
fn check_material(request: &v1::ConfigureProviderRefreshRequest) -> Result<(), Status> {
    let material = &request.material;
    for (field, count, max) in [
        ("material", material.len(), limit::MATERIAL),
        (
            "secret_material_keys",
            request.secret_material_keys.len(),
            limit::MATERIAL,
        ),
    ] {
        if count > max {
            return Err(error::invalid(format!(
                "{field} exceeds maximum number of entries ({count} > {max})"
            )));
        }
    }
    let endpoint = ["token_url", "token_uri"]
        .into_iter()
        .find(|name| {
            material
                .get(*name)
                .is_some_and(|url| !url.trim().is_empty())
        })
        .or_else(|| {
            let sts = "sts_endpoint_url";
            material.contains_key(sts).then_some(sts)
        });
    if let Some(name) = endpoint {
        return Err(error::invalid(format!(
            "material '{name}' is not allowed: the token endpoint comes from the provider's profile"
        )));
    }
    let given = |name: &str| material.contains_key(name);
    let pair = ["aws_access_key_id", "aws_secret_access_key"].map(given);
    if pair[0] != pair[1] {
        return Err(error::invalid(
            "material aws_access_key_id and aws_secret_access_key must be given together",
        ));
    }
    if given("aws_session_token") && !pair[0] {
        return Err(error::invalid(
            "material aws_session_token needs aws_access_key_id and aws_secret_access_key",
        ));
    }
    if request.expires_at_ms.is_some_and(|ms| ms < 0) {
        return Err(error::invalid("expires_at_ms must not be negative"));
    }
    let missing = |name: &&String| !material.contains_key(*name);
    if let Some(name) = request.secret_material_keys.iter().find(missing) {
        let shown: String = name.chars().take(64).collect();
        return Err(error::invalid(format!(
            "secret_material_keys entry '{shown}' is not in material"
        )));
    }
    Ok(())
}

/// The strategies' name for material that OpenShell calls otherwise.
fn ours_of(name: String) -> String {
    let keys = ["access_key_id", "secret_access_key", "session_token"];
    match name.strip_prefix("aws_") {
        Some(rest) if keys.contains(&rest) => rest.to_owned(),
        _ => name,
    }
}

/// A number of seconds that came as material; 0 counts as not given.
fn seconds(material: &mut BTreeMap<String, String>, name: &str) -> Result<Option<u64>, Status> {
    let Some(text) = material.remove(name) else {
        return Ok(None);
    };
    let number = text.trim().parse::<i64>().ok();
    let number = number.and_then(|n| u64::try_from(n).ok()).ok_or_else(|| {
        error::invalid(format!(
            "material '{name}' must be a whole number of seconds from 0 on"
        ))
    })?;
    Ok((number > 0).then_some(number))
}

/// The request in the words of the other face, with this one's defaults. Material that neither the
/// profile nor the strategy knows is left out, as it never meant anything here.
fn wish(
    face: &Face,
    request: v1::ConfigureProviderRefreshRequest,
    key: &CredentialKey,
    strategy: Strategy,
    profile: Option<&Profile>,
) -> Result<ours::ConfigureRefreshRequest, Status> {
    let renamed = request.material.into_iter();
    let mut material: BTreeMap<String, String> = renamed
        .map(|(name, value)| (ours_of(name), value))
        .collect();
    let refresh_before = seconds(&mut material, "refresh_before_seconds")?;
    let max_lifetime = seconds(&mut material, "max_lifetime_seconds")?;
    let scopes = [material.remove("scopes"), material.remove("scope")];
    let scopes: Vec<String> = scopes
        .iter()
        .flatten()
        .flat_map(|text| text.split([',', ' ']))
        .filter(|scope| !scope.is_empty())
        .map(str::to_owned)
        .collect();
    let spec = profile.and_then(|p| p.way(Some(key), strategy));
    let policy = &face.ports.policy;
    material.retain(|name, _| {
        let is_declared = spec.is_some_and(|spec| {
            let placed = format!("{{{name}}}");
            spec.material.iter().any(|m| m.name == *name)
                || matches!(&spec.token_url, TokenUrl::Template(url) if url.contains(&placed))
        });
        is_declared || policy.takes(strategy, name)
    });
    let secret = request.secret_material_keys.into_iter().map(ours_of);
    let secret: BTreeSet<String> = secret.collect();
    let (secret_material, material) = material
        .into_iter()
        .partition(|(name, _)| secret.contains(name));
    // A default holds where neither the caller nor the profile says anything.
    let or = |given: Option<u64>, of_profile: Option<u64>, default: u64| {
        let secs = given.or(of_profile.is_none().then_some(default))?;
        Some(secs.saturating_mul(1000))
    };
    let known =
        |field: fn(&evermint_core::profile::RefreshSpec) -> Option<u64>| spec.and_then(field);
    Ok(ours::ConfigureRefreshRequest {
        workspace: request.workspace,
        provider: request.provider,
        credential_key: key.to_string(),
        strategy: strategy.to_string(),
        scopes,
        material,
        secret_material,
        refresh_before_ms: or(
            refresh_before,
            known(|s| s.refresh_before_secs),
            REFRESH_BEFORE_SECS,
        ),
        max_lifetime_ms: or(
            max_lifetime,
            known(|s| s.max_lifetime_secs),
            LIFETIME_MAX_SECS,
        ),
        expires_at_ms: request.expires_at_ms.and_then(|ms| u64::try_from(ms).ok()),
        ..Default::default()
    })
}

/// Has the OAuth strategies of a profile mint at the tenant that material names.
fn send_to_tenant(profile: &mut Profile) {
    for spec in profile.credentials.iter_mut().flat_map(|c| &mut c.refresh) {
        let is_oauth = matches!(
            spec.strategy,
            Strategy::OAuth2RefreshToken | Strategy::OAuth2ClientCredentials
        );
        let names_it =
            matches!(&spec.token_url, TokenUrl::Template(url) if url.contains("{tenant_id}"));
        if !is_oauth || names_it {
            continue;
        }
        spec.token_url = TokenUrl::Template(TENANTS.to_owned());
        spec.material.retain(|m| m.name != TENANT);
        spec.material.push(MaterialSpec {
            name: TENANT.to_owned(),
            description: String::new(),
            required: true,
            secret: false,
            format: Format::Segment,
            default: None,
        });
    }
}

/// Why a mint that was waited for gave no token.
fn failed(credential: &Credential) -> Status {
    let health = credential.refresh.as_ref().map(|r| &r.health);
    let Some(health) = health else {
        return error::aborted("the refresh was deleted while the mint ran");
    };
    let answer = answer(&health.cause);
    let cause = match (health.cause.as_str(), answer) {
        ("", _) => "the mint was overtaken by another one".to_owned(),
        (cause, Some(status)) => format!("token endpoint returned HTTP {status}: {cause}"),
        (cause, None) => cause.to_owned(),
    };
    match health.verdict {
        Verdict::InDoubt | Verdict::Fresh | Verdict::Pending => error::aborted(cause),
        // An issuer that was not reached may be, later; one that refused has to be seen to.
        Verdict::Retrying if answer.is_none() => error::unavailable(cause),
        Verdict::Retrying
        | Verdict::Throttled
        | Verdict::Misconfigured
        | Verdict::NeedsReauthorization
        | Verdict::Expired => error::precondition(cause),
    }
}

/// The status that a token endpoint answered with, if it answered: the cause of a failure names it.
fn answer(cause: &str) -> Option<StatusCode> {
    let (_, rest) = cause.split_once("HTTP ")?;
    StatusCode::from_bytes(rest.as_bytes().get(..3)?).ok()
}

/// How a refresh stands, in the few words that this face has for it; `None` if there is none.
fn shown(
    provider: &Provider,
    credential: &Credential,
    now: UnixMs,
) -> Option<v1::ProviderCredentialRefreshStatus> {
    let refresh = credential.refresh.as_ref()?;
    let health = &refresh.health;
    let end = credential.value.as_ref().and_then(|v| v.expires_at);
    let word = match health.verdict {
        Verdict::Pending => "configured",
        Verdict::Fresh => "refreshed",
        // A rotation that was asked for is no failure.
        Verdict::Retrying if refresh.failures == 0 && health.cause.is_empty() => "configured",
        Verdict::Retrying
        | Verdict::Throttled
        | Verdict::InDoubt
        | Verdict::Misconfigured
        | Verdict::NeedsReauthorization
        | Verdict::Expired => "error",
    };
    let next = credential.due().map_or(refresh.due_at, |(at, _)| at);
    Some(v1::ProviderCredentialRefreshStatus {
        provider_name: provider.name.to_string(),
        provider_id: provider.id.to_string(),
        credential_key: credential.id.key.to_string(),
        strategy: wire(refresh.config.strategy).into(),
        status: word.to_owned(),
        expires_at_ms: end.map_or(0, millis),
        // What is due by now has no time.
        next_refresh_at_ms: if next <= now { 0 } else { millis(next) },
        last_refresh_at_ms: refresh.last_mint_at.map_or(0, millis),
        last_error: health.cause.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_of_aws_are_known_by_the_strategies_names() {
        for (given, known) in [
            ("aws_access_key_id", "access_key_id"),
            ("aws_secret_access_key", "secret_access_key"),
            ("aws_session_token", "session_token"),
            ("aws_region", "aws_region"),
            ("client_id", "client_id"),
        ] {
            assert_eq!(ours_of(given.to_owned()), known);
        }
    }

    #[test]
    fn an_issuer_that_answered_is_told_from_one_that_did_not() {
        for (cause, status) in [
            (
                "invalid_client (HTTP 401): client authentication failed",
                Some(401),
            ),
            ("HTTP 503 with an empty body", Some(503)),
            (
                "token endpoint redirects to elsewhere (HTTP 302)",
                Some(302),
            ),
            ("idp.example could not be reached: refused", None),
            ("material client_id is missing", None),
            ("", None),
        ] {
            assert_eq!(answer(cause).map(|s| s.as_u16()), status, "{cause}");
        }
    }

    #[test]
    fn seconds_are_whole_and_none_stands_for_the_default() {
        for (text, read) in [
            ("600", Some(Some(600))),
            (" 5 ", Some(Some(5))),
            ("0", Some(None)),
            ("-1", None),
            ("1.5", None),
            ("99999999999999999999", None),
        ] {
            let mut material = BTreeMap::from([("s".to_owned(), text.to_owned())]);
            assert_eq!(seconds(&mut material, "s").ok(), read, "{text}");
            assert!(material.is_empty());
        }
    }

    #[test]
    fn strategies_keep_their_names_both_ways() {
        for ours in Strategy::ALL {
            let wire = wire(ours);
            if !matches!(wire, Wire::Unspecified | Wire::External) {
                assert_eq!(strategy(wire.into()).unwrap(), ours);
            }
        }
    }
}
