//! The status of a volume, as upstream names it.
//!
//! ```text
//!  creating ─► available ◄─► reserved ─► attaching ─► in-use ─► detaching ─► available
//!     │            │ ▲                                    │
//!     ▼            ▼ │ (extending, retyping, uploading, backing-up, restoring-backup, awaiting-transfer, maintenance)
//!   error       deleting ─► gone (or error_deleting)
//! ```

use serde::{Deserialize, Serialize};

macro_rules! statuses {
    ($($name:ident = $text:literal),* $(,)?) => {
        /// The status of a volume.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum Status {
            $(#[doc = $text] #[serde(rename = $text)] $name,)*
        }
        impl Status {
            /// Upstream's word.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
            /// The status of a word.
            #[must_use]
            pub fn parse(word: &str) -> Option<Self> {
                match word { $($text => Some(Self::$name),)* _ => None }
            }
        }
    };
}

statuses! {
    Creating = "creating", Available = "available", Reserved = "reserved", Attaching = "attaching",
    Detaching = "detaching", InUse = "in-use", Maintenance = "maintenance", Deleting = "deleting",
    AwaitingTransfer = "awaiting-transfer", Error = "error", ErrorDeleting = "error_deleting",
    ErrorManaging = "error_managing", Managing = "managing", BackingUp = "backing-up",
    RestoringBackup = "restoring-backup", ErrorBackingUp = "error_backing-up",
    ErrorRestoring = "error_restoring", ErrorExtending = "error_extending", Downloading = "downloading",
    Uploading = "uploading", Retyping = "retyping", Extending = "extending", Unmanaging = "unmanaging",
}

impl Status {
    /// Whether its bytes are being made in it.
    #[must_use]
    pub const fn filling(self) -> bool {
        matches!(
            self,
            Self::Creating | Self::Downloading | Self::RestoringBackup | Self::Maintenance | Self::Managing
        )
    }
    /// Whether a volume in it may be deleted (and has no attachment).
    #[must_use]
    pub const fn deletable(self) -> bool {
        matches!(
            self,
            Self::Available
                | Self::Error
                | Self::ErrorRestoring
                | Self::ErrorExtending
                | Self::ErrorManaging
                | Self::ErrorDeleting
                | Self::ErrorBackingUp
        )
    }
}
