//! casemate-enclave: the node behind its one door.
