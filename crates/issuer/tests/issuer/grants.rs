//! The three grants, as RFC 6749, RFC 7523 and RFC 9700 have them.

use std::time::Duration;

use evermint_issuer::{Authentication, Client, Config, ExpiresIn, Issuer, Rotation};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use crate::support::*;

#[tokio::test]
async fn a_refresh_rotates_and_its_access_token_opens_the_resource() {
    let (issuer, seed) = issuer().await;
    let first = refresh(issuer.url(), seed.refresh_token.expose())
        .await
        .unwrap();
    assert_eq!(first.status, 200);
    assert_eq!(first.headers["cache-control"], "no-store");
    assert_eq!(first.body["token_type"], "Bearer");
    assert_eq!(first.body["expires_in"], 60);
    let second = refresh(issuer.url(), &first.text("refresh_token"))
        .await
        .unwrap();
    assert_ne!(first.text("refresh_token"), second.text("refresh_token"));

    let opened = resource(issuer.url(), &second.text("access_token")).await;
    assert_eq!(opened.status, 200);
    assert_eq!(
        opened.body,
        json!({ "client_id": "c", "grant_id": seed.grant_id, "generation": 2 })
    );
    assert_eq!(resource(issuer.url(), "made-up").await.status, 401);
    issuer.shutdown().await;
}

#[tokio::test]
async fn reuse_of_a_refresh_token_kills_its_whole_family_and_no_other() {
    let (issuer, seed) = issuer().await;
    let other = issuer.handle().seed_again("c").unwrap();
    let minted = refresh(issuer.url(), seed.refresh_token.expose())
        .await
        .unwrap();
    let access = minted.text("access_token");
    assert_eq!(resource(issuer.url(), &access).await.status, 200);

    let reused = refresh(issuer.url(), seed.refresh_token.expose())
        .await
        .unwrap();
    assert_eq!(reused.error(), (400, "invalid_grant".into()));
    assert_eq!(resource(issuer.url(), &access).await.status, 401);
    let newest = refresh(issuer.url(), &minted.text("refresh_token"))
        .await
        .unwrap();
    assert_eq!(newest.error(), (400, "invalid_grant".into()));
    assert_eq!(
        refresh(issuer.url(), other.refresh_token.expose())
            .await
            .unwrap()
            .status,
        200
    );

    let history = issuer.handle().history();
    assert_eq!(history.reuse_detected(), 1);
    let shown = history.presentations();
    assert_eq!(shown.values().copied().max(), Some(2));
    let families = issuer.handle().families();
    let alive = |id: &str| {
        families
            .iter()
            .find(|family| family.grant_id == id)
            .unwrap()
            .is_alive()
    };
    assert!(!alive(&seed.grant_id));
    assert!(alive(&other.grant_id));
}

#[tokio::test]
async fn two_refreshes_at_once_have_one_winner_whose_grant_is_dead() {
    let (issuer, seed) = issuer().await;
    let token = seed.refresh_token.expose();
    let (one, two) = tokio::join!(refresh(issuer.url(), token), refresh(issuer.url(), token));
    let (one, two) = (one.unwrap(), two.unwrap());
    let winner = if one.status == 200 { &one } else { &two };
    assert_eq!(one.status + two.status, 600, "one 200 and one 400");
    assert_eq!(
        resource(issuer.url(), &winner.text("access_token"))
            .await
            .status,
        401
    );
}

#[tokio::test]
async fn grace_forgives_a_lost_answer_until_it_has_passed() {
    let (issuer, seed) = issuer_with(Client::new("c").grace(Duration::from_secs(30))).await;
    let token = seed.refresh_token.expose();
    assert_eq!(refresh(issuer.url(), token).await.unwrap().status, 200);
    issuer.handle().advance(Duration::from_secs(20));
    assert_eq!(refresh(issuer.url(), token).await.unwrap().status, 200);
    issuer.handle().advance(Duration::from_secs(11));
    assert_eq!(
        refresh(issuer.url(), token).await.unwrap().error(),
        (400, "invalid_grant".into())
    );
}

#[tokio::test]
async fn an_access_token_ends_with_its_lifetime() {
    let (issuer, seed) = issuer_with(Client::new("c").access_ttl(Duration::from_secs(5))).await;
    let access = refresh(issuer.url(), seed.refresh_token.expose())
        .await
        .unwrap()
        .text("access_token");
    let introspect = || {
        reply(
            http()
                .post(format!("{}/introspect", issuer.url()))
                .form(&[("token", &access)]),
        )
    };
    assert_eq!(introspect().await.unwrap().body["active"], true);
    issuer.handle().advance(Duration::from_secs(5));
    assert_eq!(resource(issuer.url(), &access).await.status, 401);
    assert_eq!(introspect().await.unwrap().body, json!({ "active": false }));
}

#[tokio::test]
async fn a_revoked_family_answers_nobody() {
    let (issuer, seed) = issuer().await;
    let minted = refresh(issuer.url(), seed.refresh_token.expose())
        .await
        .unwrap();
    assert!(issuer.handle().revoke(&seed.grant_id));
    assert_eq!(
        resource(issuer.url(), &minted.text("access_token"))
            .await
            .status,
        401
    );
    let next = refresh(issuer.url(), &minted.text("refresh_token"))
        .await
        .unwrap();
    assert_eq!(next.error(), (400, "invalid_grant".into()));
    assert_eq!(
        issuer.handle().history().reuse_detected(),
        0,
        "a revoked token is not a reused one"
    );
}

#[tokio::test]
async fn expires_in_comes_in_every_shape() {
    for (shape, expected) in [
        (ExpiresIn::Number, Some(json!(60))),
        (ExpiresIn::Text, Some(json!("60"))),
        (ExpiresIn::Null, Some(Value::Null)),
        (ExpiresIn::Absent, None),
    ] {
        let (issuer, seed) = issuer_with(Client::new("c").expires_in(shape)).await;
        let answer = refresh(issuer.url(), seed.refresh_token.expose())
            .await
            .unwrap();
        assert_eq!(answer.body.get("expires_in"), expected.as_ref());
    }
}

#[tokio::test]
async fn a_client_without_rotation_gets_no_refresh_token_back() {
    let (issuer, seed) = issuer_with(Client::new("c").rotation(Rotation::Off)).await;
    for generation in 1..=2 {
        let answer = refresh(issuer.url(), seed.refresh_token.expose())
            .await
            .unwrap();
        assert_eq!(answer.body.get("refresh_token"), None);
        assert_eq!(
            resource(issuer.url(), &answer.text("access_token"))
                .await
                .body["generation"],
            generation
        );
    }
}

#[tokio::test]
async fn client_credentials_need_the_secret_in_the_expected_place() {
    let (issuer, _) = issuer_with(Client::new("c").authentication(Authentication::Basic)).await;
    let url = format!("{}/token", issuer.url());
    let form = [("grant_type", "client_credentials")];
    let good = reply(http().post(&url).basic_auth("c", Some("s")).form(&form))
        .await
        .unwrap();
    assert_eq!(good.status, 200);
    assert_eq!(good.body.get("refresh_token"), None);

    let wrong = reply(http().post(&url).basic_auth("c", Some("x")).form(&form))
        .await
        .unwrap();
    assert_eq!(wrong.error(), (401, "invalid_client".into()));
    assert!(wrong.headers.contains_key("www-authenticate"));
    let posted = [form[0], ("client_id", "c"), ("client_secret", "s")];
    assert_eq!(
        post(issuer.url(), &posted).await.unwrap().error(),
        (401, "invalid_client".into())
    );
}

#[tokio::test]
async fn refusals_carry_the_codes_of_rfc_6749() {
    let (issuer, seed) = issuer_with(Client::new("c").scopes(&["read"])).await;
    issuer.handle().register(Client::new("public"));
    let token = seed.refresh_token.expose();
    let c = [("client_id", "c"), ("client_secret", "s")];
    let refresh = [("grant_type", "refresh_token"), ("refresh_token", token)];
    type Row<'a> = (Vec<(&'a str, &'a str)>, u16, &'a str);
    let rows: [Row<'_>; 7] = [
        (c.to_vec(), 400, "invalid_request"),
        (
            [&c[..], &[("grant_type", "refresh_token")]].concat(),
            400,
            "invalid_request",
        ),
        (
            [&c[..], &[("grant_type", "password")]].concat(),
            400,
            "unsupported_grant_type",
        ),
        (
            [&c[..], &refresh, &[("scope", "read write")]].concat(),
            400,
            "invalid_scope",
        ),
        (
            [&refresh[..], &[("client_id", "nobody")]].concat(),
            401,
            "invalid_client",
        ),
        (
            [&refresh[..], &[("client_id", "public")]].concat(),
            400,
            "invalid_grant",
        ),
        (
            vec![
                ("client_id", "public"),
                ("grant_type", "client_credentials"),
            ],
            400,
            "unauthorized_client",
        ),
    ];
    for (form, status, error) in rows {
        assert_eq!(
            post(issuer.url(), &form).await.unwrap().error(),
            (status, error.to_owned()),
            "{form:?}"
        );
    }
    let scoped = [&c[..], &refresh, &[("scope", "read")]].concat();
    assert_eq!(
        post(issuer.url(), &scoped).await.unwrap().body["scope"],
        "read",
        "and nothing above spent it"
    );
}

#[tokio::test]
async fn a_service_account_is_served_for_its_own_signature_only() {
    let (issuer, _) = issuer().await;
    let account = issuer.handle().service_account("robot@x.test").unwrap();
    let stranger = evermint_issuer::ServiceAccount::generate("robot@x.test").unwrap();
    let assertion = |key: &evermint_issuer::ServiceAccount| {
        let now = jsonwebtoken::get_current_timestamp();
        let claims = json!({
            "iss": "robot@x.test", "scope": "a", "aud": issuer.token_url(), "iat": now - 10, "exp": now + 600
        });
        let key = EncodingKey::from_rsa_pem(key.private_key_pem.expose().as_bytes()).unwrap();
        encode(&Header::new(Algorithm::RS256), &claims, &key).unwrap()
    };
    let grant = ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer");
    let good = post(issuer.url(), &[grant, ("assertion", &assertion(&account))])
        .await
        .unwrap();
    assert_eq!(good.status, 200);
    assert_eq!(
        resource(issuer.url(), &good.text("access_token"))
            .await
            .body["client_id"],
        "robot@x.test"
    );
    let bad = post(issuer.url(), &[grant, ("assertion", &assertion(&stranger))])
        .await
        .unwrap();
    assert_eq!(bad.error(), (400, "invalid_grant".into()));
    assert_eq!(issuer.handle().history().of("robot@x.test").count(), 2);
}

#[tokio::test]
async fn an_address_that_others_could_reach_is_refused() {
    let config = Config {
        address: "0.0.0.0:0".parse().unwrap(),
        ..Config::default()
    };
    assert!(matches!(
        Issuer::start(config).await,
        Err(evermint_issuer::Error::NotLoopback(_))
    ));
}
