//! Tables: ordered maps of records, each change atomic, each record checked when it is read.

use std::ops::Bound;
use std::sync::Arc;

use super::chunk::{self, Digest};
use super::{Damage, Store, StoreError};

/// A change of one record: its key, and its value or `None` to remove it.
pub(crate) type Change = (Vec<u8>, Option<Vec<u8>>);

/// An ordered map of records. Clones share it.
#[derive(Clone)]
pub(crate) struct Table {
    tree: sled::Tree,
    name: Arc<str>,
    // Keeps the store open, and goes after the tree.
    _store: Store,
}

impl Table {
    pub(super) fn new(tree: sled::Tree, name: &str, store: &Store) -> Self {
        Self {
            tree,
            name: name.into(),
            _store: store.clone(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tree.is_empty()
    }

    /// The table's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// One record.
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let end = [key, &[0xff; 3]].concat();
        let mut found = self.range(Bound::Included(key), Bound::Excluded(&end));
        match found.next() {
            Some(Ok((found, value))) if found == key => Ok(Some(value)),
            Some(Err(e)) => Err(e),
            _ => Ok(None),
        }
    }

    /// The records with keys in a range, in order.
    pub(crate) fn range(&self, start: Bound<&[u8]>, end: Bound<&[u8]>) -> Records<'_> {
        let own = |bound: Bound<&[u8]>| bound.map(<[u8]>::to_vec);
        Records {
            table: self,
            chunks: self.tree.range::<Vec<u8>, _>((own(start), own(end))),
            digest: Digest::default(),
        }
    }

    /// All records, in order.
    pub(crate) fn all(&self) -> Records<'_> {
        self.range(Bound::Unbounded, Bound::Unbounded)
    }

    /// Makes all changes, or none.
    pub(crate) fn apply(&self, changes: Vec<Change>) -> Result<(), StoreError> {
        let mut ignored = Digest::default();
        let staged = self.stage(changes, &mut ignored)?;
        self.commit(staged)
    }

    /// Prepares changes, and keeps `digest` up with them.
    pub(crate) fn stage(
        &self,
        changes: Vec<Change>,
        digest: &mut Digest,
    ) -> Result<Staged, StoreError> {
        let mut batch = sled::Batch::default();
        for (key, value) in changes {
            let old = self.chunks_of(&key)?;
            for (_, bytes) in &old {
                digest.subtract(chunk::weight_of(bytes));
            }
            let new = value.map_or_else(Vec::new, |v| chunk::split(&self.name, &key, &v));
            for (chunk_key, _) in old.into_iter().skip(new.len()) {
                batch.remove(chunk_key);
            }
            for (chunk_key, bytes) in new {
                digest.add(chunk::weight_of(&bytes));
                batch.insert(chunk_key, bytes);
            }
        }
        Ok(Staged(batch))
    }

    /// Makes staged changes, all or none.
    pub(crate) fn commit(&self, staged: Staged) -> Result<(), StoreError> {
        self.tree
            .apply_batch(staged.0)
            .map_err(StoreError::sled(format!("table {}", self.name)))
    }

    fn chunks_of(&self, key: &[u8]) -> Result<Vec<(sled::IVec, sled::IVec)>, StoreError> {
        let failed = || StoreError::sled(self.describe(key));
        let first = chunk::chunk_key(key, 0);
        let Some(bytes) = self.tree.get(&first).map_err(failed())? else {
            return Ok(Vec::new());
        };
        let content = chunk::open(&self.name, &first, &bytes);
        let count = content.map(|c| c.count).ok_or_else(|| self.damaged(key))?;
        let mut chunks = vec![(first.into(), bytes)];
        for number in 1..count {
            let next = chunk::chunk_key(key, number);
            let bytes = self.tree.get(&next).map_err(failed())?;
            chunks.push((next.into(), bytes.ok_or_else(|| self.damaged(key))?));
        }
        Ok(chunks)
    }

    fn damaged(&self, key: &[u8]) -> Damage {
        Damage::new(self.describe(key), "checksum mismatch or missing part")
    }

    /// A record's name for people.
    fn describe(&self, key: &[u8]) -> String {
        match <[u8; 8]>::try_from(key) {
            Ok(index) if &*self.name == "log" => {
                format!("log entry {}", u64::from_be_bytes(index))
            }
            _ if key.iter().all(u8::is_ascii_graphic) => {
                format!("{}/{}", self.name, String::from_utf8_lossy(key))
            }
            _ => {
                let hex: String = key.iter().map(|b| format!("{b:02x}")).collect();
                format!("{}/0x{hex}", self.name)
            }
        }
    }
}

/// Changes that are ready to be made.
pub(crate) struct Staged(sled::Batch);

impl Staged {
    /// Adds a record that fits one chunk and is not counted in any digest.
    pub(crate) fn seal(&mut self, table: &Table, key: &[u8], value: &[u8]) {
        for (chunk_key, bytes) in chunk::split(&table.name, key, value) {
            self.0.insert(chunk_key, bytes);
        }
    }
}

/// Records in order, each checked.
pub(crate) struct Records<'a> {
    table: &'a Table,
    chunks: sled::Iter,
    digest: Digest,
}

impl Records<'_> {
    /// The digest over what was read so far.
    pub(crate) fn digest(&self) -> Digest {
        self.digest
    }

    fn record(
        &mut self,
        first: (sled::IVec, sled::IVec),
    ) -> Result<(Vec<u8>, Vec<u8>), StoreError> {
        let name = self.table.name.clone();
        let (mut chunk_key, mut bytes) = first;
        let (key, number) = chunk::parse_key(&chunk_key)
            .map(|(key, number)| (key.to_vec(), number))
            .ok_or_else(|| self.table.damaged(&chunk_key))?;
        let damaged = |table: &Table| StoreError::from(table.damaged(&key));
        if number != 0 {
            return Err(damaged(self.table));
        }
        let mut value = Vec::new();
        let mut next = 0;
        loop {
            let content = chunk::open(&name, &chunk_key, &bytes);
            let content = content.ok_or_else(|| damaged(self.table))?;
            if chunk::parse_key(&chunk_key) != Some((&key, next)) {
                return Err(damaged(self.table));
            }
            value.extend_from_slice(content.bytes);
            self.digest.add(content.weight);
            next += 1;
            if next == content.count {
                return Ok((key, value));
            }
            (chunk_key, bytes) = match self.chunks.next() {
                Some(Ok(chunk)) => chunk,
                Some(Err(e)) => return Err(StoreError::sled(self.table.describe(&key))(e)),
                None => return Err(damaged(self.table)),
            };
        }
    }
}

impl Iterator for Records<'_> {
    type Item = Result<(Vec<u8>, Vec<u8>), StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let what = || format!("table {}", self.table.name);
        match self.chunks.next()? {
            Ok(first) => Some(self.record(first)),
            Err(e) => Some(Err(StoreError::sled(what())(e))),
        }
    }
}
