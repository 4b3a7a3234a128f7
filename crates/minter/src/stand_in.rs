//! Stand-ins on this host for issuers out there: so that tests run exactly what operators run.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use url::{Host, Url};

/// Sends what is for one endpoint to another one, on loopback:
/// `https://oauth2.googleapis.com/token=http://127.0.0.1:9400/token`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StandIn {
    /// The endpoint, as refreshes name it.
    endpoint: Url,
    /// Who answers for it.
    by: Url,
}

/// A text that is no stand-in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no stand-in; write ENDPOINT=URL, with a URL on loopback: https://oauth2.googleapis.com/token=http://127.0.0.1:9400/token"
)]
pub struct NotAStandIn(String);

impl StandIn {
    /// Who answers for `endpoint`, if this is about it.
    pub(crate) fn of(&self, endpoint: &Url) -> Option<&Url> {
        (self.endpoint == *endpoint).then_some(&self.by)
    }
}

impl FromStr for StandIn {
    type Err = NotAStandIn;

    fn from_str(text: &str) -> Result<Self, NotAStandIn> {
        let bad = || NotAStandIn(text.to_owned());
        let (endpoint, by) = text.split_once('=').ok_or_else(bad)?;
        let url = |text: &str| {
            let url = Url::parse(text).ok()?;
            let plain = matches!(url.scheme(), "http" | "https")
                && url.username().is_empty()
                && url.password().is_none();
            plain.then_some(url)
        };
        let endpoint = url(endpoint).ok_or_else(bad)?;
        let is_loopback = |url: &Url| match url.host() {
            Some(Host::Ipv4(ip)) => ip.is_loopback(),
            Some(Host::Ipv6(ip)) => ip.is_loopback(),
            Some(Host::Domain(name)) => name == "localhost",
            None => false,
        };
        let by = url(by).filter(is_loopback).ok_or_else(bad)?;
        Ok(Self { endpoint, by })
    }
}

impl TryFrom<String> for StandIn {
    type Error = NotAStandIn;
    fn try_from(text: String) -> Result<Self, NotAStandIn> {
        text.parse()
    }
}

impl From<StandIn> for String {
    fn from(stand_in: StandIn) -> Self {
        stand_in.to_string()
    }
}

impl fmt::Display for StandIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.endpoint, self.by)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stand_in_answers_for_its_endpoint_alone_and_is_on_loopback() {
        let text = "https://idp.example/token=http://127.0.0.1:9400/token";
        let stand_in: StandIn = text.parse().unwrap();
        assert_eq!(stand_in.to_string(), text);
        let of = |url: &str| stand_in.of(&url.parse().unwrap()).map(Url::as_str);
        assert_eq!(
            of("https://idp.example/token"),
            Some("http://127.0.0.1:9400/token")
        );
        assert_eq!(
            of("https://IDP.example:443/token"),
            Some("http://127.0.0.1:9400/token")
        );
        for other in ["https://idp.example/token2", "http://idp.example/token"] {
            assert_eq!(of(other), None, "{other}");
        }
        for bad in [
            "",
            "https://idp.example/token",
            "https://idp.example/token=https://elsewhere.example/token",
            "https://idp.example/token=http://10.0.0.1/token",
            "https://u:p@idp.example/=http://127.0.0.1/",
            "file:///x=http://127.0.0.1/",
        ] {
            assert!(bad.parse::<StandIn>().is_err(), "{bad}");
        }
    }
}
