//! Which datagram goes to which client when, and what its answer means.
