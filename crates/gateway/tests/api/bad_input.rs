//! Bad input: the code, the field that is named, and that nothing is half written. One row for
//! each way in which a request can be wrong.

use std::collections::BTreeMap;

use evermint_core::state::State;
use evermint_gateway::REASON;
use evermint_proto::v1;
use tonic::{Code, Status};

use crate::harness::{Harness, client_credentials, credentials, strings};

use Code::{FailedPrecondition, InvalidArgument, NotFound};

/// What a refused request must not change.
fn objects(state: &State) -> impl PartialEq + use<> {
    (
        state.providers.clone(),
        state.credentials.clone(),
        state.routes.clone(),
        state.sandboxes.clone(),
    )
}

struct Bench {
    harness: Harness,
}

impl Bench {
    async fn start() -> Self {
        let harness = Harness::start().await;
        harness.provider("cloud", "A", "1").await;
        harness
            .sandboxes()
            .create_sandbox(v1::CreateSandboxRequest {
                name: "box".to_owned(),
                ..Default::default()
            })
            .await
            .unwrap();
        Self { harness }
    }

    /// Makes a call that has to be refused with `code`, in words that hold every one of `told`.
    async fn check<T>(
        &self,
        what: &str,
        call: impl Future<Output = Result<T, Status>>,
        code: Code,
        told: &[&str],
    ) {
        let before = objects(&self.harness.cluster.committed());
        let Err(status) = call.await else {
            panic!("{what}: was accepted");
        };
        assert_eq!(status.code(), code, "{what}: {status:?}");
        for part in told {
            assert!(
                status.message().contains(part),
                "{what}: {part:?} is not in {:?}",
                status.message()
            );
        }
        assert!(status.metadata().contains_key(REASON), "{what}");
        assert!(status.message().len() < 4096, "{what}");
        let after = objects(&self.harness.cluster.committed());
        assert!(before == after, "{what}: something was written");
    }
}

fn provider(change: v1::CreateProviderRequest) -> v1::CreateProviderRequest {
    let or = |given: String, default: &str| match given.is_empty() {
        true => default.to_owned(),
        false => given,
    };
    v1::CreateProviderRequest {
        name: or(change.name, "new"),
        r#type: or(change.r#type, "generic"),
        ..change
    }
}

#[tokio::test]
async fn a_bad_provider_is_refused_and_the_field_named() {
    let bench = Bench::start().await;
    let none = v1::CreateProviderRequest::default;
    let many = |n: usize| (0..n).map(|i| (format!("K{i}"), "v".to_owned()));
    let rows: Vec<(&str, v1::CreateProviderRequest, &[&str])> = vec![
        (
            "a blank",
            v1::CreateProviderRequest {
                name: " ".to_owned(),
                ..none()
            },
            &["name contains ' '"],
        ),
        (
            "odd characters",
            v1::CreateProviderRequest {
                name: "cl/oud\n\u{202e}".to_owned(),
                ..none()
            },
            &["name contains '/'"],
        ),
        (
            "a long name",
            v1::CreateProviderRequest {
                name: "n".repeat(254),
                ..none()
            },
            &["name is 254 bytes long; at most 253"],
        ),
        (
            "a bad workspace and a bad type",
            v1::CreateProviderRequest {
                workspace: "ü".to_owned(),
                r#type: "!".to_owned(),
                ..none()
            },
            &["workspace contains 'ü'", "type contains '!'"],
        ),
        (
            "malformed keys",
            v1::CreateProviderRequest {
                credentials: credentials(&[("9LIVES", "v"), ("A-B", "v"), ("", "v")]),
                ..none()
            },
            &[
                "credentials[\"9LIVES\"] contains '9'",
                "credentials[\"A-B\"] contains '-'",
                "credentials[\"\"] must not be empty",
            ],
        ),
        (
            "an empty value",
            v1::CreateProviderRequest {
                credentials: credentials(&[("A", "")]),
                ..none()
            },
            &["credentials[\"A\"].value must not be empty"],
        ),
        (
            "a value of 2 MiB",
            v1::CreateProviderRequest {
                credentials: credentials(&[("A", &"v".repeat(2 << 20))]),
                ..none()
            },
            &["credentials[\"A\"].value is 2097152 bytes long; at most 8192"],
        ),
        (
            "a setting of 2 MiB",
            v1::CreateProviderRequest {
                config: strings(&[("base_url", &"v".repeat(2 << 20))]),
                ..none()
            },
            &["config[\"base_url\"] is 2097152 bytes long; at most 8192"],
        ),
        (
            "a NUL",
            v1::CreateProviderRequest {
                credentials: credentials(&[("A", "a\0b")]),
                ..none()
            },
            &["credentials[\"A\"].value contains a NUL"],
        ),
        (
            "too many settings",
            v1::CreateProviderRequest {
                config: many(65).collect(),
                ..none()
            },
            &["config has 65 entries; at most 64"],
        ),
        (
            "too many credentials",
            v1::CreateProviderRequest {
                credentials: many(33)
                    .map(|(key, value)| {
                        let value = v1::StaticCredential {
                            value,
                            expires_at_ms: None,
                        };
                        (key, value)
                    })
                    .collect(),
                ..none()
            },
            &["credentials has 33 entries; at most 32"],
        ),
    ];
    for (what, request, told) in rows {
        let mut client = bench.harness.providers();
        let call = client.create_provider(provider(request));
        bench.check(what, call, InvalidArgument, told).await;
    }
    let mut client = bench.harness.providers();
    let call = client.create_provider(v1::CreateProviderRequest::default());
    bench
        .check(
            "nothing",
            call,
            InvalidArgument,
            &["name must not be empty", "type must not be empty"],
        )
        .await;
}

#[tokio::test]
async fn a_bad_change_of_a_provider_is_refused_as_a_whole() {
    let bench = Bench::start().await;
    let mut client = bench.harness.providers();
    let rows: Vec<(&str, v1::UpdateProviderRequest, Code, &[&str])> = vec![
        (
            "set and deleted",
            v1::UpdateProviderRequest {
                config: strings(&[("x", "1")]),
                delete_config: vec!["x".to_owned()],
                credentials: credentials(&[("A", "2")]),
                delete_credentials: vec!["A".to_owned()],
                ..Default::default()
            },
            InvalidArgument,
            &[
                "delete_config[\"x\"] is set by the same request",
                "delete_credentials[\"A\"] is set by the same request",
            ],
        ),
        (
            "malformed keys",
            v1::UpdateProviderRequest {
                delete_credentials: vec!["A B".to_owned()],
                expires_at_ms: BTreeMap::from([("C D".to_owned(), 1)]),
                ..Default::default()
            },
            InvalidArgument,
            &["delete_credentials[\"A B\"]", "expires_at_ms[\"C D\"]"],
        ),
        (
            "the end of a value that is not there",
            v1::UpdateProviderRequest {
                config: strings(&[("x", "1")]),
                expires_at_ms: BTreeMap::from([("NOWHERE".to_owned(), 1)]),
                ..Default::default()
            },
            NotFound,
            &["credential not found"],
        ),
        (
            "a stale version",
            v1::UpdateProviderRequest {
                config: strings(&[("x", "1")]),
                expected_version: Some(7),
                ..Default::default()
            },
            Code::Aborted,
            &["current version: 1"],
        ),
        (
            "more credentials than fit",
            v1::UpdateProviderRequest {
                credentials: (0..32)
                    .map(|i| {
                        let value = v1::StaticCredential {
                            value: "v".to_owned(),
                            expires_at_ms: None,
                        };
                        (format!("K{i}"), value)
                    })
                    .collect(),
                ..Default::default()
            },
            InvalidArgument,
            &["too many credentials: at most 32"],
        ),
        (
            "an unknown provider",
            v1::UpdateProviderRequest {
                name: "nowhere".to_owned(),
                ..Default::default()
            },
            NotFound,
            &["provider nowhere not found"],
        ),
        (
            "another workspace",
            v1::UpdateProviderRequest {
                workspace: "elsewhere".to_owned(),
                ..Default::default()
            },
            NotFound,
            &["provider cloud not found"],
        ),
    ];
    for (what, mut request, code, told) in rows {
        if request.name.is_empty() {
            request.name = "cloud".to_owned();
        }
        let call = client.update_provider(request);
        bench.check(what, call, code, told).await;
    }
}

#[tokio::test]
async fn a_bad_refresh_is_refused_and_the_field_named() {
    let bench = Bench::start().await;
    let mut client = bench.harness.refreshes();
    let good = || client_credentials("cloud", "TOKEN");
    let replay = |kind: i32, grace_ms: u64| Some(v1::ReplayPolicy { kind, grace_ms });
    let rows: Vec<(&str, v1::ConfigureRefreshRequest, &[&str])> = vec![
        (
            "nothing",
            v1::ConfigureRefreshRequest::default(),
            &[
                "provider must not be empty",
                "credential_key must not be empty",
            ],
        ),
        (
            "an unknown strategy",
            v1::ConfigureRefreshRequest {
                strategy: "oauth3".to_owned(),
                ..good()
            },
            &["strategy unknown strategy \"oauth3\"; known are oauth2-refresh-token"],
        ),
        (
            "a static credential as a refresh",
            v1::ConfigureRefreshRequest {
                strategy: "static".to_owned(),
                ..good()
            },
            &["strategy static needs no refresh: set the value"],
        ),
        (
            "a strategy of 2 MiB",
            v1::ConfigureRefreshRequest {
                strategy: "s".repeat(2 << 20),
                ..good()
            },
            &["strategy is 2097152 bytes long"],
        ),
        (
            "missing material",
            v1::ConfigureRefreshRequest {
                material: BTreeMap::new(),
                secret_material: BTreeMap::new(),
                ..good()
            },
            &[
                "material[\"client_id\"] is missing: The client's id",
                "material[\"client_secret\"] is needed",
            ],
        ),
        (
            "a malformed key",
            v1::ConfigureRefreshRequest {
                credential_key: "TO KEN".to_owned(),
                ..good()
            },
            &["credential_key contains ' '"],
        ),
        (
            "a token endpoint that is not allowed",
            v1::ConfigureRefreshRequest {
                token_url: "http://169.254.169.254/".to_owned(),
                ..good()
            },
            &["token_url must be an https URL"],
        ),
        (
            "an endpoint of 2 MiB",
            v1::ConfigureRefreshRequest {
                token_url: format!("https://{}", "x".repeat(2 << 20)),
                ..good()
            },
            &["token_url is 2097160 bytes long"],
        ),
        (
            "material in both maps",
            v1::ConfigureRefreshRequest {
                material: strings(&[("client_id", "me"), ("client_secret", "a")]),
                ..good()
            },
            &["secret_material[\"client_secret\"] is in material as well"],
        ),
        (
            "material of 2 MiB",
            v1::ConfigureRefreshRequest {
                secret_material: strings(&[("client_secret", &"v".repeat(2 << 20))]),
                ..good()
            },
            &["secret_material[\"client_secret\"] is 2097152 bytes long; at most 8192"],
        ),
        (
            "times that are none",
            v1::ConfigureRefreshRequest {
                refresh_before_ms: Some(0),
                max_lifetime_ms: Some(u64::MAX),
                ..good()
            },
            &["refresh_before_ms must be 1 to", "max_lifetime_ms must be"],
        ),
        (
            "a grace without a time",
            v1::ConfigureRefreshRequest {
                replay: replay(v1::replay_policy::Kind::Grace.into(), 0),
                ..good()
            },
            &["replay.grace_ms must be 1 to"],
        ),
        (
            "a time without a grace",
            v1::ConfigureRefreshRequest {
                replay: replay(v1::replay_policy::Kind::Safe.into(), 5),
                ..good()
            },
            &["replay.grace_ms is only for KIND_GRACE"],
        ),
        (
            "an unknown policy",
            v1::ConfigureRefreshRequest {
                replay: replay(77, 0),
                ..good()
            },
            &["replay.kind is not known"],
        ),
        (
            "outputs under one name, and under none",
            v1::ConfigureRefreshRequest {
                credential_key: "TOKEN".to_owned(),
                outputs: strings(&[("a", "TOKEN"), ("b", "OTHER"), ("c", "OTHER"), ("d", "9")]),
                ..good()
            },
            &[
                "outputs[\"a\"] has the name of another output, TOKEN",
                "outputs[\"c\"] has the name of another output, OTHER",
                "outputs[\"d\"] contains '9'",
            ],
        ),
        (
            "an odd scope",
            v1::ConfigureRefreshRequest {
                scopes: vec!["read".to_owned(), "wri\nte".to_owned()],
                ..good()
            },
            &["scopes[1] contains '\\n'"],
        ),
    ];
    for (what, request, told) in rows {
        let call = client.configure_refresh(request);
        bench.check(what, call, InvalidArgument, told).await;
    }
    let call = client.configure_refresh(client_credentials("nowhere", "TOKEN"));
    bench
        .check(
            "an unknown provider",
            call,
            NotFound,
            &["provider nowhere not found"],
        )
        .await;
    let call = client.rotate_credential(v1::RotateCredentialRequest {
        provider: "cloud".to_owned(),
        credential_key: "A".to_owned(),
        ..Default::default()
    });
    bench
        .check(
            "rotating a static value",
            call,
            FailedPrecondition,
            &["no refresh"],
        )
        .await;
    let call = client.get_refresh_status(v1::GetRefreshStatusRequest {
        provider: "a b".to_owned(),
        credential_key: "-".to_owned(),
        ..Default::default()
    });
    bench
        .check(
            "the status of nothing",
            call,
            InvalidArgument,
            &["provider contains ' '", "credential_key contains '-'"],
        )
        .await;
}

#[tokio::test]
async fn bad_routes_sandboxes_and_reads_are_refused_and_the_field_named() {
    let bench = Bench::start().await;
    let text = str::to_owned;
    let mut inference = bench.harness.inference();
    let call = inference.set_route(v1::SetRouteRequest {
        name: text("a b"),
        credential_key: text("="),
        timeout_secs: 86_401,
        ..Default::default()
    });
    let told = [
        "name contains ' '",
        "provider must not be empty",
        "credential_key contains '='",
        "model must not be empty",
        "timeout_secs must be at most 86400",
    ];
    bench.check("a route", call, InvalidArgument, &told).await;
    let call = inference.set_route(v1::SetRouteRequest {
        provider: text("cloud"),
        model: "m".repeat(257),
        ..Default::default()
    });
    let told = ["model is 257 bytes long; at most 256"];
    bench.check("a model", call, InvalidArgument, &told).await;
    let call = inference.list_routes(v1::ListRoutesRequest {
        page_token: text("\u{1}"),
        ..Default::default()
    });
    let told = ["page_token contains '\\u{1}'"];
    bench.check("a page", call, InvalidArgument, &told).await;

    let mut sandboxes = bench.harness.sandboxes();
    let call = sandboxes.create_sandbox(v1::CreateSandboxRequest {
        name: text("b\0x"),
        providers: vec![text("cloud"), text("?")],
        ..Default::default()
    });
    let told = ["name contains '\\0'", "providers[1] contains '?'"];
    bench.check("a sandbox", call, InvalidArgument, &told).await;
    let call = sandboxes.create_sandbox(v1::CreateSandboxRequest {
        name: text("big"),
        providers: (0..33).map(|i| format!("p{i}")).collect(),
        ..Default::default()
    });
    let told = ["providers has 33 entries; at most 32"];
    bench
        .check("33 providers", call, InvalidArgument, &told)
        .await;
    let call = sandboxes.attach_provider(v1::AttachProviderRequest {
        sandbox: text("nowhere"),
        provider: text("cloud"),
        ..Default::default()
    });
    let told = ["sandbox nowhere not found"];
    bench.check("no sandbox", call, NotFound, &told).await;
    let call = sandboxes.detach_provider(v1::DetachProviderRequest {
        sandbox: text("box"),
        ..Default::default()
    });
    let told = ["provider must not be empty"];
    bench
        .check("no provider", call, InvalidArgument, &told)
        .await;
    let call = sandboxes.list_sandboxes(v1::ListSandboxesRequest {
        workspace: text("default"),
        all_workspaces: true,
        page_token: text("xyz"),
        ..Default::default()
    });
    let told = [
        "workspace must be empty with all_workspaces",
        "page_token is not a token",
    ];
    bench.check("a list", call, InvalidArgument, &told).await;

    let mut bundles = bench.harness.bundles();
    let call = bundles.get_bundle(v1::GetBundleRequest::default());
    let told = ["sandbox must not be empty"];
    bench.check("a read", call, InvalidArgument, &told).await;
    let call = bundles.watch_bundle(v1::WatchBundleRequest {
        sandbox: text("nowhere"),
        ..Default::default()
    });
    let told = ["sandbox nowhere not found"];
    bench.check("a watch", call, NotFound, &told).await;
    let call = bundles.get_bundle(v1::GetBundleRequest {
        sandbox: text("box"),
        min_generation: u64::MAX,
        ..Default::default()
    });
    let told = ["not yet 18446744073709551615"];
    bench
        .check("the future", call, Code::Unavailable, &told)
        .await;

    let mut cluster = bench.harness.cluster();
    let call = cluster.remove_replica(v1::RemoveReplicaRequest { replica: 0 });
    let told = ["replica must be the id of a replica"];
    bench
        .check("no replica", call, InvalidArgument, &told)
        .await;
    let mut audit = bench.harness.audit();
    let call = audit.list_audit(v1::ListAuditRequest {
        credential_key: text("A"),
        ..Default::default()
    });
    let told = ["provider must be given with credential_key"];
    bench.check("an audit", call, InvalidArgument, &told).await;
}

#[tokio::test]
async fn a_message_beyond_the_limit_is_refused_before_it_is_read() {
    let bench = Bench::start().await;
    let mut client = bench.harness.providers();
    let call = client.create_provider(provider(v1::CreateProviderRequest {
        credentials: credentials(&[("A", &"v".repeat(5 << 20))]),
        ..Default::default()
    }));
    let told = ["decoded message length too large"];
    bench.check("5 MiB", call, Code::OutOfRange, &told).await;
}
