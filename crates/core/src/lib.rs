//! Every decision of heirlock, as pure state machines without I/O, clock or randomness.
