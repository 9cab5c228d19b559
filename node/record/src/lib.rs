//! What a record is: canonical JSON, CID, labels, referrers, validation; no I/O
