//! The table of [`access`](crate::access): a row for each method of both gRPC faces.

use crate::access::Place::{
    Anywhere, Everywhere, In, InElsePlatform, InOrAll, InOrPlatform, OfSandbox,
};
use crate::access::Role::{Admin, Editor, Known, Reader};
use crate::access::Who::{Anyone, Operator, Sandbox, SandboxOr};
use crate::access::{Method, Place, Who};

/// One row.
const fn row(path: &'static str, who: Who, scope: &'static str, place: Place) -> Method {
    Method {
        path,
        who,
        scope,
        place,
    }
}

/// Every method, in the order of the services.
#[rustfmt::skip]
pub const METHODS: &[Method] = &[
    // For probes, load balancers and tools.
    row("/grpc.health.v1.Health/Check", Anyone, "", Anywhere),
    row("/grpc.health.v1.Health/List", Anyone, "", Anywhere),
    row("/grpc.health.v1.Health/Watch", Anyone, "", Anywhere),
    row("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Anyone, "", Anywhere),
    row("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Anyone, "", Anywhere),

    row("/evermint.v1.Providers/CreateProvider", Operator(Editor), "provider:write", In(1)),
    row("/evermint.v1.Providers/GetProvider", Operator(Reader), "provider:read", In(1)),
    row("/evermint.v1.Providers/ListProviders", Operator(Reader), "provider:read", InOrAll(1, 2)),
    row("/evermint.v1.Providers/UpdateProvider", Operator(Editor), "provider:write", In(1)),
    row("/evermint.v1.Providers/DeleteProvider", Operator(Editor), "provider:write", In(1)),

    row("/evermint.v1.Profiles/ListProfiles", Operator(Reader), "provider:read", In(1)),
    row("/evermint.v1.Profiles/GetProfile", Operator(Reader), "provider:read", In(1)),
    row("/evermint.v1.Profiles/ImportProfiles", Operator(Editor), "provider:write", InOrPlatform(1, 2)),
    row("/evermint.v1.Profiles/UpdateProfile", Operator(Editor), "provider:write", InOrPlatform(1, 2)),
    row("/evermint.v1.Profiles/DeleteProfile", Operator(Editor), "provider:write", InOrPlatform(1, 2)),
    row("/evermint.v1.Profiles/LintProfiles", Operator(Reader), "provider:read", In(1)),

    row("/evermint.v1.Refreshes/ConfigureRefresh", Operator(Editor), "provider:write", In(1)),
    row("/evermint.v1.Refreshes/GetRefreshStatus", Operator(Reader), "provider:read", In(1)),
    row("/evermint.v1.Refreshes/RotateCredential", Operator(Editor), "provider:write", In(1)),
    row("/evermint.v1.Refreshes/DeleteRefresh", Operator(Editor), "provider:write", In(1)),
    row("/evermint.v1.Refreshes/TestCredential", Operator(Editor), "provider:write", In(1)),
    row("/evermint.v1.Refreshes/ListRevocations", Operator(Reader), "provider:read", In(1)),

    row("/evermint.v1.Inference/SetRoute", Operator(Editor), "inference:write", In(1)),
    row("/evermint.v1.Inference/GetRoute", Operator(Reader), "inference:read", In(1)),
    row("/evermint.v1.Inference/ListRoutes", Operator(Reader), "inference:read", In(1)),
    row("/evermint.v1.Inference/DeleteRoute", Operator(Editor), "inference:write", In(1)),

    row("/evermint.v1.Sandboxes/CreateSandbox", Operator(Editor), "sandbox:write", In(1)),
    row("/evermint.v1.Sandboxes/GetSandbox", Operator(Reader), "sandbox:read", In(1)),
    row("/evermint.v1.Sandboxes/ListSandboxes", Operator(Reader), "sandbox:read", InOrAll(1, 2)),
    row("/evermint.v1.Sandboxes/DeleteSandbox", Operator(Editor), "sandbox:write", In(1)),
    row("/evermint.v1.Sandboxes/AttachProvider", Operator(Editor), "sandbox:write", In(1)),
    row("/evermint.v1.Sandboxes/DetachProvider", Operator(Editor), "sandbox:write", In(1)),

    row("/evermint.v1.SandboxTokens/IssueSandboxToken", Operator(Editor), "sandbox:write", In(1)),
    row("/evermint.v1.SandboxTokens/RenewSandboxToken", Sandbox, "", Anywhere),
    row("/evermint.v1.SandboxTokens/RevokeSandboxTokens", Operator(Editor), "sandbox:write", In(1)),

    // Live tokens are in there: what a reader may see ends before them.
    row("/evermint.v1.Bundles/GetBundle", SandboxOr(Editor), "sandbox:write", OfSandbox(1, Some(2))),
    row("/evermint.v1.Bundles/WatchBundle", SandboxOr(Editor), "sandbox:write", OfSandbox(1, Some(2))),
    row("/evermint.v1.Bundles/ReportToken", SandboxOr(Editor), "sandbox:write", OfSandbox(1, Some(2))),

    row("/evermint.v1.Cluster/GetClusterStatus", Operator(Reader), "config:read", Anywhere),
    row("/evermint.v1.Cluster/RemoveReplica", Operator(Admin), "config:write", Everywhere),
    row("/evermint.v1.Cluster/CreateJoinToken", Operator(Admin), "config:write", Everywhere),

    // It tells of all workspaces.
    row("/evermint.v1.Keys/GetKeyStatus", Operator(Reader), "config:read", Everywhere),
    row("/evermint.v1.Keys/RotateDataKey", Operator(Admin), "config:write", Everywhere),
    row("/evermint.v1.Audit/ListAudit", Operator(Reader), "config:read", Everywhere),

    row("/openshell.v1.OpenShell/Health", Anyone, "", Anywhere),
    row("/openshell.v1.OpenShell/GetCurrentUser", Operator(Known), "", Anywhere),
    row("/openshell.v1.OpenShell/GetGatewayInfo", Operator(Admin), "config:read", Everywhere),
    row("/openshell.v1.OpenShell/CreateSandbox", Operator(Editor), "sandbox:write", In(5)),
    row("/openshell.v1.OpenShell/GetSandbox", Operator(Reader), "sandbox:read", In(2)),
    row("/openshell.v1.OpenShell/DeleteSandbox", Operator(Editor), "sandbox:write", In(2)),
    row("/openshell.v1.OpenShell/ListSandboxProviders", Operator(Reader), "sandbox:read", In(2)),
    row("/openshell.v1.OpenShell/AttachSandboxProvider", Operator(Editor), "sandbox:write", In(4)),
    row("/openshell.v1.OpenShell/DetachSandboxProvider", Operator(Editor), "sandbox:write", In(4)),
    row("/openshell.v1.OpenShell/CreateProvider", Operator(Editor), "provider:write", In(2)),
    row("/openshell.v1.OpenShell/GetProvider", Operator(Reader), "provider:read", In(2)),
    row("/openshell.v1.OpenShell/ListProviders", Operator(Reader), "provider:read", InOrAll(3, 4)),
    row("/openshell.v1.OpenShell/ListProviderProfiles", Operator(Reader), "provider:read", InElsePlatform(3)),
    row("/openshell.v1.OpenShell/GetProviderProfile", Operator(Reader), "provider:read", InElsePlatform(2)),
    row("/openshell.v1.OpenShell/ImportProviderProfiles", Operator(Editor), "provider:write", InElsePlatform(2)),
    row("/openshell.v1.OpenShell/UpdateProviderProfiles", Operator(Editor), "provider:write", InElsePlatform(4)),
    row("/openshell.v1.OpenShell/LintProviderProfiles", Operator(Reader), "provider:read", InElsePlatform(2)),
    row("/openshell.v1.OpenShell/UpdateProvider", Operator(Editor), "provider:write", In(3)),
    row("/openshell.v1.OpenShell/GetProviderRefreshStatus", Operator(Reader), "provider:read", In(3)),
    row("/openshell.v1.OpenShell/ConfigureProviderRefresh", Operator(Editor), "provider:write", In(7)),
    row("/openshell.v1.OpenShell/RotateProviderCredential", Operator(Editor), "provider:write", In(3)),
    row("/openshell.v1.OpenShell/DeleteProviderRefresh", Operator(Editor), "provider:write", In(3)),
    row("/openshell.v1.OpenShell/DeleteProvider", Operator(Editor), "provider:write", In(2)),
    row("/openshell.v1.OpenShell/DeleteProviderProfile", Operator(Editor), "provider:write", InElsePlatform(2)),
    row("/openshell.v1.OpenShell/GetSandboxConfig", SandboxOr(Reader), "config:read", OfSandbox(1, None)),
    row("/openshell.v1.OpenShell/GetGatewayConfig", Operator(Known), "config:read", Anywhere),
    row("/openshell.v1.OpenShell/UpdateConfig", SandboxOr(Editor), "config:write", InOrPlatform(10, 6)),
    row("/openshell.v1.OpenShell/ReportPolicyStatus", Sandbox, "", Anywhere),
    row("/openshell.v1.OpenShell/GetSandboxProviderEnvironment", Sandbox, "", Anywhere),
    row("/openshell.v1.OpenShell/IssueSandboxToken", Sandbox, "", Anywhere),
    row("/openshell.v1.OpenShell/RefreshSandboxToken", Sandbox, "", Anywhere),
    row("/openshell.v1.OpenShell/CreateWorkspace", Operator(Admin), "workspace:write", Everywhere),
    row("/openshell.v1.OpenShell/GetWorkspace", Operator(Reader), "workspace:read", In(1)),
    row("/openshell.v1.OpenShell/ListWorkspaces", Operator(Reader), "workspace:read", Anywhere),

    row("/openshell.inference.v1.Inference/GetInferenceBundle", Sandbox, "", Anywhere),
    row("/openshell.inference.v1.Inference/SetInferenceRoute", Operator(Editor), "inference:write", In(7)),
    row("/openshell.inference.v1.Inference/GetInferenceRoute", Operator(Reader), "inference:read", In(2)),
    row("/openshell.inference.v1.Inference/DeleteInferenceRoute", Operator(Editor), "inference:write", In(2)),
];

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::fmt::Write as _;

    use prost::Message as _;
    use prost_types::{DescriptorProto, FileDescriptorSet};

    use super::*;

    /// The requests of all methods of both faces, by path.
    fn requests() -> BTreeMap<String, DescriptorProto> {
        let mut messages = BTreeMap::new();
        let mut methods = Vec::new();
        for set in [
            evermint_proto::FILE_DESCRIPTOR_SET,
            evermint_proto::openshell::FILE_DESCRIPTOR_SET,
        ] {
            for file in FileDescriptorSet::decode(set).unwrap().file {
                let package = file.package().to_owned();
                for service in &file.service {
                    methods.extend(service.method.iter().map(|method| {
                        let path = format!("/{package}.{}/{}", service.name(), method.name());
                        (path, method.input_type().to_owned())
                    }));
                }
                for message in file.message_type {
                    messages.insert(format!(".{package}.{}", message.name()), message);
                }
            }
        }
        let request = |input: &String| messages[input].clone();
        methods
            .iter()
            .map(|(path, input)| (path.clone(), request(input)))
            .collect()
    }

    #[test]
    fn every_method_has_one_row_and_every_row_a_method() {
        let known = METHODS
            .iter()
            .map(|m| m.path)
            .filter(|path| !path.starts_with("/grpc."));
        let known: Vec<&str> = known.collect();
        let once: BTreeSet<&str> = known.iter().copied().collect();
        assert_eq!(once.len(), known.len(), "a row stands twice");
        let requests = requests();
        let all: BTreeSet<&str> = requests.keys().map(String::as_str).collect();
        assert_eq!(all, once);
    }

    #[test]
    fn the_fields_that_rows_name_are_those_that_requests_have() {
        let requests = requests();
        for method in METHODS.iter().filter(|m| !m.path.starts_with("/grpc.")) {
            let request = &requests[method.path];
            let number = |name: &str| {
                let field = request.field.iter().find(|f| f.name() == name);
                field.map(|f| u32::try_from(f.number()).unwrap())
            };
            let workspace = number("workspace");
            let sandbox = number("sandbox").or(number("sandbox_id"));
            let all = number("all_workspaces");
            let platform = number("platform").or(number("global"));
            let told = match method.place {
                // The workspace itself is what these are about.
                In(field) if method.path.ends_with("/GetWorkspace") => {
                    number("name") == Some(field)
                }
                Anywhere => workspace.is_none() && all.is_none() && platform.is_none(),
                // All of it, whichever part of it the request asks for.
                Everywhere => true,
                // What the platform has is seen by everyone.
                In(field) if method.who == Operator(Reader) => {
                    workspace == Some(field) && all.is_none()
                }
                In(field) => workspace == Some(field) && all.is_none() && platform.is_none(),
                InOrAll(field, flag) => workspace == Some(field) && all == Some(flag),
                InOrPlatform(field, flag) => workspace == Some(field) && platform == Some(flag),
                InElsePlatform(field) => {
                    method.path.contains("Profile")
                        && method.path.starts_with("/openshell.")
                        && workspace == Some(field)
                }
                OfSandbox(id, field) => sandbox == Some(id) && workspace == field,
            };
            assert!(told, "{method:?}: {request:?}");
        }
    }

    /// `docs/access.md` holds this between its marks.
    fn table() -> String {
        let mut table =
            String::from("| method | who | where | scope |\n| --- | --- | --- | --- |\n");
        for method in METHODS {
            let who = match method.who {
                Anyone => "anyone".to_owned(),
                Sandbox => "sandbox".to_owned(),
                Operator(role) => role.to_string(),
                SandboxOr(role) => format!("sandbox, {role}"),
            };
            let place = match (method.who, method.place) {
                (Anyone, _) => "",
                (Sandbox, _) => "itself",
                (_, Anywhere) => "any workspace",
                (_, Everywhere) => "all workspaces",
                (_, In(_)) => "the workspace",
                (_, InOrAll(..)) => "the workspace; or all",
                (_, InOrPlatform(..)) => "the workspace; the platform's: admin",
                (_, InElsePlatform(_)) => "the workspace; without one: admin",
                (_, OfSandbox(..)) => "the sandbox's workspace",
            };
            let scope = match method.scope {
                "" => String::new(),
                scope => format!("`{scope}`"),
            };
            let path = method.path.trim_start_matches('/');
            writeln!(table, "| `{path}` | {who} | {place} | {scope} |").unwrap();
        }
        table
    }

    #[test]
    fn the_table_in_the_docs_is_this_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/access.md");
        let page = std::fs::read_to_string(path).unwrap();
        let (begin, end) = ("<!-- table: methods -->\n", "<!-- end -->");
        let (before, rest) = page.split_once(begin).expect("a place for the table");
        let (told, after) = rest.split_once(end).expect("an end of the table");
        let table = table();
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, format!("{before}{begin}{table}{end}{after}")).unwrap();
            return;
        }
        assert!(told == table, "UPDATE_DOCS=1 writes docs/access.md anew");
    }
}
