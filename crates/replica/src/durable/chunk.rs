//! How a record lies in the store: in chunks of at most 4 KiB, each under a checksum of its own.
//!
//! sled moves pages beyond about 128 KiB into files that it never syncs; with small values it
//! never has to. The checksum covers table, key and value, so a chunk that was damaged, or that
//! turned up in the wrong place, is recognised.
//!
//! A chunk's key is the record's key followed by the chunk's number (`u16`, big endian); its value
//! is the checksum (`u32`), the record's number of chunks (`u16`), both big endian, and the bytes.
//! The keys of one table must not be prefixes of each other.

/// The most payload in one chunk, in bytes.
pub(crate) const CHUNK_BYTES: usize = 4_000;

const HEADER: usize = 6;
const NUMBER: usize = 2;

/// One chunk, as the store keeps it.
pub(crate) type Chunk = (Vec<u8>, Vec<u8>);

/// Cuts a record into chunks: at least one, even of nothing.
///
/// # Panics
/// When the record is longer than 65,535 chunks.
pub(crate) fn split(table: &str, key: &[u8], value: &[u8]) -> Vec<Chunk> {
    let count = value.len().div_ceil(CHUNK_BYTES).max(1);
    let count = u16::try_from(count).expect("records are bounded where they are made");
    (0..count)
        .map(|number| {
            let start = usize::from(number) * CHUNK_BYTES;
            let end = value.len().min(start + CHUNK_BYTES);
            let chunk_key = chunk_key(key, number);
            let mut bytes = Vec::with_capacity(HEADER + end - start);
            bytes.extend_from_slice(&[0; 4]);
            bytes.extend_from_slice(&count.to_be_bytes());
            bytes.extend_from_slice(&value[start..end]);
            let sum = checksum(table, &chunk_key, &bytes[4..]);
            bytes[..4].copy_from_slice(&sum.to_be_bytes());
            (chunk_key, bytes)
        })
        .collect()
}

/// The key of a record's chunk.
pub(crate) fn chunk_key(key: &[u8], number: u16) -> Vec<u8> {
    [key, &number.to_be_bytes()].concat()
}

/// The record's key and the chunk's number.
pub(crate) fn parse_key(chunk_key: &[u8]) -> Option<(&[u8], u16)> {
    let (key, number) = chunk_key.split_at_checked(chunk_key.len().checked_sub(NUMBER)?)?;
    Some((key, u16::from_be_bytes(number.try_into().ok()?)))
}

/// A chunk's content, if it is intact.
pub(crate) struct Content<'a> {
    /// How many chunks its record has.
    pub(crate) count: u16,
    /// Its part of the record.
    pub(crate) bytes: &'a [u8],
    /// Its weight in the table's [`Digest`].
    pub(crate) weight: u64,
}

/// Checks a chunk. `None` if it is damaged.
pub(crate) fn open<'a>(table: &str, chunk_key: &[u8], bytes: &'a [u8]) -> Option<Content<'a>> {
    let (header, payload) = bytes.split_at_checked(HEADER)?;
    let sum = u32::from_be_bytes(header[..4].try_into().ok()?);
    if sum != checksum(table, chunk_key, &bytes[4..]) {
        return None;
    }
    Some(Content {
        count: u16::from_be_bytes(header[4..].try_into().ok()?),
        bytes: payload,
        weight: weight(sum),
    })
}

fn checksum(table: &str, chunk_key: &[u8], rest: &[u8]) -> u32 {
    let sum = crc32c::crc32c(table.as_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(sum, chunk_key), rest)
}

/// The weight of the chunk with this checksum (the finalizer of SplitMix64).
fn weight(sum: u32) -> u64 {
    let mut z = u64::from(sum).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The weight of a chunk that is known to be intact.
pub(crate) fn weight_of(bytes: &[u8]) -> u64 {
    let sum = bytes.get(..4).and_then(|b| b.try_into().ok());
    weight(sum.map_or(0, u32::from_be_bytes))
}

/// The sum over all chunks of a table, in any order: it tells when one is missing, or stale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Digest {
    /// How many there are.
    pub(crate) chunks: u64,
    /// The sum of their weights.
    pub(crate) sum: u64,
}

impl Digest {
    pub(crate) fn add(&mut self, weight: u64) {
        self.chunks = self.chunks.wrapping_add(1);
        self.sum = self.sum.wrapping_add(weight);
    }

    pub(crate) fn subtract(&mut self, weight: u64) {
        self.chunks = self.chunks.wrapping_sub(1);
        self.sum = self.sum.wrapping_sub(weight);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_put_together_from_its_chunks() {
        for len in [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES] {
            let value: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
            let chunks = split("t", b"k", &value);
            let mut back = Vec::new();
            for (number, (key, bytes)) in chunks.iter().enumerate() {
                assert!(bytes.len() <= 4_096);
                let content = open("t", key, bytes).unwrap();
                assert_eq!(usize::from(content.count), chunks.len());
                assert_eq!(parse_key(key), Some((&b"k"[..], number as u16)));
                back.extend_from_slice(content.bytes);
            }
            assert_eq!(back, value);
        }
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let (key, bytes) = split("t", b"k", b"value").remove(0);
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(open("t", &key, &damaged).is_none(), "bit {bit}");
        }
        assert!(open("t", &chunk_key(b"l", 0), &bytes).is_none());
        assert!(open("u", &key, &bytes).is_none());
        assert!(open("t", &key, &bytes[..3]).is_none());
    }
}
