//! Ground state of a node: bodies in an OCI layout, rows, journal; and the index derived from it
