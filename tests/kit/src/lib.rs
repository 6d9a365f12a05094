//! A whole cloud in one process, for tests.
