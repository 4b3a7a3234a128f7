//! What is counted.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! metrics {
    ($($(#[doc = $doc:literal])* $name:ident,)*) => {
        /// Counts since the client was built. Read together, but not at one instant.
        ///
        /// [`Client::prometheus`](crate::Client::prometheus) renders them, with what is known of
        /// bundle and tokens; for any other system, read the fields.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Metrics {
            $($(#[doc = $doc])* pub $name: u64,)*
        }

        impl Metrics {
            /// Each by its name, with what it means.
            pub fn each(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
                [$((stringify!($name), concat!($($doc),*).trim_ascii(), self.$name),)*].into_iter()
            }
        }

        /// The same, being counted.
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: Counter,)*
        }

        impl Counters {
            pub(crate) fn read(&self) -> Metrics {
                Metrics { $($name: self.$name.0.load(Ordering::Relaxed),)* }
            }
        }
    };
}

metrics! {
    /// Calls that were answered with a bundle that could be believed.
    calls_answered,
    /// Calls that were not.
    calls_failed,
    /// Streams that began with something that could be believed.
    streams_begun,
    /// Streams that ended, or did not begin, without a gateway's word.
    streams_cut,
    /// Messages of streams without a bundle.
    heartbeats,
    /// Contents that replaced another one.
    changes,
    /// Bundles that were refused because they were older than one seen before.
    older_refused,
    /// Times that another endpoint took over.
    failovers,
    /// Times that the preferred endpoint took over again.
    failbacks,
    /// Tokens that were reported as refused, and taken note of.
    reports,
    /// Times that the sandbox's own token was renewed.
    renewals,
    /// Times that it could not be.
    renewals_failed,
    /// Times that no endpoint was left to ask.
    blackouts,
    /// Answers and streams that were refused for good: identity, rights, or no such sandbox.
    refusals,
    /// Times that streams were given up for a while in favour of polls.
    fallbacks_to_polling,
    /// Host names that were resolved.
    resolutions,
    /// Host names that could not be resolved.
    resolutions_failed,
}

/// One number that grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}
