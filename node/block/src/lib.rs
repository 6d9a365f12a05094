//! Disks: image formats, overlays, the base-image cache.
