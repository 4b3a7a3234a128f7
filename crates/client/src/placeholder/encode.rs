//! Encodings of the places where a secret may stand.

/// `bytes` percent-decoded ([RFC 3986 §2.1](https://www.rfc-editor.org/rfc/rfc3986#section-2.1));
/// what is no escape stands for itself. `None` if nothing had to be decoded.
pub(super) fn percent_decoded(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let [first, tail @ ..] = rest {
        let escape = match tail {
            [high, low, ..] if *first == b'%' => hex(*high).zip(hex(*low)),
            _ => None,
        };
        match escape {
            Some((high, low)) => {
                decoded.push(high << 4 | low);
                rest = &tail[2..];
            }
            None => {
                decoded.push(*first);
                rest = tail;
            }
        }
    }
    (decoded.len() != bytes.len()).then_some(decoded)
}

/// Appends `bytes` with everything escaped but the unreserved characters
/// ([RFC 3986 §2.3](https://www.rfc-editor.org/rfc/rfc3986#section-2.3)) and those in `plain`.
pub(super) fn percent_encode(bytes: &[u8], plain: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for byte in bytes {
        if byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'.' | b'_' | b'~')
            || plain.contains(byte)
        {
            out.push(*byte);
        } else {
            let digit = |nibble: u8| DIGITS[usize::from(nibble)];
            out.extend([b'%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
}

/// Appends `text` as it stands within a string of JSON
/// ([RFC 8259 §7](https://www.rfc-editor.org/rfc/rfc8259#section-7)).
pub(super) fn json_escape(text: &str, out: &mut Vec<u8>) {
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => out.extend([b'\\', byte]),
            0..0x20 => out.extend(format!("\\u{byte:04x}").bytes()),
            _ => out.push(byte),
        }
    }
}

fn hex(digit: u8) -> Option<u8> {
    let value = char::from(digit).to_digit(16)?;
    u8::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_decoded_once_and_the_rest_stands() {
        for (text, decoded) in [
            ("plain", None),
            ("100%", None),
            ("%zz%1", None),
            ("a%3Ab%3a", Some("a:b:")),
            ("%2541", Some("%41")),
            ("%%41", Some("%A")),
        ] {
            let found = percent_decoded(text.as_bytes());
            assert_eq!(found.as_deref(), decoded.map(str::as_bytes), "{text}");
        }
    }

    #[test]
    fn what_is_encoded_is_decoded_again() {
        let all: Vec<u8> = (0..=255).collect();
        let mut encoded = Vec::new();
        percent_encode(&all, b"", &mut encoded);
        assert!(encoded.iter().all(u8::is_ascii_graphic));
        assert_eq!(percent_decoded(&encoded), Some(all));
    }

    #[test]
    fn a_string_of_json_stays_one() {
        let mut out = Vec::new();
        json_escape("a\"b\\c\u{1}ü", &mut out);
        assert_eq!(out, "a\\\"b\\\\c\\u0001ü".as_bytes());
    }
}
