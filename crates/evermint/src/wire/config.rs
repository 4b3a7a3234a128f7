//! Settings in the words of the crates that they are for.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use evermint_core::admission::JoinTicket;
use evermint_core::secret::{DataKeyId, Secret};
use evermint_gateway::{
    AdminToken, Bounds, ClientCertificates, GatewayKey, Limits, Oidc, TlsFiles, TokenRules,
    UpstreamGateway,
};
use evermint_seal::Keyring;

use crate::exit::{advised, usage};
use crate::settings::{PeerTls, Settings};

/// The id of a cluster's first data key.
const FIRST_DATA_KEY: DataKeyId = DataKeyId(1);

/// The shortest admin token, in characters.
const TOKEN_MIN: usize = 16;

pub(super) fn admin_token(path: &Path) -> Result<AdminToken> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        advised(
            format!(
                "cannot read the admin token from {}: {error}",
                path.display()
            ),
            "make one with `openssl rand -hex 32`, in a file that only its owner may read",
        )
    })?;
    let token = text.trim();
    if token.len() < TOKEN_MIN {
        return Err(usage(format!(
            "the admin token in {} is shorter than {TOKEN_MIN} characters",
            path.display()
        )));
    }
    Ok(AdminToken::new(&Secret::from(token)))
}

pub(super) fn issuers(settings: &Settings) -> Result<evermint_minter::Config> {
    let ca_certificates = settings
        .issuers_ca_files
        .iter()
        .map(|path| {
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
        })
        .collect::<Result<_>>()?;
    Ok(evermint_minter::Config {
        allow_loopback: settings.issuers_allow_loopback,
        allow_networks: settings.issuers_allow_networks.clone(),
        allow_endpoints: settings.issuers_allow_endpoints.clone(),
        stand_ins: settings.issuers_stand_ins.clone(),
        token_file_dirs: settings.issuers_token_file_dirs.clone(),
        commands: settings.exec_commands.clone(),
        ca_certificates,
        connect_timeout_ms: settings.issuers_connect_timeout.as_millis(),
        concurrency: settings.issuers_concurrency,
        requests_per_minute: settings.issuers_requests_per_minute,
        breaker_failures: settings.issuers_breaker_failures,
        breaker_pause_ms: settings.issuers_breaker_pause.as_millis(),
        breaker_pause_max_ms: settings.issuers_breaker_pause_max.as_millis(),
    })
}

pub(super) fn node(
    settings: &Settings,
    keyring: &Arc<Keyring>,
    api_addr: SocketAddr,
) -> Result<evermint_replica::Config> {
    let mut config = evermint_replica::Config::new(&settings.data_dir, settings.peer_listen);
    config.peer_address.clone_from(&settings.peer_advertise);
    config.api_address = settings.api_advertise.clone().unwrap_or_else(|| {
        let scheme = if settings.api_tls_cert.is_some() {
            "https"
        } else {
            "http"
        };
        format!("{scheme}://{api_addr}")
    });
    config.peers.clone_from(&settings.peers);
    config.keks = keyring.kek_names();
    if settings.init {
        config.bootstrap = Some(evermint_replica::Bootstrap {
            settings: settings.cluster(),
            data_key: FIRST_DATA_KEY,
            wrapped: keyring.first_data_key()?,
        });
    }
    config.tls = match settings.peer_tls() {
        PeerTls::Off => None,
        PeerTls::BuiltIn => Some(evermint_replica::Tls::BuiltIn(
            evermint_replica::BuiltInTls {
                keyring: Arc::clone(keyring),
                lifetime: settings.peer_tls_lifetime.get(),
                ticket: settings
                    .join_token_file
                    .as_deref()
                    .map(join_token)
                    .transpose()?
                    .flatten(),
            },
        )),
        PeerTls::Files => files(settings).map(evermint_replica::Tls::Files),
    };
    config.timing = evermint_replica::Timing {
        heartbeat: settings.raft_heartbeat.get(),
        election_timeout_min: settings.raft_election_min.get(),
        election_timeout_max: settings.raft_election_max.get(),
        beat: settings.raft_beat.get(),
        lost_after: settings.raft_lost_after.get(),
        propose: settings.raft_propose.get(),
        snapshot: settings.raft_snapshot.get(),
    };
    config.snapshots = evermint_replica::Snapshots {
        after_entries: settings.store_snapshot_after,
        keep_entries: settings.store_snapshot_keep,
    };
    config.cache_bytes = settings.store_cache_mib.saturating_mul(1 << 20);
    Ok(config)
}

fn files(settings: &Settings) -> Option<evermint_replica::TlsFiles> {
    Some(evermint_replica::TlsFiles {
        certificate: settings.peer_tls_cert.clone()?,
        key: settings.peer_tls_key.clone()?,
        ca: settings.peer_tls_ca.clone()?,
        server_name: settings.peer_tls_name.clone(),
    })
}

/// The join token, which may be gone once it was used.
fn join_token(path: &Path) -> Result<Option<JoinTicket>> {
    let advice = "`evermint cluster join-token --out FILE`, where the cluster runs";
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            tracing::info!(path = %path.display(), "there is no join token");
            return Ok(None);
        }
        Err(error) => {
            let problem = format!(
                "cannot read the join token from {}: {error}",
                path.display()
            );
            return Err(advised(problem, advice));
        }
    };
    let ticket = JoinTicket::parse(&text);
    let ticket = ticket.map_err(|error| advised(format!("{} {error}", path.display()), advice))?;
    Ok(Some(ticket))
}

/// Whose tokens sandboxes may show.
fn tokens(settings: &Settings) -> Result<TokenRules> {
    let (Some(path), Some(kid)) = (&settings.upstream_token_key, &settings.upstream_token_kid)
    else {
        return Ok(TokenRules {
            gateway_id: settings.upstream_id.clone(),
            gateway_key: None,
        });
    };
    let pem = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let key = GatewayKey::from_pem(kid, &pem)
        .map_err(|problem| usage(format!("{} {problem}", path.display())))?;
    Ok(TokenRules {
        gateway_id: settings.upstream_id.clone(),
        gateway_key: Some(key),
    })
}

pub(super) fn gateway(
    settings: &Settings,
    admin: Option<AdminToken>,
) -> Result<evermint_gateway::Config> {
    let tls = match (&settings.api_tls_cert, &settings.api_tls_key) {
        (Some(certificate), Some(key)) => Some(TlsFiles {
            certificate: certificate.clone(),
            key: key.clone(),
        }),
        (_, _) => None,
    };
    Ok(evermint_gateway::Config {
        limits: Limits {
            max_staleness: settings.max_staleness.get(),
            version: env!("CARGO_PKG_VERSION"),
            ..Limits::default()
        },
        bounds: bounds(settings),
        admin,
        oidc: oidc(settings),
        certificates: settings.api_client_ca.clone().map(|ca| ClientCertificates {
            ca,
            roles: settings.api_client_roles.clone(),
        }),
        tls,
        upstream_gateway: settings
            .upstream_gateway
            .clone()
            .map(|url| UpstreamGateway {
                url,
                ca: settings.upstream_ca.clone(),
            }),
        tokens: tokens(settings)?,
    })
}

fn bounds(settings: &Settings) -> Bounds {
    Bounds {
        connections: settings.limit_connections,
        connections_per_peer: settings.limit_connections_per_peer,
        streams: settings.limit_streams,
        greeting: settings.limit_greeting.get(),
        keepalive: settings.limit_keepalive.get(),
        keepalive_timeout: settings.limit_keepalive_timeout.get(),
        header_bytes: settings.limit_header_bytes,
        request_bytes: settings.limit_request_bytes,
        request_time: settings.limit_request_time.get(),
        resets: settings.limit_resets,
        errors: settings.limit_errors,
        calls_per_second: settings.limit_calls_per_second,
        calls_burst: settings.limit_calls_burst,
        failed_logins_per_minute: settings.limit_failed_logins_per_minute,
        failed_logins_burst: settings.limit_failed_logins_burst,
        providers: settings.limit_providers,
        credentials: settings.limit_credentials,
        routes: settings.limit_routes,
        sandboxes: settings.limit_sandboxes,
        profiles: settings.limit_profiles,
    }
}

fn oidc(settings: &Settings) -> Option<Oidc> {
    Some(Oidc {
        issuer: settings.oidc_issuer.clone()?,
        audience: settings.oidc_audience.clone()?,
        roles_claim: settings.oidc_roles_claim.clone(),
        roles: settings.oidc_roles.clone(),
        scopes_claim: settings.oidc_scopes_claim.clone(),
        leeway: settings.oidc_leeway.get(),
        keys_ttl: settings.oidc_keys_ttl.get(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_settings_default_to_the_gateways_bounds() {
        assert_eq!(bounds(&Settings::default()), Bounds::default());
    }
}
