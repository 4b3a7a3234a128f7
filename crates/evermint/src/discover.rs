//! What an operator's machine holds already: gcloud's application default credentials, key files
//! of service accounts, and whatever else a provider's profile declares.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use evermint_core::profile::{DiscoveryFile, Profile};
use evermint_core::strategy::Strategy;
use serde_json::Value;

use crate::exit::{advised, usage};

/// The longest credential file that is read, in bytes.
const FILE_MAX: usize = 64 << 10;

/// The scope of all of Google Cloud, which is what its own tools ask for.
const CLOUD_PLATFORM: &str = "https://www.googleapis.com/auth/cloud-platform";

/// The machine that is looked at.
pub trait Machine {
    /// A variable of the environment; blank ones count as not set.
    fn variable(&self, name: &str) -> Option<String>;
    /// The content of a file; `None` if there is none.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    fn file(&self, path: &Path) -> Result<Option<String>>;
}

/// This one.
#[derive(Clone, Copy, Debug)]
pub struct Here;

impl Machine for Here {
    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok().filter(|v| !v.trim().is_empty())
    }

    fn file(&self, path: &Path) -> Result<Option<String>> {
        use std::io::Read;
        let cannot = || format!("cannot read {}", path.display());
        let file = match std::fs::File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(cannot),
        };
        let mut text = String::new();
        let length = file
            .take(FILE_MAX as u64 + 1)
            .read_to_string(&mut text)
            .with_context(cannot)?;
        if length > FILE_MAX {
            return Err(anyhow!(
                "{} holds more than {FILE_MAX} bytes",
                path.display()
            ));
        }
        Ok(Some(text))
    }
}

/// How a credential can be minted, by what was found.
#[derive(Clone, PartialEq, Eq)]
pub struct Grant {
    /// How.
    pub strategy: Strategy,
    /// Secret material.
    pub secret: BTreeMap<String, String>,
    /// Scopes unless the operator gives others.
    pub scopes: Vec<String>,
    /// Where it was found, for people.
    pub origin: String,
}

impl std::fmt::Debug for Grant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Grant({} from {})", self.strategy, self.origin)
    }
}

/// What was found for a provider.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Values of static credentials by key.
    pub values: BTreeMap<String, String>,
    /// Plain settings by name.
    pub config: BTreeMap<String, String>,
    /// A refresh, and the key of the credential that it mints.
    pub refresh: Option<(String, Grant)>,
    /// Where each was found, for people.
    pub origins: Vec<String>,
}

impl std::fmt::Debug for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Found({:?})", self.origins)
    }
}

/// gcloud's application default credentials, from where gcloud and Google's libraries look.
///
/// # Errors
/// When there are none, or none that can be used, with what to do.
pub fn gcloud_adc(machine: &dyn Machine) -> Result<Grant> {
    let file = DiscoveryFile {
        env_var: "GOOGLE_APPLICATION_CREDENTIALS".to_owned(),
        path: match machine.variable("CLOUDSDK_CONFIG") {
            Some(dir) => format!("{dir}/application_default_credentials.json"),
            None => "~/.config/gcloud/application_default_credentials.json".to_owned(),
        },
        kind: "gcloud-adc".to_owned(),
    };
    match look(machine, &file)? {
        Some((path, text)) => google(&path, &text),
        None => Err(advised(
            "there are no application default credentials: GOOGLE_APPLICATION_CREDENTIALS names no file, and gcloud has written none",
            "`gcloud auth application-default login`, or name a key file with --from-service-account",
        )),
    }
}

/// The key file of a service account.
///
/// # Errors
/// When there is none, or it is none.
pub fn service_account(machine: &dyn Machine, path: &Path) -> Result<Grant> {
    let text = machine
        .file(path)?
        .ok_or_else(|| usage(format!("there is no file {}", path.display())))?;
    let grant = google(path, &text)?;
    if grant.strategy != Strategy::GoogleServiceAccountJwt {
        return Err(advised(
            format!(
                "{} is no key file of a service account: it is for {}",
                path.display(),
                grant.strategy
            ),
            "--from-gcloud-adc takes application default credentials of every kind",
        ));
    }
    Ok(grant)
}

/// Everything that `profile` says may lie on the machine.
///
/// # Errors
/// When there is nothing, with where it was looked for; and when a file cannot be used.
pub fn existing(machine: &dyn Machine, profile: &Profile) -> Result<Found> {
    let mut found = Found::default();
    let mut looked = Vec::new();
    let credentials = profile.discovery.credentials.iter();
    for credential in credentials.filter_map(|name| profile.credential(name)) {
        for key in &credential.env_vars {
            looked.push(format!("${key}"));
            if let Some(value) = machine.variable(key.as_str()) {
                found.origins.push(format!("{key} from the environment"));
                found.values.insert(key.to_string(), value);
                break;
            }
        }
    }
    for key in &profile.config {
        let set = key.env_vars.iter().find_map(|variable| {
            let value = machine.variable(variable.as_str())?;
            Some((variable, value))
        });
        if let Some((variable, value)) = set {
            found.origins.push(format!("{} from ${variable}", key.name));
            found.config.insert(key.name.clone(), value);
        }
    }
    for file in &profile.discovery.files {
        looked.push(format!("{} ({})", file.path, file.kind));
        let Some((path, text)) = look(machine, file)? else {
            continue;
        };
        match file.kind.as_str() {
            "gcloud-adc" | "google-service-account" => {
                found.take_grant(profile, google(&path, &text)?);
            }
            "aws-credentials" => {
                let section = machine.variable("AWS_PROFILE");
                let section = section.as_deref().unwrap_or("default");
                found.take_values(profile, &path, ini_section(&text, section));
            }
            // A profile of a newer version; what is not understood is not guessed at.
            _ => {}
        }
    }
    if found.values.is_empty() && found.refresh.is_none() {
        return Err(advised(
            format!(
                "nothing was found for {}: looked at {}",
                profile.id,
                looked.join(", ")
            ),
            "give the values with --credential KEY=@FILE, KEY=- or KEY=env:NAME",
        ));
    }
    Ok(found)
}

impl Found {
    /// Takes a grant for the first credential that the profile mints in this way. A value from
    /// the environment wins: whoever set it meant it.
    fn take_grant(&mut self, profile: &Profile, grant: Grant) {
        let minted = profile
            .credentials
            .iter()
            .filter(|c| c.refresh_by(grant.strategy).is_some());
        let keys = minted.filter_map(|c| {
            let given = c
                .env_vars
                .iter()
                .any(|k| self.values.contains_key(k.as_str()));
            c.env_vars.first().filter(|_| !given)
        });
        let Some(key) = keys.into_iter().next() else {
            return;
        };
        if self.refresh.is_none() {
            self.origins.push(format!("{key} from {}", grant.origin));
            self.refresh = Some((key.to_string(), grant));
        }
    }

    /// Takes values whose names, in upper case, the profile knows as keys.
    fn take_values(&mut self, profile: &Profile, path: &Path, values: BTreeMap<String, String>) {
        for (name, value) in values {
            let key = name.to_ascii_uppercase();
            let known = profile.credentials.iter().flat_map(|c| &c.env_vars);
            if known.into_iter().any(|k| k.as_str() == key) && !self.values.contains_key(&key) {
                self.origins.push(format!("{key} from {}", path.display()));
                self.values.insert(key, value);
            }
        }
    }
}

/// The file, from where its variable says or from where it usually lies.
fn look(machine: &dyn Machine, file: &DiscoveryFile) -> Result<Option<(PathBuf, String)>> {
    let named = Some(&file.env_var).filter(|name| !name.is_empty());
    if let Some(path) = named.and_then(|name| machine.variable(name)) {
        let path = PathBuf::from(path);
        let text = machine.file(&path)?.ok_or_else(|| {
            usage(format!(
                "{} names {}, which is not there",
                file.env_var,
                path.display()
            ))
        })?;
        return Ok(Some((path, text)));
    }
    let path = match (file.path.strip_prefix("~/"), machine.variable("HOME")) {
        (Some(rest), Some(home)) => Path::new(&home).join(rest),
        (Some(_), None) => return Ok(None),
        (None, _) => PathBuf::from(&file.path),
    };
    let text = machine.file(&path)?;
    Ok(text.map(|text| (path, text)))
}

/// What one of Google's credential files is good for.
fn google(path: &Path, text: &str) -> Result<Grant> {
    let origin = path.display().to_string();
    // The parser's own words could quote the file.
    let json: Value = serde_json::from_str(text).map_err(|e| {
        anyhow!(
            "{origin} is no JSON (line {}, column {})",
            e.line(),
            e.column()
        )
    })?;
    let field = |name: &str| {
        let value = json.get(name).and_then(Value::as_str);
        value
            .map(str::to_owned)
            .ok_or_else(|| anyhow!("{origin} has no {name}"))
    };
    let kind = field("type")?;
    let (strategy, material, needed) = match kind.as_str() {
        "service_account" => (
            Strategy::GoogleServiceAccountJwt,
            "service_account_json",
            &["client_email", "private_key"][..],
        ),
        "authorized_user" => (
            Strategy::GoogleAuthorizedUser,
            "authorized_user_json",
            &["client_id", "client_secret", "refresh_token"][..],
        ),
        "external_account" => (
            Strategy::GoogleExternalAccount,
            "external_account_json",
            &["audience", "subject_token_type"][..],
        ),
        kind => {
            return Err(advised(
                format!(
                    "{origin} holds credentials of type {kind:?}, which Evermint does not take"
                ),
                "use a service account key, gcloud's user credentials or an external account",
            ));
        }
    };
    for name in needed {
        field(name)?;
    }
    Ok(Grant {
        strategy,
        secret: BTreeMap::from([(material.to_owned(), text.trim().to_owned())]),
        // What a person granted cannot be widened.
        scopes: match strategy {
            Strategy::GoogleAuthorizedUser => Vec::new(),
            _ => vec![CLOUD_PLATFORM.to_owned()],
        },
        origin,
    })
}

/// The settings of one section of a file as the AWS tools write it.
fn ini_section(text: &str, section: &str) -> BTreeMap<String, String> {
    let mut inside = false;
    let mut settings = BTreeMap::new();
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            inside = name.trim() == section;
        } else if let Some((name, value)) = line.split_once('=')
            && inside
            && !line.starts_with(['#', ';'])
        {
            settings.insert(name.trim().to_owned(), value.trim().to_owned());
        }
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;
    use evermint_core::profile::{ConfigKey, Discovery, ProfileCredential, RefreshSpec, TokenUrl};

    /// A machine of the test's making.
    #[derive(Default)]
    struct Fake {
        variables: BTreeMap<&'static str, &'static str>,
        files: BTreeMap<&'static str, &'static str>,
    }

    impl Machine for Fake {
        fn variable(&self, name: &str) -> Option<String> {
            self.variables.get(name).map(|v| (*v).to_owned())
        }

        fn file(&self, path: &Path) -> Result<Option<String>> {
            let path = path.to_str().unwrap();
            Ok(self.files.get(path).map(|v| (*v).to_owned()))
        }
    }

    const USER: &str = r#"{"type":"authorized_user","client_id":"id","client_secret":"cs","refresh_token":"rt","quota_project_id":"q"}"#;
    const SERVICE: &str = r#"{"type":"service_account","client_email":"a@b","private_key":"pk"}"#;
    const ADC: &str = "/home/op/.config/gcloud/application_default_credentials.json";

    fn machine(
        variables: &[(&'static str, &'static str)],
        files: &[(&'static str, &'static str)],
    ) -> Fake {
        let mut fake = Fake {
            variables: variables.iter().copied().collect(),
            files: files.iter().copied().collect(),
        };
        fake.variables.insert("HOME", "/home/op");
        fake
    }

    #[test]
    fn application_default_credentials_are_looked_for_where_gcloud_puts_them() {
        for (variables, path) in [
            (&[][..], ADC),
            (
                &[("CLOUDSDK_CONFIG", "/g")],
                "/g/application_default_credentials.json",
            ),
            (&[("GOOGLE_APPLICATION_CREDENTIALS", "/k.json")], "/k.json"),
        ] {
            let grant = gcloud_adc(&machine(variables, &[(path, SERVICE)])).unwrap();
            assert_eq!(grant.strategy, Strategy::GoogleServiceAccountJwt);
            assert_eq!(grant.secret["service_account_json"], SERVICE);
            assert_eq!(grant.origin, path);
        }
    }

    #[test]
    fn each_kind_of_credentials_has_its_strategy() {
        let external = r#"{"type":"external_account","audience":"a","subject_token_type":"t"}"#;
        for (file, strategy, material, scopes) in [
            (
                SERVICE,
                Strategy::GoogleServiceAccountJwt,
                "service_account_json",
                1,
            ),
            (
                USER,
                Strategy::GoogleAuthorizedUser,
                "authorized_user_json",
                0,
            ),
            (
                external,
                Strategy::GoogleExternalAccount,
                "external_account_json",
                1,
            ),
        ] {
            let grant = gcloud_adc(&machine(&[], &[(ADC, file)])).unwrap();
            assert_eq!(grant.strategy, strategy);
            assert_eq!(
                grant.secret,
                BTreeMap::from([(material.to_owned(), file.to_owned())])
            );
            assert_eq!(grant.scopes.len(), scopes);
        }
    }

    #[test]
    fn credentials_that_cannot_be_used_are_told_without_showing_them() {
        for (variables, files, told) in [
            (
                &[][..],
                &[][..],
                "there are no application default credentials",
            ),
            (
                &[("GOOGLE_APPLICATION_CREDENTIALS", "/no")],
                &[],
                "names /no, which is not there",
            ),
            (&[], &[(ADC, "{\"type\": hunter2")], "is no JSON (line 1"),
            (
                &[],
                &[(ADC, r#"{"type":"authorized_user","client_id":"hunter2"}"#)],
                "has no client_secret",
            ),
            (
                &[],
                &[(ADC, r#"{"type":"gdch_service_account","x":"hunter2"}"#)],
                "gdch_service_account",
            ),
            (&[], &[(ADC, r#"{"x":"hunter2"}"#)], "has no type"),
        ] {
            let error = format!("{:#}", gcloud_adc(&machine(variables, files)).unwrap_err());
            assert!(error.contains(told), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
        let wrong = service_account(&machine(&[], &[("/k", USER)]), Path::new("/k"));
        assert!(
            wrong
                .unwrap_err()
                .to_string()
                .contains("no key file of a service account")
        );
    }

    #[test]
    fn nothing_that_was_found_shows_in_debug() {
        let grant = gcloud_adc(&machine(&[], &[(ADC, USER)])).unwrap();
        let found = Found {
            values: BTreeMap::from([("K".to_owned(), "hunter2".to_owned())]),
            refresh: Some(("T".to_owned(), grant.clone())),
            origins: vec!["K from the environment".to_owned()],
            ..Found::default()
        };
        let shown = format!("{grant:?} {found:?}");
        assert!(
            !shown.contains("hunter2") && !shown.contains("rt"),
            "{shown}"
        );
    }

    fn credential(name: &str, env_vars: &[&str], strategy: Option<Strategy>) -> ProfileCredential {
        let spec = |strategy| RefreshSpec {
            strategy,
            token_url: TokenUrl::None,
            scopes: Vec::new(),
            material: Vec::new(),
            outputs: BTreeMap::new(),
            refresh_before_secs: None,
            not_before_secs: None,
            max_lifetime_secs: None,
            replay: Default::default(),
            revoke_url: String::new(),
        };
        ProfileCredential {
            name: name.to_owned(),
            description: String::new(),
            env_vars: env_vars.iter().map(|k| k.parse().unwrap()).collect(),
            required: true,
            auth: Default::default(),
            refresh: strategy.into_iter().map(spec).collect(),
            token_grant: None,
        }
    }

    fn profile(credentials: Vec<ProfileCredential>, files: &[(&str, &str, &str)]) -> Profile {
        Profile {
            id: "test".parse().unwrap(),
            aliases: Vec::new(),
            display_name: String::new(),
            description: String::new(),
            category: Default::default(),
            discovery: Discovery {
                credentials: credentials.iter().map(|c| c.name.clone()).collect(),
                files: files
                    .iter()
                    .map(|(env_var, path, kind)| DiscoveryFile {
                        env_var: (*env_var).to_owned(),
                        path: (*path).to_owned(),
                        kind: (*kind).to_owned(),
                    })
                    .collect(),
            },
            credentials,
            config: Vec::new(),
            endpoints: Vec::new(),
            inference: Vec::new(),
            annotations: BTreeMap::new(),
            carried: BTreeMap::new(),
        }
    }

    #[test]
    fn a_profile_says_which_variables_are_taken() {
        let mut profile = profile(
            vec![credential("api_key", &["FIRST_KEY", "OTHER_KEY"], None)],
            &[],
        );
        profile.config.push(ConfigKey {
            name: "REGION".to_owned(),
            aliases: Vec::new(),
            description: String::new(),
            required: false,
            format: Default::default(),
            default: None,
            env_vars: vec!["CLOUD_REGION".parse().unwrap()],
        });
        let here = machine(&[("OTHER_KEY", "v"), ("CLOUD_REGION", "r")], &[]);
        let found = existing(&here, &profile).unwrap();
        assert_eq!(found.config["REGION"], "r");
        assert_eq!(
            found.values,
            BTreeMap::from([("OTHER_KEY".to_owned(), "v".to_owned())])
        );
        let error = existing(&machine(&[], &[]), &profile)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("looked at $FIRST_KEY, $OTHER_KEY"),
            "{error}"
        );
    }

    #[test]
    fn a_profile_says_which_files_are_taken_and_a_variable_wins() {
        let token = || credential("token", &["TOKEN"], Some(Strategy::GoogleServiceAccountJwt));
        let files = [("GOOGLE_APPLICATION_CREDENTIALS", "~/adc.json", "gcloud-adc")];
        let profile = profile(vec![token()], &files);
        let here = [("/home/op/adc.json", SERVICE)];
        let found = existing(&machine(&[], &here), &profile).unwrap();
        let (key, grant) = found.refresh.unwrap();
        assert_eq!(
            (key.as_str(), grant.strategy),
            ("TOKEN", Strategy::GoogleServiceAccountJwt)
        );
        let found = existing(&machine(&[("TOKEN", "v")], &here), &profile).unwrap();
        assert_eq!(found.values["TOKEN"], "v");
        assert_eq!(found.refresh, None);
    }

    #[test]
    fn aws_credentials_are_read_from_the_section_that_is_in_use() {
        let profile = profile(
            vec![
                credential("id", &["AWS_ACCESS_KEY_ID"], None),
                credential("key", &["AWS_SECRET_ACCESS_KEY"], None),
            ],
            &[(
                "AWS_SHARED_CREDENTIALS_FILE",
                "~/.aws/credentials",
                "aws-credentials",
            )],
        );
        let file = "[default]\n# x = y\naws_access_key_id = A\naws_secret_access_key=B=\nregion = r\n\n[other]\naws_access_key_id = C\n";
        let files = [("/home/op/.aws/credentials", file)];
        let found = existing(&machine(&[], &files), &profile).unwrap();
        assert_eq!(found.values["AWS_ACCESS_KEY_ID"], "A");
        assert_eq!(found.values["AWS_SECRET_ACCESS_KEY"], "B=");
        assert_eq!(found.values.len(), 2);
        let found = existing(&machine(&[("AWS_PROFILE", "other")], &files), &profile).unwrap();
        assert_eq!(found.values["AWS_ACCESS_KEY_ID"], "C");
    }
}
