//! The places of a request in which placeholders are replaced. What is left afterwards holds none,
//! or the request is refused.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use evermint_core::secret::Secret;

use super::encode::{json_escape, percent_decoded, percent_encode};
use super::resolver::{Place, Refused, Resolved, Resolver};
use super::token::{has_marker, has_raw_marker};

/// What stands for itself in a segment of a path, beside the unreserved characters
/// ([RFC 3986 §3.3](https://www.rfc-editor.org/rfc/rfc3986#section-3.3)).
const SEGMENT: &[u8] = b"!$&'()*+,;=:@";

/// What a request's body is, as far as placeholders can be replaced in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// JSON, in whose strings placeholders stand.
    Json,
    /// `application/x-www-form-urlencoded`, whose values are placeholders.
    Form,
    /// Other text.
    Text,
}

impl Body {
    /// The kind that a `Content-Type` tells; `None` for what is no text.
    pub fn of(content_type: &str) -> Option<Self> {
        let essence = content_type.split(';').next()?.trim().to_ascii_lowercase();
        match essence.as_str() {
            "application/json" => Some(Self::Json),
            "application/x-www-form-urlencoded" => Some(Self::Form),
            other if other.ends_with("+json") => Some(Self::Json),
            other if other.starts_with("text/") => Some(Self::Text),
            _ => None,
        }
    }
}

impl Resolver<'_> {
    /// The request's target (path and query) with its placeholders replaced: within the segments
    /// of its path, and as whole values of its query. `None` if there are none.
    ///
    /// # Errors
    /// [`Refused`]: the request must not be sent on.
    pub fn target(&self, target: &str) -> Result<Option<Secret>, Refused> {
        if !has_marker(target.as_bytes()) {
            return Ok(None);
        }
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        let mut out = Vec::with_capacity(target.len());
        for (n, segment) in path.split('/').enumerate() {
            if n > 0 {
                out.push(b'/');
            }
            self.segment(segment.as_bytes(), &mut out)?;
        }
        if let Some(query) = query {
            out.push(b'?');
            self.pairs(query.as_bytes(), Place::Head, &mut out)?;
        }
        clean(out).map(Some)
    }

    /// A header's value with its placeholder replaced: it is one as a whole, follows one word (as
    /// in `Bearer …`), or stands in `Basic` credentials. `None` if there is none.
    ///
    /// # Errors
    /// [`Refused`]: the request must not be sent on.
    pub fn header(&self, value: &[u8]) -> Result<Option<Secret>, Refused> {
        let trimmed = value.trim_ascii();
        let (word, rest) = match trimmed.iter().position(|b| *b == b' ') {
            Some(at) => (&trimmed[..at], trimmed[at..].trim_ascii_start()),
            None => (&[][..], trimmed),
        };
        if word.eq_ignore_ascii_case(b"basic")
            && let Some(credentials) = self.basic(rest)?
        {
            let mut out = word.to_vec();
            out.push(b' ');
            out.extend_from_slice(&credentials);
            return clean(out).map(Some);
        }
        if !has_marker(value) {
            return Ok(None);
        }
        let resolved = self.whole(rest, Place::Head)?.ok_or(Refused::Misplaced)?;
        let mut out = Vec::with_capacity(value.len());
        if !word.is_empty() {
            out.extend_from_slice(word);
            out.push(b' ');
        }
        out.extend_from_slice(resolved.bytes());
        clean(out).map(Some)
    }

    /// The name of a header, or any other part of a request's head in which none is replaced.
    ///
    /// # Errors
    /// [`Refused::Misplaced`] if a placeholder stands in it.
    pub fn verbatim(&self, text: &[u8]) -> Result<(), Refused> {
        match has_marker(text) {
            true => Err(Refused::Misplaced),
            false => Ok(()),
        }
    }

    /// A whole body with its placeholders replaced, if the endpoint asks for it. `None` if it goes
    /// on as it is: elsewhere a placeholder in a body is text like any other.
    ///
    /// # Errors
    /// [`Refused`]: the request must not be sent on.
    pub fn body(&self, kind: Body, body: &[u8]) -> Result<Option<Secret>, Refused> {
        if !self.rewrites_body() || !has_marker(body) {
            return Ok(None);
        }
        let out = match kind {
            Body::Form => {
                let mut out = Vec::with_capacity(body.len());
                self.pairs(body, Place::Body, &mut out)?;
                out
            }
            Body::Text => self.within(body, Place::Body, |resolved, out| {
                out.extend_from_slice(resolved.bytes());
                Ok(())
            })?,
            Body::Json => self.within(body, Place::Body, |resolved, out| {
                let text = std::str::from_utf8(resolved.bytes()).map_err(|_| resolved.unfit())?;
                json_escape(text, out);
                Ok(())
            })?,
        };
        clean(out).map(Some)
    }

    fn segment(&self, segment: &[u8], out: &mut Vec<u8>) -> Result<(), Refused> {
        let decoded = percent_decoded(segment);
        let decoded = decoded.as_deref().unwrap_or(segment);
        if !has_raw_marker(decoded) {
            out.extend_from_slice(segment);
            return Ok(());
        }
        let whole = self.whole(decoded, Place::Head)?;
        let text = match whole {
            Some(resolved) => {
                fit_for_path(&resolved)?;
                resolved.bytes().to_vec()
            }
            None => self.within(decoded, Place::Head, |resolved, out| {
                fit_for_path(resolved)?;
                out.extend_from_slice(resolved.bytes());
                Ok(())
            })?,
        };
        if has_raw_marker(&text) || matches!(text.as_slice(), b"." | b"..") {
            return Err(Refused::Misplaced);
        }
        percent_encode(&text, SEGMENT, out);
        Ok(())
    }

    /// `name=value` pairs of a query or a form.
    fn pairs(&self, pairs: &[u8], place: Place, out: &mut Vec<u8>) -> Result<(), Refused> {
        for (n, pair) in pairs.split(|b| *b == b'&').enumerate() {
            if n > 0 {
                out.push(b'&');
            }
            if !has_marker(pair) {
                out.extend_from_slice(pair);
                continue;
            }
            let at = pair.iter().position(|b| *b == b'=');
            let (name, value) = pair.split_at(at.ok_or(Refused::Misplaced)?);
            self.verbatim(name)?;
            let value = &value[1..];
            let decoded = percent_decoded(value);
            let resolved = self.whole(decoded.as_deref().unwrap_or(value), place)?;
            out.extend_from_slice(name);
            out.push(b'=');
            percent_encode(resolved.ok_or(Refused::Misplaced)?.bytes(), b"", out);
        }
        Ok(())
    }

    /// `Basic` credentials with their placeholders replaced; `None` if they hold none.
    fn basic(&self, encoded: &[u8]) -> Result<Option<Vec<u8>>, Refused> {
        let Ok(decoded) = STANDARD.decode(encoded) else {
            return Ok(None);
        };
        if !has_raw_marker(&decoded) {
            return Ok(None);
        }
        let out = self.within(&decoded, Place::Head, |resolved, out| {
            out.extend_from_slice(resolved.bytes());
            Ok(())
        })?;
        let out = clean(out)?;
        Ok(Some(STANDARD.encode(out.expose()).into_bytes()))
    }
}

/// A value that would be read as more than a part of one segment leads elsewhere.
fn fit_for_path(resolved: &Resolved) -> Result<(), Refused> {
    let bytes = resolved.bytes();
    let leads_elsewhere = bytes.is_empty()
        || bytes
            .iter()
            .any(|b| matches!(b, b'/' | b'\\' | b'?' | b'#'))
        || bytes.windows(2).any(|w| w == b"..");
    match leads_elsewhere {
        true => Err(resolved.unfit()),
        false => Ok(()),
    }
}

/// What was rewritten, unless something that looks like a placeholder is left.
fn clean(out: Vec<u8>) -> Result<Secret, Refused> {
    let out = Secret::new(out);
    match has_marker(out.expose()) {
        true => Err(Refused::Misplaced),
        false => Ok(out),
    }
}
