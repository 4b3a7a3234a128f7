//! A bootstrapped cluster that is driven command by command, for the machines to look at.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(missing_docs, unreachable_pub, reason = "test support")]
#![allow(clippy::unwrap_used, reason = "test support")]

use std::collections::BTreeMap;

use evermint_core::apply::apply;
use evermint_core::command::{Answer, Command, Proposal};
use evermint_core::credential::{Credential, Reason, RefreshConfig};
use evermint_core::id::*;
use evermint_core::mint::{Failure, FailureClass};
use evermint_core::secret::{DataKeyId, Sealed, WrappedKey};
use evermint_core::settings::Settings;
use evermint_core::state::State;
use evermint_core::strategy::Strategy;
use evermint_core::time::UnixMs;
use evermint_protocol::journal::SealedMint;
use evermint_protocol::owner::Identity;

/// This process.
pub const ME: Identity = Identity {
    replica: ReplicaId(1),
    session: SessionId(11),
};

/// The same replica before its restart.
pub const FORMER: Identity = Identity {
    replica: ReplicaId(1),
    session: SessionId(10),
};

/// Another replica.
pub const OTHER: Identity = Identity {
    replica: ReplicaId(2),
    session: SessionId(22),
};

/// Where the cluster clock starts.
pub const START: UnixMs = UnixMs(1_000_000);

pub struct World {
    pub state: State,
    pub clock: UnixMs,
    requests: u128,
}

pub fn sealed(text: &str) -> Sealed {
    Sealed {
        key: DataKeyId(1),
        nonce: [0; 12],
        ciphertext: text.as_bytes().to_vec(),
    }
}

pub fn token() -> CredentialId {
    CredentialId {
        provider: ProviderId(1),
        key: CredentialKey::new("TOKEN").unwrap(),
    }
}

pub fn minted(value: &str) -> SealedMint {
    SealedMint {
        outputs: BTreeMap::from([(token().key, sealed(value))]),
        lifetime_ms: Some(3_600_000),
        new_material: BTreeMap::from([("refresh_token".to_owned(), sealed(value))]),
        material_lifetimes_ms: BTreeMap::new(),
    }
}

pub fn failure(class: FailureClass) -> Failure {
    Failure {
        class,
        cause: "it did not work".to_owned(),
        remedy: String::new(),
        retry_after_ms: None,
    }
}

pub fn abandon(ticket: TicketId) -> Command {
    Command::AbandonTicket {
        credential: token(),
        ticket,
    }
}

impl World {
    /// Three replicas, no owners, and one provider with a single-use refresh token.
    pub fn new() -> Self {
        let mut world = Self {
            state: State::default(),
            clock: START,
            requests: 0,
        };
        world.done(Command::Bootstrap {
            settings: Settings::default(),
            data_key: DataKeyId(1),
            wrapped: WrappedKey {
                kek: "k".to_owned(),
                nonce: [0; 12],
                ciphertext: vec![1],
            },
            installation: InstallationId(1),
            peer_address: "127.0.0.1:1".to_owned(),
            api_address: "http://127.0.0.1:2".to_owned(),
        });
        for installation in [2, 3] {
            world.done(Command::RegisterReplica {
                installation: InstallationId(installation),
                peer_address: "127.0.0.1:1".to_owned(),
                api_address: "http://127.0.0.1:2".to_owned(),
            });
        }
        world.done(Command::CreateProvider {
            id: ProviderId(1),
            workspace: Workspace::default_workspace(),
            name: Name::new("p").unwrap(),
            kind: ProviderType::new("generic").unwrap(),
            config: BTreeMap::new(),
            notes: Default::default(),
            credentials: BTreeMap::new(),
        });
        world.configure();
        world
    }

    pub fn propose(&mut self, command: Command) -> Answer {
        self.requests += 1;
        let proposal = Proposal {
            by: None,
            request: RequestId(self.requests),
            command,
        };
        apply(&mut self.state, &proposal, self.clock).0
    }

    #[track_caller]
    pub fn done(&mut self, command: Command) {
        let text = format!("{command:?}");
        if let Err(refusal) = self.propose(command).outcome {
            panic!("{text}: {refusal}");
        }
    }

    pub fn configure(&mut self) {
        self.done(Command::ConfigureRefresh {
            credential: token(),
            config: RefreshConfig {
                revoke_url: "https://issuer.example/revoke".to_owned(),
                ..RefreshConfig::new(Strategy::OAuth2RefreshToken, "https://issuer.example/token")
            },
            material: BTreeMap::from([("refresh_token".to_owned(), sealed("rt-0"))]),
            expires_at: None,
        });
    }

    /// Gives every shard to `owner`.
    pub fn assign(&mut self, owner: Identity) {
        let moves = (0..self.state.settings().shards)
            .map(|s| (ShardId(s), owner.replica, owner.session))
            .collect();
        let based_on = self.state.meta.placement_version;
        self.done(Command::AssignShards { based_on, moves });
    }

    /// Grants a ticket to whoever owns the shard.
    pub fn grant(&mut self, ticket: u128) {
        let credential = self.token();
        let assignment = self.state.shards[&credential.shard].clone();
        self.done(Command::GrantTicket {
            credential: token(),
            ticket: TicketId(ticket),
            owner: assignment.replica,
            session: assignment.session,
            shard_epoch: assignment.epoch,
            epoch: credential.refresh.as_ref().unwrap().epoch,
            expected_generation: credential.generation,
            expected_attempt: credential.attempt,
            reason: Reason::Due,
        });
    }

    pub fn expire(&mut self, ticket: u128) {
        self.done(Command::ExpireTicket {
            credential: token(),
            ticket: TicketId(ticket),
        });
    }

    pub fn token(&self) -> Credential {
        self.state.credentials[&token()].as_ref().clone()
    }
}
