//! The strategies against the real OpenID provider, which others wrote: every way in which a client
//! may prove itself there, rotation, and the refusals.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evermint_cluster_tests::{Idp, TTL_FOR_EVER};
use evermint_core::credential::RefreshConfig;
use evermint_core::id::{CredentialId, CredentialKey, ProviderId, TicketId};
use evermint_core::mint::{FailureClass, Fence, MintOrder};
use evermint_core::port::Minter;
use evermint_core::secret::Secret;
use evermint_core::strategy::Strategy;
use evermint_minter::{Config, HttpMinter};

/// A ticket that is long enough for a busy machine.
struct Ticket(Instant);

impl Fence for Ticket {
    fn passed(&self) -> bool {
        self.remaining().is_zero()
    }
    fn remaining(&self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }
}

fn order(
    strategy: Strategy,
    token_url: &str,
    public: &[(&str, &str)],
    secret: &[(&str, &str)],
) -> MintOrder {
    let mut config = RefreshConfig::new(strategy, token_url);
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    config.material = public.iter().map(owned).collect();
    let secrets = secret
        .iter()
        .map(|(name, value)| ((*name).to_owned(), Secret::from(*value)));
    MintOrder {
        credential: CredentialId {
            provider: ProviderId(1),
            key: CredentialKey::new("TOKEN").unwrap(),
        },
        ticket: TicketId(1),
        config,
        secrets: secrets.collect(),
        fence: Arc::new(Ticket(Instant::now() + Duration::from_secs(60))),
    }
}

const BASIC: (&str, &str) = ("client_auth", "client_secret_basic");

#[tokio::test]
async fn a_provider_that_others_wrote_takes_what_the_strategies_send() {
    let idp = Idp::real(TTL_FOR_EVER).await;
    let (Some(rsa), Some(ec), Some(robot)) = (
        idp.key("client-rsa"),
        idp.key("client-ec"),
        idp.key("service-account"),
    ) else {
        // It was said on standard error, and is an error where the real provider is required.
        return;
    };
    let minter = HttpMinter::new(&Config::loopback()).unwrap();
    let url = idp.token_url();

    // A client for itself, by each of its proofs.
    let (rsa_key, ec_key) = (
        ("client_private_key", rsa.as_str()),
        ("client_private_key", ec.as_str()),
    );
    for (client, more, secret) in [
        ("cc-post", &[][..], ("client_secret", "cc-post-secret")),
        ("cc-basic", &[BASIC], ("client_secret", "cc-basic-secret")),
        ("cc-rsa", &[], rsa_key),
        ("cc-ec", &[], ec_key),
    ] {
        let public = [&[("client_id", client)][..], more].concat();
        let order = order(Strategy::OAuth2ClientCredentials, &url, &public, &[secret]);
        assert_eq!(minter.validate(&order.config, &order.secrets), []);
        for _ in 0..2 {
            let minted = minter.mint(order.clone()).await.unwrap();
            assert_eq!(minted.lifetime, Some(TTL_FOR_EVER), "{client}");
        }
    }

    // Grants, each refresh token shown once.
    for (client, more, secret) in [
        (
            "rt-basic",
            &[BASIC][..],
            Some(("client_secret", "rt-basic-secret")),
        ),
        ("rt-public", &[], None),
        ("rt-rsa", &[], Some(rsa_key)),
        (
            "rt-norotate",
            &[],
            Some(("client_secret", "rt-norotate-secret")),
        ),
    ] {
        let grant = idp.grant(client).await;
        let public = [&[("client_id", client)][..], more].concat();
        let token = ("refresh_token", grant.refresh_token.as_str());
        let secret: Vec<_> = secret.into_iter().chain([token]).collect();
        let mut refresh = order(Strategy::OAuth2RefreshToken, &url, &public, &secret);
        let first = refresh.clone();
        for _ in 0..4 {
            let minted = minter.mint(refresh.clone()).await.unwrap();
            let rotates = client != "rt-norotate";
            assert_eq!(
                minted.new_material.contains_key("refresh_token"),
                rotates,
                "{client}"
            );
            refresh.secrets.extend(minted.new_material);
        }
        let family = idp.family(&grant).await;
        assert!(
            family.is_alive() && family.reuse_detected == 0 && family.forks == 0,
            "{family:?}"
        );
        if client == "rt-basic" {
            let reused = minter.mint(first).await.unwrap_err();
            assert_eq!(reused.class, FailureClass::GrantRefused, "{reused:?}");
            assert!(
                reused.cause.contains("grant request is invalid"),
                "{reused:?}"
            );
        }
    }

    // A service account, as Google takes it.
    let account = [(
        "client_email",
        "robot@evermint-test.iam.gserviceaccount.test",
    )];
    let key = [("private_key", robot.as_str())];
    let mut google = order(Strategy::GoogleServiceAccountJwt, &url, &account, &key);
    google.config.scopes = vec!["https://www.googleapis.com/auth/cloud-platform".to_owned()];
    minter.mint(google).await.unwrap();

    // Refusals of a client.
    for (client, secret) in [
        ("cc-post", ("client_secret", "wrong")),
        ("cc-rsa", ("client_private_key", robot.as_str())),
        ("nobody", ("client_secret", "x")),
    ] {
        let public = [("client_id", client)];
        let order = order(Strategy::OAuth2ClientCredentials, &url, &public, &[secret]);
        let refused = minter.mint(order).await.unwrap_err();
        assert_eq!(refused.class, FailureClass::ConfigRefused, "{refused:?}");
        assert!(refused.cause.contains("invalid_client"), "{refused:?}");
    }

    let history = idp.history().await;
    let shown: BTreeMap<_, _> = history.presentations();
    // The one that was shown again on purpose, and the one that never rotates.
    assert_eq!(shown.values().filter(|times| **times > 1).count(), 2);
    assert!(history.overlaps().is_empty());
}
