//! What operators do, one command after the other, each until it is answered; and the beginning
//! of the world, which is an operator's work too.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use evermint_core::command::{Answer, Command, Proposal, Refusal};
use evermint_core::credential::RefreshConfig;
use evermint_core::id::{
    CredentialId, CredentialKey, InstallationId, Name, ProviderId, ProviderType, RequestId,
    SandboxId, Workspace,
};
use evermint_core::port::ProposeError;
use evermint_core::secret::{DataKeyId, WrappedKey};
use evermint_core::strategy::Strategy;
use evermint_core::time::UnixMs;

use crate::consensus::Entry;
use crate::hardware::{EPOCH, Hardware};
use crate::network::Who;
use crate::readers::Reader;
use crate::replica::Replica;
use crate::shell::sealed;
use crate::world::{Global, What, World};

/// Commands to be done in order.
#[derive(Debug)]
pub(crate) struct Script {
    commands: VecDeque<Command>,
    request: RequestId,
}

impl World {
    /// A cluster with its replicas, providers and sandboxes, as it stands before anything
    /// happens.
    pub(crate) fn found(&mut self) {
        let lost_after = Duration::from_millis(self.config.lost_after);
        for drift_ppm in self.config.drift_ppm.clone() {
            let hardware = Hardware {
                drift_ppm,
                booted: self.dice.range(0, 1_000_000),
                suspended: 0,
                wall_off: self.dice.range(0, 200) as i64 - 100,
            };
            let installation = InstallationId(self.dice.id());
            let replica = Replica::new(hardware, installation, lost_after);
            self.replicas.push(replica);
        }
        self.consensus.history.push(Default::default());
        let mut commands = vec![Command::Bootstrap {
            settings: self.config.settings.clone(),
            data_key: DataKeyId(1),
            wrapped: WrappedKey {
                kek: "k".to_owned(),
                nonce: [0; 12],
                ciphertext: vec![1],
            },
            installation: self.replicas[0].installation,
            peer_address: String::new(),
            api_address: String::new(),
        }];
        for slot in 1..self.replicas.len() {
            commands.push(self.register(slot));
        }
        for index in 0..self.config.credentials.len() {
            let id = self.dice.id();
            self.ids.push(new_id(id, index));
            commands.push(self.create(index));
            commands.push(self.configure(index));
        }
        for n in 0..self.config.sandboxes {
            let id = SandboxId(self.dice.id());
            self.readers.push(Reader::new(id));
            commands.push(Command::CreateSandbox {
                id,
                workspace: Workspace::default_workspace(),
                name: name("s", n),
                providers: self.ids.iter().map(|id| id.provider).collect(),
            });
        }
        commands.push(self.route());
        for command in commands {
            let request = RequestId(self.dice.id());
            let at = UnixMs(EPOCH);
            let proposal = Proposal {
                request,
                by: None,
                command,
            };
            let answer = self.commit(Entry { at, proposal });
            if let Err(refusal) = answer.outcome {
                self.broken("setup", refusal.to_string());
            }
        }
        let len = self.consensus.log.len();
        for slot in 0..self.replicas.len() {
            self.replicas[slot].durable = len;
            self.replicas[slot].applied = len;
            self.start(slot);
            self.advance(slot, len);
        }
        self.elect();
    }

    /// A replica asks for its id.
    pub(crate) fn register(&self, slot: usize) -> Command {
        Command::RegisterReplica {
            installation: self.replicas[slot].installation,
            peer_address: String::new(),
            api_address: String::new(),
        }
    }

    fn create(&self, index: usize) -> Command {
        Command::CreateProvider {
            id: self.ids[index].provider,
            workspace: Workspace::default_workspace(),
            name: name("p", index),
            kind: ProviderType::new("generic").expect("a name"),
            config: BTreeMap::new(),
            notes: Default::default(),
            credentials: BTreeMap::new(),
        }
    }

    /// Configures a refresh with a new grant.
    pub(crate) fn configure(&mut self, index: usize) -> Command {
        let grant = self.config.credentials[index];
        let material = if grant.strategy.consumes_material() {
            let token = self.issuer.authorize(grant.replay).text();
            BTreeMap::from([("refresh_token".to_owned(), sealed(token))])
        } else {
            BTreeMap::new()
        };
        Command::ConfigureRefresh {
            credential: self.ids[index].clone(),
            config: RefreshConfig {
                revoke_url: "https://issuer.example/revoke".to_owned(),
                outputs: further_outputs(grant.strategy, &self.ids[index]),
                replay: grant.replay,
                ..RefreshConfig::new(grant.strategy, "https://issuer.example/token")
            },
            material,
            expires_at: None,
        }
    }

    fn route(&self) -> Command {
        Command::SetRoute {
            workspace: Workspace::default_workspace(),
            name: name("r", 0),
            provider: self.ids[0].provider,
            credential: None,
            model: "m".to_owned(),
            timeout_secs: 0,
        }
    }

    fn attach(&self, sandbox: usize, index: usize) -> Command {
        Command::AttachProvider {
            sandbox: self.readers[sandbox].sandbox,
            provider: self.ids[index].provider,
            expected_version: None,
        }
    }

    fn detach(&self, sandbox: usize, index: usize) -> Command {
        Command::DetachProvider {
            sandbox: self.readers[sandbox].sandbox,
            provider: self.ids[index].provider,
            expected_version: None,
        }
    }

    /// Takes a provider from a sandbox, and gives it back.
    pub(crate) fn detach_and_attach(&mut self, sandbox: usize, index: usize) {
        // A failure that is made small may have fewer of them.
        if sandbox >= self.readers.len() {
            return;
        }
        let commands = vec![self.detach(sandbox, index), self.attach(sandbox, index)];
        self.perform(commands, 10);
    }

    /// Deletes a refresh; every other operator has its grant revoked.
    pub(crate) fn delete_refresh(&mut self, credential: &CredentialId) -> Command {
        let credential = credential.clone();
        match self.whim.chance(500) {
            true => Command::RevokeRefresh { credential },
            false => Command::DeleteRefresh { credential },
        }
    }

    /// Asks for a new token; now and then for the end of the old one, where that is possible.
    pub(crate) fn rotate(&mut self, index: usize) -> Command {
        let credential = self.ids[index].clone();
        let grace_ms = self.whim.range(0, 4_000);
        let lasts = self.config.credentials[index].strategy.has_lasting_grant();
        match !lasts && self.whim.chance(500) {
            true => Command::RevokeValue {
                credential,
                grace_ms,
            },
            false => Command::RotateCredential { credential },
        }
    }

    /// Deletes one key and adds it again: the same credential id, a new history.
    pub(crate) fn rekey(&mut self, index: usize) {
        let credential = self.ids[index].clone();
        let configure = self.configure(index);
        let commands = vec![
            self.delete_refresh(&credential),
            Command::UpdateProvider {
                id: credential.provider,
                expected_version: None,
                config: BTreeMap::new(),
                credentials: BTreeMap::from([(credential.key, None)]),
                expires_at: BTreeMap::new(),
            },
            configure,
        ];
        self.perform(commands, 10);
    }

    /// Deletes a provider and registers it again under a new identity.
    pub(crate) fn recreate(&mut self, index: usize) {
        let sandboxes = 0..self.readers.len();
        let mut commands = vec![Command::DeleteRoute {
            workspace: Workspace::default_workspace(),
            name: name("r", 0),
        }];
        commands.extend(sandboxes.clone().map(|s| self.detach(s, index)));
        let id = self.ids[index].provider;
        commands.push(match self.whim.chance(500) {
            true => Command::RevokeProvider { id },
            false => Command::DeleteProvider { id },
        });
        self.ids[index] = new_id(self.dice.id(), index);
        commands.push(self.create(index));
        commands.push(self.configure(index));
        commands.extend(sandboxes.map(|s| self.attach(s, index)));
        commands.push(self.route());
        self.perform(commands, 10);
    }

    /// Begins a script.
    pub(crate) fn perform(&mut self, commands: Vec<Command>, delay: u64) {
        let number = self.dice.roll();
        let script = Script {
            commands: commands.into(),
            request: RequestId(self.dice.id()),
        };
        self.scripts.insert(number, script);
        self.after(delay, What::Global(Global::Operate(number)));
    }

    /// Proposes the next command of a script through some replica, until it is answered.
    pub(crate) fn operate(&mut self, number: u64) {
        let Some(script) = self.scripts.get(&number) else {
            return;
        };
        let request = script.request;
        let Some(command) = script.commands.front().cloned() else {
            self.scripts.remove(&number);
            return;
        };
        self.after(4_000, What::Global(Global::Operate(number)));
        let slot = self.dice.below(self.replicas.len());
        if self.replicas[slot].up && !self.replicas[slot].paused {
            self.propose(slot, Who::Operator(number), request, command);
        }
    }

    /// A command of a script has its answer.
    pub(crate) fn operated(
        &mut self,
        number: u64,
        request: RequestId,
        answer: Result<Answer, ProposeError>,
    ) {
        let fresh = RequestId(self.dice.id());
        let Some(script) = self.scripts.get_mut(&number) else {
            return;
        };
        let Ok(answer) = answer else {
            return;
        };
        if script.request != request {
            return;
        }
        script.request = fresh;
        // What is refused is refused, but for a ticket that is out: that ends.
        if answer.outcome != Err(Refusal::TicketOutstanding) {
            script.commands.pop_front();
            self.operate(number);
        }
    }
}

fn name(prefix: &str, n: usize) -> Name {
    Name::new(format!("{prefix}{n}")).expect("a name")
}

fn new_id(id: u128, index: usize) -> CredentialId {
    CredentialId {
        provider: ProviderId(id),
        key: CredentialKey::new(format!("TOKEN_{index}")).expect("a name"),
    }
}

/// The further outputs of a credential's mints: where the grant is not spent, each gives two.
pub(crate) fn further_outputs(
    strategy: Strategy,
    id: &CredentialId,
) -> BTreeMap<String, CredentialKey> {
    if strategy.consumes_material() {
        return BTreeMap::new();
    }
    let key = CredentialKey::new(format!("{}_SECRET", id.key)).expect("a key");
    BTreeMap::from([("secret".to_owned(), key)])
}
