//! The credential endpoint of AWS's containers: what `AWS_CONTAINER_CREDENTIALS_FULL_URI` leads to
//! ([reference](https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html)).

use http::{Response, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::answer::json_response;
use crate::body::Body;
use crate::local::{Asked, same};
use crate::metadata::{Problem, Provider, ends_at, shown};

/// Where it is.
pub(crate) const PATH: &str = "/aws/credentials";

/// Answers with a session of three values, or with a key pair.
pub(crate) fn serve(
    provider: Result<Provider<'_>, Problem>,
    asked: &Asked<'_>,
    key: &str,
) -> Response<Body> {
    let answered = same(asked.header("authorization"), key)
        .and(provider)
        .and_then(|provider| session(&provider));
    answered.map_or_else(
        |problem| {
            let (status, code) = match problem {
                Problem::Unauthorized => (StatusCode::UNAUTHORIZED, "AccessDenied"),
                Problem::NotReady | Problem::NoValue(..) => {
                    (StatusCode::SERVICE_UNAVAILABLE, "Unavailable")
                }
                Problem::None | Problem::Several => (StatusCode::NOT_FOUND, "NotFound"),
            };
            json_response(
                status,
                &json!({"code": code, "message": problem.to_string()}),
            )
        },
        |session| json_response(StatusCode::OK, &session),
    )
}

fn session(provider: &Provider<'_>) -> Result<Value, Problem> {
    let value = |end: &str| provider.value(|name| name.ends_with(end));
    let (id, token) = value("ACCESS_KEY_ID")?;
    let (secret, _) = value("SECRET_ACCESS_KEY")?;
    let end = i64::try_from(ends_at(token))
        .ok()
        .and_then(|s| Timestamp::from_second(s).ok());
    let mut session = json!({
        "AccessKeyId": shown(provider.name, id)?,
        "SecretAccessKey": shown(provider.name, secret)?,
        "Expiration": end.unwrap_or(Timestamp::MAX).to_string(),
    });
    // A pair of long-lived keys has no session.
    if let Ok((value, _)) = value("SESSION_TOKEN") {
        session["Token"] = shown(provider.name, value)?.into();
    }
    Ok(session)
}
