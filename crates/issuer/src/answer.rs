//! Answers of the token endpoint, in the right shape and in every wrong one.

use std::{collections::VecDeque, io, time::Duration};

use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, Response, StatusCode, header},
};
use bytes::Bytes;
use futures::stream;
use serde_json::{Value, json};

use crate::{
    client::ExpiresIn,
    exchange::Exchange,
    fault::{Mode, OVERSIZED_BYTES_MAX},
    history::End,
    ledger::Minted,
    refusal::{Code, Refusal},
    request::TOKEN_EXCHANGE,
};

/// The blanks that fill an oversized answer, 64 KiB at a time.
static BLANKS: [u8; 1 << 16] = [b' '; 1 << 16];

/// An answer that is ready to be sent.
pub(crate) struct Answer {
    status: StatusCode,
    headers: Vec<(HeaderName, HeaderValue)>,
    chunks: VecDeque<Bytes>,
    /// What `Content-Length` says; `None` sends the body in chunks.
    length: Option<usize>,
    /// Time between two chunks.
    pace: Duration,
    /// Closes the connection instead of ending the body.
    torn: bool,
}

impl Answer {
    fn json(status: u16, body: &Value) -> Self {
        Self::raw(status, body.to_string())
    }

    fn raw(status: u16, body: String) -> Self {
        let mut answer = Self {
            status: StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            headers: Vec::new(),
            length: None,
            chunks: VecDeque::new(),
            pace: Duration::ZERO,
            torn: false,
        };
        answer.body(body);
        answer.header(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        // RFC 6749 §5.1: nothing with tokens in it may be stored.
        answer.header(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        answer.header(header::PRAGMA, HeaderValue::from_static("no-cache"));
        answer
    }

    fn body(&mut self, body: impl Into<Bytes>) {
        let body = body.into();
        self.length = Some(body.len());
        self.chunks = VecDeque::from([body]);
    }

    fn header(&mut self, name: HeaderName, value: HeaderValue) {
        self.headers.retain(|(known, _)| *known != name);
        self.headers.push((name, value));
    }

    /// A successful answer ([RFC 6749 §5.1](https://www.rfc-editor.org/rfc/rfc6749#section-5.1), and
    /// [RFC 8693 §2.2.1](https://www.rfc-editor.org/rfc/rfc8693#section-2.2.1) of an exchange).
    pub(crate) fn minted(minted: &Minted, scope: Option<String>, grant_type: Option<&str>) -> Self {
        let seconds = minted.policy.access_ttl.as_secs();
        let mut body = json!({ "access_token": minted.access.expose(), "token_type": "Bearer" });
        if grant_type == Some(TOKEN_EXCHANGE) {
            body["issued_token_type"] = json!("urn:ietf:params:oauth:token-type:access_token");
        }
        match minted.policy.expires_in {
            ExpiresIn::Number => body["expires_in"] = json!(seconds),
            ExpiresIn::Text => body["expires_in"] = json!(seconds.to_string()),
            ExpiresIn::Null => body["expires_in"] = Value::Null,
            ExpiresIn::Absent => {}
        }
        if let Some(token) = &minted.refresh {
            body["refresh_token"] = json!(token.expose());
            if let Some(ttl) = minted.policy.refresh_ttl {
                body["refresh_token_expires_in"] = json!(ttl.as_secs());
            }
        }
        if let Some(scope) = scope {
            body["scope"] = json!(scope);
        }
        Self::json(200, &body)
    }

    /// A refusal ([RFC 6749 §5.2](https://www.rfc-editor.org/rfc/rfc6749#section-5.2)).
    pub(crate) fn refused(refusal: &Refusal) -> Self {
        let body =
            json!({ "error": refusal.code.name(), "error_description": refusal.description });
        let mut answer = Self::json(refusal.code.status(), &body);
        if refusal.code == (Code::InvalidClient { challenge: true }) {
            answer.header(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Basic realm=\"token\""),
            );
        }
        answer
    }

    /// What a fault answers without serving the request.
    pub(crate) fn unserved(mode: &Mode, url: &str) -> Option<Self> {
        match mode {
            Mode::Status {
                status,
                headers,
                body,
            } => {
                let body = body
                    .as_str()
                    .map_or_else(|| body.to_string(), str::to_owned);
                let mut answer = Self::raw(*status, body);
                for (name, value) in headers {
                    if let (Ok(name), Ok(value)) =
                        (HeaderName::try_from(name), HeaderValue::try_from(value))
                    {
                        answer.header(name, value);
                    }
                }
                Some(answer)
            }
            Mode::Redirect { location } => {
                let mut answer = Self::raw(307, String::new());
                let location = location.clone().unwrap_or_else(|| format!("{url}/token"));
                answer.header(header::LOCATION, HeaderValue::try_from(location).ok()?);
                Some(answer)
            }
            _ => None,
        }
    }

    /// Bends a good answer into the shape of a fault.
    pub(crate) fn bent(mut self, mode: &Mode) -> Self {
        match mode {
            Mode::InvalidJson => self.body("{\"access_token\": <html>"),
            Mode::Drip { ms } => {
                let whole = std::mem::take(&mut self.chunks);
                self.chunks = whole
                    .iter()
                    .flat_map(|chunk| (0..chunk.len()).map(|at| chunk.slice(at..=at)))
                    .collect();
                self.pace = Duration::from_millis(*ms);
            }
            Mode::Oversized { bytes } => {
                let mut missing = (*bytes)
                    .min(OVERSIZED_BYTES_MAX)
                    .saturating_sub(self.length.unwrap_or_default());
                while missing > 0 {
                    let blanks = missing.min(BLANKS.len());
                    self.chunks.push_back(Bytes::from_static(&BLANKS[..blanks]));
                    missing -= blanks;
                }
                self.length = None;
            }
            Mode::Torn => {
                for chunk in &mut self.chunks {
                    chunk.truncate(chunk.len() / 2);
                }
                self.torn = true;
            }
            _ => {}
        }
        self
    }

    pub(crate) fn status(&self) -> u16 {
        self.status.as_u16()
    }

    /// The response; `exchange` ends when its last byte is handed to the connection.
    pub(crate) fn into_response(self, exchange: Exchange) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.status;
        response.headers_mut().extend(self.headers);
        if let Some(length) = self.length {
            response
                .headers_mut()
                .insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        let pouring = Pouring {
            chunks: self.chunks,
            pace: Duration::ZERO,
            torn: self.torn,
            exchange,
        };
        let pace = self.pace;
        *response.body_mut() =
            Body::from_stream(stream::unfold(pouring, move |mut pouring| async move {
                let chunk = pouring.next().await?;
                pouring.pace = pace;
                Some((chunk, pouring))
            }));
        response
    }
}

/// A body on its way out.
struct Pouring {
    chunks: VecDeque<Bytes>,
    /// Time to wait before the next chunk.
    pace: Duration,
    torn: bool,
    exchange: Exchange,
}

impl Pouring {
    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        if !self.pace.is_zero() {
            tokio::time::sleep(self.pace).await;
        }
        let chunk = self.chunks.pop_front();
        match chunk {
            None if self.torn => {
                // Let the server flush what it has before the error closes the connection.
                tokio::task::yield_now().await;
                self.exchange.end(End::Dropped);
                Some(Err(io::ErrorKind::ConnectionAborted.into()))
            }
            _ => {
                // The server asks no further once the length is reached: the last chunk is the end.
                if self.chunks.is_empty() && !self.torn {
                    self.exchange.end(End::Answered);
                }
                chunk.map(Ok)
            }
        }
    }
}
