//! Generated gRPC code, and nothing else: [`v1`] is `evermint.v1`, what clients speak;
//! [`openshell`] is what OpenShell's clients speak; [`replica::v1`] is what replicas speak among
//! themselves.
//!
//! The documentation of every message stands in the proto files and here alike. A message that
//! holds a secret shows `…` in its place when it is printed with `{:?}`.

/// `evermint.v1`.
#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::unwrap_used,
    clippy::large_futures,
    reason = "generated"
)]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/evermint.v1.rs"));
    include!(concat!(env!("OUT_DIR"), "/evermint.v1.debug.rs"));

    /// The server of `Bundles` whose answers take the bundle encoded, as a server keeps it.
    pub mod ready {
        include!(concat!(env!("OUT_DIR"), "/ready/evermint.v1.rs"));
        include!(concat!(env!("OUT_DIR"), "/ready/evermint.v1.debug.rs"));
    }
}

/// The part of OpenShell's API that concerns credentials, as of the commit that its proto files
/// name.
#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    rustdoc::all,
    clippy::all,
    clippy::unwrap_used,
    clippy::large_futures,
    reason = "generated"
)]
pub mod openshell {
    /// Providers, profiles, refreshes, sandboxes.
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/openshell/openshell.v1.rs"));
        include!(concat!(env!("OUT_DIR"), "/openshell/openshell.v1.debug.rs"));
    }

    /// Objects that several services share.
    pub mod datamodel {
        /// The first version.
        pub mod v1 {
            include!(concat!(
                env!("OUT_DIR"),
                "/openshell/openshell.datamodel.v1.rs"
            ));
            include!(concat!(
                env!("OUT_DIR"),
                "/openshell/openshell.datamodel.v1.debug.rs"
            ));
        }
    }

    /// Policies and settings of sandboxes.
    pub mod sandbox {
        /// The first version.
        pub mod v1 {
            include!(concat!(
                env!("OUT_DIR"),
                "/openshell/openshell.sandbox.v1.rs"
            ));
        }
    }

    /// Inference routes.
    pub mod inference {
        /// The first version.
        pub mod v1 {
            include!(concat!(
                env!("OUT_DIR"),
                "/openshell/openshell.inference.v1.rs"
            ));
            include!(concat!(
                env!("OUT_DIR"),
                "/openshell/openshell.inference.v1.debug.rs"
            ));
        }
    }

    /// The descriptors of all of them, for gRPC reflection.
    pub const FILE_DESCRIPTOR_SET: &[u8] =
        include_bytes!(concat!(env!("OUT_DIR"), "/openshell.bin"));
}

/// What replicas speak among themselves.
pub mod replica {
    /// The first version.
    #[allow(
        missing_docs,
        unreachable_pub,
        unused_qualifications,
        clippy::all,
        clippy::unwrap_used,
        clippy::large_futures,
        reason = "generated"
    )]
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/replica.rs"));
    }
}

/// The descriptors of `evermint.v1`, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/evermint.v1.bin"));
