//! The open end of one token request: whoever holds it owes the history an end.

use std::sync::Arc;

use crate::{desk::Desk, history::End};

/// Ends its record exactly once. Dropped while still open, it means that the server dropped the
/// request before its answer was complete, which happens when the client's connection closes.
pub(crate) struct Exchange {
    desk: Arc<Desk>,
    seq: u64,
    open: bool,
}

impl Exchange {
    pub(crate) fn new(desk: Arc<Desk>, seq: u64) -> Self {
        Self {
            desk,
            seq,
            open: true,
        }
    }

    pub(crate) fn end(&mut self, end: End) {
        if !std::mem::replace(&mut self.open, false) {
            return;
        }
        self.desk.change(|state| {
            let now = self.desk.now();
            let Some(record) = state.history.record(self.seq) else {
                return;
            };
            record.ended_ms = Some(now.ms());
            record.ended_unix_ms = Some(now.unix_ms);
            record.end = Some(end);
            tracing::info!(
                seq = record.seq,
                client = record.client,
                grant = record.grant,
                grant_id = record.grant_id,
                presented = record.presented,
                issued = record.issued,
                generation = record.generation,
                status = record.status,
                error = record.error,
                fault = record.fault,
                reuse = record.reuse,
                ?end,
                "token request"
            );
        });
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let stopping = self.desk.stop.is_cancelled();
        self.end(if stopping {
            End::Dropped
        } else {
            End::ClientGone
        });
    }
}
