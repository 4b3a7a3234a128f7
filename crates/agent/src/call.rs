//! What kind of call it is: read from its path alone.

use http::{HeaderMap, Method};

/// Whose error bodies and streams the caller understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    OpenAi,
    Anthropic,
    Google,
}

/// A call that can be routed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// OpenAI's: what stands behind the version, such as `chat/completions`.
    OpenAi(&'static str),
    /// Anthropic's Messages. As Vertex AI's `rawPredict` has it, the path says whether the answer
    /// is streamed; as Anthropic has it (`None`), the body does.
    Messages { streamed: Option<bool> },
    /// Anthropic's counting of tokens.
    CountTokens,
    /// Google's, in which the path names model and action, such as `generateContent`.
    Generate { version: String, action: String },
    /// The list of models.
    Models,
}

/// OpenAI's calls with a JSON body that names a model, and the protocol of each.
const OPENAI: [(&str, &str); 5] = [
    ("chat/completions", "openai_chat_completions"),
    ("completions", "openai_completions"),
    ("responses", "openai_responses"),
    ("embeddings", "openai_embeddings"),
    ("moderations", "openai_moderations"),
];

/// The actions that change nothing but the answer.
const ACTIONS: [&str; 8] = [
    "generateContent",
    "streamGenerateContent",
    "countTokens",
    "embedContent",
    "batchEmbedContents",
    "predict",
    "rawPredict",
    "streamRawPredict",
];

impl Call {
    /// The call that a request makes, if it is one that may be routed. Anything else that an upstream
    /// may offer (files, batches, administration) is not.
    pub(crate) fn of(method: &Method, path: &str) -> Option<Self> {
        let (version, rest) = versioned(path);
        match (method, rest) {
            (&Method::GET, "models") => Some(Self::Models),
            (&Method::POST, "messages") => Some(Self::Messages { streamed: None }),
            (&Method::POST, "messages/count_tokens") => Some(Self::CountTokens),
            (&Method::POST, rest) => {
                let openai = OPENAI.iter().find(|(tail, _)| *tail == rest);
                match openai {
                    Some((tail, _)) => Some(Self::OpenAi(tail)),
                    None => google(version, rest),
                }
            }
            _ => None,
        }
    }

    /// The protocol, in the words of a route.
    pub(crate) fn protocol(&self) -> &'static str {
        match self {
            Self::OpenAi(tail) => OPENAI
                .iter()
                .find(|(t, _)| t == tail)
                .map_or("", |(_, protocol)| protocol),
            Self::Messages { .. } | Self::CountTokens => "anthropic_messages",
            Self::Generate { action, .. } if action.ends_with("awPredict") => "vertex_raw_predict",
            Self::Generate { .. } => "google_generate_content",
            Self::Models => "model_discovery",
        }
    }

    /// Whether the body has to be read: it names a model, or says whether to stream.
    pub(crate) fn is_in_the_body(&self) -> bool {
        match self {
            Self::OpenAi(_) | Self::Messages { .. } | Self::CountTokens => true,
            Self::Generate { action, .. } => action.ends_with("awPredict"),
            Self::Models => false,
        }
    }
}

impl Dialect {
    /// The caller's, as well as it can be told, also of a call that is none.
    pub(crate) fn of(call: Option<&Call>, headers: &HeaderMap) -> Self {
        match call {
            Some(Call::OpenAi(_)) => Self::OpenAi,
            Some(Call::Messages { streamed: None } | Call::CountTokens) => Self::Anthropic,
            Some(Call::Generate { .. } | Call::Messages { .. }) => Self::Google,
            Some(Call::Models) | None => {
                if headers.contains_key("anthropic-version") {
                    Self::Anthropic
                } else if headers.contains_key("x-goog-api-key") {
                    Self::Google
                } else {
                    Self::OpenAi
                }
            }
        }
    }
}

/// Splits `/v1/rest` and `/rest`.
fn versioned(path: &str) -> (&str, &str) {
    let path = path.trim_start_matches('/');
    match path.split_once('/') {
        Some((version, rest)) if is_version(version) => (version, rest),
        _ => ("v1", path),
    }
}

/// `v1`, `v1beta`, `v1beta1`, …
pub(crate) fn is_version(segment: &str) -> bool {
    let mut bytes = segment.bytes();
    bytes.next() == Some(b'v')
        && bytes.next().is_some_and(|b| b.is_ascii_digit())
        && bytes.all(|b| b.is_ascii_alphanumeric())
}

/// `models/MODEL:ACTION`, also below `projects/…/publishers/…`.
fn google(version: &str, rest: &str) -> Option<Call> {
    let (before, named) = rest.rsplit_once("models/")?;
    let (model, action) = named.rsplit_once(':')?;
    let vertex = before.starts_with("projects/") || before.starts_with("publishers/");
    let known = ACTIONS.contains(&action) && (before.is_empty() || vertex && before.ends_with('/'));
    if model.is_empty() || model.contains('/') || !known {
        return None;
    }
    let anthropic = before.ends_with("publishers/anthropic/");
    Some(match action {
        "rawPredict" if anthropic && model == "count-tokens" => Call::CountTokens,
        "rawPredict" if anthropic => Call::Messages {
            streamed: Some(false),
        },
        "streamRawPredict" if anthropic => Call::Messages {
            streamed: Some(true),
        },
        _ => Call::Generate {
            version: version.to_owned(),
            action: action.to_owned(),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERTEX: &str = "/v1/projects/p/locations/europe-west4/publishers";

    #[test]
    fn a_call_is_known_by_its_path() {
        for (method, path, protocol) in [
            ("POST", "/v1/chat/completions", "openai_chat_completions"),
            ("POST", "/chat/completions", "openai_chat_completions"),
            ("POST", "/v1/completions", "openai_completions"),
            ("POST", "/v1/responses", "openai_responses"),
            ("POST", "/v1/embeddings", "openai_embeddings"),
            ("POST", "/v1/messages", "anthropic_messages"),
            ("POST", "/v1/messages/count_tokens", "anthropic_messages"),
            ("GET", "/v1/models", "model_discovery"),
            (
                "POST",
                "/v1beta/models/gemini-2.5-pro:generateContent",
                "google_generate_content",
            ),
            (
                "POST",
                &format!("{VERTEX}/google/models/g:streamGenerateContent"),
                "google_generate_content",
            ),
            (
                "POST",
                &format!("{VERTEX}/anthropic/models/c@1:rawPredict"),
                "anthropic_messages",
            ),
            (
                "POST",
                &format!("{VERTEX}/anthropic/models/count-tokens:rawPredict"),
                "anthropic_messages",
            ),
            (
                "POST",
                &format!("{VERTEX}/mistralai/models/m:rawPredict"),
                "vertex_raw_predict",
            ),
            ("GET", "/v1/chat/completions", ""),
            ("DELETE", "/v1/models", ""),
            ("POST", "/v1/files", ""),
            ("POST", "/v1/messages/batches", ""),
            ("GET", "/", ""),
            ("POST", "/v1beta/models/x/y:generateContent", ""),
            ("POST", "/v1beta/tunedmodels/x:generateContent", ""),
            ("POST", "/v1beta/models/x:deleteEverything", ""),
            ("POST", "/v1/organizations/models/x:generateContent", ""),
        ] {
            let method = method.parse().unwrap();
            let found = Call::of(&method, path);
            assert_eq!(
                found.as_ref().map_or("", Call::protocol),
                protocol,
                "{path}"
            );
        }
    }

    #[test]
    fn a_vertex_path_says_whether_the_answer_is_streamed() {
        for (action, streamed) in [("rawPredict", false), ("streamRawPredict", true)] {
            let path = format!("{VERTEX}/anthropic/models/claude:{action}");
            let expected = Call::Messages {
                streamed: Some(streamed),
            };
            assert_eq!(Call::of(&Method::POST, &path), Some(expected));
        }
    }

    #[test]
    fn a_caller_without_a_call_is_known_by_its_headers() {
        for (header, dialect) in [
            ("anthropic-version", Dialect::Anthropic),
            ("x-goog-api-key", Dialect::Google),
            ("authorization", Dialect::OpenAi),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header, "x".parse().unwrap());
            assert_eq!(Dialect::of(None, &headers), dialect);
        }
    }
}
