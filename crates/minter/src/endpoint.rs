//! Which token endpoints may be used, decided from their URL alone.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use url::{Host, Url};

use crate::address::{AddressRules, setting};
use crate::config::Config;
use crate::stand_in::StandIn;

/// The longest token endpoint, in bytes.
pub(crate) const URL_MAX: usize = 2048;

/// Why a URL may not be used as a token endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("token endpoint {0}")]
pub struct EndpointRefused(pub(crate) String);

/// A URL that may be used as a token endpoint.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    pub(crate) url: Url,
    /// Host and port: what limits are counted for, and what errors name.
    pub(crate) authority: String,
}

/// The rules that a URL has to pass.
#[derive(Clone, Debug)]
pub(crate) struct EndpointRules {
    pub(crate) addresses: AddressRules,
    patterns: Vec<EndpointPattern>,
    stand_ins: Vec<StandIn>,
}

impl EndpointRules {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            addresses: AddressRules {
                loopback: config.allow_loopback,
                networks: config.allow_networks.clone(),
            },
            patterns: config.allow_endpoints.clone(),
            stand_ins: config.stand_ins.clone(),
        }
    }

    /// Whether somebody named this endpoint among the allowed ones.
    pub(crate) fn is_listed(&self, text: &str) -> bool {
        self.check(text)
            .is_ok_and(|endpoint| self.patterns.iter().any(|p| p.matches(&endpoint.url)))
    }

    /// Checks an endpoint that the configuration of a refresh names: it has to be one of `fixed`, or
    /// among the allowed ones. Those on loopback are allowed where loopback is.
    pub(crate) fn admit(
        &self,
        text: &str,
        fixed: &BTreeSet<String>,
    ) -> Result<(), EndpointRefused> {
        let endpoint = self.check(text)?;
        let listed = || self.patterns.iter().any(|p| p.matches(&endpoint.url));
        // The rules let no other loopback pass.
        let is_loopback = || endpoint.url.host().is_some_and(is_loopback);
        if fixed.contains(text) || listed() || is_loopback() {
            return Ok(());
        }
        let host = &endpoint.authority;
        Err(EndpointRefused(format!(
            "at {host} is not among the allowed ones: list {host:?} in issuers.allow_endpoints of the replicas, or have an admin import a profile with it for the platform (evermint provider profile import --platform)"
        )))
    }

    /// Where a request for a token endpoint goes: there, or to its stand-in.
    pub(crate) fn way_to(&self, text: &str) -> Result<Endpoint, EndpointRefused> {
        let mut endpoint = self.check(text)?;
        if let Some(by) = self.stand_ins.iter().find_map(|s| s.of(&endpoint.url)) {
            if !self.addresses.loopback {
                let why = "has a stand-in on this host, which needs issuers.allow_loopback";
                return Err(EndpointRefused(why.to_owned()));
            }
            endpoint.url = by.clone();
        }
        Ok(endpoint)
    }

    /// Parses a token endpoint. Names are checked once more when they are resolved.
    pub(crate) fn check(&self, text: &str) -> Result<Endpoint, EndpointRefused> {
        let refuse = |why: String| Err(EndpointRefused(why));
        if text.len() > URL_MAX {
            return refuse(format!("is longer than {URL_MAX} bytes"));
        }
        let url = match Url::parse(text) {
            Ok(url) => url,
            Err(error) => return refuse(format!("is no URL: {error}")),
        };
        // The URL is not shown before this: it might carry a password.
        if !url.username().is_empty() || url.password().is_some() {
            return refuse("must not contain a user name or password".to_owned());
        }
        if url.fragment().is_some() {
            return refuse("must not have a fragment".to_owned());
        }
        let Some(host) = url.host() else {
            return refuse("has no host".to_owned());
        };
        let is_loopback = is_loopback(host.clone());
        match url.scheme() {
            "https" => {}
            "http" if self.addresses.loopback && is_loopback => {}
            "http" if self.addresses.loopback => {
                return refuse("must be https; http is for loopback only".to_owned());
            }
            "http" if is_loopback => {
                let hint = "must be https; see issuers.allow_loopback for tests on this host";
                return refuse(hint.to_owned());
            }
            _ => return refuse("must be https".to_owned()),
        }
        let ip = match host {
            Host::Domain(_) => None,
            Host::Ipv4(ip) => Some(ip.into()),
            Host::Ipv6(ip) => Some(ip.into()),
        };
        if let Some(Err(kind)) = ip.map(|ip| self.addresses.check(ip)) {
            return refuse(format!(
                "has a {kind} address ({host}), which is not allowed; see {}",
                setting(kind)
            ));
        }
        let authority = match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_string(),
        };
        Ok(Endpoint { url, authority })
    }
}

fn is_loopback(host: Host<&str>) -> bool {
    match host {
        Host::Domain(name) => name == "localhost",
        Host::Ipv4(ip) => ip.is_loopback(),
        Host::Ipv6(ip) => ip.to_canonical().is_loopback(),
    }
}

/// Allows token endpoints: a host (`login.example.com`), the hosts below one (`*.example.com`),
/// either with a port (`idp.example.com:8443`), or a URL prefix
/// (`https://idp.example.com/realms/prod/`), which ends at a path segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EndpointPattern(Pattern);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    Host {
        suffix: bool,
        host: String,
        port: Option<u16>,
    },
    Prefix(Url),
}

/// A text that is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no endpoint pattern; write a host (idp.example.com, *.example.com, idp.example.com:8443) or a URL prefix (https://idp.example.com/realms/prod/)"
)]
pub struct NotAPattern(String);

impl EndpointPattern {
    fn matches(&self, url: &Url) -> bool {
        match &self.0 {
            Pattern::Host { suffix, host, port } => {
                let is = url.host_str().unwrap_or("");
                let host_fits = if *suffix {
                    is.strip_suffix(host.as_str())
                        .is_some_and(|rest| rest.ends_with('.'))
                } else {
                    is == host
                };
                host_fits && (port.is_none() || *port == url.port_or_known_default())
            }
            Pattern::Prefix(prefix) => {
                let rest = url.path().strip_prefix(prefix.path());
                prefix.origin() == url.origin()
                    && rest.is_some_and(|rest| {
                        prefix.path().ends_with('/') || rest.is_empty() || rest.starts_with('/')
                    })
            }
        }
    }
}

impl FromStr for EndpointPattern {
    type Err = NotAPattern;
    fn from_str(text: &str) -> Result<Self, NotAPattern> {
        let bad = || NotAPattern(text.to_owned());
        if text.contains("://") {
            let url = Url::parse(text).map_err(|_| bad())?;
            let plain = matches!(url.scheme(), "http" | "https")
                && url.username().is_empty()
                && url.password().is_none()
                && url.query().is_none()
                && url.fragment().is_none();
            return plain.then_some(Self(Pattern::Prefix(url))).ok_or_else(bad);
        }
        let (suffix, rest) = match text.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        // As a URL's host, so that it is compared in the same normal form.
        let url = Url::parse(&format!("https://{rest}/")).map_err(|_| bad())?;
        let host = url.host_str().unwrap_or("").to_owned();
        let plain = !rest.is_empty() && !rest.contains(['/', '@', '?', '#', '*', '\\']);
        // A URL forgets a port that is its scheme's default.
        let port = match rest.rsplit_once(':') {
            Some((_, port)) if !rest.ends_with(']') => Some(port.parse().map_err(|_| bad())?),
            _ => None,
        };
        plain
            .then_some(Self(Pattern::Host { suffix, host, port }))
            .ok_or_else(bad)
    }
}

impl TryFrom<String> for EndpointPattern {
    type Error = NotAPattern;
    fn try_from(text: String) -> Result<Self, NotAPattern> {
        text.parse()
    }
}

impl From<EndpointPattern> for String {
    fn from(pattern: EndpointPattern) -> Self {
        pattern.to_string()
    }
}

impl fmt::Display for EndpointPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Pattern::Prefix(url) => f.write_str(url.as_str()),
            Pattern::Host { suffix, host, port } => {
                f.write_str(if *suffix { "*." } else { "" })?;
                f.write_str(host)?;
                port.map_or(Ok(()), |port| write!(f, ":{port}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(config: &Config, url: &str) -> Result<String, String> {
        EndpointRules::new(config)
            .check(url)
            .map(|e| e.authority)
            .map_err(|e| e.to_string())
    }

    #[test]
    fn a_public_https_endpoint_is_used() {
        for (url, authority) in [
            ("https://idp.example/token", "idp.example"),
            ("https://idp.example:8443/token?x=1", "idp.example:8443"),
            ("https://8.8.8.8/token", "8.8.8.8"),
            ("https://[2606:4700::1]/token", "[2606:4700::1]"),
        ] {
            assert_eq!(check(&Config::default(), url).as_deref(), Ok(authority));
        }
    }

    #[test]
    fn an_endpoint_that_points_inwards_or_hides_something_is_refused() {
        for (url, why) in [
            ("http://idp.example/token", "must be https"),
            ("http://127.0.0.1/token", "must be https"),
            ("ftp://idp.example/", "must be https"),
            ("file:///etc/passwd", "no host"),
            ("idp.example/token", "no URL"),
            ("https://", "no URL"),
            ("https://user@idp.example/", "user name"),
            ("https://user:hunter2@idp.example/", "user name"),
            ("https://idp.example/#x", "fragment"),
            ("https://127.0.0.1/", "loopback"),
            ("https://2130706433/", "loopback"),
            ("https://0x7f.1/", "loopback"),
            ("https://0177.0.0.1/", "loopback"),
            ("https://127.1/", "loopback"),
            ("https://[::1]/", "loopback"),
            ("https://[::ffff:127.0.0.1]/", "loopback"),
            ("https://[::ffff:a9fe:a9fe]/", "metadata"),
            ("https://169.254.169.254/latest/", "metadata"),
            ("https://0/", "unspecified"),
            ("https://10.0.0.1/", "private"),
            ("https://１０.0.0.1/", "private"),
            ("https://[fd00:ec2::254]/", "private"),
        ] {
            let error = check(&Config::default(), url).expect_err(url);
            assert!(error.contains(why), "{url}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
        let long = format!("https://idp.example/{}", "a".repeat(URL_MAX));
        assert!(check(&Config::default(), &long).is_err());
    }

    #[test]
    fn http_is_for_loopback_only_and_only_if_allowed() {
        let config = Config::loopback();
        for url in [
            "http://127.0.0.1:9/token",
            "http://localhost:9/token",
            "http://[::1]:9/token",
            "https://127.0.0.1/token",
        ] {
            assert!(check(&config, url).is_ok(), "{url}");
        }
        for url in [
            "http://idp.example/",
            "http://10.0.0.1/",
            "http://localhost.evil.example/",
            "http://8.8.8.8/",
            "https://169.254.169.254/",
        ] {
            assert!(check(&config, url).is_err(), "{url}");
        }
    }

    #[test]
    fn a_stand_in_is_asked_instead_where_loopback_is_allowed() {
        let way = |loopback| {
            let rules = EndpointRules::new(&Config {
                allow_loopback: loopback,
                stand_ins: vec![
                    "https://idp.example/token=http://127.0.0.1:9/t"
                        .parse()
                        .unwrap(),
                ],
                ..Config::default()
            });
            let way = rules.way_to("https://idp.example/token");
            way.map(|e| (e.authority, e.url.to_string()))
                .map_err(|e| e.to_string())
        };
        let led = ("idp.example".to_owned(), "http://127.0.0.1:9/t".to_owned());
        assert_eq!(way(true), Ok(led));
        assert!(way(false).unwrap_err().contains("issuers.allow_loopback"));
    }

    #[test]
    fn only_allowed_endpoints_are_used() {
        for (pattern, url, fits) in [
            ("idp.example", "https://idp.example/x", true),
            ("idp.example", "https://idp.example:8443/x", true),
            ("IDP.example", "https://idp.EXAMPLE/x", true),
            ("idp.example", "https://idp.example.evil/x", false),
            ("idp.example", "https://a.idp.example/x", false),
            ("*.idp.example", "https://a.idp.example/x", true),
            ("*.idp.example", "https://idp.example/x", false),
            ("*.idp.example", "https://evilidp.example/x", false),
            ("idp.example:8443", "https://idp.example:8443/x", true),
            ("idp.example:8443", "https://idp.example/x", false),
            ("idp.example:443", "https://idp.example/x", true),
            ("https://idp.example/a", "https://idp.example/a", true),
            ("https://idp.example/a", "https://idp.example/a/b", true),
            ("https://idp.example/a", "https://idp.example/ab", false),
            (
                "https://idp.example/a/",
                "https://idp.example/a/../b",
                false,
            ),
            (
                "https://idp.example/a/",
                "https://idp.example/a/%2e%2e/b",
                false,
            ),
            ("https://idp.example", "https://idp.example/x", true),
            ("https://idp.example", "https://idp.example:8443/x", false),
        ] {
            let config = Config {
                allow_endpoints: vec![pattern.parse().unwrap()],
                ..Config::default()
            };
            let admitted = EndpointRules::new(&config).admit(url, &BTreeSet::new());
            assert_eq!(admitted.is_ok(), fits, "{pattern} {url}");
        }
    }

    #[test]
    fn an_endpoint_that_nobody_decided_on_is_not_admitted() {
        let fixed = BTreeSet::from(["https://fixed.example/token".to_owned()]);
        for (loopback, url, why) in [
            (false, "https://fixed.example/token", ""),
            (
                false,
                "https://fixed.example/token2",
                "not among the allowed",
            ),
            (
                false,
                "https://idp.example:8443/token",
                r#"list "idp.example:8443" in issuers.allow_endpoints"#,
            ),
            (false, "https://8.8.8.8/token", "not among the allowed"),
            (false, "https://127.0.0.1/token", "loopback"),
            (true, "http://127.0.0.1:9/token", ""),
            (true, "https://[::1]:9/token", ""),
            (
                true,
                "https://idp.example/token",
                "profile import --platform",
            ),
        ] {
            let config = Config {
                allow_loopback: loopback,
                ..Config::default()
            };
            let admitted = EndpointRules::new(&config).admit(url, &fixed);
            let said = admitted.map_or_else(|refused| refused.to_string(), |()| String::new());
            assert!(
                said.contains(why) && said.is_empty() == why.is_empty(),
                "{url}: {said}"
            );
        }
        // What is fixed has to pass the other rules all the same.
        let inward = "https://10.0.0.1/token".to_owned();
        let rules = EndpointRules::new(&Config::default());
        assert!(
            rules
                .admit(&inward, &BTreeSet::from([inward.clone()]))
                .is_err()
        );
    }

    #[test]
    fn a_pattern_is_written_as_it_was_read() {
        for text in [
            "idp.example",
            "*.example",
            "a.example:443",
            "https://a.example/x/",
        ] {
            let pattern: EndpointPattern = text.parse().unwrap();
            assert_eq!(pattern.to_string(), text);
        }
        for bad in [
            "",
            "*",
            "*.",
            "a b",
            "a/b",
            "ftp://x/",
            "https://u:p@x/",
            "x:y",
            "*.*.x",
        ] {
            assert!(bad.parse::<EndpointPattern>().is_err(), "{bad}");
        }
    }
}
