//! The gateway itself, its settings, and workspaces.

use evermint_core::secret::Secret;
use evermint_gateway::{AdminToken, Config, UpstreamGateway};
use evermint_proto::openshell::datamodel::v1 as datamodel;
use evermint_proto::openshell::sandbox::v1 as sandbox;
use evermint_proto::openshell::sandbox::v1::setting_value::Value;
use evermint_proto::openshell::v1;
use tonic::{Code, Request};

use super::strings;
use crate::harness::{Harness, config};

#[tokio::test]
async fn health_is_for_everyone_and_the_rest_for_operators() {
    let harness = Harness::with(Config {
        admin: Some(AdminToken::new(&Secret::from("the-operator"))),
        ..config()
    })
    .await;
    let mut client = harness.openshell();
    let health = client
        .health(v1::HealthRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(health.status(), v1::ServiceStatus::Healthy);
    assert_eq!(health.version, "9.9.9-test");

    let none = client
        .get_gateway_info(v1::GetGatewayInfoRequest {})
        .await
        .unwrap_err();
    assert_eq!(none.code(), Code::Unauthenticated);
    assert_eq!(none.message(), "missing authorization header");

    let mut who = Request::new(v1::GetCurrentUserRequest {});
    let token = "Bearer the-operator".parse().unwrap();
    who.metadata_mut().insert("authorization", token);
    let user = client.get_current_user(who).await.unwrap().into_inner();
    assert_eq!(user.subject, "admin");
    assert_eq!(user.identity_provider, "local_dev");
    assert_eq!(user.roles, ["admin"]);
}

#[tokio::test]
async fn a_replica_that_is_out_of_touch_says_that_it_is_not_healthy() {
    let harness = Harness::start().await;
    let mut client = harness.openshell();
    let info = client
        .get_gateway_info(v1::GetGatewayInfoRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(info.status(), v1::ServiceStatus::Healthy);
    assert_eq!(info.gateway_version, "9.9.9-test");
    assert_eq!(info.compute_drivers.len(), 1);
    harness.cluster.never_in_touch();
    let health = client
        .health(v1::HealthRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(health.status(), v1::ServiceStatus::Unhealthy);
}

#[tokio::test]
async fn a_method_of_openshell_that_is_none_of_ours_is_told_what_this_is() {
    let harness = Harness::start().await;
    harness
        .refuses(
            "ConnectSupervisor",
            (),
            Code::Unimplemented,
            "this is Evermint",
        )
        .await;
}

#[tokio::test]
async fn settings_and_workspaces_are_those_of_a_gateway_behind() {
    let behind = Harness::start().await;
    let front = Harness::with(Config {
        upstream_gateway: Some(UpstreamGateway {
            url: format!("http://{}", behind.address),
            ca: None,
        }),
        ..config()
    })
    .await;
    let mut client = front.openshell();
    let create = v1::CreateWorkspaceRequest {
        name: "red".to_owned(),
        ..Default::default()
    };
    client.create_workspace(create).await.unwrap();
    let key = "proposal_approval_mode";
    let auto = set(key, Some(Value::StringValue("auto".to_owned())));
    client.update_config(auto).await.unwrap();
    for harness in [&front, &behind] {
        let mut client = harness.openshell();
        let get = v1::GetWorkspaceRequest {
            name: "red".to_owned(),
        };
        client.get_workspace(get).await.unwrap();
        let list = v1::ListWorkspacesRequest::default();
        let list = client.list_workspaces(list).await.unwrap().into_inner();
        assert_eq!(list.workspaces.len(), 2);
        let get = sandbox::GetGatewayConfigRequest {};
        let got = client.get_gateway_config(get).await.unwrap().into_inner();
        assert!(got.settings[key].value.is_some());
    }
    assert_eq!(front.cluster.committed().platform.revision, 0);

    // A workspace of theirs is one to put providers into, and those are ours.
    let create = v1::CreateProviderRequest {
        provider: Some(super::provider("main", "acme", &[("TOKEN", "1")])),
        workspace: "red".to_owned(),
    };
    client.create_provider(create).await.unwrap();
    assert_eq!(front.cluster.committed().providers.len(), 1);
    assert!(behind.cluster.committed().providers.is_empty());
}

fn set(key: &str, value: Option<Value>) -> v1::UpdateConfigRequest {
    v1::UpdateConfigRequest {
        global: true,
        setting_key: key.to_owned(),
        setting_value: value.map(|value| sandbox::SettingValue { value: Some(value) }),
        ..Default::default()
    }
}

#[tokio::test]
async fn settings_are_kept_for_clients() {
    let harness = Harness::start().await;
    let mut client = harness.openshell();
    let get = async || {
        let request = sandbox::GetGatewayConfigRequest {};
        let got = harness.openshell().get_gateway_config(request).await;
        got.unwrap().into_inner()
    };
    let before = get().await;
    let keys: Vec<_> = before.settings.keys().map(String::as_str).collect();
    let registered = [
        "agent_policy_proposals_enabled",
        "ocsf_json_enabled",
        "proposal_approval_mode",
        "providers_v2_enabled",
    ];
    assert_eq!(keys, registered);
    assert!(
        before
            .settings
            .values()
            .all(|setting| setting.value.is_none())
    );

    let key = "proposal_approval_mode";
    let auto = Value::StringValue("auto".to_owned());
    let updated = client
        .update_config(set(key, Some(auto.clone())))
        .await
        .unwrap();
    let revision = updated.into_inner().settings_revision;
    assert_eq!(revision, before.settings_revision + 1);
    let after = get().await;
    assert_eq!(after.settings[key].value, Some(auto));
    assert_eq!(after.settings_revision, revision);

    let delete = v1::UpdateConfigRequest {
        delete_setting: true,
        ..set(key, None)
    };
    for deleted in [true, false] {
        let answer = client.update_config(delete.clone()).await.unwrap();
        assert_eq!(answer.into_inner().deleted, deleted);
    }
    assert_eq!(get().await.settings[key].value, None);
}

#[tokio::test]
async fn what_cannot_be_set_is_refused() {
    let harness = Harness::start().await;
    let on = || Some(Value::BoolValue(true));
    let key = "providers_v2_enabled";
    harness
        .openshell()
        .update_config(set(key, on()))
        .await
        .unwrap();
    let of_sandbox = |key: &str| v1::UpdateConfigRequest {
        global: false,
        name: "box".to_owned(),
        ..set(key, on())
    };
    for (request, code, words) in [
        (
            v1::UpdateConfigRequest::default(),
            Code::InvalidArgument,
            "exactly one of",
        ),
        (
            v1::UpdateConfigRequest {
                policy: Some(Default::default()),
                ..set(key, on())
            },
            Code::InvalidArgument,
            "exactly one of",
        ),
        (
            set("nonsense", on()),
            Code::InvalidArgument,
            "unknown setting key",
        ),
        (
            set(key, None),
            Code::InvalidArgument,
            "setting_value is required",
        ),
        (
            set(key, Some(Value::IntValue(1))),
            Code::InvalidArgument,
            "is a bool",
        ),
        (
            set(
                "proposal_approval_mode",
                Some(Value::StringValue("never".to_owned())),
            ),
            Code::InvalidArgument,
            "must be one of manual, auto",
        ),
        (
            of_sandbox(key),
            Code::FailedPrecondition,
            "managed globally",
        ),
        (
            v1::UpdateConfigRequest {
                name: String::new(),
                ..of_sandbox(key)
            },
            Code::InvalidArgument,
            "name is required",
        ),
    ] {
        harness.refuses("UpdateConfig", request, code, words).await;
    }
}

#[tokio::test]
async fn a_workspace_is_there_once_it_is_created() {
    let harness = Harness::start().await;
    let mut client = harness.openshell();
    let create = |name: &str| v1::CreateWorkspaceRequest {
        name: name.to_owned(),
        labels: strings(&[("team", name)]),
    };
    let get = |name: &str| v1::GetWorkspaceRequest {
        name: name.to_owned(),
    };
    harness
        .refuses(
            "GetWorkspace",
            get("red"),
            Code::NotFound,
            "workspace 'red' not found",
        )
        .await;
    let created = client.create_workspace(create("red")).await.unwrap();
    let created = created.into_inner().workspace.unwrap();
    let metadata = created.metadata.clone().unwrap();
    assert_eq!(
        (metadata.name.as_str(), metadata.resource_version),
        ("red", 1)
    );
    assert_eq!(metadata.id.len(), 36);
    let phase = created.status.as_ref().unwrap().phase();
    assert_eq!(phase, datamodel::WorkspacePhase::Active);
    let got = client.get_workspace(get("red")).await.unwrap();
    assert_eq!(got.into_inner().workspace, Some(created));

    for (name, code, words) in [
        ("red", Code::AlreadyExists, "workspace already exists"),
        ("default", Code::AlreadyExists, "workspace already exists"),
        ("", Code::InvalidArgument, "name is required"),
        ("a b", Code::InvalidArgument, "name"),
    ] {
        harness
            .refuses("CreateWorkspace", create(name), code, words)
            .await;
    }

    client.create_workspace(create("blue")).await.unwrap();
    let list = async |selector: &str, limit, offset| {
        let request = v1::ListWorkspacesRequest {
            limit,
            offset,
            label_selector: selector.to_owned(),
        };
        let list = harness.openshell().list_workspaces(request).await.unwrap();
        let all = list.into_inner().workspaces.into_iter();
        let mut names: Vec<String> = all.map(|w| w.metadata.unwrap().name).collect();
        names.sort();
        names
    };
    assert_eq!(list("", 0, 0).await, ["blue", "default", "red"]);
    assert_eq!(list("team=red", 0, 0).await, ["red"]);
    assert_eq!(list("team", 0, 0).await, ["blue", "red"]);
    assert_eq!(list("", 1, 0).await, ["default"], "it was there first");
    assert_eq!(list("", 0, 2).await.len(), 1);
}

#[tokio::test]
async fn workspaces_keep_names_apart() {
    let harness = Harness::start().await;
    let mut client = harness.openshell();
    let red = v1::CreateWorkspaceRequest {
        name: "red".to_owned(),
        ..Default::default()
    };
    client.create_workspace(red).await.unwrap();
    let create = v1::CreateProviderRequest {
        provider: Some(super::provider("main", "acme", &[("TOKEN", "1")])),
        workspace: "red".to_owned(),
    };
    let created = client.create_provider(create).await.unwrap().into_inner();
    assert_eq!(created.provider.unwrap().metadata.unwrap().workspace, "red");
    let get = v1::GetProviderRequest {
        name: "main".to_owned(),
        workspace: String::new(),
    };
    harness
        .refuses("GetProvider", get, Code::NotFound, "provider not found")
        .await;
}
