//! Any sequence of commands keeps the promises, and one history gives one state.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod support;

use std::collections::BTreeMap;

use evermint_core::apply::apply;
use evermint_core::command::{Command, Proposal, StaticValue};
use evermint_core::credential::Early;
use evermint_core::id::*;
use evermint_core::invariant;
use evermint_core::keys::{self, Resealed};
use evermint_core::mint::FailureClass;
use evermint_core::profile::{Profile, Scope};
use evermint_core::secret::{DataKeyId, Sealed};
use evermint_core::state::State;
use evermint_core::strategy::{ReplayPolicy, Strategy as Way};
use evermint_core::time::UnixMs;
use proptest::prelude::*;
use support::*;

/// A step that is turned into a command from the state in which it is taken, so that claims are
/// often right, and sometimes off by one.
#[derive(Clone, Debug)]
enum Step {
    Claim { ticket: u8, off: u8 },
    Commit(u8),
    Fail(u8, u8),
    Expire(u8),
    Abandon(u8),
    Configure(u8),
    Rotate,
    Early(u64),
    DeleteRefresh,
    Revoke(u8),
    ClaimRevocation(u8),
    SettleRevocation(u8, u8),
    Assign(u8),
    Provider(u8),
    DeleteProvider(u8),
    Static(u8),
    Sandbox(u8),
    Attach(u8, u8),
    Detach(u8, u8),
    Route(u8),
    DeleteRoute,
    ImportProfile(bool),
    UpdateProfile(bool),
    DeleteProfile(bool),
    DataKey,
    Reseal { off: u8 },
    Repeat,
}

fn step() -> impl Strategy<Value = Step> {
    let ticket = 0..6_u8;
    prop_oneof![
        6 => (ticket.clone(), 0..8_u8).prop_map(|(ticket, off)| Step::Claim { ticket, off }),
        6 => ticket.clone().prop_map(Step::Commit),
        3 => (ticket.clone(), 0..7_u8).prop_map(|(t, c)| Step::Fail(t, c)),
        2 => ticket.clone().prop_map(Step::Expire),
        2 => ticket.prop_map(Step::Abandon),
        1 => (0..6_u8).prop_map(Step::Configure),
        1 => Just(Step::Rotate),
        1 => (0..3_u64).prop_map(Step::Early),
        1 => Just(Step::DeleteRefresh),
        2 => (0..3_u8).prop_map(Step::Revoke),
        2 => (0..3_u8).prop_map(Step::ClaimRevocation),
        2 => (0..3_u8, 0..4_u8).prop_map(|(n, c)| Step::SettleRevocation(n, c)),
        1 => (0..3_u8).prop_map(Step::Assign),
        1 => (1..4_u8).prop_map(Step::Provider),
        1 => (1..4_u8).prop_map(Step::DeleteProvider),
        2 => (0..8_u8).prop_map(Step::Static),
        1 => (1..3_u8).prop_map(Step::Sandbox),
        1 => (1..3_u8, 1..4_u8).prop_map(|(s, p)| Step::Attach(s, p)),
        1 => (1..3_u8, 1..4_u8).prop_map(|(s, p)| Step::Detach(s, p)),
        1 => (1..4_u8).prop_map(Step::Route),
        1 => Just(Step::DeleteRoute),
        1 => any::<bool>().prop_map(Step::ImportProfile),
        1 => any::<bool>().prop_map(Step::UpdateProfile),
        1 => any::<bool>().prop_map(Step::DeleteProfile),
        1 => Just(Step::DataKey),
        2 => (0..4_u8).prop_map(|off| Step::Reseal { off }),
        1 => Just(Step::Repeat),
    ]
}

fn command(world: &World, step: &Step) -> Option<Command> {
    let known = world.state.credentials.contains_key(&token());
    let workspace = Workspace::default_workspace();
    let route = Name::new("inference.local").unwrap();
    let scope = |is_platform: bool| match is_platform {
        true => Scope::Platform,
        false => Scope::Workspace(Workspace::default_workspace()),
    };
    Some(match step {
        Step::ImportProfile(p) => Command::ImportProfiles {
            scope: scope(*p),
            profiles: vec![profile("generic")],
        },
        Step::UpdateProfile(p) => Command::UpdateProfile {
            scope: scope(*p),
            profile: Profile {
                description: world.state.meta.position.to_string(),
                ..profile("generic")
            },
            expected_version: None,
        },
        Step::DeleteProfile(p) => Command::DeleteProfile {
            scope: scope(*p),
            id: profile("generic").id,
        },
        Step::Claim { ticket, off } => {
            if !known {
                return None;
            }
            let mut claim = world.claim(u128::from(*ticket));
            if let Command::GrantTicket {
                expected_attempt,
                expected_generation,
                epoch,
                ..
            } = &mut claim
            {
                match off {
                    0 => expected_attempt.0 += 1,
                    1 => expected_generation.0 += 1,
                    2 => epoch.0 += 1,
                    _ => {}
                }
            }
            claim
        }
        // Now and then for the outputs of another configuration.
        Step::Commit(t) if *t == 5 => world.commit_of(5, "value", &["TOKEN", "SECRET"]),
        Step::Commit(t) => world.commit(u128::from(*t), "value"),
        Step::Fail(t, class) => world.fail(
            u128::from(*t),
            [
                FailureClass::Unsent,
                FailureClass::Transient,
                FailureClass::Throttled,
                FailureClass::Unclear,
                FailureClass::UnknownRefusal,
                FailureClass::GrantRefused,
                FailureClass::ConfigRefused,
            ][usize::from(*class)],
        ),
        Step::Expire(t) => world.expire(u128::from(*t)),
        Step::Abandon(t) => world.abandon(u128::from(*t)),
        Step::Configure(n) => {
            let mut config = config(
                Way::ALL[usize::from(n % 3)],
                [
                    ReplayPolicy::Safe,
                    ReplayPolicy::Grace(30_000),
                    ReplayPolicy::Strict,
                ][usize::from(n / 2)],
            );
            config.revoke_url = "https://issuer.example/revoke".to_owned();
            if n % 2 == 1 {
                let output = ["SECRET", "TOKEN"][usize::from(*n == 5)];
                config.outputs = BTreeMap::from([("secret".to_owned(), key(output))]);
            }
            Command::ConfigureRefresh {
                credential: token(),
                config,
                material: BTreeMap::from([("refresh_token".to_owned(), sealed("rt"))]),
                expires_at: None,
            }
        }
        Step::Static(n) => {
            let name = key(["TOKEN", "SECRET"][usize::from(n % 2)]);
            let value = StaticValue {
                sealed: sealed("static"),
                expires_at: None,
            };
            Command::UpdateProvider {
                id: ProviderId(u128::from(1 + n % 4 / 2)),
                expected_version: None,
                config: BTreeMap::new(),
                credentials: BTreeMap::from([(name, (*n < 4).then_some(value))]),
                expires_at: BTreeMap::new(),
            }
        }
        Step::Early(behind) => Command::MintEarly {
            credential: token(),
            generation: Generation(
                world
                    .state
                    .credentials
                    .get(&token())
                    .map_or(0, |c| c.generation.0)
                    .saturating_sub(*behind),
            ),
            early: if *behind == 1 {
                Early::ShortLived
            } else {
                Early::Rejected
            },
        },
        Step::Revoke(0) => Command::RevokeRefresh {
            credential: token(),
        },
        Step::Revoke(1) => Command::RevokeValue {
            credential: token(),
            grace_ms: 1_000,
        },
        Step::Revoke(_) => Command::RevokeProvider { id: ProviderId(1) },
        Step::ClaimRevocation(n) => {
            let (id, revocation) = world.state.revocations.iter().nth(usize::from(*n))?;
            let assignment = world.state.shards.get(&revocation.shard)?;
            Command::ClaimRevocation {
                revocation: id.clone(),
                owner: assignment.replica,
                session: assignment.session,
                shard_epoch: assignment.epoch,
                expected_tries: revocation.work().map_or(0, |w| w.tries),
            }
        }
        Step::SettleRevocation(n, class) => {
            let (id, revocation) = world.state.revocations.iter().nth(usize::from(*n))?;
            let classes = [FailureClass::Transient, FailureClass::ConfigRefused];
            Command::SettleRevocation {
                revocation: id.clone(),
                tries: revocation.work().map_or(0, |w| w.tries),
                failure: classes
                    .get(usize::from(*class))
                    .map(|class| failure(*class)),
            }
        }
        Step::Rotate => Command::RotateCredential {
            credential: token(),
        },
        Step::DeleteRefresh => Command::DeleteRefresh {
            credential: token(),
        },
        Step::Assign(n) => Command::AssignShards {
            based_on: world.state.meta.placement_version,
            moves: (0..world.state.settings().shards)
                .map(|s| (ShardId(s), REPLICA, SessionId(u128::from(*n))))
                .collect(),
        },
        Step::Provider(n) => create_provider(u128::from(*n), &format!("p{n}")),
        Step::DeleteProvider(n) => Command::DeleteProvider {
            id: ProviderId(u128::from(*n)),
        },
        Step::Sandbox(n) => Command::CreateSandbox {
            id: SandboxId(u128::from(*n)),
            workspace,
            name: Name::new(format!("s{n}")).unwrap(),
            providers: vec![ProviderId(1)],
        },
        Step::Attach(s, p) => Command::AttachProvider {
            sandbox: SandboxId(u128::from(*s)),
            provider: ProviderId(u128::from(*p)),
            expected_version: None,
        },
        Step::Detach(s, p) => Command::DetachProvider {
            sandbox: SandboxId(u128::from(*s)),
            provider: ProviderId(u128::from(*p)),
            expected_version: None,
        },
        Step::Route(p) => Command::SetRoute {
            workspace,
            name: route,
            provider: ProviderId(u128::from(*p)),
            credential: None,
            model: "m".to_owned(),
            timeout_secs: 1,
        },
        Step::DeleteRoute => Command::DeleteRoute {
            workspace,
            name: route,
        },
        Step::DataKey => Command::AddDataKey {
            id: DataKeyId(keys::newest(&world.state)?.0.0 + 1),
            wrapped: bootstrap_key(),
        },
        // Of everything that rests under an older key, now and then by what is not so.
        Step::Reseal { off } => {
            let newest = keys::newest(&world.state)?.0;
            let items = keys::sealed(&world.state).map(|(place, sealed)| {
                let mut from = sealed.id();
                from.nonce[0] += u8::from(*off == 0);
                let to = Sealed {
                    key: newest,
                    ..sealed.clone()
                };
                Resealed { place, from, to }
            });
            Command::Reseal {
                items: items.collect(),
            }
        }
        Step::Repeat => return None,
    })
}

fn replay(log: &[(Proposal, UnixMs)], state: &mut State) {
    for (proposal, at) in log {
        apply(state, proposal, *at);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// `World::apply` checks every invariant after every step, and that every record that
    /// changed was reported as touched. Time here jumps both ways; the state's clock must not.
    #[test]
    fn any_history_keeps_the_promises(
        steps in prop::collection::vec((step(), -5_000_i64..120_000), 1..120)
    ) {
        let mut world = World::new(ReplayPolicy::Strict);
        let start = world.state.clone();
        let mut log: Vec<(Proposal, UnixMs)> = Vec::new();
        for (n, (step, jump)) in steps.iter().enumerate() {
            world.now = UnixMs(world.now.0.saturating_add_signed(*jump));
            let proposal = match (command(&world, step), log.last()) {
                (Some(command), _) => Proposal { by: None, request: RequestId(10_000 + n as u128), command },
                (None, Some((last, _))) => last.clone(),
                (None, None) => continue,
            };
            let _ = world.apply(&proposal);
            log.push((proposal, world.now));
        }

        // Replayed, the log gives the same bytes.
        let mut again = start.clone();
        replay(&log, &mut again);
        prop_assert_eq!(again.hash(), world.state.hash());
        prop_assert!(again.records().eq(world.state.records()));

        // A snapshot anywhere, and the tail of the log, give the state of the full log.
        let cut = log.len() / 2;
        let mut half = start;
        replay(&log[..cut], &mut half);
        let mut restored = State::from_records(half.records()).unwrap();
        replay(&log[cut..], &mut restored);
        prop_assert_eq!(&restored, &world.state);
        invariant::check(&restored).unwrap();
    }
}
