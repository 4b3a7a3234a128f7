//! Profiles as text: round trips, hostile texts, diagnostics, and the built-in ones.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::path::Path;

use evermint_core::id::{CredentialKey, ProfileId};
use evermint_core::profile::{
    Api, AudienceOverride, Auth, Category, ConfigKey, Discovery, DiscoveryFile, Endpoint, Format,
    MaterialSpec, Profile, ProfileCredential, RefreshSpec, Signing, TokenGrant, TokenUrl,
};
use evermint_core::strategy::{ReplayPolicy, Strategy as Minting};
use evermint_profiles::{builtin, catalog, read, write, write_all};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

/// Texts that look like other things in YAML, and some that do not.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("true".to_owned()),
        Just("null".to_owned()),
        Just("~".to_owned()),
        Just("12".to_owned()),
        Just("1e3".to_owned()),
        Just("- a".to_owned()),
        Just("a: b".to_owned()),
        Just("# no comment".to_owned()),
        Just(" two\nlines: x\n\n".to_owned()),
        Just("*alias".to_owned()),
        Just("@at \"quoted\" 'twice' \\ {x}".to_owned()),
        "[a-zA-Z0-9._/{}-]{1,20}",
        "\\PC{1,40}",
    ]
}

/// A text, or none.
fn maybe() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), text()]
}

fn key() -> impl Strategy<Value = CredentialKey> {
    "[A-Z_][A-Z0-9_]{0,9}".prop_map(|key| CredentialKey::new(key).unwrap())
}

fn keys() -> impl Strategy<Value = Vec<CredentialKey>> {
    vec(key(), 0..3)
}

fn texts() -> impl Strategy<Value = Vec<String>> {
    vec(text(), 0..3)
}

fn secs() -> impl Strategy<Value = Option<u64>> {
    option::of(1..=u64::MAX)
}

fn auth() -> impl Strategy<Value = Auth> {
    prop_oneof![
        Just(Auth::Unspecified),
        maybe().prop_map(|header| Auth::Bearer { header }),
        (maybe(), maybe()).prop_map(|(name, prefix)| Auth::Header { name, prefix }),
        maybe().prop_map(|user| Auth::Basic { user }),
        maybe().prop_map(|param| Auth::Query { param }),
        maybe().prop_map(|template| Auth::Path { template }),
    ]
}

fn format() -> impl Strategy<Value = Format> {
    prop_oneof![
        Just(Format::Text),
        Just(Format::Segment),
        Just(Format::Label),
        Just(Format::Uuid),
        Just(Format::Host),
        Just(Format::Url),
        Just(Format::Integer),
        vec(text(), 1..3).prop_map(Format::OneOf),
    ]
}

fn refresh() -> impl Strategy<Value = RefreshSpec> {
    let token_url = prop_oneof![
        Just(TokenUrl::None),
        Just(TokenUrl::FromOperator),
        text().prop_map(TokenUrl::Template),
    ];
    let replay = prop_oneof![
        Just(ReplayPolicy::Strict),
        Just(ReplayPolicy::Safe),
        (1..100_000u64).prop_map(|secs| ReplayPolicy::Grace(secs * 1000)),
    ];
    let material = (
        text(),
        maybe(),
        any::<[bool; 2]>(),
        format(),
        option::of(maybe()),
    )
        .prop_map(
            |(name, description, [required, secret], format, default)| MaterialSpec {
                name,
                description,
                required,
                secret,
                format,
                default,
            },
        );
    (
        proptest::sample::select(Minting::ALL.to_vec()),
        token_url,
        texts(),
        vec(material, 0..3),
        btree_map(text(), text(), 0..3),
        (secs(), secs(), secs()),
        replay,
        maybe(),
    )
        .prop_map(
            |(
                strategy,
                token_url,
                scopes,
                material,
                outputs,
                (before, floor, max),
                replay,
                url,
            )| {
                RefreshSpec {
                    strategy,
                    token_url,
                    scopes,
                    material,
                    outputs,
                    refresh_before_secs: before,
                    not_before_secs: floor,
                    max_lifetime_secs: max,
                    replay,
                    revoke_url: url,
                }
            },
        )
}

fn token_grant() -> impl Strategy<Value = TokenGrant> {
    let one = (maybe(), any::<u16>(), maybe(), maybe(), texts()).prop_map(
        |(host, port, path, audience, scopes)| AudienceOverride {
            host,
            port,
            path,
            audience,
            scopes,
        },
    );
    (
        [maybe(), maybe(), maybe(), maybe()],
        texts(),
        0..i64::MAX,
        vec(one, 0..2),
    )
        .prop_map(
            |([endpoint, audience, svid, kind], scopes, ttl, overrides)| TokenGrant {
                token_endpoint: endpoint,
                audience,
                jwt_svid_audience: svid,
                client_assertion_type: kind,
                scopes,
                cache_ttl_seconds: ttl,
                audience_overrides: overrides,
            },
        )
}

fn credential() -> impl Strategy<Value = ProfileCredential> {
    (
        maybe(),
        maybe(),
        keys(),
        any::<bool>(),
        auth(),
        vec(refresh(), 0..3),
        option::of(token_grant()),
    )
        .prop_map(
            |(name, description, env_vars, required, auth, refresh, token_grant)| {
                ProfileCredential {
                    name,
                    description,
                    env_vars,
                    required,
                    auth,
                    refresh,
                    token_grant,
                }
            },
        )
}

fn config_key() -> impl Strategy<Value = ConfigKey> {
    (
        maybe(),
        texts(),
        maybe(),
        any::<bool>(),
        format(),
        option::of(maybe()),
        keys(),
    )
        .prop_map(
            |(name, aliases, description, required, format, default, env_vars)| ConfigKey {
                name,
                aliases,
                description,
                required,
                format,
                default,
                env_vars,
            },
        )
}

/// What is carried comes from YAML, so it is never `null`.
fn json() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("true".to_owned()),
        Just("17".to_owned()),
        Just(r#"[{"allow":{"method":"GET","path":"/**"}},null,"12","true"]"#.to_owned()),
        text().prop_map(|text| serde_json::Value::String(text).to_string()),
    ]
}

fn endpoint() -> impl Strategy<Value = Endpoint> {
    let signing = (text(), maybe(), maybe()).prop_map(|(scheme, service, region)| Signing {
        scheme,
        service,
        region,
    });
    let policy = proptest::sample::select(vec!["rules", "access", "mcp", "allowed_ips"]);
    (
        [maybe(), maybe(), maybe(), maybe()],
        vec(any::<u16>(), 0..3),
        option::of(signing),
        any::<[bool; 3]>(),
        btree_map(policy.prop_map(str::to_owned), json(), 0..3),
    )
        .prop_map(
            |([host, path, protocol, tls], ports, signing, flags, policy)| Endpoint {
                host,
                // A single port of 0 means none.
                ports: if ports == [0] { Vec::new() } else { ports },
                path,
                protocol,
                tls,
                signing,
                websocket_rewrite: flags[0],
                body_rewrite: flags[1],
                uninspected: flags[2],
                policy,
            },
        )
}

fn api() -> impl Strategy<Value = Api> {
    (
        texts(),
        btree_map(text(), vec(maybe(), 1..3), 0..2),
        maybe(),
        texts(),
        texts(),
        auth(),
        btree_map(text(), maybe(), 0..2),
        (texts(), any::<bool>(), option::of(maybe()), maybe()),
    )
        .prop_map(
            |(
                models,
                when,
                base_url,
                from,
                protocols,
                auth,
                headers,
                (pass, in_path, path, model),
            )| {
                Api {
                    models,
                    when,
                    base_url,
                    base_url_from: from,
                    protocols,
                    auth,
                    headers,
                    passthrough_headers: pass,
                    model_in_path: in_path,
                    request_path: path,
                    default_model: model,
                }
            },
        )
}

fn profile() -> impl Strategy<Value = Profile> {
    let file = (maybe(), maybe(), maybe()).prop_map(|(env_var, path, kind)| DiscoveryFile {
        env_var,
        path,
        kind,
    });
    let id = || "[a-z0-9][a-z0-9-]{0,9}".prop_map(|id| ProfileId::new(id).unwrap());
    (
        (id(), vec(id(), 0..3), maybe(), maybe()),
        proptest::sample::select(Category::ALL.to_vec()),
        vec(credential(), 0..3),
        vec(config_key(), 0..3),
        vec(endpoint(), 0..3),
        (texts(), vec(file, 0..2)),
        vec(api(), 0..3),
        (btree_map(text(), maybe(), 0..2), option::of(json())),
    )
        .prop_map(
            |(names, category, credentials, config, endpoints, found, inference, rest)| Profile {
                id: names.0,
                aliases: names.1,
                display_name: names.2,
                description: names.3,
                category,
                credentials,
                config,
                endpoints,
                discovery: Discovery {
                    credentials: found.0,
                    files: found.1,
                },
                inference,
                annotations: rest.0,
                carried: rest
                    .1
                    .map(|json| BTreeMap::from([("binaries".to_owned(), json)]))
                    .unwrap_or_default(),
            },
        )
}

/// Reads without lint: what the reader makes of a text.
fn parsed(text: &str) -> Profile {
    let document = read::parse(text);
    match document.as_slice() {
        [(Some(profile), findings)] if findings.is_empty() => profile.clone(),
        other => panic!("{text}\n{other:#?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn what_is_written_is_read_back_as_it_was(profile in profile()) {
        let text = write(&profile);
        prop_assert_eq!(parsed(&text), profile, "{}", text);
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "(\\PC|[\n\t :\\[\\]{}\"'#&*!|>-]){0,200}") {
        for document in read(&text) {
            prop_assert!(document.profile.is_some() || !document.findings.is_empty());
        }
    }

    #[test]
    fn no_damage_to_a_profile_makes_the_reader_panic(
        file in 0..builtin::FILES.len(),
        at in any::<proptest::sample::Index>(),
        cut in 0..40usize,
        put in "[ \n:{}\\[\\]\"'a-z0-9&*-]{0,6}",
    ) {
        let (_, text) = builtin::FILES[file];
        let from = at.index(text.len());
        let to = (from + cut).min(text.len());
        if text.is_char_boundary(from) && text.is_char_boundary(to) {
            let damaged = format!("{}{put}{}", &text[..from], &text[to..]);
            for document in read(&damaged) {
                prop_assert!(document.profile.is_some() || !document.findings.is_empty());
            }
        }
    }
}

#[test]
fn the_built_in_profiles_are_clean_and_survive_an_export() {
    let mut names = std::collections::BTreeSet::new();
    for (file, text) in builtin::FILES {
        let documents = read(text);
        let [document] = documents.as_slice() else {
            panic!("{file} has {} documents", documents.len());
        };
        assert!(
            document.findings.is_empty(),
            "{file}: {:#?}",
            document.findings
        );
        let profile = document.profile.clone().unwrap();
        assert_eq!(profile.id.as_str(), *file);
        assert_eq!(parsed(&write(&profile)), profile);
        for name in profile.aliases.iter().chain([&profile.id]) {
            assert!(names.insert(name.clone()), "{file}: {name} is taken");
        }
    }
    let all: Vec<Profile> = catalog().builtin().map(|p| p.as_ref().clone()).collect();
    assert_eq!(all.len(), builtin::FILES.len());
    let again: Vec<Profile> = read(&write_all(&all))
        .into_iter()
        .filter_map(|document| document.profile)
        .collect();
    assert_eq!(again, all);
}

#[test]
fn every_problem_is_told_at_once_with_its_line() {
    let text = r#"id: Bad_Id
colour: red
category: cars
credentials:
  - name: token
    env_vars: [9TOKEN, GOOD]
    required: maybe
    auth_style: header
    refresh:
      strategy: magic
      token_url: http://issuer.example/token
  - name: token
    env_vars: [GOOD]
    auth_style: bearer
    query_param: x
    refresh:
      - strategy: oauth2_refresh_token
        token_url: https://{host}/token
        revoke_url: https://{nope}.example.com/
        material:
          - {name: host, format: label}
          - {name: refresh_token, secret: true, default: hunter2}
      - strategy: oauth2-refresh-token
        additional_outputs: [{output: a, credential: b}]
endpoints:
  - host: "bad host"
    port: 70000
discovery:
  credentials: [gone]
"#;
    let [document] = read(text).try_into().unwrap();
    assert!(document.profile.is_none());
    let told: Vec<(usize, &str)> = document
        .findings
        .iter()
        .map(|f| (f.line.unwrap(), f.field.as_str()))
        .collect();
    for expected in [
        (1, "id"),
        (2, "colour"),
        (3, "category"),
        (6, "credentials[0].env_vars[0]"),
        (7, "credentials[0].required"),
        (10, "credentials[0].refresh.strategy"),
        (15, "credentials[1].query_param"),
        (27, "endpoints[0].port"),
        (5, "credentials[0].header_name"),
        (12, "credentials[1].name"),
        (13, "credentials[1].env_vars[0]"),
        (18, "credentials[1].refresh[0].token_url"),
        (19, "credentials[1].refresh[0].revoke_url"),
        (22, "credentials[1].refresh[0].material[1].default"),
        (23, "credentials[1].refresh[1].strategy"),
        (24, "credentials[1].refresh[1].additional_outputs"),
        (26, "endpoints[0].host"),
        (29, "discovery.credentials[0]"),
    ] {
        assert!(told.contains(&expected), "{expected:?} is not in {told:#?}");
    }
    assert!(!format!("{:?}", document.findings).contains("hunter2"));
}

#[test]
fn a_template_lets_nobody_choose_the_domain() {
    let check = |url: &str, format: &str, good: bool| {
        let text = format!(
            "id: x\ncredentials:\n  - name: t\n    env_vars: [T]\n    refresh:\n      strategy: \
             oauth2-client-credentials\n      token_url: {url}\n      material:\n        - {{name: \
             v, {format}}}\n"
        );
        let [document] = read(&text).try_into().unwrap();
        assert_eq!(document.profile.is_some(), good, "{:?}", document.findings);
    };
    check("https://issuer.example/{v}/token", "format: segment", true);
    check("https://{v}.issuer.example/token", "format: label", true);
    check("https://{v}-eu.issuer.example/token", "format: label", true);
    check("https://{v}/token", "format: host", true);
    check("https://{v}/token", "one_of: [a.example]", true);
    check("https://{v}/token", "format: label", false);
    check("https://api.{v}/token", "format: label", false);
    check("https://{v}.example/token", "format: label", false);
    check("https://{v}-evil.example/token", "format: text", false);
    check("http://issuer.example/{v}", "format: label", false);
    check("http://127.0.0.1:99/{v}", "format: label", true);
    check("https://issuer.example/{v}", "secret: true", false);
    check("https://user@issuer.example/{v}", "format: label", false);
}

#[test]
fn openshells_own_form_is_read() {
    let text = "\
id: example
display_name: Example
category: source-control
inference_capable: true
credentials:
  - name: api_token
    env_vars: [EXAMPLE_TOKEN]
    required: true
    auth_style: bearer
    header_name: authorization
    refresh:
      strategy: oauth2_client_credentials
      token_url: https://login.microsoftonline.com/common/oauth2/v2.0/token
      scopes: [a, b]
      refresh_before_seconds: 300
      max_lifetime_seconds: 3600
      material:
        - name: client_id
          required: true
endpoints:
  - host: api.example.com
    port: 443
    protocol: rest
    access: read-write
    enforcement: enforce
    rules:
      - allow: {method: GET, path: /**}
binaries: [/usr/bin/gh]
resource_version: 3
source: user
";
    let [document] = read(text).try_into().unwrap();
    let profile = document.profile.expect("it is sound");
    assert!(profile.is_inference_capable());
    let endpoint = &profile.endpoints[0];
    assert_eq!(endpoint.ports, [443]);
    assert_eq!(endpoint.policy["access"], "\"read-write\"");
    assert_eq!(
        endpoint.policy["rules"],
        r#"[{"allow":{"method":"GET","path":"/**"}}]"#
    );
    assert_eq!(profile.carried["binaries"], r#"["/usr/bin/gh"]"#);
    assert_eq!(
        profile.credentials[0].refresh[0].refresh_before_secs,
        Some(300)
    );
    assert_eq!(parsed(&write(&profile)), profile);
}

/// The table of `docs/profiles.md`.
fn table() -> String {
    let mut table = String::from(
        "| profile | aliases | credentials | minted by |\n| --- | --- | --- | --- |\n",
    );
    for profile in catalog().builtin() {
        let join = |texts: Vec<String>| texts.join("<br>");
        let code = |text: &str| format!("`{text}`");
        let aliases = profile.aliases.iter().map(|a| code(a.as_str())).collect();
        let keys = profile.credentials.iter().flat_map(|c| c.env_vars.first());
        let strategies: std::collections::BTreeSet<String> = profile
            .credentials
            .iter()
            .flat_map(|c| &c.refresh)
            .map(|spec| code(spec.strategy.as_str()))
            .collect();
        table += &format!(
            "| {} | {} | {} | {} |\n",
            code(profile.id.as_str()),
            join(aliases),
            join(keys.map(|key| code(key.as_str())).collect()),
            join(strategies.into_iter().collect()),
        );
    }
    table
}

#[test]
fn the_documentation_lists_the_built_in_profiles() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/profiles.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (begin, end) = ("<!-- built-in profiles -->\n", "<!-- end -->");
    let from = text.find(begin).unwrap() + begin.len();
    let to = text.find(end).unwrap();
    if std::env::var_os("EVERMINT_WRITE_DOCS").is_some() {
        std::fs::write(
            &path,
            format!("{}{}{}", &text[..from], table(), &text[to..]),
        )
        .unwrap();
        return;
    }
    assert_eq!(
        text[from..to],
        table(),
        "run this test with EVERMINT_WRITE_DOCS=1 to write the table"
    );
}
