//! What one seed means: the cluster, its faults, and when they strike.

use evermint_core::settings::Settings;
use evermint_core::strategy::{ReplayPolicy, Strategy};

use crate::dice::Dice;
use crate::hardware::Time;

/// The place of a replica; survives the loss of its disk.
pub type Slot = usize;

/// Everything that a seed decides before time begins.
#[derive(Clone, Debug)]
pub struct Config {
    /// The seed.
    pub seed: u64,
    /// Replicas.
    pub replicas: usize,
    /// One entry for each credential.
    pub credentials: Vec<Grant>,
    /// Readers.
    pub sandboxes: usize,
    /// When the faults end and the cluster has to recover.
    pub horizon: Time,
    /// The cluster's settings.
    pub settings: Settings,
    /// After how long without a heartbeat a replica counts as lost.
    pub lost_after: u64,
    /// Beyond which staleness a replica refuses reads.
    pub max_staleness: u64,
    /// How much faster than time each machine's clocks run, in millionths.
    pub drift_ppm: Vec<i64>,
    /// At most so many machines have their wall clocks set. If they are fewer than half, clocks run
    /// as real ones do, and what is served is checked against real time.
    pub walls_set: usize,
    /// Whether a mint whose answer and deadline come together takes the answer.
    pub answer_first: bool,
    /// Of a thousand messages, how many are lost, come twice, come seconds late.
    pub lost: u32,
    /// See `lost`.
    pub doubled: u32,
    /// See `lost`.
    pub late: u32,
    /// Of a thousand requests, how many the issuer fails, throttles, never handles, or answers
    /// into a broken connection.
    pub failed: u32,
    /// See `failed`.
    pub throttled: u32,
    /// See `failed`.
    pub hung: u32,
    /// See `failed`.
    pub unheard: u32,
    /// The slowest answer of the issuer, in milliseconds.
    pub slowest: u64,
    /// What strikes when.
    pub schedule: Vec<(Time, Fault)>,
}

/// How a credential is minted, and how its issuer behaves.
#[derive(Clone, Copy, Debug)]
pub struct Grant {
    /// The strategy.
    pub strategy: Strategy,
    /// The issuer's replay policy, which is configured truly.
    pub replay: ReplayPolicy,
    /// Lifetime of its tokens in milliseconds.
    pub lifetime: u64,
}

/// A step of a mint at which something may strike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The ticket was asked for.
    Asked,
    /// `sending` is being written.
    Granted,
    /// `sending` was written; the connection is being made.
    Announced,
    /// The request was sent.
    Sent,
    /// The answer was received; it is being written.
    Answered,
    /// The answer was written; the commit was proposed.
    Recorded,
    /// The commit was acknowledged.
    Committed,
}

/// Something that goes wrong, or that an operator does.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The process is killed, and started again after `down`.
    Crash {
        /// Where.
        slot: Slot,
        /// For how long.
        down: u64,
    },
    /// The machine is lost with its disk; another one takes its place after `down`.
    LoseDisk {
        /// Where.
        slot: Slot,
        /// For how long.
        down: u64,
    },
    /// The process stands still (or its whole machine, `suspended`), and then goes on.
    Pause {
        /// Where.
        slot: Slot,
        /// For how long.
        length: u64,
        /// Whether the monotonic clock stands still too.
        suspended: bool,
    },
    /// Messages do not pass from the first to the second of each pair.
    Cut {
        /// Which ways.
        ways: Vec<(Slot, Slot)>,
        /// For how long.
        length: u64,
    },
    /// A wall clock is set.
    StepWall {
        /// Where.
        slot: Slot,
        /// By how much.
        by: i64,
    },
    /// Another leader is elected without need.
    Elect,
    /// The journal cannot be written.
    DiskFull {
        /// Where.
        slot: Slot,
        /// For how long.
        length: u64,
    },
    /// The issuer refuses connections.
    Outage {
        /// For how long.
        length: u64,
    },
    /// The actor of one credential panics wherever it runs.
    Panic {
        /// Which.
        credential: usize,
    },
    /// The next mint that reaches the step has its replica struck.
    At {
        /// The step.
        step: Step,
        /// How; the slot is replaced by that of the mint.
        then: Box<Fault>,
    },
    /// The leader is struck; the slot is replaced.
    Leader {
        /// How.
        then: Box<Fault>,
    },
    /// An operator asks for a new token.
    Rotate {
        /// Which.
        credential: usize,
    },
    /// An operator configures a new grant.
    Reconfigure {
        /// Which.
        credential: usize,
    },
    /// An operator deletes the refresh, and configures a new one later.
    DeleteRefresh {
        /// Which.
        credential: usize,
        /// After how long.
        pause: u64,
    },
    /// An operator deletes the provider and registers it again under a new identity.
    Recreate {
        /// Whose credential.
        credential: usize,
    },
    /// An operator deletes one key of a provider and adds it again.
    Rekey {
        /// Which.
        credential: usize,
    },
    /// An operator takes a provider from a sandbox, and gives it back.
    Detach {
        /// From whom.
        sandbox: usize,
        /// Whose credential.
        credential: usize,
    },
    /// A sandbox says that its value is refused where it is used.
    Report {
        /// Which.
        sandbox: usize,
        /// Whose.
        credential: usize,
    },
    /// A sandbox says so in a loop, of whatever it uses.
    Nag {
        /// Which.
        sandbox: usize,
        /// For how long.
        length: u64,
    },
    /// A sandbox wants values that are good for long.
    Want {
        /// Which.
        sandbox: usize,
        /// For how long they are to be good, in milliseconds.
        min_ttl: u64,
        /// For how long it does.
        length: u64,
    },
}

impl Config {
    /// What `seed` stands for. Each kind of fault is in about half of the seeds: what one fault
    /// hides another seed shows.
    pub fn derive(seed: u64) -> Self {
        let mut dice = Dice::new(seed, 1);
        let d = &mut dice;
        let ttl = d.pick(&[2_000, 4_000, 8_000]);
        let backoff_base = d.range(50, 500);
        let settings = Settings {
            shards: 8,
            ticket_ttl_ms: ttl,
            ticket_margin_ms: d.range(ttl / 10, ttl / 4),
            doubt_wait_ms: d.range(4_000, 20_000),
            backoff_base_ms: backoff_base,
            backoff_cap_ms: d.range(1_000, 8_000),
            default_lifetime_ms: 20_000,
            audit_retention: 100,
            audit_max_age_ms: 3_600_000,
        };
        let replicas = d.pick(&[3, 3, 3, 5]);
        let count = d.range(2, 5);
        let credentials = (0..count)
            .map(|_| Grant {
                strategy: d.pick(&[
                    Strategy::OAuth2RefreshToken,
                    Strategy::OAuth2RefreshToken,
                    Strategy::OAuth2RefreshToken,
                    Strategy::OAuth2ClientCredentials,
                ]),
                replay: d.pick(&[
                    ReplayPolicy::Strict,
                    ReplayPolicy::Strict,
                    ReplayPolicy::Safe,
                    ReplayPolicy::Grace(3_000),
                    ReplayPolicy::Grace(30_000),
                ]),
                lifetime: d.range(6_000, 40_000),
            })
            .collect();
        let few = d.chance(500);
        let drift: u64 = if few { 200 } else { 40_000 };
        let some = |d: &mut Dice, most| {
            if d.chance(500) {
                d.range(1, most) as u32
            } else {
                0
            }
        };
        let mut config = Self {
            seed,
            replicas,
            credentials,
            sandboxes: 2,
            horizon: d.range(30_000, 120_000),
            settings,
            lost_after: d.range(1_000, 3_000),
            max_staleness: d.range(2_000, 15_000),
            drift_ppm: (0..replicas)
                .map(|_| d.range(0, 2 * drift) as i64 - drift as i64)
                .collect(),
            walls_set: if few { (replicas - 1) / 2 } else { replicas },
            answer_first: d.chance(500),
            lost: some(d, 200),
            doubled: some(d, 100),
            late: some(d, 30),
            failed: some(d, 200),
            throttled: some(d, 100),
            hung: some(d, 150),
            unheard: some(d, 150),
            slowest: d.pick(&[50, 500, ttl / 2, ttl * 2]),
            schedule: Vec::new(),
        };
        config.schedule = config.plan(&mut Dice::new(seed, 2));
        config
    }

    /// When what strikes.
    fn plan(&self, d: &mut Dice) -> Vec<(Time, Fault)> {
        type Draw = fn(&Config, &mut Dice) -> Fault;
        let kinds: [(Draw, u64); 18] = [
            (|c, d| c.crash(d), 6),
            (|c, d| c.crash_at(d), 8),
            (|c, d| c.pause(d), 6),
            (|c, d| c.pause_at(d), 8),
            (|c, d| c.cut(d), 5),
            (|c, d| c.step_wall(d), 5),
            (|_, _| Fault::Elect, 6),
            (|c, d| c.lose_disk(d), 2),
            (|c, d| c.leader(d), 5),
            (|c, d| c.step_leader_at(d), 5),
            (
                |c, d| Fault::DiskFull {
                    slot: d.below(c.replicas),
                    length: d.range(500, 15_000),
                },
                3,
            ),
            (
                |_, d| Fault::Outage {
                    length: d.range(500, 15_000),
                },
                3,
            ),
            (
                |c, d| Fault::Panic {
                    credential: d.below(c.credentials.len()),
                },
                5,
            ),
            (|c, d| c.operate(d), 8),
            (
                |c, d| Fault::Rotate {
                    credential: d.below(c.credentials.len()),
                },
                6,
            ),
            (
                |c, d| Fault::Report {
                    sandbox: d.below(c.sandboxes),
                    credential: d.below(c.credentials.len()),
                },
                6,
            ),
            (
                |c, d| Fault::Nag {
                    sandbox: d.below(c.sandboxes),
                    length: d.range(1_000, 90_000),
                },
                2,
            ),
            (
                |c, d| Fault::Want {
                    sandbox: d.below(c.sandboxes),
                    min_ttl: d.range(1_000, 60_000),
                    length: d.range(1_000, 30_000),
                },
                3,
            ),
        ];
        let mut schedule = Vec::new();
        for (draw, most) in kinds {
            if d.chance(450) {
                for _ in 0..d.range(1, most) {
                    let at = d.range(2_000, self.horizon - 1_000);
                    schedule.push((at, draw(self, d)));
                }
            }
        }
        schedule.sort_by_key(|(at, _)| *at);
        schedule
    }

    /// Long and short downtimes, below and above a ticket's time.
    fn span(&self, d: &mut Dice) -> u64 {
        let ttl = self.settings.ticket_ttl_ms;
        match d.below(4) {
            0 => d.range(10, 500),
            1 => ttl / 2,
            2 => d.range(ttl, 2 * ttl),
            _ => d.range(2 * ttl, 30_000),
        }
    }

    fn crash(&self, d: &mut Dice) -> Fault {
        Fault::Crash {
            slot: d.below(self.replicas),
            down: self.span(d),
        }
    }

    fn pause(&self, d: &mut Dice) -> Fault {
        Fault::Pause {
            slot: d.below(self.replicas),
            length: self.span(d),
            suspended: d.chance(300),
        }
    }

    fn lose_disk(&self, d: &mut Dice) -> Fault {
        let slot = d.below(self.replicas);
        let down = d.range(100, 5_000);
        let fault = Fault::LoseDisk { slot, down };
        match d.chance(500) {
            true => self.at(d, fault),
            false => fault,
        }
    }

    fn at(&self, d: &mut Dice, then: Fault) -> Fault {
        let step = d.pick(&[
            Step::Asked,
            Step::Granted,
            Step::Announced,
            Step::Sent,
            Step::Sent,
            Step::Answered,
            Step::Recorded,
            Step::Committed,
        ]);
        let then = Box::new(then);
        Fault::At { step, then }
    }

    fn crash_at(&self, d: &mut Dice) -> Fault {
        let then = self.crash(d);
        self.at(d, then)
    }

    fn pause_at(&self, d: &mut Dice) -> Fault {
        let then = self.pause(d);
        self.at(d, then)
    }

    fn leader(&self, d: &mut Dice) -> Fault {
        let then = Box::new(match d.below(4) {
            0 => self.crash(d),
            1 => self.pause(d),
            2 => self.step_wall(d),
            _ => self.cut(d),
        });
        Fault::Leader { then }
    }

    /// The leader's wall clock jumps while a mint is under way.
    fn step_leader_at(&self, d: &mut Dice) -> Fault {
        let ttl = self.settings.ticket_ttl_ms;
        let by = d.range(ttl / 2, 4 * ttl) as i64;
        let slot = 0;
        let then = Box::new(Fault::StepWall { slot, by });
        self.at(d, Fault::Leader { then })
    }

    fn cut(&self, d: &mut Dice) -> Fault {
        let one = d.below(self.replicas);
        let others = (0..self.replicas).filter(|s| *s != one);
        let ways = match d.below(4) {
            // Isolated.
            0 => others.flat_map(|s| [(one, s), (s, one)]).collect(),
            // It hears and is not heard, or the other way round.
            1 => others.map(|s| (one, s)).collect(),
            2 => others.map(|s| (s, one)).collect(),
            // One link.
            _ => {
                let other = (one + 1 + d.below(self.replicas - 1)) % self.replicas;
                vec![(one, other), (other, one)]
            }
        };
        Fault::Cut {
            ways,
            length: d.range(500, 25_000),
        }
    }

    fn step_wall(&self, d: &mut Dice) -> Fault {
        let by = match d.below(3) {
            0 => d.range(100, 3_000),
            1 => d.range(3_000, 60_000),
            _ => d.range(60_000, 3_600_000),
        } as i64;
        Fault::StepWall {
            slot: d.below(self.replicas),
            by: if d.chance(500) { by } else { -by },
        }
    }

    fn operate(&self, d: &mut Dice) -> Fault {
        let credential = d.below(self.credentials.len());
        match d.below(6) {
            0 | 1 => Fault::Reconfigure { credential },
            2 => Fault::DeleteRefresh {
                credential,
                pause: d.range(10, 8_000),
            },
            3 => Fault::Recreate { credential },
            4 => Fault::Rekey { credential },
            _ => Fault::Detach {
                sandbox: d.below(self.sandboxes),
                credential,
            },
        }
    }
}
