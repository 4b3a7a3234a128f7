//! The strategies against the strict issuer of this project, which has its own reading of the
//! standards.

mod support;

use std::time::Duration;

use evermint_core::mint::FailureClass;
use evermint_core::port::{Minter, Prober};
use evermint_core::strategy::Strategy;
use evermint_issuer::{Authentication, Client, Config, ExpiresIn, Fault, Issuer, Mode};
use support::{RSA, minter, order};

#[tokio::test]
async fn a_grant_is_kept_alive_by_showing_each_refresh_token_once() {
    let issuer = Issuer::start(Config::default()).await.unwrap();
    for (client, client_auth) in [
        (Client::new("public"), None),
        (
            Client::new("post")
                .secret("s3cr&t")
                .authentication(Authentication::Post),
            None,
        ),
        (
            Client::new("basic:1")
                .secret("s3cr&t +%")
                .authentication(Authentication::Basic),
            Some("client_secret_basic"),
        ),
    ] {
        let seeded = issuer.handle().seed(client.expires_in(ExpiresIn::Text));
        let mut order = order(
            Strategy::OAuth2RefreshToken,
            &issuer.token_url(),
            &[("client_id", &seeded.client_id)],
            &[("refresh_token", seeded.refresh_token.expose())],
        );
        let auth = client_auth.map(|way| ("client_auth".to_owned(), way.to_owned()));
        order.config.material.extend(auth);
        let secret = seeded
            .client_secret
            .map(|s| ("client_secret".to_owned(), s.expose().into()));
        order.secrets.extend(secret);
        let minter = minter(|_| ());
        for _ in 0..5 {
            let minted = minter.mint(order.clone()).await.unwrap();
            assert_eq!(minted.lifetime, Some(Duration::from_secs(60)));
            order.secrets.extend(minted.new_material);
        }
    }
    let history = issuer.handle().history();
    assert_eq!(history.records().count(), 15);
    assert!(history.presentations().values().all(|times| *times == 1));
    assert!(history.overlaps().is_empty());
    issuer.shutdown().await;
}

#[tokio::test]
async fn a_token_that_was_used_before_is_a_refused_grant() {
    let issuer = Issuer::start(Config::default()).await.unwrap();
    let seeded = issuer.handle().seed(Client::new("rt"));
    let order = order(
        Strategy::OAuth2RefreshToken,
        &issuer.token_url(),
        &[("client_id", "rt")],
        &[("refresh_token", seeded.refresh_token.expose())],
    );
    let minter = minter(|_| ());
    minter.mint(order.clone()).await.unwrap();
    let failure = minter.mint(order).await.unwrap_err();
    assert_eq!(
        failure.class,
        FailureClass::GrantRefused,
        "{}",
        failure.cause
    );
    issuer.shutdown().await;
}

#[tokio::test]
async fn an_answer_that_the_issuer_lost_is_unclear() {
    let issuer = Issuer::start(Config::default()).await.unwrap();
    for mode in [Mode::DropBefore, Mode::DropAfter] {
        let seeded = issuer.handle().seed(Client::new("rt"));
        issuer.handle().fault(Fault::once("rt", mode));
        let order = order(
            Strategy::OAuth2RefreshToken,
            &issuer.token_url(),
            &[("client_id", "rt")],
            &[("refresh_token", seeded.refresh_token.expose())],
        );
        let failure = minter(|_| ()).mint(order).await.unwrap_err();
        assert_eq!(failure.class, FailureClass::Unclear, "{}", failure.cause);
    }
    issuer.shutdown().await;
}

#[tokio::test]
async fn a_client_gets_a_token_for_itself_unless_its_secret_or_scope_is_wrong() {
    let issuer = Issuer::start(Config::default()).await.unwrap();
    issuer
        .handle()
        .register(Client::new("cc").secret("right").scopes(&["a", "b"]));
    for (secret, scope, class, word) in [
        ("right", "a", None, ""),
        (
            "wrong",
            "a",
            Some(FailureClass::ConfigRefused),
            "invalid_client",
        ),
        (
            "right",
            "c",
            Some(FailureClass::ConfigRefused),
            "invalid_scope",
        ),
    ] {
        let mut order = order(
            Strategy::OAuth2ClientCredentials,
            &issuer.token_url(),
            &[("client_id", "cc")],
            &[("client_secret", secret)],
        );
        order.config.scopes = vec![scope.to_owned()];
        let failure = minter(|_| ()).mint(order).await.err();
        assert_eq!(failure.as_ref().map(|f| f.class), class, "{failure:?}");
        assert!(failure.is_none_or(|f| f.cause.contains(word)));
    }
    issuer.shutdown().await;
}

#[tokio::test]
async fn a_service_accounts_assertion_is_accepted_and_a_strangers_is_not() {
    let issuer = Issuer::start(Config::default()).await.unwrap();
    let account = issuer.handle().service_account("robot@p.test").unwrap();
    let stranger = evermint_issuer::ServiceAccount::generate("stranger@p.test").unwrap();
    for (account, class) in [
        (account, None),
        (stranger, Some(FailureClass::GrantRefused)),
    ] {
        let file = account.key_file(issuer.url()).to_string();
        let mut order = order(
            Strategy::GoogleServiceAccountJwt,
            &issuer.token_url(),
            &[],
            &[("service_account_json", &file)],
        );
        order.config.scopes = vec!["a".to_owned()];
        let failure = minter(|_| ()).mint(order).await.err();
        assert_eq!(failure.as_ref().map(|f| f.class), class, "{failure:?}");
    }
    issuer.shutdown().await;
}

#[tokio::test]
async fn a_dry_run_mints_only_where_nothing_is_used_up() {
    let issuer = Issuer::start(Config::default()).await.unwrap();
    let seeded = issuer.handle().seed(Client::new("rt"));
    issuer
        .handle()
        .register(Client::new("cc").secret("right").scopes(&["a", "b"]));
    let minter = minter(|_| ());

    let single_use = order(
        Strategy::OAuth2RefreshToken,
        &issuer.token_url(),
        &[("client_id", "rt")],
        &[("refresh_token", seeded.refresh_token.expose())],
    );
    let probed = minter.probe(single_use.clone()).await;
    assert!(matches!(probed.endpoint, Some(Ok(_))), "{probed:?}");
    assert!(probed.mint.is_none());
    assert_eq!(issuer.handle().history().records().count(), 0);
    minter.mint(single_use).await.unwrap();

    let mut free = order(
        Strategy::OAuth2ClientCredentials,
        &issuer.token_url(),
        &[("client_id", "cc")],
        &[("client_secret", "right")],
    );
    free.config.scopes = vec!["a".to_owned()];
    let minted = minter.probe(free).await.mint.unwrap().unwrap();
    assert_eq!(minted.scopes.as_deref(), Some(&["a".to_owned()][..]));
    assert_eq!(minted.lifetime, Some(Duration::from_secs(60)));
    issuer.shutdown().await;
}

#[tokio::test]
async fn an_endpoint_that_is_out_of_reach_is_told_and_nothing_is_sent() {
    let free = order(
        Strategy::OAuth2ClientCredentials,
        // Nobody listens on this port of loopback.
        "http://127.0.0.1:1/token",
        &[("client_id", "cc")],
        &[("client_secret", "right")],
    );
    let probed = minter(|_| ()).probe(free).await;
    let failure = probed.endpoint.unwrap().unwrap_err();
    assert!(
        failure.cause.contains("could not be reached"),
        "{failure:?}"
    );
    assert!(failure.remedy.contains("DNS"), "{failure:?}");
    assert!(probed.mint.is_none());
}

#[tokio::test]
async fn a_client_with_a_key_proves_itself_by_it_and_by_nothing_else() {
    let issuer = Issuer::start(Config::default()).await.unwrap();
    let public = rcgen::KeyPair::from_pem(&RSA).unwrap().public_key_pem();
    let seeded = issuer
        .handle()
        .seed(Client::new("keyed").public_key(&public));
    issuer.handle().register(Client::new("secret").secret("s"));
    let minter = minter(|_| ());
    let key = ("client_private_key", RSA.as_str());
    let token = ("refresh_token", seeded.refresh_token.expose());
    for (strategy, client, secret, refused) in [
        (
            Strategy::OAuth2ClientCredentials,
            "keyed",
            &[key][..],
            false,
        ),
        (Strategy::OAuth2RefreshToken, "keyed", &[key, token], false),
        (
            Strategy::OAuth2ClientCredentials,
            "keyed",
            &[("client_secret", "s")],
            true,
        ),
        (Strategy::OAuth2ClientCredentials, "secret", &[key], true),
    ] {
        let id = [("client_id", client)];
        let mut order = order(strategy, &issuer.token_url(), &id, secret);
        for _ in 0..3 {
            match minter.mint(order.clone()).await {
                Ok(minted) => {
                    assert!(!refused);
                    order.secrets.extend(minted.new_material);
                }
                Err(failure) => {
                    assert!(refused, "{failure:?}");
                    assert_eq!(failure.class, FailureClass::ConfigRefused, "{failure:?}");
                }
            }
        }
    }
    let history = issuer.handle().history();
    assert!(history.presentations().values().all(|times| *times == 1));
    issuer.shutdown().await;
}

#[tokio::test]
async fn assertions_and_tokens_of_those_it_trusts_are_taken_for_its_own() {
    let issuer = Issuer::start(Config::default()).await.unwrap();
    let public = rcgen::KeyPair::from_pem(&RSA).unwrap().public_key_pem();
    issuer.handle().trust("robot", &public).unwrap();
    issuer.handle().register(Client::new("app").secret("s"));
    let url = issuer.token_url();
    let minter = minter(|_| ());

    let signing = [("assertion_issuer", "robot")];
    let mut bearer = order(
        Strategy::OAuth2JwtBearer,
        &url,
        &signing,
        &[("private_key", &RSA)],
    );
    bearer.config.scopes = vec!["a".to_owned()];
    let first = minter.mint(bearer).await.unwrap();

    let kind = "urn:ietf:params:oauth:token-type:access_token";
    let subject = first.token.expose_str().unwrap();
    let client = [("client_id", "app"), ("subject_token_type", kind)];
    for (public, secret, class) in [
        (&client[1..], &[("subject_token", subject)][..], None),
        (
            &client[..],
            &[("subject_token", subject), ("client_secret", "s")],
            None,
        ),
        (
            &client[..],
            &[("subject_token", subject), ("client_secret", "x")],
            Some("invalid_client"),
        ),
        (
            &client[1..],
            &[("subject_token", "stranger")],
            Some("invalid_request"),
        ),
    ] {
        let order = order(Strategy::OAuth2TokenExchange, &url, public, secret);
        let failure = minter.mint(order).await.err();
        assert_eq!(failure.is_some(), class.is_some(), "{failure:?}");
        assert!(failure.is_none_or(|f| f.cause.contains(class.unwrap())));
    }
    issuer.shutdown().await;
}
