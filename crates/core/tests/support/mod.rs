//! A small world for the tests of `apply`: a bootstrapped cluster that is driven command by command.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "test support"
)]

use std::collections::BTreeMap;

use evermint_core::apply::apply;
use evermint_core::command::{Command, Outcome, Proposal};
use evermint_core::credential::{Credential, Reason, RefreshConfig};
use evermint_core::id::*;
use evermint_core::invariant;
use evermint_core::mint::{Failure, FailureClass};
use evermint_core::profile::{Category, Discovery, Profile};
use evermint_core::secret::{DataKeyId, Sealed, WrappedKey};
use evermint_core::settings::Settings;
use evermint_core::state::State;
use evermint_core::strategy::{ReplayPolicy, Strategy};
use evermint_core::time::UnixMs;

pub const START: UnixMs = UnixMs(1_000_000);
pub const SESSION: SessionId = SessionId(77);
pub const REPLICA: ReplicaId = ReplicaId(1);

pub struct World {
    pub state: State,
    pub now: UnixMs,
    requests: u128,
}

pub fn sealed(text: &str) -> Sealed {
    Sealed {
        key: DataKeyId(1),
        nonce: [0; 12],
        ciphertext: text.as_bytes().to_vec(),
    }
}

pub fn key(text: &str) -> CredentialKey {
    CredentialKey::new(text).unwrap()
}

pub fn token() -> CredentialId {
    CredentialId {
        provider: ProviderId(1),
        key: key("TOKEN"),
    }
}

pub fn config(strategy: Strategy, replay: ReplayPolicy) -> RefreshConfig {
    RefreshConfig {
        replay,
        ..RefreshConfig::new(strategy, "https://issuer.example/token")
    }
}

pub fn failure(class: FailureClass) -> Failure {
    Failure {
        class,
        cause: "the issuer said so".to_owned(),
        remedy: "do something".to_owned(),
        retry_after_ms: None,
    }
}

pub fn bootstrap_key() -> WrappedKey {
    WrappedKey {
        kek: "k".to_owned(),
        nonce: [0; 12],
        ciphertext: vec![1],
    }
}

pub fn bootstrap() -> Command {
    Command::Bootstrap {
        settings: Settings::default(),
        data_key: DataKeyId(1),
        wrapped: bootstrap_key(),
        installation: InstallationId(1),
        peer_address: "127.0.0.1:1".to_owned(),
        api_address: "http://127.0.0.1:2".to_owned(),
    }
}

/// A profile that says nothing but its name.
pub fn profile(id: &str) -> Profile {
    Profile {
        id: ProfileId::new(id).unwrap(),
        aliases: Vec::new(),
        display_name: String::new(),
        description: String::new(),
        category: Category::Other,
        credentials: Vec::new(),
        config: Vec::new(),
        endpoints: Vec::new(),
        discovery: Discovery::default(),
        inference: Vec::new(),
        annotations: BTreeMap::new(),
        carried: BTreeMap::new(),
    }
}

pub fn create_provider(id: u128, name: &str) -> Command {
    Command::CreateProvider {
        id: ProviderId(id),
        workspace: Workspace::default_workspace(),
        name: Name::new(name).unwrap(),
        kind: ProviderType::new("generic").unwrap(),
        config: BTreeMap::new(),
        notes: Default::default(),
        credentials: BTreeMap::new(),
    }
}

impl World {
    pub fn empty() -> Self {
        Self {
            state: State::default(),
            now: START,
            requests: 0,
        }
    }

    /// One replica that owns every shard, and one provider with a refresh token.
    pub fn new(replay: ReplayPolicy) -> Self {
        let mut world = Self::empty();
        world.done(bootstrap());
        let moves = (0..world.state.settings().shards)
            .map(|s| (ShardId(s), REPLICA, SESSION))
            .collect();
        world.done(Command::AssignShards { based_on: 0, moves });
        world.done(create_provider(1, "p"));
        world.configure(Strategy::OAuth2RefreshToken, replay);
        world
    }

    pub fn configure(&mut self, strategy: Strategy, replay: ReplayPolicy) {
        self.done(Command::ConfigureRefresh {
            credential: token(),
            config: config(strategy, replay),
            material: BTreeMap::from([("refresh_token".to_owned(), sealed("rt-0"))]),
            expires_at: None,
        });
    }

    pub fn propose(&mut self, command: Command) -> Outcome {
        self.requests += 1;
        let request = RequestId(self.requests);
        self.apply(&Proposal {
            request,
            by: None,
            command,
        })
    }

    pub fn apply(&mut self, proposal: &Proposal) -> Outcome {
        let before = self.state.clone();
        let (answer, touched) = apply(&mut self.state, proposal, self.now);
        invariant::check(&self.state).unwrap();
        invariant::check_step(&before, &self.state).unwrap();
        for key in before.keys().chain(self.state.keys()) {
            assert!(
                touched.contains(&key) || before.record(&key) == self.state.record(&key),
                "{key:?} changed and was not touched"
            );
        }
        answer.outcome
    }

    #[track_caller]
    pub fn done(&mut self, command: Command) {
        let text = format!("{command:?}");
        if let Err(refusal) = self.propose(command) {
            panic!("{text}: {refusal}");
        }
    }

    pub fn wait(&mut self, ms: u64) {
        self.now = UnixMs(self.now.0 + ms);
    }

    pub fn token(&self) -> &Credential {
        &self.state.credentials[&token()]
    }

    /// The grant that the owner would ask for now.
    pub fn claim(&self, ticket: u128) -> Command {
        let credential = self.token();
        let assignment = &self.state.shards[&credential.shard];
        Command::GrantTicket {
            credential: token(),
            ticket: TicketId(ticket),
            owner: assignment.replica,
            session: assignment.session,
            shard_epoch: assignment.epoch,
            epoch: credential
                .refresh
                .as_ref()
                .map_or(AuthorizationEpoch(0), |r| r.epoch),
            expected_generation: credential.generation,
            expected_attempt: credential.attempt,
            reason: Reason::Due,
        }
    }

    /// The commit of a mint with the outputs that the refresh declares.
    pub fn commit(&self, ticket: u128, value: &str) -> Command {
        let credential = self.state.credentials.get(&token());
        let refresh = credential.and_then(|c| c.refresh.as_ref());
        let outputs = refresh.iter().flat_map(|r| r.config.outputs.values());
        let names: Vec<&str> = outputs
            .map(CredentialKey::as_str)
            .chain(["TOKEN"])
            .collect();
        self.commit_of(ticket, value, &names)
    }

    pub fn commit_of(&self, ticket: u128, value: &str, outputs: &[&str]) -> Command {
        let outputs = outputs.iter().map(|name| {
            let text = format!("{value} for {name}");
            let text = if *name == "TOKEN" { value } else { &text };
            (key(name), sealed(text))
        });
        Command::CommitMint {
            credential: token(),
            ticket: TicketId(ticket),
            outputs: outputs.collect(),
            lifetime_ms: Some(3_600_000),
            new_material: BTreeMap::from([("refresh_token".to_owned(), sealed(value))]),
            material_lifetimes_ms: BTreeMap::new(),
        }
    }

    pub fn fail(&self, ticket: u128, class: FailureClass) -> Command {
        Command::FailMint {
            credential: token(),
            ticket: TicketId(ticket),
            failure: failure(class),
        }
    }

    pub fn expire(&self, ticket: u128) -> Command {
        Command::ExpireTicket {
            credential: token(),
            ticket: TicketId(ticket),
        }
    }

    pub fn abandon(&self, ticket: u128) -> Command {
        Command::AbandonTicket {
            credential: token(),
            ticket: TicketId(ticket),
        }
    }
}
