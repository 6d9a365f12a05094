//! The node agent: makes the machine match its slice.
