//! Settings of the gateway. Evermint keeps those that OpenShell's clients know, for them; with a
//! gateway behind this one, settings and policies are that one's.

use std::collections::BTreeMap;

use evermint_core::command::Command;
use evermint_core::platform::SettingValue;
use evermint_core::state::State;
use evermint_proto::openshell::sandbox::v1 as sandbox;
use evermint_proto::openshell::sandbox::v1::setting_value::Value;
use evermint_proto::openshell::v1;
use evermint_proto::openshell::v1::open_shell_client::OpenShellClient;
use tonic::{Request, Status};

use super::{Face, meta, status};

/// Gates refreshes that assume a role of AWS.
pub(super) const PROVIDERS_V2: &str = "providers_v2_enabled";

/// What a setting may be.
enum Kind {
    Flag,
    OneOf(&'static [&'static str]),
}

/// Every setting that there is.
const REGISTERED: [(&str, Kind); 4] = [
    (PROVIDERS_V2, Kind::Flag),
    ("ocsf_json_enabled", Kind::Flag),
    ("agent_policy_proposals_enabled", Kind::Flag),
    ("proposal_approval_mode", Kind::OneOf(&["manual", "auto"])),
];

pub(super) async fn get(
    face: &Face,
    request: Request<sandbox::GetGatewayConfigRequest>,
) -> Result<sandbox::GetGatewayConfigResponse, Status> {
    if let Some(behind) = face.behind() {
        let mut behind = OpenShellClient::new(behind);
        let answer = behind.get_gateway_config(request).await?;
        return Ok(answer.into_inner());
    }
    face.settle().await;
    let state = face.state();
    Ok(sandbox::GetGatewayConfigResponse {
        settings: shown(&state),
        settings_revision: state.platform.revision,
    })
}

pub(super) async fn update(
    face: &Face,
    request: Request<v1::UpdateConfigRequest>,
) -> Result<v1::UpdateConfigResponse, Status> {
    if let Some(behind) = face.behind() {
        let mut behind = OpenShellClient::new(behind);
        let answer = behind.update_config(request).await?;
        return Ok(answer.into_inner());
    }
    let request = request.into_inner();
    let parts = [
        request.policy.is_some(),
        !request.setting_key.is_empty(),
        !request.merge_operations.is_empty(),
    ];
    if parts.iter().filter(|given| **given).count() != 1 {
        return Err(status::invalid(
            "exactly one of policy, setting_key and merge_operations is required",
        ));
    }
    if request.setting_key.is_empty() {
        return Err(status::unimplemented(
            "this is Evermint, which keeps provider credentials fresh; it keeps no policies",
        ));
    }
    let registered = REGISTERED
        .iter()
        .find(|(key, _)| *key == request.setting_key);
    let Some((key, kind)) = registered else {
        let known = REGISTERED.map(|(key, _)| key).join(", ");
        return Err(status::invalid(format!(
            "unknown setting key; known are {known}"
        )));
    };
    if !request.global {
        return Err(of_sandbox(&face.state(), key, &request));
    }
    let value = match (request.delete_setting, request.setting_value) {
        (true, None) => None,
        (true, Some(_)) => {
            return Err(status::invalid(
                "setting_value must not be set with delete_setting",
            ));
        }
        (false, value) => Some(parsed(key, kind, value)?),
    };
    let deletes = value.is_none();
    let written = face
        .commit(Command::SetPlatformSetting {
            key: (*key).to_owned(),
            value,
        })
        .await?;
    Ok(v1::UpdateConfigResponse {
        settings_revision: written.state.platform.revision,
        deleted: deletes && meta::changed(&written.done),
        ..Default::default()
    })
}

/// What counts for a sandbox, which has no settings of its own.
pub(super) fn effective(state: &State) -> BTreeMap<String, sandbox::EffectiveSetting> {
    let effective = |(key, value): (String, sandbox::SettingValue)| {
        let scope = match value.value {
            Some(_) => sandbox::SettingScope::Global,
            None => sandbox::SettingScope::Unspecified,
        };
        let setting = sandbox::EffectiveSetting {
            value: Some(value),
            scope: scope.into(),
        };
        (key, setting)
    };
    shown(state).into_iter().map(effective).collect()
}

/// Every setting, those that are not set without a value.
fn shown(state: &State) -> BTreeMap<String, sandbox::SettingValue> {
    let set = &state.platform.settings;
    REGISTERED
        .iter()
        .map(|(key, _)| {
            let value = set.get(*key).map(|value| match value {
                SettingValue::Text(text) => Value::StringValue(text.clone()),
                SettingValue::Bool(flag) => Value::BoolValue(*flag),
                SettingValue::Int(number) => Value::IntValue(*number),
                SettingValue::Bytes(bytes) => Value::BytesValue(bytes.clone().into()),
            });
            ((*key).to_owned(), sandbox::SettingValue { value })
        })
        .collect()
}

/// Whether a flag is set, and on, as far as the gateway's settings are kept here.
pub(super) fn is_on(face: &Face, key: &str) -> bool {
    let state = face.state();
    let value = state.platform.settings.get(key);
    face.behind().is_some() || value == Some(&SettingValue::Bool(true))
}

fn parsed(
    key: &str,
    kind: &Kind,
    value: Option<sandbox::SettingValue>,
) -> Result<SettingValue, Status> {
    match (kind, value.and_then(|value| value.value)) {
        (_, None) => Err(status::invalid("setting_value is required")),
        (Kind::Flag, Some(Value::BoolValue(flag))) => Ok(SettingValue::Bool(flag)),
        (Kind::Flag, Some(_)) => Err(status::invalid(format!("setting {key} is a bool"))),
        (Kind::OneOf(all), Some(Value::StringValue(text))) if all.contains(&text.as_str()) => {
            Ok(SettingValue::Text(text))
        }
        (Kind::OneOf(all), Some(_)) => Err(status::invalid(format!(
            "setting {key} must be one of {}",
            all.join(", ")
        ))),
    }
}

/// Why a setting of one sandbox is not set.
fn of_sandbox(state: &State, key: &str, request: &v1::UpdateConfigRequest) -> Status {
    if request.name.trim().is_empty() {
        return status::invalid("name is required unless global is set");
    }
    if request.delete_setting {
        return status::invalid("delete_setting is for global settings only");
    }
    if state.platform.settings.contains_key(key) {
        return status::precondition(format!(
            "setting '{key}' is managed globally; delete the global setting first"
        ));
    }
    status::unimplemented(
        "this is Evermint, which keeps provider credentials fresh; it keeps no settings of single sandboxes",
    )
}
