//! The one function that changes the replicated state.
//!
//! [`apply`] is total: it refuses, it never fails. It reads no clock: time is the leader's stamp,
//! clamped so that it never runs back. It returns the keys of the records that it wrote or
//! removed; they tell the store what to persist and the readers what to look at again.
//!
//! Each family of commands has a file: `admission`, `audit`, `cluster`, `keys`, `platform`,
//! `provider`, `profile`, `refresh`, `route`, `sandbox`, `mint`, the mint protocol, and
//! `revocation`.

mod admission;
mod audit;
mod cluster;
mod keys;
mod mint;
mod platform;
mod profile;
mod provider;
mod refresh;
mod revocation;
mod route;
mod sandbox;

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::audit::Origin;
use crate::command::{Answer, Command, Done, Outcome, Proposal, Refusal};
use crate::credential::Credential;
use crate::id::{CredentialId, Position, ProviderId, RequestId};
use crate::provider::{Provider, Sandbox};
use crate::record::Key;
use crate::settings::Settings;
use crate::state::{ANSWERS_MAX, State};
use crate::time::{Stamp, UnixMs};

/// Applies one proposal, stamped `at` by the leader. Gives its answer and the keys of the
/// records that it wrote or removed, in order.
pub fn apply(state: &mut State, proposal: &Proposal, at: UnixMs) -> (Answer, Vec<Key>) {
    let stamp = Stamp {
        position: Position(state.meta.position.0 + 1),
        at: state.meta.clock.max(at),
    };
    state.meta.position = stamp.position;
    state.meta.clock = stamp.at;
    let mut tx = Tx {
        state,
        stamp,
        by: proposal.by.as_ref(),
        touched: BTreeSet::from([Key::Meta]),
    };
    if let Some(answer) = tx.state.answers.get(&proposal.request) {
        let answer = answer.as_ref().clone();
        return (answer, tx.touched.into_iter().collect());
    }
    let answer = Answer {
        position: stamp.position,
        outcome: tx.execute(&proposal.command),
    };
    if !is_idempotent(&proposal.command) {
        tx.remember(proposal.request, &answer);
    }
    (answer, tx.touched.into_iter().collect())
}

/// Whether applying the command twice does no harm, so that its answer need not be remembered:
/// the mint protocol is keyed by ticket and attempt, a placement by its version.
fn is_idempotent(command: &Command) -> bool {
    matches!(
        command,
        Command::GrantTicket { .. }
            | Command::CommitMint { .. }
            | Command::FailMint { .. }
            | Command::ExpireTicket { .. }
            | Command::AbandonTicket { .. }
            | Command::MintEarly { .. }
            | Command::AssignShards { .. }
            | Command::RegisterReplica { .. }
            | Command::AdmitReplica { .. }
            | Command::Reseal { .. }
    )
}

/// The state in the hands of one command.
struct Tx<'a> {
    state: &'a mut State,
    stamp: Stamp,
    by: Option<&'a Origin>,
    touched: BTreeSet<Key>,
}

impl Tx<'_> {
    fn execute(&mut self, command: &Command) -> Outcome {
        if self.state.meta.settings.is_none() && !matches!(command, Command::Bootstrap { .. }) {
            return Err(Refusal::NotBootstrapped);
        }
        match command {
            Command::Bootstrap {
                settings,
                data_key,
                wrapped,
                installation,
                peer_address,
                api_address,
            } => self.bootstrap(
                settings,
                (*data_key, wrapped),
                (*installation, peer_address, api_address),
            ),
            Command::RegisterReplica {
                installation,
                peer_address,
                api_address,
            } => self.announce_replica(*installation, peer_address, api_address),
            Command::RemoveReplica { replica } => self.remove_replica(*replica),
            Command::AssignShards { based_on, moves } => self.assign_shards(*based_on, moves),

            Command::CreateProvider {
                id,
                workspace,
                name,
                kind,
                config,
                notes,
                credentials,
            } => self.create_provider(*id, (workspace, name, kind), (config, notes), credentials),
            Command::UpdateProvider {
                id,
                expected_version,
                config,
                credentials,
                expires_at,
            } => self.update_provider(*id, *expected_version, config, credentials, expires_at),
            Command::DeleteProvider { id } => self.delete_provider(*id),

            Command::ImportProfiles { scope, profiles } => self.import_profiles(scope, profiles),
            Command::UpdateProfile {
                scope,
                profile,
                expected_version,
            } => self.update_profile(scope, profile, *expected_version),
            Command::DeleteProfile { scope, id } => self.delete_profile(scope, id),

            Command::ConfigureRefresh {
                credential,
                config,
                material,
                expires_at,
            } => self.configure_refresh(credential, config, material, *expires_at),
            Command::RotateCredential { credential } => self.rotate_credential(credential),
            Command::MintEarly {
                credential,
                generation,
                early,
            } => self.mint_early(credential, *generation, *early),
            Command::DeleteRefresh { credential } => self.delete_refresh(credential),

            Command::SetRoute {
                workspace,
                name,
                provider,
                credential,
                model,
                timeout_secs,
            } => self.set_route(
                workspace,
                name,
                *provider,
                credential.as_ref(),
                model,
                *timeout_secs,
            ),
            Command::DeleteRoute { workspace, name } => self.delete_route(workspace, name),

            Command::CreateSandbox {
                id,
                workspace,
                name,
                providers,
            } => self.create_sandbox(*id, workspace, name, providers),
            Command::DeleteSandbox { id } => self.delete_sandbox(*id),
            Command::AttachProvider {
                sandbox,
                provider,
                expected_version,
            } => self.attach_provider(*sandbox, *provider, *expected_version),
            Command::DetachProvider {
                sandbox,
                provider,
                expected_version,
            } => self.detach_provider(*sandbox, *provider, *expected_version),

            Command::GrantTicket {
                credential,
                ticket,
                owner,
                session,
                shard_epoch,
                epoch,
                expected_generation,
                expected_attempt,
                reason,
            } => self.grant_ticket(
                credential,
                &mint::Claim {
                    ticket: *ticket,
                    owner: *owner,
                    session: *session,
                    shard_epoch: *shard_epoch,
                    epoch: *epoch,
                    generation: *expected_generation,
                    attempt: *expected_attempt,
                    reason: *reason,
                },
            ),
            Command::CommitMint {
                credential,
                ticket,
                outputs,
                lifetime_ms,
                new_material,
                material_lifetimes_ms,
            } => self.commit_mint(
                credential,
                *ticket,
                &mint::Given {
                    outputs,
                    lifetime_ms: *lifetime_ms,
                    new_material,
                    material_lifetimes_ms,
                },
            ),
            Command::FailMint {
                credential,
                ticket,
                failure,
            } => self.fail_mint(credential, *ticket, failure),
            Command::ExpireTicket { credential, ticket } => self.expire_ticket(credential, *ticket),
            Command::AbandonTicket { credential, ticket } => {
                self.abandon_ticket(credential, *ticket)
            }

            Command::AddSigningKey {
                id,
                replaces,
                public,
                private,
            } => self.add_signing_key(*id, *replaces, public, private),
            Command::RevokeSandboxTokens { id } => self.revoke_sandbox_tokens(*id),

            Command::CreateWorkspace { id, name, notes } => self.create_workspace(*id, name, notes),
            Command::SetPlatformSetting { key, value } => {
                self.set_platform_setting(key, value.as_ref())
            }

            Command::AddAuthority { certificate, key } => self.add_authority(certificate, key),
            Command::CreateJoinToken { id, lifetime_ms } => {
                self.create_join_token(*id, *lifetime_ms)
            }
            Command::AdmitReplica {
                token,
                installation,
                key,
                peer_address,
                api_address,
            } => self.admit_replica(*token, *installation, *key, (peer_address, api_address)),

            Command::RevokeProvider { id } => self.revoke_provider(*id),
            Command::RevokeRefresh { credential } => self.revoke_refresh(credential),
            Command::RevokeValue {
                credential,
                grace_ms,
            } => self.revoke_value(credential, *grace_ms),
            Command::ClaimRevocation {
                revocation,
                owner,
                session,
                shard_epoch,
                expected_tries,
            } => self.claim_revocation(revocation, *owner, *session, *shard_epoch, *expected_tries),
            Command::SettleRevocation {
                revocation,
                tries,
                failure,
            } => self.settle_revocation(revocation, *tries, failure.as_ref()),

            Command::AddDataKey { id, wrapped } => self.add_data_key(*id, wrapped),
            Command::RewrapDataKeys { joined, keys } => self.rewrap_data_keys(*joined, keys),
            Command::Reseal { items } => self.reseal(items),
            Command::RecordRefusals { calls } => self.record_refusals(calls),
        }
    }

    fn settings(&self) -> Settings {
        self.state.settings()
    }

    /// Writes a record's new value and notes it as touched.
    fn put_provider(&mut self, provider: Provider) {
        self.touched.insert(Key::Provider(provider.id));
        self.state.provider_names.insert(
            (provider.workspace.clone(), provider.name.clone()),
            provider.id,
        );
        self.state.providers.insert(provider.id, Arc::new(provider));
    }

    fn put_credential(&mut self, credential: Credential) {
        let id = credential.id.clone();
        self.touched.insert(Key::Credential(id.clone()));
        if credential.ticket().is_some() {
            self.state.tickets.insert(id.clone(), ());
        } else {
            self.state.tickets.remove(&id);
        }
        self.state.credentials.insert(id, Arc::new(credential));
    }

    fn remove_credential(&mut self, id: &CredentialId) {
        self.touched.insert(Key::Credential(id.clone()));
        self.state.tickets.remove(id);
        self.state.credentials.remove(id);
    }

    /// This command removes secrets from the state, and the log has to follow.
    fn note_destruction(&mut self) {
        self.state.meta.destroyed = self.stamp.position;
    }

    fn put_sandbox(&mut self, sandbox: Sandbox) {
        self.touched.insert(Key::Sandbox(sandbox.id));
        self.state.sandbox_names.insert(
            (sandbox.workspace.clone(), sandbox.name.clone()),
            sandbox.id,
        );
        self.state.sandboxes.insert(sandbox.id, Arc::new(sandbox));
    }

    fn provider(&self, id: ProviderId) -> Result<Provider, Refusal> {
        self.state
            .providers
            .get(&id)
            .map(|p| p.as_ref().clone())
            .ok_or(Refusal::NotFound(crate::command::Kind::Provider))
    }

    fn credential(&self, id: &CredentialId) -> Result<Credential, Refusal> {
        self.state
            .credentials
            .get(id)
            .map(|c| c.as_ref().clone())
            .ok_or(Refusal::NotFound(crate::command::Kind::Credential))
    }

    fn remember(&mut self, request: RequestId, answer: &Answer) {
        self.touched.insert(Key::Answer(request));
        self.state.answer_order.insert(answer.position, request);
        self.state.answers.insert(request, Arc::new(answer.clone()));
        while self.state.answers.len() > ANSWERS_MAX {
            let Some((position, oldest)) = self.state.answer_order.get_min().cloned() else {
                break;
            };
            self.state.answer_order.remove(&position);
            self.state.answers.remove(&oldest);
            self.touched.insert(Key::Answer(oldest));
        }
    }
}

/// Refuses unless `expected` is absent or the object's current version.
fn check_version(
    kind: crate::command::Kind,
    current: u64,
    expected: Option<u64>,
) -> Result<(), Refusal> {
    match expected {
        Some(expected) if expected != current => Err(Refusal::VersionMismatch { kind, current }),
        _ => Ok(()),
    }
}

/// The answer of a command whose object may have been as wished before.
fn changed(was_changed: bool) -> Outcome {
    Ok(Done::Changed(was_changed))
}
