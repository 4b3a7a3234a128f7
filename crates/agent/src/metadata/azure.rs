//! Azure's managed identity endpoint of App Service: what `IDENTITY_ENDPOINT` leads to
//! ([reference](https://learn.microsoft.com/azure/app-service/overview-managed-identity#rest-endpoint-reference)).

use http::{Response, StatusCode};
use serde_json::{Value, json};

use crate::answer::json_response;
use crate::body::Body;
use crate::local::{Asked, same};
use crate::metadata::{Problem, Provider, ends_at, shown};

/// Where it is.
pub(crate) const PATH: &str = "/azure/token";

/// Answers with a token. It is for the resource that it was minted for, whichever is asked for.
pub(crate) fn serve(
    provider: Result<Provider<'_>, Problem>,
    asked: &Asked<'_>,
    key: &str,
) -> Response<Body> {
    let answered = same(asked.header("x-identity-header"), key)
        .and(provider)
        .and_then(|provider| token(&provider, asked));
    answered.map_or_else(
        |problem| {
            let status = match problem {
                Problem::Unauthorized => StatusCode::UNAUTHORIZED,
                Problem::NotReady | Problem::NoValue(..) => StatusCode::SERVICE_UNAVAILABLE,
                Problem::None | Problem::Several => StatusCode::NOT_FOUND,
            };
            let body = json!({"statusCode": status.as_u16(), "message": problem.to_string()});
            json_response(status, &body)
        },
        |token| json_response(StatusCode::OK, &token),
    )
}

fn token(provider: &Provider<'_>, asked: &Asked<'_>) -> Result<Value, Problem> {
    let (value, token) = provider.value(|name| name.contains("TOKEN"))?;
    Ok(json!({
        "access_token": shown(provider.name, value)?,
        "expires_on": ends_at(token).to_string(),
        "resource": asked.parameter("resource").unwrap_or_default(),
        "token_type": "Bearer",
        "client_id": asked.parameter("client_id").unwrap_or_default(),
    }))
}
