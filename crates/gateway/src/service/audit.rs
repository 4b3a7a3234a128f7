//! `evermint.v1.Audit`.

use std::sync::Arc;

use evermint_core::audit::{AuditEvent, AuditRecord};
use evermint_core::command::Kind;
use evermint_core::id::{CredentialId, CredentialKey, Name, ProviderId};
use evermint_core::provider::Provider;
use evermint_proto::v1;
use evermint_proto::v1::audit_server::Audit;
use tonic::{Request, Response, Status};

use super::{Services, page};
use crate::rim::Rim;
use crate::{show, status};

#[tonic::async_trait]
impl Audit for Services {
    async fn list_audit(
        &self,
        request: Request<v1::ListAuditRequest>,
    ) -> Result<Response<v1::ListAuditResponse>, Status> {
        let request = request.into_inner();
        let mut rim = Rim::default();
        let workspace = rim.workspace(&request.workspace);
        let name = rim.optional::<Name>("provider", &request.provider);
        let key = rim.optional::<CredentialKey>("credential_key", &request.credential_key);
        if name == Some(None) && !request.credential_key.is_empty() {
            rim.problem("provider", "must be given with credential_key");
        }
        let kind: Option<fn(&AuditEvent) -> bool> = match request.kind.as_str() {
            "" => None,
            "mint" => Some(|event| matches!(event, AuditEvent::Mint { .. })),
            "change" => Some(|event| matches!(event, AuditEvent::Change { .. })),
            "revocation" => Some(|event| matches!(event, AuditEvent::Revocation { .. })),
            "refused" => Some(|event| matches!(event, AuditEvent::Refused(_))),
            _ => {
                rim.problem("kind", "must be mint, change, revocation or refused");
                None
            }
        };
        let (workspace, name, key) = rim.finish(|| Some((workspace?, name?, key?)))?;

        let state = self.state();
        let about = match name {
            None => None,
            Some(name) => {
                let named = state.provider_named(&workspace, &name);
                let by_id = || {
                    let id: ProviderId = name.as_str().parse().ok()?;
                    Some(About { id, object: None })
                };
                let about = named.map(About::provider).or_else(by_id);
                Some(about.ok_or_else(|| status::not_found(Kind::Provider, &name))?)
            }
        };
        let matches = |record: &&Arc<AuditRecord>| {
            let of_kind = kind.is_none_or(|kind| kind(&record.event));
            let who = record.by.as_ref().map_or("", |by| &by.who);
            of_kind
                && who.starts_with(&request.who)
                && record.position.0 > request.since_position
                && about
                    .as_ref()
                    .is_none_or(|about| about.matches(&record.event, key.as_ref()))
        };

        let size = page::size(request.limit);
        let since = request.since_number.saturating_add(1);
        let matching = state.audit.range(since..).map(|(_, record)| record);
        let mut records: Vec<&Arc<AuditRecord>> = if request.newest {
            let newest = matching.rev().filter(matches).take(size + 1);
            newest.collect()
        } else {
            matching.filter(matches).take(size + 1).collect()
        };
        let more = records.len() > size;
        records.truncate(size);
        if request.newest {
            records.reverse();
        }
        Ok(Response::new(v1::ListAuditResponse {
            records: records
                .into_iter()
                .map(|record| show::audit(&state, record))
                .collect(),
            position: state.meta.position.0,
            more,
            head: Some(show::link(state.meta.audit_head)),
            anchor: Some(show::link(state.meta.audit_anchor)),
        }))
    }
}

/// The provider that records are to be about. One that is deleted is known by its id alone.
struct About {
    id: ProviderId,
    /// What records of changes of the provider itself call it.
    object: Option<String>,
}

impl About {
    fn provider(provider: &Arc<Provider>) -> Self {
        Self {
            id: provider.id,
            object: Some(format!("{}/{}", provider.workspace, provider.name)),
        }
    }

    fn matches(&self, event: &AuditEvent, key: Option<&CredentialKey>) -> bool {
        match event {
            AuditEvent::Mint { credential, .. } | AuditEvent::Revocation { credential, .. } => {
                credential.provider == self.id && key.is_none_or(|key| *key == credential.key)
            }
            AuditEvent::Refused(_) => false,
            AuditEvent::Change { command, object } => match key {
                Some(key) => {
                    let id = CredentialId {
                        provider: self.id,
                        key: key.clone(),
                    };
                    *object == id.to_string()
                }
                None => {
                    object.starts_with(&format!("{}:", self.id))
                        || (command.ends_with("-provider")
                            && self.object.as_ref().is_some_and(|name| name == object))
                }
            },
        }
    }
}
