//! What a request is about: the one or two fields of its message that name a workspace, read
//! without decoding the rest.

use evermint_core::id::{SandboxId, Workspace};
use evermint_core::state::State;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use crate::access::{Place, Target};

/// Length of what stands before a message: a flag and the message's length
/// ([gRPC over HTTP/2](https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md#requests)).
pub(crate) const FRAME: usize = 5;

/// What the first message of `body` is about; `None` if it does not say so in a way that its
/// service will understand the same.
pub(crate) fn target(place: Place, body: &[u8], state: &State) -> Option<Target> {
    let workspace = |text: &str| match text {
        "" => Some(Target::In(Workspace::default_workspace())),
        text => text.parse().ok().map(Target::In),
    };
    let fields = || Fields::read(message(body)?);
    Some(match place {
        Place::Anywhere => Target::Anywhere,
        Place::Everywhere => Target::Everywhere,
        Place::In(field) => workspace(fields()?.text(field)?)?,
        Place::InOrAll(field, all) => match fields()? {
            fields if fields.is_set(all) => Target::Everywhere,
            fields => workspace(fields.text(field)?)?,
        },
        Place::InOrPlatform(field, platform) => match fields()? {
            fields if fields.is_set(platform) => Target::Platform,
            fields => workspace(fields.text(field)?)?,
        },
        Place::InElsePlatform(field) => match fields()?.text(field)? {
            "" => Target::Platform,
            text => workspace(text)?,
        },
        Place::OfSandbox(id, field) => {
            let fields = fields()?;
            let id = fields.text(id)?.parse::<SandboxId>().ok();
            match id.and_then(|id| state.sandboxes.get(&id)) {
                Some(sandbox) => Target::In(sandbox.workspace.clone()),
                None => match field {
                    Some(field) => workspace(fields.text(field)?)?,
                    // Nothing is there that could be told of.
                    None => Target::Anywhere,
                },
            }
        }
    })
}

/// The id of a sandbox that the first message of `body` holds in a field.
pub(crate) fn named_sandbox(field: u32, body: &[u8]) -> Option<SandboxId> {
    Fields::read(message(body)?)?.text(field)?.parse().ok()
}

/// The first message of a body. A compressed one is none of ours: no service takes it.
fn message(body: &[u8]) -> Option<&[u8]> {
    let (flag, rest) = body.split_first()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    (*flag == 0).then(|| rest.get(..length))?
}

/// The plain fields of a message: texts and numbers, by number.
struct Fields<'a>(Vec<(u32, Field<'a>)>);

#[derive(Clone, Copy)]
enum Field<'a> {
    Bytes(&'a [u8]),
    Number(u64),
    Other,
}

impl<'a> Fields<'a> {
    fn read(mut message: &'a [u8]) -> Option<Self> {
        let mut fields = Vec::new();
        while !message.is_empty() {
            let (number, wire) = decode_key(&mut message).ok()?;
            let field = match wire {
                WireType::LengthDelimited => {
                    let length = decode_varint(&mut message).ok()?;
                    let length = usize::try_from(length).ok()?;
                    let (bytes, rest) = message.split_at_checked(length)?;
                    message = rest;
                    Field::Bytes(bytes)
                }
                WireType::Varint => Field::Number(decode_varint(&mut message).ok()?),
                WireType::ThirtyTwoBit
                | WireType::SixtyFourBit
                | WireType::StartGroup
                | WireType::EndGroup => {
                    skip_field(wire, number, &mut message, DecodeContext::default()).ok()?;
                    Field::Other
                }
            };
            fields.push((number, field));
        }
        Some(Self(fields))
    }

    /// The last one of a number counts, as decoders have it.
    fn last(&self, number: u32) -> Option<Field<'a>> {
        let found = self.0.iter().rev().find(|(n, _)| *n == number);
        found.map(|(_, field)| *field)
    }

    /// A text; empty if it is not there, `None` if it is something else.
    fn text(&self, number: u32) -> Option<&'a str> {
        match self.last(number) {
            None => Some(""),
            Some(Field::Bytes(bytes)) => str::from_utf8(bytes).ok(),
            Some(Field::Number(_) | Field::Other) => None,
        }
    }

    /// A flag. What is no flag is taken for one that is set.
    fn is_set(&self, number: u32) -> bool {
        !matches!(self.last(number), None | Some(Field::Number(0)))
    }
}
