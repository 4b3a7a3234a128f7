//! Generates the gRPC code, without `protoc`.
//!
//! Three things are done beside the usual:
//! * Every message that has a field marked `debug_redact` gets a `Debug` that leaves out the value
//!   of that field. prost ignores the mark, so that a secret would end in the first log line that
//!   prints its message.
//! * The server of `Bundles` is generated a second time, with the bundle in its answers as bytes.
//!   On the wire an embedded message *is* bytes, so that a server can keep a bundle encoded and
//!   send it to any number of readers without encoding it again.
//! * In the same way, what only the gateway behind understands of a sandbox is bytes: a policy's rule
//!   that a later version has added reaches it, and the sandbox, as it came.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use protox::Compiler;
use protox::prost_reflect::prost_types::field_descriptor_proto::{Label, Type};
use protox::prost_reflect::prost_types::{FieldDescriptorProto, FileDescriptorSet};
use protox::prost_reflect::{DescriptorPool, FieldDescriptor, MessageDescriptor};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Answers that carry a bundle, whose server takes it encoded.
const READY: [&str; 2] = [
    "evermint.v1.GetBundleResponse",
    "evermint.v1.WatchBundleResponse",
];
/// The field that is encoded beforehand.
const READY_FIELD: &str = "bundle";

/// Messages of OpenShell that pass through Evermint as they came, by the fields that hold them.
const PASSED: [(&str, &str); 6] = [
    ("SandboxSpec", "policy"),
    ("SandboxSpec", "template"),
    ("SandboxSpec", "resource_requirements"),
    ("GetSandboxConfigResponse", "policy"),
    ("UpdateConfigRequest", "policy"),
    ("UpdateConfigRequest", "merge_operations"),
];

/// What a profile of OpenShell consists of: it is also read from and written as a document.
const IN_JSON: [&str; 17] = [
    "openshell.v1.ProviderProfile",
    "openshell.v1.ProviderProfileCredential",
    "openshell.v1.ProviderCredentialRefresh",
    "openshell.v1.ProviderCredentialRefreshMaterial",
    "openshell.v1.ProviderCredentialRefreshOutput",
    "openshell.v1.ProviderCredentialTokenGrant",
    "openshell.v1.ProviderCredentialTokenGrantAudienceOverride",
    "openshell.v1.ProviderProfileDiscovery",
    "openshell.sandbox.v1.NetworkEndpoint",
    "openshell.sandbox.v1.NetworkBinary",
    "openshell.sandbox.v1.NetworkCredentialBinding",
    "openshell.sandbox.v1.L7Rule",
    "openshell.sandbox.v1.L7Allow",
    "openshell.sandbox.v1.L7DenyRule",
    "openshell.sandbox.v1.L7QueryMatcher",
    "openshell.sandbox.v1.GraphqlOperation",
    "openshell.sandbox.v1.McpOptions",
];

fn main() -> Result<()> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={}", root.display());

    public(&root, &out)?;
    openshell(&root, &out)?;
    replica(&root, &out)
}

/// OpenShell's packages, which refer to each other.
fn openshell(root: &Path, out: &Path) -> Result<()> {
    let mut compiler = Compiler::new([root])?;
    compiler.include_source_info(true).include_imports(true);
    for package in ["datamodel/v1", "sandbox/v1", "v1", "inference/v1"] {
        compiler.open_files(protos(&root.join("openshell").join(package))?)?;
    }
    let pool = compiler.descriptor_pool();
    fs::write(
        out.join("openshell.bin"),
        compiler.encode_file_descriptor_set(),
    )?;
    let mut files = compiler.file_descriptor_set();
    for (message, field) in PASSED {
        let messages = files.file.iter_mut().flat_map(|f| &mut f.message_type);
        let mut fields = messages
            .filter(|m| m.name() == message)
            .flat_map(|m| &mut m.field);
        let field = fields.find(|f| f.name() == field);
        encoded(field.ok_or_else(|| format!("{message} has no such field"))?);
    }
    generate(&pool, files, &out.join("openshell"), &IN_JSON)
}

/// Makes bytes of a field that holds messages: on the wire they are.
fn encoded(field: &mut FieldDescriptorProto) {
    field.set_type(Type::Bytes);
    field.type_name = None;
    // An empty message is another thing than none.
    if field.label() != Label::Repeated {
        field.proto3_optional = Some(true);
    }
}

/// `evermint.v1`, its descriptors for reflection, and the server of ready bundles.
fn public(root: &Path, out: &Path) -> Result<()> {
    let files = protos(&root.join("evermint/v1"))?;
    let mut compiler = Compiler::new([root])?;
    compiler.include_source_info(true).include_imports(true);
    compiler.open_files(&files)?;
    let pool = compiler.descriptor_pool();
    fs::write(
        out.join("evermint.v1.bin"),
        compiler.encode_file_descriptor_set(),
    )?;

    generate(&pool, compiler.file_descriptor_set(), out, &[])?;
    ready(&pool, compiler.file_descriptor_set(), &out.join("ready"))
}

/// The protocol between replicas.
fn replica(root: &Path, out: &Path) -> Result<()> {
    let files = protos(&root.join("replica/v1"))?;
    let target = out.join("replica");
    fs::create_dir_all(&target)?;
    let mut include = String::new();
    if !files.is_empty() {
        let mut compiler = Compiler::new([root])?;
        compiler.include_source_info(true).include_imports(true);
        compiler.open_files(&files)?;
        let pool = compiler.descriptor_pool();
        generate(&pool, compiler.file_descriptor_set(), &target, &[])?;
        let packages: BTreeSet<_> = pool
            .files()
            .map(|f| f.package_name().to_owned())
            .filter(|p| !p.starts_with("google."))
            .collect();
        for package in packages {
            for kind in ["rs", "debug.rs"] {
                writeln!(
                    include,
                    "include!({:?});",
                    target.join(format!("{package}.{kind}"))
                )?;
            }
        }
    }
    fs::write(out.join("replica.rs"), include)?;
    Ok(())
}

/// Code for each package, with secrets kept out of `Debug`, and the messages of `in_json` fit for
/// JSON.
fn generate(
    pool: &DescriptorPool,
    files: FileDescriptorSet,
    out: &Path,
    in_json: &[&str],
) -> Result<()> {
    fs::create_dir_all(out)?;
    let mut skipped = Vec::new();
    let mut code: BTreeMap<String, String> = BTreeMap::new();
    for message in pool.all_messages() {
        if message.package_name().starts_with("google.") {
            continue;
        }
        let code = code.entry(message.package_name().to_owned()).or_default();
        let secret: Vec<_> = message.fields().filter(is_secret).collect();
        if !secret.is_empty() {
            skipped.push(message.full_name().to_owned());
            redacted(&message, &secret, code)?;
        }
    }
    for (package, code) in code {
        fs::write(out.join(format!("{package}.debug.rs")), code)?;
    }

    let mut builder = tonic_prost_build::configure()
        .out_dir(out)
        .btree_map(".")
        .bytes(".")
        .skip_debug(skipped)
        .emit_rerun_if_changed(false);
    for message in in_json {
        let serde = "#[derive(serde::Serialize, serde::Deserialize)] #[serde(default)]";
        builder = builder.message_attribute(format!(".{message}"), serde);
    }
    builder.compile_fds(files)?;
    Ok(())
}

/// The server of `Bundles` whose answers take the bundle as bytes.
fn ready(pool: &DescriptorPool, mut files: FileDescriptorSet, out: &Path) -> Result<()> {
    fs::create_dir_all(out)?;
    let mut builder = tonic_prost_build::configure()
        .out_dir(out)
        .build_client(false)
        .bytes(".")
        .skip_debug(READY)
        .emit_rerun_if_changed(false);
    for message in pool.all_messages() {
        let name = message.full_name();
        if !READY.contains(&name) && !name.ends_with("Entry") && message.parent_message().is_none()
        {
            builder =
                builder.extern_path(format!(".{name}"), format!("crate::v1::{}", message.name()));
        }
    }
    files
        .file
        .retain(|f| f.service.iter().any(|s| s.name() == "Bundles"));
    for message in files.file.iter_mut().flat_map(|f| &mut f.message_type) {
        let name = format!("evermint.v1.{}", message.name());
        if READY.contains(&name.as_str()) {
            for field in &mut message.field {
                if field.name() == READY_FIELD {
                    encoded(field);
                }
            }
        }
    }
    let mut code = String::new();
    for name in READY {
        let message = pool
            .get_message_by_name(name)
            .ok_or_else(|| format!("no message {name}"))?;
        let secret: Vec<_> = message.get_field_by_name(READY_FIELD).into_iter().collect();
        redacted(&message, &secret, &mut code)?;
    }
    fs::write(out.join("evermint.v1.debug.rs"), code)?;
    builder.compile_fds(files)?;
    Ok(())
}

/// Whether the field is marked as a secret.
fn is_secret(field: &FieldDescriptor) -> bool {
    field
        .options()
        .get_field_by_name("debug_redact")
        .and_then(|value| value.as_bool())
        .unwrap_or(false)
}

/// A `Debug` of `message` that does not show `secret`.
fn redacted(
    message: &MessageDescriptor,
    secret: &[FieldDescriptor],
    code: &mut String,
) -> Result<()> {
    if message.parent_message().is_some() || message.oneofs().any(|o| !o.is_synthetic()) {
        return Err(format!(
            "{}: secrets in nested messages and in oneofs are not supported",
            message.full_name()
        )
        .into());
    }
    let name = message.name();
    writeln!(code, "impl ::core::fmt::Debug for {name} {{")?;
    writeln!(
        code,
        "fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {{"
    )?;
    writeln!(code, "f.debug_struct({name:?})")?;
    for field in message.fields() {
        let field_name = field.name();
        if secret.contains(&field) {
            writeln!(code, ".field({field_name:?}, &format_args!(\"…\"))")?;
        } else {
            writeln!(code, ".field({field_name:?}, &self.r#{field_name})")?;
        }
    }
    writeln!(code, ".finish()\n}}\n}}")?;
    Ok(())
}

/// The proto files of a directory, in order; none if it is not there.
fn protos(directory: &Path) -> Result<Vec<PathBuf>> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Ok(Vec::new());
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "proto") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
