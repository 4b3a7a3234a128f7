//! Whatever text is given as a profile.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

use evermint_fuzz::Corpus;
use evermint_profiles::{builtin, read, write};

#[test]
fn fuzz_a_profile_is_read_whole_or_every_refusal_says_where() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let builtin = builtin::FILES.iter().map(|(_, text)| *text);
    Corpus::with_files(corpus, builtin).fuzz(|bytes| {
        let text = String::from_utf8_lossy(bytes);
        let lines = text.lines().count() + 1;
        for document in read(&text) {
            assert!(document.profile.is_some() || !document.findings.is_empty());
            for finding in &document.findings {
                let line = finding.line.unwrap_or(0);
                assert!((1..=lines).contains(&line), "{finding} of {lines} lines");
            }
            let Some(profile) = document.profile else {
                continue;
            };
            let again = read(&write(&profile));
            assert_eq!(again.len(), 1);
            assert_eq!(again[0].profile.as_ref(), Some(&profile));
        }
    });
}
