//! Placeholders: each rule by a table, and the whole against arbitrary bytes.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use evermint_client::Binding;
use evermint_client::placeholder::{ALIAS, Body, Given, PREFIX, Placeholders, Refused};
use evermint_core::id::Generation;
use evermint_core::secret::Secret;
use evermint_core::time::UnixMs;
use evermint_fuzz::Corpus;
use proptest::prelude::*;

const NOW: UnixMs = UnixMs(1_800_000_000_000);
const LATER: UnixMs = UnixMs(1_800_000_060_000);
const HANDLE: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const OTHER_HANDLE: &str = "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff";

/// One variable, as a test gives it.
#[derive(Clone)]
struct Variable {
    key: &'static str,
    identity: String,
    handle: Option<&'static str>,
    bindings: Vec<Binding>,
    value: Option<(Secret, u64)>,
    expires_at: Option<UnixMs>,
}

fn binding(host: &str, path: &str) -> Binding {
    Binding {
        host: host.to_owned(),
        port: 443,
        path: path.to_owned(),
        body_rewrite: false,
    }
}

fn fixed(key: &'static str, value: &str, generation: u64) -> Variable {
    Variable {
        key,
        identity: format!("p:{key}"),
        handle: None,
        bindings: vec![binding("api.example", "")],
        value: Some((Secret::from(value), generation)),
        expires_at: None,
    }
}

fn minted(key: &'static str, value: &str, handle: &'static str) -> Variable {
    Variable {
        identity: format!("refresh:{handle}"),
        handle: Some(handle),
        expires_at: Some(LATER),
        ..fixed(key, value, 1)
    }
}

fn install(before: &Placeholders, revision: u64, variables: &[Variable]) -> Placeholders {
    let given = variables.iter().map(|v| Given {
        key: v.key,
        identity: &v.identity,
        handle: v.handle,
        bindings: &v.bindings,
        value: v.value.as_ref().map(|(s, g)| (s, Generation(*g))),
        expires_at: v.expires_at,
    });
    before.installed(revision, given, [("REGION", "eu-1")])
}

fn first(variables: &[Variable]) -> Placeholders {
    install(&Placeholders::default(), 7, variables)
}

/// What a header with `text` becomes at `now`.
fn at(placeholders: &Placeholders, text: &str, now: Option<UnixMs>) -> Result<String, Refused> {
    let resolver = placeholders.resolver("api.example", 443, "/", now)?;
    let out = resolver.header(text.as_bytes())?;
    Ok(out.map_or(text.to_owned(), |s| s.expose_str().unwrap().to_owned()))
}

fn header(placeholders: &Placeholders, text: &str) -> Result<String, Refused> {
    at(placeholders, text, Some(NOW))
}

fn unresolved(key: &str) -> Result<String, Refused> {
    Err(Refused::Unresolved {
        key: key.to_owned(),
    })
}

fn ok(text: &str) -> Result<String, Refused> {
    Ok(text.to_owned())
}

#[test]
fn a_child_is_given_placeholders_and_never_a_secret() {
    let pending = Variable {
        value: None,
        ..minted("PENDING", "", OTHER_HANDLE)
    };
    let all = first(&[
        fixed("KEY", "hunter2", 1),
        minted("TOKEN", "hunter3", HANDLE),
        pending,
        fixed("v1_KEY", "hunter4", 1),
        minted("BAD", "hunter5", "short"),
        fixed("REGION", "hunter6", 1),
    ]);
    let expected = [
        ("KEY", format!("{PREFIX}v7_KEY")),
        ("PENDING", format!("{PREFIX}s{OTHER_HANDLE}_PENDING")),
        ("REGION", format!("{PREFIX}v7_REGION")),
        ("TOKEN", format!("{PREFIX}s{HANDLE}_TOKEN")),
    ];
    let expected: BTreeMap<String, String> = expected
        .into_iter()
        .map(|(k, v)| (k.to_owned(), v))
        .collect();
    assert_eq!(all.child_environment(), expected);
    assert!(!format!("{all:?}").contains("hunter"));

    let plain = first(&[]);
    assert_eq!(plain.child_environment()["REGION"], "eu-1");
    assert_eq!(header(&plain, &format!("{PREFIX}REGION")), ok("eu-1"));
    assert_eq!(header(&plain, &format!("x-{ALIAS}REGION")), ok("eu-1"));
    assert!(plain.revoked().child_environment().is_empty());
}

#[test]
fn each_form_resolves_as_it_may() {
    let all = first(&[fixed("KEY", "k", 1), minted("TOKEN", "t", HANDLE)]);
    for (name, expected) in [
        ("v7_KEY".to_owned(), ok("k")),
        (format!("s{HANDLE}_TOKEN"), ok("t")),
        // A name alone says nothing of who asks.
        ("KEY".to_owned(), unresolved("KEY")),
        ("TOKEN".to_owned(), unresolved("TOKEN")),
        // Never given out.
        ("v8_KEY".to_owned(), unresolved("KEY")),
        (format!("s{OTHER_HANDLE}_TOKEN"), unresolved("TOKEN")),
        // Of the other kind.
        ("v7_TOKEN".to_owned(), unresolved("TOKEN")),
        (format!("s{HANDLE}_KEY"), unresolved("KEY")),
        ("v7_UNKNOWN".to_owned(), unresolved("UNKNOWN")),
        (
            "v99999999999999999999_KEY".to_owned(),
            Err(Refused::Misplaced),
        ),
        (String::new(), Err(Refused::Misplaced)),
    ] {
        assert_eq!(header(&all, &format!("{PREFIX}{name}")), expected, "{name}");
    }
    assert_eq!(header(&all, &format!("sk-{ALIAS}KEY")), unresolved("KEY"));
}

#[test]
fn an_expired_value_resolves_no_longer_and_neither_does_any_without_a_time() {
    let all = first(&[fixed("KEY", "k", 1), minted("TOKEN", "t", HANDLE)]);
    let token = format!("{PREFIX}s{HANDLE}_TOKEN");
    let just_before = UnixMs(LATER.0 - 1);
    assert_eq!(at(&all, &token, Some(just_before)), ok("t"));
    assert_eq!(at(&all, &token, Some(LATER)), unresolved("TOKEN"));
    assert_eq!(at(&all, &token, None), unresolved("TOKEN"));
    assert_eq!(
        at(&all, &format!("{PREFIX}v7_KEY"), None),
        unresolved("KEY")
    );
}

#[test]
fn a_minted_placeholder_means_the_newest_value_until_its_handle_changes() {
    let token = format!("{PREFIX}s{HANDLE}_TOKEN");
    let mut all = first(&[minted("TOKEN", "t1", HANDLE)]);
    for (revision, value) in [(8, "t2"), (9, "t3")] {
        all = install(&all, revision, &[minted("TOKEN", value, HANDLE)]);
        assert_eq!(header(&all, &token), ok(value));
    }
    // Without a value for a while.
    let none = Variable {
        value: None,
        ..minted("TOKEN", "", HANDLE)
    };
    let gone = install(&all, 10, &[none]);
    assert_eq!(header(&gone, &token), unresolved("TOKEN"));
    let back = install(&gone, 11, &[minted("TOKEN", "t4", HANDLE)]);
    assert_eq!(header(&back, &token), ok("t4"));
    // Reconfigured, detached, revoked.
    let other = install(&all, 12, &[minted("TOKEN", "t5", OTHER_HANDLE)]);
    assert_eq!(header(&other, &token), unresolved("TOKEN"));
    assert_eq!(
        header(&install(&all, 13, &[]), &token),
        Err(Refused::WrongEndpoint {
            key: "TOKEN".to_owned()
        })
    );
    assert!(header(&all.revoked(), &token).is_err());
}

#[test]
fn static_values_of_before_are_retained_and_then_fall_forward() {
    let mut all = first(&[fixed("KEY", "g1", 1)]);
    for generation in 2..=10 {
        let value = format!("g{generation}");
        all = install(&all, 6 + generation, &[fixed("KEY", &value, generation)]);
    }
    for revision in 7..=16_u64 {
        let expected = match revision {
            // The newest eight stand for themselves.
            9.. => format!("g{}", revision - 6),
            _ => "g10".to_owned(),
        };
        assert_eq!(
            header(&all, &format!("{PREFIX}v{revision}_KEY")),
            Ok(expected),
            "{revision}"
        );
    }
    // The bundle changed for other reasons: the placeholder stays what it was.
    let same = install(&all, 99, &[fixed("KEY", "g10", 10)]);
    assert_eq!(same.child_environment()["KEY"], format!("{PREFIX}v16_KEY"));
    // Somebody else was granted something: nothing of before counts any more.
    let both = [fixed("KEY", "g10", 10), fixed("OTHER", "o", 1)];
    let granted = install(&same, 100, &both);
    assert_eq!(header(&granted, &format!("{PREFIX}v9_KEY")), ok("g10"));
    // Not served now.
    let none = Variable {
        value: None,
        ..fixed("KEY", "", 10)
    };
    let unserved = install(&all, 101, &[none]);
    assert_eq!(
        header(&unserved, &format!("{PREFIX}v16_KEY")),
        unresolved("KEY")
    );
}

#[test]
fn a_placeholder_of_another_identity_is_of_no_use() {
    let all = first(&[fixed("KEY", "old", 1)]);
    let replaced = Variable {
        identity: "q:KEY".to_owned(),
        ..fixed("KEY", "new", 1)
    };
    let all = install(&all, 8, &[replaced]);
    assert_eq!(header(&all, &format!("{PREFIX}v7_KEY")), unresolved("KEY"));
    assert_eq!(header(&all, &format!("{PREFIX}v8_KEY")), ok("new"));
    // Gone and come back: what was given out before it went is over.
    let back = install(&install(&all, 9, &[]), 10, &[fixed("KEY", "again", 1)]);
    assert_eq!(header(&back, &format!("{PREFIX}v8_KEY")), unresolved("KEY"));
    assert_eq!(header(&back, &format!("{PREFIX}v10_KEY")), ok("again"));
    // A name that was secret once is never a plain one.
    let never = install(&back, 11, &[]);
    let given = never.installed(12, [], [("KEY", "plain")]);
    assert!(!given.child_environment().contains_key("KEY"));
}

#[test]
fn a_secret_goes_to_its_endpoints_alone() {
    let bound = Variable {
        bindings: vec![binding("*.example", "/v1/**"), binding("files.example", "")],
        ..fixed("KEY", "k", 1)
    };
    let free = Variable {
        bindings: vec![],
        ..fixed("FREE", "f", 1)
    };
    let all = first(&[bound, free]);
    let key = format!("{PREFIX}v7_KEY");
    for (host, port, target, key, admitted) in [
        ("api.example", 443, "/v1/x", &key, true),
        ("API.example.", 443, "/v1", &key, true),
        ("files.example", 443, "/any/../thing", &key, true),
        ("api.example", 443, "/v2/x", &key, false),
        ("api.example", 443, "/v1/../admin", &key, false),
        ("api.example", 443, "/v1/%2e%2e/admin", &key, false),
        ("api.example", 80, "/v1/x", &key, false),
        ("api.example.evil.test", 443, "/v1/x", &key, false),
        ("evil.test", 443, "/v1/x?api.example", &key, false),
        ("api.example", 443, "/", &format!("{PREFIX}v7_FREE"), false),
    ] {
        let resolver = all.resolver(host, port, target, Some(NOW)).unwrap();
        let out = resolver.header(key.as_bytes());
        match admitted {
            true => assert_eq!(out.unwrap().unwrap().expose(), b"k", "{host}{target}"),
            false => {
                let refused = out.unwrap_err();
                assert!(
                    matches!(refused, Refused::WrongEndpoint { .. }),
                    "{host}{target}"
                );
                assert_eq!(refused.status(), 403);
            }
        }
    }
}

#[test]
fn a_proxy_looks_into_what_goes_to_a_bound_host_whatever_the_path() {
    let narrow = Variable {
        bindings: vec![binding("*.api.example", "/v1/**")],
        ..fixed("A", "x", 1)
    };
    let placeholders = first(&[narrow]);
    for (host, port, expected) in [
        ("eu.api.example", 443, true),
        ("EU.api.example.", 443, true),
        ("eu.api.example", 8443, false),
        ("api.example", 443, false),
        ("eu.api.example.evil.example", 443, false),
    ] {
        assert_eq!(placeholders.binds(host, port), expected, "{host}:{port}");
    }
    assert!(!placeholders.revoked().binds("eu.api.example", 443));
}

fn basic(text: &str) -> String {
    format!("Basic {}", STANDARD.encode(text))
}

#[test]
fn a_header_is_rewritten_where_it_may_hold_one() {
    let all = first(&[fixed("KEY", "k=1", 1), fixed("LINE", "a\r\nb", 1)]);
    let key = format!("{PREFIX}v7_KEY");
    let misplaced = || Err(Refused::Misplaced);
    for (value, expected) in [
        (key.clone(), ok("k=1")),
        (format!("  {key} "), ok("k=1")),
        (format!("Bearer {key}"), ok("Bearer k=1")),
        (format!("token  {key}"), ok("token k=1")),
        (basic(&format!("user:{key}")), Ok(basic("user:k=1"))),
        (basic(&format!("{key}:")), Ok(basic("k=1:"))),
        (basic("user:password"), Ok(basic("user:password"))),
        ("Bearer something".to_owned(), ok("Bearer something")),
        (format!("x{key}"), misplaced()),
        (format!("{key},{key}"), misplaced()),
        (format!("a b {key}"), misplaced()),
        (format!("{key} {key}"), misplaced()),
        (key.replace(':', "%3A"), misplaced()),
        (basic(&format!("user:{PREFIX}")), misplaced()),
        (basic(&format!("user:x-{ALIAS}KEY")), misplaced()),
        (format!("{PREFIX}v7_LINE"), unresolved("LINE")),
    ] {
        assert_eq!(header(&all, &value), expected, "{value}");
    }
    let resolver = all.resolver("api.example", 443, "/", Some(NOW)).unwrap();
    assert_eq!(resolver.verbatim(b"x-header"), Ok(()));
    assert_eq!(resolver.verbatim(key.as_bytes()), Err(Refused::Misplaced));
}

#[test]
fn a_target_is_rewritten_in_segments_and_query_values() {
    let all = first(&[
        fixed("KEY", "k:1+ü", 1),
        fixed("SLASH", "a/b", 1),
        fixed("DOTS", "..", 1),
    ]);
    let key = format!("{PREFIX}v7_KEY");
    let encoded = key.replace(':', "%3a");
    let unfit = |key: &str| {
        Err(Refused::Unfit {
            key: key.to_owned(),
        })
    };
    for (target, expected) in [
        ("/plain?a=b".to_owned(), ok("/plain?a=b")),
        (format!("/bot{key}/send"), ok("/botk:1+%C3%BC/send")),
        (format!("/bot{encoded}/a%20b"), ok("/botk:1+%C3%BC/a%20b")),
        (format!("/{key}.json?x=1&&y"), ok("/k:1+%C3%BC.json?x=1&&y")),
        (
            format!("/x?a=1&key={key}&b"),
            ok("/x?a=1&key=k%3A1%2B%C3%BC&b"),
        ),
        (format!("/x?key={encoded}"), ok("/x?key=k%3A1%2B%C3%BC")),
        (format!("/x?key=a{key}"), Err(Refused::Misplaced)),
        (format!("/x?{key}=a"), Err(Refused::Misplaced)),
        (format!("/x?{key}"), Err(Refused::Misplaced)),
        (format!("/{PREFIX}v7_SLASH"), unfit("SLASH")),
        (format!("/{PREFIX}v7_DOTS"), unfit("DOTS")),
        (format!("/x?key={PREFIX}v7_SLASH"), ok("/x?key=a%2Fb")),
    ] {
        let resolver = all.resolver("api.example", 443, &target, Some(NOW));
        let found = resolver
            .and_then(|r| r.target(&target))
            .map(|out| out.map_or(target.clone(), |s| s.expose_str().unwrap().to_owned()));
        assert_eq!(found, expected, "{target}");
    }
    let halves = format!("/{PREFIX}/x");
    assert_eq!(
        all.resolver("api.example", 443, &halves, Some(NOW)).err(),
        Some(Refused::Misplaced)
    );
}

#[test]
fn a_body_is_rewritten_only_where_the_endpoint_asks_for_it() {
    let asked = Variable {
        bindings: vec![
            Binding {
                body_rewrite: true,
                ..binding("api.example", "/login")
            },
            binding("api.example", "/chat"),
        ],
        ..fixed("KEY", "k\"1", 1)
    };
    let other = fixed("OTHER", "o", 1);
    let all = first(&[asked, other]);
    let key = format!("{PREFIX}v7_KEY");
    let wrong = || {
        Err(Refused::WrongEndpoint {
            key: "OTHER".to_owned(),
        })
    };
    for (target, kind, body, expected) in [
        (
            "/login",
            Body::Json,
            format!(r#"{{"a":"{key}"}}"#),
            ok(r#"{"a":"k\"1"}"#),
        ),
        (
            "/login",
            Body::Json,
            format!(r#"{{"a":"x {key}!"}}"#),
            ok(r#"{"a":"x k\"1!"}"#),
        ),
        (
            "/login",
            Body::Form,
            format!("u=a+b&p={key}"),
            ok("u=a+b&p=k%221"),
        ),
        (
            "/login",
            Body::Text,
            format!("p: {key}\r\n"),
            ok("p: k\"1\r\n"),
        ),
        (
            "/login",
            Body::Form,
            format!("p=a{key}"),
            Err(Refused::Misplaced),
        ),
        ("/login", Body::Json, format!("{PREFIX}v7_OTHER"), wrong()),
        (
            "/login",
            Body::Json,
            format!("x-{ALIAS}KEY"),
            Err(Refused::Misplaced),
        ),
        ("/login", Body::Json, "nothing".to_owned(), ok("nothing")),
        // Text like any other: what an agent says of its environment stays what it said.
        ("/chat", Body::Json, key.clone(), ok(&key)),
    ] {
        let resolver = all.resolver("api.example", 443, target, Some(NOW)).unwrap();
        let found = resolver
            .body(kind, body.as_bytes())
            .map(|out| out.map_or(body.clone(), |s| s.expose_str().unwrap().to_owned()));
        assert_eq!(found, expected, "{target} {body}");
    }
    for (content_type, kind) in [
        ("application/json; charset=utf-8", Some(Body::Json)),
        ("application/problem+json", Some(Body::Json)),
        ("Application/X-WWW-Form-URLencoded", Some(Body::Form)),
        ("text/plain", Some(Body::Text)),
        ("application/octet-stream", None),
        ("", None),
    ] {
        assert_eq!(Body::of(content_type), kind, "{content_type}");
    }
}

/// Secrets that stand in no placeholder and in no text that is drawn.
const FIXED: &str = "Zq9-fixed";
const MINTED: &str = "Zq9-minted";

fn world() -> Placeholders {
    let fixed = Variable {
        bindings: vec![Binding {
            body_rewrite: true,
            ..binding("api.example", "/v1/**")
        }],
        ..fixed("KEY", FIXED, 1)
    };
    let minted = Variable {
        bindings: vec![Binding {
            body_rewrite: true,
            ..binding("*.minted.example", "")
        }],
        ..minted("TOKEN", MINTED, HANDLE)
    };
    first(&[fixed, minted])
}

/// Bytes that are likely to be nearly a placeholder.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        3 => prop::collection::vec(any::<u8>(), 0..8),
        2 => "[ -~]{0,8}".prop_map(String::into_bytes),
        4 => Just(format!("{PREFIX}v7_KEY").into_bytes()),
        4 => Just(format!("{PREFIX}s{HANDLE}_TOKEN").into_bytes()),
        1 => Just(format!("{PREFIX}s{OTHER_HANDLE}_TOKEN").into_bytes()),
        1 => Just(PREFIX.as_bytes().to_vec()),
        1 => Just(ALIAS.as_bytes().to_vec()),
        1 => Just(format!("{PREFIX}v7_KEY").replace(':', "%3A").into_bytes()),
        1 => Just(b"%6Fpenshell:resolve:env:".to_vec()),
        1 => Just(b"openshell:".to_vec()),
        1 => Just(b"Basic ".to_vec()),
        1 => Just(b"Bearer ".to_vec()),
        1 => Just(STANDARD.encode(format!("u:{PREFIX}v7_KEY")).into_bytes()),
        1 => Just(STANDARD.encode(format!("{PREFIX}x{ALIAS}")).into_bytes()),
        2 => prop::sample::select(vec!["/", "?", "&", "=", "%", "..", " ", "_", "%2e", "%"])
            .prop_map(|s| s.as_bytes().to_vec()),
    ];
    prop::collection::vec(piece, 0..7).prop_map(|pieces| pieces.concat())
}

fn contains(bytes: &[u8], what: &str) -> bool {
    bytes.windows(what.len()).any(|w| w == what.as_bytes())
}

fn decoded(bytes: &[u8]) -> Vec<u8> {
    let text: String = bytes.iter().map(|b| char::from(*b)).collect();
    let mut out = Vec::new();
    let mut rest = text.as_str();
    while let Some(c) = rest.chars().next() {
        let escape = rest.get(1..3).filter(|_| c == '%');
        match escape.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = &rest[3..];
            }
            None => {
                out.push(u8::try_from(u32::from(c)).unwrap());
                rest = &rest[c.len_utf8()..];
            }
        }
    }
    out
}

/// The clear text of `Basic` credentials, for looking into them.
fn inside(bytes: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(bytes);
    let parts = text.trim().split_once(' ');
    let encoded = parts.filter(|(word, _)| word.eq_ignore_ascii_case("basic"));
    STANDARD
        .decode(encoded.map_or("", |(_, rest)| rest.trim()))
        .unwrap_or_default()
}

/// What `text` becomes as a header and a body, and `path` as a target, holds no placeholder, and a
/// secret only where it may go.
fn nothing_leaks(
    all: &Placeholders,
    (host, port): (&str, u16),
    path: &str,
    text: &[u8],
    now: Option<UnixMs>,
    kind: Body,
) {
    let Ok(resolver) = all.resolver(host, port, path, now) else {
        return;
    };
    let may = |what: &str| match what {
        FIXED => now.is_some() && (host, port) == ("api.example", 443),
        _ => now == Some(NOW) && (host, port) == ("a.minted.example", 443),
    };
    let rewritten = [
        resolver.header(text),
        resolver.target(path),
        resolver.body(kind, text),
    ];
    for (n, out) in rewritten.into_iter().enumerate() {
        // What is not rewritten goes on as it was.
        let sent = match (n, out) {
            (_, Err(_)) => continue,
            (_, Ok(Some(secret))) => secret.expose().to_vec(),
            (0, Ok(None)) => text.to_vec(),
            (1, Ok(None)) => path.as_bytes().to_vec(),
            (_, Ok(None)) => {
                assert!(!contains(text, FIXED) && !contains(text, MINTED));
                assert!(!resolver.rewrites_body() || !contains(text, PREFIX));
                continue;
            }
        };
        for form in [sent.clone(), decoded(&sent), inside(&sent)] {
            assert!(!contains(&form, PREFIX) && !contains(&form, ALIAS), "{n}");
            for secret in [FIXED, MINTED] {
                assert!(may(secret) || !contains(&form, secret), "{n} {secret}");
            }
        }
    }
}

#[test]
fn fuzz_a_placeholder_resolves_where_it_may_and_nowhere_else() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/placeholder");
    let all = world();
    Corpus::with_files::<Vec<u8>>(corpus, []).fuzz(|bytes| {
        // A target, and on the next line what stands in a header or a body.
        let mut parts = bytes.splitn(2, |byte| *byte == b'\n');
        let path = String::from_utf8_lossy(parts.next().unwrap_or_default());
        let text = parts.next().unwrap_or_default();
        for host in ["api.example", "a.minted.example", "evil.test"] {
            for kind in [Body::Json, Body::Form, Body::Text] {
                nothing_leaks(&all, (host, 443), &path, text, Some(NOW), kind);
            }
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn nothing_panics_leaks_or_leaves_a_placeholder_behind(
        host in prop::sample::select(vec![
            "api.example", "a.minted.example", "evil.test", "minted.example", "", ".", "..",
        ]),
        port in prop::sample::select(vec![443_u16, 80, 0]),
        path in bytes(),
        text in bytes(),
        now in prop::sample::select(vec![None, Some(NOW), Some(LATER)]),
        kind in prop::sample::select(vec![Body::Json, Body::Form, Body::Text]),
    ) {
        let path = format!("/v1/{}", String::from_utf8_lossy(&path));
        nothing_leaks(&world(), (host, port), &path, &text, now, kind);
    }

    #[test]
    fn whatever_was_installed_before_a_name_resolves_to_its_newest_owner_alone(
        steps in prop::collection::vec((0..4_u8, 0..3_u64, any::<bool>()), 1..24),
    ) {
        let mut all = Placeholders::default();
        let mut given: Vec<(String, u8)> = Vec::new();
        for (n, (owner, generation, served)) in steps.into_iter().enumerate() {
            let variable = Variable {
                identity: format!("owner-{owner}"),
                value: served.then(|| (Secret::from(format!("{owner}-{generation}")), generation)),
                ..fixed("KEY", "", generation)
            };
            let variables = if owner == 3 { vec![] } else { vec![variable] };
            all = install(&all, 7 + n as u64, &variables);
            if let Some(placeholder) = all.child_environment().get("KEY") {
                given.push((placeholder.clone(), owner));
            }
            for (placeholder, of) in &given {
                if let Ok(value) = header(&all, placeholder) {
                    prop_assert!(served, "{placeholder} is not served");
                    prop_assert!(value.starts_with(&format!("{owner}-")), "{value}");
                    prop_assert_eq!(*of, owner, "given out for another owner");
                }
            }
        }
    }
}
