//! The keys of a replica: where its key-encryption keys come from, data keys as the state has them,
//! and, on the leader, the rotation of both.
//!
//! Whoever believes itself the leader rotates. Nothing rests on its being so: what it proposes says
//! what it saw, and changes nothing that has moved on since. So a leader that dies in between, or
//! two of them, leave a rotation that goes on with the next one.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow};
use evermint_core::command::{Command, Refusal};
use evermint_core::id::ReplicaId;
use evermint_core::keys::{RESEAL_MAX, Resealed};
use evermint_core::port::{Proposer, StateView, Touched};
use evermint_core::record::Key;
use evermint_core::state::State;
use evermint_gateway::{Peer, RaftStatus, Role};
use evermint_seal::{FileAccess, Kek, Keyring, rotation};
use futures::StreamExt as _;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::exit::advised;
use crate::settings::Settings;

/// How often the leader looks whether there is something to rotate.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Pauses between two batches: others write too.
const BATCH_EVERY: Duration = Duration::from_millis(20);

/// Most bytes of cipher text in a batch.
const BATCH_BYTES_MAX: usize = 128 * 1024;

/// The key-encryption keys that the settings name. Runs a command if they say so: blocks.
///
/// # Errors
/// What is wrong with the key or its source, and what to do about it.
pub(super) fn keyring(settings: &Settings) -> Result<Keyring> {
    let access = match settings.kek_any_mode {
        true => FileAccess::Any,
        false => FileAccess::OwnerOnly,
    };
    let bound = settings.kek_command_timeout.get();
    let read = |file: &Option<std::path::PathBuf>, env: &Option<String>, command: &[String]| match (
        file, env,
    ) {
        (Some(path), _) => from_file(path, access).map(Some),
        (None, Some(variable)) => Ok(Some(Kek::from_env(variable)?)),
        (None, None) if command.is_empty() => Ok(None),
        (None, None) => Ok(Some(Kek::from_command(command, bound)?)),
    };
    let kek = read(&settings.kek_file, &settings.kek_env, &settings.kek_command)?;
    let former = read(
        &settings.kek_former_file,
        &settings.kek_former_env,
        &settings.kek_former_command,
    )?;
    let kek = kek.ok_or_else(|| anyhow!("no key-encryption key is given"))?;
    let keyring = Keyring::new(kek);
    Ok(match former {
        Some(former) => keyring.with_former(former),
        None => keyring,
    })
}

fn from_file(path: &Path, access: FileAccess) -> Result<Kek> {
    if !path.exists() {
        return Err(advised(
            format!("there is no key-encryption key at {}", path.display()),
            format!(
                "`evermint keygen --out {}` for a new cluster; for one that exists, copy the file of another replica",
                path.display()
            ),
        ));
    }
    Ok(Kek::from_file(path, access)?)
}

/// Loads data keys whenever they change, and tells when the first is there. Fails when one cannot
/// be used: a replica with the wrong KEK must not own credentials that it cannot open.
pub(super) async fn keep(
    view: Arc<dyn StateView>,
    keyring: Arc<Keyring>,
    loaded: watch::Sender<bool>,
    stop: CancellationToken,
) -> Result<()> {
    let mut changes = view.changes();
    // What was applied between the first load and the subscription.
    keyring.follow(&view.state())?;
    loop {
        loaded.send_if_modified(|ready| {
            let before = std::mem::replace(ready, keyring.active().is_some());
            before != *ready
        });
        let change = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            change = changes.next() => change,
        };
        match change.map(|change| change.touched) {
            Some(touched) if concerns_keys(&touched) => {
                let state = view.state();
                keyring.follow(&state)?;
                tell_if_locked_out(&keyring, &state);
            }
            Some(_) => {}
            None => {
                stop.cancelled().await;
                return Ok(());
            }
        }
    }
}

fn concerns_keys(touched: &Touched) -> bool {
    match touched {
        Touched::Everything => true,
        Touched::Keys(keys) => keys.iter().any(|key| matches!(key, Key::DataKey(_))),
    }
}

/// What this replica has opened it can use until it stops; that it could not start again is told
/// while there is time.
fn tell_if_locked_out(keyring: &Keyring, state: &State) {
    let mine = keyring.kek_names();
    for (id, wrapped) in &state.data_keys {
        if !mine.contains(&wrapped.kek) {
            tracing::error!(
                data_key = id.0,
                needed = wrapped.kek,
                given = mine.join(" and "),
                "this replica will not start again with the key-encryption keys that it has"
            );
            return;
        }
    }
}

/// What rotates keys.
pub(super) struct Rotation {
    pub(super) proposer: Arc<dyn Proposer>,
    pub(super) view: Arc<dyn StateView>,
    pub(super) keyring: Arc<Keyring>,
    pub(super) raft: watch::Receiver<RaftStatus>,
}

impl Rotation {
    /// Rotates what is to be rotated, whenever this replica leads, until the replica stops.
    pub(super) async fn run(self, stop: CancellationToken) {
        loop {
            if self.leads() {
                stop.run_until_cancelled(self.step()).await;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    fn leads(&self) -> bool {
        self.raft.borrow().role == Role::Leader
    }

    async fn step(&self) {
        if let Err(error) = self.rewrap().await {
            tracing::warn!(%error, "the data keys are not under the new key-encryption key yet");
        }
        if let Err(error) = self.reseal().await {
            tracing::warn!(%error, "secrets are not under the new data key yet");
        }
    }

    /// Puts all data keys under the key-encryption key that all replicas want.
    async fn rewrap(&self) -> Result<()> {
        let state = self.view.state();
        let kek = self.keyring.kek_name();
        let is_wanted = all_want(&state, &self.raft.borrow().peers, &kek);
        if !is_wanted || state.data_keys.values().all(|key| key.kek == kek) {
            return Ok(());
        }
        let keys = rotation::rewrap(&self.keyring, &state)?;
        let count = keys.len();
        let joined = state.meta.next_replica;
        let command = Command::RewrapDataKeys { joined, keys };
        match self.proposer.propose(command).await?.outcome {
            Ok(_) => tracing::info!(kek, data_keys = count, "data keys are under another KEK"),
            // Somebody was faster, or the members changed: looked at again in a moment.
            Err(Refusal::KeysChanged) => {}
            Err(refusal) => return Err(refusal.into()),
        }
        Ok(())
    }

    /// Seals anew what rests under an older data key, batch by batch.
    async fn reseal(&self) -> Result<()> {
        let state = self.view.state();
        self.keyring.follow(&state)?;
        let (mut batch, mut bytes, mut done) = (Vec::new(), 0, 0);
        for stale in rotation::stale(&state) {
            if !self.leads() {
                return Ok(());
            }
            bytes += stale.size();
            let place = stale.place().clone();
            match stale.reseal(&self.keyring) {
                Ok(resealed) => batch.push(resealed),
                Err(error) => tracing::error!(?place, %error, "a secret cannot be sealed anew"),
            }
            if batch.len() == RESEAL_MAX || bytes >= BATCH_BYTES_MAX {
                done += self.propose(std::mem::take(&mut batch)).await?;
                bytes = 0;
                tokio::time::sleep(BATCH_EVERY).await;
            }
        }
        done += self.propose(batch).await?;
        if done > 0 {
            tracing::info!(secrets = done, "sealed anew under the newest data key");
        }
        Ok(())
    }

    async fn propose(&self, items: Vec<Resealed>) -> Result<usize> {
        if items.is_empty() {
            return Ok(0);
        }
        let count = items.len();
        self.proposer
            .propose(Command::Reseal { items })
            .await?
            .outcome?;
        Ok(count)
    }
}

/// Whether every member has said that it wants `kek` to wrap all data keys. One that was not heard
/// of may be started again without it.
fn all_want(state: &State, peers: &BTreeMap<ReplicaId, Peer>, kek: &str) -> bool {
    state.replicas.keys().all(|id| {
        let first = peers.get(id).and_then(|peer| peer.keks.first());
        first.is_some_and(|first| first == kek)
    })
}
