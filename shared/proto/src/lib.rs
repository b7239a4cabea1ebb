//! Wire types: ids, amounts, time, requests, stamps, receipts; strict CBOR.
