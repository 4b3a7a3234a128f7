//! What the strategies for AWS, GitHub and commands send or run, and what they make of the answer.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests fail like the tests themselves"
)]

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use evermint_core::id::CredentialKey;
use evermint_core::mint::{Failure, FailureClass, MintOrder, Minted};
use evermint_core::port::Minter;
use evermint_core::strategy::Strategy;
use evermint_minter::{CommandLine, HttpMinter};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Value, json};
use support::{Deadline, Issuer, Reply, Seen, http, json as reply, minter, order};

use FailureClass::{ConfigRefused, GrantRefused, Throttled, Transient, UnknownRefusal};

const ROLE: &str = "arn:aws:iam::123456789012:role/agent";

fn session(action: &str, end: &str) -> String {
    format!(
        r#"<{action}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><{action}Result>
        <Credentials><AccessKeyId>ASIA1</AccessKeyId><SecretAccessKey>sk-1/+canary</SecretAccessKey>
        <SessionToken>st-1==canary</SessionToken><Expiration>{end}</Expiration></Credentials>
        <AssumedRoleUser><Arn>arn</Arn></AssumedRoleUser></{action}Result>
        <ResponseMetadata><RequestId>1</RequestId></ResponseMetadata></{action}Response>"#
    )
}

fn xml(status: u16, body: &str) -> Vec<u8> {
    let date = "Date: Mon, 23 Nov 2026 12:00:00 GMT\r\nContent-Type: text/xml\r\n";
    http(status, date, body)
}

fn with_outputs(mut order: MintOrder) -> MintOrder {
    let outputs = [
        ("secret_access_key", "AWS_SECRET_ACCESS_KEY"),
        ("session_token", "AWS_SESSION_TOKEN"),
    ];
    order.config.outputs = outputs
        .map(|(output, key)| (output.to_owned(), CredentialKey::new(key).unwrap()))
        .into();
    order
}

fn assume_role(url: &str, public: &[(&str, &str)]) -> MintOrder {
    let known = [
        ("access_key_id", "AKIA1"),
        ("role_arn", ROLE),
        ("region", "eu-central-1"),
    ];
    let secret = [
        ("secret_access_key", "base-secret-canary"),
        ("session_token", "base-session-canary"),
    ];
    let public = [&known[..], public].concat();
    with_outputs(order(Strategy::AwsStsAssumeRole, url, &public, &secret))
}

fn web_identity(url: &str, secret: &[(&str, &str)], public: &[(&str, &str)]) -> MintOrder {
    let public = [&[("role_arn", ROLE)][..], public].concat();
    with_outputs(order(Strategy::AwsStsWebIdentity, url, &public, secret))
}

#[track_caller]
fn is_session(minted: &Minted) {
    assert_eq!(minted.token.expose(), b"ASIA1");
    let outputs = minted.extra_outputs.iter();
    let outputs: Vec<(&str, &[u8])> = outputs.map(|(k, v)| (k.as_str(), v.expose())).collect();
    assert_eq!(
        outputs,
        [
            ("secret_access_key", &b"sk-1/+canary"[..]),
            ("session_token", b"st-1==canary")
        ]
    );
}

#[tokio::test]
async fn a_role_is_assumed_with_a_signed_request() {
    let body = session("AssumeRole", "2026-11-23T13:00:00Z");
    let issuer = Issuer::start(Reply::Raw(xml(200, &body))).await;
    let public = [
        ("external_id", "ex-1"),
        ("duration_seconds", "900"),
        ("policy", r#"{"Version":"2012-10-17"}"#),
        (
            "policy_arns",
            "arn:aws:iam::aws:policy/A, arn:aws:iam::aws:policy/B",
        ),
    ];
    let minted = minter(|_| ()).mint(assume_role(&issuer.url, &public)).await;
    let minted = minted.unwrap();
    is_session(&minted);
    // By the issuer's clock.
    assert_eq!(minted.lifetime, Some(Duration::from_secs(3_600)));
    let seen = &issuer.seen()[0];
    let form = seen.form();
    let form: Vec<(&str, &str)> = form.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(
        form,
        [
            ("Action", "AssumeRole"),
            ("DurationSeconds", "900"),
            ("ExternalId", "ex-1"),
            ("Policy", r#"{"Version":"2012-10-17"}"#),
            ("PolicyArns.member.1.arn", "arn:aws:iam::aws:policy/A"),
            ("PolicyArns.member.2.arn", "arn:aws:iam::aws:policy/B"),
            ("RoleArn", ROLE),
            ("RoleSessionName", "evermint"),
            ("Version", "2011-06-15"),
        ]
    );
    let signature = seen.header("authorization").unwrap();
    let start = "AWS4-HMAC-SHA256 Credential=AKIA1/";
    assert!(signature.starts_with(start), "{signature}");
    assert!(
        signature.contains("/eu-central-1/sts/aws4_request"),
        "{signature}"
    );
    assert!(
        signature.contains("SignedHeaders=content-type;host;x-amz-date;x-amz-security-token"),
        "{signature}"
    );
    assert_eq!(
        seen.header("x-amz-security-token"),
        Some("base-session-canary")
    );
    assert!(!seen.head.contains("base-secret-canary"));
}

#[tokio::test]
async fn a_role_is_assumed_with_a_token_that_is_not_signed() {
    let body = session("AssumeRoleWithWebIdentity", "2026-11-23T12:15:00Z");
    let issuer = Issuer::start(Reply::Raw(xml(200, &body))).await;
    let token = [("web_identity_token", "web-identity-canary")];
    let minted = minter(|_| ())
        .mint(web_identity(&issuer.url, &token, &[]))
        .await;
    let minted = minted.unwrap();
    is_session(&minted);
    assert_eq!(minted.lifetime, Some(Duration::from_secs(900)));
    let seen = &issuer.seen()[0];
    assert_eq!(seen.header("authorization"), None);
    assert_eq!(seen.form()["WebIdentityToken"], "web-identity-canary");
    assert_eq!(seen.form()["Action"], "AssumeRoleWithWebIdentity");
}

#[tokio::test]
async fn the_token_file_is_read_at_every_mint() {
    let body = session("AssumeRoleWithWebIdentity", "2026-11-23T13:00:00Z");
    let issuer = Issuer::start(Reply::Raw(xml(200, &body))).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    let minter = minter(|config| config.token_file_dirs = vec![dir.path().to_owned()]);
    for token in ["first", "second"] {
        std::fs::write(&file, token).unwrap();
        let path = [("web_identity_token_file", file.to_str().unwrap())];
        minter
            .mint(web_identity(&issuer.url, &[], &path))
            .await
            .unwrap();
        let seen = issuer.seen();
        assert_eq!(seen.last().unwrap().form()["WebIdentityToken"], token);
    }
}

fn error(code: &str) -> String {
    format!(
        "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>as it is said \
         base-secret-canary</Message></Error><RequestId>1</RequestId></ErrorResponse>"
    )
}

#[tokio::test]
async fn each_refusal_of_sts_has_its_class_and_remedy() {
    for (code, status, class, remedy) in [
        ("AccessDenied", 403, ConfigRefused, "trust policy"),
        ("ExpiredTokenException", 400, ConfigRefused, "expired"),
        ("RegionDisabledException", 403, ConfigRefused, "activate"),
        (
            "MalformedPolicyDocument",
            400,
            ConfigRefused,
            "session policy",
        ),
        ("PackedPolicyTooLarge", 400, ConfigRefused, "too large"),
        ("ValidationError", 400, ConfigRefused, "duration_seconds"),
        ("InvalidClientTokenId", 403, ConfigRefused, "access_key_id"),
        ("IDPCommunicationError", 400, Transient, "JWKS"),
        ("InvalidIdentityToken", 400, UnknownRefusal, "IAM"),
        ("Throttling", 400, Throttled, "wait"),
        ("ServiceUnavailable", 503, Transient, ""),
        ("SomethingNew", 400, UnknownRefusal, "check"),
    ] {
        let issuer = Issuer::start(Reply::Raw(xml(status, &error(code)))).await;
        let failure = minter(|_| ()).mint(assume_role(&issuer.url, &[])).await;
        let failure = failure.unwrap_err();
        assert_eq!(failure.class, class, "{code}: {failure:?}");
        assert!(failure.cause.contains(code) && failure.cause.contains("as it is said"));
        assert!(
            failure.remedy.contains(remedy),
            "{code}: {}",
            failure.remedy
        );
        assert!(!failure.cause.contains("canary"), "{}", failure.cause);
    }
}

#[tokio::test]
async fn a_signature_is_dated_by_the_issuers_clock_after_a_refusal() {
    let ahead = jiff::Timestamp::now() + Duration::from_secs(1_200);
    let date = ahead.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    let refusal = http(
        403,
        &format!("Date: {date}\r\n"),
        &error("SignatureDoesNotMatch"),
    );
    let issuer = Issuer::start(Reply::Raw(refusal)).await;
    let minter = minter(|_| ());
    for _ in 0..2 {
        let failure = minter
            .mint(assume_role(&issuer.url, &[]))
            .await
            .unwrap_err();
        assert_eq!(failure.class, Transient);
        assert!(failure.remedy.contains("behind"), "{}", failure.remedy);
    }
    let date = |seen: &Seen| {
        let text = seen.header("x-amz-date").unwrap();
        let civil = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", text).unwrap();
        civil
            .to_zoned(jiff::tz::TimeZone::UTC)
            .unwrap()
            .timestamp()
            .as_second()
    };
    let seen = issuer.seen();
    let moved = date(&seen[1]) - date(&seen[0]);
    assert!((1_195..=1_230).contains(&moved), "{moved}");
}

#[tokio::test]
async fn an_answer_that_is_no_session_gives_nothing() {
    let half = session("AssumeRole", "2026-11-23T13:00:00Z").replace("sk-1/+canary", "");
    for (body, why) in [
        (half.as_str(), "empty"),
        ("<AssumeRoleResponse/>", "no token response"),
        ("{}", "no token response"),
        ("", "an empty body"),
    ] {
        let issuer = Issuer::start(Reply::Raw(xml(200, body))).await;
        let failure = minter(|_| ()).mint(assume_role(&issuer.url, &[])).await;
        let failure = failure.unwrap_err();
        assert_eq!(failure.class, Transient, "{body}");
        assert!(failure.cause.contains(why), "{}", failure.cause);
        assert!(!failure.cause.contains("canary"));
    }
}

/// What is wrong with an order, by field.
fn problems(minter: &HttpMinter, order: &MintOrder) -> Vec<String> {
    let errors = minter.validate(&order.config, &order.secrets);
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn every_problem_of_a_role_is_named_with_its_field() {
    let minter = minter(|_| ());
    let good = assume_role("", &[]);
    assert_eq!(problems(&minter, &good), [""; 0]);
    let mut bad = order(
        Strategy::AwsStsAssumeRole,
        "",
        &[
            ("role_arn", "agent"),
            ("region", "eu.evil.example/"),
            ("role_session_name", "a b"),
            ("duration_seconds", "60"),
            ("policy", "[]"),
            ("policy_arns", "x"),
            ("external_id", "x"),
        ],
        &[],
    );
    bad.config.scopes = vec!["a".to_owned()];
    let found = problems(&minter, &bad);
    for field in [
        "access_key_id: is missing",
        "secret_access_key: is missing",
        "role_arn: is no ARN",
        "region: is no region",
        "role_session_name: must be",
        "duration_seconds: must be 900",
        "policy: is no object",
        "policy_arns: must be",
        "external_id: must be",
        "scopes: are not for AWS",
        "outputs: lack secret_access_key, session_token",
    ] {
        assert!(
            found.iter().any(|p| p.starts_with(field)),
            "{field}: {found:#?}"
        );
    }
    let file = web_identity("", &[], &[("web_identity_token_file", "/etc/passwd")]);
    let found = problems(&minter, &file);
    assert!(
        found.iter().any(|p| p.contains("token_file_dirs")),
        "{found:?}"
    );
}

fn github(url: &str, public: &[(&str, &str)]) -> MintOrder {
    let known = [("app_id", "Iv1.abc"), ("installation_id", "42")];
    let public = [&known[..], public].concat();
    let secret = [("private_key", KEY.as_str())];
    order(Strategy::GitHubAppInstallation, url, &public, &secret)
}

static KEY: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
    key.serialize_pem()
});

fn claims(jwt: &str) -> Value {
    let key = rcgen::KeyPair::from_pem(&KEY).unwrap();
    let key = DecodingKey::from_rsa_pem(key.public_key_pem().as_bytes()).unwrap();
    let mut rules = Validation::new(Algorithm::RS256);
    rules.validate_aud = false;
    jsonwebtoken::decode::<Value>(jwt, &key, &rules)
        .unwrap()
        .claims
}

#[tokio::test]
async fn an_installation_token_is_cut_down_and_asked_for_by_the_app() {
    let end = jiff::Timestamp::now() + Duration::from_secs(3_600);
    let body = format!(
        r#"{{"token":"ghs_1","expires_at":"{end:.0}","permissions":{{"contents":"read"}},"repository_selection":"selected"}}"#
    );
    let issuer = Issuer::start(Reply::Raw(reply(201, &body))).await;
    let base = issuer.url.replace("/token", "/api/v3/");
    let public = [
        ("repositories", "a, b"),
        ("repository_ids", "7"),
        ("permissions", r#"{"contents":"read"}"#),
    ];
    let minted = minter(|_| ()).mint(github(&base, &public)).await.unwrap();
    assert_eq!(minted.token.expose(), b"ghs_1");
    assert_eq!(minted.scopes, Some(vec!["contents:read".to_owned()]));
    let lifetime = minted.lifetime.unwrap();
    assert!(
        (3_590..=3_601).contains(&lifetime.as_secs()),
        "{lifetime:?}"
    );
    let seen = &issuer.seen()[0];
    let line = "POST /api/v3/app/installations/42/access_tokens HTTP/1.1\r\n";
    assert!(seen.head.starts_with(line), "{}", seen.head);
    assert_eq!(seen.header("accept"), Some("application/vnd.github+json"));
    assert_eq!(seen.header("x-github-api-version"), Some("2022-11-28"));
    let asked: Value = serde_json::from_slice(&seen.body).unwrap();
    let expected = json!({
        "repositories": ["a", "b"], "repository_ids": [7], "permissions": {"contents": "read"},
    });
    assert_eq!(asked, expected);
    let jwt = seen
        .header("authorization")
        .unwrap()
        .strip_prefix("Bearer ")
        .unwrap();
    let claims = claims(jwt);
    assert_eq!(claims["iss"], "Iv1.abc");
    let (iat, exp) = (
        claims["iat"].as_u64().unwrap(),
        claims["exp"].as_u64().unwrap(),
    );
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    assert!(now - iat >= 60 && exp - now <= 600 && exp > now, "{claims}");
}

#[tokio::test]
async fn each_refusal_of_github_has_its_class_and_remedy() {
    for (status, message, headers, class, remedy) in [
        (
            401,
            "A JSON web token could not be decoded",
            "",
            ConfigRefused,
            "private_key",
        ),
        (
            403,
            "This installation has been suspended",
            "",
            GrantRefused,
            "unsuspend",
        ),
        (
            403,
            "Resource not accessible by integration",
            "",
            ConfigRefused,
            "permissions",
        ),
        (
            403,
            "You have exceeded a secondary rate limit",
            "Retry-After: 7\r\n",
            Throttled,
            "wait",
        ),
        (
            403,
            "Slow",
            "X-RateLimit-Remaining: 0\r\n",
            Throttled,
            "wait",
        ),
        (404, "Not Found", "", GrantRefused, "uninstalled"),
        (
            422,
            "The permissions requested are not granted",
            "",
            ConfigRefused,
            "accept",
        ),
        (500, "Server Error", "", Transient, ""),
    ] {
        let body = json!({"message": message, "status": status.to_string()}).to_string();
        let issuer = Issuer::start(Reply::Raw(http(status, headers, &body))).await;
        let base = issuer.url.replace("/token", "");
        let failure = minter(|_| ()).mint(github(&base, &[])).await.unwrap_err();
        assert_eq!(failure.class, class, "{message}: {failure:?}");
        assert!(failure.cause.contains(message), "{}", failure.cause);
        assert!(
            failure.remedy.contains(remedy),
            "{message}: {}",
            failure.remedy
        );
        let pause = headers.starts_with("Retry").then_some(7_000);
        assert_eq!(failure.retry_after_ms, pause, "{message}");
    }
}

#[tokio::test]
async fn the_apps_word_is_dated_by_githubs_clock_after_a_refusal() {
    let ahead = jiff::Timestamp::now() + Duration::from_secs(300);
    let date = ahead.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    let refusal = format!("Date: {date}\r\n");
    let body = r#"{"message":"'Expiration time' claim ('exp') is too far in the future"}"#;
    let issuer = Issuer::start(Reply::Raw(http(401, &refusal, body))).await;
    let base = issuer.url.replace("/token", "");
    let minter = minter(|_| ());
    let failure = minter.mint(github(&base, &[])).await.unwrap_err();
    assert_eq!(failure.class, Transient);
    assert!(failure.remedy.contains("behind"), "{}", failure.remedy);
    minter.mint(github(&base, &[])).await.unwrap_err();
    let iat = |seen: &Seen| {
        let header = seen.header("authorization").unwrap().to_owned();
        let jwt = header.strip_prefix("Bearer ").unwrap();
        claims(jwt)["iat"].as_u64().unwrap()
    };
    let seen = issuer.seen();
    let moved = iat(&seen[1]) - iat(&seen[0]);
    assert!((240..=360).contains(&moved), "{moved}");
}

#[test]
fn every_problem_of_an_installation_is_named_with_its_field() {
    let minter = minter(|_| ());
    assert_eq!(problems(&minter, &github("", &[])), [""; 0]);
    let bad = order(
        Strategy::GitHubAppInstallation,
        "https://ghes.example/api/v3",
        &[
            ("installation_id", "../x"),
            ("repositories", "o/r"),
            ("repository_ids", "x"),
            ("permissions", r#"{"contents":"all"}"#),
        ],
        &[("private_key", "hunter2")],
    );
    let found = problems(&minter, &bad);
    for field in [
        "app_id: is missing",
        "private_key: is not in PEM",
        "installation_id: is no number",
        "repositories: has \"o/r\"",
        "repository_ids: is no number",
        "permissions: has \"contents\"",
    ] {
        assert!(
            found.iter().any(|p| p.starts_with(field)),
            "{field}: {found:#?}"
        );
    }
    assert!(!found.concat().contains("hunter2"));
}

/// A minter that may run this script, with `WORD=env-canary` as its environment.
fn running(script: &str) -> HttpMinter {
    let line = CommandLine {
        command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        env: BTreeMap::from([("WORD".to_owned(), "env-canary".to_owned())]),
    };
    minter(|config| config.commands = BTreeMap::from([("vault".to_owned(), line)]))
}

async fn exec(script: &str, within_ms: u64) -> Result<Minted, Failure> {
    let mut order = order(Strategy::Exec, "", &[("command", "vault")], &[]);
    order.fence = Deadline::after(within_ms);
    running(script).mint(order).await
}

#[tokio::test]
async fn a_command_prints_a_token_and_its_outputs() {
    let script = r#"echo "{\"token\":\"t-$WORD\",\"expires_in\":60,\"outputs\":{\"user\":\"$(env | grep -c HOME)\"}}""#;
    let minted = exec(script, 20_000).await.unwrap();
    assert_eq!(minted.token.expose(), b"t-env-canary");
    assert_eq!(minted.lifetime, Some(Duration::from_secs(60)));
    // No other environment than what is configured.
    assert_eq!(minted.extra_outputs["user"].expose(), b"0");
}

#[tokio::test]
async fn the_end_of_a_command_says_what_to_do_next() {
    for (script, class, word) in [
        (
            "echo 'no way env-canary' >&2; exit 1",
            UnknownRefusal,
            "no way [redacted]",
        ),
        ("echo later >&2; exit 75", Transient, "later"),
        ("echo gone >&2; exit 77", GrantRefused, "gone"),
        ("exit 78", ConfigRefused, "says nothing"),
        ("kill -9 $$", Transient, "signal"),
        ("echo token", UnknownRefusal, "no JSON"),
        ("echo '{\"token\":\"\"}'", UnknownRefusal, "empty token"),
        ("head -c 300000 /dev/zero", UnknownRefusal, "too much"),
    ] {
        let failure = exec(script, 20_000).await.unwrap_err();
        assert_eq!(failure.class, class, "{script}: {failure:?}");
        assert!(failure.cause.contains(word), "{script}: {}", failure.cause);
        assert!(!failure.remedy.is_empty());
    }
}

#[tokio::test]
async fn a_command_is_killed_with_its_children_when_the_ticket_ends() {
    let dir = tempfile::tempdir().unwrap();
    let pids = dir.path().join("pids");
    let script = format!(
        "sleep 600 & echo $! $$ > {0}.new; mv {0}.new {0}; wait",
        pids.display()
    );
    let began = Instant::now();
    let failure = exec(&script, 3_000).await.unwrap_err();
    assert_eq!(failure.class, Transient);
    assert!(failure.cause.contains("killed"), "{}", failure.cause);
    assert!(began.elapsed() < Duration::from_secs(60));
    let text = std::fs::read_to_string(&pids).unwrap();
    for pid in text.split_whitespace() {
        assert!(has_ended(pid).await, "{pid} still runs");
    }
}

/// Waits, within a bound, until a process is gone or a zombie.
async fn has_ended(pid: &str) -> bool {
    for _ in 0..200 {
        let stat = std::fs::read_to_string(Path::new("/proc").join(pid).join("stat"));
        match stat {
            Ok(stat) if !stat.contains(") Z ") => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            _ => return true,
        }
    }
    false
}

#[tokio::test]
async fn only_a_configured_command_is_run() {
    let minter = running("exit 0");
    let unknown = order(Strategy::Exec, "", &[("command", "/bin/sh")], &[]);
    let found = problems(&minter, &unknown);
    assert!(found[0].starts_with("command: is not among"), "{found:?}");
    let failure = minter.mint(unknown).await.unwrap_err();
    assert_eq!(failure.class, ConfigRefused);
    let none = support::minter(|_| ());
    let found = problems(
        &none,
        &order(Strategy::Exec, "", &[("command", "vault")], &[]),
    );
    assert!(found[0].contains("configuration has none"), "{found:?}");
}

#[tokio::test]
async fn a_pushed_credential_takes_no_endpoint_and_mints_nothing() {
    let minter = minter(|_| ());
    assert_eq!(
        problems(&minter, &order(Strategy::External, "", &[], &[])),
        [""; 0]
    );
    let bad = order(
        Strategy::External,
        "https://idp.example/",
        &[("a", "b")],
        &[],
    );
    let found = problems(&minter, &bad);
    assert!(
        found.iter().any(|p| p.starts_with("token_url")),
        "{found:?}"
    );
    assert!(
        found.iter().any(|p| p.starts_with("a: is no material")),
        "{found:?}"
    );
    let failure = minter.mint(order(Strategy::External, "", &[], &[])).await;
    assert_eq!(failure.unwrap_err().class, ConfigRefused);
}
