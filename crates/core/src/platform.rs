//! Settings of the platform around Evermint: what OpenShell's gateway keeps for its clients. They
//! are carried; nothing here hangs on them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The settings that are set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// By key.
    pub settings: BTreeMap<String, SettingValue>,
    /// Grows by one with every change.
    pub revision: u64,
}

/// The value of a setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub enum SettingValue {
    Text(String),
    Bool(bool),
    Int(i64),
    Bytes(Vec<u8>),
}
