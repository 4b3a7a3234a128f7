//! What goes wrong, on request: a script of faults for token requests.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Bytes of an oversized answer where the fault does not say: 8 MiB.
const OVERSIZED_BYTES: usize = 8 << 20;
/// No oversized answer is larger: 1 GiB.
pub(crate) const OVERSIZED_BYTES_MAX: usize = 1 << 30;

/// One fault; it applies to token requests that match.
///
/// In JSON (`POST /admin/fault`): `{"client":"rt-007","grant":"refresh_token","mode":"drop_after","count":1}`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Fault {
    /// Only requests of this client; `None` is any.
    #[serde(default)]
    pub client: Option<String>,
    /// Only this `grant_type`; `None` is any.
    #[serde(default)]
    pub grant: Option<String>,
    /// How many requests; `None` is all until cleared.
    #[serde(default)]
    pub count: Option<u32>,
    /// What happens.
    #[serde(flatten)]
    pub mode: Mode,
}

impl Fault {
    /// The next request of `client`.
    pub fn once(client: impl Into<String>, mode: Mode) -> Self {
        Self {
            client: Some(client.into()),
            grant: None,
            count: Some(1),
            mode,
        }
    }

    /// Every request of `client` until faults are cleared.
    pub fn always(client: impl Into<String>, mode: Mode) -> Self {
        Self {
            count: None,
            ..Self::once(client, mode)
        }
    }

    /// Every request of anybody until faults are cleared: the issuer is out.
    pub fn everybody(mode: Mode) -> Self {
        Self {
            client: None,
            grant: None,
            count: None,
            mode,
        }
    }
}

/// What happens to a request. *Before* means that nothing was minted or rotated; all other modes
/// act on the answer, after the refresh token was spent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "snake_case")]
pub enum Mode {
    /// Holds the request until it is released, then serves it (also when its client has gone).
    HoldBefore,
    /// Serves it, then holds the answer until it is released.
    HoldAfter,
    /// Closes the connection; nothing happened.
    DropBefore,
    /// Serves it, then closes the connection without an answer.
    DropAfter,
    /// Waits, then serves it (also when its client has gone).
    DelayBefore {
        /// Milliseconds.
        ms: u64,
    },
    /// Serves it, then waits with the answer.
    DelayAfter {
        /// Milliseconds.
        ms: u64,
    },
    /// Answers so without serving it.
    Status {
        /// The HTTP status.
        status: u16,
        /// More headers, such as `retry-after`.
        #[serde(default)]
        headers: BTreeMap<String, String>,
        /// The body: a JSON string is sent as it is, anything else as JSON.
        #[serde(default = "unavailable")]
        body: serde_json::Value,
    },
    /// Answers 307 without serving it. A client that follows shows its token twice.
    Redirect {
        /// Where to; `None` is back to this issuer's `/token`.
        #[serde(default)]
        location: Option<String>,
    },
    /// Serves it, then sends the body one byte at a time.
    Drip {
        /// Milliseconds between two bytes.
        ms: u64,
    },
    /// Serves it, then sends the answer followed by blanks, without a length.
    Oversized {
        /// Bytes in all (default 8 MiB, at most 1 GiB).
        #[serde(default = "oversized_bytes")]
        bytes: usize,
    },
    /// Serves it, then answers 200 with a body that is not JSON.
    InvalidJson,
    /// Serves it, then sends half of the body and closes the connection.
    Torn,
}

impl Mode {
    /// A status without headers, with the OAuth error that fits.
    pub fn status(status: u16) -> Self {
        Self::Status {
            status,
            headers: BTreeMap::new(),
            body: unavailable(),
        }
    }

    /// 429 with `Retry-After` in seconds.
    pub fn too_many_requests(retry_after_seconds: u64) -> Self {
        let headers = BTreeMap::from([("retry-after".to_owned(), retry_after_seconds.to_string())]);
        Self::Status {
            status: 429,
            headers,
            body: serde_json::json!({ "error": "slow_down" }),
        }
    }

    /// The name, as in JSON.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::HoldBefore => "hold_before",
            Self::HoldAfter => "hold_after",
            Self::DropBefore => "drop_before",
            Self::DropAfter => "drop_after",
            Self::DelayBefore { .. } => "delay_before",
            Self::DelayAfter { .. } => "delay_after",
            Self::Status { .. } => "status",
            Self::Redirect { .. } => "redirect",
            Self::Drip { .. } => "drip",
            Self::Oversized { .. } => "oversized",
            Self::InvalidJson => "invalid_json",
            Self::Torn => "torn",
        }
    }
}

fn unavailable() -> serde_json::Value {
    serde_json::json!({ "error": "temporarily_unavailable" })
}

fn oversized_bytes() -> usize {
    OVERSIZED_BYTES
}

/// How a held request goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Release {
    /// It is served, or its answer is sent.
    #[default]
    Answer,
    /// The connection is closed; a request held before stays unserved.
    Drop,
}

/// The faults that wait for a request, first come first served.
#[derive(Default)]
pub(crate) struct Script(Vec<Fault>);

impl Script {
    pub(crate) fn add(&mut self, fault: Fault) {
        self.0.push(fault);
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Forgets those for one client, or those for everybody.
    pub(crate) fn clear_of(&mut self, client: Option<&str>) {
        self.0.retain(|fault| fault.client.as_deref() != client);
    }

    pub(crate) fn faults(&self) -> &[Fault] {
        &self.0
    }

    /// Takes the first fault that matches, and counts it.
    pub(crate) fn take(&mut self, client: Option<&str>, grant: Option<&str>) -> Option<Mode> {
        let fits = |wanted: &Option<String>, got: Option<&str>| {
            wanted.is_none() || wanted.as_deref() == got
        };
        let at = self
            .0
            .iter()
            .position(|fault| fits(&fault.client, client) && fits(&fault.grant, grant))?;
        let fault = &mut self.0[at];
        let mode = fault.mode.clone();
        match &mut fault.count {
            Some(count) if *count > 1 => *count -= 1,
            Some(_) => drop(self.0.remove(at)),
            None => {}
        }
        Some(mode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_applies_to_its_client_and_grant_as_often_as_it_says() {
        let mut script = Script::default();
        let json =
            r#"{"client":"a","grant":"refresh_token","mode":"delay_after","ms":5,"count":2}"#;
        script.add(serde_json::from_str(json).unwrap());
        assert_eq!(script.take(Some("b"), Some("refresh_token")), None);
        assert_eq!(script.take(Some("a"), Some("client_credentials")), None);
        for _ in 0..2 {
            assert_eq!(
                script.take(Some("a"), Some("refresh_token")),
                Some(Mode::DelayAfter { ms: 5 })
            );
        }
        assert_eq!(script.take(Some("a"), Some("refresh_token")), None);
    }

    #[test]
    fn the_faults_of_one_client_are_forgotten_and_no_others() {
        let mut script = Script::default();
        script.add(Fault::once("a", Mode::HoldBefore));
        script.add(Fault::once("b", Mode::HoldBefore));
        script.add(Fault::everybody(Mode::Torn));
        script.clear_of(Some("a"));
        assert_eq!(script.take(Some("a"), None), Some(Mode::Torn));
        script.clear_of(None);
        assert_eq!(script.take(Some("a"), None), None);
        assert_eq!(script.take(Some("b"), None), Some(Mode::HoldBefore));
    }

    #[test]
    fn a_name_is_the_same_in_json_and_in_history() {
        for mode in [
            Mode::HoldBefore,
            Mode::Torn,
            Mode::status(503),
            Mode::Drip { ms: 1 },
            Mode::InvalidJson,
        ] {
            assert_eq!(serde_json::to_value(&mode).unwrap()["mode"], mode.name());
        }
    }
}
