//! What becomes of a call: whose token it bears, where it goes, how it is streamed, how it ends.
#![allow(clippy::unwrap_used, reason = "tests")]

mod calls {
    mod answers;
    mod bound;
    mod credentials;
    mod metadata;
    mod proxy;
    mod rotation;
    mod streams;
    mod tls;
}
