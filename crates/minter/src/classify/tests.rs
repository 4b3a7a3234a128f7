//! Which answers mean what, as tables.

use super::*;
use evermint_core::mint::FAILURE_TEXT_MAX;
use evermint_core::secret::Secret;
use http::StatusCode;
use zeroize::Zeroizing;

use FailureClass::{
    ConfigRefused, GrantRefused, Throttled, Transient, Unclear, UnknownRefusal, Unsent,
};
use Strategy::{GoogleServiceAccountJwt, OAuth2ClientCredentials, OAuth2RefreshToken};

fn answer(status: u16, headers: &[(&'static str, &str)], body: &str) -> Answer {
    Answer {
        status: StatusCode::from_u16(status).unwrap(),
        headers: headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
            .collect(),
        body: Some(Zeroizing::new(body.as_bytes().to_vec())),
        received_at: http_date("Mon, 02 Nov 2026 10:00:00 GMT").unwrap(),
    }
}

fn judge(strategy: Strategy, answer: &Answer) -> Failure {
    let redactor = Redactor::new([&Secret::from("canary-0123456789-canary")]);
    let why = crate::response::read(answer, crate::response::Wanted::AccessToken).unwrap_err();
    let judge = Judge {
        strategy,
        redactor: &redactor,
        proof: match strategy {
            GoogleServiceAccountJwt => Proof::Dated,
            _ => Proof::Lasting,
        },
    };
    judge.answer(answer, why)
}

fn class(strategy: Strategy, status: u16, body: &str) -> FailureClass {
    judge(strategy, &answer(status, &[], body)).class
}

fn coded(code: &str) -> String {
    format!(r#"{{"error":"{code}"}}"#)
}

#[test]
fn a_reason_that_no_retry_changes_is_final_under_the_statuses_made_for_it() {
    for (code, refresh, client) in [
        ("invalid_grant", GrantRefused, ConfigRefused),
        ("bad_refresh_token", GrantRefused, ConfigRefused),
        ("interaction_required", GrantRefused, ConfigRefused),
        ("invalid_client", ConfigRefused, ConfigRefused),
        ("unauthorized_client", ConfigRefused, ConfigRefused),
        ("unsupported_grant_type", ConfigRefused, ConfigRefused),
        ("invalid_scope", ConfigRefused, ConfigRefused),
        ("invalid_request", ConfigRefused, ConfigRefused),
        ("temporarily_unavailable", Transient, Transient),
        ("server_error", Transient, Transient),
        ("slow_down", Throttled, Throttled),
        ("something_new", UnknownRefusal, UnknownRefusal),
    ] {
        for status in [200, 400, 401, 403] {
            let body = coded(code);
            assert_eq!(
                class(OAuth2RefreshToken, status, &body),
                refresh,
                "{code} {status}"
            );
            assert_eq!(
                class(OAuth2ClientCredentials, status, &body),
                client,
                "{code} {status}"
            );
        }
        for (status, expected) in [(408, Transient), (429, Throttled), (503, Transient)] {
            assert_eq!(class(OAuth2RefreshToken, status, &coded(code)), expected);
        }
        for status in [500, 502, 504] {
            assert_eq!(class(OAuth2RefreshToken, status, &coded(code)), Unclear);
        }
    }
}

#[test]
fn an_answer_without_a_reason_is_judged_by_its_status() {
    for (status, body, consuming, other) in [
        (200, "", Unclear, Transient),
        (200, "<html>", Unclear, Transient),
        (200, r#"{"access_token":""}"#, Unclear, Transient),
        (200, r#"{"access_token":"to"#, Unclear, Transient),
        (204, "", Unclear, Transient),
        (301, "", ConfigRefused, ConfigRefused),
        (307, "", ConfigRefused, ConfigRefused),
        (400, "", UnknownRefusal, UnknownRefusal),
        (400, "oops", UnknownRefusal, UnknownRefusal),
        (400, "[]", UnknownRefusal, UnknownRefusal),
        (401, "", UnknownRefusal, UnknownRefusal),
        (403, "", UnknownRefusal, UnknownRefusal),
        (403, " <!DOCTYPE html>", Throttled, Throttled),
        (404, "", UnknownRefusal, UnknownRefusal),
        (
            404,
            r#"{"error":"invalid_grant"}"#,
            UnknownRefusal,
            UnknownRefusal,
        ),
        (405, "", UnknownRefusal, UnknownRefusal),
        (408, "", Transient, Transient),
        (
            422,
            r#"{"error":"invalid_client"}"#,
            UnknownRefusal,
            UnknownRefusal,
        ),
        (429, "", Throttled, Throttled),
        (500, "", Unclear, Transient),
        (501, "", Unclear, Transient),
        (502, "<html>", Unclear, Transient),
        (503, "", Transient, Transient),
        (504, "", Unclear, Transient),
        (520, "", Unclear, Transient),
    ] {
        assert_eq!(
            class(OAuth2RefreshToken, status, body),
            consuming,
            "{status} {body}"
        );
        assert_eq!(
            class(OAuth2ClientCredentials, status, body),
            other,
            "{status} {body}"
        );
        assert_eq!(
            class(GoogleServiceAccountJwt, status, body),
            other,
            "{status} {body}"
        );
    }
    let page = answer(
        403,
        &[("content-type", "text/HTML; charset=utf-8")],
        "Sorry",
    );
    assert_eq!(judge(OAuth2RefreshToken, &page).class, Throttled);
}

#[test]
fn a_body_that_was_too_long_is_unclear_only_under_success() {
    for (status, expected) in [(200, Unclear), (400, UnknownRefusal), (500, Unclear)] {
        let mut answer = answer(status, &[], "");
        answer.body = None;
        assert_eq!(judge(OAuth2RefreshToken, &answer).class, expected);
    }
}

#[test]
fn no_answer_is_unsent_or_lost() {
    let redactor = Redactor::default();
    for (strategy, lost) in [
        (OAuth2RefreshToken, Unclear),
        (OAuth2ClientCredentials, Transient),
        (GoogleServiceAccountJwt, Transient),
    ] {
        let judge = Judge {
            strategy,
            redactor: &redactor,
            proof: Proof::Lasting,
        };
        let unsent = judge.no_answer(NoAnswer::Unsent {
            cause: "no route".to_owned(),
            retry_after: Some(Duration::from_secs(3)),
        });
        assert_eq!(unsent.class, Unsent);
        assert_eq!(unsent.retry_after_ms, Some(3_000));
        let cause = "torn".to_owned();
        assert_eq!(judge.no_answer(NoAnswer::Lost { cause }).class, lost);
        let refused = crate::EndpointRefused("must be https".to_owned());
        let refused = judge.no_answer(NoAnswer::Refused(refused));
        assert_eq!(refused.class, ConfigRefused);
        assert!(!refused.remedy.is_empty());
    }
}

#[test]
fn the_cause_is_the_issuers_own_words() {
    for (status, headers, body, cause) in [
        (
            400,
            &[][..],
            r#"{"error":"invalid_grant","error_description":"Token has been revoked.","error_subtype":"x"}"#,
            "invalid_grant (x) (HTTP 400): Token has been revoked.",
        ),
        (
            401,
            &[],
            r#"{"error":"invalid_client"}"#,
            "invalid_client (HTTP 401)",
        ),
        (400, &[], "", "HTTP 400 without an error code"),
        (
            401,
            &[],
            r#"{"error":{"code":"refresh_token_reused","message":"Used before"}}"#,
            "refresh_token_reused (HTTP 401): Used before",
        ),
        (
            400,
            &[],
            r#"{"errorCode":"BXNIM0415E","errorMessage":"No key"}"#,
            "BXNIM0415E (HTTP 400): No key",
        ),
        (
            404,
            &[],
            r#"{"message":"Not Found"}"#,
            "HTTP 404: Not Found",
        ),
        (
            200,
            &[],
            "<html>",
            "HTTP 200 with a body that is no token response",
        ),
        (
            302,
            &[("location", "https://login.example/sign-in?code=secret#x")],
            "",
            "token endpoint redirects to https://login.example/sign-in (HTTP 302)",
        ),
        (
            307,
            &[("location", "/other?x=y")],
            "",
            "token endpoint redirects to /other (HTTP 307)",
        ),
        (
            301,
            &[],
            "",
            "token endpoint redirects to nowhere (HTTP 301)",
        ),
        (
            400,
            &[],
            "{\"error\":\"x\",\"error_description\":\"a\\nb\\u001b[1mc canary-0123456789-canary\"}",
            "x (HTTP 400): a b [1mc [redacted]",
        ),
    ] {
        let failure = judge(OAuth2RefreshToken, &answer(status, headers, body));
        assert_eq!(failure.cause, cause);
    }
    let long = format!(
        r#"{{"error":"x","error_description":"{}"}}"#,
        "y".repeat(5_000)
    );
    let failure = judge(OAuth2RefreshToken, &answer(400, &[], &long));
    assert!(failure.cause.len() <= FAILURE_TEXT_MAX);
}

#[test]
fn what_issuers_really_say_gets_a_remedy_that_fits() {
    for (strategy, status, body, class, cause, word) in [
        (
            OAuth2ClientCredentials,
            401,
            r#"{"error":"invalid_client","error_description":"AADSTS7000222: The provided client secret keys for app 'x' are expired. Trace ID: 1"}"#,
            ConfigRefused,
            "AADSTS7000222",
            "expired",
        ),
        (
            OAuth2ClientCredentials,
            401,
            r#"{"error":"invalid_client","error_codes":[7000222]}"#,
            ConfigRefused,
            "invalid_client (HTTP 401)",
            "expired",
        ),
        (
            OAuth2ClientCredentials,
            401,
            r#"{"error":"invalid_client","error_codes":[7000215]}"#,
            ConfigRefused,
            "",
            "its value, not its id",
        ),
        (
            OAuth2ClientCredentials,
            400,
            r#"{"error":"unauthorized_client","error_codes":[700016]}"#,
            ConfigRefused,
            "",
            "tenant",
        ),
        (
            OAuth2ClientCredentials,
            401,
            r#"{"error":"invalid_client","error_codes":[700027]}"#,
            ConfigRefused,
            "",
            "certificate",
        ),
        (
            OAuth2RefreshToken,
            400,
            r#"{"error":"invalid_grant","error_codes":[700082],"suberror":"bad_token"}"#,
            GrantRefused,
            "invalid_grant (bad_token)",
            "idle",
        ),
        (
            OAuth2RefreshToken,
            400,
            r#"{"error":"invalid_grant","error_codes":[50173]}"#,
            GrantRefused,
            "",
            "revoked",
        ),
        (
            Strategy::GoogleAuthorizedUser,
            400,
            r#"{"error":"invalid_grant","error_description":"reauth related error (invalid_rapt)","error_subtype":"invalid_rapt"}"#,
            GrantRefused,
            "invalid_grant (invalid_rapt) (HTTP 400): reauth",
            "session control",
        ),
        (
            GoogleServiceAccountJwt,
            400,
            r#"{"error":"invalid_grant","error_description":"Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe. Check your iat and exp values in the JWT claim."}"#,
            GrantRefused,
            "short-lived",
            "clock",
        ),
        (
            GoogleServiceAccountJwt,
            400,
            r#"{"error":"invalid_grant","error_description":"Invalid JWT Signature."}"#,
            GrantRefused,
            "",
            "new key file",
        ),
        (
            GoogleServiceAccountJwt,
            401,
            r#"{"error":"unauthorized_client","error_description":"Client is unauthorized to retrieve access tokens using this method, or client not authorized for any of the scopes requested."}"#,
            ConfigRefused,
            "",
            "domain-wide delegation",
        ),
        (
            Strategy::GoogleExternalAccount,
            403,
            r#"{"error":{"code":403,"message":"Permission 'iam.serviceAccounts.getAccessToken' denied on resource (or it may not exist).","status":"PERMISSION_DENIED","details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"IAM_PERMISSION_DENIED","domain":"iam.googleapis.com"}]}}"#,
            UnknownRefusal,
            "PERMISSION_DENIED (IAM_PERMISSION_DENIED) (HTTP 403): Permission",
            "Workload Identity User",
        ),
        (
            Strategy::GoogleExternalAccount,
            403,
            r#"{"error":{"code":403,"message":"IAM Service Account Credentials API has not been used in project 1 before or it is disabled.","status":"PERMISSION_DENIED","details":[{"reason":"SERVICE_DISABLED"}]}}"#,
            UnknownRefusal,
            "SERVICE_DISABLED",
            "enable the API",
        ),
        (
            Strategy::GoogleExternalAccount,
            503,
            r#"{"error":{"code":503,"message":"The service is currently unavailable.","status":"UNAVAILABLE"}}"#,
            Transient,
            "UNAVAILABLE",
            "",
        ),
        (
            Strategy::IbmIamApikey,
            400,
            r#"{"context":{"requestId":"r-1"},"errorCode":"BXNIM0415E","errorMessage":"Provided API key could not be found."}"#,
            UnknownRefusal,
            "BXNIM0415E (HTTP 400, request r-1): Provided API key",
            "API key is unknown",
        ),
    ] {
        let failure = judge(strategy, &answer(status, &[], body));
        assert_eq!(failure.class, class, "{body}");
        assert!(failure.cause.contains(cause), "{}", failure.cause);
        assert!(failure.remedy.contains(word), "{}", failure.remedy);
    }
}

#[test]
fn a_pause_is_read_in_seconds_or_as_a_date_and_bounded() {
    let date = ("date", "Mon, 02 Nov 2026 12:00:00 GMT");
    for (value, expected) in [
        ("30", Some(30_000)),
        ("0", Some(0)),
        ("1.5", Some(1_500)),
        ("-5", Some(0)),
        ("99999999999", Some(RETRY_AFTER_MAX_MS)),
        ("NaN", None),
        ("Mon, 02 Nov 2026 12:00:20 GMT", Some(20_000)),
        ("Mon, 02 Nov 2026 11:00:00 GMT", Some(0)),
        ("Mon, 02 Nov 2099 12:00:00 GMT", Some(RETRY_AFTER_MAX_MS)),
        ("soon", None),
        ("", None),
    ] {
        for status in [429, 503] {
            let answer = answer(status, &[date, ("retry-after", value)], "");
            let failure = judge(OAuth2RefreshToken, &answer);
            assert_eq!(failure.retry_after_ms, expected, "{value}");
        }
    }
    let answer = answer(429, &[("retry-after", "Mon, 02 Nov 2026 10:00:07 GMT")], "");
    assert_eq!(
        judge(OAuth2RefreshToken, &answer).retry_after_ms,
        Some(7_000),
        "by our clock"
    );
}

#[test]
fn a_refused_assertion_is_blamed_on_the_clock_if_the_clock_is_off() {
    let body = coded("invalid_grant");
    for (strategy, date, class, word) in [
        (
            GoogleServiceAccountJwt,
            "Mon, 02 Nov 2026 10:05:00 GMT",
            Transient,
            "300 s behind",
        ),
        (
            GoogleServiceAccountJwt,
            "Mon, 02 Nov 2026 09:50:00 GMT",
            Transient,
            "600 s ahead",
        ),
        (
            GoogleServiceAccountJwt,
            "Mon, 02 Nov 2026 10:00:50 GMT",
            GrantRefused,
            "key",
        ),
        (
            OAuth2RefreshToken,
            "Mon, 02 Nov 2026 10:05:00 GMT",
            GrantRefused,
            "authorize again",
        ),
    ] {
        let failure = judge(strategy, &answer(400, &[("date", date)], &body));
        assert_eq!(failure.class, class, "{date}");
        assert!(failure.remedy.contains(word), "{}", failure.remedy);
    }
}

#[test]
fn every_text_is_bounded() {
    let redactor = Redactor::default();
    let judge = Judge {
        strategy: OAuth2RefreshToken,
        redactor: &redactor,
        proof: Proof::Lasting,
    };
    let cause = "x".repeat(10_000);
    let failure = judge.no_answer(NoAnswer::Lost { cause });
    assert!(failure.cause.len() <= FAILURE_TEXT_MAX && failure.remedy.len() <= FAILURE_TEXT_MAX);
}

#[test]
fn a_refusal_of_a_token_from_a_file_is_retried_for_a_while() {
    let redactor = Redactor::default();
    for (proof, code, class) in [
        (Proof::Borrowed, "invalid_grant", UnknownRefusal),
        (Proof::Borrowed, "invalid_client", UnknownRefusal),
        (Proof::Borrowed, "invalid_scope", ConfigRefused),
        (Proof::Lasting, "invalid_grant", GrantRefused),
    ] {
        let judge = Judge {
            strategy: Strategy::OAuth2TokenExchange,
            redactor: &redactor,
            proof,
        };
        let failure = judge.answer(&answer(400, &[], &coded(code)), Unusable::Refusal);
        assert_eq!(failure.class, class, "{proof:?} {code}");
        let names_file = failure.remedy.contains("kept fresh");
        assert_eq!(names_file, class == UnknownRefusal, "{}", failure.remedy);
    }
}
