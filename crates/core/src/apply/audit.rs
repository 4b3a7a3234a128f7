//! The audit trail: records are appended, and the oldest are dropped. What is left goes on where the
//! last one that was dropped ended: its number and digest are kept.

use std::sync::Arc;
use std::time::Duration;

use super::Tx;
use crate::audit::{AuditEvent, AuditRecord, Origin, REFUSED_MAX, RefusedCalls, TEXT_MAX};
use crate::command::{Done, Outcome, Refusal};
use crate::record::Key;

/// Records that one command drops at most: a trail that was quiet for long shrinks bit by bit.
const DROPS_MAX: usize = 64;

impl Tx<'_> {
    pub(super) fn record_refusals(&mut self, calls: &[(Origin, RefusedCalls)]) -> Outcome {
        if calls.len() > REFUSED_MAX {
            return Err(Refusal::TooMany {
                what: "kinds of refused calls".to_owned(),
                max: REFUSED_MAX,
            });
        }
        for (by, refused) in calls {
            let texts = [&by.who, &by.from, &refused.method, &refused.reason];
            if texts.iter().all(|text| text.len() <= TEXT_MAX) {
                self.append(Some(by.clone()), AuditEvent::Refused(refused.clone()));
            }
        }
        Ok(Done::Ok)
    }

    pub(super) fn audit(&mut self, event: AuditEvent) {
        self.append(self.by.cloned(), event);
    }

    pub(super) fn audit_change(&mut self, command: &str, object: impl std::fmt::Display) {
        self.audit(AuditEvent::Change {
            command: command.to_owned(),
            object: object.to_string(),
        });
    }

    fn append(&mut self, by: Option<Origin>, event: AuditEvent) {
        let head = self.state.meta.audit_head;
        let record = AuditRecord {
            number: head.number + 1,
            position: self.stamp.position,
            at: self.stamp.at,
            by,
            event,
            previous: head.digest,
        };
        self.state.meta.audit_head = record.link();
        self.touched.insert(Key::Audit(record.number));
        self.state.audit.insert(record.number, Arc::new(record));
        self.drop_old();
    }

    /// Drops what retention no longer covers.
    fn drop_old(&mut self) {
        let settings = self.settings();
        let kept = settings.audit_retention as usize;
        let age = Duration::from_millis(settings.audit_max_age_ms);
        for _ in 0..DROPS_MAX {
            let Some((number, oldest)) = self.state.audit.get_min().cloned() else {
                return;
            };
            let is_old = oldest.at + age < self.stamp.at;
            if self.state.audit.len() <= kept && !is_old {
                return;
            }
            self.state.meta.audit_anchor = oldest.link();
            self.state.audit.remove(&number);
            self.touched.insert(Key::Audit(number));
        }
    }
}
