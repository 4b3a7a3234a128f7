//! Whatever stands where a sealed value should.

#![allow(clippy::unwrap_used, reason = "tests")]

use evermint_core::id::TicketId;
use evermint_core::secret::{DataKeyId, Sealed, Secret, WrappedKey};
use evermint_fuzz::Corpus;
use evermint_seal::{Context, Kek, Keyring, generate_data_key};

#[test]
fn fuzz_nothing_but_the_sealed_bytes_opens() {
    let kek = Kek::generate().unwrap();
    let wrapped = generate_data_key(&kek).unwrap();
    let ring = Keyring::new(kek);
    ring.load([(DataKeyId(1), &wrapped)]).unwrap();
    let place = Context::journal(TicketId(7));
    let sealed = ring.seal(&place, &Secret::from("hunter2")).unwrap();
    Corpus::new([postcard::to_stdvec(&sealed).unwrap()]).fuzz(|bytes| {
        let Ok(read) = postcard::from_bytes::<Sealed>(bytes) else {
            return;
        };
        assert_eq!(ring.open(&place, &read).is_ok(), read == sealed, "{read:?}");
    });
}

#[test]
fn fuzz_nothing_but_the_wrapped_bytes_is_a_data_key() {
    let kek = Kek::generate().unwrap();
    let wrapped = generate_data_key(&kek).unwrap();
    Corpus::new([postcard::to_stdvec(&wrapped).unwrap()]).fuzz(|bytes| {
        let Ok(read) = postcard::from_bytes::<WrappedKey>(bytes) else {
            return;
        };
        let loaded = Keyring::new(kek.clone()).load([(DataKeyId(1), &read)]);
        assert_eq!(loaded.is_ok(), read == wrapped, "{read:?}");
    });
}
