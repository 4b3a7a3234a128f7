//! What a call becomes on its way: the URL and the body, as the route says.

use http::Uri;

use crate::call::{Call, is_version};
use crate::members::Members;

/// Where a route leads to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target<'a> {
    /// An http(s) URL without a trailing slash.
    pub(crate) base_url: &'a str,
    /// The model that calls are sent to.
    pub(crate) model: &'a str,
    /// The model stands in the path.
    pub(crate) model_in_path: bool,
    /// Replaces the path.
    pub(crate) path_override: Option<&'a str>,
}

/// The version that Vertex AI wants in a body for Anthropic's models.
const VERTEX_ANTHROPIC: &str = "vertex-2023-10-16";

impl Target<'_> {
    /// The URL of a call; `streamed` says whether its answer is to be streamed.
    ///
    /// * With the model in the path: `BASE/MODEL` and the override, or else the action that the
    ///   call means (`:rawPredict`, `:generateContent`, `/chat/completions`).
    /// * Otherwise: `BASE` and the override, or else the path of the call, without its version if
    ///   `BASE` names one.
    ///
    /// # Errors
    /// What is wrong with the route.
    pub(crate) fn uri(
        &self,
        call: &Call,
        streamed: bool,
        query: Option<&str>,
    ) -> Result<Uri, String> {
        let base = self.base_url;
        if !base.starts_with("https://") && !base.starts_with("http://") {
            return Err("it has no base URL: set base_url in the provider's config".to_owned());
        }
        let model = segment(self.model);
        let path = match (self.model_in_path, self.path_override) {
            // Counting is a model of its own there, whatever the override says of messages.
            (true, _) if *call == Call::CountTokens => "/count-tokens:rawPredict".to_owned(),
            (true, Some(end)) => format!("/{model}{}", streaming(end, streamed)),
            (true, None) => format!("/{model}{}", action(call, streamed)),
            (false, Some(path)) => path.to_owned(),
            (false, None) => {
                let (version, rest) = own(call, &model);
                if has_version(base) {
                    format!("/{rest}")
                } else {
                    format!("/{version}/{rest}")
                }
            }
        };
        let query = query.map(|q| format!("?{q}")).unwrap_or_default();
        format!("{base}{path}{query}")
            .parse()
            .map_err(|e| format!("its URL cannot be used: {e}"))
    }

    /// Puts the route's model where the upstream looks for it.
    pub(crate) fn body(&self, call: &Call, members: &mut Members) {
        match call {
            Call::CountTokens => members.set("model", self.model),
            Call::Generate { .. } => {
                if members.has("model") {
                    members.set("model", self.model);
                }
            }
            Call::Messages { .. } if self.model_in_path => {
                members.remove("model");
                if !members.has("anthropic_version") {
                    members.set("anthropic_version", VERTEX_ANTHROPIC);
                }
            }
            Call::Messages { streamed } => {
                members.set("model", self.model);
                members.remove("anthropic_version");
                if let Some(streamed) = streamed {
                    members.set("stream", *streamed);
                }
            }
            Call::OpenAi(_) if self.model_in_path => members.remove("model"),
            Call::OpenAi(_) => members.set("model", self.model),
            Call::Models => {}
        }
    }
}

/// What stands behind the model.
fn action(call: &Call, streamed: bool) -> String {
    match call {
        Call::OpenAi(tail) => format!("/{tail}"),
        Call::Messages { .. } | Call::CountTokens => streaming(":rawPredict", streamed),
        Call::Generate { action, .. } => format!(":{action}"),
        Call::Models => String::new(),
    }
}

/// The streaming sister of an action.
fn streaming(action: &str, streamed: bool) -> String {
    match action {
        ":rawPredict" if streamed => ":streamRawPredict".to_owned(),
        ":generateContent" if streamed => ":streamGenerateContent".to_owned(),
        other => other.to_owned(),
    }
}

/// The path of a call as its own vendor has it: the version, and the rest.
fn own(call: &Call, model: &str) -> (String, String) {
    match call {
        Call::OpenAi(tail) => ("v1".to_owned(), (*tail).to_owned()),
        Call::Messages { .. } => ("v1".to_owned(), "messages".to_owned()),
        Call::CountTokens => ("v1".to_owned(), "messages/count_tokens".to_owned()),
        Call::Generate { version, action } => (version.clone(), format!("models/{model}:{action}")),
        Call::Models => ("v1".to_owned(), "models".to_owned()),
    }
}

/// Whether the path of the URL names a version anywhere, such as `/v1/openai`.
fn has_version(base: &str) -> bool {
    let path = base.split_once("://").map_or("", |(_, rest)| rest);
    path.split('/').skip(1).any(is_version)
}

/// One segment of a path. A model may be named `vendor/model`, and with a version behind `:`.
pub(crate) fn segment(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~@".contains(&b);
    text.bytes().fold(String::new(), |mut out, b| {
        if plain(b) {
            out.push(char::from(b));
        } else {
            out.push_str(&format!("%{b:02X}"));
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Method;

    const PUBLISHER: &str =
        "https://aiplatform.example/v1/projects/p/locations/l/publishers/anthropic/models";

    fn target(base_url: &'static str) -> Target<'static> {
        Target {
            base_url,
            model: "m",
            model_in_path: false,
            path_override: None,
        }
    }

    fn check(target: Target<'_>, path: &str, streamed: bool, expected: &str) {
        let call = Call::of(&Method::POST, path).unwrap();
        let uri = target.uri(&call, streamed, None).unwrap();
        assert_eq!(uri.to_string(), expected, "{path}");
    }

    #[test]
    fn a_path_is_appended_to_the_base_url() {
        for (base, path, expected) in [
            (
                "https://api.example",
                "/v1/chat/completions",
                "https://api.example/v1/chat/completions",
            ),
            (
                "https://api.example",
                "/chat/completions",
                "https://api.example/v1/chat/completions",
            ),
            (
                "https://api.example/v1",
                "/v1/chat/completions",
                "https://api.example/v1/chat/completions",
            ),
            (
                "https://api.example/v1/openai",
                "/v1/responses",
                "https://api.example/v1/openai/responses",
            ),
            (
                "https://gate.example/anthropic",
                "/v1/messages",
                "https://gate.example/anthropic/v1/messages",
            ),
            (
                "https://g.example",
                "/v1beta/models/x:generateContent",
                "https://g.example/v1beta/models/m:generateContent",
            ),
            (
                "https://g.example/v1beta",
                "/v1/models/x:countTokens",
                "https://g.example/v1beta/models/m:countTokens",
            ),
        ] {
            check(target(base), path, false, expected);
        }
    }

    #[test]
    fn a_model_in_the_path_is_put_there_with_the_action_that_the_call_means() {
        let vertex = Target {
            model_in_path: true,
            ..target(PUBLISHER)
        };
        for (path, streamed, end) in [
            ("/v1/messages", false, "m:rawPredict"),
            ("/v1/messages", true, "m:streamRawPredict"),
            (
                "/v1/messages/count_tokens",
                false,
                "count-tokens:rawPredict",
            ),
            (
                "/v1beta/models/x:streamGenerateContent",
                true,
                "m:streamGenerateContent",
            ),
            ("/v1/chat/completions", true, "m/chat/completions"),
        ] {
            check(vertex, path, streamed, &format!("{PUBLISHER}/{end}"));
        }
        for (end, streamed, expected) in [
            (":rawPredict", false, "m:rawPredict"),
            (":rawPredict", true, "m:streamRawPredict"),
            ("/invoke", true, "m/invoke"),
            ("", false, "m"),
        ] {
            let overridden = Target {
                path_override: Some(end),
                ..vertex
            };
            let expected = format!("{PUBLISHER}/{expected}");
            check(overridden, "/v1/messages", streamed, &expected);
        }
    }

    #[test]
    fn an_override_replaces_the_path() {
        for (path, expected) in [
            ("/mine", "https://api.example/v1/mine"),
            ("", "https://api.example/v1"),
        ] {
            let target = Target {
                path_override: Some(path),
                ..target("https://api.example/v1")
            };
            check(target, "/v1/chat/completions", true, expected);
        }
    }

    #[test]
    fn a_model_cannot_leave_its_segment() {
        for (model, expected) in [
            ("claude-sonnet-4@20250514", "claude-sonnet-4@20250514"),
            ("a/../b", "a%2F..%2Fb"),
            ("a:b?c#d", "a%3Ab%3Fc%23d"),
        ] {
            let target = Target {
                model,
                model_in_path: true,
                ..target("https://h/models")
            };
            check(
                target,
                "/v1/messages",
                false,
                &format!("https://h/models/{expected}:rawPredict"),
            );
        }
    }

    #[test]
    fn the_query_stays() {
        let call = Call::of(&Method::POST, "/v1beta/models/x:streamGenerateContent").unwrap();
        let uri = target("https://g")
            .uri(&call, true, Some("alt=sse"))
            .unwrap();
        assert_eq!(
            uri.to_string(),
            "https://g/v1beta/models/m:streamGenerateContent?alt=sse"
        );
    }

    #[test]
    fn a_base_url_that_is_none_is_said() {
        for base in ["", "api.example", "https://", "https://a b"] {
            assert!(
                target(base).uri(&Call::Models, false, None).is_err(),
                "{base}"
            );
        }
    }

    #[test]
    fn the_model_stands_where_the_upstream_looks_for_it() {
        let plain = target("https://h");
        let in_path = Target {
            model_in_path: true,
            ..plain
        };
        let raw = "/v1/projects/p/locations/l/publishers/anthropic/models/c:streamRawPredict";
        for (target, path, given, expected) in [
            (
                plain,
                "/v1/chat/completions",
                r#"{"model":"x","n":1}"#,
                r#"{"model":"m","n":1}"#,
            ),
            (
                plain,
                "/v1/chat/completions",
                r#"{"n":1}"#,
                r#"{"n":1,"model":"m"}"#,
            ),
            (
                plain,
                "/v1/messages",
                r#"{"model":"x"}"#,
                r#"{"model":"m"}"#,
            ),
            (
                in_path,
                "/v1/messages",
                r#"{"model":"x"}"#,
                r#"{"anthropic_version":"vertex-2023-10-16"}"#,
            ),
            (
                in_path,
                "/v1/messages",
                r#"{"anthropic_version":"a"}"#,
                r#"{"anthropic_version":"a"}"#,
            ),
            (
                in_path,
                "/v1/messages/count_tokens",
                r#"{"model":"x"}"#,
                r#"{"model":"m"}"#,
            ),
            (in_path, "/v1/chat/completions", r#"{"model":"x"}"#, "{}"),
            (
                plain,
                raw,
                r#"{"anthropic_version":"a"}"#,
                r#"{"model":"m","stream":true}"#,
            ),
        ] {
            let call = Call::of(&Method::POST, path).unwrap();
            let mut members = Members::parse(given.as_bytes()).unwrap();
            target.body(&call, &mut members);
            assert_eq!(
                String::from_utf8(members.to_vec()).unwrap(),
                expected,
                "{path}"
            );
        }
    }
}
