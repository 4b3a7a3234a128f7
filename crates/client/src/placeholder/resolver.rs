//! What one request may resolve.

use evermint_core::secret::Secret;
use evermint_core::time::UnixMs;

use super::encode::percent_decoded;
use super::pattern::Destination;
use super::store::{Admitted, Placeholders};
use super::token::{Form, first_within, has_raw_marker};

/// Why a request is not sent on. Nothing of it may be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The secret is bound to other endpoints.
    #[error("{key} may not be sent to this endpoint")]
    WrongEndpoint {
        /// The variable.
        key: String,
    },
    /// The placeholder stands for nothing now: it is unknown, of a configuration that is over, or
    /// its value has expired or is not served.
    #[error("the placeholder of {key} stands for no value now")]
    Unresolved {
        /// The variable.
        key: String,
    },
    /// The value cannot stand in this place: it would mean something else there.
    #[error("the value of {key} cannot stand in this place")]
    Unfit {
        /// The variable.
        key: String,
    },
    /// A placeholder, or something like one, where none is replaced.
    #[error("a placeholder stands where none is replaced")]
    Misplaced,
}

impl Refused {
    /// The HTTP status that tells it to the caller.
    pub fn status(&self) -> u16 {
        match self {
            Self::WrongEndpoint { .. } => 403,
            Self::Unresolved { .. } | Self::Unfit { .. } | Self::Misplaced => 500,
        }
    }

    /// A stable word for it.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::WrongEndpoint { .. } => "credential_endpoint_mismatch",
            Self::Unresolved { .. } => "credential_unresolved",
            Self::Unfit { .. } => "credential_unfit",
            Self::Misplaced => "credential_misplaced",
        }
    }
}

/// Resolves the placeholders of one request, whose endpoint and time are fixed.
#[derive(Clone, Debug)]
pub struct Resolver<'a> {
    placeholders: &'a Placeholders,
    destination: Destination,
    now: Option<UnixMs>,
}

/// The place in the request decides about bindings, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Head,
    Body,
}

impl<'a> Resolver<'a> {
    pub(super) fn new(
        placeholders: &'a Placeholders,
        destination: Destination,
        now: Option<UnixMs>,
    ) -> Self {
        Self {
            placeholders,
            destination,
            now,
        }
    }

    /// Whether any placeholder is replaced in the body; if not, it goes on as it is.
    pub fn rewrites_body(&self) -> bool {
        self.placeholders.rewrites_bodies_of(&self.destination)
    }

    /// What `text` stands for; `None` if it is no placeholder as a whole.
    pub(super) fn whole(&self, text: &[u8], place: Place) -> Result<Option<Resolved>, Refused> {
        let text = std::str::from_utf8(text).ok();
        let form = text.and_then(Form::parse);
        form.map(|form| self.resolve(form, place)).transpose()
    }

    /// `text` with every placeholder within it replaced, as `write` writes values.
    pub(super) fn within(
        &self,
        text: &[u8],
        place: Place,
        write: impl Fn(&Resolved, &mut Vec<u8>) -> Result<(), Refused>,
    ) -> Result<Vec<u8>, Refused> {
        let mut out = Vec::with_capacity(text.len());
        let mut rest = text;
        while let Some((begin, end)) = first_within(rest) {
            out.extend_from_slice(&rest[..begin]);
            let resolved = self.whole(&rest[begin..end], place)?;
            write(&resolved.ok_or(Refused::Misplaced)?, &mut out)?;
            rest = &rest[end..];
        }
        out.extend_from_slice(rest);
        Ok(out)
    }

    /// The one place that decides whether a secret is given.
    fn resolve(&self, form: Form<'_>, place: Place) -> Result<Resolved, Refused> {
        let key = form.key();
        let unresolved = || Refused::Unresolved {
            key: key.to_owned(),
        };
        let value = match self.placeholders.admits(key, &self.destination) {
            None => Secret::from(self.placeholders.plain(form).ok_or_else(unresolved)?),
            Some(Admitted::Here { body }) if body || place == Place::Head => {
                let now = self.now.ok_or_else(unresolved)?;
                let secret = self.placeholders.secret(form, now);
                secret.ok_or_else(unresolved)?.clone()
            }
            Some(Admitted::Here { .. } | Admitted::Nowhere) => {
                return Err(Refused::WrongEndpoint {
                    key: key.to_owned(),
                });
            }
        };
        let is_line = !value
            .expose()
            .iter()
            .any(|b| matches!(b, b'\r' | b'\n' | 0));
        // A value that looks like a placeholder would be left behind as one.
        if !is_line || has_raw_marker(value.expose()) {
            return Err(unresolved());
        }
        Ok(Resolved {
            key: key.to_owned(),
            value,
        })
    }
}

/// A value, with the name that it goes by.
pub(super) struct Resolved {
    key: String,
    value: Secret,
}

impl Resolved {
    pub(super) fn bytes(&self) -> &[u8] {
        self.value.expose()
    }

    pub(super) fn unfit(&self) -> Refused {
        Refused::Unfit {
            key: self.key.clone(),
        }
    }
}

/// The path of `target`, with placeholders taken out.
///
/// # Errors
/// [`Refused::Misplaced`] if what is left looks like a placeholder.
pub(super) fn redacted(target: &str) -> Result<String, Refused> {
    const REDACTED: &str = "[CREDENTIAL]";
    let path = target.split('?').next().unwrap_or_default();
    let segments = path.split('/').map(|segment| {
        let decoded = percent_decoded(segment.as_bytes());
        let decoded = decoded.as_deref().unwrap_or(segment.as_bytes());
        if !has_raw_marker(decoded) {
            return Ok(segment.to_owned());
        }
        let is_form =
            |text: &[u8]| std::str::from_utf8(text).is_ok_and(|t| Form::parse(t).is_some());
        if is_form(decoded) {
            return Ok(REDACTED.to_owned());
        }
        let mut rest = decoded;
        let mut text = Vec::new();
        while let Some((begin, end)) = first_within(rest) {
            if !is_form(&rest[begin..end]) {
                return Err(Refused::Misplaced);
            }
            text.extend_from_slice(&rest[..begin]);
            text.extend_from_slice(REDACTED.as_bytes());
            rest = &rest[end..];
        }
        text.extend_from_slice(rest);
        match has_raw_marker(&text) {
            true => Err(Refused::Misplaced),
            false => String::from_utf8(text).map_err(|_| Refused::Misplaced),
        }
    });
    let segments: Vec<String> = segments.collect::<Result<_, _>>()?;
    Ok(segments.join("/"))
}
