//! What a replica that comes back says about the tickets of its former lives.

mod support;

use evermint_core::command::Command;
use evermint_core::id::{Position, TicketId};
use evermint_core::state::State;
use evermint_protocol::journal::{JournalEntry, Progress};
use evermint_protocol::recovery::{Recovery, recover};

use support::{FORMER, ME, OTHER, World, abandon, minted, token};

fn entry(ticket: u128, granted: u64, progress: Progress) -> JournalEntry {
    JournalEntry {
        credential: token(),
        ticket: TicketId(ticket),
        granted: Position(granted),
        progress,
    }
}

fn nothing() -> Recovery {
    Recovery::default()
}

fn propose(command: Command) -> Recovery {
    Recovery {
        propose: vec![command],
        forget: vec![],
    }
}

#[test]
fn the_journal_tells_what_became_of_a_ticket() {
    let response = || Progress::Response(minted("a"));
    let commit = minted("a").commit(token(), TicketId(7));
    for (what, owner, journal, todo) in [
        (
            "silence is a proof",
            FORMER,
            None,
            propose(abandon(TicketId(7))),
        ),
        (
            "an entry of another ticket is silence",
            FORMER,
            Some(entry(6, 1_000_000, Progress::Sending)),
            propose(abandon(TicketId(7))),
        ),
        (
            "the answer is handed in",
            FORMER,
            Some(entry(7, 1, response())),
            propose(commit),
        ),
        (
            "nobody knows",
            FORMER,
            Some(entry(7, 1, Progress::Sending)),
            nothing(),
        ),
        ("another replica's ticket", OTHER, None, nothing()),
        ("a ticket of this life", ME, None, nothing()),
        (
            "an answer of this life",
            ME,
            Some(entry(7, 1, response())),
            nothing(),
        ),
    ] {
        for doubt in [false, true] {
            let mut world = World::new();
            world.assign(owner);
            world.grant(7);
            world.assign(OTHER);
            if doubt {
                world.expire(7);
            }
            let journal: Vec<_> = journal.iter().cloned().collect();
            let found = recover(&world.state, &journal, ME);
            assert_eq!(found, todo, "{what}, doubt: {doubt}");
        }
    }
}

#[test]
fn an_entry_is_forgotten_once_its_ticket_is_settled() {
    let mut world = World::new();
    world.assign(FORMER);
    world.grant(7);
    let granted = world.state.meta.position;
    let journal = [entry(7, granted.0, Progress::Sending)];
    let forgets = |state: &State| recover(state, &journal, ME).forget == [TicketId(7)];

    assert!(!forgets(&world.state), "while it is out");
    world.expire(7);
    assert!(!forgets(&world.state), "while it is in doubt");
    world.done(abandon(TicketId(7)));
    assert!(forgets(&world.state), "once it is settled");
}

#[test]
fn an_entry_is_kept_while_the_state_is_behind_its_grant() {
    let mut world = World::new();
    let before = world.state.clone();
    world.assign(FORMER);
    world.grant(7);
    let journal = [entry(7, world.state.meta.position.0, Progress::Sending)];
    assert_eq!(recover(&before, &journal, ME), nothing());
    assert_eq!(
        recover(&State::default(), &journal, ME),
        nothing(),
        "the state does not even know the credential yet"
    );
}
