//! What is at a public URL, fetched under the rules for issuers: for the keys of OpenID providers.

use std::sync::Arc;
use std::time::Duration;

use evermint_core::mint::Fence;
use http::{Method, StatusCode};
use tokio::time::Instant;

use crate::config::Config;
use crate::transport::{NoAnswer, Outgoing, Transport};
use crate::{ANSWER_MAX, Error};

/// How long one fetch may take.
const TIME: Duration = Duration::from_secs(10);

/// Fetches pages. Its limits are counted apart from those of mints.
#[derive(Debug)]
pub struct Web(Transport);

struct Until(Instant);

impl Fence for Until {
    fn passed(&self) -> bool {
        Instant::now() >= self.0
    }

    fn remaining(&self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }
}

impl Web {
    /// A web under the rules for issuers, without their list of endpoints: whoever configures a
    /// replica has named the page.
    ///
    /// # Errors
    /// [`Error`] names the setting that cannot be.
    pub fn new(config: &Config) -> Result<Self, Error> {
        Transport::new(config).map(Self)
    }

    /// The body of a page, within ten seconds.
    ///
    /// # Errors
    /// Why there is none, in a sentence.
    pub async fn get(&self, url: &str) -> Result<Vec<u8>, String> {
        let fence: Arc<dyn Fence> = Arc::new(Until(Instant::now() + TIME));
        let answer = self.0.send(&fence, Outgoing::bare(Method::GET, url)).await;
        let answer = answer.map_err(|no| match no {
            NoAnswer::Refused(refused) => refused.to_string(),
            NoAnswer::Unsent { cause, .. } | NoAnswer::Lost { cause } => cause,
        })?;
        if answer.status != StatusCode::OK {
            return Err(format!("{url} answered {}", answer.status));
        }
        let body = answer.body;
        let body = body.ok_or_else(|| format!("{url} answered more than {ANSWER_MAX} bytes"))?;
        Ok(body.to_vec())
    }
}
