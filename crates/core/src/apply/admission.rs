//! The cluster's own authority, and the tokens by which replicas join.

use std::sync::Arc;
use std::time::Duration;

use super::provider::check_count;
use super::{Tx, changed};
use crate::admission::{
    Admission, Authority, BadJoinToken, JOIN_TOKEN_LIFETIME_MAX, JOIN_TOKENS_MAX, JoinToken,
    JoinTokenId,
};
use crate::command::{Done, Outcome, Refusal};
use crate::id::InstallationId;
use crate::record::Key;
use crate::secret::Sealed;

impl Tx<'_> {
    pub(super) fn add_authority(&mut self, certificate: &[u8], key: &Sealed) -> Outcome {
        if self.state.authority.is_some() {
            return Err(Refusal::AuthorityExists);
        }
        self.state.authority = Some(Arc::new(Authority {
            certificate: certificate.to_vec(),
            key: key.clone(),
            since: self.stamp.at,
        }));
        self.touched.insert(Key::Authority);
        self.audit_change("add-authority", "");
        Ok(Done::Ok)
    }

    /// Tokens whose time is over are forgotten on the way.
    pub(super) fn create_join_token(&mut self, id: JoinTokenId, lifetime_ms: u64) -> Outcome {
        if self.state.authority.is_none() {
            return Err(Refusal::NoAuthority);
        }
        let tokens = &self.state.join_tokens;
        if tokens.contains_key(&id) {
            return changed(false);
        }
        let over = tokens.iter().filter(|(_, t)| t.expires_at <= self.stamp.at);
        let over: Vec<JoinTokenId> = over.map(|(id, _)| *id).collect();
        check_count(
            "join tokens",
            tokens.len() - over.len() + 1,
            JOIN_TOKENS_MAX,
        )?;
        for id in over {
            self.state.join_tokens.remove(&id);
            self.touched.insert(Key::JoinToken(id));
        }
        let lifetime = Duration::from_millis(lifetime_ms).min(JOIN_TOKEN_LIFETIME_MAX);
        let token = JoinToken {
            expires_at: self.stamp.at + lifetime,
            used: None,
        };
        self.put_join_token(id, token);
        self.audit_change("create-join-token", id);
        Ok(Done::Ok)
    }

    /// Whoever has used a token may use it again within its time, unless it was removed since.
    pub(super) fn admit_replica(
        &mut self,
        id: JoinTokenId,
        installation: InstallationId,
        key: [u8; 32],
        (peer_address, api_address): (&str, &str),
    ) -> Outcome {
        let bad = |why| Err(Refusal::BadJoinToken(why));
        let Some(token) = self.state.join_tokens.get(&id).cloned() else {
            return bad(BadJoinToken::Unknown);
        };
        if token.expires_at <= self.stamp.at {
            return bad(BadJoinToken::Expired);
        }
        if let Some(used) = token.used {
            let is_same = used.installation == installation && used.key == key;
            if !is_same || !self.state.replicas.contains_key(&used.replica) {
                return bad(BadJoinToken::Used);
            }
        }
        let done = self.register_replica(installation, peer_address, api_address)?;
        if let (None, Done::Replica(replica)) = (token.used, &done) {
            let used = Some(Admission {
                installation,
                key,
                replica: *replica,
            });
            self.put_join_token(id, JoinToken { used, ..*token });
            self.audit_change("admit-replica", format_args!("{replica} by {id}"));
        }
        Ok(done)
    }

    fn put_join_token(&mut self, id: JoinTokenId, token: JoinToken) {
        self.touched.insert(Key::JoinToken(id));
        self.state.join_tokens.insert(id, Arc::new(token));
    }
}
