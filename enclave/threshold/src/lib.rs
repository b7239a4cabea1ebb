//! Drivers over the threshold signing libraries, without I/O: key generation, triples, signing.
