//! What is beyond issuers, under the rules for issuers: the keys of OpenID providers, and inference
//! endpoints that are tried before a route leads to them.

use std::sync::Arc;
use std::time::Duration;

use evermint_core::mint::Fence;
use http::{HeaderMap, Method, StatusCode};
use tokio::time::Instant;

use crate::config::Config;
use crate::transport::{Answer, NoAnswer, Outgoing, Transport};
use crate::{ANSWER_MAX, Error};

/// How long one fetch may take.
const TIME: Duration = Duration::from_secs(10);

/// Fetches pages and tries endpoints. Its limits are counted apart from those of mints.
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
    /// replica has named the page, and whoever configures a provider sends its token there anyway.
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
        let answer = self.ask(Outgoing::bare(Method::GET, url), TIME).await?;
        if answer.status != StatusCode::OK {
            return Err(format!("{url} answered {}", answer.status));
        }
        let body = answer.body;
        let body = body.ok_or_else(|| format!("{url} answered more than {ANSWER_MAX} bytes"))?;
        Ok(body.to_vec())
    }

    /// The HTTP status that is answered to JSON with these headers, within `time`.
    ///
    /// # Errors
    /// Why there is none, in a sentence that holds neither header nor body.
    pub async fn post(
        &self,
        url: &str,
        headers: HeaderMap,
        body: &serde_json::Value,
        time: Duration,
    ) -> Result<u16, String> {
        let mut outgoing = Outgoing::json(url, body);
        for (name, value) in &headers {
            outgoing = outgoing.header(name.clone(), value.clone());
        }
        Ok(self.ask(outgoing, time).await?.status.as_u16())
    }

    async fn ask(&self, outgoing: Outgoing, time: Duration) -> Result<Answer, String> {
        let until = Arc::new(Until(Instant::now() + time));
        let fence: Arc<dyn Fence> = Arc::clone(&until) as _;
        self.0.send(&fence, outgoing).await.map_err(|no| match no {
            NoAnswer::Refused(refused) => format!("the endpoint {}", refused.0),
            // Its words would speak of a ticket.
            _ if until.passed() => format!("there was no answer within {} s", time.as_secs()),
            NoAnswer::Unsent { cause, .. } | NoAnswer::Lost { cause } => cause,
        })
    }
}
