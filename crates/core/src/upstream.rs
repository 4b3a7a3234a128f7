//! Where the calls of a route go, and how its token goes into them.

use crate::provider::Provider;

/// What a route leads to, the model and the token apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// An http(s) URL without a trailing slash; empty if nobody tells.
    pub base_url: String,
    /// The APIs that it speaks, such as `openai_chat_completions`.
    pub protocols: Vec<String>,
    /// How the token goes into a call.
    pub auth: Auth,
    /// The model stands in the path of a call, not in its body.
    pub model_in_path: bool,
    /// Replaces the path of every call.
    pub request_path_override: Option<String>,
}

/// The place of a token in a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth {
    /// In a header, after a prefix.
    Header {
        /// In lower case.
        name: String,
        /// Such as `Bearer `.
        prefix: String,
    },
    /// In a query parameter.
    Query(String),
}

impl Auth {
    /// [RFC 6750 §2.1](https://www.rfc-editor.org/rfc/rfc6750#section-2.1).
    pub fn bearer() -> Self {
        Self::header("authorization", "Bearer ")
    }

    fn header(name: &str, prefix: &str) -> Self {
        Self::Header {
            name: name.to_owned(),
            prefix: prefix.to_owned(),
        }
    }
}

/// What `provider` leads to.
pub fn upstream(provider: &Provider) -> Upstream {
    Upstream {
        base_url: base_url(provider).unwrap_or_default().to_owned(),
        protocols: Vec::new(),
        auth: match provider.kind.as_str() {
            "anthropic" => Auth::header("x-api-key", ""),
            _ => Auth::bearer(),
        },
        model_in_path: false,
        request_path_override: None,
    }
}

/// The base URL that an operator gave: `base_url`, or a variable such as `OPENAI_BASE_URL`.
pub(crate) fn base_url(provider: &Provider) -> Option<&str> {
    let config = &provider.config;
    let named = || {
        let ends = |key: &str| key.to_ascii_lowercase().ends_with("_base_url");
        config.iter().find(|(key, _)| ends(key)).map(|(_, url)| url)
    };
    let url = config.get("base_url").or_else(named)?;
    Some(url.trim_end_matches('/'))
}
