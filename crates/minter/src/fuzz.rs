//! Whatever an issuer answers.

use std::time::SystemTime;

use evermint_core::secret::Secret;
use evermint_core::strategy::Strategy;
use evermint_fuzz::Corpus;
use http::{HeaderMap, HeaderValue, StatusCode};
use zeroize::Zeroizing;

use crate::classify::Judge;
use crate::exchange::Proof;
use crate::redact::Redactor;
use crate::response::{self, Unusable, Wanted};
use crate::strategy::aws;
use crate::transport::Answer;

/// What the requests held, and nobody may repeat.
const SENT: &str = "hunter2-hunter2-hunter2";

/// A status, a header and a body, with a line between.
const SEEDS: [&str; 8] = [
    "200\ndate: Mon, 23 Nov 2026 10:00:00 GMT\n{\"access_token\":\"at\",\"expires_in\":3599,\"scope\":\"a b\"}",
    "200\ncontent-type: application/json\n{\"id_token\":\"e30.eyJleHAiOjF9.c2ln\",\"refresh_token\":\"rt\",\"expires_in\":\"60\"}",
    "200\nx: y\n{\"access_token\":\"at\",\"expiration\":1700003600,\"expires_in\":3600,\"error\":null}",
    "400\nretry-after: 7\n{\"error\":\"invalid_grant\",\"error_description\":\"hunter2-hunter2-hunter2 was already used\",\"error_uri\":\"https://x\"}",
    "401\nwww-authenticate: Basic\n{\"error\":\"invalid_client\",\"error_codes\":[7000222],\"error_description\":\"AADSTS7000222: expired. Trace ID: 1\"}",
    "302\nlocation: https://elsewhere.example/?token=hunter2-hunter2-hunter2\n<html>moved</html>",
    "403\nx-amzn-requestid: 1\n<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>hunter2-hunter2-hunter2</Message></Error><RequestId>r</RequestId></ErrorResponse>",
    "200\nx: y\n<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>A</AccessKeyId><SecretAccessKey>S</SecretAccessKey><SessionToken>T</SessionToken><Expiration>2026-11-23T11:00:00Z</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>",
];

/// The answer that `bytes` stand for.
fn answer(bytes: &[u8]) -> Option<Answer> {
    let mut lines = bytes.splitn(3, |byte| *byte == b'\n');
    let status = StatusCode::from_bytes(lines.next()?).ok()?;
    let header = lines.next()?;
    let colon = header.iter().position(|byte| *byte == b':')?;
    let name = http::HeaderName::from_bytes(&header[..colon]).ok()?;
    let value = HeaderValue::from_bytes(header[colon + 1..].trim_ascii()).ok()?;
    Some(Answer {
        status,
        headers: HeaderMap::from_iter([(name, value)]),
        body: Some(Zeroizing::new(lines.next()?.to_vec())),
        received_at: SystemTime::now(),
    })
}

#[test]
fn fuzz_an_answer_gives_a_token_or_a_failure_that_repeats_no_secret() {
    let redactor = Redactor::new([&Secret::from(SENT)]);
    Corpus::new(SEEDS).fuzz(|bytes| {
        let Some(answer) = answer(bytes) else {
            return;
        };
        for wanted in [Wanted::AccessToken, Wanted::IdToken] {
            if let Ok(tokens) = response::read(&answer, wanted) {
                assert!(!tokens.token.is_empty());
                assert!(tokens.lifetime.is_none_or(|lifetime| !lifetime.is_zero()));
            }
        }
        if let Ok(minted) = aws::read(&answer) {
            assert!(minted.lifetime.is_none_or(|lifetime| !lifetime.is_zero()));
        }
        for strategy in [
            Strategy::OAuth2RefreshToken,
            Strategy::GitHubAppInstallation,
            Strategy::AwsStsAssumeRole,
        ] {
            for proof in [Proof::Lasting, Proof::Dated, Proof::Borrowed] {
                let judge = Judge {
                    strategy,
                    redactor: &redactor,
                    proof,
                };
                for why in [Unusable::Refusal, Unusable::Problem("no access_token")] {
                    let failure = judge.answer(&answer, why);
                    for text in [&failure.cause, &failure.remedy] {
                        assert!(!text.contains("hunter2-hunt"), "{text}");
                        assert!(!text.chars().any(char::is_control), "{text:?}");
                    }
                }
            }
        }
    });
}
