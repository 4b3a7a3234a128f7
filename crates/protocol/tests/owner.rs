//! The owner's machine, as sentences: each test is a script of what happens and what is done.

mod support;

use std::time::Duration;

use evermint_core::command::{Answer, Command};
use evermint_core::credential::{Phase, Verdict};
use evermint_core::id::TicketId;
use evermint_core::mint::FailureClass;
use evermint_core::port::ProposeError;
use evermint_core::time::{Clocks, MonoMs, UnixMs};
use evermint_protocol::journal::{JournalEntry, Progress};
use evermint_protocol::owner::{
    Action, COMMIT_PAUSE_MAX, Event, Facts, HEARING, JournalFailed, Now, Owner,
};

use support::{ME, OTHER, World, failure, minted, token};

/// One owner in a small world.
struct Bench {
    world: World,
    /// What the owner's replica has applied; the newest state unless it lags.
    lagging: Option<Facts>,
    owner: Owner,
    clocks: Clocks,
    in_touch: Duration,
    tickets: u128,
    proposed: Vec<Command>,
    wake: Option<MonoMs>,
}

impl Bench {
    fn new() -> Self {
        let mut world = World::new();
        world.assign(ME);
        Self::of(world, None)
    }

    fn of(world: World, journal: Option<JournalEntry>) -> Self {
        Self {
            world,
            lagging: None,
            owner: Owner::new(token(), ME, journal),
            clocks: Clocks {
                mono: MonoMs(5_000),
                boot: MonoMs(9_000),
                wall: UnixMs(1_000_000),
            },
            in_touch: Duration::from_secs(3_600),
            tickets: 100,
            proposed: Vec::new(),
            wake: None,
        }
    }

    fn facts(&self) -> Facts {
        let newest = Facts::of(&self.world.state, &token(), ME);
        self.lagging.clone().unwrap_or(newest)
    }

    fn wait(&mut self, ms: u64) {
        let d = Duration::from_millis(ms);
        self.clocks.mono = self.clocks.mono + d;
        self.clocks.boot = self.clocks.boot + d;
        self.clocks.wall = self.clocks.wall + d;
        self.world.clock = self.world.clock + d;
    }

    /// Waits until the timer, which has to be set.
    #[track_caller]
    fn sleep(&mut self) -> Vec<&'static str> {
        let wake = self.wake.expect("a timer is set");
        self.wait(wake.0.saturating_sub(self.clocks.mono.0));
        self.step(Event::Woken)
    }

    /// One step; gives the actions but for the timer, in short.
    fn step(&mut self, event: Event) -> Vec<&'static str> {
        let now = Now {
            clocks: self.clocks,
            cluster: self.world.clock,
            in_touch: self.in_touch,
        };
        let facts = self.facts();
        let tickets = &mut self.tickets;
        let actions = self.owner.step(event, now, &facts, || {
            *tickets += 1;
            TicketId(*tickets)
        });
        let mut said = Vec::new();
        for action in actions {
            said.push(match action {
                Action::Propose(command) => {
                    let name = command.name();
                    self.proposed.push(command);
                    name
                }
                Action::Journal(entry) => match entry.progress {
                    Progress::Sending => "journal sending",
                    Progress::Response(_) => "journal response",
                },
                Action::Forget(_) => "forget",
                Action::Mint(_) => "mint",
                Action::AbortMint => "abort",
                Action::WakeAt(at) => {
                    self.wake = Some(at);
                    continue;
                }
            });
        }
        said
    }

    /// Applies the newest proposal.
    fn apply(&mut self) -> Answer {
        let command = self
            .proposed
            .last()
            .expect("something was proposed")
            .clone();
        self.world.propose(command)
    }

    /// Applies the newest proposal, and tells.
    fn answer(&mut self) -> Vec<&'static str> {
        let answer = self.apply();
        self.step(Event::Proposed(Ok(answer)))
    }

    fn unknown(&mut self) -> Vec<&'static str> {
        let lost = ProposeError::Unknown("the answer was lost".to_owned());
        self.step(Event::Proposed(Err(lost)))
    }

    fn unavailable(&mut self) -> Vec<&'static str> {
        let nobody = ProposeError::Unavailable("no leader".to_owned());
        self.step(Event::Proposed(Err(nobody)))
    }

    fn written(&mut self) -> Vec<&'static str> {
        self.step(Event::Journalled(Ok(())))
    }

    fn disk_full(&mut self) -> Vec<&'static str> {
        self.step(Event::Journalled(Err(JournalFailed)))
    }

    /// Up to the point where the request runs.
    #[track_caller]
    fn minting() -> Self {
        let mut bench = Self::new();
        assert_eq!(bench.step(Event::Changed), ["grant-ticket"]);
        assert_eq!(bench.answer(), ["journal sending"]);
        assert_eq!(bench.written(), ["mint"]);
        bench
    }

    fn phase(&self) -> Phase {
        self.world.token().phase
    }
}

#[test]
fn a_due_credential_is_minted_in_order() {
    let mut bench = Bench::minting();
    assert_eq!(
        bench.step(Event::Minted(Ok(minted("a")))),
        ["journal response"]
    );
    assert_eq!(bench.written(), ["commit-mint"]);
    assert_eq!(bench.answer(), ["forget"]);
    assert_eq!(bench.world.token().generation.0, 1);
    // And again when it falls due.
    assert_eq!(bench.sleep(), ["grant-ticket"]);
}

#[test]
fn nothing_is_asked_for_before_it_is_due() {
    let mut bench = Bench::minting();
    bench.step(Event::Minted(Ok(minted("a"))));
    bench.written();
    bench.answer();
    bench.wait(1_000_000);
    assert_eq!(bench.step(Event::Woken), [""; 0]);
    assert!(bench.wake.is_some_and(|at| at > bench.clocks.mono));
}

#[test]
fn nothing_is_asked_for_a_shard_owned_elsewhere() {
    let mut world = World::new();
    world.assign(OTHER);
    let mut bench = Bench::of(world, None);
    assert_eq!(bench.step(Event::Changed), [""; 0]);
    assert!(bench.owner.is_done(&bench.facts()));
    bench.world.assign(ME);
    assert_eq!(bench.step(Event::Changed), ["grant-ticket"]);
}

#[test]
fn the_budget_starts_before_the_ticket_is_asked_for() {
    let mut bench = Bench::new();
    bench.step(Event::Changed);
    let answer = bench.apply();
    bench.wait(50_000);
    assert_eq!(
        bench.step(Event::Proposed(Ok(answer))),
        ["abandon-ticket"],
        "the ticket of 60 s is granted, but the 50 s of its budget are over"
    );
    bench.answer();
    assert_eq!(bench.phase(), Phase::Idle);
}

#[test]
fn nothing_is_sent_once_the_deadline_has_passed_on_any_clock() {
    type Shift = fn(&mut Clocks);
    let shifts: [(&str, Shift); 3] = [
        ("monotonic", |c| c.mono = c.mono + Duration::from_secs(50)),
        ("suspended", |c| c.boot = c.boot + Duration::from_secs(50)),
        ("stepped", |c| c.wall = c.wall + Duration::from_secs(50)),
    ];
    for (what, shift) in shifts {
        let mut bench = Bench::new();
        bench.step(Event::Changed);
        bench.answer();
        shift(&mut bench.clocks);
        assert_eq!(bench.written(), ["abandon-ticket"], "{what}");
    }
}

#[test]
fn nothing_is_sent_with_too_little_time_for_the_answer() {
    // A strict issuer would spend the token for an answer that comes too late: the ticket is
    // given back unspent, and another one is asked for.
    for (what, wait, then) in [
        ("half of the budget is left", 25_000, "mint"),
        ("less than half", 25_001, "abandon-ticket"),
    ] {
        let mut bench = Bench::new();
        bench.step(Event::Changed);
        bench.answer();
        bench.wait(wait);
        assert_eq!(bench.written(), [then], "{what}");
    }
}

#[test]
fn nothing_is_sent_unless_the_journal_says_so_first() {
    let mut bench = Bench::new();
    bench.step(Event::Changed);
    assert_eq!(bench.answer(), ["journal sending"]);
    assert_eq!(bench.disk_full(), ["abandon-ticket"]);
    assert_eq!(bench.answer(), ["forget"]);
    // A full disk is not tried again at once.
    assert_eq!(bench.step(Event::Changed), [""; 0]);
    assert_eq!(bench.sleep(), ["grant-ticket"]);
}

#[test]
fn a_disk_that_stays_full_is_tried_ever_more_rarely() {
    let mut bench = Bench::new();
    bench.step(Event::Changed);
    let mut pauses = Vec::new();
    for _ in 0..10 {
        bench.answer();
        bench.disk_full();
        bench.answer();
        let before = bench.clocks.mono;
        assert_eq!(bench.sleep(), ["grant-ticket"]);
        pauses.push(bench.clocks.mono.since(before).as_millis());
    }
    assert!((100..=200).contains(&pauses[0]), "{pauses:?}");
    assert!((15_000..=30_000).contains(&pauses[9]), "{pauses:?}");
}

#[test]
fn a_grant_without_a_known_outcome_is_asked_for_again() {
    for applied in [false, true] {
        let mut bench = Bench::new();
        bench.step(Event::Changed);
        let facts = bench.facts();
        if applied {
            bench.apply();
        }
        // The replica itself is behind, so only asking again can tell.
        bench.lagging = Some(facts);
        assert_eq!(bench.unknown(), [""; 0]);
        assert_eq!(bench.sleep(), ["grant-ticket"]);
        assert_eq!(bench.proposed[0], bench.proposed[1], "the same ticket");
        bench.lagging = None;
        assert_eq!(bench.answer(), ["journal sending"], "applied: {applied}");
        assert_eq!(bench.world.token().attempt.0, 1);
    }
}

#[test]
fn a_grant_that_shows_up_in_the_state_is_used() {
    let mut bench = Bench::new();
    bench.step(Event::Changed);
    bench.unknown();
    bench.apply();
    assert_eq!(bench.step(Event::Changed), ["journal sending"]);
}

#[test]
fn a_grant_that_shows_up_after_it_was_given_up_is_abandoned() {
    let mut bench = Bench::new();
    bench.step(Event::Changed);
    let late = bench.proposed[0].clone();
    bench.unavailable();
    bench.world.done(late);
    assert_eq!(bench.step(Event::Changed), [""; 0], "not in the pause");
    assert_eq!(bench.sleep(), ["abandon-ticket"]);
    assert_eq!(bench.answer(), ["grant-ticket"], "a ticket of its own");
    assert_eq!(bench.phase(), Phase::Idle);
}

#[test]
fn a_refused_grant_is_not_tried_again_at_once() {
    let mut bench = Bench::new();
    bench.step(Event::Changed);
    bench.lagging = Some(bench.facts());
    bench.world.assign(OTHER);
    assert_eq!(bench.answer(), [""; 0]);
    assert_eq!(bench.sleep(), [""; 0], "the replica is behind the refusal");
    bench.lagging = None;
    assert_eq!(
        bench.sleep(),
        [""; 0],
        "now it knows that it lost the shard"
    );
    assert!(bench.owner.is_done(&bench.facts()));
}

#[test]
fn an_answer_is_committed_even_if_the_disk_fails_after_it() {
    let mut bench = Bench::minting();
    bench.step(Event::Minted(Ok(minted("a"))));
    assert_eq!(bench.disk_full(), ["commit-mint"]);
    bench.answer();
    assert_eq!(bench.world.token().generation.0, 1);
}

#[test]
fn a_commit_is_proposed_until_it_lands_and_the_request_is_never_repeated() {
    let mut bench = Bench::minting();
    bench.step(Event::Minted(Ok(minted("a"))));
    bench.written();
    for _ in 0..20 {
        assert_eq!(bench.unavailable(), [""; 0]);
        let before = bench.clocks.mono;
        assert_eq!(bench.sleep(), ["commit-mint"]);
        assert!(bench.clocks.mono.since(before) <= COMMIT_PAUSE_MAX);
        assert_eq!(bench.unknown(), [""; 0]);
        assert_eq!(bench.sleep(), ["commit-mint"]);
    }
    assert_eq!(bench.answer(), ["forget"]);
    assert_eq!(bench.world.token().generation.0, 1);
}

#[test]
fn a_commit_whose_answer_was_lost_is_seen_in_the_state() {
    let mut bench = Bench::minting();
    bench.step(Event::Minted(Ok(minted("a"))));
    bench.written();
    bench.apply();
    assert_eq!(bench.unknown(), [""; 0]);
    assert_eq!(bench.step(Event::Changed), ["forget"]);
}

#[test]
fn a_result_comes_in_time_while_its_ticket_is_in_doubt() {
    let mut bench = Bench::minting();
    bench.world.expire(101);
    assert!(matches!(bench.phase(), Phase::InDoubt(_)));
    assert_eq!(bench.step(Event::Changed), [""; 0]);
    bench.step(Event::Minted(Ok(minted("a"))));
    bench.written();
    bench.answer();
    assert_eq!(bench.world.token().generation.0, 1);
    assert_eq!(bench.phase(), Phase::Idle);
}

#[test]
fn a_lost_answer_keeps_its_journal_entry_until_the_doubt_is_over() {
    let mut bench = Bench::minting();
    let unclear = failure(FailureClass::Unclear);
    assert_eq!(bench.step(Event::Minted(Err(unclear))), ["fail-mint"]);
    assert_eq!(
        bench.answer(),
        [""; 0],
        "a ticket in doubt is not forgotten"
    );
    assert!(matches!(bench.phase(), Phase::InDoubt(_)));
    // The doubt ends with the next ticket.
    assert_eq!(bench.sleep(), ["grant-ticket"]);
    assert_eq!(bench.answer(), ["journal sending"]);
}

#[test]
fn a_doubt_is_not_ended_at_the_moment_in_which_a_majority_is_back() {
    let mut bench = Bench::minting();
    let unclear = failure(FailureClass::Unclear);
    bench.step(Event::Minted(Err(unclear)));
    bench.answer();
    assert!(matches!(bench.phase(), Phase::InDoubt(_)));
    bench.in_touch = Duration::ZERO;
    assert_eq!(bench.sleep(), [""; 0], "out of touch when its time comes");
    bench.in_touch = HEARING - Duration::from_millis(70);
    assert_eq!(
        bench.sleep(),
        [""; 0],
        "others may yet hand in what they have"
    );
    bench.in_touch = HEARING;
    let since = bench.clocks.mono;
    assert_eq!(bench.sleep(), ["grant-ticket"]);
    assert_eq!(bench.clocks.mono.since(since), Duration::from_millis(70));
}

#[test]
fn what_is_not_in_doubt_waits_for_nobody() {
    let mut bench = Bench::new();
    bench.in_touch = Duration::ZERO;
    assert_eq!(bench.step(Event::Changed), ["grant-ticket"]);
}

#[test]
fn a_failure_is_told_and_its_backoff_followed() {
    let mut bench = Bench::minting();
    let transient = failure(FailureClass::Transient);
    assert_eq!(bench.step(Event::Minted(Err(transient))), ["fail-mint"]);
    assert_eq!(bench.answer(), ["forget"]);
    assert_eq!(bench.sleep(), ["grant-ticket"]);
}

#[test]
fn a_final_failure_stops_the_machine() {
    let mut bench = Bench::minting();
    bench.wake = None;
    bench.step(Event::Minted(Err(failure(FailureClass::GrantRefused))));
    bench.answer();
    assert_eq!(
        bench.world.token().verdict(bench.world.clock),
        Verdict::NeedsReauthorization
    );
    assert_eq!(bench.wake, None);
}

#[test]
fn whoever_loses_the_shard_finishes_what_is_in_flight() {
    let mut bench = Bench::minting();
    bench.world.assign(OTHER);
    assert_eq!(bench.step(Event::Changed), [""; 0]);
    assert!(!bench.owner.is_done(&bench.facts()));
    bench.step(Event::Minted(Ok(minted("a"))));
    bench.written();
    bench.answer();
    assert_eq!(bench.world.token().generation.0, 1);
    assert!(bench.owner.is_done(&bench.facts()));
    bench.wait(4_000_000);
    assert_eq!(bench.step(Event::Woken), [""; 0], "and starts nothing new");
}

#[test]
fn a_reconfiguration_cuts_the_mint_short_and_frees_the_ticket() {
    let mut bench = Bench::minting();
    bench.world.configure();
    assert_eq!(bench.step(Event::Changed), ["abort"]);
    assert_eq!(bench.step(Event::Changed), [""; 0], "once");
    let unclear = failure(FailureClass::Unclear);
    assert_eq!(bench.step(Event::Minted(Err(unclear))), ["fail-mint"]);
    bench.answer();
    assert_eq!(bench.phase(), Phase::Idle);
    // Voided: the new configuration is minted after a short pause.
    assert_eq!(bench.sleep(), ["grant-ticket"]);
}

#[test]
fn a_reconfiguration_before_the_request_sends_nothing() {
    let mut bench = Bench::new();
    bench.step(Event::Changed);
    bench.answer();
    bench.world.configure();
    assert_eq!(bench.written(), ["abandon-ticket"]);
}

#[test]
fn a_credential_that_is_deleted_meanwhile_ends_the_cycle() {
    let mut bench = Bench::minting();
    bench.world.done(Command::DeleteProvider {
        id: token().provider,
    });
    assert_eq!(bench.step(Event::Changed), ["abort"]);
    assert_eq!(
        bench.step(Event::Minted(Ok(minted("a")))),
        ["journal response"]
    );
    assert_eq!(bench.written(), ["commit-mint"]);
    assert_eq!(bench.answer(), ["forget"]);
    assert!(bench.owner.is_done(&bench.facts()));
}

#[test]
fn a_new_machine_starts_from_what_the_journal_says() {
    let entry = |progress| JournalEntry {
        credential: token(),
        ticket: TicketId(7),
        granted: evermint_core::id::Position(1),
        progress,
    };
    for (what, journal, done) in [
        ("nothing was sent", None, vec!["abandon-ticket"]),
        ("nobody knows", Some(entry(Progress::Sending)), vec![]),
        (
            "the answer is here",
            Some(entry(Progress::Response(minted("a")))),
            vec!["commit-mint"],
        ),
    ] {
        for doubt in [false, true] {
            let mut world = World::new();
            world.assign(ME);
            world.grant(7);
            if doubt {
                world.expire(7);
            }
            let mut bench = Bench::of(world, journal.clone());
            assert_eq!(bench.step(Event::Changed), done, "{what}, doubt: {doubt}");
        }
    }
}

#[test]
fn an_owner_whose_clock_is_ahead_of_the_leader_mints_once() {
    let mut bench = Bench::new();
    // Days ahead of the stamps, and of the whole lifetime.
    let lead = Duration::from_secs(2 * 86_400);
    let ahead = |bench: &mut Bench, event| {
        bench.world.clock = bench.world.clock + lead;
        let said = bench.step(event);
        bench.world.clock = bench.world.clock.minus(lead);
        said
    };
    ahead(&mut bench, Event::Changed);
    let answer = bench.apply();
    ahead(&mut bench, Event::Proposed(Ok(answer)));
    ahead(&mut bench, Event::Journalled(Ok(())));
    ahead(&mut bench, Event::Minted(Ok(minted("a"))));
    ahead(&mut bench, Event::Journalled(Ok(())));
    let answer = bench.apply();
    assert_eq!(
        ahead(&mut bench, Event::Proposed(Ok(answer))),
        ["forget"],
        "the value is not due yet"
    );
    let (due, _) = bench.world.token().due().expect("it is due some time");
    bench.wait(due.0 - bench.world.clock.0);
    assert_eq!(ahead(&mut bench, Event::Woken), ["grant-ticket"]);
}

#[test]
fn a_look_too_many_does_no_harm() {
    let mut bench = Bench::new();
    let calm = |bench: &mut Bench| {
        for event in [Event::Changed, Event::Woken] {
            assert_eq!(bench.step(event), [""; 0]);
        }
    };
    bench.step(Event::Changed);
    calm(&mut bench);
    bench.answer();
    calm(&mut bench);
    bench.written();
    calm(&mut bench);
    bench.step(Event::Minted(Ok(minted("a"))));
    calm(&mut bench);
    bench.written();
    calm(&mut bench);
    bench.answer();
    calm(&mut bench);
}
