//! What is told of a secret when something goes wrong.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::panic::{UnwindSafe, catch_unwind};

use evermint_core::mint::Minted;
use evermint_core::secret::Secret;

#[test]
fn a_panic_with_secrets_in_hand_does_not_tell_them() {
    let secret = || Secret::from("hunter2");
    let minted = Minted {
        token: secret(),
        extra_outputs: [("session_token".to_owned(), secret())].into(),
        lifetime: None,
        new_material: [("refresh_token".to_owned(), secret())].into(),
        material_lifetimes: BTreeMap::new(),
        scopes: None,
    };
    let (alone, within): (Result<(), _>, Result<(), _>) = (Err(secret()), Err(minted));
    let panics: [Box<dyn FnOnce() + UnwindSafe>; 2] = [
        Box::new(move || alone.unwrap()),
        Box::new(move || within.unwrap()),
    ];
    for panic in panics {
        let told = catch_unwind(panic).unwrap_err();
        let told = told.downcast::<String>().unwrap();
        assert!(told.contains("Secret(…)"), "{told}");
        assert!(!told.contains("hunter2"), "{told}");
    }
}
