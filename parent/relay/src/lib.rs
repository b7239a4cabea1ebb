//! casemate-parent: peer relay, request API, store.
