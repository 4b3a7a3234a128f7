//! Whatever stands in a store, a snapshot or a log entry, or is given as a join token.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use evermint_core::admission::JoinTicket;
use evermint_core::apply::apply;
use evermint_core::command::{Batch, Command, Proposal};
use evermint_core::id::{
    InstallationId, Name, ProviderId, RequestId, SandboxId, SigningKeyId, Workspace,
};
use evermint_core::mint::FailureClass;
use evermint_core::profile::Scope;
use evermint_core::record::Key;
use evermint_core::state::State;
use evermint_core::strategy::ReplayPolicy;
use evermint_fuzz::Corpus;
use support::{World, profile, sealed, token};

/// A world in which something of most kinds has happened.
fn world() -> World {
    let mut world = World::new(ReplayPolicy::Strict);
    world.done(world.claim(1));
    world.done(world.commit(1, "at-1"));
    world.wait(2_000_000);
    world.done(world.claim(2));
    world.done(world.fail(2, FailureClass::Throttled));
    world.done(Command::CreateSandbox {
        id: SandboxId(1),
        workspace: Workspace::default_workspace(),
        name: Name::new("box").unwrap(),
        providers: vec![ProviderId(1)],
    });
    world.done(Command::ImportProfiles {
        scope: Scope::Platform,
        profiles: vec![profile("custom")],
    });
    world.wait(60_000);
    world.done(world.claim(3));
    world
}

#[test]
fn fuzz_a_record_is_refused_or_stands_as_it_was_read() {
    let state = world().state;
    let records: Vec<(Key, Vec<u8>)> = state.records().collect();
    let lines = records.iter().map(|(key, value)| {
        let key = key.to_bytes();
        [vec![u8::try_from(key.len()).unwrap()], key, value.clone()].concat()
    });
    Corpus::new(lines).fuzz(|bytes| {
        let Some((len, rest)) = bytes.split_first() else {
            return;
        };
        let (key, value) = rest.split_at(rest.len().min(usize::from(*len)));
        let Ok(key) = Key::from_bytes(key) else {
            return;
        };
        let others = records.iter().filter(|(other, _)| *other != key).cloned();
        let with = others.chain([(key.clone(), value.to_vec())]);
        let Ok(read) = State::from_records(with) else {
            return;
        };
        let again = State::from_records(read.records()).unwrap();
        assert_eq!(again.hash(), read.hash(), "{key:?}");
    });
}

#[test]
fn fuzz_a_command_is_unreadable_refused_or_done() {
    let world = world();
    let id = RequestId(9_000);
    let commands = [
        world.commit(3, "at-3"),
        world.fail(3, FailureClass::Unclear),
        world.expire(3),
        world.abandon(3),
        world.claim(4),
        support::create_provider(2, "q"),
        Command::RotateCredential {
            credential: token(),
        },
        Command::DeleteProvider { id: ProviderId(1) },
        Command::AddSigningKey {
            id: SigningKeyId(1),
            replaces: None,
            public: vec![0; 32],
            private: sealed("k"),
        },
        Command::RegisterReplica {
            installation: InstallationId(2),
            peer_address: "127.0.0.1:3".to_owned(),
            api_address: String::new(),
        },
    ];
    let batches = commands.into_iter().map(|command| {
        let proposal = Proposal {
            by: None,
            request: id,
            command,
        };
        let batch = Batch {
            at: world.now,
            proposals: vec![proposal.clone(), proposal],
        };
        postcard::to_stdvec(&batch).unwrap()
    });
    Corpus::new(batches).fuzz(|bytes| {
        let Ok(batch) = postcard::from_bytes::<Batch>(bytes) else {
            return;
        };
        let mut state = world.state.clone();
        for proposal in &batch.proposals {
            let before = state.clone();
            let (answer, touched) = apply(&mut state, proposal, batch.at);
            let is_new = !before.answers.contains_key(&proposal.request);
            if is_new && answer.outcome.is_err() {
                // A refusal leaves a line of the answer at most.
                let kept: Vec<_> = touched.iter().filter(|k| !is_bookkeeping(k)).collect();
                assert!(kept.is_empty(), "{kept:?} of {proposal:?}");
            }
        }
    });
}

fn is_bookkeeping(key: &Key) -> bool {
    matches!(key, Key::Meta | Key::Answer(_) | Key::Audit(_))
}

#[test]
fn fuzz_a_join_token_is_read_whole_or_not_at_all() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/join");
    Corpus::with_files::<Vec<u8>>(corpus, []).fuzz(|bytes| {
        let text = String::from_utf8_lossy(bytes);
        if let Ok(ticket) = JoinTicket::parse(&text) {
            assert_eq!(ticket.expose(), text.trim().to_ascii_lowercase());
            assert!(!format!("{ticket:?}").contains(&ticket.expose()[80..]));
        }
    });
}
