//! Every strategy against everything that an issuer may do. A row for each strategy, in the shape
//! of its real issuer's answers; a test for each column.
//!
//! To add a strategy, add its row to [`ROWS`]; the first test fails until it is there.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use evermint_core::id::CredentialKey;
use evermint_core::mint::{Failure, FailureClass, MintOrder, Minted};
use evermint_core::port::Minter;
use evermint_core::strategy::Strategy;
use evermint_minter::{ANSWER_MAX, HttpMinter};
use serde_json::json;
use support::{
    EndsWhenTold, Issuer, RSA, Reply, Seen, http, json as reply, minter, order, refresh_order,
};

use FailureClass::{ConfigRefused, GrantRefused, Throttled, Transient, Unclear, UnknownRefusal};

/// How an answer tells the lifetime of its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Hour,
    Absent,
    Null,
    Zero,
    Negative,
    TenYears,
    /// An hour, as a string where the field is a number; some words where it is a date.
    Text,
}

/// A refusal that no retry changes, as the issuer words it.
struct Refused {
    status: u16,
    body: &'static str,
    class: FailureClass,
    /// What the cause has to hold of the issuer's words.
    cause: &'static str,
    /// What the remedy has to hold.
    remedy: &'static str,
}

/// One strategy and its issuer.
struct Row {
    name: &'static str,
    strategy: Strategy,
    /// An order for an issuer at this URL, whose endpoint is `/token` unless it has more of them.
    order: fn(base: &str) -> MintOrder,
    /// The status and the body of an answer with the token `at-1`.
    success: fn(Life) -> (u16, String),
    /// What [`Life::Text`] is read as.
    text: Option<Duration>,
    refused: Refused,
    /// What another endpoint answers before: its path and the body.
    before: Option<(&'static str, &'static str)>,
}

const HOUR: Duration = Duration::from_secs(3_600);

/// The strategies that send nothing over HTTP have no column here to stand in.
const ELSEWHERE: &[&str] = &["exec", "external"];

const ROWS: &[Row] = &[
    Row {
        name: "oauth2-refresh-token",
        strategy: Strategy::OAuth2RefreshToken,
        order: |base| refresh_order(&token(base)),
        success: |life| {
            let body = format!(
                r#"{{"access_token":"at-1","token_type":"Bearer","refresh_token":"rt-2-canary"{}}}"#,
                expires_in(life)
            );
            (200, body)
        },
        text: Some(HOUR),
        refused: Refused {
            status: 400,
            body: r#"{"error":"invalid_grant","error_description":"grant request is invalid"}"#,
            class: GrantRefused,
            cause: "invalid_grant (HTTP 400): grant request is invalid",
            remedy: "authorize again",
        },
        before: None,
    },
    Row {
        name: "oauth2-client-credentials, Entra with a secret",
        strategy: Strategy::OAuth2ClientCredentials,
        order: |base| {
            let mut order = order(
                Strategy::OAuth2ClientCredentials,
                &token(base),
                &[("client_id", "app")],
                &[("client_secret", "client-secret-canary")],
            );
            order.config.scopes = vec!["https://graph.microsoft.com/.default".to_owned()];
            order
        },
        success: plain,
        text: Some(HOUR),
        refused: Refused {
            status: 401,
            body: r#"{"error":"invalid_client","error_description":"AADSTS7000222: The provided client secret keys for app 'app' are expired. Trace ID: 0-1 Correlation ID: 0-2","error_codes":[7000222],"trace_id":"0-1","correlation_id":"0-2"}"#,
            class: ConfigRefused,
            cause: "AADSTS7000222",
            remedy: "expired",
        },
        before: None,
    },
    Row {
        name: "oauth2-client-credentials, private_key_jwt",
        strategy: Strategy::OAuth2ClientCredentials,
        order: |base| {
            order(
                Strategy::OAuth2ClientCredentials,
                &token(base),
                &[("client_id", "app"), ("client_auth", "private_key_jwt")],
                &[("client_private_key", &RSA)],
            )
        },
        success: plain,
        text: Some(HOUR),
        refused: Refused {
            status: 401,
            body: r#"{"error":"invalid_client","error_description":"client authentication failed"}"#,
            class: ConfigRefused,
            cause: "client authentication failed",
            remedy: "key",
        },
        before: None,
    },
    Row {
        name: "google-service-account-jwt",
        strategy: Strategy::GoogleServiceAccountJwt,
        order: |base| {
            let mut order = order(
                Strategy::GoogleServiceAccountJwt,
                &token(base),
                &[("client_email", "robot@p.iam.gserviceaccount.com")],
                &[("private_key", &RSA)],
            );
            order.config.scopes = vec![CLOUD.to_owned()];
            order
        },
        success: plain,
        text: Some(HOUR),
        refused: Refused {
            status: 400,
            body: r#"{"error":"invalid_grant","error_description":"Invalid JWT Signature."}"#,
            class: GrantRefused,
            cause: "Invalid JWT Signature.",
            remedy: "new key file",
        },
        before: None,
    },
    Row {
        name: "google-authorized-user",
        strategy: Strategy::GoogleAuthorizedUser,
        order: |base| {
            let file = json!({
                "type": "authorized_user",
                "client_id": "764086051850.apps.googleusercontent.com",
                "client_secret": "client-secret-canary",
                "refresh_token": "refresh-token-canary",
                "quota_project_id": "p",
                "universe_domain": "googleapis.com",
            });
            order(
                Strategy::GoogleAuthorizedUser,
                &token(base),
                &[],
                &[("authorized_user_json", &file.to_string())],
            )
        },
        success: plain,
        text: Some(HOUR),
        refused: Refused {
            status: 400,
            body: r#"{"error":"invalid_grant","error_description":"reauth related error (invalid_rapt)","error_uri":"https://support.google.com/a/answer/9368756","error_subtype":"invalid_rapt"}"#,
            class: GrantRefused,
            cause: "invalid_grant (invalid_rapt)",
            remedy: "session control",
        },
        before: None,
    },
    Row {
        name: "google-external-account",
        strategy: Strategy::GoogleExternalAccount,
        order: |base| federated(base, false),
        success: |life| {
            let body = format!(
                r#"{{"access_token":"at-1","issued_token_type":"urn:ietf:params:oauth:token-type:access_token","token_type":"Bearer"{}}}"#,
                expires_in(life)
            );
            (200, body)
        },
        text: Some(HOUR),
        refused: Refused {
            status: 400,
            body: r#"{"error":"invalid_grant","error_description":"The audience in ID Token [a] does not match the expected audience."}"#,
            class: GrantRefused,
            cause: "does not match the expected audience",
            remedy: "workload identity pool",
        },
        before: None,
    },
    Row {
        name: "google-external-account, impersonating",
        strategy: Strategy::GoogleExternalAccount,
        order: |base| federated(base, true),
        success: |life| {
            let body = format!(r#"{{"accessToken":"at-1"{}}}"#, expire_time(life));
            (200, body)
        },
        text: None,
        refused: Refused {
            status: 403,
            body: r#"{"error":{"code":403,"message":"Permission 'iam.serviceAccounts.getAccessToken' denied on resource (or it may not exist).","status":"PERMISSION_DENIED","details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"IAM_PERMISSION_DENIED","domain":"iam.googleapis.com","metadata":{"permission":"iam.serviceAccounts.getAccessToken"}}]}}"#,
            // A binding that was made a moment ago takes minutes to be known.
            class: UnknownRefusal,
            cause: "iam.serviceAccounts.getAccessToken",
            remedy: "Workload Identity User",
        },
        before: Some((
            "/token",
            r#"{"access_token":"federated-canary","issued_token_type":"urn:ietf:params:oauth:token-type:access_token","token_type":"Bearer","expires_in":3600}"#,
        )),
    },
    Row {
        name: "oauth2-token-exchange",
        strategy: Strategy::OAuth2TokenExchange,
        order: |base| {
            order(
                Strategy::OAuth2TokenExchange,
                &token(base),
                &[("client_id", "app")],
                &[
                    ("subject_token", "subject-token-canary"),
                    ("client_secret", "client-secret-canary"),
                ],
            )
        },
        success: |life| {
            let body = format!(
                r#"{{"access_token":"at-1","issued_token_type":"urn:ietf:params:oauth:token-type:jwt","token_type":"N_A"{}}}"#,
                expires_in(life)
            );
            (200, body)
        },
        text: Some(HOUR),
        refused: Refused {
            status: 400,
            body: r#"{"error":"invalid_request","error_description":"Invalid token"}"#,
            class: ConfigRefused,
            cause: "invalid_request (HTTP 400): Invalid token",
            remedy: "correct",
        },
        before: None,
    },
    Row {
        name: "oauth2-jwt-bearer",
        strategy: Strategy::OAuth2JwtBearer,
        order: |base| {
            order(
                Strategy::OAuth2JwtBearer,
                &token(base),
                &[("assertion_issuer", "app"), ("subject", "user@example.com")],
                &[("private_key", &RSA)],
            )
        },
        success: plain,
        text: Some(HOUR),
        refused: Refused {
            status: 400,
            body: r#"{"error":"invalid_grant","error_description":"user hasn't approved this consumer"}"#,
            class: GrantRefused,
            cause: "user hasn't approved this consumer",
            remedy: "consented",
        },
        before: None,
    },
    Row {
        name: "ibm-iam-apikey",
        strategy: Strategy::IbmIamApikey,
        order: |base| {
            order(
                Strategy::IbmIamApikey,
                &token(base),
                &[],
                &[("api_key", "api-key-canary")],
            )
        },
        success: |life| {
            let expiration = match life {
                Life::Hour => format!(r#","expiration":{}"#, unix_now() + 3_600),
                _ => String::new(),
            };
            let body = format!(
                r#"{{"access_token":"at-1","refresh_token":"not_supported","ims_user_id":1,"token_type":"Bearer"{}{expiration},"scope":"ibm openid"}}"#,
                expires_in(life)
            );
            (200, body)
        },
        text: Some(HOUR),
        refused: Refused {
            status: 400,
            body: r#"{"context":{"requestId":"bWt0-1","requestType":"incoming.Identity_Token","clientIp":"192.0.2.1","instanceId":"tokenservice-1"},"errorCode":"BXNIM0415E","errorMessage":"Provided API key could not be found."}"#,
            // Seen in passing, too (terraform-provider-ibm issue 3561).
            class: UnknownRefusal,
            cause: "BXNIM0415E (HTTP 400, request bWt0-1): Provided API key could not be found.",
            remedy: "API key",
        },
        before: None,
    },
    Row {
        name: "aws-sts-assume-role",
        strategy: Strategy::AwsStsAssumeRole,
        order: |base| {
            role(order(
                Strategy::AwsStsAssumeRole,
                &token(base),
                &[
                    ("access_key_id", "AKIA1"),
                    ("region", "eu-central-1"),
                    ("role_arn", "arn:aws:iam::123456789012:role/agent"),
                ],
                &[("secret_access_key", "secret-access-key-canary")],
            ))
        },
        success: |life| (200, session("AssumeRole", life)),
        text: None,
        refused: Refused {
            status: 403,
            body: "<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>User: arn:aws:iam::123456789012:user/a is not authorized to perform: sts:AssumeRole</Message></Error><RequestId>1</RequestId></ErrorResponse>",
            class: ConfigRefused,
            cause: "AccessDenied (HTTP 403, request 1): User: arn:aws:iam::123456789012:user/a is not",
            remedy: "trust policy",
        },
        before: None,
    },
    Row {
        name: "aws-sts-web-identity",
        strategy: Strategy::AwsStsWebIdentity,
        order: |base| {
            role(order(
                Strategy::AwsStsWebIdentity,
                &token(base),
                &[("role_arn", "arn:aws:iam::123456789012:role/agent")],
                &[("web_identity_token", "web-identity-token-canary")],
            ))
        },
        success: |life| (200, session("AssumeRoleWithWebIdentity", life)),
        text: None,
        refused: Refused {
            status: 400,
            body: "<ErrorResponse><Error><Type>Sender</Type><Code>ExpiredTokenException</Code><Message>Token expired: current date/time 1 must be before the expiration date/time 0</Message></Error><RequestId>1</RequestId></ErrorResponse>",
            class: GrantRefused,
            cause: "ExpiredTokenException (HTTP 400, request 1): Token expired",
            remedy: "give a fresh one",
        },
        before: None,
    },
    Row {
        name: "github-app-installation",
        strategy: Strategy::GitHubAppInstallation,
        order: |base| {
            order(
                Strategy::GitHubAppInstallation,
                base,
                &[("app_id", "Iv1.abc"), ("installation_id", "42")],
                &[("private_key", &RSA)],
            )
        },
        success: |life| {
            let end = expire_time(life).replace("expireTime", "expires_at");
            let body = format!(
                r#"{{"token":"at-1","permissions":{{"contents":"read"}},"repository_selection":"all"{end}}}"#
            );
            (201, body)
        },
        text: None,
        refused: Refused {
            status: 404,
            body: r#"{"message":"Not Found","documentation_url":"https://docs.github.com/rest","status":"404"}"#,
            class: GrantRefused,
            cause: "HTTP 404: Not Found",
            remedy: "uninstalled",
        },
        before: None,
    },
];

const CLOUD: &str = "https://www.googleapis.com/auth/cloud-platform";

fn token(base: &str) -> String {
    format!("{base}/token")
}

/// The answer of an issuer that does as RFC 6749 says.
fn plain(life: Life) -> (u16, String) {
    let fields = r#""access_token":"at-1","token_type":"Bearer""#;
    (200, format!("{{{fields}{}}}", expires_in(life)))
}

fn expires_in(life: Life) -> String {
    let value = match life {
        Life::Hour => "3600",
        Life::Absent => return String::new(),
        Life::Null => "null",
        Life::Zero => "0",
        Life::Negative => "-3600",
        Life::TenYears => "315360000",
        Life::Text => r#""3600""#,
    };
    format!(r#","expires_in":{value}"#)
}

/// The end of a token as RFC 3339 writes it.
fn expire_time(life: Life) -> String {
    let after = match life {
        Life::Hour => 3_600,
        Life::Absent => return String::new(),
        Life::Null => return r#","expireTime":null"#.to_owned(),
        Life::Zero => 0,
        Life::Negative => -3_600,
        Life::TenYears => 315_360_000,
        Life::Text => return r#","expireTime":"soon""#.to_owned(),
    };
    let end = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(after);
    format!(r#","expireTime":"{end}""#)
}

/// The outputs of a session beside its key id.
fn role(mut order: MintOrder) -> MintOrder {
    let outputs = ["secret_access_key", "session_token"];
    order.config.outputs = outputs
        .map(|output| {
            let key = CredentialKey::new(output.to_uppercase()).unwrap();
            (output.to_owned(), key)
        })
        .into();
    order
}

/// The answer of AWS STS.
fn session(action: &str, life: Life) -> String {
    let end = expire_time(life);
    let end = match end.split('"').nth(3) {
        Some(end) => format!("<Expiration>{end}</Expiration>"),
        None if end.is_empty() => String::new(),
        None => "<Expiration/>".to_owned(),
    };
    format!(
        "<{action}Response><{action}Result><Credentials><AccessKeyId>at-1</AccessKeyId>\
         <SecretAccessKey>sk-1-canary</SecretAccessKey><SessionToken>st-1-canary</SessionToken>{end}\
         </Credentials></{action}Result></{action}Response>"
    )
}

fn unix_now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap().as_secs()
}

fn federated(base: &str, impersonating: bool) -> MintOrder {
    let mut file = json!({
        "type": "external_account",
        "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/x",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": token(base),
        "universe_domain": "googleapis.com",
    });
    if impersonating {
        let url = format!(
            "{base}/v1/projects/-/serviceAccounts/robot@p.iam.gserviceaccount.com:generateAccessToken"
        );
        file["service_account_impersonation_url"] = json!(url);
    }
    let mut order = order(
        Strategy::GoogleExternalAccount,
        "",
        &[],
        &[
            ("external_account_json", &file.to_string()),
            ("subject_token", "subject-token-canary"),
        ],
    );
    order.config.scopes = vec![CLOUD.to_owned()];
    order
}

/// One for all cells: limits are counted for each issuer, and every cell has its own.
static MINTER: LazyLock<HttpMinter> = LazyLock::new(|| {
    // Everything is on loopback, and listed: files may name their endpoints.
    minter(|config| config.allow_endpoints = vec!["127.0.0.1".parse().unwrap()])
});

/// One issuer that treats the last request of a mint like `last`.
struct World {
    issuer: Issuer,
    base: String,
}

impl World {
    async fn new(row: &Row, last: Reply) -> Self {
        let before = row.before;
        let issuer = Issuer::start(Reply::Choose(Arc::new(move |seen| match before {
            Some((path, body)) if seen.head.starts_with(&format!("POST {path} ")) => {
                Reply::Raw(reply(200, body))
            }
            _ => last.clone(),
        })))
        .await;
        let base = issuer.url.trim_end_matches("/token").to_owned();
        Self { issuer, base }
    }

    async fn mint(&self, row: &Row) -> Result<Minted, Failure> {
        let order = (row.order)(&self.base);
        let problems = MINTER.validate(&order.config, &order.secrets);
        assert_eq!(problems, [], "{}", row.name);
        MINTER.mint(order).await
    }
}

/// How many requests one mint of the row is.
fn requests(row: &Row) -> usize {
    1 + usize::from(row.before.is_some())
}

/// What an answer that is lost, or cannot be read, is.
fn lost(row: &Row) -> FailureClass {
    match row.strategy.consumes_material() {
        true => Unclear,
        false => Transient,
    }
}

/// Runs one mint of every row against `last`, which fails as it should and shows no secret.
async fn check(last: Reply, class: impl Fn(&Row) -> FailureClass, cause: &str) {
    for row in ROWS {
        let world = World::new(row, last.clone()).await;
        let failure = world.mint(row).await.unwrap_err();
        assert_eq!(failure.class, class(row), "{}: {failure:?}", row.name);
        assert!(failure.cause.contains(cause), "{}: {failure:?}", row.name);
        assert!(!format!("{failure:?}").contains("canary"), "{failure:?}");
        // One try: what comes next is the owner's decision.
        assert_eq!(world.issuer.seen().len(), requests(row), "{}", row.name);
    }
}

#[test]
fn every_strategy_has_a_row() {
    let rows = ROWS.iter().map(|row| row.strategy.as_str());
    let covered: BTreeSet<&str> = rows.chain(ELSEWHERE.iter().copied()).collect();
    let all: BTreeSet<&str> = Strategy::ALL.iter().map(|s| s.as_str()).collect();
    assert_eq!(covered, all);
}

#[tokio::test]
async fn every_strategy_mints_and_mints_again_with_what_the_first_mint_gave() {
    for row in ROWS {
        let (status, body) = (row.success)(Life::Hour);
        let world = World::new(row, Reply::Raw(reply(status, &body))).await;
        let mut order = (row.order)(&world.base);
        for _ in 0..2 {
            let minted = MINTER.mint(order.clone()).await.unwrap();
            assert_eq!(minted.token.expose(), b"at-1", "{}", row.name);
            let life = minted.lifetime.unwrap();
            assert!(
                (HOUR - Duration::from_secs(60)..=HOUR).contains(&life),
                "{}",
                row.name
            );
            assert!(row.strategy.consumes_material() || minted.new_material.is_empty());
            order.secrets.extend(minted.new_material);
        }
        let seen = world.issuer.seen();
        assert_eq!(seen.len(), 2 * requests(row), "{}", row.name);
        if row.strategy.consumes_material() {
            let sent: Vec<_> = seen
                .iter()
                .map(|s| s.form()["refresh_token"].clone())
                .collect();
            assert_eq!(sent, ["refresh-token-canary", "rt-2-canary"]);
        }
    }
}

#[tokio::test]
async fn a_failure_in_passing_is_transient_and_a_pause_is_kept() {
    let busy = |status| http(status, "Retry-After: 7\r\n", "busy");
    check(Reply::Raw(busy(503)), |_| Transient, "HTTP 503").await;
    check(Reply::Raw(busy(429)), |_| Throttled, "HTTP 429").await;
    check(Reply::Raw(busy(500)), lost, "HTTP 500").await;
    check(Reply::Close, lost, "no complete answer").await;
    for row in ROWS {
        let world = World::new(row, Reply::Raw(busy(503))).await;
        let failure = world.mint(row).await.unwrap_err();
        assert_eq!(failure.retry_after_ms, Some(7_000), "{}", row.name);
    }
}

#[tokio::test]
async fn a_refusal_is_told_in_the_issuers_words_with_a_remedy() {
    for row in ROWS {
        let refused = &row.refused;
        let answer = reply(refused.status, refused.body);
        let world = World::new(row, Reply::Raw(answer)).await;
        let failure = world.mint(row).await.unwrap_err();
        assert_eq!(failure.class, refused.class, "{}: {failure:?}", row.name);
        assert!(
            failure.cause.contains(refused.cause),
            "{}: {failure:?}",
            row.name
        );
        assert!(
            failure.remedy.contains(refused.remedy),
            "{}: {failure:?}",
            row.name
        );
        assert!(!format!("{failure:?}").contains("canary"), "{failure:?}");
    }
}

#[tokio::test]
async fn a_body_that_is_too_long_is_not_read() {
    let long = "x".repeat(ANSWER_MAX + 1);
    let body = format!(r#"{{"access_token":"{long}","expires_in":3600}}"#);
    check(
        Reply::Raw(reply(200, &body)),
        lost,
        "a body that is too long",
    )
    .await;
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = Issuer::start(Reply::Raw(reply(200, r#"{"access_token":"stolen"}"#))).await;
    for status in [301, 302, 303, 307, 308] {
        let location = format!("Location: {}?code=canary\r\n", elsewhere.url);
        let answer = Reply::Raw(http(status, &location, ""));
        let target = format!("redirects to {} (HTTP {status})", elsewhere.url);
        check(answer, |_| ConfigRefused, &target).await;
    }
    assert!(elsewhere.seen().is_empty());
}

#[tokio::test]
async fn a_body_that_is_no_answer_gives_no_token() {
    for (body, cause) in [
        ("<html>hello</html>", "no token response"),
        (r#"{"access_token":"at-"#, "no token response"),
        (r#"["at-1"]"#, "no token response"),
        ("", "an empty body"),
    ] {
        check(Reply::Raw(reply(200, body)), lost, cause).await;
    }
}

#[tokio::test]
async fn a_lifetime_that_is_missing_or_absurd_counts_as_not_given() {
    for row in ROWS {
        for (life, expected) in [
            (Life::Absent, None),
            (Life::Null, None),
            (Life::Zero, None),
            (Life::Negative, None),
            (Life::TenYears, None),
            (Life::Text, row.text),
        ] {
            let (status, body) = (row.success)(life);
            let world = World::new(row, Reply::Raw(reply(status, &body))).await;
            let minted = world.mint(row).await.unwrap();
            assert_eq!(minted.token.expose(), b"at-1", "{} {life:?}", row.name);
            assert_eq!(minted.lifetime, expected, "{} {life:?}", row.name);
        }
    }
}

#[tokio::test]
async fn an_answer_that_drips_is_cut_off_at_the_tickets_end() {
    for row in ROWS {
        let (status, body) = (row.success)(Life::Hour);
        let padded = format!("{}{body}", " ".repeat(100_000));
        let world = World::new(row, Reply::Drip(reply(status, &padded))).await;
        let mut order = (row.order)(&world.base);
        let fence = Arc::new(EndsWhenTold::default());
        order.fence = fence.clone();
        let whole = |seen: &[Seen]| {
            seen.len() == requests(row) && seen.last().is_some_and(|last| !last.body.is_empty())
        };
        let ending = async {
            world.issuer.until("the last request was read", whole).await;
            fence.end();
        };
        let (minted, ()) = futures::join!(MINTER.mint(order), ending);
        let failure = minted.unwrap_err();
        assert_eq!(failure.class, lost(row), "{}: {failure:?}", row.name);
        let cause = "did not answer before the ticket ended";
        assert!(failure.cause.contains(cause), "{}: {failure:?}", row.name);
        let cut = |seen: &[Seen]| seen.last().is_some_and(|last| last.closed);
        world.issuer.until("the connection is closed", cut).await;
    }
}
