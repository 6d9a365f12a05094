//! The control plane's side of the agent contract: slices, sessions, observed state.
