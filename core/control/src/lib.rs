//! Work queues, the reconciler runtime, stored step lists.
