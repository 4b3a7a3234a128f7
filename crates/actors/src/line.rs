//! One line to the issuer and to the journal for each credential of this process.
//!
//! The protocol already sees to it that mints do not overlap. The line covers what it cannot see:
//! an actor that panicked, whose request is being dropped, or whose journal entry is still being
//! written, while its successor starts.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use evermint_core::id::CredentialId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The lines that are in use.
#[derive(Debug, Default)]
pub(crate) struct Lines(Mutex<BTreeMap<CredentialId, Weak<Semaphore>>>);

/// A line that is held; dropping it frees it.
#[derive(Debug)]
pub(crate) struct Line {
    _permit: Option<OwnedSemaphorePermit>,
}

impl Lines {
    /// Waits until no request for `credential`, and no write of its journal entry, is left in
    /// this process.
    pub(crate) async fn hold(&self, credential: &CredentialId) -> Line {
        let semaphore = self.semaphore(credential);
        Line {
            // The semaphore is never closed; were it, holding no permit would still be the
            // caller's only holder.
            _permit: semaphore.acquire_owned().await.ok(),
        }
    }

    /// Takes the line now, if it is free.
    pub(crate) fn try_hold(&self, credential: &CredentialId) -> Option<Line> {
        let permit = self.semaphore(credential).try_acquire_owned().ok()?;
        Some(Line {
            _permit: Some(permit),
        })
    }

    fn semaphore(&self, credential: &CredentialId) -> Arc<Semaphore> {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = lines.get(credential).and_then(Weak::upgrade) {
            return known;
        }
        lines.retain(|_, line| line.strong_count() > 0);
        let fresh = Arc::new(Semaphore::new(1));
        lines.insert(credential.clone(), Arc::downgrade(&fresh));
        fresh
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evermint_core::id::{CredentialKey, ProviderId};
    use futures::FutureExt;

    #[tokio::test]
    async fn a_second_request_waits_until_the_first_is_gone() {
        let lines = Lines::default();
        let id = |n| CredentialId {
            provider: ProviderId(n),
            key: CredentialKey::new("K").unwrap(),
        };
        let first = lines.hold(&id(1)).await;
        assert!(lines.hold(&id(1)).now_or_never().is_none());
        assert!(lines.try_hold(&id(1)).is_none());
        assert!(lines.hold(&id(2)).now_or_never().is_some());
        drop(first);
        assert!(lines.hold(&id(1)).now_or_never().is_some());
        assert_eq!(lines.0.lock().unwrap().len(), 1);
    }
}
