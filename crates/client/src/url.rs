//! The URLs of endpoints, parsed once.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use http::Uri;
use http::uri::Scheme;

use crate::error::Error;

/// `http://host:port` or `https://host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Url {
    origin: Uri,
    host: Host,
    port: u16,
    secure: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    Name(String),
    Address(IpAddr),
}

const SETTING: &str = "endpoints";

impl Url {
    /// Parses a URL. Plain `http` goes to this machine only, unless `plaintext` is allowed: what
    /// travels are secrets.
    pub(crate) fn parse(text: &str, plaintext: bool) -> Result<Self, Error> {
        let wrong = |problem: &str| Error::setting(SETTING, format!("{text:?} {problem}"));
        let origin: Uri = text
            .parse()
            .map_err(|e| wrong(&format!("is no URL: {e}")))?;
        let secure = match origin.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP => false,
            _ => return Err(wrong("must begin with https:// or http://")),
        };
        if !matches!(origin.path(), "" | "/") || origin.query().is_some() {
            return Err(wrong("must not have a path"));
        }
        let authority = origin.authority().map_or("", |a| a.as_str());
        let host = origin.host().unwrap_or_default();
        if host.is_empty() || authority.contains('@') {
            return Err(wrong("must have a host, and no user"));
        }
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let host = bare
            .parse()
            .map_or_else(|_| Host::Name(bare.to_owned()), Host::Address);
        let url = Self {
            port: origin.port_u16().unwrap_or(if secure { 443 } else { 80 }),
            origin,
            host,
            secure,
        };
        if !secure && !plaintext && !url.is_local() {
            return Err(wrong(
                "must begin with https:// beyond this machine, or plaintext must be allowed",
            ));
        }
        Ok(url)
    }

    /// What requests are addressed to, whichever address they are sent to.
    pub(crate) fn origin(&self) -> &Uri {
        &self.origin
    }

    /// The name that has to be resolved, with the port.
    pub(crate) fn name(&self) -> Option<(&str, u16)> {
        match &self.host {
            Host::Name(name) => Some((name, self.port)),
            Host::Address(_) => None,
        }
    }

    /// The address that need not be resolved.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        match self.host {
            Host::Name(_) => None,
            Host::Address(ip) => Some(SocketAddr::new(ip, self.port)),
        }
    }

    /// The name to which the server's certificate has to be issued; `None` without TLS.
    pub(crate) fn certified(&self) -> Option<String> {
        self.secure.then(|| match &self.host {
            Host::Name(name) => name.clone(),
            Host::Address(ip) => ip.to_string(),
        })
    }

    fn is_local(&self) -> bool {
        match &self.host {
            Host::Name(name) => name.eq_ignore_ascii_case("localhost"),
            Host::Address(ip) => ip.is_loopback(),
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.origin.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_checked_at_the_rim() {
        for (text, plaintext, good) in [
            ("https://evermint.example:7600", false, true),
            ("https://evermint.example", false, true),
            ("https://10.0.0.1:7600/", false, true),
            ("https://[fd00::1]:7600", false, true),
            ("http://127.0.0.1:7600", false, true),
            ("http://[::1]:7600", false, true),
            ("http://LocalHost:7600", false, true),
            ("http://evermint.example:7600", false, false),
            ("http://localhost.evil.example:7600", false, false),
            ("http://10.0.0.1:7600", false, false),
            ("http://10.0.0.1:7600", true, true),
            ("evermint.example:7600", false, false),
            ("ftp://evermint.example", false, false),
            ("https://user:pass@evermint.example", false, false),
            ("https://evermint.example/path", false, false),
            ("https://evermint.example/?q", false, false),
            ("https://", false, false),
            ("", false, false),
        ] {
            assert_eq!(Url::parse(text, plaintext).is_ok(), good, "{text}");
        }
    }

    #[test]
    fn a_host_is_a_name_or_an_address() {
        let url = Url::parse("https://evermint.example", false).unwrap();
        assert_eq!(url.name(), Some(("evermint.example", 443)));
        assert_eq!(url.address(), None);
        assert_eq!(url.certified().as_deref(), Some("evermint.example"));
        let url = Url::parse("http://[::1]:7600", false).unwrap();
        assert_eq!(url.name(), None);
        assert_eq!(url.address(), Some("[::1]:7600".parse().unwrap()));
        assert_eq!(url.certified(), None);
    }
}
