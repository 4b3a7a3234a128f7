//! The end of a run: everything is healed, the cluster has to be well again, and what it and the
//! issuers hold is noted.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use evermint_cluster_tests::Canary;
use evermint_proto::v1::audit_client::AuditClient;
use evermint_proto::v1::audit_record::Event as AuditEvent;
use evermint_proto::v1::mint_event::End;
use evermint_proto::v1::providers_client::ProvidersClient;
use evermint_proto::v1::sandboxes_client::SandboxesClient;
use evermint_proto::v1::{
    ListAuditRequest, ListProvidersRequest, ListSandboxesRequest, MintEvent, Verdict,
};
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::door::Way;
use crate::history::{AuditedMint, Event, Issuer, Place, Provider};
use crate::load;
use crate::operator::{Operator, SETTING};
use crate::settings::times;
use crate::world::World;

/// How long the last looks may take.
const BOUND: Duration = Duration::from_secs(90);
/// How long one question may take.
const ASK: Duration = Duration::from_secs(10);

/// All is well again within the bound: one leader, a write, every credential live, every read.
///
/// # Errors
/// What is not.
pub async fn recover(world: &Arc<World>) -> Result<(), String> {
    let members: Vec<Place> = world.members().collect();
    world.well(&members, times::RECOVERY).await?;
    world
        .until("a write is acknowledged", times::RECOVERY, || async {
            let provider = &world.credentials[0].provider;
            match world.touch(provider).await {
                true => Ok(()),
                false => Err("no replica takes it".to_owned()),
            }
        })
        .await?;
    // A doubt waits as long as its token allows, and then a person has to help.
    let bound = times::ACCESS_TTL + times::RECOVERY;
    let mut operator = Operator::new(world, "last carer");
    let deadline = tokio::time::Instant::now() + bound;
    loop {
        load::look_after(&mut operator, world).await;
        let troubled = troubled(world).await;
        if troubled.is_empty() {
            return Ok(());
        }
        if tokio::time::Instant::now() > deadline {
            return Err(format!(
                "not minted within {bound:?}: {}",
                troubled.join("; ")
            ));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn troubled(world: &Arc<World>) -> Vec<String> {
    let mut troubled = Vec::new();
    for credential in &world.credentials {
        let status = world.refresh_status(credential).await;
        let well = status.as_ref().is_some_and(|s| {
            s.verdict() == Verdict::Fresh && s.expires_at_ms.is_some() && s.doubt.is_none()
        });
        if !well {
            troubled.push(format!("{}: {status:?}", credential.provider));
        }
    }
    troubled
}

/// Notes what the cluster and the issuers hold, once nothing moves any more.
///
/// # Errors
/// What could not be found out.
pub async fn look(world: &Arc<World>) -> Result<(), String> {
    // From now on nobody comes to an issuer: what is there stays as it is.
    for issuer in [Issuer::Strict, Issuer::Real] {
        for place in 0..world.places.len() {
            world.doors(issuer).at(place).set(Way::Closed);
        }
    }
    note_credentials(world).await?;
    note_issuers(world).await;
    note_states(world).await?;
    for place in world.members() {
        note_objects(world, place).await?;
    }
    note_audit(world).await?;
    Ok(())
}

/// How each credential stands, while nothing of it is under way.
async fn note_credentials(world: &Arc<World>) -> Result<(), String> {
    for credential in &world.credentials {
        let status = world
            .until("a credential is idle", BOUND, || async {
                let status = world.refresh_status(credential).await.ok_or("no status")?;
                match status.ticket.is_none() {
                    true => Ok(status),
                    false => Err(format!("{status:?}")),
                }
            })
            .await?;
        world.recorder.note(Event::FinalCredential {
            provider: credential.provider.clone(),
            key: credential.key.clone(),
            client: credential.client.clone(),
            generation: status.generation,
            attempt: status.attempt,
            verdict: word(status.verdict().as_str_name(), "VERDICT_"),
            cause: status.cause.clone(),
            lost: status.lost.is_some(),
        });
    }
    Ok(())
}

async fn note_issuers(world: &Arc<World>) {
    for issuer in [Issuer::Strict, Issuer::Real] {
        let idp = world.issuer(issuer);
        for record in idp.history().await.records() {
            #[allow(clippy::cast_precision_loss, reason = "milliseconds since 1970 fit")]
            let arrived_unix_ms = record.arrived_unix_ms as f64;
            let at = |own_ms: f64| {
                let later_ms = own_ms - record.arrived_ms;
                world.recorder.nanos_of_unix_ms(arrived_unix_ms + later_ms)
            };
            world.recorder.note(Event::Mint {
                issuer,
                arrived: at(record.arrived_ms),
                served: record.served_ms.map(at),
                ended: record.ended_ms.map(at),
                record: Box::new(record.clone()),
            });
        }
        for family in idp.families().await {
            world.recorder.note(Event::FinalFamily {
                issuer,
                client: family.client.clone(),
                grant: family.grant_id.clone(),
                generation: family.generation,
                forks: family.forks,
                reuse_detected: family.reuse_detected,
                alive: family.is_alive(),
            });
        }
    }
}

/// The hash of every member's state at one and the same position.
async fn note_states(world: &Arc<World>) -> Result<(), String> {
    let members: Vec<Place> = world.members().collect();
    let statuses = world
        .until("all replicas are at one position", BOUND, || async {
            let asked = members
                .iter()
                .copied()
                .map(|place| world.status_with_hash(place));
            let statuses = futures::future::join_all(asked).await;
            let positions: BTreeSet<_> = statuses
                .iter()
                .map(|status| status.as_ref().map(|s| s.position))
                .collect();
            match positions.len() == 1 && !positions.contains(&None) {
                true => Ok(statuses),
                false => Err(format!("positions {positions:?}")),
            }
        })
        .await?;
    for (place, status) in members.iter().zip(statuses) {
        let status = status.ok_or(format!("replica {place} does not answer"))?;
        world.recorder.note(Event::FinalState {
            replica: *place,
            position: status.position,
            state_hash: status.state_hash,
        });
    }
    Ok(())
}

/// Every provider and sandbox as one replica knows them.
async fn note_objects(world: &Arc<World>, place: Place) -> Result<(), String> {
    let mut token = String::new();
    loop {
        let request = ListProvidersRequest {
            page_size: 500,
            page_token: token,
            ..ListProvidersRequest::default()
        };
        let page = ask(world, place, |channel| {
            let (mut client, request) = (ProvidersClient::new(channel), request.clone());
            async move { client.list_providers(request).await }
        })
        .await?;
        for provider in page.providers {
            let n = provider.config.get(SETTING);
            world.recorder.note(Event::FinalProvider {
                replica: place,
                provider: provider.name.clone(),
                found: Some(Provider {
                    version: provider.version,
                    n: n.and_then(|n| n.parse().ok()),
                }),
            });
        }
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    let page = ask(world, place, |channel| {
        let mut client = SandboxesClient::new(channel);
        async move { client.list_sandboxes(ListSandboxesRequest::default()).await }
    })
    .await?;
    for sandbox in page.sandboxes {
        world.recorder.note(Event::FinalSandbox {
            replica: place,
            sandbox: sandbox.name,
            providers: Some(sandbox.providers),
        });
    }
    Ok(())
}

/// Every mint in the audit trail.
async fn note_audit(world: &Arc<World>) -> Result<(), String> {
    let leader = world.leader().unwrap_or(0);
    let mut since = 0;
    let mut records = 0;
    let mut first = None;
    loop {
        let request = ListAuditRequest {
            since_position: since,
            limit: 1000,
            ..ListAuditRequest::default()
        };
        let page = ask(world, leader, |channel| {
            let (mut client, request) = (AuditClient::new(channel), request.clone());
            async move { client.list_audit(request).await }
        })
        .await?;
        for record in &page.records {
            since = since.max(record.position);
            records += 1;
            first.get_or_insert(record.position);
            if let Some(AuditEvent::Mint(mint)) = &record.event {
                let audited = audited(record.position, record.at_ms, mint);
                world.recorder.note(Event::Audit(audited));
            }
        }
        if !page.more {
            break;
        }
    }
    world.recorder.note(Event::AuditEnds {
        records,
        // As many are kept as the configuration says; a run makes fewer.
        complete: records < crate::place::AUDIT_RETENTION,
    });
    Ok(())
}

fn audited(position: u64, at_ms: u64, mint: &MintEvent) -> AuditedMint {
    let end = match mint.end() {
        End::Committed => "committed",
        End::Failed => "failed",
        End::InDoubt => "in_doubt",
        End::Abandoned => "abandoned",
        End::Voided => "voided",
        End::Unspecified => "unspecified",
    };
    AuditedMint {
        position,
        at_ms,
        provider: mint.provider.clone(),
        provider_id: mint.provider_id.clone(),
        key: mint.credential_key.clone(),
        ticket: mint.ticket.clone(),
        replica: mint.replica,
        granted_at_ms: mint.granted_at_ms,
        end: end.to_owned(),
        generation: mint.generation,
    }
}

/// Asks one replica, again and again, until it answers.
async fn ask<T, Asked>(
    world: &Arc<World>,
    place: Place,
    call: impl Fn(Channel) -> Asked,
) -> Result<T, String>
where
    Asked: Future<Output = Result<Response<T>, Status>>,
{
    let what = format!("replica {place} answers");
    world
        .until(&what, BOUND, || async {
            let answer = tokio::time::timeout(ASK, call(world.channel(place))).await;
            let answer = answer.map_err(|_| "no answer".to_owned())?;
            answer
                .map(Response::into_inner)
                .map_err(|status| status.to_string())
        })
        .await
}

/// Looks for planted secrets and for panics in what the replicas left behind.
pub fn search(world: &World) {
    let mut canary = Canary::default();
    for secret in world.planted() {
        canary.plant("a planted secret", secret);
    }
    let dirs = world.places.iter().map(|place| place.data_dir.clone());
    let dirs = dirs.chain([world.settings.dir.join("logs")]);
    for dir in dirs.filter(|dir| dir.is_dir()) {
        for what in canary.search(&dir) {
            world.recorder.note(Event::Leak {
                file: dir.display().to_string(),
                what,
            });
        }
    }
    for place in &world.places {
        let text = std::fs::read_to_string(place.log()).unwrap_or_default();
        for line in text.lines().filter(|line| line.contains("panicked at")) {
            world.recorder.note(Event::Leak {
                file: place.log().display().to_string(),
                what: line.to_owned(),
            });
        }
    }
}

/// A word of the API as the command line shows it.
fn word(name: &str, prefix: &str) -> String {
    let bare = name.strip_prefix(prefix).unwrap_or(name);
    bare.to_lowercase().replace('_', "-")
}
