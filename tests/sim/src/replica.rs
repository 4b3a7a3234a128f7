//! One replica: what is on its disk, what is in its memory, and how it starts, stops and follows
//! the log.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use evermint_core::id::{CredentialId, InstallationId, Position, RequestId, SessionId};
use evermint_core::record::Key;
use evermint_core::revocation::RevocationId;
use evermint_core::state::State;
use evermint_core::time::{Clocks, MonoMs, UnixMs};
use evermint_protocol::clock::{ClusterClock, majority};
use evermint_protocol::journal::JournalEntry;
use evermint_protocol::leader::Leader;
use evermint_protocol::owner::{Event, Identity};
use evermint_protocol::reader::Freshness;
use evermint_protocol::recovery::recover;

use crate::config::Slot;
use crate::consensus::apply_entry;
use crate::hardware::{Hardware, Time};
use crate::issuer::Fate;
use crate::mutant::Mutant;
use crate::network::{Outgoing, Who};
use crate::revoking::{RevokeShell, Revoking};
use crate::shell::Shell;
use crate::world::{Local, Message, What, World};

/// How often a replica says that it lives, in milliseconds; leaders do it as often.
const HEARTBEAT: u64 = 400;

/// How often a replica looks for tickets of its former lives.
const RECOVERY: u64 = 1_000;

/// One replica.
pub(crate) struct Replica {
    pub(crate) hardware: Hardware,
    pub(crate) up: bool,
    pub(crate) paused: bool,
    /// Its clocks when it was paused last.
    pub(crate) paused_at: Clocks,
    pub(crate) deferred: Vec<What>,
    /// Counts its processes.
    pub(crate) life: u64,
    /// Since when nothing is wrong with it.
    pub(crate) well_since: Time,

    // The disk.
    pub(crate) installation: InstallationId,
    pub(crate) journal: BTreeMap<CredentialId, JournalEntry>,
    /// Entries removed of late: a crash may bring them back.
    pub(crate) removed: Vec<JournalEntry>,
    pub(crate) full_until: Time,
    /// Log entries that are here.
    pub(crate) durable: usize,

    // The memory.
    pub(crate) session: SessionId,
    pub(crate) state: Arc<State>,
    /// Log entries that are applied.
    pub(crate) applied: usize,
    pub(crate) clock: ClusterClock,
    /// Wall clocks as they were heard of, and when by this machine's time since boot.
    pub(crate) walls: BTreeMap<Slot, (UnixMs, MonoMs)>,
    pub(crate) freshness: Freshness,
    pub(crate) awaited: Option<(MonoMs, usize)>,
    pub(crate) term: u64,
    pub(crate) hint: Option<Slot>,
    pub(crate) leading: Option<u64>,
    pub(crate) leader: Leader,
    pub(crate) ticks: u64,
    pub(crate) shells: BTreeMap<CredentialId, Shell>,
    pub(crate) revokers: BTreeMap<RevocationId, RevokeShell>,
    /// Journal writes under way.
    pub(crate) writes: Vec<JournalEntry>,
    pub(crate) outgoing: BTreeMap<RequestId, Outgoing>,
}

impl Replica {
    /// An empty machine that is not running yet.
    pub(crate) fn new(
        hardware: Hardware,
        installation: InstallationId,
        lost_after: std::time::Duration,
    ) -> Self {
        Self {
            hardware,
            up: false,
            paused: false,
            paused_at: Clocks::default(),
            deferred: Vec::new(),
            life: 0,
            well_since: 0,
            installation,
            journal: BTreeMap::new(),
            removed: Vec::new(),
            full_until: 0,
            durable: 0,
            session: SessionId(0),
            state: Arc::new(State::default()),
            applied: 0,
            clock: ClusterClock::new(),
            walls: BTreeMap::new(),
            freshness: Freshness::new(lost_after),
            awaited: None,
            term: 0,
            hint: None,
            leading: None,
            leader: Leader::new(lost_after),
            ticks: 0,
            shells: BTreeMap::new(),
            revokers: BTreeMap::new(),
            writes: Vec::new(),
            outgoing: BTreeMap::new(),
        }
    }

    /// Who it is, once the log has given it an id.
    pub(crate) fn me(&self) -> Option<Identity> {
        let known = self.state.replicas.values();
        let replica = known
            .into_iter()
            .find(|r| r.installation == self.installation)?;
        Some(Identity {
            replica: replica.id,
            session: self.session,
        })
    }

    /// The wall clocks of the others that it has heard of, as they go on since.
    pub(crate) fn walls(&self, now: Time) -> impl Iterator<Item = (Slot, UnixMs)> {
        let boot = self.hardware.read(now).boot;
        let heard = self.walls.iter();
        heard.map(move |(from, (wall, at))| (*from, *wall + boot.since(*at)))
    }
}

impl World {
    /// The stamp of the leader in `slot`, by the wall clocks of a majority; `None` while it does not
    /// know them. Time that passed while suspended has passed: the cluster clock runs on the boot
    /// clock.
    pub(crate) fn stamp(&self, slot: Slot) -> Option<UnixMs> {
        let replica = &self.replicas[slot];
        let clocks = replica.hardware.read(self.now);
        let others = replica.walls(self.now).filter(|(other, _)| *other != slot);
        let known = others.map(|(_, wall)| wall).chain([clocks.wall]);
        let wall = majority(known, self.replicas.len())?;
        let wall = match self.mutant {
            Some(Mutant::StampByOwnWall) => clocks.wall,
            _ => wall,
        };
        Some(replica.clock.stamp(wall, clocks.boot))
    }

    /// Starts a process in `slot`.
    pub(crate) fn start(&mut self, slot: Slot) {
        let session = self.session();
        let lost_after = std::time::Duration::from_millis(self.config.lost_after);
        // The applied state is not synced: it starts somewhere behind, and catches up.
        let behind = self.dice.below(20);
        let reload = self.dice.chance(100);
        let len = self.consensus.log.len();
        let replica = &mut self.replicas[slot];
        replica.applied = replica
            .durable
            .min(replica.applied)
            .saturating_sub(behind)
            .min(len);
        let mut state = self.consensus.history[replica.applied].clone();
        if reload {
            state = State::from_records(state.records()).expect("records are read back");
        }
        replica.state = Arc::new(state);
        replica.up = true;
        replica.life += 1;
        replica.session = session;
        replica.clock = ClusterClock::new();
        let boot = replica.hardware.read(self.now).boot;
        replica.clock.observe(replica.state.meta.clock, boot);
        replica.walls.clear();
        replica.freshness = Freshness::new(lost_after);
        replica.awaited = None;
        replica.hint = None;
        replica.leading = None;
        replica.leader = Leader::new(lost_after);
        replica.shells.clear();
        replica.revokers.clear();
        replica.writes.clear();
        replica.outgoing.clear();
        replica.well_since = self.now;
        if self.mutant == Some(Mutant::ForgetJournal) {
            replica.journal.clear();
        }
        self.note(|| format!("replica {slot} starts as {session}"));
        self.later(slot, 1, Local::Heartbeat);
        self.later(slot, 1, Local::Recover);
        self.reconcile(slot, None);
    }

    /// Kills the process in `slot`.
    pub(crate) fn kill(&mut self, slot: Slot) {
        let credentials: Vec<_> = self.replicas[slot].shells.keys().cloned().collect();
        for credential in credentials {
            self.close(slot, &credential);
        }
        self.drop_revokers(slot);
        // Writes under way may have reached the disk or not; removals too.
        for entry in std::mem::take(&mut self.replicas[slot].writes) {
            if self.dice.chance(500) {
                self.write(slot, entry);
            }
        }
        for entry in std::mem::take(&mut self.replicas[slot].removed) {
            let replica = &mut self.replicas[slot];
            if self.dice.chance(500) && !replica.journal.contains_key(&entry.credential) {
                replica.journal.insert(entry.credential.clone(), entry);
            }
        }
        self.lose(
            Fate::Delivered(slot),
            "the replica died between answer and journal",
        );
        let replica = &mut self.replicas[slot];
        replica.up = false;
        replica.paused = false;
        replica.deferred.clear();
        replica.shells.clear();
        replica.outgoing.clear();
        replica.life += 1;
        self.note(|| format!("replica {slot} is killed"));
    }

    /// Everything of that fate is lost.
    pub(crate) fn lose(&mut self, fate: Fate, why: &'static str) {
        for rotation in self.issuer.rotations.values_mut() {
            if rotation.fate == fate {
                rotation.fate = Fate::Lost(why);
            }
        }
    }

    /// What a process does of itself.
    pub(crate) fn local(&mut self, slot: Slot, local: Local) {
        match local {
            Local::Look(credential) => {
                self.ensure_shell(slot, &credential);
                self.step(slot, &credential, Event::Changed);
            }
            Local::Wake(credential, timer) => self.wake(slot, &credential, timer),
            Local::Written(entry, good) => self.written(slot, entry, good),
            Local::Connected(credential, mint) => self.connected(slot, &credential, mint),
            Local::Fence(credential, mint) => self.fence(slot, &credential, mint),
            Local::Reply(credential, mint, result) => self.reply(slot, &credential, mint, result),
            Local::Resend(request) => {
                if self.replicas[slot].outgoing.contains_key(&request) {
                    self.resend(slot, request);
                    self.later(slot, 700, Local::Resend(request));
                }
            }
            Local::GiveUp(request) => self.give_up(slot, request),
            Local::Unavailable(request) => self.unavailable(slot, request),
            Local::Reborn(credential) => {
                self.ensure_shell(slot, &credential);
                self.step(slot, &credential, Event::Changed);
            }
            Local::Revoking(id, what) => self.revoking(slot, &id, what),
            Local::Tick(number) => {
                if self.replicas[slot].ticks == number {
                    self.tick_leader(slot);
                }
            }
            Local::Heartbeat => self.heartbeat(slot),
            Local::Recover => self.recover(slot),
            Local::Committed(term, number) => self.try_commit(slot, term, number),
        }
    }

    /// Applies the log up to there.
    pub(crate) fn advance(&mut self, slot: Slot, upto: usize) {
        let from = self.replicas[slot].applied;
        if upto <= from {
            return;
        }
        let mut touched = BTreeSet::new();
        let mut push = std::time::Duration::ZERO;
        let boot = self.replicas[slot].hardware.read(self.now).boot;
        let mut state = self.replicas[slot].state.as_ref().clone();
        for index in from..upto {
            let entry = self.consensus.log[index].clone();
            let (_, keys) = apply_entry(self.mutant, &mut state, &entry);
            touched.extend(keys);
            let clock = &mut self.replicas[slot].clock;
            push = push.max(clock.observe(entry.at, boot));
        }
        // I9: equal state at equal position.
        if upto.is_multiple_of(16) && state.hash() != self.consensus.history[upto].hash() {
            self.broken("I9", format!("replica {slot} differs at entry {upto}"));
        }
        let mono = self.leader_time(slot);
        let replica = &mut self.replicas[slot];
        replica.state = Arc::new(state);
        replica.applied = upto;
        if let Some((as_of, index)) = replica.awaited
            && upto >= index
        {
            replica.freshness.caught_up(as_of, boot);
            replica.awaited = None;
        }
        replica.leader.applied(&replica.state, mono);
        self.arm_leader(slot);
        match push.as_millis() > 1_000 {
            true => self.reconcile(slot, None),
            false => self.reconcile(slot, Some(&touched)),
        }
    }

    /// Has the owners look at what changed: at everything, if it is not said.
    pub(crate) fn reconcile(&mut self, slot: Slot, touched: Option<&BTreeSet<Key>>) {
        if self.replicas[slot].me().is_none() {
            return;
        }
        let state = self.replicas[slot].state.clone();
        let concerned = |id: &CredentialId| {
            touched.is_none_or(|touched| {
                let shard = state.credentials.get(id).map(|c| c.shard);
                touched.contains(&Key::Credential(id.clone()))
                    || shard.is_some_and(|shard| touched.contains(&Key::Shard(shard)))
            })
        };
        let known = self.replicas[slot].shells.keys();
        let all: BTreeSet<CredentialId> = state.credentials.keys().chain(known).cloned().collect();
        for id in all.into_iter().filter(concerned) {
            let delay = self.dice.range(0, 3);
            self.later(slot, delay, Local::Look(id));
        }
        let moved = touched.is_none_or(|touched| {
            let mut shards = touched.iter().filter(|key| matches!(key, Key::Shard(_)));
            shards.next().is_some()
        });
        let known = self.replicas[slot].revokers.keys();
        let open = state.revocations.iter().filter(|(_, r)| r.work().is_some());
        let all: BTreeSet<RevocationId> = open.map(|(id, _)| id).chain(known).cloned().collect();
        for id in all {
            let is_touched = touched.is_some_and(|t| t.contains(&Key::Revocation(id.clone())));
            if moved || is_touched {
                self.later(slot, 1, Local::Revoking(id, Revoking::Look));
            }
        }
    }

    /// The time by which the leader measures tickets.
    pub(crate) fn leader_time(&self, slot: Slot) -> MonoMs {
        let clocks = self.replicas[slot].hardware.read(self.now);
        match self.mutant {
            Some(Mutant::ExpireByWallClock) => MonoMs(clocks.wall.0),
            _ => clocks.mono,
        }
    }

    /// Sets the leader's timer.
    pub(crate) fn arm_leader(&mut self, slot: Slot) {
        let now = self.leader_time(slot);
        let replica = &mut self.replicas[slot];
        replica.ticks += 1;
        let Some(wake) = replica.leader.next_wake() else {
            return;
        };
        let number = replica.ticks;
        let delay = wake.0.saturating_sub(now.0);
        self.later(slot, delay + 1, Local::Tick(number));
    }

    fn tick_leader(&mut self, slot: Slot) {
        let now = self.leader_time(slot);
        let replica = &mut self.replicas[slot];
        let commands = replica.leader.tick(&replica.state, now);
        if replica.leading.is_none() {
            return;
        }
        for command in commands {
            let request = RequestId(self.dice.id());
            let proposal = evermint_core::command::Proposal {
                request,
                by: None,
                command,
            };
            self.append(slot, slot, proposal);
        }
        self.arm_leader(slot);
    }

    fn heartbeat(&mut self, slot: Slot) {
        self.later(slot, HEARTBEAT, Local::Heartbeat);
        if self.replicas[slot].leading.is_some() {
            self.announce_commits(slot);
        }
        let replica = &self.replicas[slot];
        let to = replica.leading.map(|_| slot).or(replica.hint);
        let clocks = replica.hardware.read(self.now);
        let as_of = match self.mutant {
            Some(Mutant::StalenessByMonotonicClock) => clocks.mono,
            _ => clocks.boot,
        };
        let beat = Message::Beat {
            from: slot,
            life: replica.life,
            me: replica.me(),
            as_of,
            wall: clocks.wall,
        };
        if let Some(to) = to {
            self.send(slot, to, beat);
        }
    }

    /// Settles tickets of former lives, wherever their shards are now.
    fn recover(&mut self, slot: Slot) {
        self.later(slot, RECOVERY, Local::Recover);
        let replica = &mut self.replicas[slot];
        let Some(me) = replica.me() else {
            return;
        };
        let journal: Vec<JournalEntry> = replica.journal.values().cloned().collect();
        let todo = recover(&replica.state, &journal, me);
        for ticket in todo.forget {
            replica.journal.retain(|_, entry| entry.ticket != ticket);
        }
        for command in todo.propose {
            self.coverage.note(match command.name() {
                "commit-mint" => "answers handed in after a restart",
                _ => "tickets abandoned after a restart",
            });
            let request = RequestId(self.dice.id());
            self.propose(slot, Who::Nobody, request, command);
        }
    }

    /// How far the replica in `slot` has applied history.
    pub(crate) fn position(&self, slot: Slot) -> Position {
        self.replicas[slot].state.meta.position
    }
}
