//! Turns names into addresses that may be reached. The check stands here, and not before the
//! request, because a name can answer differently a moment later: what was checked is what is
//! connected to.

use std::net::SocketAddr;
use std::sync::Arc;

use futures::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::address::{AddressRules, setting};

/// Looks a name up; the ports of the answer mean nothing.
pub(crate) type Lookup =
    Arc<dyn Fn(String) -> BoxFuture<'static, std::io::Result<Vec<SocketAddr>>> + Send + Sync>;

/// Every address of the name is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{name} resolves to a {kind} address ({address}), which is not allowed; see {}",
    setting(kind)
)]
pub(crate) struct AddressRefused {
    name: String,
    kind: &'static str,
    address: std::net::IpAddr,
}

/// The resolver of the HTTP client.
pub(crate) struct CheckedResolver {
    rules: AddressRules,
    lookup: Lookup,
}

impl CheckedResolver {
    /// Asks the system.
    pub(crate) fn system(rules: AddressRules) -> Self {
        Self::new(rules, Arc::new(|name| Box::pin(system_lookup(name))))
    }

    pub(crate) fn new(rules: AddressRules, lookup: Lookup) -> Self {
        Self { rules, lookup }
    }
}

async fn system_lookup(name: String) -> std::io::Result<Vec<SocketAddr>> {
    Ok(tokio::net::lookup_host((name, 0)).await?.collect())
}

impl Resolve for CheckedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let name = name.as_str().to_owned();
        let rules = self.rules.clone();
        let found = (self.lookup)(name.clone());
        Box::pin(async move {
            let (mut allowed, mut refused) = (Vec::new(), None);
            for address in found.await? {
                match check(&rules, &name, address.ip().to_canonical()) {
                    Ok(()) => allowed.push(address),
                    Err(error) => refused = Some(error),
                }
            }
            match refused {
                Some(error) if allowed.is_empty() => Err(error.into()),
                _ => Ok(Box::new(allowed.into_iter()) as Addrs),
            }
        })
    }
}

/// `localhost` is the one name that plain http may go to, so it must not lead elsewhere.
fn check(
    rules: &AddressRules,
    name: &str,
    address: std::net::IpAddr,
) -> Result<(), AddressRefused> {
    let kind = match rules.check(address) {
        Ok(()) if name == "localhost" && !address.is_loopback() => "foreign",
        Ok(()) => return Ok(()),
        Err(kind) => kind,
    };
    Err(AddressRefused {
        name: name.to_owned(),
        kind,
        address,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn resolve(
        rules: AddressRules,
        name: &str,
        answer: &[&str],
    ) -> Result<Vec<String>, String> {
        let answer: Vec<SocketAddr> = answer
            .iter()
            .map(|ip| SocketAddr::new(ip.parse().unwrap(), 0))
            .collect();
        let resolver = CheckedResolver::new(
            rules,
            Arc::new(move |_| {
                let answer = answer.clone();
                Box::pin(async move { Ok(answer) })
            }),
        );
        match resolver.resolve(name.parse().unwrap()).await {
            Ok(found) => Ok(found.map(|a| a.ip().to_string()).collect()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[tokio::test]
    async fn a_name_that_leads_inwards_is_refused() {
        for (answer, kind) in [
            (&["127.0.0.1"][..], "loopback"),
            (&["10.0.0.1", "192.168.1.1"], "private"),
            (&["169.254.169.254"], "metadata"),
            (&["::ffff:127.0.0.1"], "loopback"),
            (&["::1"], "loopback"),
        ] {
            let error = resolve(AddressRules::default(), "idp.example", answer)
                .await
                .unwrap_err();
            assert!(
                error.contains(kind) && error.contains("idp.example"),
                "{error}"
            );
        }
    }

    #[tokio::test]
    async fn only_the_allowed_addresses_of_a_name_are_connected_to() {
        let found = resolve(
            AddressRules::default(),
            "idp.example",
            &["10.0.0.1", "8.8.8.8"],
        )
        .await;
        assert_eq!(found, Ok(vec!["8.8.8.8".to_owned()]));
    }

    #[tokio::test]
    async fn localhost_leads_nowhere_else() {
        let rules = AddressRules {
            loopback: true,
            networks: vec!["10.0.0.0/8".parse().unwrap()],
        };
        for elsewhere in ["10.0.0.1", "8.8.8.8"] {
            assert!(
                resolve(rules.clone(), "localhost", &[elsewhere])
                    .await
                    .is_err()
            );
        }
        assert!(resolve(rules, "localhost", &["127.0.0.1"]).await.is_ok());
    }
}
