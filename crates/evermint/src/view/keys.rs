//! Key-encryption keys and data keys, by name.

use evermint_proto::v1;
use serde::Serialize;

use crate::out::Render;
use crate::page::{Cell, Page, Tone};

/// The answer of `keys status`.
#[derive(Debug, Serialize)]
pub struct Status {
    /// Key-encryption keys that are in use, or that a replica has.
    pub keks: Vec<Kek>,
    /// Data keys, oldest first; the last one seals.
    pub data_keys: Vec<DataKey>,
    /// Secrets that rest under an older data key than the last one.
    pub secrets_to_reseal: u64,
    /// How far the replica that answered has applied the history.
    pub position: u64,
}

/// A key-encryption key.
#[derive(Debug, Serialize)]
#[allow(missing_docs, reason = "the names say it, and evermint.v1 says more")]
pub struct Kek {
    pub name: String,
    pub data_keys: u32,
    pub replicas: Vec<u64>,
    pub wanted_by: Vec<u64>,
    /// Whether something in the cluster would not open without it.
    pub needed: bool,
    pub needed_for: Vec<String>,
    pub waits_for: String,
}

/// A data key.
#[derive(Debug, Serialize)]
#[allow(missing_docs, reason = "the names say it, and evermint.v1 says more")]
pub struct DataKey {
    pub id: u32,
    pub kek: String,
    pub secrets: u64,
}

impl From<v1::GetKeyStatusResponse> for Status {
    fn from(answer: v1::GetKeyStatusResponse) -> Self {
        let kek = |kek: v1::KeyEncryptionKey| Kek {
            name: kek.name,
            data_keys: kek.data_keys,
            replicas: kek.replicas,
            wanted_by: kek.wanted_by,
            needed: !kek.needed_for.is_empty(),
            needed_for: kek.needed_for,
            waits_for: kek.waits_for,
        };
        let data_key = |key: v1::DataKey| DataKey {
            id: key.id,
            kek: key.kek,
            secrets: key.secrets,
        };
        Self {
            keks: answer.keks.into_iter().map(kek).collect(),
            data_keys: answer.data_keys.into_iter().map(data_key).collect(),
            secrets_to_reseal: answer.secrets_to_reseal,
            position: answer.position,
        }
    }
}

impl Kek {
    fn told(&self) -> Cell {
        if !self.waits_for.is_empty() {
            return Cell::new(format!("waits for {}", self.waits_for), Tone::Warn);
        }
        match (self.needed, self.wanted_by.is_empty()) {
            (true, false) => Cell::new("in use", Tone::Good),
            (true, true) => Cell::new(
                format!("needed: {}", self.needed_for.join("; ")),
                Tone::Warn,
            ),
            (false, true) => Cell::new("not needed any more, but for backups", Tone::Good),
            (false, false) => Cell::new("not in use yet", Tone::Warn),
        }
    }
}

fn ids(ids: &[u64]) -> Cell {
    match ids {
        [] => Cell::none(),
        ids => {
            let ids: Vec<_> = ids.iter().map(u64::to_string).collect();
            ids.join(",").into()
        }
    }
}

impl Render for Status {
    fn render(&self, page: &mut Page) {
        let keks: Vec<Vec<Cell>> = self
            .keks
            .iter()
            .map(|kek| {
                vec![
                    kek.name.as_str().into(),
                    u64::from(kek.data_keys).into(),
                    ids(&kek.replicas),
                    kek.told(),
                ]
            })
            .collect();
        let head = ["KEK", "DATA KEYS", "REPLICAS", "STATUS"];
        page.table(&head, &keks, "no key-encryption key is in use yet");
        page.line("");
        let newest = self.data_keys.last().map(|key| key.id);
        let data_keys: Vec<Vec<Cell>> = self
            .data_keys
            .iter()
            .map(|key| {
                let is_newest = Some(key.id) == newest;
                let told = match (is_newest, key.secrets) {
                    (true, _) => Cell::new("seals", Tone::Good),
                    (false, 0) => Cell::new("kept for journals and backups", Tone::Dim),
                    (false, _) => Cell::new("its secrets are being sealed anew", Tone::Warn),
                };
                let id = u64::from(key.id);
                vec![id.into(), key.kek.as_str().into(), key.secrets.into(), told]
            })
            .collect();
        let head = ["DATA KEY", "KEK", "SECRETS", "STATUS"];
        page.table(&head, &data_keys, "no data key yet");
    }
}

/// The answer of `keys rotate`.
#[derive(Debug, Serialize)]
pub struct Rotation {
    /// The new data key.
    pub data_key: u32,
    /// Where the write stands in the history.
    pub position: u64,
    /// Secrets that rest under older keys; `None` if that was not waited for.
    pub secrets_to_reseal: Option<u64>,
}

impl Render for Rotation {
    fn render(&self, page: &mut Page) {
        let id = self.data_key;
        page.line(match self.secrets_to_reseal {
            Some(_) => format!("every secret rests under data key {id}"),
            None => format!(
                "data key {id} seals from now on; `evermint keys status` says how many secrets are \
                 still to be sealed anew"
            ),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::shown;
    use super::*;

    #[test]
    fn keys_are_told_by_name_with_what_holds_them_up() {
        let kek = |name: &str, data_keys, wanted_by: &[u64], needed_for: &[&str], waits: &str| {
            v1::KeyEncryptionKey {
                name: name.to_owned(),
                data_keys,
                replicas: vec![1, 2],
                wanted_by: wanted_by.to_vec(),
                needed_for: needed_for.iter().map(|why| (*why).to_owned()).collect(),
                waits_for: waits.to_owned(),
            }
        };
        let answer = v1::GetKeyStatusResponse {
            keks: vec![
                kek("aaaa", 1, &[], &["it wraps data key 1"], ""),
                kek("bbbb", 1, &[1, 2], &["it wraps data key 2"], ""),
                kek("cccc", 0, &[1], &[], "replica 2, to be started with it"),
                kek("dddd", 0, &[], &[], ""),
            ],
            data_keys: [(1, "aaaa", 4), (2, "bbbb", 7)]
                .map(|(id, kek, secrets)| v1::DataKey {
                    id,
                    kek: kek.to_owned(),
                    secrets,
                })
                .to_vec(),
            secrets_to_reseal: 4,
            position: 9,
        };
        assert_eq!(
            shown(&Status::from(answer)),
            "KEK   DATA KEYS  REPLICAS  STATUS\n\
             aaaa  1          1,2       needed: it wraps data key 1\n\
             bbbb  1          1,2       in use\n\
             cccc  0          1,2       waits for replica 2, to be started with it\n\
             dddd  0          1,2       not needed any more, but for backups\n\
             \n\
             DATA KEY  KEK   SECRETS  STATUS\n\
             1         aaaa  4        its secrets are being sealed anew\n\
             2         bbbb  7        seals\n"
        );
    }
}
