//! Makes the words of an issuer safe to store and to show.
//!
//! Issuers echo what they were sent: a whole form, a token, the `Authorization` header. Whatever
//! was secret in the order is taken out, as it is, percent-encoded or in base64; of longer secrets
//! every part of [`WINDOW`] bytes is, so that a quoted beginning does not slip through.

use std::collections::HashSet;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use evermint_core::mint::FAILURE_TEXT_MAX;
use evermint_core::secret::Secret;
use url::form_urlencoded::byte_serialize;
use zeroize::Zeroizing;

/// Parts of a secret that are this long are taken out too, in bytes.
const WINDOW: usize = 12;

/// What stands for a secret.
const MASK: &str = "[redacted]";

/// Knows the secrets of one order, in the forms in which they travel.
#[derive(Clone, Default)]
pub(crate) struct Redactor {
    forms: Vec<Zeroizing<Vec<u8>>>,
}

impl Redactor {
    /// A redactor for these secrets.
    pub(crate) fn new<'a>(secrets: impl IntoIterator<Item = &'a Secret>) -> Self {
        let mut redactor = Self::default();
        for secret in secrets {
            redactor.add(secret.expose());
        }
        redactor
    }

    /// Adds one more secret.
    pub(crate) fn add(&mut self, secret: &[u8]) {
        if secret.is_empty() {
            return;
        }
        let form: String = byte_serialize(secret).collect();
        let strict = form.replace('+', "%20");
        let forms = [
            secret.to_vec(),
            strict.to_ascii_lowercase().into_bytes(),
            strict.into_bytes(),
            form.into_bytes(),
            STANDARD_NO_PAD.encode(secret).into_bytes(),
            URL_SAFE_NO_PAD.encode(secret).into_bytes(),
        ];
        self.forms.extend(forms.map(Zeroizing::new));
    }

    /// `text` in one line of printable characters, without secrets, of at most
    /// [`FAILURE_TEXT_MAX`] bytes.
    pub(crate) fn clean(&self, text: &str) -> String {
        let printable: String = text
            .chars()
            .map(|c| if is_unprintable(c) { ' ' } else { c })
            .collect();
        let line = printable.split_whitespace().collect::<Vec<_>>().join(" ");
        bounded(self.redact(&line))
    }

    fn redact(&self, text: &str) -> String {
        let bytes = text.as_bytes();
        let mut hidden = vec![false; bytes.len()];
        for form in &self.forms {
            let window = form.len().min(WINDOW);
            let parts: HashSet<&[u8]> = form.windows(window).collect();
            for at in 0..=bytes.len().saturating_sub(window) {
                if bytes
                    .get(at..at + window)
                    .is_some_and(|part| parts.contains(part))
                {
                    hidden[at..at + window].fill(true);
                }
            }
        }
        let mut clean = String::with_capacity(text.len());
        let mut masking = false;
        for (at, c) in text.char_indices() {
            let mask = hidden[at..at + c.len_utf8()].contains(&true);
            match (mask, masking) {
                (false, _) => clean.push(c),
                (true, false) => clean.push_str(MASK),
                (true, true) => {}
            }
            masking = mask;
        }
        clean
    }
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Redactor(…)")
    }
}

/// Control characters, and those that turn the direction of text or take no room: with them a
/// line in a terminal can pass itself off as another.
fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// `text`, cut at a character if it is longer than [`FAILURE_TEXT_MAX`].
pub(crate) fn bounded(mut text: String) -> String {
    const MORE: &str = "…";
    if text.len() > FAILURE_TEXT_MAX {
        let end = (0..=FAILURE_TEXT_MAX - MORE.len())
            .rev()
            .find(|at| text.is_char_boundary(*at))
            .unwrap_or(0);
        text.truncate(end);
        text.push_str(MORE);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::engine::general_purpose::STANDARD;

    const CANARY: &str = "s3cr3t/canary+value=0123456789 ä";

    fn clean(text: &str) -> String {
        Redactor::new([&Secret::from(CANARY)]).clean(text)
    }

    #[test]
    fn a_secret_is_taken_out_in_every_form_in_which_it_travels() {
        let form: String = byte_serialize(CANARY.as_bytes()).collect();
        for (name, echo) in [
            ("raw", CANARY.to_owned()),
            ("form", form.clone()),
            ("percent", form.replace('+', "%20")),
            (
                "lower-case percent",
                form.replace('+', "%20").to_lowercase(),
            ),
            ("base64", STANDARD.encode(CANARY)),
            ("base64url", URL_SAFE_NO_PAD.encode(CANARY)),
        ] {
            let text = clean(&format!("bad token {echo} given"));
            let rest = text.replace(MASK, "").replace('=', "");
            assert_eq!(rest, "bad token  given", "{name}: {text}");
        }
    }

    #[test]
    fn a_part_of_a_secret_is_taken_out() {
        let text = clean(&format!("token {}… is unknown", &CANARY[..16]));
        assert_eq!(text, "token [redacted]… is unknown");
    }

    #[test]
    fn a_short_secret_is_taken_out_whole() {
        let redactor = Redactor::new([&Secret::from("pw1"), &Secret::from("")]);
        assert_eq!(
            redactor.clean("password pw1 is wrong"),
            "password [redacted] is wrong"
        );
    }

    #[test]
    fn the_text_is_one_printable_line() {
        let text = clean("line one\r\n\tline\u{1b}[31m two\u{0}\u{202e}evil\u{2028}");
        assert_eq!(text, "line one line [31m two evil");
    }

    #[test]
    fn the_text_is_bounded_at_a_character() {
        for n in 0..4 {
            let text = clean(&format!("{}{}", "x".repeat(n), "ü".repeat(1_000)));
            assert!(text.len() <= FAILURE_TEXT_MAX && text.ends_with('…'));
        }
        let exact = "x".repeat(FAILURE_TEXT_MAX);
        assert_eq!(clean(&exact), exact);
    }

    #[test]
    fn a_secret_behind_the_bound_does_not_slip_through() {
        for pad in FAILURE_TEXT_MAX - 40..FAILURE_TEXT_MAX {
            let text = clean(&format!("{} {CANARY}", "x".repeat(pad)));
            assert!(!text.contains("s3cr"), "{text}");
        }
    }

    #[test]
    fn debug_shows_nothing() {
        let shown = format!("{:?}", Redactor::new([&Secret::from(CANARY)]));
        assert_eq!(shown, "Redactor(…)");
    }
}
