//! Google's metadata server, as far as credentials go
//! ([reference](https://cloud.google.com/compute/docs/metadata/predefined-metadata-keys)).

use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, Response, StatusCode};
use serde_json::json;

use crate::answer::{json_response, text};
use crate::body::Body;
use crate::local::Asked;
use crate::metadata::{Problem, Provider, good_for, shown};

/// Requests and answers alike bear it.
const FLAVOR: (HeaderName, HeaderValue) = (
    HeaderName::from_static("metadata-flavor"),
    HeaderValue::from_static("Google"),
);
/// What the token may be used for, as far as the SDK is told.
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
/// The path of everything.
const ROOT: &str = "/computeMetadata/v1";

/// Whether a path is one of the metadata server's.
pub(crate) fn is_path(path: &str) -> bool {
    path == "/"
        || path == "/computeMetadata"
        || path == ROOT
        || path.starts_with("/computeMetadata/v1/")
}

/// Answers as the metadata server does.
pub(crate) fn serve(provider: Result<Provider<'_>, Problem>, asked: &Asked<'_>) -> Response<Body> {
    let mut response = answer(provider, asked);
    let (name, value) = FLAVOR;
    response.headers_mut().insert(name, value);
    response
}

fn answer(provider: Result<Provider<'_>, Problem>, asked: &Asked<'_>) -> Response<Body> {
    // How SDKs find out that there is a metadata server.
    if matches!(asked.path, "/" | "/computeMetadata" | ROOT) {
        return plain("computeMetadata/\n");
    }
    if asked.header("metadata-flavor") != Some("Google") {
        return text(
            StatusCode::FORBIDDEN,
            "Missing Metadata-Flavor:Google header.\n",
        );
    }
    if asked.path == "/computeMetadata/v1/universe/universe-domain" {
        return plain("googleapis.com");
    }
    let answered = provider.and_then(|provider| {
        let about = About { provider };
        about.answer(asked)
    });
    match answered {
        Ok(Some(response)) => response,
        Ok(None) => text(StatusCode::NOT_FOUND, "not found\n"),
        Err(problem) => {
            let status = if problem.is_passing() {
                StatusCode::SERVICE_UNAVAILABLE
            } else {
                StatusCode::NOT_FOUND
            };
            text(status, format!("{problem}\n"))
        }
    }
}

struct About<'a> {
    provider: Provider<'a>,
}

impl About<'_> {
    fn answer(&self, asked: &Asked<'_>) -> Result<Option<Response<Body>>, Problem> {
        let rest = asked
            .path
            .strip_prefix("/computeMetadata/v1/")
            .unwrap_or_default();
        match rest {
            "project/project-id" => return Ok(self.project().map(plain)),
            "instance/service-accounts" | "instance/service-accounts/" => {
                return Ok(Some(if asked.parameter("recursive") == Some("true") {
                    let account = self.account();
                    let both = json!({"default": account, (self.email()): account});
                    json_response(StatusCode::OK, &both)
                } else {
                    plain(format!("default/\n{}/\n", self.email()))
                }));
            }
            _ => {}
        }
        let Some((account, what)) = rest
            .strip_prefix("instance/service-accounts/")
            .and_then(|rest| rest.split_once('/'))
        else {
            return Ok(None);
        };
        if account != "default" && account != self.email() {
            return Ok(None);
        }
        Ok(match what {
            "" => Some(if asked.parameter("recursive") == Some("true") {
                json_response(StatusCode::OK, &self.account())
            } else {
                plain("aliases\nemail\nidentity\nscopes\ntoken\n")
            }),
            "aliases" => Some(plain("default\n")),
            "email" => Some(plain(self.email())),
            "scopes" => Some(plain(format!("{SCOPE}\n"))),
            "token" => Some(self.token()?),
            "identity" => self.identity()?,
            _ => None,
        })
    }

    fn account(&self) -> serde_json::Value {
        json!({"aliases": ["default"], "email": self.email(), "scopes": [SCOPE]})
    }

    fn token(&self) -> Result<Response<Body>, Problem> {
        let (value, token) = self.provider.value(|name| !is_identity(name))?;
        let body = json!({
            "access_token": shown(self.provider.name, value)?,
            "expires_in": good_for(token).as_secs(),
            "token_type": "Bearer",
        });
        Ok(json_response(StatusCode::OK, &body))
    }

    /// An identity token, if the provider has one. It is for the audience that it was minted for,
    /// whichever is asked for.
    fn identity(&self) -> Result<Option<Response<Body>>, Problem> {
        let (value, _) = self.provider.value(is_identity)?;
        Ok(Some(plain(shown(self.provider.name, value)?.to_owned())))
    }

    fn email(&self) -> String {
        self.setting("EMAIL")
            .unwrap_or_else(|| format!("{}@evermint.local", self.provider.name))
    }

    fn project(&self) -> Option<String> {
        self.setting("PROJECT_ID")
            .or_else(|| self.setting("PROJECT"))
    }

    /// One of the provider's plain variables, by the end of its name.
    fn setting(&self, end: &str) -> Option<String> {
        let mut plain = self.provider.plain.iter();
        plain
            .find(|variable| variable.key.ends_with(end))
            .map(|variable| variable.value.clone())
    }
}

fn is_identity(name: &str) -> bool {
    name.ends_with("ID_TOKEN") || name.ends_with("IDENTITY_TOKEN")
}

fn plain(content: impl Into<String>) -> Response<Body> {
    let mut response = text(StatusCode::OK, content.into());
    let media_type = HeaderValue::from_static("application/text");
    response.headers_mut().insert(CONTENT_TYPE, media_type);
    response
}
