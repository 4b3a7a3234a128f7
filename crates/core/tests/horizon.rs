//! The end of a refresh token, as issuers tell it: scheduled by, shown, and announced when a person
//! has to act.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use evermint_core::command::Command;
use evermint_core::horizon::{self, announcement};
use evermint_core::strategy::{ReplayPolicy, Strategy};
use evermint_core::time::UnixMs;
use support::*;

const HOUR: u64 = 3_600_000;
const DAY: u64 = 24 * HOUR;

/// Mints, with an answer that says how long the refresh token lasts; a token of an hour.
fn mint(w: &mut World, ticket: u128, refresh_lifetime: Option<u64>, rotates: bool) {
    let claim = w.claim(ticket);
    w.done(claim);
    let mut commit = w.commit(ticket, "value");
    if let Command::CommitMint {
        material_lifetimes_ms,
        new_material,
        ..
    } = &mut commit
    {
        let lifetime = refresh_lifetime.map(|ms| ("refresh_token".to_owned(), ms));
        *material_lifetimes_ms = lifetime.into_iter().collect();
        if !rotates {
            new_material.clear();
        }
    }
    w.done(commit);
}

fn shown(w: &World) -> Option<UnixMs> {
    let refresh = w.token().refresh.as_ref().unwrap();
    horizon::ends(refresh).get("refresh_token").copied()
}

fn said(w: &World) -> Option<String> {
    let refresh = w.token().refresh.as_ref().unwrap();
    announcement(&horizon::deadlines(refresh), w.now).map(|(cause, _)| cause)
}

#[test]
fn an_end_that_each_mint_puts_off_is_shown_and_announces_nothing() {
    let mut w = World::new(ReplayPolicy::Safe);
    for ticket in 1..4 {
        mint(&mut w, ticket, Some(DAY), true);
        assert_eq!(shown(&w), Some(w.now + Duration::from_millis(DAY)));
        assert_eq!(said(&w), None);
        w.wait(HOUR);
    }
}

#[test]
fn an_end_that_stays_where_it_is_calls_a_person() {
    let mut w = World::new(ReplayPolicy::Safe);
    mint(&mut w, 1, Some(10 * DAY), true);
    w.wait(DAY);
    mint(&mut w, 2, Some(9 * DAY), true);
    assert_eq!(said(&w).unwrap(), "material refresh_token ends in 9 days");
    w.wait(8 * DAY + HOUR);
    mint(&mut w, 3, Some(DAY - HOUR), true);
    assert_eq!(
        said(&w).unwrap(),
        "material refresh_token ends within a day"
    );
}

#[test]
fn an_end_is_known_until_the_token_is_another_one() {
    let mut w = World::new(ReplayPolicy::Safe);
    mint(&mut w, 1, Some(DAY), true);
    let end = shown(&w);
    w.wait(HOUR);
    mint(&mut w, 2, None, false);
    assert_eq!(shown(&w), end, "the same token");
    w.wait(HOUR);
    mint(&mut w, 3, None, true);
    assert_eq!(shown(&w), None, "another one, of which nothing was said");
}

#[test]
fn a_mint_is_due_before_the_refresh_token_ends() {
    let mut w = World::new(ReplayPolicy::Safe);
    mint(&mut w, 1, Some(HOUR / 6), true);
    let due = w.token().due().unwrap().0;
    assert!(due < shown(&w).unwrap(), "{due:?}");
    mint(&mut w, 2, Some(DAY), true);
    let due = w.token().due().unwrap().0.since(w.now);
    assert!(
        due > Duration::from_millis(HOUR / 2),
        "the access token's end counts"
    );
}

#[test]
fn of_two_secrets_the_later_end_counts() {
    let end = |days: u64| UnixMs(START.0 + days * DAY);
    for (ends, announced) in [
        (&[("client_secret", 3)][..], None),
        (&[("client_secret", 3), ("client_secret_next", 400)], None),
        (
            &[("client_secret", 3), ("client_secret_next", 9)],
            Some("material client_secret_next ends in 9 days"),
        ),
        (
            &[("client_secret", 5), ("client_secret_next", 1)],
            Some("material client_secret ends in 5 days"),
        ),
    ] {
        let mut w = World::new(ReplayPolicy::Safe);
        let mut config = config(Strategy::OAuth2ClientCredentials, ReplayPolicy::Safe);
        config.material_ends = ends
            .iter()
            .map(|(n, d)| ((*n).to_owned(), end(*d)))
            .collect();
        let material = ["client_secret", "client_secret_next"];
        w.done(Command::ConfigureRefresh {
            credential: token(),
            config,
            material: material.map(|n| (n.to_owned(), sealed(n))).into(),
            expires_at: None,
        });
        assert_eq!(said(&w).as_deref(), announced, "{ends:?}");
    }
    assert_eq!(announcement(&BTreeMap::new(), START), None);
}
