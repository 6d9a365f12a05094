//! A simulated node: the agent contract without a machine.
