//! The body of a token request, and how a client says who it is.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use evermint_core::secret::Secret;
use http::HeaderValue;
use url::form_urlencoded::byte_serialize;
use zeroize::Zeroizing;

/// A form under `application/x-www-form-urlencoded`. Overwritten in memory when it is dropped,
/// and when its bytes are.
#[derive(Default)]
pub struct Form(Zeroizing<Vec<u8>>);

impl Form {
    /// A form with its grant type.
    pub fn new(grant_type: &str) -> Self {
        let mut form = Self::default();
        form.add("grant_type", grant_type.as_bytes());
        form
    }

    /// Adds a field.
    pub fn add(&mut self, name: &str, value: impl AsRef<[u8]>) {
        let separator = if self.0.is_empty() { "" } else { "&" };
        let parts = [separator]
            .into_iter()
            .chain(byte_serialize(name.as_bytes()));
        let parts = parts.chain(["="]).chain(byte_serialize(value.as_ref()));
        for part in parts {
            self.grow(part.as_bytes());
        }
    }

    /// Adds a field if there is a value.
    pub fn add_some(&mut self, name: &str, value: Option<impl AsRef<[u8]>>) {
        if let Some(value) = value {
            self.add(name, value);
        }
    }

    /// This form with the fields of another one behind its own.
    pub(crate) fn with(&self, other: &Self) -> Self {
        let mut both = Self::default();
        both.grow(&self.0);
        if !self.0.is_empty() && !other.0.is_empty() {
            both.grow(b"&");
        }
        both.grow(&other.0);
        both
    }

    /// Appends without leaving a copy behind in memory that is given back.
    fn grow(&mut self, part: &[u8]) {
        if self.0.capacity() - self.0.len() < part.len() {
            let room = (self.0.len() + part.len()).next_power_of_two().max(1024);
            let mut larger = Zeroizing::new(Vec::with_capacity(room));
            larger.extend_from_slice(&self.0);
            self.0 = larger;
        }
        self.0.extend_from_slice(part);
    }

    /// The bytes of the body.
    pub fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self.0)
    }
}

impl std::fmt::Debug for Form {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Form(…)")
    }
}

/// The `Authorization` header of `client_secret_basic`: id and secret are form-encoded first,
/// [RFC 6749 §2.3.1](https://www.rfc-editor.org/rfc/rfc6749#section-2.3.1).
pub(crate) fn basic(client_id: &str, client_secret: &Secret) -> HeaderValue {
    let mut pair = Zeroizing::new(String::new());
    pair.extend(byte_serialize(client_id.as_bytes()));
    pair.push(':');
    pair.extend(byte_serialize(client_secret.expose()));
    let text = Zeroizing::new(format!("Basic {}", STANDARD.encode(&*pair)));
    let mut header = HeaderValue::from_str(&text).expect("base64 is plain ASCII");
    header.set_sensitive(true);
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_encoded() {
        let mut form = Form::new("client_credentials");
        form.add("scope", "a b&c=d");
        form.add_some("none", None::<&str>);
        form.add("ü", "%+");
        assert_eq!(
            &form.into_bytes()[..],
            b"grant_type=client_credentials&scope=a+b%26c%3Dd&%C3%BC=%25%2B"
        );
    }

    #[test]
    fn a_long_field_is_kept_whole() {
        let mut form = Form::new("x");
        form.add("a", "y".repeat(10_000));
        form.add("b", "z");
        let bytes = form.into_bytes();
        assert!(bytes.ends_with(b"y&b=z") && bytes.len() == 10_000 + 19);
    }

    #[test]
    fn basic_encodes_id_and_secret_before_joining_them() {
        let header = basic("id:1", &Secret::from("p%w +ü"));
        let text = header.to_str().unwrap().strip_prefix("Basic ").unwrap();
        let pair = STANDARD.decode(text).unwrap();
        assert_eq!(pair, b"id%3A1:p%25w+%2B%C3%BC");
        assert!(!format!("{header:?}").contains(text));
    }

    #[test]
    fn debug_shows_nothing() {
        let mut form = Form::new("x");
        form.add("client_secret", "hunter2");
        assert_eq!(format!("{form:?}"), "Form(…)");
    }
}
